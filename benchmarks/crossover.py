"""Where the chunked order overtakes the quadratic one: predicted, and measured, over T.

Non-goals: no choice is judged here (regret.py): one curve an order, its best candidate at each T.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import smac
from benchmarks.regret import DIRECTIONS, Drawn, Outcome
from smac.testing.cells import axes_needed

SPECS = ("ssd", "retnet", "linear_attention")
LENGTHS = {"cpu": tuple(2**e for e in range(4, 11)), "cuda": tuple(2**e for e in range(6, 13))}
SIZES = {"cpu": {"B": 1, "H": 4, "N": 64, "P": 64, "G": 1},
         "cuda": {"B": 4, "H": 12, "N": 64, "P": 64, "G": 1}}  # fmt: skip
ORDERS = ("quadratic", "chunked")
Curve = list[tuple[int, float]]


def sweep(device: str) -> list[Drawn]:
    """The cells, by spec and T."""
    return [Drawn(spec, {a: n for a, n in {**SIZES[device], "T": t}.items()
                         if a in axes_needed(smac.load(spec))})
            for spec in SPECS for t in LENGTHS[device]]  # fmt: skip


def curves(found: Sequence[Outcome], spec: str, direction: str, of: str) -> dict[str, Curve]:
    """Seconds over T by order, its fastest candidate at each; `of`: "measured" or "predicted"."""
    lines: dict[str, Curve] = {}
    for o in found:
        name, *sizes = o.cell.split()
        if name != spec or o.direction != direction:
            continue
        t = next(int(s[2:]) for s in sizes if s.startswith("T="))
        times: Mapping[str, float] = getattr(o, of)
        for order in ORDERS:
            own = [s for k, s in times.items() if k.split()[0] == order]
            if own:
                lines.setdefault(order, []).append((t, min(own)))
    return {order: sorted(points) for order, points in lines.items()}


def crossing(lines: Mapping[str, Curve]) -> float | None:
    """The T from which on the chunked order stays the faster one, between points by logarithms."""
    slow, fast = (dict(lines.get(order, [])) for order in ORDERS)
    shared = sorted(set(slow) & set(fast))
    gaps = [math.log(slow[t] / fast[t]) for t in shared]
    for i in range(len(shared) - 1, -1, -1):
        if gaps[i] <= 0:
            if i + 1 == len(shared):
                return None
            share = -gaps[i] / (gaps[i + 1] - gaps[i])
            return float(shared[i] * (shared[i + 1] / shared[i]) ** share)
    return float(shared[0]) if shared else None


def said(found: Sequence[Outcome]) -> str:
    """A line for each spec and direction."""
    lines = [f"{'chunked beats quadratic from T =':34}{'predicted':>10}{'measured':>10}"]
    for spec in SPECS:
        for direction in DIRECTIONS:
            at = [crossing(curves(found, spec, direction, of)) for of in ("predicted", "measured")]
            shown = ["none" if t is None else f"{t:.0f}" for t in at]
            lines.append(f"{spec:18}{direction:16}{shown[0]:>10}{shown[1]:>10}")
    return "\n".join(lines)


def plot(found: Sequence[Outcome], path: Path, title: str) -> Path:
    """A panel a spec and direction: measured solid, predicted dashed, crossings as lines."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    plt = import_module("matplotlib.pyplot")
    figure, places = plt.subplots(len(DIRECTIONS), len(SPECS), squeeze=False,
                                  figsize=(1 + 4 * len(SPECS), 3.6 * len(DIRECTIONS)))  # fmt: skip
    colours = dict(zip(ORDERS, ("tab:blue", "tab:red"), strict=True))
    for row, direction in zip(places, DIRECTIONS, strict=True):
        for place, spec in zip(row, SPECS, strict=True):
            for of, style in (("measured", "o-"), ("predicted", "--")):
                lines = curves(found, spec, direction, of)
                for order, points in lines.items():
                    place.plot([t for t, _ in points], [1e3 * s for _, s in points], style,
                               color=colours[order], label=f"{order}, {of}", markersize=4)
                at = crossing(lines)
                if at is not None:
                    place.axvline(at, color="gray", linestyle="-" if of == "measured" else "--")
            place.set_xscale("log", base=2)
            place.set(yscale="log", title=f"{spec}, {direction}", xlabel="T", ylabel="ms")
            place.grid(True, alpha=0.3)
    places[0][0].legend(fontsize=7)
    figure.suptitle(f"{title}; gray: where chunked overtakes quadratic", fontsize=9)
    return _saved(figure, plt, path)


def scatter(found: Sequence[Outcome], path: Path, title: str) -> Path:
    """Predicted against measured seconds of every candidate, by order."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    plt = import_module("matplotlib.pyplot")
    figure, places = plt.subplots(1, len(DIRECTIONS), figsize=(10, 4.6), squeeze=False)
    for place, direction in zip(places[0], DIRECTIONS, strict=True):
        points: dict[str, list[tuple[float, float]]] = {}
        for o in found:
            for k, s in o.measured.items() if o.direction == direction else ():
                order, schedule = k.split()[0], k.split()[-1]
                points.setdefault(f"{order} {schedule}", []).append((1e3 * o.predicted[k], 1e3 * s))
        for name, own in sorted(points.items()):
            place.plot(*zip(*own, strict=True), ".", label=name, markersize=4)
        ends = [x for own in points.values() for p in own for x in p] or [1.0]
        place.plot([min(ends), max(ends)], [min(ends), max(ends)], "k-", linewidth=0.8)
        place.set(xscale="log", yscale="log", xlabel="predicted ms", ylabel="measured ms",
                  title=direction)  # fmt: skip
        place.grid(True, alpha=0.3)
        place.legend(fontsize=7)
    figure.suptitle(title, fontsize=9)
    return _saved(figure, plt, path)


def _saved(figure: Any, plt: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
