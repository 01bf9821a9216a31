"""Lanes of masks moved by a token, and of time backwards: what changes places, what is taken along.

Moved down a row or left a column, a mask's diagonal lies one below where it was. Late lanes skip
one token and so hold what was on and below the diagonal; of what was above it, the first side
diagonal comes to lie on the diagonal, and the rest takes one decay of its own along.

Non-goals: no masks (algebra.py), no decays divided by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from smac.expr import ONE, ZERO, Expr, Index, Size, call
from smac.masks.base import Lane
from smac.masks.lanes import FORGETS, Lanes, forgets, own_decay
from smac.masks.make import mul, sub
from smac.masks.moves import moved, moved_lane

_FIRST = call("eq", Index("T"), ZERO)
_LAST = call("eq", Index("T"), sub(Size("T"), ONE))


def backwards(lanes: Lanes) -> Lanes:
    """Late lanes and diagonals, every part at token T − 1 − t."""
    return tuple(moved_lane("flip", x) for x in lanes)


def shifted_down(x: Lane) -> Lane:
    """A[t−1,s] of a lane: the row above, read before this row's token is added."""
    if forgets(x):  # a diagonal's factors may as well be its columns', which stay
        return replace(x, read=ONE, write=mul(x.read, x.write), late=True)
    return replace(x, read=moved("behind", x.read), late=True)


def shifted_left(x: Lane) -> Lane:
    """A[t,s+1] of a lane: each token with the decays and the factor of the one ahead."""
    return replace(moved_lane("ahead", x), read=x.read, late=True)


def crossing_down(x: Lane) -> Lane:
    """A[t−1,t] of what is above, as a diagonal: 0 at the first token."""
    return Lane(FORGETS, read=_unless(_FIRST, mul(x.read, moved("behind", x.write))))


def crossing_left(x: Lane) -> Lane:
    """A[t,t+1] of what is above, as a diagonal: 0 at the last token."""
    return Lane(FORGETS, read=_unless(_LAST, mul(moved("ahead", x.read), x.write)))


def down_above(x: Lane) -> Lanes:
    """A[t−1,s] above the diagonal still: the row above takes this row's decay."""
    return _taking(x, lambda own: replace(
        x, write=_unless(_FIRST, mul(own, moved("behind", x.write)))))  # fmt: skip


def left_above(x: Lane) -> Lanes:
    """A[t,s+1] above the diagonal still: the column to the right takes this column's decay."""
    return _taking(x, lambda own: replace(
        x, read=_unless(_LAST, mul(own, moved("ahead", x.read)))))  # fmt: skip


def _taking(x: Lane, make: Callable[[Expr], Lane]) -> Lanes:
    """`make` of the lane's decay at a token; nothing where it forgets everything."""
    return () if forgets(x) else (make(own_decay(x)),)


def _unless(cond: Expr, value: Expr) -> Expr:
    """0 where `cond` holds, else `value`."""
    return value if value == ZERO else call("where", cond, ZERO, value)
