"""Wall-clock medians of an op on inputs that suit its spec.

Non-goals: peers, rooflines, memory (`benchmarks/` has those).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from smac.errors import PlanError
from smac.testing.cells import Cell, axes_needed, complete
from smac.testing.child import device_of
from smac.testing.inputs import as_tuple, draw, recipe


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: medians of a forward, of forward and backward, and what the planner predicts."""

    order: str
    chunk: int
    dtype: str
    device: str
    forward: float
    both: float
    predicted: float


def time_op(op: Any, sizes: Mapping[str, int], *, dtype: str | None = None,
            absent: tuple[str, ...] = (), repeats: int = 5) -> Timing:  # fmt: skip
    """Time `op` at `sizes` (the rest from [sizes], B = 1) on the device of its target.

    Raises PlanError when a size is missing or the order cannot be had.
    """
    target = op.options.target
    gpu = torch.cuda.is_available() and target != "torch"
    device = "cuda" if gpu else device_of(target)
    dtype = dtype or ("bfloat16" if gpu else "float32")
    plan = op.plan(dtype=dtype, device=device, absent=absent, **sizes)
    known = {"B": 1, **dict(op.spec.sizes), **sizes}
    missing = [a for a in axes_needed(op.spec) if a not in known]
    if missing:
        raise PlanError(f"{op.spec.name}: no size for {', '.join(missing)}; pass {missing[0]}=…")
    full = complete(op.spec, {a: known[a] for a in axes_needed(op.spec)})
    cell = Cell(target, plan.order, dtype, full, absent)
    inputs = draw(op.spec, cell, recipe(op.spec), device)
    leaves = [x for x in inputs.values() if x is not None and x.requires_grad]

    def forward() -> None:
        with torch.no_grad():
            op(**inputs)

    def both() -> None:
        y = as_tuple(op(**inputs))
        torch.autograd.grad(y, leaves, [torch.ones_like(x) for x in y], allow_unused=True)

    times = median(forward, repeats), median(both, repeats)
    if op.options.tune != "off":  # what the first call has found
        plan = op.plan(dtype=dtype, device=device, absent=absent, **sizes)
    return Timing(plan.order, plan.chunk, dtype, device, *times, plan.chosen.time)


def median(run: Callable[[], None], repeats: int) -> float:
    """Median seconds of `run` after one call to warm up; waits for the GPU."""

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    times = []
    for _ in range(max(repeats, 1) + 1):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
