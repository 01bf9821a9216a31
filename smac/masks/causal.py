"""causal(): 1 on and below the diagonal. Linear attention (Katharopoulos et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import ONE, ZERO, Expr
from smac.masks.base import Lane, Mask
from smac.masks.make import CAUSAL, keep
from smac.masks.registry import register


@register("causal")
@dataclass(frozen=True)
class Causal(Mask):
    """L[t,s] = 1 for t ≥ s."""

    def entry(self) -> Expr:
        return keep(CAUSAL, ONE)

    def lanes(self) -> tuple[Lane, ...]:
        return (Lane(ZERO),)
