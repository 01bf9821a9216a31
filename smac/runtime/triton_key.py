"""Triton's digest of itself, remembered: every entry of its cache is keyed by it.

Triton reads half a gigabyte of its own files for it in every process, which is the larger part of
what a process waits for whose kernels are all compiled. What Triton has found is remembered for its
version and its files as they lie there: paths, sizes, times of change and inodes, of which a file
that is written again cannot keep all. Another Triton than the ones that are known here is left
alone.

Non-goals: what the digest is made of; other caches of Triton.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smac.runtime.cache import Key, Remembered

DIGESTS = Remembered("triton", {"digest": str})
#: What of Triton is digested; files are listed whether or not it reads them.
PARTS = ("compiler", "backends", "language", "runtime", "_C")
#: Seconds that files must have lain unchanged: the clock of a file system may tick so slowly that a
#: file is written twice at one time.
SETTLED = 10.0


def take(module: Any) -> None:
    """Let `module`, Triton's of its cache, know its digest: what is remembered, or as it finds it.
    """
    function, version = getattr(module, "triton_key", None), getattr(module, "__version__", None)
    taken = getattr(function, "cache_info", None)
    if function is None or taken is None or not isinstance(version, str) or taken().currsize:
        return
    root = root_of(module)
    try:
        listed = sorted(files(root))
    except OSError:
        return
    key: Key = {"triton": str(root), "version": version, "files": _digest(listed),
                "suffix": str(sysconfig.get_config_var("EXT_SUFFIX"))}  # fmt: skip
    found = DIGESTS.read(key)
    if found is not None and found["digest"].startswith(version):
        module.triton_key = filled(function, found["digest"])
        return
    made = function()
    if listed and max(changed for *_, changed in listed) < (time.time() - SETTLED) * 1e9:
        DIGESTS.write(key, {"digest": made})


def root_of(module: Any) -> Path:
    """Where `module`'s Triton lies."""
    return Path(module.__file__).parents[1]


def filled(function: Any, digest: str) -> Any:
    """`function`, an lru_cache, as it is once it has found `digest`: after a `cache_clear` it reads
    its files."""
    known = [digest]

    @functools.lru_cache
    @functools.wraps(function.__wrapped__)
    def triton_key() -> str:
        return known.pop() if known else str(function.__wrapped__())

    triton_key()
    return triton_key


def files(root: Path) -> Iterator[tuple[str, int, int, int, int]]:
    """The files of PARTS: path, size, inode, times of modification and of change (ns)."""
    folders = [str(root / part) for part in PARTS]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for e in entries:
                if not e.is_dir():
                    s = e.stat()
                    yield e.path, s.st_size, s.st_ino, s.st_mtime_ns, s.st_ctime_ns
                elif e.name != "__pycache__":
                    folders.append(e.path)


def _digest(listed: list[tuple[str, int, int, int, int]]) -> str:
    return hashlib.sha256(repr(listed).encode()).hexdigest()
