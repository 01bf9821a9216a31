"""Rendered text as a Python module, by way of a file: triton reads a kernel's source from disk.

The file is written again whenever it differs from the text: what lies on disk is never trusted.

Non-goals: no tuning results, no decision which text is wanted.
"""

from __future__ import annotations

import linecache
import os
import tempfile
import threading
from functools import cache
from importlib.abc import SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

from smac.errors import CodegenError

_modules: dict[str, tuple[str, ModuleType]] = {}
_lock = threading.Lock()


def cache_dir() -> Path:
    """The user's cache of SMAC: $XDG_CACHE_HOME/smac, else ~/.cache/smac."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "smac"


@cache
def _private_dir() -> Path:
    return Path(tempfile.mkdtemp(prefix="smac-"))


def _source_dir(folder: Path) -> Path:
    """`folder`, made for this user alone; a temporary one where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        owned = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
        if not owned or not os.access(folder, os.W_OK):
            return _private_dir()
        folder.chmod(0o700)
    except OSError:
        return _private_dir()
    return folder


def write(digest: str, text: str) -> Path:
    """The file that holds `text`, written if it is missing or differs. Safe among processes."""
    if not digest.isalnum():
        raise CodegenError(f"source digest: found {digest!r}; expected letters and digits")
    path = _source_dir(cache_dir() / "src") / f"smac_{digest}.py"
    data = text.encode()
    try:
        if path.read_bytes() == data:
            return path
    except OSError:
        pass
    fd, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


class _FromMemory(SourceLoader):
    """Runs the text that was rendered, whatever lies on disk; no bytecode is read or written."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text

    def get_filename(self, fullname: str) -> str:
        """The file that tracebacks and `inspect` name."""
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:
        """The text, encoded."""
        return self.text.encode()


def load(digest: str, text: str) -> ModuleType:
    """The module that `text` is; the same one for the same digest and text."""
    found = _modules.get(digest)
    if found is not None and found[0] == text:
        return found[1]
    with _lock:
        found = _modules.get(digest)
        if found is not None and found[0] == text:
            return found[1]
        path = write(digest, text)
        # Without a time stamp the entry is never checked against the disk.
        lines = text.splitlines(keepends=True)
        linecache.cache[str(path)] = (len(text), None, lines, str(path))
        loader = _FromMemory(path, text)
        spec = ModuleSpec(path.stem, loader, origin=str(path))
        spec.has_location = True
        module = module_from_spec(spec)
        loader.exec_module(module)
        _modules[digest] = (text, module)
        return module
