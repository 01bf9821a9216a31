"""Results of the GPU benchmark on disk: a run goes on where the last one ended.

`gpu.json` holds `runs` (what the figures of each depend on) and `rows`; each names its run. All
sides of a case are of one run: a case that was not finished is measured again, whole. Rows that
were measured with other sources of SMAC are dropped when a new run begins.

Non-goals: no measuring, no text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases_gpu import GpuCase
from benchmarks.table import Row

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FILE = "gpu.json"


def sources() -> str:
    """A digest of what SMAC's kernels come from: package, templates and specs."""
    found = hashlib.sha256()
    for folder, kind in (("smac", "*.py"), ("templates", "*.jinja"), ("specs", "*.toml")):
        for path in sorted((ROOT / folder).rglob(kind)):
            found.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


@dataclass
class Results:
    """What was measured so far."""

    folder: Path
    runs: list[dict[str, Any]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def begin(self, about: Mapping[str, Any]) -> int:
        """Opens a run on what `about` says; how many rows were dropped: other sources or cards."""
        kept = [i for i, run in enumerate(self.runs)
                if all(run.get(k) == about.get(k) for k in ("sources", "device"))]  # fmt: skip
        stay = [r for r in self.rows if r.run in kept]
        dropped = len(self.rows) - len(stay)
        self.rows = stay
        self.runs.append(dict(about))
        return dropped

    def done(self, case: GpuCase) -> bool:
        """Whether each side of a case has a row in each mode, skipped ones aside."""
        found = {(r.side, r.mode) for r in self.rows if r.case == case.name and not r.skipped}
        return found >= {(s, m) for s in ("smac", *case.peers) for m in case.modes}

    def put(self, rows: Iterable[Row], order: Sequence[GpuCase]) -> None:
        """The rows of one case in the place of older ones, in the order of `order`; saved."""
        new = list(rows)
        names = {r.case for r in new}
        place = {c.name: i for i, c in enumerate(order)}
        self.rows = [r for r in self.rows if r.case not in names] + new
        self.rows.sort(key=lambda r: place.get(r.case, len(place)))
        self.save()

    def save(self) -> None:
        """Writes `gpu.json`; only runs that a row names are kept."""
        used = sorted({r.run for r in self.rows} | {len(self.runs) - 1})
        place = {old: new for new, old in enumerate(used)}
        rows = [{k: v for k, v in asdict(r).items() if v is not None and v is not False}
                | {"run": place[r.run]} for r in self.rows]  # fmt: skip
        runs = [self.runs[i] for i in used]
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(f" {json.dumps(row)}" for row in rows)
        text = f'{{"runs": {json.dumps(runs, indent=1)},\n"rows": [\n{lines}\n]}}\n'
        temporary = self.folder / f"{FILE}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.folder / FILE)


def load(folder: Path) -> Results:
    """What `folder` holds; nothing where there is no file."""
    path = folder / FILE
    if not path.is_file():
        return Results(folder)
    found = json.loads(path.read_text(encoding="utf-8"))
    return Results(folder, found["runs"], [Row(**row) for row in found["rows"]])
