"""level(l): pairs whose positions first differ in bit l − 1. Fenwick masks (Guo et al. 2025).

Log-linear attention weighs level l of each row by a number of its own: Σ_l row(x_l) * level(l),
times a decay. A level is one lane, which forgets at each multiple of 2^l, so that T tokens take
⌈log₂ T⌉ + 1 states. A spec writes fenwick(x), with an axis for the levels: smac/levels.py makes the
sum of it, before masks are built.
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import ONE, S_POS, T_POS, ZERO, Expr, Index, Num, call
from smac.masks.base import Lane, Mask
from smac.masks.lanes import FORGETS
from smac.masks.make import CAUSAL, keep
from smac.masks.registry import register

#: The highest level: positions below 2⁴⁰ have no more bits.
HIGHEST = 40


def level(l: Expr) -> Mask:  # noqa: E741 (the paper's letter)
    """The mask of level `l`, a whole number. Raises SpecError."""
    from smac.errors import SpecError

    if not isinstance(l, Num) or l.value != int(l.value) or not 0 <= l.value <= HIGHEST:
        from smac.show import show

        raise SpecError(f"contraction.L: level(l): found '{show(l)}'; expected a whole number from "
                        f"0 to {HIGHEST}")  # fmt: skip
    return Level(Num(int(l.value)))


@dataclass(frozen=True)
class Level(Mask):
    """L[t,s] = 1 where t ≥ s and bit_length(t xor s) = l."""

    l: Num  # noqa: E741
    name = "level"

    def entry(self) -> Expr:
        bits = call("bit_length", call("xor", T_POS, S_POS))
        return keep(CAUSAL, keep(call("eq", bits, self.l), ONE))

    def lanes(self) -> tuple[Lane, ...]:
        """From the first half of each block of 2^l tokens to its second half."""
        if self.l.value == 0:
            return (Lane(FORGETS),)
        block = 2 ** int(self.l.value)
        at = call("mod", Index("T"), Num(block))
        start, late = call("eq", at, ZERO), call("ge", at, Num(block // 2))
        return (Lane(ZERO, start, keep(late, ONE), keep(call("lt", at, Num(block // 2)), ONE)),)


def fenwick(_: Expr) -> Mask:
    """No mask before the number of levels is known. Raises SpecError."""
    from smac.errors import SpecError

    raise SpecError("contraction.L: fenwick(…) must be expanded for a number of levels "
                    "(smac.levels.expand) before masks are built")  # fmt: skip


register("level")(level)
register("fenwick")(fenwick)
