"""A Triton kernel of scalar work alone, to measure how fast a GPU does it.

Non-goals: everything else of calibration (calibrate.py). Imported where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl

_BLOCK, _ROUNDS, _PROGRAMS = 1024, 4096, 4096


def _spin(p_x, ROUNDS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(p_x + offset)
    for _ in range(ROUNDS):
        x = x * 0.999 + 0.5
    tl.store(p_x + offset, x)


spin = triton.jit(_spin)


def rate(device: torch.device, seconds: Callable[[Callable[[], object]], float],
         programs: int = _PROGRAMS, rounds: int = _ROUNDS) -> float:  # fmt: skip
    """Float32 operations a second (a multiply-add is one), timed by `seconds`."""
    x = torch.ones(programs * _BLOCK, device=device)
    taken = seconds(lambda: spin[(programs,)](x, ROUNDS=rounds, BLOCK=_BLOCK, num_warps=4))
    return programs * _BLOCK * rounds / taken
