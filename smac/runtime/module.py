"""Rendered text as a Python module, by way of a file: triton reads a kernel's source from disk.

The file is written again whenever it differs from the text: what lies on disk is never trusted.

Non-goals: no tuning results, no decision which text is wanted.
"""

from __future__ import annotations

import linecache
import threading
from importlib.abc import SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

from smac.cachefile import cache_dir, own, replace
from smac.errors import CodegenError

_modules: dict[str, tuple[str, ModuleType]] = {}
_lock = threading.Lock()


def write(digest: str, text: str) -> Path:
    """The file that holds `text`, written if it is missing or differs. Safe among processes."""
    if not digest.isalnum():
        raise CodegenError(f"source digest: found {digest!r}; expected letters and digits")
    path = own(cache_dir() / "src") / f"smac_{digest}.py"
    data = text.encode()
    try:
        if path.read_bytes() == data:
            return path
    except OSError:
        pass
    replace(path, data)
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
