"""prefix(p): causal, and the first p tokens see each other. Prefix-LM (Raffel et al. 2020, T5)."""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import ONE, S_POS, ZERO, Expr, Index, call
from smac.masks.base import Lane, Mask
from smac.masks.make import CAUSAL, keep
from smac.masks.registry import register


@register("prefix")
@dataclass(frozen=True)
class Prefix(Mask):
    """L[t,s] = 1 for s < p or t ≥ s; p without a T axis (a number, or a length for each batch)."""

    p: Expr

    def entry(self) -> Expr:
        return keep(call("maximum", CAUSAL, call("lt", S_POS, self.p)), ONE)

    def lanes(self) -> tuple[Lane, ...]:
        return (Lane(ZERO),)

    def above(self) -> tuple[Lane, ...]:
        return (Lane(ZERO, read=keep(call("lt", Index("T"), self.p), ONE), late=True),)
