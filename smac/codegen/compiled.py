"""Templates as Python modules: what Jinja compiles of one is kept where Python keeps bytecode.

Compiling a template takes longer than to fill it. So Python's own loader, which keeps the bytecode
of a source in `__pycache__` beside it where it may write there, loads templates too, with Jinja in
the place of Python's parser. The code holds a digest of all that it comes from (the template, the
environment's options, Jinja's version), and counts where that is the right one.

Non-goals: rendered programs (each process makes their text anew, and reads none).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, MutableMapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import jinja2


class Templates(jinja2.FileSystemLoader):
    """The templates of a folder, for an environment with `options`."""

    def __init__(self, folder: Path, options: Mapping[str, object]) -> None:
        super().__init__(str(folder))
        self._made_by = repr((jinja2.__version__, sorted(options.items())))

    def load(self, environment: jinja2.Environment, name: str,
             globals: MutableMapping[str, Any] | None = None) -> jinja2.Template:  # fmt: skip
        """The template called `name`: its code as it is kept, or compiled now."""
        text, path, uptodate = self.get_source(environment, name)
        digest = hashlib.sha256(f"{self._made_by}\n{name}\n{text}".encode()).hexdigest()
        module = _Module(environment, name, path, text, digest)
        try:
            code = module.get_code(name)
        except (ImportError, EOFError, ValueError, TypeError):  # bytecode that is none
            code = None
        if code is None or digest not in code.co_consts:
            code = module.source_to_code(b"", path)
        return environment.template_class.from_code(environment, code, globals or {}, uptodate)


class _Module(SourceFileLoader):
    """One template; `digest` is of all that its code comes from."""

    def __init__(self, environment: jinja2.Environment, name: str, path: str, text: str,
                 digest: str) -> None:  # fmt: skip
        super().__init__(name, path)
        self._environment, self._text, self._digest = environment, text, digest

    def path_stats(self, path: str) -> dict[str, int]:
        """What bytecode is held to: the digest's first bits where Python has a time."""
        return {"mtime": int(self._digest[:8], 16), "size": Path(path).stat().st_size}

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:
        """What Jinja makes of the text, and the digest as a constant."""
        made = self._environment.compile(self._text, self.name, str(path), raw=True)
        code: CodeType = compile(f"{made}\nmade_of = {self._digest!r}\n", path, "exec")
        return code
