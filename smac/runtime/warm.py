"""Kernels compiled before they are launched, several at a time.

A program's wrapper runs on tensors without memory, with its kernels replaced by what compiles them
as the launch itself would have done, one after the other. Inside `compiling()` Triton hands each to
a thread (it works outside the interpreter's lock for the most part), once however often it is
asked for.

Non-goals: launching; Triton's cache on disk, which the compiler keeps by itself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smac.runtime import ahead

if TYPE_CHECKING:
    from smac.runtime.launch import Runnable


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="smac-compile")


@contextlib.contextmanager
def compiling(quiet: bool = False) -> Iterator[None]:
    """What `compile_for` is asked for inside is compiled in threads, and there at the end.

    `quiet`: what cannot be compiled says so when it is launched, and not here."""
    from triton import AsyncCompileMode

    with AsyncCompileMode(_pool(), ignore_errors=quiet):
        yield


class Compiler:
    """Stands where a kernel stood, and compiles what would have been launched."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        """As `kernel[grid]`."""

        def launch(*args: Any, **options: Any) -> None:
            self.kernel.warmup(*args, grid=grid, **options)

        return launch


def compile_for(runnable: Runnable, arguments: Sequence[Tensor], device: torch.device) -> None:
    """Compile all that the program launches on `arguments`, which are on device "meta"."""
    function = runnable.function
    assert isinstance(function, FunctionType)
    ahead.wait()
    names = {n: Compiler(f) for n, f in function.__globals__.items() if hasattr(f, "warmup")}
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        compiling = FunctionType(function.__code__, {**function.__globals__, **names},
                                 argdefs=function.__defaults__)  # fmt: skip
        compiling(*arguments)


def without_memory(x: Tensor) -> Tensor:
    """Its shape, strides and dtype."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
