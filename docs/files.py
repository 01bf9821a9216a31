"""`make docs`: the table of docs/DESIGN.md, from the first line of each module and template."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DESIGN = ROOT / "docs" / "DESIGN.md"
BETWEEN = re.compile(r"(<!-- files -->\n).*?(<!-- /files -->)", re.DOTALL)


def sentence(path: Path) -> str:
    """The first line of a module's docstring, or of a template's opening comment."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    lines = (line.strip().strip("{}#-\" ") for line in text.splitlines())
    return next((line for line in lines if line), "").replace("|", "\\|")


def table() -> str:
    """A row for each module of smac that has something in it, and each template."""
    paths = sorted((ROOT / "smac").rglob("*.py")) + sorted((ROOT / "templates").rglob("*.jinja"))
    rows = [f"| `{p.relative_to(ROOT).as_posix()}` | {sentence(p)} |" for p in paths
            if p.stat().st_size]  # fmt: skip
    return "\n".join(["| file | |", "|---|---|", *rows, ""])


def updated(text: str) -> str:
    """DESIGN.md's text with the table as it should be."""
    return BETWEEN.sub(lambda m: m[1] + table() + m[2], text)


if __name__ == "__main__":
    DESIGN.write_text(updated(DESIGN.read_text("utf-8")), encoding="utf-8")
    sys.exit(0)
