"""How masks combine: sum, entrywise product, multiples, rows and columns, triangle surgery, shifts.

Ranks add under +, multiply under entrywise *, and every combination keeps `entry`, so that its
adjoint follows. No combination asks which family it holds, only for its laws.

Non-goals: simplification of entries, lanes of masks shifted twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from smac.expr import ONE, S_POS, T_POS, Expr, Size, call
from smac.masks.band import at_positions, hull, meet, mirrored
from smac.masks.base import Lane, Mask, Support
from smac.masks.lanes import FORGETS, Lanes, diagonal, merged, product, strictly, turned
from smac.masks.make import add, at, keep, mul, sub
from smac.masks.registry import register
from smac.masks.shifts import (
    backwards,
    crossing_down,
    crossing_left,
    down_above,
    left_above,
    shifted_down,
    shifted_left,
)

#: Beyond this rank no finite state is worth its memory (and products of sums grow without bound).
MAX_RANK = 64


def _blame(*masks: Mask) -> str:
    """Which operand has no lanes, and why."""
    ranks = []
    for m in masks:
        lanes = m.lanes()
        if lanes is None or m.above() is None:
            return f"'{m}': {m.why_no_generators()}"
        ranks.append(len(lanes))
    return f"a rank above {MAX_RANK}"


@register("add")
@dataclass(frozen=True)
class Sum(Mask):
    """A + B."""

    A: Mask
    B: Mask

    def entry(self) -> Expr:
        return add(self.A.entry(), self.B.entry())

    def support(self) -> Support:
        return hull(self.A.support(), self.B.support())

    def lanes(self) -> Lanes | None:
        return _sum(self.A.lanes(), self.B.lanes())

    def above(self) -> Lanes | None:
        return _sum(self.A.above(), self.B.above())

    def symbol(self) -> tuple[Expr, int] | None:
        a, b = self.A.symbol(), self.B.symbol()
        return None if a is None or b is None or a[1] != b[1] else (add(a[0], b[0]), a[1])

    def transpose(self) -> Mask:
        return Sum(self.A.transpose(), self.B.transpose())

    def why_no_generators(self) -> str:
        return _blame(self.A, self.B)


@register("mul")
@dataclass(frozen=True)
class Product(Mask):
    """A * B, entrywise."""

    A: Mask
    B: Mask

    def entry(self) -> Expr:
        return mul(self.A.entry(), self.B.entry())

    def support(self) -> Support:
        return meet(self.A.support(), self.B.support())

    def lanes(self) -> Lanes | None:
        return _product(self.A.lanes(), self.B.lanes())

    def above(self) -> Lanes | None:
        if self.support().lower:
            return ()
        return _product(self.A.above(), self.B.above())

    def symbol(self) -> tuple[Expr, int] | None:
        a, b = self.A.symbol(), self.B.symbol()
        return None if a is None or b is None or a[1] != b[1] else (mul(a[0], b[0]), a[1])

    def transpose(self) -> Mask:
        return Product(self.A.transpose(), self.B.transpose())

    def why_no_generators(self) -> str:
        return _blame(self.A, self.B)


@register("scale")
@dataclass(frozen=True)
class Scale(Mask):
    """c · A with c without a T axis."""

    c: Expr
    A: Mask

    def entry(self) -> Expr:
        return mul(self.c, self.A.entry())

    def support(self) -> Support:
        return self.A.support()

    def lanes(self) -> Lanes | None:
        return _reads(self.c, self.A.lanes())

    def above(self) -> Lanes | None:
        return _reads(self.c, self.A.above())

    def symbol(self) -> tuple[Expr, int] | None:
        known = self.A.symbol()
        return known and (mul(self.c, known[0]), known[1])

    def transpose(self) -> Mask:
        return Scale(self.c, self.A.transpose())

    def why_no_generators(self) -> str:
        return _blame(self.A)


@register("row")
@dataclass(frozen=True)
class Rows(Mask):
    """x[t] · A[t,s]."""

    x: Expr
    A: Mask

    def entry(self) -> Expr:
        return mul(at(self.x, T_POS), self.A.entry())

    def support(self) -> Support:
        return self.A.support()

    def lanes(self) -> Lanes | None:
        return _reads(self.x, self.A.lanes())

    def above(self) -> Lanes | None:
        return _writes(self.x, self.A.above())

    def transpose(self) -> Mask:
        return Columns(self.x, self.A.transpose())

    def why_no_generators(self) -> str:
        return _blame(self.A)


@register("col")
@dataclass(frozen=True)
class Columns(Mask):
    """x[s] · A[t,s]."""

    x: Expr
    A: Mask

    def entry(self) -> Expr:
        return mul(at(self.x, S_POS), self.A.entry())

    def support(self) -> Support:
        return self.A.support()

    def lanes(self) -> Lanes | None:
        return _writes(self.x, self.A.lanes())

    def above(self) -> Lanes | None:
        return _reads(self.x, self.A.above())

    def transpose(self) -> Mask:
        return Rows(self.x, self.A.transpose())

    def why_no_generators(self) -> str:
        return _blame(self.A)


@register("diagonal")
@dataclass(frozen=True)
class Diagonal(Mask):
    """L[t,t] = u[t], else 0: a lane that forgets everything at each token."""

    u: Expr

    def entry(self) -> Expr:
        return keep(call("eq", T_POS, S_POS), at(self.u, T_POS))

    def lanes(self) -> Lanes:
        return (Lane(FORGETS, read=self.u),)

    def transpose(self) -> Mask:
        return self


@register("strict")
@dataclass(frozen=True)
class Strict(Mask):
    """A without its diagonal."""

    A: Mask

    def entry(self) -> Expr:
        where = self.A.support()
        side = "gt" if where.lower else "lt" if where.upper else "ne"
        return keep(call(side, T_POS, S_POS), self.A.entry())

    def support(self) -> Support:
        where = self.A.support()
        if where.lower:
            return meet(where, Support(1, None))
        return meet(where, Support(None, -1)) if where.upper else where

    def lanes(self) -> Lanes | None:
        lanes = self.A.lanes()
        return None if lanes is None else strictly(lanes)

    def above(self) -> Lanes | None:
        return self.A.above()

    def transpose(self) -> Mask:
        return Strict(self.A.transpose())

    def why_no_generators(self) -> str:
        return _blame(self.A)


@register("transpose")
def transpose(A: Mask) -> Mask:
    """Aᵀ, in the form that A's own law gives."""
    return A.transpose()


