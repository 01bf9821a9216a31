"""approx(A, tol, max_rank): A as a sum of exponentials, off by at most tol in every entry.

Before planning, `smac.certified.resolve` puts the fitted mask in its place, for the T at hand.
Until then this stands for A itself, in every law but those that only the fit has.
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import Expr
from smac.masks.base import Mask, Support
from smac.masks.registry import register


@register("approx")
@dataclass(frozen=True)
class Approx(Mask):
    """A within `tol`, by at most `max_rank` exponentials; A is a function of t − s ≥ 0."""

    A: Mask
    tol: Expr
    max_rank: Expr

    def entry(self) -> Expr:
        return self.A.entry()

    def support(self) -> Support:
        return self.A.support()

    def why_no_generators(self) -> str:
        return "its fit depends on T; op.refit(T=…) makes one"
