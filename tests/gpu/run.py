"""Every shipped spec, order and data type on a real GPU, against the float64 oracle.

`python tests/gpu/run.py` runs each cell that the planner takes, on worker processes that outlive a
crash, and prints the matrix of worst error ratios, what failed, and what the planner refuses and
why. It writes `verified.json` beside itself: the cells that are right, each with a digest of the
program that it ran, those that are not, a digest of each template and lowering module, the device,
the versions. A cell whose program is what it was, on that device and by those versions, is not run
again (`--again`: all are). Exit code 1 when a cell failed or was left.

`--workers N` (each compiles and runs its cells; 15 for 16 cores), `--minutes M` (cells not run by
then are left), `--keep FILE` (results so far; a run with the same sources goes on there),
`--only ssd` (or `packed`: packed sequences; writes no verified.json). Without a GPU: `--changed`
prints which files have changed since the last run, `--refused` what the planner refuses.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))
RECORD = HERE / "verified.json"
#: Where worker processes read that all cells are to be run.
AGAIN = "SMAC_GPU_AGAIN"

ORDERS = {
    "ssd": ("chunked", "chunks", "segmented", "quadratic", "linear"),
    "packed_ssd": ("chunked", "chunks", "segmented", "quadratic", "linear"),
    "linear_attention": ("chunked", "segmented", "quadratic", "linear"),
    "retnet": ("chunked", "chunks", "segmented", "quadratic", "linear"),
    "toeplitz": ("quadratic", "fft"),
    "multiscale": ("chunked", "chunks", "quadratic", "linear"),
    "gla": ("chunked", "linear", "quadratic"),
    "cosformer": ("chunked", "segmented", "quadratic", "linear"),
    "xpos": ("auto", "chunked", "chunks", "segmented", "quadratic", "linear"),
    "semiseparable2": ("chunked", "chunks", "segmented", "quadratic", "linear"),
    "log_linear": ("chunked", "chunks", "quadratic"),
    "gamma_memory": ("chunked", "chunks", "segmented", "quadratic", "linear"),
    "global_filter": ("quadratic", "fft"),
    "hydra": ("chunked", "chunks", "segmented", "quadratic", "linear"),
    "lion": ("chunked", "quadratic", "linear"),
    "low_rank": ("chunked", "chunks", "quadratic", "linear"),
    "mamba3": ("chunked", "chunks", "segmented", "quadratic", "linear"),
    "prefix_lm": ("chunked", "quadratic", "linear"), "rmt": ("quadratic",),
    "rwkv6": ("chunked", "linear", "quadratic"), "window": ("quadratic",),
}  # fmt: skip
_PER_CHANNEL = """smac = 1
name = "{name}"
[axes]
G = "group of H"
[inputs]
q = "B T {heads} N"
k = "B T {heads} N"
v = "B T H P"
g = "B T {gate}"
[contraction]
equation = "TN,SN,SP,{mask}->TP"
Q = "{Q}"
K = "k"
V = "v"
L = "semiseparable(log_decay = logsigmoid(g))"
[output]
y = "{y}"
"""
#: Specs that are not shipped, and the orders that they are here for: a mask per value channel, and
#: one per state channel of a group, with a normaliser; more lanes than programs have at once;
#: masks without gradients, whose backward is sweeps alone, one of them for its inputs are frozen.
MORE = {"per_value": ("chunked", "linear", "quadratic"),
        "grouped_gla": ("chunked", "linear", "quadratic"),
        "fixed_wave": ("chunked", "chunks", "segmented", "quadratic", "linear"),
        "nine_decays": ("chunks", "quadratic"),
        "causal": ("chunked", "chunks", "segmented"),
        "fixed_decay": ("chunked", "chunks", "segmented", "quadratic", "linear")}
FROZEN: dict[str, tuple[str, ...]] = {"fixed_decay": ("g",)}
TEXTS = {
    "per_value": _PER_CHANNEL.format(name="per_value", heads="H", gate="H P", mask="TSP",
                                     Q="q / sqrt(size(N))", y="silu(Y)"),
    "grouped_gla": _PER_CHANNEL.format(name="grouped_gla", heads="G", gate="G N", mask="TSN",
                                       Q="exp(q)", y="Y / maximum(abs(Z), 1)").replace(
        'K = "k"', 'K = "exp(k)"'),
    # A frequency that no gradient is taken of: chunks in 16 bits too.
    "fixed_wave": _PER_CHANNEL.format(name="fixed_wave", heads="H", gate="H", mask="TS",
                                      Q="q / sqrt(size(N))", y="Y").replace(
        "= logsigmoid(g))", "= logsigmoid(g)) * wave(401.7)"),
    "nine_decays": _PER_CHANNEL.format(name="nine_decays", heads="G", gate="H", mask="TS",
                                       Q="q / sqrt(size(N))", y="Y").replace(
        "= logsigmoid(g))", "= logsigmoid(g)) * ("
        + " + ".join(f"row(sigmoid(g * {i})) * decay(0.{i})" for i in range(1, 10)) + ")"),
    "causal": _PER_CHANNEL.format(name="causal", heads="G", gate="H", mask="TS",
                                  Q="q / sqrt(size(N))", y="Y * sigmoid(g)").replace(
        "semiseparable(log_decay = logsigmoid(g))", "causal()"),
    "fixed_decay": _PER_CHANNEL.format(name="fixed_decay", heads="G", gate="H", mask="TS",
                                       Q="q / sqrt(size(N))", y="Y"),
}  # fmt: skip
DTYPES = ("bfloat16", "float16", "float32", "float64")
#: Specs whose templates others exercise in every type: the narrowest and the widest will do.
TWO_TYPES = frozenset(ORDERS) - {"ssd", "packed_ssd", "linear_attention", "retnet", "toeplitz",
                                 "multiscale", "gla", "hydra", "mamba3", "rwkv6"}  # fmt: skip
#: Cells without states: what is above the diagonal keeps none, and a diagonal beside a mask per
#: channel has none in chunks.
STATELESS = frozenset({("hydra", "chunked"), ("hydra", "chunks"), ("hydra", "segmented"),
                       ("hydra", "linear"), ("rwkv6", "chunked")})
TWO = ("bfloat16", "float64")
#: Ragged in T, N and P no powers of two, several chunks, groups of two heads.
SMALL = {"B": 2, "T": 300, "H": 4, "G": 2, "N": 48, "P": 40}
#: Nine levels: as many lanes as chunks take, eight, and the diagonal.
SHORT = {**SMALL, "T": 200}
#: Shapes that layers have, in bfloat16: the largest tiles that the templates take.
LARGE = (
    ("ssd", "chunked", {"B": 1, "T": 1024, "H": 8, "G": 1, "N": 128, "P": 64}),
    ("ssd", "chunked", {"B": 1, "T": 520, "H": 4, "G": 1, "N": 256, "P": 64}),
    ("ssd", "chunks", {"B": 1, "T": 1024, "H": 8, "G": 1, "N": 128, "P": 64}),
    ("ssd", "chunks", {"B": 1, "T": 520, "H": 4, "G": 1, "N": 256, "P": 64}),
    # So many programs that each takes several heads in turn.
    *((spec, "chunks", {"B": 1, "T": 1100, "H": 128, "G": 2, "N": n, "P": p})
      for spec, n, p in (("ssd", 128, 64), ("ssd", 256, 64), ("ssd", 128, 128), ("ssd", 16, 64),
                         ("hydra", 64, 64), ("mamba3", 128, 64))),
    ("ssd", "segmented", {"B": 1, "T": 5000, "H": 8, "G": 1, "N": 128, "P": 64}),
    *(("causal", order, {"B": 1, "T": t, "H": 8, "G": 8, "N": 128, "P": 128})
      for order, t in (("chunked", 1024), ("segmented", 5000))),
    *(("fixed_decay", order, {"B": 1, "T": t, "H": 8, "G": g, "N": n, "P": p})
      for order, t in (("chunked", 1024), ("segmented", 5000), ("chunks", 1024))
      for g, n, p in ((8, 128, 128), (2, 128, 64))),
    ("retnet", "chunked", {"B": 1, "T": 1024, "H": 4, "N": 128, "P": 128}),
    ("retnet", "chunks", {"B": 1, "T": 1024, "H": 4, "N": 128, "P": 128}),
    ("multiscale", "chunked", {"B": 1, "T": 1024, "H": 4, "N": 64, "P": 64}),
    ("multiscale", "chunks", {"B": 1, "T": 1024, "H": 4, "N": 64, "P": 64}),
    *(("linear_attention", order, {"B": 1, "T": t, "H": 4, "N": 64, "P": 64})
      for order, t in (("chunked", 1024), ("segmented", 5000))),
    ("toeplitz", "quadratic", {"B": 1, "T": 1024, "H": 4, "N": 64, "P": 64}),
    *(("log_linear", "chunks", {"B": 1, "T": t, "H": h, "N": n, "P": 64})
      for t, h, n in ((2048, 4, 64), (4096, 2, 64), (1040, 4, 128), (330, 4, 16))),
    # Narrow states: compilers have gone wrong where a side of a dot is shorter than 64. Heads
    # enough that the errors of gradients a head are a statistic.
    *(("ssd", order, {"B": 1, "T": 330, "H": 64, "G": 2, "N": n, "P": p})
      for order in ("chunked", "chunks", "quadratic")
      for n, p in ((16, 64), (64, 16), (32, 64), (16, 16))),
    ("retnet", "chunked", {"B": 1, "T": 330, "H": 4, "N": 16, "P": 128}),
    ("linear_attention", "chunked", {"B": 1, "T": 330, "H": 4, "N": 32, "P": 15}),
    ("toeplitz", "quadratic", {"B": 1, "T": 330, "H": 4, "N": 16, "P": 32}),
    *((spec, order, {"B": 1, "T": t, "H": 8, "G": 1, "N": n, "P": 64})
      for spec, t, n in (("hydra", 1024, 64), ("mamba3", 1024, 128), ("hydra", 330, 16))
      for order in ("chunked", "chunks")),
    *(("rwkv6", "chunked", {"B": 1, "T": t, "H": 4, "N": n, "P": p})
      for t, n, p in ((1024, 64, 64), (330, 128, 128), (330, 16, 64))),
    ("rwkv6", "linear", {"B": 1, "T": 330, "H": 2, "N": 64, "P": 64}),
    ("lion", "chunked", {"B": 1, "T": 576, "H": 4, "N": 64, "P": 64}),
    ("gla", "linear", {"B": 1, "T": 512, "H": 2, "N": 128, "P": 128}),
    *(("gla", "chunked", {"B": 1, "T": t, "H": 4, "N": n, "P": p})
      for t, n, p in ((576, 128, 128), (520, 256, 512), (330, 64, 64), (330, 16, 128),
                      (330, 128, 16), (330, 32, 15))),
    *(("per_value", "chunked", {"B": 1, "T": t, "H": 4, "N": n, "P": p})
      for t, n, p in ((576, 128, 128), (330, 16, 256), (330, 64, 16))),
)
#: Packed sequences, an empty one and one of a token among them: spec, order, schedule, states.
PACKED = (
    ("ssd", "chunked", "sweep", True), ("ssd", "chunked", "chunks", True),
    ("ssd", "quadratic", "auto", False), ("ssd", "linear", "tokens", True),
    ("packed_ssd", "chunked", "sweep", True), ("packed_ssd", "quadratic", "auto", False),
    ("linear_attention", "chunked", "sweep", True), ("multiscale", "chunked", "sweep", True),
    ("retnet", "chunked", "chunks", True), ("gla", "linear", "tokens", True),
    ("gla", "chunked", "sweep", True),
    ("mamba3", "chunked", "sweep", True), ("mamba3", "chunked", "chunks", True),
    ("rwkv6", "chunked", "sweep", False), ("rwkv6", "linear", "tokens", True),
    ("hydra", "chunked", "sweep", False), ("hydra", "chunked", "chunks", False),
    ("toeplitz", "quadratic", "auto", False),
)

#: How "chunked" and its like of ORDERS are asked for: order and schedule.
WAYS = {"chunked": ("chunked", "sweep"), "chunks": ("chunked", "chunks"),
        "segmented": ("chunked", "segmented"), "fft": ("linear", "fft"), "auto": ("auto", "auto"),
        "quadratic": ("quadratic", "auto"), "linear": ("linear", "tokens")}  # fmt: skip
Cell = tuple[str, str, str, dict[str, int], bool, str | None]
#: What of a result says which cell it is.
NAMED = ("spec", "order", "dtype", "state", "packed", "T", "N", "P", "H")


def refusal(spec: str, order: str, dtype: str) -> str | None:
    """Why the planner takes no such cell, forward and backward; None where it does."""
    import smac

    how, schedule = WAYS[order]
    try:
        op = smac.compile(TEXTS.get(spec, spec), target="triton", order=how, schedule=schedule)
        have = {a for i in op.spec.inputs for a in i.axes}
        sizes = {a: n for a, n in sizes_of(spec).items() if a in have}
        for backward in (False, True):
            op.plan(dtype=dtype, device="h100", backward=backward,
                    frozen=FROZEN.get(spec, ()), **sizes)  # fmt: skip
    except smac.PlanError as e:
        return str(e).removeprefix(f"{spec}: ")
    return None


@cache
def refused() -> dict[tuple[str, str, str], str]:
    """(spec, order, dtype) of all that there might be, and why the planner takes none of it."""
    return {(s, o, d): why for s in {**ORDERS, **MORE} for o in WAYS for d in DTYPES
            if (why := refusal(s, o, d)) is not None}  # fmt: skip


def sizes_of(spec: str) -> dict[str, int]:
    """The small sizes of a spec's cells."""
    return SHORT if spec == "log_linear" else SMALL


