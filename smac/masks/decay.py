"""decay(gamma): γ^(t−s) for t ≥ s. RetNet (Sun et al. 2023), Lightning attention, ALiBi."""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import Expr, Num, call
from smac.masks.base import Lane, Mask
from smac.masks.make import CAUSAL, LAG, keep, mul
from smac.masks.registry import register

#: Added to γ under the logarithm: at γ = 0 powers are then 1, 1e-30, … and not exp(0·−inf) = NaN,
#: and the gradient n γ^(n−1) comes out as exp(n log ε)·n/ε: 1 at n = 1 and 0 above, as it should.
TINY = Num(1e-30)


@register("decay")
@dataclass(frozen=True)
class Decay(Mask):
    """L[t,s] = gamma^(t−s) for t ≥ s; gamma ≥ 0 without a T axis, > 1 allowed.

    Decays stay in log space: a head whose gamma is below 0 is NaN throughout, in every order and
    by the oracle, never another number. Signs that alternate are rows and columns beside a decay:
    row(x) * col(x) * decay(abs(gamma)) with x = where(gamma < 0, 1 - 2 * (index(T) % 2), 1).
    """

    gamma: Expr

    @property
    def log_decay(self) -> Expr:
        """The natural log of gamma, finite at 0."""
        return call("log", call("add", self.gamma, TINY))

    def entry(self) -> Expr:
        return keep(CAUSAL, call("exp", mul(LAG, self.log_decay)))

    def lanes(self) -> tuple[Lane, ...]:
        return (Lane(self.log_decay),)
