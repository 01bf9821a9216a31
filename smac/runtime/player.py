"""A rendered function, called as it is written or, where it has run on such tensors, by its tape.

Non-goals: what a tape holds (tape.py); plans, checks, autograd.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from torch import Tensor

from smac.runtime import ahead
from smac.runtime.direct import Direct
from smac.runtime.record import record
from smac.runtime.tape import ALIGNED, Made, Moved, Tape

#: Tapes that a function keeps; the oldest gives way.
TAPES = 64


def player(function: Callable[..., Made]) -> Callable[..., Made]:
    """A player of `function`; the function itself where no kernel of its module is compiled (on
    torch, and under Triton's interpreter)."""
    if "triton" not in function.__globals__:
        return function
    direct = _direct()
    return Player(function, direct) if direct.kernels(function.__globals__) else function


@cache
def _direct() -> Direct:
    return Direct()


def kind(tensors: Sequence[Tensor]) -> tuple[list[int], tuple[Any, ...]]:
    """Pointers, and what tensors of the same shapes have in common when a function does the same
    for them: strides, types, and pointers modulo 16, which is what Triton asks about pointers."""
    pointers = [x.data_ptr() for x in tensors]
    every = 0
    for at in pointers:
        every |= at
    key: tuple[Any, ...] = (*[x.stride() for x in tensors], *[x.dtype for x in tensors])
    if every & ALIGNED:
        key += tuple([at & ALIGNED for at in pointers])
    return pointers, key


class Player:
    """Calls `function`, the program of one launcher: shapes are always the same. Thread-safe."""

    def __init__(self, function: Callable[..., Made], direct: Direct) -> None:
        self.function, self._direct = function, direct
        self._tapes: dict[tuple[Any, ...], Tape | str] = {}
        self._lock = threading.Lock()

    def __call__(self, *tensors: Tensor) -> Made:
        """What the function returns."""
        direct = self._direct
        if direct.watched():
            return self.function(*tensors)
        pointers, key = kind(tensors)
        tape = self._tapes.get(key)
        if tape.__class__ is Tape:
            try:
                return tape.play(tensors, pointers, direct.stream(tape.device.index))
            except Moved:
                return self.function(*tensors)
        if tape is not None:
            return self.function(*tensors)
        ahead.wait()
        made, found = record(self.function, tensors, direct)
        with self._lock:
            while len(self._tapes) >= TAPES:
                self._tapes.pop(next(iter(self._tapes)))
            self._tapes[key] = found
        return made

    @property
    def why_not(self) -> tuple[str, ...]:
        """Why calls that were made run as they are written, where they do."""
        return tuple({x: None for x in self._tapes.values() if isinstance(x, str)})
