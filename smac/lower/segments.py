"""Sweeps split along T: every segment walked by a program of its own, from a state found before.

A sweep with a state is serial in T, and few heads leave a GPU idle. What a segment adds to the
state does not depend on what enters it, so one sweep finds that for all segments at once, a join
goes over the segments, and the sweep that was asked for starts everywhere at once. K and V (Q and
dY) are read once more for it.

Non-goals: how long a segment is (plan/cuts.py), kernels that carry no state along T.
"""

from __future__ import annotations

from dataclasses import replace

from smac.ir import SEG, Buffer, Carry, Join, Kernel, Step
from smac.lower.sides import named
from smac.lower.values import Parts


def split(p: Parts, steps: tuple[Step, ...]) -> tuple[tuple[Step, ...], tuple[Buffer, ...]]:
    """`steps` with every sweep split, and the scratch buffers between them. What enters the
    segments is found once for each product that is carried."""
    sweeps = [k for k in steps if isinstance(k, Kernel) and _sweeps(k)]
    finals = {(c.name, c.upper): c.final for k in sweeps for c in k.carries if c.final is not None}
    shown = {(c.name, c.upper) for k in sweeps for c in k.carries
             if any((c.initial, c.final, c.saves, c.against, c.met))}  # fmt: skip
    made: set[tuple[str, bool]] = set()
    scratch: list[Buffer] = []
    found: list[Step] = []
    for step in steps:
        if not isinstance(step, Kernel) or not _sweeps(step):
            found.append(step)
            continue
        (carry,) = step.carries
        key, of = (carry.name, carry.upper), f"{carry.name}{named(carry)}"
        states, spans = f"enters.{of}", f"spans.{of}"
        carry = replace(carry, closed=key not in shown)
        if key not in made:
            batch = (*p.spec.batch, SEG, "H", "R")
            scratch += [Buffer(states, (*batch, "N", "P"), "acc", "scratch"),
                        Buffer(spans, batch, "acc", "scratch")]  # fmt: skip
            found += _entering(step, carry, states, spans, finals.get(key))
            made.add(key)
        carry = replace(carry, initial=None, final=None, enters=states)
        found.append(replace(step, walk=replace(step.walk, split=True), carries=(carry,)))
    return tuple(found), tuple(scratch)


def _sweeps(k: Kernel) -> bool:
    """Whether a kernel carries one state along T."""
    return (k.kind == "chunked" and k.channel is None and len(k.carries) == 1
            and k.carries[0].restores is None)  # fmt: skip


def _entering(k: Kernel, c: Carry, states: str, spans: str, final: str | None) -> tuple[Step, ...]:
    """What each segment adds to the state of `c`, and the states that enter them."""
    lanes = {n for x in k.lanes for n in (x.decay, x.reset, x.read, x.write)}
    alone = Carry(c.name, c.left, c.right, c.reverse, final=final, leaves=states, spans=spans,
                  closed=c.closed, upper=c.upper)  # fmt: skip
    values = tuple(v for v in k.values if v.name in lanes | {c.left, c.right})
    tail = any(v.tail is not None for v in values if v.name == c.right)
    of = f"{c.name}{named(c)}"
    ends = Kernel(f"segments_{of}", k.kind, replace(k.walk, split=True), values, (alone,),
                  lanes=k.lanes, channel=k.channel, group=k.group)  # fmt: skip
    join = Join(f"join_{of}", states, spans, k.walk.segment, c.initial, final, c.reverse, tail)
    return ends, join
