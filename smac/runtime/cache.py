"""What is remembered between processes: a folder of the user's cache, one JSON file a key.

A file holds its whole key beside the value, so that a file that was moved, a digest that collides
and a version that changed are misses. Processes that write at once each write a whole file.

Non-goals: how files are written and read (smac/cachefile.py), what values mean (tune.py,
first_use.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smac.cachefile import Shape, cache_dir, read_json, write_json

log = logging.getLogger("smac")
Key = Mapping[str, str | int | bool]


@dataclass(frozen=True)
class Remembered:
    """Values of one shape (smac/cachefile.py says what shapes are), by key, in the folder `name`.
    """

    name: str
    shape: Shape

    def file(self, key: Key) -> str:
        """The name of a key's file inside the cache."""
        text = json.dumps(dict(key), sort_keys=True)
        return f"{self.name}/{hashlib.sha256(text.encode()).hexdigest()}.json"

    def read(self, key: Key) -> Any:
        """The value of `key`; None for a miss."""
        found = read_json(self.file(key), {"key": {str: (str, int, bool)}, "value": self.shape})
        return found["value"] if found is not None and found["key"] == dict(key) else None

    def write(self, key: Key, value: Any) -> Path | None:
        """Remember `value`: where it lies, or None where the disk did not take it (logged)."""
        try:
            return write_json(self.file(key), {"key": dict(key), "value": value})
        except OSError as e:
            log.warning("%s: not written: %s", cache_dir() / self.file(key), e)
            return None

    def count(self) -> int:
        """How many entries there are."""
        return sum(1 for _ in (cache_dir() / self.name).glob("*.json"))
