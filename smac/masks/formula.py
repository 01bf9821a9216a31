"""entry("…"): L[t,s] as a formula in t and s. Support and adjoint follow from the formula."""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import Expr
from smac.masks.base import Mask
from smac.masks.registry import register


@register("entry")
@dataclass(frozen=True)
class Formula(Mask):
    """L[t,s] = formula, over `Pos`, sizes, numbers, and names without a T axis."""

    formula: Expr

    def entry(self) -> Expr:
        return self.formula

    def why_no_generators(self) -> str:
        return "formulas are not classified"
