"""window(w): 1 for the last w tokens, the token itself included. Sliding-window attention."""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import ONE, Expr, call
from smac.masks.base import Mask
from smac.masks.make import CAUSAL, LAG, keep
from smac.masks.registry import register


@register("window")
@dataclass(frozen=True)
class Window(Mask):
    """L[t,s] = 1 for 0 ≤ t − s < w; w is made of numbers and sizes."""

    w: Expr

    def entry(self) -> Expr:
        return keep(CAUSAL, keep(call("lt", LAG, self.w), ONE))

    def why_no_generators(self) -> str:
        return "its finite state is a ring of w tokens, not a sum of lanes"
