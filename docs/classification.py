"""Writes docs/classification.md: what every formula of docs/formulas.py was found to be.

    python -m docs.classification
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from formulas import AXES, FORMULAS

from smac.axes import Scope, scope_of
from smac.masks.classify import Found, classify
from smac.show import show
from smac.syntax import scalar
from smac.terms import Input

PAGE = Path(__file__).with_suffix(".md")
_HEAD = """# What formulas are found to be

`entry("…")` takes L[t,s] as a formula, and SMAC looks for its structure. `docs/classification.py`
writes this page from the formulas of `docs/formulas.py`; a test compares all but the seconds. Rank:
of what is below the diagonal, plus that of what is above it. Entries: how many were compared in
float64, on drawn parameters, before the mask was used. "entry" as the mask: it runs as it stands,
in the quadratic order.

| catalogue | formula | found | rank | mask | entries | seconds |
|---|---|---|---|---|---|---|
"""


def scope() -> Scope:
    """The names that the formulas read."""
    return scope_of((), tuple(Input(n, tuple(a.split())) for n, a in AXES.items()))


def found(formula: str) -> Found:
    """What a formula of the table is."""
    return classify(scalar(formula, entry=True, names=AXES), scope())


def rows() -> list[tuple[str, ...]]:
    """Cells of the table, the seconds last."""
    out = []
    for row, (_, formulas) in FORMULAS.items():
        for formula in formulas:
            start = time.perf_counter()
            f = found(formula)
            seconds = time.perf_counter() - start
            rank = "none known" if f.rank is None else str(f.rank)
            mask = "entry" if f.term is None else f"`{show(f.term)}`"
            out.append((row, f"`{formula}`", f.structure, rank, mask, str(f.compared),
                        f"{seconds:.2f}"))  # fmt: skip
    return out


def line(cells: tuple[str, ...]) -> str:
    """One row of the page."""
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def page() -> str:
    """The whole text."""
    return _HEAD + "\n".join(line(r) for r in rows()) + "\n"


if __name__ == "__main__":
    text = page()
    PAGE.write_text(text, "utf-8")
    print(text, end="")
