"""What Triton finds out once a process, found in threads while the first program is planned.

Before the first kernel Triton takes a digest of itself, asks ptxas for its version and the linker
for the driver's folder (a process each), and loads its own half of the driver. None of it depends
on the kernel, and most of it is waiting.

Non-goals: what kernels are compiled (warm.py); errors, which Triton meets again where it is used.
"""

from __future__ import annotations

import contextlib
import threading

import torch

from smac.runtime import triton_key

_lock = threading.Lock()
_begun: list[threading.Thread] = []


def begin(device: torch.device) -> None:
    """Let threads find it, for kernels on `device`; once in a process."""
    with _lock:
        if not _begun:
            for find in (_digest, _surroundings):
                made = threading.Thread(target=find, args=(device,), name=f"smac{find.__name__}",
                                        daemon=True)  # fmt: skip
                made.start()
                _begun.append(made)


def wait() -> None:
    """Wait for what was begun, for who asks Triton meanwhile has it found twice."""
    for thread in _begun:
        thread.join()


def _digest(_: torch.device) -> None:
    with contextlib.suppress(Exception):
        from triton.runtime import cache

        triton_key.take(cache)


def _surroundings(device: torch.device) -> None:
    """The version of the compiler for `device`, and the driver."""
    with contextlib.suppress(Exception):
        from triton.backends.compiler import GPUTarget
        from triton.compiler.compiler import make_backend
        from triton.runtime import driver

        major, minor = torch.cuda.get_device_capability(device)
        make_backend(GPUTarget("cuda", 10 * major + minor, 32)).hash()
        driver.active  # noqa: B018
