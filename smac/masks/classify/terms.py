"""Terms of the mask language, put together with 0 and 1 folded.

Non-goals: what they mean (the families do), text (show.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from smac.expr import ONE, ZERO, Expr, Num, call
from smac.masks.classify.polynomial import value_of
from smac.signatures import SIGNATURES
from smac.terms import MaskTerm

CAUSAL = MaskTerm("causal", ())


def mul(a: MaskTerm, b: MaskTerm) -> MaskTerm:
    """a * b, entrywise."""
    return MaskTerm("mul", (a, b))


def add(a: MaskTerm, b: MaskTerm) -> MaskTerm:
    """a + b."""
    return MaskTerm("add", (a, b))


def scale(c: Expr, a: MaskTerm) -> MaskTerm:
    """c * a."""
    return a if c == ONE else MaskTerm("scale", (c, a))


def strict(a: MaskTerm) -> MaskTerm:
    """a without its diagonal."""
    return MaskTerm("strict", (a,))


def transpose(a: MaskTerm) -> MaskTerm:
    """aᵀ, with symmetric masks as they are."""
    return a if a.fn == "diagonal" else MaskTerm("transpose", (a,))


#: 1 below the diagonal.
STRICT = strict(CAUSAL)


def known(fn: str) -> bool:
    """Whether the mask language has `fn`: what it lacks is put together from what it has."""
    return fn in SIGNATURES


def ones() -> MaskTerm:
    """1 everywhere."""
    return MaskTerm("ones", ()) if known("ones") else add(CAUSAL, strict(transpose(CAUSAL)))


def lag_power(n: int) -> list[MaskTerm]:
    """Factors whose product is (t − s)^n."""
    return [MaskTerm("lag", ())] * n


def window(w: int) -> MaskTerm:
    """1 for lags 0 … w − 1."""
    return MaskTerm("diagonal", (ONE,)) if w == 1 else MaskTerm("window", (Num(w),))


def toeplitz(h: Expr, bidirectional: bool = False) -> MaskTerm:
    """h over the lags."""
    return MaskTerm("toeplitz", (h, bidirectional))


def total(masks: Sequence[MaskTerm]) -> MaskTerm:
    """The sum of masks; of none, zero."""
    if not masks:
        return scale(ZERO, CAUSAL)
    out = masks[0]
    for m in masks[1:]:
        out = add(out, m)
    return out


def product(masks: Sequence[MaskTerm]) -> MaskTerm:
    """The product of at least one mask."""
    out = masks[0]
    for m in masks[1:]:
        out = mul(out, m)
    return out


def wrap(a: MaskTerm, row: Expr = ONE, col: Expr = ONE, c: Expr = ONE) -> MaskTerm:
    """c · row[t] · col[s] · a."""
    if a == window(1) and (row, col) != (ONE, ONE):
        both = [x for x in (row, col) if x != ONE]
        return scale(c, MaskTerm("diagonal", (both[0] if len(both) == 1 else call("mul", *both),)))
    if a == window(1) and c != ONE:
        return MaskTerm("diagonal", (c,))
    if col != ONE:
        a = MaskTerm("col", (col, a))
    if row != ONE:
        a = MaskTerm("row", (row, a))
    return scale(c, a)


def lower(a: MaskTerm) -> bool:
    """Whether a mask is 0 above the diagonal, by its form."""
    match a:
        case MaskTerm("causal" | "decay" | "semiseparable" | "cumulative", _):
            return True
        case MaskTerm("diagonal" | "window", _):
            return True
        case MaskTerm("toeplitz", (_, both)):
            return not both
        case MaskTerm("row" | "col" | "scale", (_, MaskTerm() as x)):
            return lower(x)
        case MaskTerm("strict" | "shift", (MaskTerm() as x, *_)):
            return lower(x)
        case MaskTerm("add", (MaskTerm() as x, MaskTerm() as y)):
            return lower(x) and lower(y)
        case MaskTerm("mul", (MaskTerm() as x, MaskTerm() as y)):
            return lower(x) or lower(y)
    return False


def steps(weights: Mapping[int, Fraction]) -> tuple[MaskTerm, bool]:
    """Σ weight · [t − s ≥ c] as a mask, and whether it needs a ring of tokens.

    With value v_j on the lags from one step to the next, this is Σ (v_j − v_next) windows, and
    causal() times the last value.
    """
    ends = sorted(weights)
    if ends == [0]:
        return (CAUSAL if weights[0] == 1 else scale(value_of(weights[0]), CAUSAL)), False
    if ends == [1]:
        return scale(value_of(weights[1]), STRICT), False
    if len(ends) == 2 and weights[ends[0]] == -weights[ends[1]]:
        return scale(value_of(weights[ends[0]]), _band(*ends)), ends != [0, 1]
    if ends == [0, 1] and sum(weights.values(), Fraction(0)):
        last = value_of(sum(weights.values(), Fraction(0)))
        return add(scale(last, CAUSAL), scale(value_of(-weights[1]), window(1))), False
    masks, after = [], sum(weights.values(), Fraction(0))
    if after:
        masks.append(scale(value_of(after), CAUSAL))
    for c in reversed(ends):
        if c:
            masks.append(scale(value_of(-weights[c]), window(c)))
    return total(masks), True


def _band(low: int, high: int) -> MaskTerm:
    """1 for lags low … high − 1."""
    if low > 2:
        return add(window(high), scale(Num(-1), window(low)))
    out = window(high - low)
    for _ in range(low):
        out = MaskTerm("shift", (out, "t"))
    return out
