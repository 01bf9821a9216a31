"""The linear order: Q·(L·(K ⊗ V)), as a recurrence over tokens or by FFT: for lag
symbols, and for the Fourier matrix itself.

A recurrence is the chunked order at chunk 1; targets with a kernel of its own for that say so by
the schedule "tokens".
"""

from __future__ import annotations

from dataclasses import replace

from smac.expr import S_POS, T_POS, At, Expr, Name, Num, Size, call
from smac.ir import Gather, Walk
from smac.lower.chunked import chunked
from smac.lower.kernels import Order
from smac.lower.values import Parts
from smac.masks.base import MIDDLE, WRAPS
from smac.plan.types import Candidate


def linear(p: Parts, chosen: Candidate) -> Order:
    """By generators where the mask has them, else by its symbol, or as the transform it is."""
    if p.lanes:
        kind = "recurrent" if chosen.schedule == "tokens" else "chunked"
        return chunked(p, chosen, kind)
    if p.mask.dft() is not None:
        walk, entry, support = Walk(chosen.chunk, chosen.segment), p.entry, p.mask.support()
        return Order(p, "fft", walk, (), stateful=False,
                     finish=lambda k: replace(k, entry=entry, support=support))  # fmt: skip
    return _convolution(p, chosen)


def _convolution(p: Parts, chosen: Candidate) -> Order:
    """L[t,s] = h[t − s + shift]: one entry node, whose gradient gathers by lag."""
    known = p.mask.symbol()
    assert known is not None  # the planner asked for the law
    assert p.symbol is not None
    lag: Expr = call("sub", T_POS, S_POS)
    if known[1] == MIDDLE:
        lag = call("add", lag, call("sub", Size("T"), Num(1)))
    elif known[1] == WRAPS:
        lag = call("mod", lag, Size("T"))
    entry, support = At(Name(p.symbol.name), (lag,)), p.mask.support()
    gather = Gather(f"d.{p.symbol.name}", "lag", p.symbol.name, Num(1), (lag,))
    return Order(
        p, "fft", Walk(chosen.chunk, chosen.segment), (p.symbol,), stateful=False,
        gathers=(gather,) if p.learned(p.symbol) else (),
        finish=lambda k: replace(k, entry=entry, support=support),
    )  # fmt: skip
