"""Sums of lanes as values: products, merging of equal transitions, and what a diagonal takes away.

Ranks add under +, multiply under entrywise *, and lanes with one transition are one state.

Non-goals: no masks (algebra.py), no cancelling of terms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from smac.expr import ONE, ZERO, Call, Expr, Index, Num, call
from smac.masks.base import Lane
from smac.masks.make import add, keep, mul

Lanes = tuple[Lane, ...]
#: The log decay of a lane that keeps nothing from one token to the next.
FORGETS = Num(float("-inf"))
#: Log decays at or below this cut, with gradient 0.
RESET = -256


def forgets(lane: Lane) -> bool:
    """Whether the lane is a diagonal (below the diagonal, when it is late)."""
    return lane.log_decay == FORGETS


def carried(lanes: Lanes) -> Lanes:
    """Those whose states a walk needs for what it reads: a diagonal is none beside other lanes."""
    return tuple(x for x in lanes if x.late or not forgets(x)) or lanes


def resets_every(lane: Lane, tokens: int) -> bool:
    """Whether the lane is known to start from nothing at each multiple of `tokens`, counted from
    the start of the sequence. A late lane reads before it resets."""
    return not lane.late and lane.reset is not None and _falls_on(lane.reset, tokens)


def _falls_on(reset: Expr, tokens: int) -> bool:
    """Whether a reset is 1 at each multiple of `tokens`."""
    match reset:
        case Call("maximum", parts):
            return any(_falls_on(e, tokens) for e in parts)
        case Call("eq", (Call("mod", (Index("T"), Num(block))), Num(0))):
            return block > 0 and tokens % block == 0
    return False


def strictly(lanes: Iterable[Lane]) -> Lanes:
    """`lanes` without their diagonal: late, each row taking one decay of its own.

    The same numbers by products alone: nothing is subtracted, and no decay is divided by.
    """
    return merged(y for x in lanes for y in _late(x))


def _late(x: Lane) -> Lanes:
    if x.late:
        return (x,)
    if forgets(x):
        return ()
    return (replace(x, read=mul(x.read, own_decay(x)), late=True),)


def own_decay(x: Lane) -> Expr:
    """What the lane's state is multiplied by at a token: its decay, 0 where it resets.

    Resets by the decay itself are told apart from it, so that their gradient is 0, not 0 · inf."""
    decay: Expr = ONE
    if x.log_decay != ZERO:
        decay = keep(call("gt", x.log_decay, Num(RESET)), call("exp", x.log_decay))
    return decay if x.reset is None else keep(call("eq", x.reset, ZERO), decay)


def diagonal(lanes: Iterable[Lane]) -> Lanes:
    """A lane for Σ read · write over those that have a diagonal; none where no lane has one."""
    total: Expr = ZERO
    for x in lanes:
        total = total if x.late else add(total, mul(x.read, x.write))
    return () if total == ZERO else (Lane(FORGETS, read=total),)


def turned(lanes: Lanes) -> Lanes:
    """Late lanes of time backwards: rows become columns."""
    return tuple(replace(x, read=x.write, write=x.read) for x in lanes)


def product(a: Lanes, b: Lanes) -> Lanes:
    """Lanes of the entrywise product."""
    return merged(z for x in a for y in b for z in _both(x, y))


def _both(x: Lane, y: Lane) -> Lanes:
    """The lane of the product of two lanes; none when it is zero."""
    if x.late != y.late:
        return tuple(z for u in _late(x) for v in _late(y) for z in _both(u, v))
    resets = [r for r in (x.reset, y.reset) if r is not None]
    reset = call("maximum", *resets) if len(set(resets)) == 2 else next(iter(resets), None)
    log_decay = add(x.log_decay, y.log_decay)
    if forgets(x) or forgets(y):  # nothing is left for a reset to cut
        log_decay, reset = FORGETS, None
    return (Lane(log_decay, reset, mul(x.read, y.read), mul(x.write, y.write), x.late),)


def merged(lanes: Iterable[Lane]) -> Lanes:
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
