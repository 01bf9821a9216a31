"""Derivatives against torch's autograd in float64, kinks included, and common subexpressions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st

from smac.derive import cse, diff, simplify
from smac.expr import (
    DERIVED_FUNCTIONS,
    FUNCTIONS,
    OPERATORS,
    S_POS,
    T_POS,
    ZERO,
    At,
    Between,
    Call,
    Expr,
    Given,
    Name,
    Num,
    call,
    number,
    substitute,
    walk,
)  # fmt: skip
from smac.syntax import scalar, show

F = torch.nn.functional
X, Y = Name("x"), Name("y")
Tensor = torch.Tensor


def _as_float(compare: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: compare(a, b).to(a.dtype)


TORCH: dict[str, Callable[..., Tensor]] = {
    **{fn: getattr(torch, fn) for fn in (
        "exp", "expm1", "log", "log1p", "sqrt", "abs", "sin", "cos", "tanh", "sigmoid", "relu",
        "minimum", "maximum", "clamp", "erf", "sign", "sub", "mul", "div", "pow", "neg")},
    "add": torch.add, "logsigmoid": F.logsigmoid, "silu": F.silu, "elu": F.elu, "gelu": F.gelu,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "where": lambda c, a, b: torch.where(c != 0, a, b),
    "chain": lambda g, d: torch.where(g == 0, 0.0, g * d),
    **{fn: _as_float(getattr(torch, fn)) for fn in ("lt", "le", "gt", "ge", "eq", "ne")},
}  # fmt: skip


def run(e: Expr, env: dict[str, Tensor]) -> Tensor:
    """`e` by torch, element by element."""
    match e:
        case Num(value):
            return torch.full_like(next(iter(env.values())), value)
        case Name(id):
            return env[id]
        case Call(fn, args):
            return TORCH[fn](*(run(a, env) for a in args))
    raise AssertionError(e)


def by_autograd(e: Expr, x: Tensor, y: Tensor) -> Tensor:
    """∂e/∂x by torch."""
    x = x.clone().requires_grad_(True)
    out = run(e, {"x": x, "y": y})
    if not out.requires_grad:
        return torch.zeros_like(x)
    (grad,) = torch.autograd.grad(out.sum(), x, allow_unused=True)
    return torch.zeros_like(x) if grad is None else grad


def by_rule(e: Expr, x: Tensor, y: Tensor) -> Tensor:
    """∂e/∂x by us, evaluated by torch."""
    return run(diff(e, X), {"x": x, "y": y})


GRID = torch.tensor(
    [-800.0, -30.0, -3.0, -1.0, -0.5, -1e-3, 0.0, 1e-3, 0.5, 1.0, 2.0, 30.0, 800.0],
    dtype=torch.float64,
)
POSITIVE = ("log", "log1p", "sqrt")


@pytest.mark.parametrize("fn", sorted(fn for fn, n in (FUNCTIONS | {"erf": 1}).items() if n == 1))
def test_each_function_on_a_grid_with_its_kink(fn: str) -> None:
    x = GRID[GRID > 0] if fn in POSITIVE else GRID
    x = x[x < 700] if fn in ("exp", "expm1") else x
    e = call(fn, X)
    ours = by_rule(e, x, x)
    assert torch.isfinite(ours).all(), show(diff(e, X))
    torch.testing.assert_close(ours, by_autograd(e, x, x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("fn", ["minimum", "maximum", "add", "sub", "mul", "lt", "eq"])
def test_two_arguments_with_ties(fn: str) -> None:
    x, y = (a.reshape(-1) for a in torch.meshgrid(GRID, GRID, indexing="ij"))
    for e in (call(fn, X, Y), call(fn, Y, X), call(fn, X, X)):
        torch.testing.assert_close(by_rule(e, x, y), by_autograd(e, x, y))


@pytest.mark.parametrize(
    "text",
    [
        "clamp(x, -1, 2)", "clamp(y, x, 2 + 0 * y)", "clamp(y, -1 + y, x)", "clamp(x, x, y)",
        "clamp(y, x, x)", "clamp(y, 2 * x, x)",
    ],
)  # fmt: skip
def test_clamp_takes_its_ends_in(text: str) -> None:
    x, y = (a.reshape(-1) for a in torch.meshgrid(GRID, GRID, indexing="ij"))
    e = scalar(text)
    ours = by_rule(e, x, y)
    step = 1e-7  # away from ties the difference quotient decides
    quotient = (run(e, {"x": x + step, "y": y}) - run(e, {"x": x - step, "y": y})) / (2 * step)
    smooth = (x - y).abs() > 1e-3
    smooth &= (2 * x - y).abs() > 1e-3
    smooth &= (x != -1) & (x != 2) & (x != 1) & (x != 0)
    torch.testing.assert_close(ours[smooth], quotient[smooth], rtol=1e-5, atol=1e-5)
    if text == "clamp(x, -1, 2)":
        torch.testing.assert_close(ours, by_autograd(e, x, y))


@pytest.mark.parametrize(
    "text",
    [
        "x ** 2", "x ** 3", "x ** -1", "x ** 0.5", "x ** 0", "x ** 1", "x ** y", "y ** x",
        "2 ** x", "x / y", "y / x", "x ** -0.5",
    ],
)  # fmt: skip
def test_powers_and_quotients(text: str) -> None:
    values = torch.tensor([0.25, 0.5, 1.0, 2.0, 3.5], dtype=torch.float64)
    x, y = (a.reshape(-1) for a in torch.meshgrid(values, values, indexing="ij"))
    e = scalar(text)
    torch.testing.assert_close(by_rule(e, x, y), by_autograd(e, x, y), rtol=1e-12, atol=1e-14)


def test_powers_of_zero() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    for text in ("x ** 2", "x ** 1", "x ** 0", "x ** 3"):
        e = scalar(text)
        torch.testing.assert_close(by_rule(e, zero, zero), by_autograd(e, zero, zero))
    two = zero + 2
    e = scalar("y ** x")  # 0 ** 2 by its exponent: 0 · log 0, and yet 0
    torch.testing.assert_close(by_rule(e, two, zero), zero)


_SMOOTH = ["exp", "sin", "cos", "tanh", "sigmoid", "logsigmoid", "silu", "gelu", "softplus", "elu",
           "relu", "abs"]  # fmt: skip


def _composed() -> st.SearchStrategy[Expr]:
    leaves = st.one_of(
        st.sampled_from([X, X, Y]), st.floats(-2, 2, allow_nan=False).map(lambda v: number(v))
    )

    def grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        one = st.tuples(st.sampled_from(_SMOOTH), st.tuples(inner)).map(lambda p: Call(*p))
        two = st.tuples(
            st.sampled_from(["add", "sub", "mul", "minimum", "maximum"]), st.tuples(inner, inner)
        ).map(lambda p: Call(*p))
        safe = inner.map(lambda e: call("add", call("mul", e, e), Num(1)))
        ratio = st.tuples(inner, safe).map(lambda p: call("div", *p))
        logs = safe.map(lambda e: call("log", e))
        tests = st.tuples(inner, inner, inner).map(
            lambda p: call("where", call("gt", p[0], Num(0.3)), p[1], p[2])
        )
        return st.one_of(one, two, ratio, logs, tests)

    return st.recursive(leaves, grow, max_leaves=8)


@given(_composed(), st.integers(0, 2**32 - 1))
def test_composed_expressions(e: Expr, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, 16, generator=generator, dtype=torch.float64)
    theirs = by_autograd(e, x, y)
    kept = torch.isfinite(theirs) & (theirs.abs() < 1e8)
    event(f"finite: {bool(kept.any())}")
    event(f"size: {sum(1 for _ in walk(e)) // 5 * 5}")
    ours = by_rule(e, x, y)
    torch.testing.assert_close(ours[kept], theirs[kept], rtol=1e-9, atol=1e-9)


@given(_composed(), st.integers(0, 2**32 - 1))
def test_second_derivatives(e: Expr, seed: int) -> None:
    first = diff(e, X)
    if sum(1 for _ in walk(first)) > 150:
        event("too large to differentiate twice here")
        return
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    theirs, ours = by_autograd(first, x, y), by_rule(first, x, y)
    kept = torch.isfinite(theirs) & (theirs.abs() < 1e6)
    torch.testing.assert_close(ours[kept], theirs[kept], rtol=1e-8, atol=1e-8)


def test_where_keeps_the_other_branch_out() -> None:
    e = scalar("where(x > 0, log(x), 0)")
    zero = torch.zeros(1, dtype=torch.float64)
    assert by_autograd(e, zero, zero).isnan()  # torch multiplies 0 · inf
    assert by_rule(e, zero, zero) == 0


def test_nodes_as_variables() -> None:
    lag = call("sub", T_POS, S_POS)
    h, total = At(Name("h"), (lag,)), Between(Name("a"), S_POS, T_POS)
    e = call("mul", call("exp", total), h)
    assert diff(e, total) == call("mul", h, call("exp", total))
    assert diff(e, h) == call("exp", total)
    assert diff(e, Name("h")) == ZERO  # h at another position is not h here
    assert diff(Given("z", call("mul", X, Y), X), X) == Given("z", Y, Num(1))
    assert diff(call("chain", X, Y), X) == Y


def test_the_result_is_in_the_language() -> None:
    known = FUNCTIONS | OPERATORS | DERIVED_FUNCTIONS
    for fn, n in FUNCTIONS.items():
        d = diff(call(fn, *[call("mul", X, Num(k + 2)) for k in range(n)]), X)
        assert all(node.fn in known for node in walk(d) if isinstance(node, Call)), show(d)


def test_exact_texts() -> None:
    assert show(diff(scalar("softplus(x * y)"), X)) == "y * sigmoid(x * y)"
    assert show(diff(scalar("elu(x) + 1"), X)) == "where(x > 0, 1, exp(minimum(x, 0)))"
    assert show(diff(scalar("relu(x)"), X)) == "where(x > 0, 1, 0)"
    assert show(diff(scalar("x ** 2"), X)) == "2 * x"
    assert diff(scalar("y + 3"), X) == ZERO


def test_deep_and_monstrous_expressions_are_quick() -> None:
    deep: Expr = X
    for _ in range(100):
        deep = call("sin", deep)
    start = time.perf_counter()
    one = torch.ones(1, dtype=torch.float64)
    torch.testing.assert_close(by_rule(deep, one, one), by_autograd(deep, one, one))
    tower = scalar("x * exp(exp(exp(100))) + (9 ** 9) ** (9 ** 1.5) * x ** 64")
    assert isinstance(diff(tower, X), Call)
    assert time.perf_counter() - start < 10


def test_simplify() -> None:
    assert simplify(scalar("x * 1 + 0 * y")) == X
    assert simplify(scalar(f"{math.pi!r} * 0")) == ZERO


def test_cse_names_what_repeats() -> None:
    e = scalar("exp(x * y) + exp(x * y) * (x * y)")
    assignments, (result, other) = cse([e, scalar("x * y")])
    assert [(n, show(v)) for n, v in assignments] == [("e0", "x * y"), ("e1", "exp(e0)")]
    assert (show(result), show(other)) == ("e1 + e1 * e0", "e0")


def test_cse_takes_no_name_in_use() -> None:
    assignments, _ = cse([scalar("sin(e0 + x) + cos(e0 + x)")])
    assert [n for n, _ in assignments] == ["e1"]


@given(st.lists(_composed(), min_size=1, max_size=3))
def test_cse_means_the_same(exprs: list[Expr]) -> None:
    assignments, results = cse(exprs)
    for name, value in reversed(assignments):
        results = [substitute(r, {name: value}) for r in results]
    assert results == exprs
    seen: list[str] = []
    for name, value in assignments:  # each reads earlier ones only
        used = {n.id for n in walk(value) if isinstance(n, Name)} - {"x", "y"}
        assert used <= set(seen)
        seen.append(name)
