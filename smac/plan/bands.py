"""Which tiles of L the quadratic order computes: those that the band of lags meets, counted.

Non-goals: no flops (dots.py), no time.
"""

from __future__ import annotations

from smac.plan.shape import Shape


def block_columns(x: Shape, rows: int, k: int, whole: bool = False) -> int:
    """Columns that block k of `rows` rows is multiplied with: those that the support meets."""
    last = -(-x.T // rows) * rows if whole else x.T
    first, stop = k * rows, min((k + 1) * rows, last)
    return _clamped(stop, x.support.lo, last, last) - _clamped(first, x.support.hi, 0, last)


def _clamped(at: int, lag: int | None, free: int, last: int) -> int:
    return free if lag is None else min(max(at - lag, 0), last)


def entries(x: Shape, rows: int, whole: bool = False) -> int:
    """Entries of L in the tiles that are computed, for one head.

    Rows go in blocks of `rows`, against the columns that the support meets. `whole`: ragged blocks
    count as full ones, and tiles outside of the band are skipped.
    """
    blocks = -(-x.T // rows)
    if not blocks:
        return 0
    if whole:
        return rows * rows * _tiles_met(x, rows, blocks)
    inner = rows * (_clamped_sum(x, rows, blocks - 1))
    height = x.T - (blocks - 1) * rows
    return inner + height * block_columns(x, rows, blocks - 1)


def _tiles_met(x: Shape, rows: int, blocks: int) -> int:
    """Tiles of rows × rows that hold a lag of the support: whole diagonals of them."""
    lo, hi = x.support.lo, x.support.hi
    first = 1 - blocks if lo is None else max(-((rows - 1 - lo) // rows), 1 - blocks)
    last = blocks - 1 if hi is None else min(-(-hi // rows), blocks - 1)
    if first > last:
        return 0

    def up_to(d: int) -> int:  # Σ |i| for i from 0 to d, or from d to −1
        return abs(d) * (abs(d) + 1) // 2

    off = up_to(last) + up_to(first)
    if first > 0:
        off = up_to(last) - up_to(first - 1)
    elif last < 0:
        off = up_to(first) - up_to(last + 1)
    return (last - first + 1) * blocks - off


def _clamped_sum(x: Shape, rows: int, blocks: int) -> int:
    """Σ of `block_columns` over the first `blocks`, which are full, in closed form."""
    lo, hi = x.support.lo, x.support.hi
    stops = blocks * x.T if lo is None else _ramp(rows - lo, rows, blocks, x.T)
    firsts = 0 if hi is None else _ramp(-hi, rows, blocks, x.T)
    return stops - firsts


def _ramp(start: int, step: int, n: int, most: int) -> int:
    """Σ_{k<n} of start + k·step, kept inside 0 … most."""
    first = min(max(-(start // step), 0), n)  # the first k that is above 0
    stop = min(max(-(-(most - start) // step), first), n)  # the first that reaches `most`
    middle = stop - first
    return middle * start + step * (first + stop - 1) * middle // 2 + (n - stop) * most

