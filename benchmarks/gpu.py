"""`python -m benchmarks.gpu`: SMAC beside every peer that is installed, on one NVIDIA GPU, bf16.

Ceilings, floors and all sides are measured in the same run. A case that fails says so in its row
and the run goes on; the exit code is 1 if any of SMAC's failed. It never asserts on time.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import clock, exact, table
from benchmarks.cases_gpu import GpuCase, cases, draw, op_of
from benchmarks.floor import Ceilings, floor, moved
from benchmarks.peers import Inputs, build, runner
from benchmarks.plot import plot
from benchmarks.table import Row

_PACKAGES = ("torch", "triton", "smac-kernels", "mamba_ssm", "flash-linear-attention", "fla-core")


@dataclass(frozen=True)
class Bench:
    """One run: the ceilings, the device to draw on, when to stop (time.monotonic)."""

    ceilings: Ceilings
    device: str
    deadline: float

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.deadline


def measured(case: GpuCase, mode: str, side: str, sets: Sequence[Inputs],
             y: Callable[[], Tensor]) -> dict[str, Any]:  # fmt: skip
    """Time, memory and error of one side, by fields of `Row`. `y`: the oracle's, when asked for."""
    sides = [build(side, case, inputs) for inputs in sets]
    runs = [runner(s, mode) for s in sides]
    timing = clock.measure(runs)
    found: dict[str, Any] = {"seconds": timing.median, "spread": timing.spread,
                             "host": timing.host, "peak": clock.peak_bytes(runs[0])}  # fmt: skip
    if side == "smac":
        return {**found, "error": exact.smac_error(case, sets[0], mode), "how": how(case, mode)}
    if sides[0].same and mode == "forward" and case.kind != "step":
        with torch.no_grad():
            found["error"] = exact.y_error(case, sides[0].view(sides[0].call()), y())
    return found


def how(case: GpuCase, mode: str) -> str:
    """The plan of SMAC's forward, or of its backward: order, chunk and schedule."""
    if case.kind == "step":
        return "step"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = {a: n for a, n in case.shape._asdict().items() if a != "G" or case.kind == "ssd"}
    plan = op_of(case.kind).plan(dtype="bfloat16", device=device, backward=mode != "forward",
                                 **sizes)  # fmt: skip
    return f"{plan.chosen.order} {plan.chosen.chunk} {plan.chosen.schedule}"


def attempt(bench: Bench, case: GpuCase, mode: str, side: str, sets: Sequence[Inputs],
            y: Callable[[], Tensor]) -> Row:  # fmt: skip
    """A row, whatever happens: figures, or a note of what went wrong."""
    least = floor(case.shape, case.traffic, mode, bench.ceilings, case.chunk)
    common: dict[str, Any] = {"case": case.name, "mode": mode, "side": side,
                              "floor": least.seconds, "floor_bytes": least.memory,
                              "floor_flops": least.dots}  # fmt: skip
    if bench.over:
        return Row(**common, note="skipped: --minutes are over")
    try:
        row = Row(**common, **measured(case, mode, side, sets, y))
    except ImportError as error:
        if side == "smac":
            return Row(**common, note=f"ImportError: {error}", failed=True)
        return Row(**common, note=f"missing: {error.name or error}")
    except Exception as error:  # the run goes on, whatever one side does
        return Row(**common, note=f"{type(error).__name__}: {error}", failed=True)
    if row.error is not None and row.error != row.error:
        return Row(**common, note="results are not finite", failed=True)
    return row


def run_case(bench: Bench, case: GpuCase) -> list[Row]:
    """Every side of a case in every mode, SMAC first."""
    if bench.over:
        return [Row(case.name, mode, "smac", note="skipped: --minutes are over")
                for mode in case.modes]  # fmt: skip
    made: list[Tensor] = []

    def y() -> Tensor:
        if not made:
            made.append(exact.exact_y(case, sets[0]))
        return made[0]

    try:
        count = clock.rotations(moved(case.traffic, "forward"), clock.cache_bytes())
        sets = [draw(case, bench.device, seed) for seed in range(count)]
    except RuntimeError as error:  # out of memory, or a device that is lost
        return [Row(case.name, mode, "smac", note=f"inputs: {error}", failed=True)
                for mode in case.modes]  # fmt: skip
    rows = []
    for mode in case.modes:
        for side in ("smac", *case.peers):
            rows.append(attempt(bench, case, mode, side, sets, y))
            gc.collect()
    return rows


def run(bench: Bench, chosen: Sequence[GpuCase], save: Callable[[list[Row]], None]) -> list[Row]:
    """All cases; `save` gets the rows so far after each. Stops when the device is lost."""
    rows: list[Row] = []
    for number, case in enumerate(chosen, 1):
        found = run_case(bench, case)
        rows += found
        said = ", ".join(_said(r) for r in found if r.side == "smac")
        print(f"[{number}/{len(chosen)}] {case.name}: {said}", file=sys.stderr, flush=True)
        save(rows)
        if any(r.failed for r in found) and not clock.alive():
            lost = chosen[number:]
            rows += [Row(c.name, mode, "smac", note="skipped: the device is lost", failed=True)
                     for c in lost for mode in c.modes]  # fmt: skip
            break
        torch.cuda.empty_cache()
    save(rows)
    return rows


def _said(r: Row) -> str:
    if r.seconds is None:
        return f"{table.SHORT[r.mode]} {' '.join(r.note.split())[:200]}"
    return f"{table.SHORT[r.mode]} {1e3 * r.seconds:.3f} ms = {r.over_floor or 0:.2f} × floor"


def machine(ceilings: Ceilings) -> dict[str, Any]:
    """What the figures depend on."""
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda,
                             "python": platform.python_version()}  # fmt: skip
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    found["copy TB/s"] = round(ceilings.bandwidth / 1e12, 3)
    found["bf16 matmul TFLOP/s"] = round(ceilings.dots / 1e12, 1)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--only", metavar="PATTERN", help="cases whose name matches, e.g. 'ssd 8,'")
    parser.add_argument("--minutes", type=float, default=9.0, metavar="M",
                        help="start nothing after M minutes (default 9)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="PNG: time vs T, time vs N")
    options = parser.parse_args(argv)
    began = time.monotonic()
    try:
        chosen = [c for c in cases() if not options.only or re.search(options.only, c.name)]
    except re.error as error:
        parser.error(f"--only: {options.only!r} is no regular expression: {error}")
    if not chosen:
        parser.error(f"--only: no case matches {options.only!r}; "
                     f"the first is {cases()[0].name!r}")  # fmt: skip
    if not torch.cuda.is_available():
        print("benchmarks.gpu: found no CUDA device; expected an NVIDIA GPU", file=sys.stderr)
        return 1
    ceilings = clock.ceilings()
    about = machine(ceilings)
    bench = Bench(ceilings, "cuda", began + 60 * options.minutes)

    def save(rows: list[Row]) -> None:
        if options.json:
            figures = {"machine": about, "rows": [asdict(r) for r in rows]}
            options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    rows = run(bench, chosen, save)
    print(table.about(about))
    print(table.table(rows))
    if options.plot:
        try:
            for path in plot(rows, options.plot, f"SSD, {about['device']}, bfloat16"):
                print(f"wrote {path}")
        except ImportError as error:
            print(f"no plot: {error.name or error} is not installed")
    return int(any(r.failed for r in rows if r.side == "smac"))


if __name__ == "__main__":
    sys.exit(main())
