"""Pictures of the GPU benchmark: time against T and N, and time and memory to a million tokens.

Non-goals: no measuring; matplotlib is imported when a picture is drawn, and is optional.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.cases import MODES, Shape
from benchmarks.cases_gpu import (
    CUDNN,
    FLASH,
    N_SWEEP,
    SCALING,
    SCAN,
    SSD,
    T_SWEEP,
    GpuCase,
)
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


def memory(rows: Sequence[Row], shapes: Sequence[Shape]) -> Points:
    """(T, MiB) by side: the peak above the inputs, forward and backward; what SMAC keeps."""
    sizes = {GpuCase("ssd", s).name: s.T for s in shapes}
    found: Points = {}
    for r in rows:
        if r.case in sizes and r.mode == MODES[1] and r.peak is not None:
            found.setdefault(r.side, []).append((sizes[r.case], r.peak / 2**20))
            if r.kept is not None:
                kept = max(r.kept, 2**10) / 2**20  # a logarithmic axis has no 0
                found.setdefault(f"{r.side}, kept for backward", []).append((sizes[r.case], kept))
    return {side: sorted(points) for side, points in found.items()}


Panel = tuple[str, str, Points]


def figures(rows: Sequence[Row]) -> dict[str, tuple[str, list[Panel]]]:
    """By file name: the axis, and panels of (title, unit, lines); those that have points."""
    found: dict[str, tuple[str, list[Panel]]] = {}
    for name, axis, shapes in (("time_vs_T", "T", T_SWEEP), ("time_vs_N", "N", N_SWEEP),
                               ("scaling", "T", SCALING)):  # fmt: skip
        panels = [(mode, "ms", series(rows, shapes, axis, mode)) for mode in MODES]
        if shapes is SCALING:
            panels.append(("memory, forward+backward", "MiB above the inputs",
                           memory(rows, shapes)))  # fmt: skip
        panels = [(what, unit, {side: points for side, points in lines.items() if len(points) > 1})
                  for what, unit, lines in panels]  # fmt: skip
        if any(lines for _, _, lines in panels):
            found[name] = (axis, panels)
    return found


#: The same colour for a side in every picture.
_COLOURS = {"floor": "black", "smac": "tab:red", SSD: "tab:blue", SCAN: "tab:orange",
            FLASH: "tab:green", CUDNN: "tab:purple"}  # fmt: skip


def style(side: str) -> dict[str, Any]:
    """How a line is drawn: what is kept dotted, the floor dashed, SMAC heavier than the rest."""
    name, _, kept = side.partition(", ")
    found: dict[str, Any] = {"color": _COLOURS.get(name, "tab:gray"), "marker": "."}
    if name == "floor":
        found |= {"linestyle": "--", "marker": ""}
    if name == "smac":
        found |= {"linewidth": 2.5, "marker": "o"}
    return found | ({"linestyle": ":"} if kept else {})


def plot(rows: Sequence[Row], folder: Path, title: str) -> list[Path]:
    """Writes the pictures that have points; ImportError: no matplotlib."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    plt = import_module("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (axis, panels) in figures(rows).items():
        figure, places = plt.subplots(1, len(panels), figsize=(1 + 4.8 * len(panels), 4.5))
        for place, (what, unit, lines) in zip(places, panels, strict=True):
            for side, points in lines.items():
                place.plot(*zip(*points, strict=True), label=side, **style(side))
            place.set_xscale("log", base=2)
            place.set(yscale="log", xlabel=axis, ylabel=unit, title=what)
            place.grid(True, alpha=0.3)
            place.legend(fontsize=8)
        figure.suptitle(title, fontsize=9)
        figure.tight_layout()
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=130)
        plt.close(figure)
        written.append(path)
    return written
