"""Small constructors for entries and lanes: they fold 0 and 1, so that laws stay short to print."""

from __future__ import annotations

from smac.expr import ONE, S_POS, T_POS, ZERO, At, Expr, Num, call


def mul(a: Expr, b: Expr) -> Expr:
    """a · b, with 0 and 1 folded."""
    if ZERO in (a, b):
        return ZERO
    if a == ONE:
        return b
    return a if b == ONE else call("mul", a, b)


def add(a: Expr, b: Expr) -> Expr:
    """a + b, with 0 and sums of numbers folded."""
    if isinstance(a, Num) and isinstance(b, Num):
        return Num(a.value + b.value)
    if a == ZERO:
        return b
    return a if b == ZERO else call("add", a, b)


def sub(a: Expr, b: Expr) -> Expr:
    """a − b."""
    return a if b == ZERO else call("sub", a, b)


def keep(cond: Expr, value: Expr) -> Expr:
    """`value` where `cond` holds, else 0."""
    return value if value == ZERO else call("where", cond, value, ZERO)


def at(base: Expr, *index: Expr) -> Expr:
    """`base` read at `index`; a number is the same everywhere."""
    return base if isinstance(base, Num) else At(base, index)


#: t − s.
LAG = call("sub", T_POS, S_POS)
#: On and below the diagonal.
CAUSAL = call("ge", T_POS, S_POS)
