"""States: what a sequence leaves behind continues it, token by token or piece by piece."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from drawn import STATEFUL, close, draw, floats, span, token
from torch.utils import _pytree as pytree

import smac
from smac.runtime.state import State

#: Fields of each spec's State, and the shape of S at B=2, H=4, N=3, P=2.
FIELDS = {"linear_attention": ("S", "z"), "packed_ssd": ("S", "last")}
SHAPES = dict.fromkeys(("mamba3", "multiscale", "rwkv6", "semiseparable2"), (2, 4, 2, 3, 2))


def parts(state: State) -> dict[str, Any]:
    """The fields that are there."""
    return {n: x for n in ("S", "z", "last", "ring", "pos")
            if (x := getattr(state, n)) is not None}  # fmt: skip


def close_states(a: State, b: State) -> None:
    assert parts(a).keys() == parts(b).keys()
    for name, x in parts(a).items():
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
    sizes = {a: n for a, n in {"B": 2, "H": 4, "G": 2, "N": 3, "P": 2}.items()
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
    ("name", "given", "text"),
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
    ],
)  # fmt: skip
def test_a_state_that_does_not_fit(name: str, given: Any, text: str) -> None:
    op = smac.compile(name)
    with pytest.raises(smac.LaunchError) as e:
        op(**draw(op.spec, grad=False), initial_state=given)
    assert str(e.value) == text


POSITION = """
smac = 1
name = "clock"
[inputs]
k = "B T H N"
v = "B T H P"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "k"
K = "k * {factor}"
V = "v"
L = "causal()"
[output]
y = "Y"
"""


@pytest.mark.parametrize(
    ("factor", "why"),
    [
        ("cos(index(T))", "the spec reads index(T), which would start at 0 again"),
        ("size(T)", "the spec reads size(T), which is not known before the end"),
    ],
)
def test_a_sequence_that_cannot_be_continued_is_refused(factor: str, why: str) -> None:
    op = smac.compile(POSITION.format(factor=factor))
    inputs = draw(op.spec, grad=False)
    y, state = op(**inputs, return_state=True)
    close(y, op.reference(**inputs))
    assert state.pos == (9 if "index" in factor else None)
    with pytest.raises(smac.PlanError) as e:
        op(**inputs, initial_state=state)
    assert str(e.value) == f"clock: a sequence cannot be continued from a state: {why}"


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
