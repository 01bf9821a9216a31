"""What Triton finds out once a process, found in threads while the first program is planned.

Before the first kernel Triton takes a digest of itself, asks ptxas for its version and the linker
for the driver's folder (a process each), and loads its own half of the driver. None of it depends
on the kernel, and most of it is waiting.

Non-goals: what kernels are compiled (warm.py); errors, which Triton meets again where it is used.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from smac.runtime import triton_key

_lock = threading.Lock()
_begun: list[threading.Thread] = []
#: Loaded by who begins: two threads that load Triton at once find each other's halves of it.
_MODULES = ("triton.runtime.cache", "triton.runtime.driver", "triton.backends.compiler",
            "triton.compiler.compiler")  # fmt: skip


def begin(device: torch.device) -> None:
    """Let threads find it, for kernels on `device`; once in a process."""
    with _lock:
        if _begun:
            return
        with contextlib.suppress(Exception):
            cache, driver, backends, compiler = map(import_module, _MODULES)
            for find in (lambda: triton_key.take(cache),
                         lambda: surroundings(device, driver, backends, compiler)):
                made = threading.Thread(target=_tried, args=(find,), name="smac-ahead",
                                        daemon=True)  # fmt: skip
                made.start()
                _begun.append(made)


def wait() -> None:
    """Wait for what was begun, for who asks Triton meanwhile has it found twice."""
    for thread in _begun:
        thread.join()


def _tried(find: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):
        find()


def surroundings(device: torch.device, driver: Any, backends: Any, compiler: Any) -> None:
    """The version of the compiler for `device`, and the driver; by Triton's modules."""
    major, minor = torch.cuda.get_device_capability(device)
    compiler.make_backend(backends.GPUTarget("cuda", 10 * major + minor, 32)).hash()
    driver.driver.active  # noqa: B018
