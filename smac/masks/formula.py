"""entry("…"): L[t,s] as a formula in t and s, where no structure was found in it (classify/).

Support and adjoint follow from the formula; it runs in the quadratic order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from smac.expr import Expr
from smac.masks.base import Mask
from smac.masks.registry import register
from smac.terms import MaskTerm


@register("entry")
@dataclass(frozen=True)
class Formula(Mask):
    """L[t,s] = formula, over `Pos`, sizes, numbers, and names without a T axis."""

    formula: Expr
    #: Why it has no finite state, for errors.
    why: str = field(default="a formula without a spec is not classified", compare=False)

    def entry(self) -> Expr:
        return self.formula

    def why_no_generators(self) -> str:
        return self.why

    def term(self) -> MaskTerm:
        return MaskTerm("entry", (self.formula,))
