"""A picture in ASCII, 80 columns wide: no matplotlib needed.

Non-goals: no numbers of its own (facts.py).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from itertools import pairwise

from smac.picture.facts import CUT, FULL, NOTHING, STATE, ZERO, Facts
from smac.plan.words import duration

WIDTH, ROWS = 80, 24
#: From nothing to the largest entry.
SHADES = " .:-=+*#%@"
_TILE = {ZERO: " .", FULL: " #", CUT: " \\", STATE: " ~"}
_MEANS = {ZERO: "skipped", FULL: "entry by entry", CUT: "the edge, masked", STATE: "by the state"}


def render(f: Facts) -> str:
    """The whole picture."""
    return "\n".join([*_head(f), "", *_beside(_mask(f), _tiles(f)), "", *_sigma(f), "", *_times(f)])


def _head(f: Facts) -> Iterator[str]:
    r = f.plan.request
    yield from textwrap.wrap(f"{r.spec.name}: {r.spec.about}".rstrip(": "), WIDTH)
    mask = f.plan.mask_text
    yield from textwrap.wrap(mask, WIDTH, initial_indent="L = ", subsequent_indent="    ")


def _mask(f: Facts) -> list[str]:
    """The mask in characters, two a column; each the largest of its block."""
    T = len(f.matrix)
    top = max(abs(x) for row in f.matrix for x in row) or 1.0
    edges = [round(n * T / ROWS) for n in range(ROWS + 1)]
    lines = [f"mask, {T} x {T} of one head"]
    for a, b in pairwise(edges):
        shades = (max(abs(x) for row in f.matrix[a:b] for x in row[c:d]) / top
                  for c, d in pairwise(edges))  # fmt: skip
        lines.append("".join(2 * _shade(x) for x in shades))
    scale = f"|L|, rows t, columns s: blank 0, '{SHADES[1]}' nearly 0, '{SHADES[-1]}' {top:.3g}"
    return [*lines, scale]


def _shade(x: float) -> str:
    """A character for |x| ≤ 1: blank for 0 alone."""
    if x == 0:
        return SHADES[0]
    return SHADES[min(1 + int(x * (len(SHADES) - 2) + 0.5), len(SHADES) - 1)]


def _tiles(f: Facts) -> list[str]:
    plan = f.plan
    seen = [k for k in _TILE if any(k in row for row in f.tiles)]
    head = f"{plan.order}, tiles of {plan.chunk}"
    return [head, *("".join(_TILE[k] for k in row) for row in f.tiles), "",
            *(f"{_TILE[k]}  {_MEANS[k]}" for k in seen)]  # fmt: skip


def _beside(left: list[str], right: list[str]) -> Iterator[str]:
    width = max(map(len, left[:-1])) + 2
    for n, line in enumerate(left[:-1]):
        other = right[n] if n < len(right) else ""
        yield f"{line:{width}}{other}".rstrip()
    yield left[-1]


def rank_line(f: Facts) -> str:
    """The claim and what the numbers say."""
    half = len(f.matrix) // 2
    claim = "no finite rank claimed" if f.rank is None else f"rank {f.rank} claimed"
    return f"{claim}, {f.found} found in the {half} x {half} block below the diagonal"


def _sigma(f: Facts) -> Iterator[str]:
    yield rank_line(f)
    shown = f.sigma[: 8 if f.rank is None else min(f.rank + 2, 12)]
    for n, x in enumerate(shown, start=1):
        ratio = x / f.sigma[0] if f.sigma[0] else 0.0
        length = 0 if ratio <= 0 else max(0, round(40 * (1 + math.log10(ratio) / 16)))
        note = "zero, to rounding" if ratio <= NOTHING else ""
        yield f"{n:4} {ratio:9.1e} {'=' * length} {note}".rstrip()
        if n == f.rank and n < len(shown):
            yield f"     {'-' * 9} the claimed rank"


def _times(f: Facts) -> Iterator[str]:
    r = f.plan.request
    what = "backward" if r.backward else "forward"
    yield f"predicted time of the {what}, {r.dtype} on {r.device} (* the fastest)"
    orders = list(dict.fromkeys(o for _, times in f.times for o, _ in times))
    yield f"{'T':>8}" + "".join(f"{o:>14}" for o in orders)
    for T, times in f.times:
        known, best = dict(times), min(t for _, t in times)
        cells = (f"{'-' if o not in known else _time(known[o]) + '*' * (known[o] == best):>14}"
                 for o in orders)  # fmt: skip
        yield f"{T:8}" + "".join(cells)
    yield crossover_line(f)


def _time(seconds: float) -> str:
    return duration(seconds).replace("µ", "u")


def crossover_line(f: Facts) -> str:
    """Where the quadratic order stops winning."""
    if f.beaten is None and any(min(times, key=lambda t: t[1])[0] != "quadratic"
                                for _, times in f.times):  # fmt: skip
        return "crossover: not one alone, see the times"
    if f.beaten is None:
        return "crossover: none up to T=131072: quadratic wins"
    return f"crossover: the quadratic order wins below T={f.beaten}"
