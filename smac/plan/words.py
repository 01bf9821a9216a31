"""Numbers as people read them, and a loser's verdict.

Non-goals: no tables (explain.py).
"""

from __future__ import annotations

from smac.plan.types import Candidate

_STEPS = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def quantity(n: float, unit: str = "") -> str:
    """`12.3 GB`: three digits and a decimal prefix."""
    k = 0
    while n >= 999.5 and k < len(_STEPS) - 1:
        n, k = n / 1000, k + 1
    digits = f"{n:.0f}" if n >= 99.5 or (k == 0 and n == int(n)) else f"{n:.3g}"
    return f"{digits} {_STEPS[k]}{unit}".rstrip()


def duration(seconds: float) -> str:
    """`1.23 ms`."""
    for scale, unit in ((1e-6, "µs"), (1e-3, "ms")):
        if seconds < 999.5 * scale:
            return f"{seconds / scale:.3g} {unit}"
    return quantity(seconds, "s")


def verdict(c: Candidate, best: Candidate) -> str:
    """Why `c` lost to `best`: how much slower, and what it spends its time on."""
    if c is best:
        return "chosen"
    if c.time < 1.005 * best.time:
        return f"as fast; {reason(c)}"
    ratio = c.time / best.time if best.time else float("inf")
    return f"{ratio:.3g}× slower: {reason(c)}"


def reason(c: Candidate) -> str:
    """What the largest part of a candidate's time is, in words."""
    parts = dict(c.parts)
    worst = max(parts, key=lambda k: parts[k])
    match worst:
        case "memory":
            what, n = max(c.traffic, key=lambda t: t[1])
            return f"{quantity(n, 'B')} of {what} traffic"
        case "dots":
            what = max(c.dots, key=lambda d: d.flops).name
            return f"{quantity(c.flops, 'flop')} of dots, most in {what}"
        case "scalar":
            return f"{quantity(c.scalar_flops)} elementwise operations"
        case "chain":
            return "a long chain of steps, each waiting for the last"
        case _:
            return f"{c.launches} launches"
