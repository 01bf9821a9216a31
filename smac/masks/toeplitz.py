"""toeplitz(h): entries read from a lag axis W. TNN (Qin et al. 2023), relative position biases.

Causal: h[0 … T−1], W ≥ T. Bidirectional: W = 2T − 1 with lag 0 in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import ONE, At, Expr, Size, call
from smac.masks.base import Mask
from smac.masks.make import CAUSAL, LAG, keep
from smac.masks.registry import register


@register("toeplitz")
@dataclass(frozen=True)
class Toeplitz(Mask):
    """L[t,s] = h[t−s] for t ≥ s, or h[t−s+T−1] everywhere when bidirectional."""

    h: Expr
    bidirectional: bool = False

    def entry(self) -> Expr:
        if self.bidirectional:
            middle = call("sub", Size("T"), ONE)
            return At(self.h, (call("add", LAG, middle),))
        return keep(CAUSAL, At(self.h, (LAG,)))

    def symbol(self) -> tuple[Expr, int]:
        return self.h, (-1 if self.bidirectional else 0)
