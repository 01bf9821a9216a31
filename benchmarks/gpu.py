"""`python -m benchmarks.gpu`: SMAC beside every peer that is installed, on one NVIDIA GPU, bf16.

Ceilings, floors and all sides of a case are measured in the same run. Kernels are compiled first,
in many processes. Results lie in `--out` (benchmarks/results): `gpu.json`, the tables `gpu.txt`,
plots. A run goes on where the last one ended; `--report` prints and draws what there is, and needs
no GPU. A case that fails says so in its row and the run goes on; the exit code is 1 if any of
SMAC's failed. It never asserts on time.

Non-goals: bars (bars.py) and tables (table.py) are computed from rows alone, elsewhere.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import bars, clock, exact, store, table
from benchmarks.cases_gpu import FIELDS, GpuCase, cases, draw, op_of
from benchmarks.floor import Ceilings, floor, moved
from benchmarks.peers import Inputs, build, runner
from benchmarks.plot import plot
from benchmarks.store import Results
from benchmarks.table import Row
from benchmarks.warm import quick_tuning, warm

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
    if mode != "forward":
        found["kept"] = clock.kept_bytes(sides[0].call)
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
    op = op_of(case.kind)
    given = {f.name for f in FIELDS[case.kind]}
    plan = op.plan(dtype="bfloat16", device=device, backward=mode != "forward",
                   absent=tuple(i.name for i in op.spec.inputs if i.name not in given),
                   frozen=tuple(f.name for f in FIELDS[case.kind] if not f.grad),
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
    """All cases; `save` gets the rows of each as it ends. Stops when the device is lost."""
    rows: list[Row] = []
    for number, case in enumerate(chosen, 1):
        began = time.monotonic()
        found = run_case(bench, case)
        rows += found
        said = ", ".join(_said(r) for r in found if r.side == "smac")
        print(f"[{number}/{len(chosen)}] {case.name}: {said} ({time.monotonic() - began:.0f} s)",
              file=sys.stderr, flush=True)  # fmt: skip
        save(found)
        if any(r.failed for r in found) and not clock.alive():
            for lost in chosen[number:]:
                rows += [Row(lost.name, mode, "smac", note="skipped: the device is lost",
                             failed=True) for mode in lost.modes]  # fmt: skip
            break
        torch.cuda.empty_cache()
    return rows


def _said(r: Row) -> str:
    if r.seconds is None:
        return f"{table.SHORT[r.mode]} {' '.join(r.note.split())[:200]}"
    return f"{table.SHORT[r.mode]} {1e3 * r.seconds:.3f} ms = {r.over_floor or 0:.2f} × floor"


def machine(ceilings: Ceilings) -> dict[str, Any]:
    """What the figures depend on."""
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda,
                             "python": platform.python_version(),
                             "sources": store.sources()}  # fmt: skip
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    found["copy TB/s"] = round(ceilings.bandwidth / 1e12, 3)
    found["bf16 matmul TFLOP/s"] = round(ceilings.dots / 1e12, 1)
    return found


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    found.add_argument("--only", metavar="PATTERN", help="cases whose name matches, as 'ssd 8,'")
    found.add_argument("--minutes", type=float, default=9.0, metavar="M",
                       help="start nothing after M minutes (default 9)")  # fmt: skip
    found.add_argument("--out", type=Path, default=store.RESULTS, metavar="DIR",
                       help="results, to go on with and to write (default benchmarks/results)")
    found.add_argument("--again", metavar="PATTERN", help="cases to measure though they are there")
    found.add_argument("--report", action="store_true", help="measure nothing: tables and plots")
    found.add_argument("--workers", type=int, default=max((os.cpu_count() or 2) - 1, 1),
                       help="processes that compile ahead (default: cores less one; 0: none)")
    return found


def picked(results: Results, only: str | None, again: str | None) -> list[GpuCase]:
    """The cases to measure. ValueError for patterns that are none, or match nothing."""
    for name, pattern in (("--only", only), ("--again", again)):
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{name}: {pattern!r} is no regular expression: {error}") from None
    chosen = [c for c in cases() if not only or re.search(only, c.name)]
    if not chosen:
        raise ValueError(f"--only: no case matches {only!r}; the first is {cases()[0].name!r}")
    return [c for c in chosen if not results.done(c) or (again and re.search(again, c.name))]


def measure(results: Results, options: argparse.Namespace) -> bool:
    """Measures what is missing; whether all of SMAC's rows have their figures."""
    began = time.monotonic()
    ceilings = clock.ceilings()
    dropped = results.begin(machine(ceilings))
    if dropped:
        print(f"{dropped} rows dropped: other sources or another device", file=sys.stderr)
    todo = picked(results, options.only, options.again)
    if options.workers and todo:
        took = warm(todo, options.workers, 60 * options.minutes / 2)
        print(f"compiled ahead in {took:.0f} s", file=sys.stderr, flush=True)
        quick_tuning()
    bench = Bench(ceilings, "cuda", began + 60 * options.minutes)
    current, order = len(results.runs) - 1, cases()
    rows = run(bench, todo, lambda new: results.put([replace(r, run=current) for r in new], order))
    return not any(r.failed for r in rows if r.side == "smac")


def report(results: Results) -> str:
    """All tables: the machine of each run, every row, the bars."""
    heads = [f"run {i}: {table.about(about)}" for i, about in enumerate(results.runs)]
    return "\n".join([*heads, "", table.table(results.rows), "", bars.table(results.rows)])


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    results, right = store.load(options.out), True
    try:
        picked(results, options.only, options.again)
    except ValueError as error:
        parser().error(str(error))
    if not options.report:
        if not torch.cuda.is_available():
            print("benchmarks.gpu: found no CUDA device; expected an NVIDIA GPU (--report prints "
                  "what was measured before)", file=sys.stderr)  # fmt: skip
            return 1
        right = measure(results, options)
    elif not results.rows:
        print(f"benchmarks.gpu: {options.out / store.FILE}: no results", file=sys.stderr)
        return 1
    text = report(results)
    print(text)
    (options.out / "gpu.txt").write_text(text + "\n", encoding="utf-8")
    try:
        device = results.runs[-1]["device"]
        for path in plot(results.rows, options.out, f"SSD, {device}, bfloat16"):
            print(f"wrote {path}")
    except ImportError as error:
        print(f"no plot: {error.name or error} is not installed")
    return int(not right)


if __name__ == "__main__":
    os.environ.setdefault("TRITON_CACHE_AUTOTUNING", "1")  # what autotuners found, kept on disk
    os.environ.setdefault("SMAC_SELF_CHECK", "0")  # every case is held to the oracle, at its size
    sys.exit(main())
