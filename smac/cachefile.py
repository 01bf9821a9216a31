"""JSON files in the user's cache: private, written atomically, held to a shape when they are read.

What lies on disk is never trusted. A file that is missing, too large, no JSON or of another shape
is a miss; all but the first are logged, once each.

Non-goals: no keys, no expiry, no locks: of two writers the later one's file stands, whole.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

#: A shape: a type (float takes ints, none takes booleans or numbers that are not finite); `[X]`, a
#: list of X; `{str: X}`, any keys; `{"a": X, "b": Y}`, these keys and no others; `(X, Y)`, either.
Shape = Any
#: A file above this size is no cache file of ours.
LARGEST = 16 * 2**20
_log = logging.getLogger("smac")


def cache_dir() -> Path:
    """The user's cache of SMAC: $XDG_CACHE_HOME/smac, else ~/.cache/smac."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "smac"


@cache
def _private_dir() -> Path:
    return Path(tempfile.mkdtemp(prefix="smac-"))


def own(folder: Path) -> Path:
    """`folder`, made for this user alone (0700); a temporary one where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        owned = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
        if not owned or not os.access(folder, os.W_OK):
            return _private_dir()
        folder.chmod(0o700)
    except OSError:
        return _private_dir()
    return folder


def replace(path: Path, data: bytes) -> None:
    """Puts `data` at `path` in one step: a reader finds the old file or the new one, whole."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(name: str, value: Any) -> Path:
    """Writes `value` as the cache's file `name` ("devices.json", "tune/….json"); where it lies."""
    path = own((cache_dir() / name).parent) / Path(name).name
    replace(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())
    return path


def read_json(name: str, shape: Shape) -> Any:
    """What the cache's file `name` holds, if it is of `shape`; else None, and why in the log."""
    path = cache_dir() / name
    try:
        with path.open("rb") as f:
            data = f.read(LARGEST + 1)
        if len(data) > LARGEST:
            return _miss(path, f"more than {LARGEST} bytes")
        value = json.loads(data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON
        return _miss(path, f"{type(error).__name__}: {error}")
    wrong = misfit(value, shape)
    return value if wrong is None else _miss(path, wrong)


@cache
def _miss(path: Path, why: str) -> None:
    _log.warning("%s: not used: %s; delete it, or let it be written again", path, why)


def misfit(value: Any, shape: Shape, where: str = "") -> str | None:
    """What of `value` is not of `shape`, in words; None where all of it is."""
    if isinstance(shape, tuple):
        found = [misfit(value, s, where) for s in shape]
        return None if None in found else found[-1]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _unlike(value, "a list", where)
        return _first(misfit(v, shape[0], f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return _unlike(value, "an object", where)
        if set(shape) == {str}:
            return _first(misfit(v, shape[str], f"{where}.{k}") for k, v in value.items())
        if set(value) != set(shape):
            return _unlike(sorted(value), f"the keys {sorted(shape)}", where)
        return _first(misfit(value[k], s, f"{where}.{k}") for k, s in shape.items())
    if shape is None:
        return None if value is None else _unlike(value, "null", where)
    types = (int, float) if shape is float else (shape,)
    right = isinstance(value, types) and (shape is bool or not isinstance(value, bool))
    if not right or (isinstance(value, float) and not math.isfinite(value)):
        return _unlike(value, shape.__name__, where)
    return None


def _first(found: Any) -> str | None:
    return next((x for x in found if x is not None), None)


def _unlike(value: Any, due: str, where: str) -> str:
    text = repr(value)
    return f"{where.lstrip('.') or 'the file'}: found {text[:80]}; expected {due}"
