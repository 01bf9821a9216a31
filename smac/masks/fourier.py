"""fourier("cos"|"sin"): the real and imaginary part of the DFT. FNet (Lee-Thorp et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from smac.expr import S_POS, T_POS, Expr, Num, Size, call
from smac.masks.base import Mask
from smac.masks.registry import register


@register("fourier")
@dataclass(frozen=True)
class Fourier(Mask):
    """L[t,s] = cos or sin of 2π·t·s/T.

    t·s is reduced mod T in integers first: at T = 10⁵ a float32 angle would be off by whole turns.
    """

    kind: str

    def entry(self) -> Expr:
        turn = call("div", call("mod", call("mul", T_POS, S_POS), Size("T")), Size("T"))
        return call(self.kind, call("mul", Num(2 * math.pi), turn))

    def dft(self) -> str:
        return self.kind

    def transpose(self) -> Mask:
        return self
