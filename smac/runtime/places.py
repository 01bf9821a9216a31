"""Where the next state may be written: straight into the memory that a caller gives for it.

A step is as fast as memory: a state that is made elsewhere and copied costs as much again as the
step itself. A program may write into `out` what it would allocate if that has the buffer's shape,
type and device, no two of its elements in one place, and shares memory with nothing that the
program reads; or, where the program can work in place (`Program.in_place`), is the state itself.

Non-goals: how a State lies in buffers (state.py); copies, where it cannot be (state.write).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from torch import Size, Tensor


def free(place: Tensor, tensors: Sequence[Tensor], state: int, in_place: bool) -> bool:
    """Whether a program that reads `tensors`, the state before among them at `state`, may write to
    `place`."""
    last = _last(place.shape, place.stride())
    if last is None:
        return False
    first = place.data_ptr()
    end = first + (last + 1) * place.itemsize
    for i, x in enumerate(tensors):
        at = x.data_ptr()
        if at >= end or at + (_reach(x.shape, x.stride()) + 1) * x.itemsize <= first:
            continue
        if not (in_place and i == state and at == first and x.stride() == place.stride()):
            return False
    return True


@lru_cache(maxsize=1024)
def _reach(shape: Size, strides: tuple[int, ...]) -> int:
    """How far behind the first element the last one lies; −1 where there is none."""
    if 0 in shape:
        return -1
    return sum((n - 1) * step for n, step in zip(shape, strides, strict=True))


@lru_cache(maxsize=1024)
def _last(shape: Size, strides: tuple[int, ...]) -> int | None:
    """`_reach` of a tensor whose elements are all in different places, as they are where each step
    is longer than all shorter ones reach together; else None."""
    reach = 0
    for step, n in sorted((step, n) for n, step in zip(shape, strides, strict=True) if n > 1):
        if step <= reach:
            return None
        reach += (n - 1) * step
    return _reach(shape, strides)
