"""States: what a sequence leaves behind continues it, token by token or piece by piece."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from drawn import COUNTED, LEVELS, STATEFUL, close, draw, floats, span, token
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

import smac
from smac.runtime.state import State

#: Fields of each spec's State, and the shape of S at B=2, H=4, N=3, P=2.
FIELDS = {"linear_attention": ("S", "z"), "packed_ssd": ("S", "last"),
          **dict.fromkeys(COUNTED, ("S", "pos"))}  # fmt: skip
SHAPES = {**dict.fromkeys(("gamma_memory", "mamba3", "multiscale", "rwkv6", "semiseparable2",
                           "xpos"), (2, 4, 2, 3, 2)), "log_linear": (2, 4, 7, 3, 2)}  # fmt: skip


def parts(state: State) -> dict[str, Any]:
    """The fields that are there."""
    return {n: x for n in ("S", "z", "last", "ring", "pos")
            if (x := getattr(state, n)) is not None}  # fmt: skip


def close_states(a: State, b: State) -> None:
    assert parts(a).keys() == parts(b).keys()
    for name, x in parts(a).items():
        if name == "pos":
            assert x == b.pos
        else:
            close(x.double(), parts(b)[name].double())


@pytest.mark.parametrize("order", ["linear", "chunked"])
@pytest.mark.parametrize("name", STATEFUL)
def test_the_last_state_is_the_oracles(name: str, order: str) -> None:
    op = smac.compile(name, order=order, chunk=None if order == "linear" else 4)
    inputs = draw(op.spec)
    y, state = op(**inputs, return_state=True)
    exact, due = op.reference(**inputs, return_state=True)
    close(y, exact)
    close_states(state, due)
    assert tuple(parts(state)) == FIELDS.get(name, ("S",))
    assert state.S.shape == SHAPES.get(name, (2, 4, 3, 2))
    assert state.S.dtype == torch.float64


def test_no_state_passes_through_tiles() -> None:
    op = smac.compile("ssd", order="quadratic")
    with pytest.raises(smac.PlanError, match="state"):
        op(**draw(op.spec), return_state=True)


@pytest.mark.parametrize("cut", [0, 1, 4, 9])
@pytest.mark.parametrize("name", STATEFUL)
def test_two_halves_are_the_whole(name: str, cut: int) -> None:
    op = smac.compile(name)
    inputs = draw(op.spec, grad=False)
    y, last = op(**inputs, return_state=True)
    first, state = op(**span(op.spec, inputs, 0, cut), return_state=True)
    if cut:
        rest, end = op(**span(op.spec, inputs, cut, 9), initial_state=state, return_state=True)
    else:
        rest, end = op(**inputs, initial_state=state, return_state=True)
    close(torch.cat([first, rest], 1), y)
    close_states(end, last)


@pytest.mark.parametrize("name", STATEFUL)
def test_steps_are_the_whole(name: str) -> None:
    op = smac.compile(name)
    inputs = draw(op.spec, grad=False)
    y, last = op(**inputs, return_state=True)
    sizes = {a: n for a, n in {"B": 2, "H": 4, "G": 2, "N": 3, "P": 2, "E": LEVELS}.items()
             if any(a in i.axes for i in op.spec.inputs)}  # fmt: skip
    state = op.init_state(**sizes, dtype="float64")
    for t in range(9):
        row, state = op.step(state, **token(op.spec, inputs, t))
        assert row.shape == (2, 4, 2)
        close(row, y[:, t])
    close_states(state, last)


@pytest.mark.parametrize("name", ["ssd", "linear_attention", "packed_ssd"])
def test_gradients_pass_through_states(name: str) -> None:
    op = smac.compile(name)
    inputs = draw(op.spec)
    _, start = op.reference(**draw(op.spec, seed=5, grad=False), return_state=True)
    leaves = [x.requires_grad_() for x in (start.S, start.z) if x is not None]
    results = []
    for run in (op, op.reference):
        y, state = run(**inputs, initial_state=start, return_state=True)
        g = torch.Generator().manual_seed(7)
        total = sum((x * torch.randn(x.shape, generator=g, dtype=torch.float64)).sum()
                    for x in (y, state.S, state.z) if x is not None)  # fmt: skip
        results.append(torch.autograd.grad(total, [*floats(inputs), *leaves]))
    for a, b in zip(*results, strict=True):
        close(a, b)


def test_no_tokens_pass_the_state_through() -> None:
    op = smac.compile("linear_attention")
    inputs = draw(op.spec, T=0)
    _, start = op(**draw(op.spec, seed=3, grad=False), return_state=True)
    start.S.requires_grad_()
    y, state = op(**inputs, initial_state=start, return_state=True)
    assert y.shape == (2, 0, 4, 2)
    close_states(state, start)
    (g,) = torch.autograd.grad(state.S.sum(), start.S)
    assert torch.equal(g, torch.ones_like(g))
    _, zero = op(**inputs, return_state=True)
    assert not zero.S.any()


def test_a_tensor_is_a_state_where_S_is_all() -> None:
    op = smac.compile("ssd")
    inputs = draw(op.spec, grad=False)
    _, state = op(**inputs, return_state=True)
    assert torch.equal(op(**inputs, initial_state=state.S), op(**inputs, initial_state=state))
    y, _ = op.step(state.S, **token(op.spec, inputs, 0))
    assert torch.equal(y, op.step(state, **token(op.spec, inputs, 0))[0])


def test_a_step_may_write_in_place() -> None:
    op = smac.compile("packed_ssd")
    inputs = draw(op.spec, grad=False)
    row = token(op.spec, inputs, 4)
    _, state = op(**span(op.spec, inputs, 0, 4), return_state=True)
    y, new = op.step(state, **row)
    pointer = state.S.data_ptr()
    again, out = op.step(state, **row, out_state=state)
    assert torch.equal(again, y)
    assert out.S.data_ptr() == pointer
    close_states(state, new)
    with pytest.raises(smac.LaunchError) as e:
        op.step(state, **row, out_state=State(state.S[:1], last=state.last))
    assert str(e.value) == "out_state.S: expected shape (2, 4, 3, 2), got shape (1, 4, 3, 2)"


def test_a_step_is_differentiable() -> None:
    op = smac.compile("ssd")
    inputs = draw(op.spec)
    state, rows = op.init_state(B=2, H=4, N=3, P=2, G=2, dtype="float64"), []
    for t in range(3):
        row, state = op.step(state, **token(op.spec, inputs, t))
        rows.append(row)
    found = torch.autograd.grad(torch.stack(rows, 1).square().sum(), floats(inputs))
    exact = op.reference(**inputs)[:, :3]
    for a, b in zip(found, torch.autograd.grad(exact.square().sum(), floats(inputs)), strict=True):
        close(a, b)


@pytest.mark.parametrize(
    ("name", "sizes", "shapes"),
    [
        ("ssd", {"B": 3}, {"S": (3, 80, 128, 64)}),
        ("multiscale", {"N": 5, "P": 7}, {"S": (1, 16, 2, 5, 7)}),
        ("linear_attention", {}, {"S": (1, 16, 64, 64), "z": (1, 16, 64)}),
        ("packed_ssd", {"B": 2, "H": 2}, {"S": (2, 2, 128, 64), "last": (2,)}),
    ],
)
def test_the_first_state(name: str, sizes: dict[str, int], shapes: dict[str, Any]) -> None:
    state = smac.compile(name).init_state(**sizes)
    assert {n: tuple(x.shape) for n, x in parts(state).items()} == shapes
    assert state.S.dtype == torch.float32
    assert not state.S.any()


def test_a_state_is_a_pytree() -> None:
    state = State(torch.ones(2, 3), last=torch.zeros(2, dtype=torch.int64))
    leaves, tree = pytree.tree_flatten(state)
    assert [x.shape for x in leaves] == [(2, 3), (2,)]
    back = pytree.tree_unflatten(leaves, tree)
    assert isinstance(back, State)
    assert back.S is state.S
    assert back.z is None
    doubled = pytree.tree_map(lambda x: 2 * x, state)
    assert torch.equal(doubled.S, 2 * state.S)
    assert repr(state) == "State(S=(2, 3), last=(2,), torch.float32, cpu)".replace("torch.", "")


@pytest.mark.parametrize(
    "use",
    [
        lambda op, x: op(**x, return_state=True),
        lambda op, x: op(**x, initial_state=torch.zeros(2, 4, 3, 2)),
        lambda op, x: op.step(torch.zeros(2, 4, 3, 2), **token(op.spec, x, 0)),
        lambda op, x: op.init_state(),
    ],
)
def test_a_mask_without_generators_says_so(use: Any) -> None:
    op = smac.compile("toeplitz")
    with pytest.raises(smac.PlanError) as e:
        use(op, draw(op.spec, grad=False))
    assert str(e.value) == (
        "toeplitz: no state: mask 'toeplitz(h)' has no generators (no finite state); step, "
        "init_state, initial_state and return_state need generators")


@pytest.mark.parametrize(
    ("name", "start", "text"),
    [
        ("ssd", torch.zeros(2, 4, 2, 3, dtype=torch.float64),
         "initial_state.S has axes B H N P: expected shape (2, 4, 3, 2), got (2, 4, 2, 3)"),
        ("ssd", torch.zeros(2, 4, 3, 2),
         "initial_state.S: expected torch.float64, the accumulator's type, got torch.float32; "
         "pass initial_state.S.to(torch.float64)"),
        ("ssd", [1.0], "initial_state: expected a smac.State or a tensor S, got list"),
        ("ssd", torch.zeros(2, 4, 3, 2, dtype=torch.float64, device="meta"),
         "initial_state.S: expected device cpu (as the inputs), got meta"),
        ("linear_attention", torch.zeros(2, 4, 3, 2, dtype=torch.float64),
         "initial_state: expected a smac.State with S, z, got Tensor"),
        ("linear_attention", State(torch.zeros(2, 4, 3, 2, dtype=torch.float64)),
         "initial_state.z is missing; this spec needs S, z"),
        ("packed_ssd", State(torch.zeros(2, 4, 3, 2, dtype=torch.float64), last=torch.zeros(2)),
         "initial_state.last: expected integers (document ids), got torch.float32"),
        ("xpos", torch.zeros(2, 4, 2, 3, 2, dtype=torch.float64),
         "initial_state: expected a smac.State with S, pos, got Tensor"),
        ("xpos", State(torch.zeros(2, 4, 2, 3, 2, dtype=torch.float64)),
         "initial_state.pos is missing; this spec needs S, pos"),
        *(("xpos", State(torch.zeros(2, 4, 2, 3, 2, dtype=torch.float64), pos=pos),
           "initial_state.pos: expected a whole number of tokens, or an integer tensor without "
           f"axes on cpu, got {got}")
          for pos, got in ((-1, "-1"), (2.0, "2.0"),
                           (torch.zeros(2), "torch.float32 of shape (2,)"),
                           (torch.zeros((), dtype=torch.int64, device="meta"), "one on meta"))),
    ],
)  # fmt: skip
def test_a_state_that_does_not_fit(name: str, start: Any, text: str) -> None:
    op = smac.compile(name)
    with pytest.raises(smac.LaunchError) as e:
        op(**draw(op.spec, grad=False), initial_state=start)
    assert str(e.value) == text


POSITION = """
smac = 1
name = "clock"
[inputs]
k = "B T H N"
v = "B T H P"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "k * sin(index(T))"
K = "k * {factor}"
V = "v"
L = "{mask}"
[output]
y = "Y + index(T)"
"""
#: A text with all that counts: a rotary factor, a turn that decays, a block of 3, a Fenwick tree.
CLOCK = POSITION.format(factor="cos(0.7 * index(T))", mask=(
    "decay(0.9) * wave(0.4, 1) + semiseparable(where(index(T) % 3 == 0, -1000, -0.1)) "
    "+ 2 * level(2) + row(index(T) + 1) * strict(level(1))"))  # fmt: skip
TEXTS = {**{n: n for n in STATEFUL}, "clock": CLOCK}
ORDERS = (("chunked", 4), ("linear", None))


@pytest.mark.parametrize("start", [0, 5, 8])
@pytest.mark.parametrize(("order", "chunk"), ORDERS)
@pytest.mark.parametrize("name", [*COUNTED, "clock"])
def test_decoding_goes_on_at_the_prompts_end(name: str, order: str, chunk: int | None,
                                             start: int) -> None:
    """A prompt, then token by token: the whole; one launcher for the steps, wherever they are."""
    op = smac.compile(TEXTS[name], order=order, chunk=chunk, target="torch")
    inputs = draw(op.spec, T=23, grad=False)
    y, last = op(**inputs, return_state=True)
    exact, due = op.reference(**inputs, return_state=True)
    close(y, exact)
    close_states(last, due)
    prompt, state = op(**span(op.spec, inputs, 0, start), return_state=True)
    assert state.pos == start
    rows = [prompt]
    for t in range(start, 23):
        row, state = op.step(state, **token(op.spec, inputs, t))
        rows.append(row.unsqueeze(1))
    close(torch.cat(rows, 1), y)
    close_states(state, last)
    assert state.pos == 23
    assert len(op._launchers) == 3


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(st.sampled_from(sorted(TEXTS)), st.sampled_from(ORDERS),
       st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 2**40))  # fmt: skip
def test_pieces_of_any_lengths_are_the_whole(name: str, how: tuple[str, int | None],
                                             lengths: list[int], pos: int) -> None:
    """From any state, at any position that lanes have digits for."""
    op = smac.compile(TEXTS[name], order=how[0], chunk=how[1], target="torch")
    total = sum(lengths)
    levels = {"E": 14} if op.spec.levels else {}
    inputs = draw(op.spec, T=total, grad=False, **levels)
    pos = pos % 1000 if name in ("gamma_memory", "clock") else pos % 8000 if levels else pos
    _, state = op.reference(**draw(op.spec, T=7, seed=3, grad=False, **levels),
                            return_state=True)  # fmt: skip
    state = replace(state, pos=None if state.pos is None else pos)
    y, last = op(**inputs, initial_state=state, return_state=True)
    exact, due = op.reference(**inputs, initial_state=state, return_state=True)
    # An angle of 2⁴⁰ turns is right to 2⁻¹² in float64, in the oracle too.
    tolerance = 1e-10 if pos < 2**12 else 1e-2
    close(y, exact, tolerance)
    close(last.S, due.S, tolerance)
    pieces, at = [], 0
    for n in lengths:
        piece, state = op(**span(op.spec, inputs, at, at + n), initial_state=state,
                          return_state=True)  # fmt: skip
        pieces.append(piece)
        at += n
    close(torch.cat(pieces, 1), y)
    close_states(state, last)


@pytest.mark.parametrize(("order", "chunk"), ORDERS)
@pytest.mark.parametrize("name", [*COUNTED, "clock"])
def test_gradients_go_back_through_positions(name: str, order: str, chunk: int | None) -> None:
    op = smac.compile(TEXTS[name], order=order, chunk=chunk, target="torch")
    inputs = draw(op.spec, T=13)
    whole = op.reference(**inputs)
    g = torch.Generator().manual_seed(1)
    dy = torch.randn(whole.shape, generator=g, dtype=torch.float64)
    due = torch.autograd.grad(whole, floats(inputs), dy)
    first, state = op(**span(op.spec, inputs, 0, 6), return_state=True)
    rest = op(**span(op.spec, inputs, 6, 13), initial_state=state)
    found = torch.autograd.grad(torch.cat([first, rest], 1), floats(inputs), dy)
    for a, b in zip(found, due, strict=True):
        close(a, b)


def test_positions_are_counted_in_place() -> None:
    """By out_state, whose number moves on; by a tensor, which is written where it is."""
    op = smac.compile("xpos", target="torch")
    inputs = draw(op.spec, grad=False)
    y = op(**inputs)
    for pos in (0, torch.zeros((), dtype=torch.int64)):
        state = replace(op.init_state(B=2, H=4, N=3, P=2, dtype="float64"), pos=pos)
        for t in range(9):
            row, out = op.step(state, **token(op.spec, inputs, t), out_state=state)
            close(row, y[:, t])
            assert out is state
        assert int(state.pos) == 9
        assert (state.pos is pos) == isinstance(pos, torch.Tensor)
    assert repr(state) == "State(S=(2, 4, 2, 3, 2), pos=(), float64, cpu)"


def test_a_graph_does_not_keep_a_position(monkeypatch: pytest.MonkeyPatch) -> None:
    op = smac.compile("xpos", target="torch")
    inputs = draw(op.spec, grad=False)
    monkeypatch.setattr("smac.runtime.launch.capturing", lambda: True)
    _, state = op(**inputs, return_state=True)
    with pytest.raises(smac.LaunchError) as e:
        op(**inputs, initial_state=state)
    assert str(e.value) == (
        "xpos: found a state at token 9 in a CUDA graph, whose replays would all start there; "
        "expected its pos as a tensor: smac.State(state.S, …, pos=torch.tensor(state.pos, "
        "device='cuda'))")
    op(**inputs, initial_state=replace(state, pos=torch.tensor(9)))


@pytest.mark.parametrize(("name", "dtype", "pos", "grad", "why"), [
    ("gamma_memory", torch.bfloat16, 2**14 - 9, False,
     "gamma_memory: a sequence cannot be continued to 16384 tokens: the linear order loses 15 bits "
     "at T = 16384, where its lanes read positions; at most 14 may go in bfloat16; pass float64 "
     "inputs"),
    ("xpos", torch.float32, 2**13 - 9, True,
     "xpos: a sequence cannot be continued to 8192 tokens: the linear order loses 14 bits at "
     "T = 8192, in the gradient of an angle that reads positions; at most 13 may go in float32; "
     "pass float64 inputs"),
    ("log_linear", torch.float32, 2**24 - 8, False,
     "log_linear: a sequence cannot be continued to 16777217 tokens: they are counted in float32 "
     "on target torch, which has whole numbers up to 16777216; pass float64 inputs"),
    ("gamma_memory", torch.bfloat16, torch.tensor(5), False,
     "gamma_memory: found state.pos as a tensor, which nobody looks at; expected a number: the "
     "linear order has digits for 16383 tokens alone"),
])  # fmt: skip
def test_no_sequence_goes_on_where_digits_end(name: str, dtype: torch.dtype, pos: Any, grad: bool,
                                              why: str) -> None:
    op = smac.compile(name, order="linear", target="torch")
    inputs = draw(op.spec, dtype=dtype, grad=grad, E=26)
    _, state = op(**inputs, return_state=True)
    with pytest.raises(smac.PlanError) as e:
        op(**inputs, initial_state=replace(state, pos=pos))
    assert str(e.value) == why
    y = op(**inputs, initial_state=replace(state, pos=2**13 - 10))
    assert y.isfinite().all()


@pytest.mark.parametrize("text", [POSITION.format(factor="size(T)", mask="causal()"), "cosformer"])
def test_a_sequence_that_cannot_be_continued_is_refused(text: str) -> None:
    op = smac.compile(text)
    inputs = draw(op.spec, grad=False)
    y, state = op(**inputs, return_state=True)
    close(y, op.reference(**inputs))
    assert state.pos == 9
    with pytest.raises(smac.PlanError) as e:
        op(**inputs, initial_state=state)
    assert str(e.value) == (f"{op.spec.name}: a sequence cannot be continued from a state: the "
                            "spec reads size(T), which is not known before the end")  # fmt: skip


SHARED = """
smac = 1
name = "shared"
[inputs]
q = "B T N"
k = "B T N"
v = "B T P"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q"
K = "k"
V = "v"
L = "causal()"
[output]
y = "Y / (1 + Z * Z)"
"""


def test_axes_that_nobody_carries_are_no_axes_of_a_state() -> None:
    op = smac.compile(SHARED)
    inputs = draw(op.spec, grad=False)
    y, state = op(**inputs, return_state=True)
    exact, due = op.reference(**inputs, return_state=True)
    close(y, exact)
    assert state.S.shape == (2, 3, 2)
    close_states(state, due)
    again, _ = op(**inputs, initial_state=state, return_state=True)
    close(again, op.reference(**inputs, initial_state=due))


def per_head() -> tuple[smac.Op, dict[str, torch.Tensor]]:
    """Documents that differ from head to head, and inputs of 9 tokens."""
    text = str(smac.load("retnet")).replace('L = "decay(gamma)"',
                                            'L = "decay(gamma) * document(ids)"').replace(
        'gamma = "H"', 'gamma = "H"\nids = "B T H"')  # fmt: skip
    op = smac.compile(text, target="torch")
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 9, 4, 3, generator=g, dtype=torch.float64) for _ in range(3))
    ids = (torch.rand(2, 9, 4, generator=g) < 0.3).long().cumsum(1)
    return op, {"q": q, "k": k, "v": v, "gamma": torch.full((4,), 0.9).double(), "ids": ids}


def test_documents_of_heads_have_a_last_id_each() -> None:
    op, inputs = per_head()
    y, last = op(**inputs, return_state=True)
    assert torch.equal(last.last, inputs["ids"][:, -1])
    close_states(last, op.reference(**inputs, return_state=True)[1])
    first, state = op(**span(op.spec, inputs, 0, 4), return_state=True)
    rest, end = op(**span(op.spec, inputs, 4, 9), initial_state=state, return_state=True)
    close(torch.cat([first, rest], 1), y)
    close_states(end, last)
    one, _ = op.step(state, **token(op.spec, inputs, 4))
    close(one, y[:, 4])


def test_packed_documents_of_heads_continue() -> None:
    op, inputs = per_head()
    whole = {n: x[:1] if n != "gamma" else x for n, x in inputs.items()}
    y, last = op(**whole, return_state=True)
    ends = torch.tensor([0, 4, 4, 9])
    # The third sequence goes on where the first ended: together they are the whole.
    state = op(**span(op.spec, whole, 0, 4), return_state=True,
               cu_seqlens=torch.tensor([0, 0, 0, 4]))[1]  # fmt: skip
    after, end = op(**whole, cu_seqlens=ends, initial_state=state, return_state=True)
    close(after[:, 4:], y[:, 4:])
    assert end.last.shape == (3, 4)
    assert torch.equal(end.last[2], last.last[0])
