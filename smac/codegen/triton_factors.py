"""Operands as a factor of each row times a core: V = delta · x, Q = q / sqrt(N).

The core goes into a dot as it is loaded; the factor joins the mask's rows or columns.

Non-goals: no algebra beyond products, quotients and signs at the top of an expression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from smac.codegen.triton_tiles import Tensor
from smac.expr import ONE, Call, Expr, Index, Num, call, names, walk
from smac.ir import Value


@dataclass(frozen=True, slots=True)
class Factored:
    """`vector` · `scalar` · `core`: one number a row, one number, and what has the axis."""

    vector: Expr
    scalar: Expr
    core: Expr


def factors_of(v: Value, known: Mapping[str, Tensor]) -> Factored:
    """An operand in factors; one with a tail stays whole, for its last column has none."""
    if v.tail is not None:
        return Factored(ONE, ONE, v.expr)
    return factored(v.expr, "P" if v.name in ("V", "dY") else "N", known)


def factored(e: Expr, axis: str, known: Mapping[str, Tensor]) -> Factored:
    """`e` as factors that do not carry `axis`, with and without T, and a core that does."""
    if not carries(e, axis, known):
        return Factored(ONE, ONE, e)
    factors: list[Expr] = []
    core = e
    while isinstance(core, Call) and core.fn in ("mul", "div", "neg"):
        if core.fn == "neg":
            factors.append(Num(-1))
            core = core.args[0]
            continue
        a, b = core.args
        if not carries(b, axis, known):
            factors.append(b if core.fn == "mul" else call("div", ONE, b))
            core = a
        elif core.fn == "mul" and not carries(a, axis, known):
            factors.append(a)
            core = b
        else:
            break
    vectors = [f for f in factors if carries(f, "T", known)]
    return Factored(product(vectors), product([f for f in factors if f not in vectors]), core)


def product(factors: list[Expr]) -> Expr:
    """The factors multiplied; 1 for none."""
    total: Expr = ONE
    for f in factors:
        total = f if total == ONE else call("mul", total, f)
    return total


def carries(e: Expr, axis: str, known: Mapping[str, Tensor]) -> bool:
    """Whether a tensor (or index) that `e` reads has `axis`."""
    return any(axis in known[n].axes for n in names(e)) or any(
        isinstance(x, Index) and x.axis == axis for x in walk(e)
    )
