"""What sums of products say by their form: constants, integers, lags, remainders, waves.

Non-goals: opening functions (normal.py).
"""

from __future__ import annotations

from fractions import Fraction

from smac.expr import S_POS, T_POS, Call, Expr, Num, Pos, Size, call, transform, walk
from smac.masks.classify import polynomial as poly
from smac.masks.classify.polynomial import COMPARISONS, UNIT, Mono, Poly, TooLarge


def positions(e: Expr) -> frozenset[str]:
    """Which of t and s `e` reads."""
    return frozenset(n.which for n in walk(e) if isinstance(n, Pos))


def mono_positions(m: Mono) -> frozenset[str]:
    """Which of t and s a product reads."""
    return frozenset().union(*(positions(a) for a in poly.atoms([m])))


def exchanged(e: Expr) -> Expr:
    """`e` with t and s exchanged: the transposed formula."""
    return moved(e, S_POS, T_POS)


def moved(e: Expr, t: Expr, s: Expr) -> Expr:
    """`e` with its positions replaced."""
    new = {"t": t, "s": s}
    return transform(e, lambda n: new[n.which] if isinstance(n, Pos) else None)


def half_wave(p: Poly, fn: str) -> Poly:
    """cos p or sin p as an atom, p with a leading plus."""
    negative = p[min(p, key=poly.mono_key)] < 0
    if negative:
        p = poly.add({}, p, -1)
    out = poly.atom(call(fn, poly.expression(p)))
    return poly.add({}, out, -1) if negative and fn == "sin" else out


def either(truth: Poly, a: Poly, b: Poly) -> Poly:
    return poly.add(b, poly.times(truth, poly.add(a, b, -1)))


def settles(truth: Poly, p: Poly) -> bool:
    """Whether the sign of p is known, or steps of the lag say it."""
    return all(poly.step(e) is not None for m in truth for e, _ in m.powers) and bool(p)


def constant_of(p: Poly) -> Fraction | None:
    """The value of a constant."""
    return p.get(UNIT, Fraction(0)) if set(p) <= {UNIT} else None


def whole(p: Poly) -> bool:
    """An integer combination of positions and sizes."""
    return all(c.denominator == 1 and not m.exponent
               and all(isinstance(e, Pos | Size) and n > 0 for e, n in m.powers)
               for m, c in p.items())  # fmt: skip


def leading(p: Poly) -> Fraction:
    """The coefficient that decides a sum's sign: the first that is not the constant's."""
    return p[min(p, key=lambda m: (m == UNIT, poly.mono_key(m)))]


def lag_form(p: Poly, lag: bool) -> tuple[Fraction, Fraction] | None:
    """(k, c) where p is k·(t − s) + c (or k·t + c, where t is the lag)."""
    t, s = Mono(((T_POS, 1),)), Mono(((S_POS, 1),))
    if lag:
        return (p[t], p.get(UNIT, Fraction(0))) if set(p) <= {UNIT, t} and t in p else None
    if not set(p) <= {UNIT, t, s} or t not in p or p[t] != -p.get(s, Fraction(0)):
        return None
    return p[t], p.get(UNIT, Fraction(0))


def same_residue(p: Poly) -> Expr | None:
    """(t − s) mod d where p = 0 asks for t mod d = s mod d, or for that remainder itself."""
    if len(p) == 2 and set(p.values()) == {Fraction(1), Fraction(-1)}:
        found = sorted((poly.product(m) for m in p), key=poly.key)
        match found:
            case [Call("mod", (Pos("s"), d)), Call("mod", (Pos("t"), e))] if d == e:
                lag = {Mono(((T_POS, 1),)): Fraction(1), Mono(((S_POS, 1),)): Fraction(-1)}
                return call("mod", poly.expression(lag), d)
    return None


def offset(p: Poly) -> tuple[str, int]:
    """(position, integer) of a bound of a sum."""
    for at in (T_POS, S_POS):
        n = p.get(UNIT, Fraction(0))
        if set(p) - {UNIT} == {Mono(((at, 1),))} and p[Mono(((at, 1),))] == 1 and n == int(n):
            return at.which, int(n)
    raise TooLarge


def placed(which: str, n: int) -> Expr:
    """The bound that `offset` reads."""
    at = Pos(which)
    return at if n == 0 else call("add" if n > 0 else "sub", at, Num(abs(n)))


def boolean(e: Expr) -> bool:
    """Whether `e` is 0 or 1 by its form."""
    match e:
        case Num(value):
            return value in (0, 1)
        case Call(fn, _) if fn in COMPARISONS:
            return True
        case Call("mul" | "minimum" | "maximum", (a, b)):
            return boolean(a) and boolean(b)
        case Call("sub", (Num(1), a)):
            return boolean(a)
        case Call("where", (_, a, b)):
            return boolean(a) and boolean(b)
    return False
