"""Expressions read at other tokens: T − 1 − t (flip), t + 1 (ahead), t − 1 (behind).

What a reversed or shifted mask reads. A move goes down to inputs and positions, so that lowering
meets `Call(fn, (input,))` alone and copies each moved input once. Ends repeat: the token ahead of
the last is the last again, so that every function is asked in its domain; lanes never use it.

Non-goals: no masks (algebra.py), moves inside entries (those read `At` another index).
"""

from __future__ import annotations

from dataclasses import replace

from smac.expr import (
    MOVE_FUNCTIONS,
    ONE,
    SCAN_FUNCTIONS,
    ZERO,
    Call,
    Expr,
    Index,
    Name,
    Size,
    call,
    transform,
    walk,
)
from smac.masks.base import Lane

_LAST = call("sub", Size("T"), ONE)
_HERE = Index("T")
_AT = {"flip": call("sub", _LAST, _HERE), "ahead": call("minimum", call("add", _HERE, ONE), _LAST),
       "behind": call("maximum", call("sub", _HERE, ONE), ZERO)}  # fmt: skip
#: What is read whole: not pointwise, so that a move goes around it.
_WHOLE = frozenset(SCAN_FUNCTIONS | MOVE_FUNCTIONS)


def moved(fn: str, e: Expr) -> Expr:
    """`e` at the token that `fn` (one of `MOVE_FUNCTIONS`) names, at every t."""

    def leaf(x: Expr) -> Expr | None:
        if x == Index("T"):
            return _AT[fn]
        if isinstance(x, Call) and x.fn == fn == "flip":
            return x.args[0]
        if isinstance(x, Name) or (isinstance(x, Call) and x.fn in _WHOLE):
            return call(fn, x)
        return None

    return transform(e, leaf)


def moved_lane(fn: str, lane: Lane) -> Lane:
    """Every part of `lane` at the token that `fn` names."""
    reset = None if lane.reset is None else moved(fn, lane.reset)
    return replace(lane, log_decay=moved(fn, lane.log_decay), reset=reset,
                   read=moved(fn, lane.read), write=moved(fn, lane.write))  # fmt: skip


def moves(lane: Lane) -> bool:
    """Whether the lane reads another token than its own (before names are given axes)."""
    parts = (lane.log_decay, lane.reset, lane.read, lane.write)
    return any(isinstance(x, Call) and x.fn in MOVE_FUNCTIONS
               for e in parts if e is not None for x in walk(e))  # fmt: skip
