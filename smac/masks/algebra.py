"""How masks combine: sum, entrywise product, multiples, rows and columns, triangle surgery, shifts.

Ranks add under +, multiply under entrywise *, and every combination keeps `entry`, so that its
adjoint follows. No combination asks which family it holds, only for its laws.

Non-goals: fast laws for strict, transpose and shift (they run quadratically), simplification.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from smac.expr import ONE, S_POS, T_POS, Expr, Num, Size, call
from smac.masks.band import at_positions, hull, meet
from smac.masks.base import Lane, Mask, Support
from smac.masks.make import add, at, keep, mul, sub
from smac.masks.registry import register


def below(mask: Mask) -> tuple[Lane, ...] | None:
    """Lanes of the mask on and below the diagonal, by whichever law states them."""
    lanes = mask.lanes()
    if lanes is None and type(mask).generators is not Mask.generators:
        known = mask.generators()
        return None if known is None else known.lanes
    return lanes


#: Beyond this rank no finite state is worth its memory (and products of sums grow without bound).
MAX_RANK = 64


def _blame(*masks: Mask) -> str:
    """Which operand has no lanes, and why."""
    ranks = []
    for m in masks:
        lanes = below(m)
        if lanes is None:
            return f"'{m}': {m.why_no_generators()}"
        ranks.append(len(lanes))
    if max(sum(ranks), math.prod(ranks)) > MAX_RANK:
        return f"a rank above {MAX_RANK}"
    return "it is nonzero above the diagonal; multiply it by causal()"


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

    def lanes(self) -> tuple[Lane, ...] | None:
        a, b = below(self.A), below(self.B)
        if a is None or b is None or len(a) + len(b) > MAX_RANK:
            return None
        return _merged((*a, *b))

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

    def lanes(self) -> tuple[Lane, ...] | None:
        a, b = below(self.A), below(self.B)
        if a is None or b is None or len(a) * len(b) > MAX_RANK:
            return None
        return _merged(_both(x, y) for x in a for y in b)

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

    def lanes(self) -> tuple[Lane, ...] | None:
        lanes = below(self.A)
        return lanes and tuple(replace(x, read=mul(self.c, x.read)) for x in lanes)

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

    def lanes(self) -> tuple[Lane, ...] | None:
        lanes = below(self.A)
        return lanes and tuple(replace(y, read=mul(self.x, y.read)) for y in lanes)

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

    def lanes(self) -> tuple[Lane, ...] | None:
        lanes = below(self.A)
        return lanes and tuple(replace(y, write=mul(self.x, y.write)) for y in lanes)

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

    def lanes(self) -> tuple[Lane, ...]:
        return (Lane(Num(float("-inf")), read=self.u),)

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

    def transpose(self) -> Mask:
        return Strict(self.A.transpose())

    def why_no_generators(self) -> str:
        return "not derived for strict masks"


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
        where = self.A.support()
        return Support(None if where.hi is None else -where.hi,
                       None if where.lo is None else -where.lo)  # fmt: skip

    def transpose(self) -> Mask:
        return self.A

    def why_no_generators(self) -> str:
        return "it is the transpose of a mask that may be nonzero below the diagonal"


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

    def why_no_generators(self) -> str:
        return "not derived for shifted masks"


def _both(x: Lane, y: Lane) -> Lane:
    """The lane of the product of two lanes."""
    resets = [r for r in (x.reset, y.reset) if r is not None]
    reset = call("maximum", *resets) if len(set(resets)) == 2 else next(iter(resets), None)
    return Lane(add(x.log_decay, y.log_decay), reset, mul(x.read, y.read), mul(x.write, y.write))


def _merged(lanes: Iterable[Lane]) -> tuple[Lane, ...]:
    """Lanes that differ in `read` alone, or in `write` alone, made one: each costs a state."""
    by_read: dict[Lane, Lane] = {}
    for x in lanes:
        key = replace(x, read=ONE)
        same = by_read.get(key)
        by_read[key] = x if same is None else replace(x, read=add(same.read, x.read))
    by_write: dict[Lane, Lane] = {}
    for x in by_read.values():
        key = replace(x, write=ONE)
        same = by_write.get(key)
        by_write[key] = x if same is None else replace(x, write=add(same.write, x.write))
    return tuple(by_write.values())
