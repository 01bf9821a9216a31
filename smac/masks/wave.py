"""wave(omega, phase): cos(ω(t − s) + φ). Times a decay, a complex one: xPos (Sun et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import ZERO, Expr, Index, call
from smac.masks.base import Lane, Mask
from smac.masks.make import LAG, add, mul
from smac.masks.registry import register


@register("wave")
@dataclass(frozen=True)
class Wave(Mask):
    """L[t,s] = cos(omega · (t − s) + phase), both without a T axis, in radians.

    A rotation of rank 2: cos(ωt + φ) cos(ωs) + sin(ωt + φ) sin(ωs), on both sides of the diagonal.
    """

    omega: Expr
    phase: Expr

    def entry(self) -> Expr:
        return call("cos", add(mul(self.omega, LAG), self.phase))

    def lanes(self) -> tuple[Lane, ...]:
        rows, columns = self._turns()
        return tuple(Lane(ZERO, read=r, write=c) for r, c in zip(rows, columns, strict=True))

    def above(self) -> tuple[Lane, ...]:
        rows, columns = self._turns()
        return tuple(Lane(ZERO, read=c, write=r, late=True)
                     for r, c in zip(rows, columns, strict=True))  # fmt: skip

    def _turns(self) -> tuple[tuple[Expr, Expr], tuple[Expr, Expr]]:
        """Cosine and sine at rows, and at columns."""
        angle = mul(self.omega, Index("T"))
        turned = add(angle, self.phase)
        return ((call("cos", turned), call("sin", turned)),
                (call("cos", angle), call("sin", angle)))  # fmt: skip
