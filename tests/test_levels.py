"""fenwick(l): one input for all levels of T, in every order the oracle's gather of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from drawn import close, draw, floats, span, token
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import smac
from smac.errors import LaunchError, PlanError, SpecError
from smac.levels import expand, levels_of
from smac.show import show
from smac.spec import specialise

HEAD = """\
smac = 1
name = "levels"
[axes]
E = "levels of T"
G = "group of H"
[inputs]
q = "B T H N"
k = "B T H N"
v = "B T H P"
{inputs}
[let]
{let}
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q"
K = "k"
V = "v"
L = '{L}'
[output]
y = "Y"
[sizes]
T = 20
H = 4
G = 2
N = 3
P = 2
"""
ORDERS = ("linear", "chunked", "quadratic")


def text(L: str, let: str = "", **inputs: str) -> str:
    """A spec with mask L, that reads these inputs (axes, or a TOML value)."""
    lines = (f"{n} = {a if a.startswith('{') else repr(a)}" for n, a in inputs.items())
    return HEAD.format(inputs="\n".join(lines), let=let, L=L)


#: Weights by T and head, by head alone, of a group, in another order of axes, through a let, of two
#: inputs, turned upside down, beside other masks.
CASES = {
    "decayed": text("fenwick(l) * semiseparable(g)", l="B T H E", g="B T H"),
    "fixed": text("fenwick(l)", l="H E"),
    "shared": text("fenwick(l) * decay(0.9)", l="E"),
    "of_groups": text("fenwick(l) * decay(a)", l="T E G", a="H"),
    "levels_first": text("fenwick(l)", l="E B T H"),
    "by_let": text("fenwick(w) + diagonal(u)", let='w = "softplus(l) * r"', l="B T H E", r="H E",
                   u="H"),
    "default": text("fenwick(l)", l='{axes = "B T H E", default = 1}'),
    "turned": text("strict(transpose(fenwick(l) * decay(0.9))) + fenwick(m)", l="B T H E",
                   m="T E"),
}  # fmt: skip


def compiled(spec: str, order: str) -> smac.Op:
    """The op, with chunks that a short sequence crosses."""
    return smac.compile(spec, target="torch", order=order, chunk=None if order == "linear" else 8)


def held(op: smac.Op, inputs: dict[str, Tensor]) -> None:
    """Values and gradients are the oracle's."""
    y, exact = op(**inputs), op.reference(**inputs)
    close(y, exact)
    w = torch.randn_like(exact)
    leaves = floats(inputs)
    for a, b in zip(torch.autograd.grad(y, leaves, w, allow_unused=True),
                    torch.autograd.grad(exact, leaves, w, allow_unused=True), strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            close(a, b)


@given(st.integers(0, 2**40))
def test_levels_are_those_that_two_tokens_can_meet_at(T: int) -> None:
    n = levels_of(T)
    assert 2 ** (n - 1) >= T, "blocks of the highest level hold all tokens"
    assert n == 1 or 2 ** (n - 2) < T, "and those of the one below do not"


def test_levels_are_the_bits_that_positions_differ_in() -> None:
    """The matrix entry by entry, in plain Python: the oracle's gather is held to it."""
    T, op = 21, compiled(CASES["fixed"], "quadratic")
    x = draw(op.spec, T=T, B=1, H=2, N=1, P=T, grad=False)
    x |= {"q": torch.ones_like(x["q"]), "k": torch.ones_like(x["k"]),
          "v": torch.eye(T, dtype=torch.float64)[None, :, None].repeat(1, 1, 2, 1)}  # fmt: skip
    l = x["l"][0].tolist()  # noqa: E741
    L = torch.tensor([[l[(t ^ s).bit_length()] if t >= s else 0.0 for s in range(T)]
                      for t in range(T)], dtype=torch.float64)  # fmt: skip
    assert torch.equal(op.reference(**x)[0, :, 0], L)
    close(op(**x)[0, :, 0], L)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("T", [1, 2, 63, 64, 65, 300])
def test_log_linear_at_any_length(order: str, T: int) -> None:
    op = smac.compile("log_linear", target="torch", order=order)
    held(op, draw(op.spec, T=T, B=1, H=2, N=4, P=3))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", CASES)
def test_every_way_to_write_weights(name: str, order: str) -> None:
    op = compiled(CASES[name], order)
    held(op, draw(op.spec, T=21, H=4, G=2))
    if name == "default":
        absent = draw(op.spec, T=21, H=4, absent=("l",))
        held(op, absent)
        close(op(**absent), smac.compile(text("causal()"), target="torch")(**absent))


def test_weights_of_levels_that_T_does_not_reach_are_not_read() -> None:
    """As many levels are walked as T has; those above get no gradient but zeros."""
    op = compiled("log_linear", "chunked")
    x = draw(op.spec, T=20, E=9)
    few = {**x, "l": x["l"][..., :6]}
    assert torch.equal(op(**x), op(**few))
    (g,) = torch.autograd.grad(op(**x).square().sum(), [x["l"]])
    assert g.shape == x["l"].shape
    assert g[..., :6].abs().sum() > 0
    assert not g[..., 6:].any()
    ranks = {len(made.runnable.program.buffers) for made in op._launchers.values()}
    assert len(ranks) == 1, "one program for a number of levels"
    with pytest.raises(LaunchError, match=(
        r"^log_linear: l: expected E ≥ 6, the levels of T = 20 \(⌈log₂ T⌉ \+ 1\), got 5$"
    )):  # fmt: skip
        op(**{**x, "l": x["l"][..., :5]})
    with pytest.raises(LaunchError, match="expected E ≥ 6, the levels of T = 20"):
        op.reference(**{**x, "l": x["l"][..., :5]})


def test_states_have_a_rank_for_each_level_that_is_given() -> None:
    op = compiled("log_linear", "chunked")
    x = draw(op.spec, T=20, E=9)
    y, state = op(**x, return_state=True)
    exact, last = op.reference(**x, return_state=True)
    close(y, exact)
    close(state.S, last.S)
    assert state.S.shape == (2, 4, 9, 3, 2)
    assert op.init_state(B=2, H=4, N=3, P=2, T=20).S.shape == (2, 4, 6, 3, 2)
    assert op.init_state(B=2, H=4, N=3, P=2, E=9).S.shape == state.S.shape


@pytest.mark.parametrize("order", ["linear", "chunked"])
def test_states_go_on_as_far_as_levels_are_given(order: str) -> None:
    op = compiled("log_linear", order)
    x = draw(op.spec, T=32, E=6, grad=False)
    exact, end = op.reference(**x, return_state=True)
    first, middle = op(**span(op.spec, x, 0, 13), return_state=True)
    second, state = op(**span(op.spec, x, 13, 30), initial_state=middle, return_state=True)
    last = []
    for t in (30, 31):
        y, state = op.step(state, **token(op.spec, x, t))
        last.append(y)
    close(torch.cat([first, second, torch.stack(last, 1)], 1), exact)
    close(state.S, end.S)
    tail, _ = op.reference(**span(op.spec, x, 13, 32), initial_state=middle, return_state=True)
    close(tail, exact[:, 13:])
    with pytest.raises(LaunchError, match=(
        r"^log_linear: expected E ≥ 7, the levels of 33 tokens, 32 of them before this call; got 6$"
    )):  # fmt: skip
        op.step(state, **token(op.spec, x, 0))


def test_a_plan_knows_the_levels_of_its_length() -> None:
    op = smac.compile("log_linear", target="torch")
    for T, n in ((1, 1), (64, 7), (65, 8), (8192, 14)):
        plan = op.plan(T=T)
        assert plan.request.size("E") == n
        known = plan.request.mask.generators()
        assert known is not None
        assert known.rank == n
        assert plan.mask_text == "fenwick(l) * semiseparable(g)"
    assert op.plan(T=65, E=14).request.size("E") == 14
    for E in (7, 42):
        with pytest.raises(PlanError, match=f"found E = {E} at T = 65; expected 8 levels or more"):
            op.plan(T=65, E=E)


def test_expansion_is_a_sum_over_levels_with_names_of_its_own() -> None:
    spec = smac.load(text("fenwick(l) * decay(0.9) * window(size(N)) + diagonal(l_1)",
                          l="B T H E", l_1="H"))  # fmt: skip
    made = expand(specialise(spec), 3)
    assert made.parts == {"l": ("l__0", "l__1", "l__2")}
    assert [i.name for i in made.spec.inputs] == ["q", "k", "v", "l__0", "l__1", "l__2", "l_1"]
    assert all("E" not in i.axes for i in made.spec.inputs)
    assert show(made.spec.contraction.L) == (
        "(row(l__0) * level(0) + row(l__1) * level(1) + row(l__2) * level(2)) * decay(0.9) * "
        "window(size(N)) + diagonal(l_1)")  # fmt: skip
    held(compiled(str(spec), "quadratic"), draw(spec, T=9))


def test_in_place_of_the_axis_is_any_layout() -> None:
    """A view of a wider projection, levels first in memory."""
    op = compiled("log_linear", "chunked")
    x = draw(op.spec, T=20, E=6, grad=False)
    wide = torch.randn(2, 20, 3, 4, 6, dtype=torch.float64)
    x["l"] = wide[:, :, 1]
    same = {**x, "l": x["l"].permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)}
    assert torch.equal(op(**x), op(**same))
    close(op(**x), op.reference(**x))


