"""Exact sums of products over atoms: what a formula is multiplied out to.

A `Mono` is a product of powers of atoms times e to an exponent, itself a sum of products; a `Poly`
maps each to its exact coefficient (floats are dyadic rationals, so nothing is rounded here). Atoms
are expressions that this file does not look into: a position, an input, an opaque call.
Comparisons are 0 or 1: their powers are themselves, and [n ≥ 2]·[n ≥ 5] is [n ≥ 5].

Non-goals: no functions, no conditions decided (normal.py), no division of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from smac.expr import ONE, ZERO, Call, Expr, Num, call, number
from smac.masks.make import LAG
from smac.show import show

#: More terms than these, or larger powers, are not multiplied out.
MAX_TERMS, MAX_POWER = 400, 16
#: Digits of a coefficient (a power of a number of the formula) beyond which we give up.
_MAX_BITS = 4000
COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})


class TooLarge(Exception):
    """The formula does not multiply out within the limits: it stays unknown."""


@dataclass(frozen=True, slots=True)
class Mono:
    """Π atom^power · exp(Σ exponent), both in canonical order; no power is 0."""

    powers: tuple[tuple[Expr, int], ...] = ()
    exponent: tuple[tuple[Mono, Fraction], ...] = ()


Poly = dict[Mono, Fraction]
UNIT = Mono()


@lru_cache(maxsize=20000)
def key(e: Expr) -> str:
    """The order of atoms."""
    return show(e)


@lru_cache(maxsize=20000)
def mono_key(m: Mono) -> tuple[object, ...]:
    """The order of products."""
    own = tuple((key(e), p) for e, p in m.powers)
    return (own, tuple((mono_key(x), c) for x, c in m.exponent))


def constant(value: Fraction | int) -> Poly:
    """The number as a sum of products."""
    return {UNIT: Fraction(value)} if value else {}


def atom(e: Expr, power: int = 1) -> Poly:
    """One atom, to a power."""
    return {Mono(((e, power),)): Fraction(1)}


def add(a: Mapping[Mono, Fraction], b: Mapping[Mono, Fraction], k: Fraction | int = 1) -> Poly:
    """a + k·b."""
    out = dict(a)
    for m, c in b.items():
        total = out.get(m, Fraction(0)) + k * c
        if total:
            out[m] = total
        else:
            out.pop(m, None)
    if len(out) > MAX_TERMS:
        raise TooLarge
    return out


def times(a: Mapping[Mono, Fraction], b: Mapping[Mono, Fraction]) -> Poly:
    """a · b, multiplied out."""
    if len(a) * len(b) > 8 * MAX_TERMS:
        raise TooLarge
    out: Poly = {}
    for x, c in a.items():
        for y, d in b.items():
            product = multiply(x, y)
            total = out.get(product, Fraction(0)) + c * d
            if total.numerator.bit_length() + total.denominator.bit_length() > _MAX_BITS:
                raise TooLarge
            if total:
                out[product] = total
            else:
                out.pop(product, None)
    if len(out) > MAX_TERMS:
        raise TooLarge
    return out


def power(a: Mapping[Mono, Fraction], n: int) -> Poly:
    """a to a whole power ≥ 0."""
    if n > MAX_POWER and len(a) > 1:
        raise TooLarge
    out = constant(1)
    for _ in range(n):
        out = times(out, a)
    return out


def exponential(p: Mapping[Mono, Fraction]) -> Poly:
    """exp(p): one product. What is an integer times a log becomes a power."""
    return {_settled({}, p): Fraction(1)}


@lru_cache(maxsize=50000)
def multiply(x: Mono, y: Mono) -> Mono:
    """The product of two products."""
    powers = dict(x.powers)
    for e, p in y.powers:
        powers[e] = powers.get(e, 0) + p
    return _settled(powers, add(dict(x.exponent), dict(y.exponent)))


def _settled(powers: dict[Expr, int], exponent: Mapping[Mono, Fraction]) -> Mono:
    """A product in canonical form."""
    left: Poly = {}
    for m, c in exponent.items():
        match m:
            case Mono(((Call("log", (inner,)), 1),), ()) if c.denominator == 1 and _plain(inner):
                powers[inner] = powers.get(inner, 0) + int(c)
            case _:
                left[m] = c
    for e in [e for e in powers if isinstance(e, Call) and e.fn in COMPARISONS]:
        powers[e] = 1
    least = max((v for e in powers if (v := step(e)) is not None), default=None)
    kept = [(e, p) for e, p in powers.items() if p and step(e) in (None, least)]
    ordered = tuple(sorted(left.items(), key=lambda x: mono_key(x[0])))
    return Mono(tuple(sorted(kept, key=lambda x: key(x[0]))), ordered)


def _plain(e: Expr) -> bool:
    return not isinstance(e, Num)


def step(e: Expr) -> int | None:
    """c where the atom is [t − s ≥ c]."""
    match e:
        case Call("ge", (left, Num(int(c)))) if left == LAG:
            return c
    return None


def step_atom(c: int) -> Poly:
    """[t − s ≥ c]."""
    return atom(call("ge", LAG, Num(c)))


# ---- back to expressions ----------------------------------------------------------------------


def expression(p: Mapping[Mono, Fraction]) -> Expr:
    """The sum as an expression, in canonical order."""
    parts = sorted(p.items(), key=lambda x: mono_key(x[0]))
    parts.sort(key=lambda x: x[1] < 0)
    out: Expr = ZERO
    for m, c in parts:
        term = scaled(abs(c), product(m))
        if out == ZERO:
            out = term if c > 0 else negative(term)
        else:
            out = call("add" if c > 0 else "sub", out, term)
    return out


def negative(e: Expr) -> Expr:
    return number(-e.value) if isinstance(e, Num) else call("neg", e)


def scaled(c: Fraction, e: Expr) -> Expr:
    """c·e for c > 0, as people write it."""
    if c == 1:
        return e
    if c.numerator == 1 and e != ONE and c.denominator < 10**6:
        return call("div", e, Num(c.denominator))
    return value_of(c) if e == ONE else call("mul", value_of(c), e)


def value_of(c: Fraction) -> Expr:
    """The number, as a quotient where it is no float. Raises TooLarge beyond the floats."""
    try:
        nearest = float(c)
    except OverflowError:
        raise TooLarge from None
    if c.denominator == 1:
        return number(int(c))
    if Fraction(nearest) != c and max(abs(c.numerator), c.denominator) < 2**53:
        return call("div", number(c.numerator), number(c.denominator))
    return number(nearest)


def product(m: Mono) -> Expr:
    """One product as an expression."""
    over = [(e, p) for e, p in m.powers if p > 0]
    under = [(e, -p) for e, p in m.powers if p < 0]
    out: Expr | None = ONE if not over else None
    for e, p in over:
        out = _powered(e, p) if out is None else call("mul", out, _powered(e, p))
    for factor in _exponentials(m):
        out = factor if out in (None, ONE) else call("mul", out, factor)
    assert out is not None
    for e, p in under:
        out = call("div", out, _powered(e, p))
    return out


def _exponentials(m: Mono) -> list[Expr]:
    """exp(r) · x^y …: what stands beside a log is a power."""
    rest: Poly = {}
    powers: dict[Expr, Poly] = {}
    for x, c in m.exponent:
        logs = [e.args[0] for e, n in x.powers if n == 1 and isinstance(e, Call) and e.fn == "log"]
        if logs:
            left = tuple(y for y in x.powers if y[0] != call("log", logs[0]))
            powers[logs[0]] = add(powers.get(logs[0], {}), {Mono(left, x.exponent): c})
        else:
            rest[x] = c
    out: list[Expr] = [call("exp", expression(rest))] if rest else []
    return out + [call("pow", e, expression(by)) for e, by in powers.items() if by]


def _powered(e: Expr, p: int) -> Expr:
    return e if p == 1 else call("pow", e, Num(p))


def close(p: Mapping[Mono, Fraction], q: Mapping[Mono, Fraction]) -> bool:
    """Whether two sums are the same up to the rounding of coefficients."""
    return p.keys() == q.keys() and all(abs(q[m] - c) <= abs(c) / 2**48 for m, c in p.items())


def select(p: Mapping[Mono, Fraction], keep: Callable[[Mono], bool]) -> tuple[Poly, Poly]:
    """The terms that `keep` holds of, and the others."""
    yes = {m: c for m, c in p.items() if keep(m)}
    return yes, {m: c for m, c in p.items() if m not in yes}


def atoms(p: Iterable[Mono]) -> set[Expr]:
    """Every atom, those of exponents included."""
    found: set[Expr] = set()
    for m in p:
        found |= {e for e, _ in m.powers} | atoms(x for x, _ in m.exponent)
    return found
