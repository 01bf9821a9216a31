"""semiseparable(log_decay): the 1-semiseparable mask of SSD (Dao & Gu 2024), in log space."""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import S_POS, T_POS, Between, Expr, call
from smac.masks.base import Lane, Mask
from smac.masks.make import CAUSAL, keep
from smac.masks.registry import register


@register("semiseparable")
@dataclass(frozen=True)
class Semiseparable(Mask):
    """L[t,s] = exp(Σ_{k=s+1..t} log_decay[k]) for t ≥ s.

    Any sign; −inf resets. An axis N or P in log_decay makes it a mask per channel.
    """

    log_decay: Expr

    def entry(self) -> Expr:
        return keep(CAUSAL, call("exp", Between(self.log_decay, S_POS, T_POS)))

    def lanes(self) -> tuple[Lane, ...]:
        return (Lane(self.log_decay),)
