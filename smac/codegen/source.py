"""Source: a rendered module as a value, checked before anyone runs it.

Non-goals: no loading (runtime/module.py).
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass

from smac.errors import CodegenError

IMPORTS = frozenset({"torch", "triton", "math", "__future__"})


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a module with functions named in `functions`, for `target`."""

    text: str
    target: str
    functions: tuple[str, ...]

    @property
    def digest(self) -> str:
        """sha256 of the text, hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __str__(self) -> str:
        return self.text


def checked(text: str, target: str, functions: tuple[str, ...]) -> Source:
    """A Source of `text` once it parses, imports only torch, triton and math, and defines what it
    should; CodegenError otherwise."""
    try:
        tree = ast.parse(text)
    except SyntaxError as e:
        line = text.splitlines()[(e.lineno or 1) - 1 : e.lineno]
        where = f"{e.msg} at line {e.lineno}: {line}"
        raise CodegenError(f"rendered source does not parse: {where}") from e
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [a.name.split(".")[0] for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [(node.module or "").split(".")[0]]
        for module in found:
            if module not in IMPORTS:
                allowed = "torch, triton, math"
                raise CodegenError(f"rendered source imports '{module}'; allowed: {allowed}")
        if isinstance(node, ast.Name) and node.id in ("eval", "exec", "compile", "__import__"):
            raise CodegenError(f"rendered source names '{node.id}'")
        # Tensors have no truth for Python to chain by, and an interpreter would not say so.
        if isinstance(node, ast.Compare) and len(node.ops) > 1:
            said = ast.unparse(node)
            raise CodegenError(f"rendered source chains comparisons: {said}; expected parentheses")
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    missing = [f for f in functions if f not in defined]
    if missing:
        raise CodegenError(f"rendered source does not define {', '.join(missing)}")
    return Source(text, target, functions)
