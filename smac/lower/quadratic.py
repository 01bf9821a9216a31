"""The quadratic order: ((Q·Kᵀ) ∘ L)·V on tiles, for any mask with an entry."""

from __future__ import annotations

from dataclasses import replace

from smac.expr import Name
from smac.ir import Walk
from smac.lower.kernels import Order
from smac.lower.values import Parts
from smac.plan.cuts import operands_on_chip, tile_columns
from smac.plan.types import Candidate, Request


def quadratic(p: Parts, chosen: Candidate) -> Order:
    """Tiles of `chosen.chunk` rows; no state."""
    walk = Walk(chosen.chunk, chosen.segment)
    support = p.mask.support()
    rising = {Name(s.out) for s in p.scans if s.fn == "runs"}
    runs = tuple(v.name for v in p.bases if v.expr in rising)
    learned = {v.name for v in p.bases if p.learned(v)}
    return Order(
        p, "tiles", walk, p.bases, stateful=False,
        gathers=tuple(g for g in p.gathers if g.base in learned),
        finish=lambda k: replace(k, entry=p.entry, support=support, runs=runs),
    )  # fmt: skip


def pairs(p: Parts, request: Request) -> bool:
    """Whether dK and dV are reads of one kernel (triton): its programs hold all columns of both in
    registers, and share the loads of Q and dY and the entries of L."""
    if request.target != "triton" or p.channel is not None or not operands_on_chip(request.device):
        return False
    if not (p.learned(p.k) and p.learned(p.v)):
        return False
    return max(request.size("N"), request.size("P") + p.reads_z) <= tile_columns(request.dtype)
