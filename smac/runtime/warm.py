"""Kernels compiled before they are launched, several at a time.

A program's wrapper runs on tensors without memory, with its kernels replaced by recorders; what
they were to be launched with is then compiled in threads (Triton compiles outside the interpreter's
lock for the most part), as the launch itself would have done one after the other.

Non-goals: launching; Triton's cache on disk, which the compiler keeps by itself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from smac.runtime.launch import Runnable


@cache
def pool() -> ThreadPoolExecutor:
    """Threads that compile."""
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="smac-compile")


class Recorder:
    """Stands where a kernel stood; keeps calls that compile what would have been launched."""

    def __init__(self, kernel: Any, found: list[Callable[[], object]]) -> None:
        self.kernel, self.found = kernel, found

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        """As `kernel[grid]`."""

        def launch(*args: Any, **options: Any) -> None:
            self.found.append(lambda: self.kernel.warmup(*args, grid=grid, **options))

        return launch


def compilations(runnable: Runnable, arguments: Sequence[Tensor]) -> list[Callable[[], object]]:
    """A call for each kernel launch of the program on `arguments` (on device "meta")."""
    found: list[Callable[[], object]] = []
    function = runnable.call
    assert isinstance(function, FunctionType)
    names = {n: Recorder(f, found) for n, f in function.__globals__.items()
             if hasattr(f, "warmup")}  # fmt: skip
    FunctionType(function.__code__, {**function.__globals__, **names})(*arguments)
    return found


def start(runnable: Runnable, arguments: Sequence[Tensor],
          device: torch.device) -> list[Future[object]]:  # fmt: skip
    """Start compiling; the futures hold no result."""

    def there(compile_one: Callable[[], object]) -> object:
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            return compile_one()

    return [pool().submit(there, c) for c in compilations(runnable, arguments)]


def without_memory(x: Tensor) -> Tensor:
    """Its shape, strides and dtype."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
