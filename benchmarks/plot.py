"""Pictures of the GPU benchmark: time against T at constant tokens × heads, and against N.

Non-goals: no measuring; matplotlib is imported when a picture is drawn, and is optional.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.cases import MODES, Shape
from benchmarks.cases_gpu import N_SWEEP, T_SWEEP, GpuCase
from benchmarks.table import Row

Points = dict[str, list[tuple[int, float]]]


def series(rows: Sequence[Row], shapes: Sequence[Shape], axis: str, mode: str) -> Points:
    """(size, ms) by side, for the SSD cases of a sweep; "floor" is one of the sides."""
    sizes = {GpuCase("ssd", s).name: getattr(s, axis) for s in shapes}
    found: Points = {}
    for r in rows:
        if r.case not in sizes or r.mode != mode:
            continue
        if r.seconds:
            found.setdefault(r.side, []).append((sizes[r.case], 1e3 * r.seconds))
        if r.floor and r.side == "smac":
            found.setdefault("floor", []).append((sizes[r.case], 1e3 * r.floor))
    return {side: sorted(points) for side, points in found.items()}


def plot(rows: Sequence[Row], folder: Path, title: str) -> list[Path]:
    """Writes time_vs_T.png and time_vs_N.png where there are points; ImportError: no matplotlib."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    plt = import_module("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for axis, shapes in (("T", T_SWEEP), ("N", N_SWEEP)):
        found = [series(rows, shapes, axis, mode) for mode in MODES]
        if not any(found):
            continue
        figure, panels = plt.subplots(1, len(MODES), figsize=(11, 4.5), sharey=True)
        for panel, mode, lines in zip(panels, MODES, found, strict=True):
            for side, points in lines.items():
                style = {"floor": "k--", "smac": "o-"}.get(side, ".-")
                panel.plot(*zip(*points, strict=True), style, label=side)
            panel.set(xscale="log", yscale="log", xlabel=axis, title=mode)
            panel.grid(True, alpha=0.3)
        panels[0].set_ylabel("ms")
        panels[0].legend(fontsize=8)
        figure.suptitle(title, fontsize=9)
        figure.tight_layout()
        path = folder / f"time_vs_{axis}.png"
        figure.savefig(path, dpi=130)
        plt.close(figure)
        written.append(path)
    return written
