"""dense(M): any matrix, given as a tensor with axes T and S."""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import S_POS, T_POS, At, Expr
from smac.masks.base import Mask
from smac.masks.registry import register


@register("dense")
@dataclass(frozen=True)
class Dense(Mask):
    """L[t,s] = M[t,s]."""

    M: Expr

    def entry(self) -> Expr:
        return At(self.M, (T_POS, S_POS))
