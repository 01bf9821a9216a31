"""ones(): 1 everywhere. Times rows and columns it is a mask of low rank."""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import ONE, ZERO, Expr
from smac.masks.base import Lane, Mask
from smac.masks.registry import register


@register("ones")
@dataclass(frozen=True)
class Ones(Mask):
    """L[t,s] = 1."""

    def entry(self) -> Expr:
        return ONE

    def lanes(self) -> tuple[Lane, ...]:
        return (Lane(ZERO),)

    def above(self) -> tuple[Lane, ...]:
        return (Lane(ZERO, late=True),)

    def transpose(self) -> Mask:
        return self