@dataclass(frozen=True)
class Transposed(Mask):
    """Aᵀ, where the family of A has no nicer form of it: positions exchanged in the entry."""

    A: Mask
    name = "transpose"

    def entry(self) -> Expr:
        return at_positions(self.A.entry(), S_POS, T_POS)

    def support(self) -> Support:
        return mirrored(self.A.support())

    def lanes(self) -> Lanes | None:
        return _sum(self.A.above(), _through(diagonal, self.A.lanes()))

    def above(self) -> Lanes | None:
        return _through(strictly, self.A.lanes())

    def transpose(self) -> Mask:
        return self.A

    def why_no_generators(self) -> str:
        return _blame(self.A)


@register("shift")
@dataclass(frozen=True)
class Shift(Mask):
    """A moved down a row (axis "t": A[t−1,s]) or left a column (axis "s": A[t,s+1]); 0 comes in.

    RWKV-6 is shift(semiseparable(…), "t") + diagonal(u) (Peng et al. 2024).
    """

    A: Mask
    axis: str

    def entry(self) -> Expr:
        if self.axis == "t":
            moved = at_positions(self.A.entry(), sub(T_POS, ONE), S_POS)
            inside = call("ge", T_POS, ONE)
        else:
            moved = at_positions(self.A.entry(), T_POS, add(S_POS, ONE))
            inside = call("lt", S_POS, sub(Size("T"), ONE))
        return keep(inside, moved)

    def support(self) -> Support:
        where = self.A.support()
        return Support(None if where.lo is None else where.lo + 1,
                       None if where.hi is None else where.hi + 1)  # fmt: skip

    def lanes(self) -> Lanes | None:
        """What is one to the left of the diagonal there, and A's own as late lanes below it."""
        lanes, above = self.A.lanes(), self.A.above()
        if lanes is None or above is None or any(x.late for x in lanes):
            return None
        down, across = (shifted_down, crossing_down) if self.axis == "t" else (
            shifted_left, crossing_left)  # fmt: skip
        return merged((*map(down, lanes), *diagonal(map(across, above))))

    def above(self) -> Lanes | None:
        left = left_above if self.axis == "s" else down_above
        return _through(lambda lanes: merged(y for x in lanes for y in left(x)), self.A.above())

    def why_no_generators(self) -> str:
        if self.A.lanes() is None or self.A.above() is None:
            return _blame(self.A)
        return "it is moved twice off the diagonal, and lanes skip one token at most"


@dataclass(frozen=True)
class Reversed(Mask):
    """A[T−1−t, T−1−s]: time runs backwards, so that below the diagonal is above it."""

    A: Mask
    name = "reverse"

    def entry(self) -> Expr:
        last = sub(Size("T"), ONE)
        return at_positions(self.A.entry(), sub(last, T_POS), sub(last, S_POS))

    def support(self) -> Support:
        return mirrored(self.A.support())

    def lanes(self) -> Lanes | None:
        """Rows and columns change places, and so do the sides; the diagonal stays."""
        diagonals = _through(diagonal, self.A.lanes())
        above = _through(turned, self.A.above())
        return _through(backwards, _sum(above, diagonals))

    def above(self) -> Lanes | None:
        return _through(lambda lanes: backwards(turned(strictly(lanes))), self.A.lanes())

    def transpose(self) -> Mask:
        return Reversed(self.A.transpose())

    def why_no_generators(self) -> str:
        return _blame(self.A)


@register("reverse")
def reverse(A: Mask) -> Mask:
    """A with time reversed. Functions of t − s are then transposed."""
    if isinstance(A, Reversed):
        return A.A
    turned_over = A.transpose()
    by_lag = A.symbol() is not None or turned_over.symbol() is not None
    return turned_over if by_lag else Reversed(A)


def _through(f: Callable[[Lanes], Lanes], lanes: Lanes | None) -> Lanes | None:
    return None if lanes is None else f(lanes)


def _sum(a: Lanes | None, b: Lanes | None) -> Lanes | None:
    if a is None or b is None or len(a) + len(b) > MAX_RANK:
        return None
    return merged((*a, *b))


def _product(a: Lanes | None, b: Lanes | None) -> Lanes | None:
    if a is None or b is None or len(a) * len(b) > MAX_RANK:
        return None
    return product(a, b)


def _reads(x: Expr, lanes: Lanes | None) -> Lanes | None:
    return lanes and tuple(replace(y, read=mul(x, y.read)) for y in lanes)


def _writes(x: Expr, lanes: Lanes | None) -> Lanes | None:
    return lanes and tuple(replace(y, write=mul(x, y.write)) for y in lanes)
