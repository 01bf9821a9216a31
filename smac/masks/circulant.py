"""circulant(h): distances around a circle of T tokens. Global filters (Rao et al. 2021, GFNet)."""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import At, Expr, Size, call
from smac.masks.base import WRAPS, Mask
from smac.masks.make import CAUSAL, LAG
from smac.masks.registry import register


@register("circulant")
@dataclass(frozen=True)
class Circulant(Mask):
    """L[t,s] = h[(t − s) mod T]; h over at least T lags."""

    h: Expr

    def entry(self) -> Expr:
        around = call("add", LAG, Size("T"))
        return call("where", CAUSAL, At(self.h, (LAG,)), At(self.h, (around,)))

    def symbol(self) -> tuple[Expr, int]:
        return self.h, WRAPS