def cells(only: str | None = None) -> list[Cell]:
    """(spec, order, dtype, sizes, with states, schedule of packed sequences) of every run.
    "chunked" stands for the schedule of sweeps, "chunks" for that of chunks in parallel,
    "segmented" for sweeps of segments, in the chunked order all, "fft" for that of the linear."""
    no = refused()
    made: list[Cell] = [
        (spec, order, dtype, sizes_of(spec),
         spec not in TWO_TYPES and (spec, order) not in STATELESS
         and order not in ("quadratic", "fft") and dtype in TWO, None)
        for spec, orders in {**ORDERS, **MORE}.items() for order in orders for dtype in DTYPES
        if (spec, order, dtype) not in no
        and dtype in (TWO if spec in TWO_TYPES else DTYPES)
    ]  # fmt: skip
    made += [(spec, order, "bfloat16", sizes, False, None) for spec, order, sizes in LARGE]
    made += [(spec, order, dtype, {**SMALL, "B": 1}, state, schedule)
             for spec, order, schedule, state in PACKED
             for dtype in ("bfloat16", "float32", "float64")]  # fmt: skip
    if only == "packed":
        return [c for c in made if c[5] is not None]
    return [c for c in made if only is None or c[0] == only]


def name_of(cell: Cell) -> dict[str, Any]:
    """A cell as results name it."""
    spec, order, dtype, sizes, state, schedule = cell
    return {"spec": spec, "order": order, "dtype": dtype, "state": state, "packed": schedule,
            **{a: sizes[a] for a in NAMED[5:]}}  # fmt: skip


