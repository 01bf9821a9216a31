"""Peak memory of one run above its inputs, taken in a child process of its own (Linux).

The child runs once to load everything, gives freed pages back, resets the kernel's high-water mark
(VmHWM) and runs again: what it answers is outputs, gradients and everything in between.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.cases import Shape, case, side

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
#: Large blocks come from mmap and go back at once, so that the first run leaves nothing behind.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def _status(key: str) -> int:
    """A size in /proc/self/status, in bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS}: no {key}; the memory column needs Linux")


def measure(name: str, mode: str, shape: Shape) -> int:
    """In the child: bytes of peak resident memory above what was there before the run."""
    run = side(case(shape), name, mode)
    run()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text("5")
    before = _status("VmRSS")
    result = run()
    peak = _status("VmHWM") - before
    del result
    return peak


def peak_bytes(name: str, mode: str, shape: Shape) -> int:
    """In the parent: `measure` in a fresh process. RuntimeError if it fails."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", name, mode, str(shape)]
    child = subprocess.run(command, capture_output=True, text=True, check=False,
                           env={**os.environ, **_MALLOC})  # fmt: skip
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)}: {child.stderr.strip()[-2000:]}")
    return int(child.stdout.split()[-1])


if __name__ == "__main__":
    print(measure(sys.argv[1], sys.argv[2], Shape(*map(int, sys.argv[3].split(",")))))
