"""cumulative(g): exp(g[t] − g[s]), where g are log decays already summed along T (a cumsum's).

The 1-semiseparable mask of SSD (Dao & Gu 2024) from the other end: its log decays are g's
differences. Never exp(g[t]) · exp(−g[s]), of which one overflows. Non-goals: states between calls.
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import S_POS, T_POS, At, Expr, call
from smac.masks.base import Lane, Mask
from smac.masks.make import CAUSAL, keep, sub
from smac.masks.moves import moved
from smac.masks.registry import register


@register("cumulative")
@dataclass(frozen=True)
class Cumulative(Mask):
    """L[t,s] = exp(g[t] − g[s]) for t ≥ s; g finite, with a T axis.

    The lane takes a fall of 256 or more from one token to the next as a reset. At the first token
    it takes g − g: there is no token before it.
    """

    g: Expr

    def entry(self) -> Expr:
        return keep(CAUSAL, call("exp", sub(At(self.g, (T_POS,)), At(self.g, (S_POS,)))))

    def lanes(self) -> tuple[Lane, ...]:
        return (Lane(sub(self.g, moved("behind", self.g))),)