def run(cell: Cell) -> dict[str, Any]:
    """One cell on the GPU, unless its program has been verified there. Raises what broke."""
    import measure

    spec, order, dtype, sizes, state, schedule = cell
    source = measure.source_of(TEXTS.get(spec, spec), order, dtype, sizes, state, schedule,
                               FROZEN.get(spec, ()))  # fmt: skip
    if (known := _verified().get(_key(name_of(cell)))) and known.get("source") == source:
        return known
    return {**measured(cell), "source": source}


def measured(cell: Cell) -> dict[str, Any]:
    """One cell on the GPU: errors of values and gradients; same bits twice. Raises what broke."""
    import measure

    spec, order, dtype, sizes, state, schedule = cell
    text = TEXTS.get(spec, spec)
    # Masks per channel by states: the hard decays too, resets among them.
    special = spec in ("gla", "rwkv6") and order != "quadratic"
    start = time.time()
    found = (measure.values(text, order, dtype, sizes, state, special, FROZEN.get(spec, ()))
             if schedule is None else
             measure.packed(text, order, dtype, sizes, state, schedule))  # fmt: skip
    return {**name_of(cell), **found, "seconds": round(time.time() - start, 1)}


@cache
def _verified() -> dict[str, dict[str, Any]]:
    """What was right on this device, by these versions and what starts programs now."""
    import report

    if os.environ.get(AGAIN) or not RECORD.exists():
        return {}
    known, now = json.loads(RECORD.read_text()), digests()
    same = all(known.get(k) == v for k, v in report.machine().items()) and all(
        known["digests"].get(p) == d for p, d in now.items() if p.startswith("smac/runtime"))
    return {_key(r): r for r in known["results"]} if same else {}


