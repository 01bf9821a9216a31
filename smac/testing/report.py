"""Report: what `check` ran, what it skipped and why, how far off it was, and what broke.

Non-goals: running anything, JSON beyond plain lists and numbers.
"""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

WIDTH = 80


@dataclass(frozen=True, slots=True)
class Row:
    """One (target, order, dtype): cells run, worst relative errors, worst ratio to the baseline."""

    target: str
    order: str
    dtype: str
    cells: int
    value: float
    gradient: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Skip:
    """What was not run, and why; `cells` counts single cells, 0 a whole group."""

    what: str
    why: str
    cells: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A property that does not hold, in the smallest cell that was found; `again` reruns it."""

    what: str
    message: str
    cell: str
    again: str


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` found. `ok`: something was run and nothing broke."""

    name: str
    rows: tuple[Row, ...] = ()
    skipped: tuple[Skip, ...] = ()
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """No failure, and at least one cell run."""
        return not self.failures and self.cells > 0

    @property
    def cells(self) -> int:
        """Cells run in all."""
        return sum(r.cells for r in self.rows)

    def __add__(self, other: Report) -> Report:
        """Both reports in one."""
        return Report(self.name, self.rows + other.rows, self.skipped + other.skipped,
                      self.failures + other.failures, self.seconds + other.seconds)  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """As plain lists, strings and numbers."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Report:
        """What `to_json` gave. Raises TypeError or KeyError on anything else."""
        return Report(str(data["name"]), tuple(Row(**r) for r in data["rows"]),
                      tuple(Skip(**s) for s in data["skipped"]),
                      tuple(Failure(**f) for f in data["failures"]),
                      float(data["seconds"]))  # fmt: skip

    def __str__(self) -> str:
        """A table of at most 80 columns."""
        verdict = f"{len(self.failures)} FAILED" if self.failures else "NOTHING RUN"
        verdict = "ok" if self.ok else verdict
        lines = [f"{self.name}: {verdict}: {self.cells} cells in {self.seconds:.0f} s"]
        if self.rows:
            lines.append(f"  {'target':7} {'order':10} {'dtype':9} {'cells':>5} "
                         f"{'value error':>12} {'gradient':>9} {'× baseline':>11}")  # fmt: skip
        for r in self.rows:
            ratio = f"{r.ratio:11.2f}" if r.ratio else f"{'':>11}"
            lines.append(f"  {r.target:7} {r.order:10} {r.dtype:9} {r.cells:5d} "
                         f"{r.value:12.1e} {r.gradient:9.1e} {ratio}".rstrip())  # fmt: skip
        for s in self.skipped:
            count = f" ({s.cells} cells)" if s.cells else ""
            lines += _wrapped(f"skipped {s.what}{count}: {s.why}", "  ", "    ")
        for f in self.failures:
            lines += _wrapped(f"FAILED {f.what}: {f.message}", "  ", "    ")
            lines += _wrapped(f"in {f.cell}", "    ", "      ")
            lines += ["    again:", *(f"      {x}" for x in f.again.splitlines())]
        return "\n".join(lines)


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest) or [first]
