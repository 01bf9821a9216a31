"""Formulas of images: t = y·width + x read by t % width and t // width, one factor an axis.

Non-goals: more than two axes, sums of products of axes.
"""

from __future__ import annotations

import random

from smac.expr import S_POS, T_POS, ZERO, At, Between, Call, Expr, Name, Num, Pos, transform, walk
from smac.masks.classify.evaluate import Point, value


def split(formula: Expr) -> tuple[int, Expr, Expr] | None:
    """(width, factor across, factor down) as formulas of positions on their own axes, or None.

    L is their product over their value at the origin, which is checked on drawn numbers.
    """
    widths = {n.args[1] for n in walk(formula) if isinstance(n, Call)
              and n.fn in ("mod", "floordiv") and n.args[0] in (T_POS, S_POS)}  # fmt: skip
    if len(widths) != 1 or any(isinstance(n, At | Between) for n in walk(formula)):
        return None
    width = widths.pop()
    across, down = _axis(formula, "mod", width), _axis(formula, "floordiv", width)
    if across is None or down is None or not isinstance(width, Num):
        return None
    w = int(width.value)
    return (w, across, down) if w > 1 and _separable(formula, across, down, w) else None


def _axis(formula: Expr, kept: str, width: Expr) -> Expr | None:
    """The formula with the positions on one axis as t and s, those on the other at 0."""

    def one(n: Expr) -> Expr | None:
        match n:
            case Call("mod" | "floordiv" as fn, (Pos() as at, w)) if w == width:
                return at if fn == kept else ZERO
        return None

    found = [n for n in walk(transform(formula, lambda n: ZERO if one(n) else None))
             if isinstance(n, Pos)]  # fmt: skip
    return None if found else transform(formula, one)


def _separable(formula: Expr, across: Expr, down: Expr, width: int) -> bool:
    source = random.Random(width)
    names = {n.id for n in walk(formula) if isinstance(n, Name)}
    for _ in range(64):
        T = width * width
        values = {n: source.uniform(0.3, 1.0) for n in sorted(names)}
        p = Point(T, values, source.randrange(T), source.randrange(T))
        x = Point(T, values, p.t % width, p.s % width)
        y = Point(T, values, p.t // width, p.s // width)
        try:
            whole = value(formula, p) * value(formula, Point(T, values))
            parts = value(across, x) * value(down, y)
        except (ArithmeticError, ValueError):
            return False
        if abs(whole - parts) > 1e-12 * max(1.0, abs(whole)):
            return False
    return True