def test_traced_calls_take_the_one_input() -> None:
    op = compiled("log_linear", "chunked")
    x = draw(op.spec, T=20, E=6)
    names = ",".join(x)
    made = torch.ops.smac.call(op._text, names, list(x.values()), None, "", [], 0, False, False)
    close(made[0], op(**x))
    (g,) = torch.autograd.grad(made[0].sum(), [x["l"]])
    (due,) = torch.autograd.grad(op.reference(**x).sum(), [x["l"]])
    close(g, due)
    _, S, *_ = torch.ops.smac.call(op._text, names, list(x.values()), None, "", [], 0, True, False)
    assert S.shape == (2, 4, 6, 3, 2)


@pytest.mark.parametrize(("change", "message"), [
    (("fenwick(l)", "row(l) * causal()"),
     "row(x): 'l' carries E, the levels of T; only fenwick(l) takes them"),
    (('l = "B T H E"', 'l = "B T H"'), "fenwick(l): 'l' must carry the levels of T: declare E = "
     '"levels of T" in [axes], and the input as "B T H E"'),
    (('Q = "q ', 'Q = "l * q '), "'l * q / sqrt(size(N))' carries E; expected axes among B T H N"),
    (('"Y"', '"Y + l"'), "'Y + l' carries E; expected axes among B T H P"),
    (("[sizes]", "[sizes]\nE = 14"), "unknown axis 'E'; expected one of B, T, W, H, N, P"),
    (("size(N)", "size(E)"), "size(E): unknown axis; expected one of B, H, N, P, T, W"),
    (('L = "fenwick(l)', "L = 'entry(\"l\")'  # \""),
     "entry: 'l' carries the levels of T; write fenwick(l), a mask of its own"),
    (('"levels of T"', '"levels of T"\nF = "levels of T"'),
     "a second axis of levels; expected one, for all inputs"),
    (('l = "B T H E"', 'l = "W H E"'), "carries E, the levels of T, beside W or S; expected T"),
])  # fmt: skip
def test_errors(change: tuple[str, str], message: str) -> None:
    spec = str(smac.load("log_linear"))
    assert change[0] in spec
    with pytest.raises(SpecError) as e:
        smac.load(spec.replace(*change))
    assert str(e.value).split(": ", 2)[2] == message


