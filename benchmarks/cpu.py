"""`python -m benchmarks.cpu`: SMAC's ssd against transformers' Mamba-2 scan, float32.

Medians of interleaved runs, so that a busy moment hits both sides; peak memory in child processes;
growth from 4096 to 16384 tokens. One table at the end, with bars; it never asserts.

Growth is printed twice. By default glibc maps blocks above 32 MB anew at each call and the kernel
clears their pages: at 16384 tokens y (100 MB) pays for that and at 4096 it does not. The bar is
for the growth with freed memory kept; what page clearing adds stands beside it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import compiled
from benchmarks.cases import CHUNKS, DEFAULT_CHUNK, MODES, Shape, case, side
from benchmarks.memory import peak_bytes

SHAPES = (Shape(1, 1024, 24, 64, 128, 1), Shape(1, 4096, 24, 64, 128, 1),
          Shape(1, 2048, 8, 64, 64, 1))  # fmt: skip
LONG = 4096  # the bars in full hold at this length; elsewhere SMAC must not be behind
GROWTH = (Shape(1, 4096, 24, 64, 128, 1), Shape(1, 16384, 24, 64, 128, 1))
#: How many times faster than (transformers' default, its best chunk), by mode, at T = LONG.
BARS = {"forward": (5.0, 3.0), "forward+backward": (3.5, 1.5)}
MEMORY_BAR, GROWTH_BAR = 0.25, 1.10
DEFAULT = f"chunk {DEFAULT_CHUNK}"


@dataclass(frozen=True)
class Row:
    """One shape and mode. Times in seconds (medians), memory in bytes above the inputs."""

    shape: str
    T: int
    mode: str
    smac: float
    default: float
    best: float
    best_chunk: str
    smac_bytes: int
    default_bytes: int
    difference: float


def medians(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each run; the runs take turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def difference(a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> float:
    """Largest relative rms difference between two runs' results (y, then gradients)."""
    return max(float((x - y).norm() / y.norm().clamp_min(1e-30))
               for x, y in zip(a, b, strict=True))  # fmt: skip


def row(shape: Shape, mode: str, repeats: int, tick: Callable[[str], None]) -> Row:
    """Measures one shape and mode: seeks transformers' best chunk, then times, then memory."""
    c = case(shape)
    tick(f"{shape} {mode}: best chunk")
    peers = {f"chunk {n}": side(c, f"chunk {n}", mode) for n in CHUNKS}
    sought = medians(peers, 3)
    best = min(sought, key=sought.__getitem__)
    tick(f"{shape} {mode}: times")
    runs = {"smac": side(c, "smac", mode), DEFAULT: peers[DEFAULT], best: peers[best]}
    apart = difference(runs["smac"](), runs[DEFAULT]())
    times = medians(runs, repeats)
    tick(f"{shape} {mode}: memory")
    memory = {name: peak_bytes(name, mode, shape) for name in ("smac", DEFAULT)}
    return Row(
        str(shape), shape.T, mode, times["smac"], times[DEFAULT], times[best], best,
        memory["smac"], memory[DEFAULT], apart,
    )  # fmt: skip


def growth(mode: str, repeats: int) -> float:
    """Time for 4 × the tokens over 4 × the time: 1 is linear."""
    short, long = (medians({"smac": side(case(shape), "smac", mode)}, repeats)["smac"]
                   for shape in GROWTH)  # fmt: skip
    return long / short / (GROWTH[1].T / GROWTH[0].T)


def keep_memory() -> bool:
    """Let glibc keep what is freed in this process; whether there was such a switch."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1  # malloc.h
    return bool(mallopt(mmap_threshold, most)) and bool(mallopt(trim_threshold, most))


def verdict(ok: bool) -> str:
    return "pass" if ok else "FAIL"


def bars(r: Row) -> list[tuple[str, float, float, bool]]:
    """(what, measured, bar, met) for one row."""
    over_default, over_best = BARS[r.mode] if r.T == LONG else (None, 1.0)
    out = []
    if over_default is not None:
        faster = r.default / r.smac
        out.append(("x default", faster, over_default, faster >= over_default))
    faster = r.best / r.smac
    out.append(("x best", faster, over_best, faster >= over_best))
    share = r.smac_bytes / r.default_bytes
    return [*out, ("memory share", share, MEMORY_BAR, share <= MEMORY_BAR)]


def table(rows: list[Row], grown: dict[str, float], fresh: dict[str, float]) -> str:
    """The report: ≤ 100 columns."""
    lines = [
        f"{'B,T,H,P,N,G':22}{'mode':17}{'smac':>9}{'default':>9}{'best':>9} {'':9}"
        f"{'MiB smac/def.':>14}"
    ]
    for r in rows:
        chunk = f"({r.best_chunk.removeprefix('chunk ')})"
        mib = f"{r.smac_bytes / 2**20:.0f}/{r.default_bytes / 2**20:.0f}"
        lines.append(
            f"{r.shape:22}{r.mode:17}{1e3 * r.smac:9.1f}{1e3 * r.default:9.1f}{1e3 * r.best:9.1f} "
            f"{chunk:9}{mib:>14}"
        )
        for what, measured, bar, met in bars(r):
            lines.append(f"{'':22}  {what:15}{measured:9.2f}   bar {bar:<5g} {verdict(met)}")
    for mode, ratio in grown.items():
        lines.append(f"{'T 4096 to 16384':22}{mode:17}{ratio:9.2f} of linear, "
                     f"bar {GROWTH_BAR:g} {verdict(ratio <= GROWTH_BAR)}; "
                     f"{fresh[mode]:.2f} with new pages")  # fmt: skip
    worst = max((r.difference for r in rows), default=0.0)
    lines.append(f"times in ms; worst relative difference between the two sides {worst:.1e}")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    cpu = next((line.split(":", 1)[1].strip() for line in _cpuinfo() if "model name" in line),
               platform.processor() or platform.machine())  # fmt: skip
    return {"cpu": cpu, "threads": torch.get_num_threads(), "python": platform.python_version(),
            "torch": torch.__version__, "transformers": version("transformers")}  # fmt: skip


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="timed runs a cell (default 7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--compiled", action="store_true",
                        help="torch.compile on top, too (compiling takes minutes)")  # fmt: skip
    options = parser.parse_args(argv)
    rows: list[Row] = []
    grown: dict[str, float] = {}
    fresh: dict[str, float] = {}
    with tqdm(total=3 * len(SHAPES) * len(MODES) + 2 * len(MODES), file=sys.stderr) as bar:
        def tick(text: str) -> None:
            bar.set_description(text)
            bar.update()

        for shape in SHAPES:
            rows += [row(shape, mode, options.repeats, tick) for mode in MODES]
        for found in (fresh, grown):
            for mode in MODES:
                tick(f"growth {mode}")
                found[mode] = growth(mode, max(3, options.repeats // 2))
            keep_memory()
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(table(rows, grown, fresh))
    extra = compiled.measure(SHAPES[-1], options.repeats) if options.compiled else None
    if extra is not None:
        print(extra)
    if options.json:
        figures = {"machine": about, "rows": [asdict(r) for r in rows], "growth": grown,
                   "growth_with_fresh_pages": fresh,
                   "compiled": None if extra is None else asdict(extra)}  # fmt: skip
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
