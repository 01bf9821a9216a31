"""CUDA clocks: medians by events, peak memory, and the ceilings of the device at hand.

A sample times several calls in a row, on inputs that take turns, behind a filler that keeps the GPU
busy while the host enqueues them: launches that the GPU can hide are hidden. The host's own time a
call is kept beside it.

Non-goals: nothing about cases or peers.
"""

from __future__ import annotations

import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.floor import Ceilings

Run = Callable[[], Any]
#: Seconds that one sample lasts at least, and that all samples of one measurement may take.
SAMPLE, BUDGET = 1e-3, 0.5
#: Clock rate that the filler assumes: above any GPU's, so that it never ends early.
CYCLES, LONGEST_FILLER = 2.2e9, 0.05


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds a call: the median; half the range of the middle 60 % over it; the host's share."""

    median: float
    spread: float
    host: float


def _elapsed(run: Callable[[], object], calls: int) -> tuple[float, float]:
    """(GPU seconds, host seconds) of `calls` calls, each a call."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began = time.perf_counter()
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    host = time.perf_counter() - began
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / calls, host / calls


def measure(runs: Sequence[Run], budget: float = BUDGET) -> Timing:
    """Times `runs`, the same work on several sets of inputs, taking turns. Compiles them first."""
    for run in (*runs, runs[0], runs[0]):
        run()
    torch.cuda.synchronize()
    turns = itertools.cycle(runs)

    def turn() -> None:
        next(turns)()

    guess, host = _elapsed(turn, 3)
    calls = min(max(math.ceil(SAMPLE / guess), 1), 20)
    samples = min(max(int(budget / (guess * calls)), 3), 25)
    filler = int(CYCLES * min(1.5 * host * calls, LONGEST_FILLER))
    taken = []
    for _ in range(samples):
        torch.cuda._sleep(filler)  # type: ignore[no-untyped-call,unused-ignore]
        taken.append(_elapsed(turn, calls))
    times = [gpu for gpu, _ in taken]
    return Timing(statistics.median(times), spread(times), statistics.median(h for _, h in taken))


def spread(times: Sequence[float]) -> float:
    """Half the range of the middle 60 % of `times`, over their median."""
    ordered = sorted(times)
    skip = len(ordered) // 5
    middle = ordered[skip : len(ordered) - skip]
    return (middle[-1] - middle[0]) / 2 / statistics.median(times)


def peak_bytes(run: Run) -> int:
    """Peak of allocated memory above what was there: outputs, gradients and all in between."""
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def kept_bytes(call: Callable[[], torch.Tensor]) -> int:
    """What a forward leaves allocated for its backward, beyond the inputs and y."""
    call()
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    y = call()
    torch.cuda.synchronize()
    blocks = -(-y.untyped_storage().nbytes() // 512) * 512  # as the allocator rounds
    return max(0, torch.cuda.memory_allocated() - before - blocks)


def ceilings() -> Ceilings:
    """What this device reaches now: a copy of 1 GiB, a bf16 product of 8192³."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = measure([lambda: target.copy_(source)]).median
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = measure([lambda: a @ b]).median
    return Ceilings(2 * source.numel() / copy, 2 * n**3 / product)


def rotations(size: int, cache: int) -> int:
    """How many sets of `size` bytes it takes that the cache holds none of them when its turn comes.

    1 when one set overflows the cache by itself; at most 16.
    """
    return 1 if size >= 2 * cache else min(math.ceil(2 * cache / max(size, 1)) + 1, 16)


def cache_bytes() -> int:
    """The device's L2 cache."""
    return int(torch.cuda.get_device_properties(0).L2_cache_size)


def alive() -> bool:
    """Whether the device still answers: an illegal access takes the whole process with it."""
    try:
        torch.ones(1, device="cuda").item()
    except RuntimeError:
        return False
    return True