def test_a_spec_with_levels_is_text_like_any_other() -> None:
    spec = smac.load("log_linear")
    assert smac.load(str(spec)) == spec
    assert repr(spec).splitlines()[1].endswith("g[B T H], l[B T H E]")
    built: dict[str, Any] = {
        "inputs": {"v": "B T H P", "l": "T E"}, "axes": {"E": "levels of T"}, "output": {"y": "Y"},
        "contraction": {"equation": "TN,SN,SP,TS->TP", "Q": "1", "K": "1", "V": "v",
                        "L": "fenwick(l)"}}  # fmt: skip
    made = smac.Spec("built", **built)
    assert made.levels == "E"
    assert smac.load(str(made)) == made


def test_levels_inside_chunks_have_no_states_on_triton() -> None:
    """Chunks of 64 at T = 16384 carry 8 of 15 levels; from a state, which may stand anywhere, all.
    Work grows with T log T."""
    op = smac.compile("log_linear", target="triton")
    sizes = {"T": 16384, "B": 1, "H": 16, "N": 64, "P": 64}
    for backward in (False, True):
        plan = op.plan(dtype="bfloat16", device="h100", backward=backward, **sizes)
        assert (plan.chosen.order, plan.chosen.schedule, plan.chosen.chunk) == (
            "chunked", "chunks", 64)  # fmt: skip
        twice = op.plan(dtype="bfloat16", device="h100", backward=backward,
                        **{**sizes, "T": 32768})  # fmt: skip
        assert twice.chosen.flops < 2 * plan.chosen.flops * 16 / 14
    for state, count in ((False, 8), (True, 15)):
        text = op.source("triton", dtype="bfloat16", device="h100", state=state, **sizes)
        assert f"i_lane = i_program % {count}\n" in text
    with pytest.raises(PlanError, match=r"takes a rank of at most 8 on schedule 'sweep', found "
                       r"rank 14; use schedule='chunks'"):  # fmt: skip
        smac.compile("log_linear", target="triton", order="chunked", schedule="sweep").plan(
            dtype="bfloat16", device="h100", **sizes)  # fmt: skip


def test_resets_are_seen_in_products() -> None:
    from smac.masks import build
    from smac.masks.lanes import resets_every

    spec = specialise(smac.load(text("level(3) * document(ids) * semiseparable(g) + causal()",
                                     ids="B T", g="B T H")))  # fmt: skip
    known = build(spec.contraction.L, spec).generators()
    assert known is not None
    found = [[resets_every(x, n) for n in (4, 8, 12, 16)] for x in known.lanes]
    assert sorted(found) == [[False] * 4, [False, True, False, True]]
