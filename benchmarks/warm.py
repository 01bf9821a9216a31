"""Compiles the Triton kernels of SMAC and its peers in many processes, before anything is timed.

Each process walks through every case with launches replaced by compilations, and compiles its own
share of the kernels (by a checksum of name and arguments); results lie in Triton's cache on disk,
where the process that times finds them. Autotuners are made to compile all their configurations
and time none: they tune themselves afterwards, on a GPU that nothing else uses.

Non-goals: no timing, no results: tensors hold what lay in memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.cases_gpu import ATTENTION, FFT, INDUCTOR, SCAN, GpuCase, blank, cases
from benchmarks.floor import moved
from benchmarks.peers import build, runner

#: Peers without Triton kernels of their own.
_OTHERS = {*ATTENTION, FFT, INDUCTOR}
#: Bytes of GPU memory that all processes may hold together, and what a case holds, in multiples of
#: the bytes that it moves.
_ROOM, _HELD = 48e9, 4
#: Milliseconds that an autotuner warms up and times each configuration for.
_TUNING = (5, 20)


def warm(chosen: Sequence[GpuCase], workers: int, seconds: float) -> float:
    """Compiles for `chosen` in `workers` processes, `seconds` at the most; the seconds it took."""
    return spread("benchmarks.warm", json.dumps([c.name for c in chosen]), workers, seconds)


def spread(module: str, text: str, workers: int, seconds: float) -> float:
    """`python -m module SHARE WORKERS` for every share, `text` on stdin; the seconds it took."""
    began = time.monotonic()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "FLA_CACHE_RESULTS": "0",
           "SMAC_SELF_CHECK": "0"}  # what is not launched cannot be checked
    command = [sys.executable, "-W", "ignore", "-m", module]
    children = [subprocess.Popen([*command, str(i), str(workers)], stdin=subprocess.PIPE, env=env,
                                 stdout=subprocess.DEVNULL, text=True,
                                 stderr=None if i == 0 else subprocess.DEVNULL)
                for i in range(workers)]  # fmt: skip
    try:
        for child in children:
            if child.stdin is not None:
                child.stdin.write(text)
                child.stdin.close()
        for child in children:
            child.wait(max(0.0, began + seconds - time.monotonic()))
    except subprocess.TimeoutExpired:
        print(f"compiling ahead stopped after {seconds:.0f} s", file=sys.stderr, flush=True)
    finally:
        for child in children:
            child.kill()
            child.wait()
    return time.monotonic() - began


def quick_tuning() -> None:
    """Lets autotuners of this process time for `_TUNING` milliseconds, not for 25 and 100."""
    from triton.runtime import driver
    from triton.testing import do_bench

    def bench(call: Callable[[], object], quantiles: Sequence[float]) -> Any:
        return do_bench(call, *_TUNING, quantiles=quantiles)

    driver.active.get_benchmarker = lambda: bench


def mine(key: Any, share: int, of: int) -> bool:
    """Whether what is compiled under `key` is in a process' share; all processes answer alike."""
    return zlib.crc32(repr(key).encode()) % of == share


def special(kernel: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a kernel is compiled for at these arguments: run-time integers count by their kind."""
    given = {**dict(zip(kernel.arg_names, args, strict=False)), **kwargs}
    constants = {p.name for p in kernel.params if p.is_constexpr}
    return kernel.fn.__module__, kernel.fn.__qualname__, [
        (name, _told(x, name in constants or name not in kernel.arg_names))
        for name, x in sorted(given.items())]  # fmt: skip


def _told(argument: Any, exact: bool) -> Any:
    if isinstance(argument, torch.Tensor):
        return str(argument.dtype), argument.data_ptr() % 16 == 0
    if isinstance(argument, int) and not isinstance(argument, bool) and not exact:
        return argument == 1, argument % 16 == 0, abs(argument) < 2**31
    return argument if isinstance(argument, str | int | float | None) else str(type(argument))


def dry(share: int, of: Callable[[], int]) -> None:
    """From here on this process launches no Triton kernel: it compiles those of its share."""
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    compile_or_launch = JITFunction.run

    def compiled(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        if not mine(special(self, args, kwargs), share, of()):
            return None
        try:
            return compile_or_launch(self, *args, grid=grid, warmup=True, **kwargs)
        except Exception:  # a configuration that does not compile: the tuner finds out by itself
            return None

    def each(self: Any, *args: Any, config: Any, **meta: Any) -> list[float]:
        self.fn.run(*args, **{**meta, **config.all_kwargs()})
        return [1.0, 1.0, 1.0]

    def uncached(self: Any, key: Any, configs: Any, bench: Callable[[], None]) -> bool:
        bench()
        return False

    JITFunction.run = compiled
    Autotuner._bench = each
    Autotuner.check_disk_cache = uncached


def workers_for(case: GpuCase, of: int) -> int:
    """How many processes may hold the tensors of a case at once."""
    held = _HELD * moved(case.traffic, "forward+backward")
    return max(1, min(of, int(_ROOM / held)))


def main(share: int, of: int, names: Sequence[str]) -> None:
    """One process: every side of every case in every mode, on its share of the kernels."""
    now = [of]
    dry(share, lambda: now[0])
    for case in (c for c in cases() if c.name in names):
        now[0] = workers_for(case, of)
        if share >= now[0]:
            continue
        left_out = _OTHERS if share == 0 else {*_OTHERS, SCAN}  # one process builds its extension
        for side in ("smac", *(p for p in case.peers if p not in left_out)):
            for mode in case.modes:
                try:
                    runner(build(side, case, blank(case, "cuda")), mode)()
                except Exception as error:  # missing, or refused: the row will say so
                    print(f"{case.name} {side} {mode}: {error}", file=sys.stderr)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.stdin.read()))
