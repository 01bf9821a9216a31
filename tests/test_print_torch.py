"""Expressions as PyTorch code: printed, run, and compared with the oracle's reading of the tree."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smac.codegen.env import render
from smac.codegen.letters import Letters, contract, reduce, view
from smac.codegen.print_torch import FUNCTIONS, Scope, bare, closed
from smac.codegen.source import checked
from smac.codegen.torch import Helpers
from smac.errors import CodegenError
from smac.expr import T_POS, Call, Expr, Index, Name, Num, Size, call
from smac.reference import values as oracle
from smac.runtime.module import load

ORDER = ("B", "T", "H", "G", "N")
LENGTHS = {"B": 2, "T": 3, "H": 4, "G": 2, "N": 5}
AXES = {"x": ("B", "T", "H", "N"), "h": ("H",), "g": ("T", "G"), "u": (), "n": ("N",)}
ONE = ("exp", "sin", "cos", "tanh", "sigmoid", "softplus", "silu", "elu", "gelu", "relu", "abs",
       "logsigmoid", "expm1", "neg", "sign", "erf")  # fmt: skip
TWO = ("add", "sub", "mul", "minimum", "maximum", "lt", "ge", "eq", "chain")


def tensors() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(3)
    return {n: torch.randn([LENGTHS[a] for a in axes], generator=g, dtype=torch.float64)
            for n, axes in AXES.items()}  # fmt: skip


def printed(e: Expr) -> tuple[Tensor | float, tuple[str, ...] | None, str]:
    """What the printed code of `e` gives, the axes it claims, and the code."""
    scope = Scope(ORDER, {"G": "n_H // n_G"})
    for n, axes in AXES.items():
        scope.define(n, n, axes)
    scope.define("index_T", "index_T", ("T",))
    scope.count(e)
    code = scope.code(e)
    none = Helpers(packed=False, channel=False, tiles=False, math=False, moves=False)
    helpers = render("torch/helpers.py.jinja", helpers=none)
    lines = [f"n_{a} = {n}" for a, n in LENGTHS.items()]
    lines += ["acc, device = torch.float64, None", "index_T = torch.arange(n_T, dtype=acc)"]
    lines += scope.take_lines()
    body = "\n    ".join([*lines, f"return {code.text}"])
    text = f"import math\n\nimport torch\n{helpers}\n\ndef f({', '.join(AXES)}):\n    {body}\n"
    source = checked(text, "torch", ("f",))
    run: Callable[..., Tensor | float] = load(source.digest, source.text).f
    return run(**tensors()), code.axes, body


def due(e: Expr) -> oracle.Value:
    """The oracle's value; a group's tensors as heads."""
    found = {}
    for n, x in tensors().items():
        axes = AXES[n]
        if "G" in axes:
            x = x.repeat_interleave(2, axes.index("G"))
        found[n] = oracle.Value(tuple("H" if a == "G" else a for a in axes), x)
    scope = oracle.Scope(found, LENGTHS, frozenset(found), {}, torch.float64, torch.device("cpu"))
    return oracle.evaluate(e, scope)


def same(e: Expr) -> None:
    got, axes, body = printed(e)
    want = due(e)
    if axes is None:
        assert float(got) == pytest.approx(float(want.data), rel=1e-12, abs=1e-12), body
        return
    assert isinstance(got, Tensor)
    assert got.shape == torch.Size([LENGTHS[a] for a in axes]), body
    if "G" in axes:
        got, axes = got.repeat_interleave(2, axes.index("G")), tuple(
            "H" if a == "G" else a for a in axes)  # fmt: skip
    assert set(axes) == set(want.axes)
    torch.testing.assert_close(got.double(), want.to(axes), rtol=1e-12, atol=1e-12, msg=body)


def expressions() -> st.SearchStrategy[Expr]:
    leaves = st.sampled_from([*map(Name, AXES), Num(2), Num(-0.5), Size("N"), Index("T")])

    def grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        return st.one_of(
            st.builds(lambda f, a: call(f, a), st.sampled_from(ONE[:13]), inner),
            st.builds(lambda f, a, b: call(f, a, b), st.sampled_from(TWO[:-1]), inner, inner),
            st.builds(lambda c, a, b: call("where", call("lt", c, Num(0)), a, b),
                      inner, inner, inner),
            st.builds(lambda a: call("clamp", a, Num(-1), Num(1)), inner),
            st.builds(lambda a: call("div", a, call("add", Num(1), call("mul", a, a))), inner),
        )  # fmt: skip

    return st.recursive(leaves, grow, max_leaves=8)


@settings(max_examples=150, report_multiple_bugs=False)
@given(expressions())
def test_what_is_printed_is_what_is_meant(e: Expr) -> None:
    bounded = call("tanh", e)  # exp(exp(exp(x))) has no digits to compare
    if torch.isfinite(due(bounded).data).all():
        same(bounded)


@pytest.mark.parametrize("fn", sorted(set(FUNCTIONS) & (set(ONE) | {"sqrt", "log", "log1p"})))
def test_each_function(fn: str) -> None:
    if fn in ("sign", "erf"):  # made by derivatives alone: the oracle has no need of them
        got, _, _ = printed(call(fn, Name("x")))
        assert torch.equal(torch.as_tensor(got), getattr(torch, fn)(tensors()["x"]))
        return
    positive = call("add", Num(0.5), call("mul", Name("x"), Name("x")))
    same(call(fn, positive if fn in ("sqrt", "log", "log1p") else Name("x")))
    same(call("mul", call(fn, Num(0.5)), Name("h")))


def test_chain_is_zero_where_its_first_is() -> None:
    infinite = call("div", Name("h"), call("sub", Name("h"), Name("h")))
    e = call("chain", call("relu", Name("h")), infinite)
    got, _, _ = printed(e)
    assert isinstance(got, Tensor)
    assert (got[tensors()["h"] <= 0] == 0).all()


@pytest.mark.parametrize("fn", ["where", "minimum", "maximum", "clamp"])
def test_a_comparison_among_numbers_is_a_number(fn: str) -> None:
    below = call("lt", Name("h"), Num(0))
    args = {"where": (below, below, Num(2)), "clamp": (below, Num(0.25), Num(0.75))}
    same(call("exp", call(fn, *args.get(fn, (below, Name("x"))))))


def test_a_shared_call_is_computed_once() -> None:
    soft = call("softplus", Name("h"))
    _, _, body = printed(call("mul", soft, call("exp", soft)))
    assert body.count("_softplus(") == 1
    assert "return (e0 * torch.exp(e0))" in body


def test_small_things_are_computed_at_their_own_axes() -> None:
    _, _, body = printed(call("mul", call("exp", Name("h")), Name("x")))
    assert "return (torch.exp(h)[..., None] * x)" in body


@pytest.mark.parametrize(
    ("e", "why"),
    [
        (Name("w"), "no code for the name 'w' in this kernel"),
        (T_POS, "Pos is not a pointwise expression"),
        (Call("frobnicate", (Name("x"),)), "the torch target has no code for 'frobnicate'"),
    ],
)
def test_what_cannot_be_printed_says_so(e: Expr, why: str) -> None:
    with pytest.raises(CodegenError) as error:
        printed(e)
    assert str(error.value) == why


def test_parentheses() -> None:
    assert bare("(a + b)") == "a + b"
    assert bare("(a) + (b)") == "(a) + (b)"
    assert closed("a + b") == "(a + b)"
    assert closed("f(a)[0].b") == "f(a)[0].b"
    assert math.inf == printed(Num(math.inf))[0]


def test_letters() -> None:
    plain, grouped = Letters(("B", "E"), None), Letters(("B",), "G")
    assert plain.of(("B", "E", "T", "H", "N")) == "bdcihn"
    assert grouped.of(("B", "T", "H", "N"), row="j") == "bcjgrn"
    assert grouped.of(("T", "G"), chunks=False) == "ig"
    assert grouped.union("pc", "gb") == "bcgp"
    assert view("x", "bn", "bcn") == "x[:, None]"
    assert view("x", "nb", "bn") == "x.permute(1, 0)"
    assert view("x", "n", "bcn") == "x"
    assert view("x", "n", "bcn", True) == "x[None, None]"
    assert view("x", "b", "bcn") == "x[..., None, None]"
    with pytest.raises(ValueError, match="letters 'bz' do not all occur in 'bc'"):
        view("x", "bz", "bc")
    assert contract("bi", "bj", "bij") == '"bi,bj->bij"'
    assert reduce("x", "bcn", "nb") == "x.sum(1).permute(1, 0)"
