"""lag(): the distance t − s. Powers times a decay: gamma memory (de Vries and Principe 1992)."""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import ZERO, Expr, Index, call
from smac.masks.base import Lane, Mask
from smac.masks.make import LAG
from smac.masks.registry import register


@register("lag")
@dataclass(frozen=True)
class Lag(Mask):
    """L[t,s] = t − s, on both sides of the diagonal.

    Lanes are t·1 − 1·s, which cancel: the planner takes them while enough digits are left.
    """

    def entry(self) -> Expr:
        return LAG

    def lanes(self) -> tuple[Lane, ...]:
        here = Index("T")
        return (Lane(ZERO, read=here), Lane(ZERO, write=call("neg", here)))

    def above(self) -> tuple[Lane, ...]:
        here = Index("T")
        return (Lane(ZERO, write=here, late=True), Lane(ZERO, read=call("neg", here), late=True))
