"""A Triton that is installed, in a process of its own, with its digest remembered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: The module is patched as in a first process, then as in a second.
INSTALLED = """
import functools, json, sys
import triton
from triton.runtime import cache
from smac.runtime import triton_key

triton_key.SETTLED = -1.0  # it may have been installed just now

class Hashed:
    def hash(self):
        return "h"

def keys():
    return cache.triton_key(), cache.get_cache_key(Hashed(), Hashed(), Hashed(), {"A": "b"})

original, calls = cache.triton_key, []
as_it_is = original.__wrapped__
@functools.lru_cache
def counted():
    calls.append(1)
    return as_it_is()
cache.triton_key = counted
triton_key.take(cache)
assert cache.triton_key is counted, "the first process has Triton's own function"
plain = keys()
cache.triton_key = functools.lru_cache(counted.__wrapped__)
triton_key.take(cache)
assert cache.triton_key.cache_info().currsize == 1
assert keys() == plain and len(calls) == 1, "what is remembered is what Triton's cache asks for"
listed = {path for path, *_ in triton_key.files(triton_key.root_of(cache))}
print(json.dumps([triton.__version__, plain, cache.__file__ in listed,
                  any("libtriton" in path for path in listed)]))
"""


def hold(front: list[str], cache: Path) -> str:
    """Its function is where it is looked for, and what its cache is keyed by stays; the version.

    `front`: folders before the installed packages; `cache`: where smac may write."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*front, str(ROOT)]),
           "XDG_CACHE_HOME": str(cache)}  # fmt: skip
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", INSTALLED], env=env,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    version, (digest, key), cache_listed, library_listed = json.loads(done.stdout)
    assert digest.startswith(version)
    assert key.startswith(f"{digest}-h-h-h")
    assert cache_listed
    assert library_listed
    return str(version)
