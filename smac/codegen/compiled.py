"""Templates as Jinja compiles them, kept in the user's cache by Jinja's own bytecode cache.

Jinja holds the code of a template to the digest of its text; the folder is named for what else the
code comes from: Jinja's version, Python's, the environment's options. A cache that fails, in
whatever way, leaves a template to be compiled as if there were none.

Non-goals: rendered programs (each process makes their text anew, and reads none).
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import jinja2
from jinja2.bccache import Bucket

from smac.cachefile import cache_dir, own, replace

#: Bytes of the digest that a file starts with.
DIGEST = 32
_log = logging.getLogger("smac")


def kept_for(options: Mapping[str, object]) -> jinja2.BytecodeCache | None:
    """The cache of an environment with `options`; None where no folder is this user's alone."""
    made_by = hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:8]
    name = f"jinja-{jinja2.__version__}-{sys.implementation.cache_tag}-{made_by}"
    folder = cache_dir() / "templates" / name
    return Compiled(str(folder)) if own(folder) == folder else None


class Compiled(jinja2.FileSystemBytecodeCache):
    """Jinja's cache, with a digest of the code before it: what is spoilt runs in no process, for
    Python itself takes any code. What cannot be read or written is logged, and nothing else."""

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill `bucket` with what is kept, if that is whole."""
        path = self._path(bucket)
        try:
            data = path.read_bytes()
            if hashlib.sha256(data[DIGEST:]).digest() != data[:DIGEST]:
                raise ValueError("not what was written")
            bucket.bytecode_from_string(data[DIGEST:])
        except FileNotFoundError:
            return
        except Exception as e:  # what readers of code raise is not listed anywhere
            bucket.reset()
            _log.warning("%s: not used: %s", path, e)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Write what `bucket` holds, in one step."""
        data = bucket.bytecode_to_string()
        try:
            replace(self._path(bucket), hashlib.sha256(data).digest() + data)
        except OSError as e:
            _log.warning("%s: not written: %s", self._path(bucket), e)

    def _path(self, bucket: Bucket) -> Path:
        return Path(self.directory) / (self.pattern % bucket.key)
