"""What is remembered between processes: small JSON files in the user's cache, one a key.

A file holds its whole key beside the value, so that a digest that collides, a file that was moved
and a version that changed are misses. Files are written whole and renamed into place; one that
cannot be read, or does not say what it should, is a miss and is logged. Nothing is unpickled.

Non-goals: what the values mean (tune.py, self_check.py), rendered sources (module.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from smac.runtime.module import cache_dir, private_folder

log = logging.getLogger("smac.cache")
#: The layout of a file; another one is a miss.
FORMAT = 1
#: Larger files are not ours.
LARGEST = 64 * 1024

Key = Mapping[str, str | int | bool]
V = TypeVar("V")


@dataclass(frozen=True)
class Cache(Generic[V]):
    """Values by key in the folder `name`. `encode` makes JSON of a value; `decode` makes the value
    of whatever JSON was found, or None where it is not one."""

    name: str
    encode: Callable[[V], object]
    decode: Callable[[object], V | None]

    @property
    def folder(self) -> Path:
        """Where the files are, made for this user alone."""
        return private_folder(cache_dir() / self.name)

    def path(self, key: Key) -> Path:
        """The file of `key`, whether or not it is there."""
        text = json.dumps(dict(key), sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"

    def read(self, key: Key) -> V | None:
        """The value of `key`; None for a miss."""
        path = self.path(key)
        try:
            with path.open("rb") as f:
                data = f.read(LARGEST + 1)
        except FileNotFoundError:
            return None
        except OSError as e:
            return self._miss(path, str(e))
        if len(data) > LARGEST:
            return self._miss(path, f"more than {LARGEST} bytes")
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as e:
            return self._miss(path, f"no JSON ({type(e).__name__})")
        if not isinstance(found, dict) or found.keys() != {"format", "key", "value"}:
            return self._miss(path, "not the fields format, key, value")
        if found["format"] != FORMAT or found["key"] != dict(key):
            return self._miss(path, "another format or key")
        value = self.decode(found["value"])
        return self._miss(path, "a value that is none") if value is None else value

    def write(self, key: Key, value: V) -> Path | None:
        """Remember `value`; None where the disk does not take it, which is logged."""
        path = self.path(key)
        text = json.dumps({"format": FORMAT, "key": dict(key), "value": self.encode(value)},
                          sort_keys=True, indent=1)  # fmt: skip
        try:
            fd, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            try:
                with os.fdopen(fd, "w", encoding="utf-8") as f:
                    f.write(text + "\n")
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as e:
            log.warning("%s: cannot be written: %s", path, e)
            return None
        return path

    def __len__(self) -> int:
        """How many entries there are."""
        return sum(1 for _ in self.folder.glob("*.json"))

    def _miss(self, path: Path, why: str) -> None:
        log.warning("%s: taken for a miss: found %s", path, why)
