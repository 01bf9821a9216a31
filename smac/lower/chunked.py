"""The chunked order: quadratic inside a chunk, a carried state between chunks (SSD)."""

from __future__ import annotations

from dataclasses import replace

from smac.ir import LaneIR, Walk
from smac.lower.kernels import Order, lane_gradients
from smac.lower.values import Parts
from smac.masks.lanes import resets_every
from smac.plan.config import MOST_LANES
from smac.plan.types import Candidate


def chunked(p: Parts, chosen: Candidate, kind: str = "chunked") -> Order:
    """Chunks of `chosen.chunk` tokens, swept with states of the mask's lanes. Where chunks are
    taken in parallel, many lanes are taken in turn, and those that reset at every chunk have no
    states."""
    walk = Walk(chosen.chunk, chosen.segment, mirrored=p.mirrored)
    kept = sum(lane.keeps for lane in p.lanes)
    turns = chosen.schedule == "chunks" and kept > MOST_LANES["chunked"]
    lanes = _inside(p, chosen.chunk) if turns and not p.state else p.lanes
    return Order(
        p, kind, walk, p.lane_values, stateful=True, lane_grads=lane_gradients(p),
        finish=lambda k: replace(k, lanes=lanes), in_turn=turns,
    )  # fmt: skip


def _inside(p: Parts, chunk: int) -> tuple[LaneIR, ...]:
    """The lanes, told which of them are inside chunks. A state that comes in may stand anywhere
    between two chunks of its sequence: then none is."""
    found = p.mask.generators()
    assert found is not None
    both = zip(p.lanes, (*found.lanes, *found.above), strict=True)
    return tuple(replace(x, inside=x.keeps and resets_every(of, chunk)) for x, of in both)
