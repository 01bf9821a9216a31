"""The expression tree: rewriting and constant folding."""

from __future__ import annotations

import math

import pytest

from smac.expr import (
    S_POS,
    T_POS,
    ZERO,
    At,
    Between,
    Given,
    Name,
    Num,
    call,
    fold,
    integral,
    names,
    number,
    substitute,
    transform,
    walk,
)  # fmt: skip
from smac.syntax import scalar, show

X, Y = Name("x"), Name("y")


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("x + 0", "x"), ("0 + x", "x"), ("x - 0", "x"), ("0 - x", "-x"), ("x * 1", "x"),
        ("1 * x", "x"), ("x * 0", "0"), ("x / 1", "x"), ("0 / x", "0"), ("x ** 1", "x"),
        ("x ** 0", "1"), ("-(-x)", "x"), ("x - -y", "x + y"), ("x + -y", "x - y"),
        ("-(x - y)", "y - x"), ("-1 * x", "-x"), ("2 + 3 * 4", "14"), ("1 / 4", "0.25"),
        ("2 ** 10", "1024"), ("where(2 > 1, x, y)", "x"), ("where(x > 0, y, y)", "y"),
        ("softplus(0)", repr(math.log(2))), ("relu(-3)", "0"), ("clamp(5, 0, 1)", "1"),
        ("sigmoid(-800) + x", "x"), ("given(x, y + 0, y)", "y"), ("(1 < 2) * x", "x"),
    ],
)  # fmt: skip
def test_fold(text: str, folded: str) -> None:
    assert show(fold(scalar(text))) == folded


@pytest.mark.parametrize("text", ["1 / 0", "log(0)", "sqrt(-1)", "exp(1000)", "9 ** (9 ** 2 - 20)",
                                  "(-2) ** 0.5", "exp(exp(exp(100))) > 1"])  # fmt: skip
def test_what_is_not_finite_stays(text: str) -> None:
    folded = fold(scalar(text))
    assert not isinstance(folded, Num) or math.isfinite(folded.value)
    assert fold(folded) == folded


def test_numbers_have_one_form() -> None:
    assert repr(number(1.0)) == repr(number(1)) == repr(number(True)) == "Num(value=1)"
    assert repr(number(-0.0)) == "Num(value=0)"
    assert repr(number(2**60)) == f"Num(value={float(2**60)!r})"
    assert number(math.inf).value == math.inf


def test_fold_of_constants_in_entries() -> None:
    assert fold(At(call("add", Num(1), Num(1)), (T_POS,))) == Num(2)
    assert fold(Between(Num(0), S_POS, T_POS)) == ZERO
    steps = call("maximum", call("sub", T_POS, S_POS), ZERO)
    assert fold(Between(Num(-3), S_POS, T_POS)) == call("mul", Num(-3), steps)
    dead = Between(Num(-math.inf), S_POS, T_POS)
    assert fold(dead) == dead  # 0 · inf where the range is empty


def test_rewriting() -> None:
    e = call("add", X, Given("z", call("mul", X, Y), Num(1)))
    assert names(e) == {"x", "y", "z"}
    assert names(substitute(e, {"x": Num(2)})) == {"y", "z"}
    swapped = transform(e, lambda n: Y if n == X else None)
    assert [n for n in walk(swapped) if n == X] == []
    assert names(At(X, (call("sub", T_POS, S_POS),))) == {"x"}


def test_integral() -> None:
    lag = call("sub", T_POS, S_POS)
    assert integral(call("mod", lag, Num(3)))
    assert not integral(call("div", lag, Num(3)))
    assert not integral(X)
    assert not integral(Num(0.5))
