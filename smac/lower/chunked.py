"""The chunked order: quadratic inside a chunk, a carried state between chunks (SSD)."""

from __future__ import annotations

from dataclasses import replace

from smac.ir import Walk
from smac.lower.kernels import Order, lane_gradients
from smac.lower.values import Parts
from smac.plan.config import MOST_LANES
from smac.plan.types import Candidate


def chunked(p: Parts, chosen: Candidate, kind: str = "chunked") -> Order:
    """Chunks of `chosen.chunk` tokens, swept with states of the mask's lanes. Where chunks are
    taken in parallel, many lanes are taken in turn."""
    walk = Walk(chosen.chunk, chosen.segment, mirrored=p.mirrored)
    kept = sum(lane.keeps for lane in p.lanes)
    turns = chosen.schedule == "chunks" and kept > MOST_LANES["chunked"]
    return Order(
        p, kind, walk, p.lane_values, stateful=True, lane_grads=lane_gradients(p),
        finish=lambda k: replace(k, lanes=p.lanes), in_turn=turns,
    )  # fmt: skip
