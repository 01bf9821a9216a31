"""Functions of the lag alone: h(n) as a sum of n^i · exp(r·n) · cos(ωn), or as no finite rank.

A sum of exponential polynomials obeys a linear recurrence: its shift-invariant realisation
(A, b, c) has one Jordan block a rate, of the degree's size, doubled by a frequency. In the
functions below t stands for the lag n.

Non-goals: masks that realise it (realise.py), approximation by exponentials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from smac.expr import T_POS, At, Between, Call, Expr, Index, Name, Num, Pos, Size, transform, walk
from smac.masks.classify import polynomial as poly
from smac.masks.classify.forms import positions
from smac.masks.classify.polynomial import UNIT, Mono, Poly
from smac.masks.classify.separate import Unknown
from smac.masks.make import LAG
from smac.show import show


def degree(m: Mono) -> int | None:
    """The power of n in n^i · exp(r·n) · cos(ωn) …; None where the product is no such thing."""
    power = 0
    for e, n in m.powers:
        if e == T_POS and n > 0:
            power = n
        elif not (_free(e) or (n > 0 and _is_wave(e))):
            return None
    return power if all(linear(x) for x, _ in m.exponent) else None


def linear(m: Mono) -> bool:
    """r·n, or r: an exponent of a finite rank."""
    here = [(e, n) for e, n in m.powers if positions(e)]
    inside = any(positions(e) for x, _ in m.exponent for e in poly.atoms([x]))
    return not inside and here in ([], [(T_POS, 1)])


def _free(e: Expr) -> bool:
    """A factor that costs no degree: constant, or 0 and 1 by remainders or from a lag on."""
    return not positions(e) or bool(period(e)) or poly.step(e) is not None


def period(e: Expr) -> int:
    """d of the condition [d | n], or 0."""
    match e:
        case Call("eq", (Call("mod", (Pos("t"), Num(int(d)))), Num(0))):
            return d
    return 0


def periods(m: Mono) -> int:
    """How many remainders the conditions [d | n] of a product tell apart."""
    return math.prod(max(1, period(e)) for e, _ in m.powers)


def _is_wave(e: Expr) -> bool:
    return isinstance(e, Call) and e.fn in ("cos", "sin") and _affine(e.args[0])


def _affine(e: Expr) -> bool:
    """Whether an angle is ω·n + φ, by its form."""
    match e:
        case Call("add" | "sub", (a, b)):
            return _affine(a) and _affine(b)
        case Call("neg", (a,)):
            return _affine(a)
        case Call("mul", (a, b)):
            return (_affine(a) and not positions(b)) or (_affine(b) and not positions(a))
        case Call("div", (a, b)):
            return _affine(a) and not positions(b)
        case _:
            return isinstance(e, Pos) or not positions(e)


def rank(p: Mapping[Mono, Fraction]) -> int | None:
    """The order of the recurrence of h; None where it has none, or steps cut it."""
    sizes: dict[object, int] = {}
    for m in p:
        power = degree(m)
        if power is None or steps(m):
            return None
        waves = [e for e, _ in m.powers if positions(e) and e != T_POS and not period(e)]
        angles = frozenset(a for w in waves if isinstance(w, Call) for a in w.args)
        turns = tuple(sorted(show(a) for a in angles))
        rate = tuple((x, c) for x, c in m.exponent if any(positions(e) for e, _ in x.powers))
        more = 1
        for e, n in m.powers:
            more *= (n + 1) if e in waves else (period(e) or 1)
        size = (power + 1) * (2 ** len(angles) if len(waves) == len(angles) == 1 else more)
        sizes[rate, turns] = max(sizes.get((rate, turns), 0), size)
    return sum(sizes.values())


def steps(m: Mono) -> int:
    """c of the condition [n ≥ c] in a product, 0 without one."""
    return next((c for e, _ in m.powers if (c := poly.step(e)) is not None), 0)


def without_step(m: Mono) -> Mono:
    """The product without its condition [n ≥ c]."""
    return Mono(tuple(x for x in m.powers if poly.step(x[0]) is None), m.exponent)


def damped(m: Mono) -> bool:
    """n^i with i ≥ 1 beside an exponential: factors t^i · s^j of it would cancel."""
    return bool(degree(m)) and bool(m.exponent)


def symbol(p: Poly, lags: frozenset[str], middle: bool = False) -> Expr:
    """h over the lag axis W; `lags` are the inputs that carry it. Raises Unknown.

    With `middle`, lag n is read at n + T − 1, and nothing else may depend on it.
    """
    place = MIDDLE if middle else T_POS

    def one(e: Expr) -> Expr | None:
        match e:
            case At(base, (at,)) if at == place:
                return _over_lags(base, lags)
            case At(_, _) | Between(_, _, _):
                raise Unknown(f"{show(e)} is read elsewhere than at the lag")
            case Call("ge", (left, c)) if left == LAG and not middle:
                return Call("ge", (Index("W"), c))
            case Pos(_) if middle:
                raise Unknown("the lag is read beside h")
            case Pos(_):
                return Index("W")
        return None

    found = transform(poly.expression(p), one)
    if middle and not _names(found) & lags:
        raise Unknown("no lag axis is read")
    return found


def _over_lags(base: Expr, lags: frozenset[str]) -> Expr:
    missing = sorted(_names(base) - lags)
    if missing:
        raise Unknown(f"{show(base)} is read by the lag, but {missing[0]} carries T: declare it "
                      "over the lag axis W")  # fmt: skip
    return base


def _names(e: Expr) -> set[str]:
    return {n.id for n in walk(e) if isinstance(n, Name)}


#: n + T − 1 in canonical form, t standing for the lag n.
MIDDLE = poly.expression(
    {Mono(((Size("T"), 1),)): Fraction(1), Mono(((T_POS, 1),)): Fraction(1), UNIT: Fraction(-1)}
)
