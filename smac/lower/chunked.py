"""The chunked order: quadratic inside a chunk, a carried state between chunks (SSD)."""

from __future__ import annotations

from dataclasses import replace

from smac.ir import Walk
from smac.lower.kernels import Order, lane_gradients
from smac.lower.values import Parts
from smac.plan.types import Candidate


def chunked(p: Parts, chosen: Candidate, kind: str = "chunked") -> Order:
    """Chunks of `chosen.chunk` tokens, swept with states of the mask's lanes."""
    walk = Walk(chosen.chunk, chosen.segment, mirrored=p.mirrored)
    return Order(
        p, kind, walk, p.lane_values, stateful=True,
        lane_grads=lane_gradients(p), finish=lambda k: replace(k, lanes=p.lanes),
    )  # fmt: skip