def digests() -> dict[str, str]:
    """sha256 of every file that decides what the kernels compute."""
    paths = [*ROOT.glob("templates/triton/*.jinja"), *ROOT.glob("smac/lower/*.py"),
             *ROOT.glob("smac/codegen/*triton*.py"), ROOT / "smac/ir.py",
             *(ROOT / f"smac/runtime/{n}.py" for n in ("direct", "player", "record", "tape"))]
    return {str(p.relative_to(ROOT)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(paths)}  # fmt: skip


def changed() -> list[str]:
    """Files that are not as they were when the GPU run was made, added and removed ones too; cells
    that were wrong then."""
    if not RECORD.exists():
        return ["(never verified on a GPU)"]
    found = json.loads(RECORD.read_text())
    old, new = found["digests"], digests()
    wrong = [f"({r['spec']} {r['order']} {r['dtype']}: {r['failed'].splitlines()[0]})"
             for r in found.get("failed", [])]  # fmt: skip
    left = [f"({found['left']} cells were not run)"] if found.get("left") else []
    return [*sorted(p for p in old.keys() | new.keys() if old.get(p) != new.get(p)), *wrong, *left]


def run_all(only: str | None, keep: Path, workers: int, limit_s: float,
            minutes: float | None) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """Results of every cell, those that died too; and how many cells were left."""
    from pool import resumed

    took = _seconds()
    # The longest first, so that what is left for the end is short.
    order = sorted(cells(only), key=lambda c: -took.get(_key(name_of(c)), 30.0))
    jobs = {_key(name_of(c)): c for c in order}
    found = resumed(run, jobs, keep, workers, limit_s, minutes)
    results = [{**name_of(jobs[k]), "seconds": 0, **r} for k, r in found.items()]
    return results, len(jobs) - len(found)


def _key(result: dict[str, Any]) -> str:
    """A cell's name, from its result."""
    return " ".join(f"{k}={result.get(k)}" for k in NAMED)


def _seconds() -> dict[str, float]:
    """What each cell took in the run that is recorded."""
    if not RECORD.exists():
        return {}
    return {_key(r): r["seconds"] for r in json.loads(RECORD.read_text())["results"]}


def main() -> int:
    """Exit code 1 when a cell failed or was left."""
    parser = argparse.ArgumentParser(description="SMAC's Triton target on a real GPU")
    parser.add_argument("--changed", action="store_true", help="print what changed since verified")
    parser.add_argument("--refused", action="store_true", help="print what is a PlanError, and why")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--limit", type=float, default=240.0, help="seconds that a cell may take")
    parser.add_argument("--minutes", type=float, help="leave what has not run by then")
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "gpu-run.jsonl")
    parser.add_argument("--only", help="one spec, or packed")
    parser.add_argument("--again", action="store_true", help="run what was verified before too")
    asked = parser.parse_args()
    if asked.changed:
        files = changed()
        print("GPU run: nothing has changed since" if not files else
              "changed since the last green GPU run: " + ", ".join(files))  # fmt: skip
        return 0
    import report

    if asked.refused:
        print(report.refusals(refused()))
        return 0
    os.environ[AGAIN] = "1" if asked.again else ""
    start = time.time()
    results, left = run_all(asked.only, asked.keep, asked.workers, asked.limit, asked.minutes)
    if asked.only is None:
        report.record(RECORD, results, left, digests(), refused())
    print(report.refusals(refused()))
    print(report.matrix(results))
    print(report.failures(results))
    wrong = sum("failed" in r for r in results)
    print(f"{len(results)} cells, {wrong} failed, {left} left; {time.time() - start:.0f} s, "
          f"{sum(r['seconds'] for r in results):.0f} s in {asked.workers} workers")  # fmt: skip
    return bool(wrong or left)


if __name__ == "__main__":
    sys.exit(main())
