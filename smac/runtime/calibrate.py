"""This machine's row of the device table, measured: what `smac bench --calibrate` keeps.

Rates as the cost model means them (plan/devices.py): medians of several runs; `step` and `token`
are slopes of SMAC's own sweeps, a chunk and a token more. What cannot be measured in seconds
(`cache` and `in_flight` of a CPU) stays as shipped.

Non-goals: no fitting of the cost model's own constants; peers and floors (`benchmarks/`).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from smac.plan.calibrated import STAR
from smac.plan.devices import TABLE, Device
from smac.runtime.device import shipped_row

Run = Callable[[], object]
_REPEATS = 7


def seconds(run: Run, device: torch.device, calls: int = 1) -> float:
    """Median seconds of a call, of `calls` in a row: on a GPU by its clock, host time hidden."""
    clock = _gpu_seconds if device.type == "cuda" else _host_seconds
    for _ in range(2):
        run()
    return statistics.median(clock(run, calls) for _ in range(_REPEATS)) / calls


def _host_seconds(run: Run, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - start


def _gpu_seconds(run: Run, calls: int, ahead: bool = True) -> float:
    """Between two events; `ahead`: behind a filler, so that the host has enqueued all by then."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    if ahead:
        torch.cuda._sleep(10**7)  # type: ignore[no-untyped-call,unused-ignore]
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def calibrate(device: torch.device, small: bool = False) -> Iterator[tuple[str, Device]]:
    """Measures one thing after another: (what, the row so far). `small`: small sizes, for tests."""
    base = shipped_row(device)
    row = replace(TABLE[base], name=base + STAR)
    parts = _on_gpu if device.type == "cuda" else _on_cpu
    for what, found in parts(device, small):
        row = replace(row, **found)
        yield what, row


def _dots(device: torch.device, n: int, dtype: torch.dtype) -> float:
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        return 2 * n**3 / seconds(lambda: a @ b, device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _passes(device: torch.device, size: int) -> float:
    """Bytes a second of an operation that reads `size` bytes and writes as many anew."""
    x = torch.ones(size // 4, device=device)
    calls = max(1, min(50, 2**26 // size))
    return 2 * size / seconds(lambda: x * 1.5, device, calls)


def _on_cpu(device: torch.device, small: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    n, much, little = (64, 2**16, 2**12) if small else (1024, 2**28, 2**23)
    dot32 = _dots(device, n, torch.float32)
    yield "matrix products", {"dot64": _dots(device, n, torch.float64), "dot32": dot32,
                              "dot16": dot32}  # fmt: skip
    yield "memory", {"bandwidth": _passes(device, much), "cached": _passes(device, little)}
    one = torch.ones(1)
    op = seconds(lambda: one * 1.5, device, 10 if small else 1000)
    yield "operations", {"op": op, "launch": op}
    x = torch.ones(2**10 if small else 2**16)
    yield "scalar work", {"scalar": x.numel() / seconds(lambda: x.mul_(1.0), device, 10)}
    yield "threads", {"units": torch.get_num_threads()}


def _on_gpu(device: torch.device, small: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    from triton.runtime import driver

    about = torch.cuda.get_device_properties(device)
    cache, index = int(about.L2_cache_size), device.index or 0
    shared = int(driver.active.utils.get_device_properties(index)["max_shared_mem"])
    yield "sizes", {"units": about.multi_processor_count, "cache": int(0.8 * cache),
                    "on_chip": shared}  # fmt: skip
    yield "matrix products", {"dot64": _dots(device, 4096, torch.float64),
                              "dot32": _dots(device, 4096, torch.float32),
                              "dot16": _dots(device, 8192, torch.bfloat16)}  # fmt: skip
    yield "memory", {"bandwidth": _copies(device, 2**30), "cached": _copies(device, cache // 4)}
    one = torch.ones(1, device=device)

    def add() -> None:
        one.add_(1.0)

    host = statistics.median(_gpu_seconds(add, 500, ahead=False) for _ in range(_REPEATS)) / 500
    yield "operations", {"launch": seconds(add, device, 100), "op": host}
    from smac.runtime.probe import rate

    yield "scalar work", {"scalar": rate(device, lambda run: seconds(run, device))}
    yield "sweeps", {"step": _slope(device, "chunked", "sweep", 64, 2**13),
                     "token": _slope(device, "linear", "tokens", 1, 2**11)}  # fmt: skip


def _copies(device: torch.device, size: int) -> float:
    source, target = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / seconds(lambda: target.copy_(source), device, 1 if size > 2**28 else 20)


def _slope(device: torch.device, order: str, schedule: str, piece: int, T: int) -> float:
    """Seconds that a piece of T more takes, a few programs sweeping: retnet, N = P = 64."""
    from smac.runtime.op import compile

    op: Any = compile("retnet", order=order, schedule=schedule,
                      chunk=piece if piece > 1 else None)  # fmt: skip
    gamma = torch.full((4,), 0.9, device=device)

    def taken(length: int) -> float:
        q, k, v = (torch.randn(1, length, 4, 64, device=device, dtype=torch.bfloat16)
                   for _ in range(3))  # fmt: skip
        return seconds(lambda: op(q=q, k=k, v=v, gamma=gamma), device, 5)

    with torch.no_grad():
        more = taken(2 * T) - taken(T)
    return max(more, 0.0) / math.ceil(T / piece)
