"""Every shipped spec, order and data type on a real GPU, against the float64 oracle.

`python tests/gpu/run.py` compiles and runs each cell in a process of its own (a crash spoils one
cell), prints a table, and, when all of it is right, writes `verified.json` beside itself: a digest
of each template and lowering module, the device, the versions. `--changed` prints which of those
files have changed since, and needs no GPU. `--workers N`, `--only ssd` (or `packed`: packed
sequences) as they say.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))
RECORD = HERE / "verified.json"

ORDERS = {
    "ssd": ("chunked", "chunks", "quadratic", "linear"),
    "packed_ssd": ("chunked", "chunks", "quadratic"),
    "linear_attention": ("chunked", "quadratic", "linear"),
    "retnet": ("chunked", "chunks", "quadratic", "linear"), "toeplitz": ("quadratic",),
    "multiscale": ("chunked", "chunks", "quadratic"), "gla": ("chunked", "linear", "quadratic"),
    "cosformer": ("chunked", "quadratic"), "xpos": ("quadratic",),
    "semiseparable2": ("chunked", "chunks", "quadratic"), "log_linear": ("quadratic",),
    "gamma_memory": ("quadratic",), "global_filter": ("quadratic",),
    "hydra": ("chunked", "chunks", "quadratic"), "lion": ("chunked", "quadratic"),
    "low_rank": ("chunked", "chunks", "quadratic"), "mamba3": ("chunked", "chunks", "quadratic"),
    "prefix_lm": ("chunked", "quadratic"), "rmt": ("quadratic",),
    "rwkv6": ("chunked", "linear", "quadratic"),
    "window": ("quadratic",),
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
#: Specs that are not shipped, and their orders: a mask per value channel, and one per state channel
#: of a group, with a normaliser.
MORE = {"per_value": ("chunked", "linear", "quadratic"), "grouped_gla": ("chunked",)}
TEXTS = {
    "per_value": _PER_CHANNEL.format(name="per_value", heads="H", gate="H P", mask="TSP",
                                     Q="q / sqrt(size(N))", y="silu(Y)"),
    "grouped_gla": _PER_CHANNEL.format(name="grouped_gla", heads="G", gate="G N", mask="TSN",
                                       Q="exp(q)", y="Y / maximum(abs(Z), 1)").replace(
        'K = "k"', 'K = "exp(k)"'),
}  # fmt: skip
DTYPES = ("bfloat16", "float16", "float32", "float64")
#: Specs whose templates others exercise in every type: the narrowest and the widest will do.
TWO_TYPES = frozenset(ORDERS) - {"ssd", "packed_ssd", "linear_attention", "retnet", "toeplitz",
                                 "multiscale", "gla", "hydra", "mamba3", "rwkv6"}  # fmt: skip
#: Cells without states: what is above the diagonal keeps none, and a diagonal beside a mask per
#: channel has none in chunks.
STATELESS = frozenset({("hydra", "chunked"), ("hydra", "chunks"), ("rwkv6", "chunked")})
#: Ragged in T, N and P no powers of two, several chunks, groups of two heads.
SMALL = {"B": 2, "T": 300, "H": 4, "G": 2, "N": 48, "P": 40}
#: The seven levels of log_linear end at 64 tokens.
SHORT = {**SMALL, "T": 64}
#: Shapes that layers have, in bfloat16: the largest tiles that the templates take.
LARGE = (
    ("ssd", "chunked", {"B": 1, "T": 1024, "H": 8, "G": 1, "N": 128, "P": 64}),
    ("ssd", "chunked", {"B": 1, "T": 520, "H": 4, "G": 1, "N": 256, "P": 64}),
    ("ssd", "chunks", {"B": 1, "T": 1024, "H": 8, "G": 1, "N": 128, "P": 64}),
    ("retnet", "chunked", {"B": 1, "T": 1024, "H": 4, "N": 128, "P": 128}),
    ("retnet", "chunks", {"B": 1, "T": 1024, "H": 4, "N": 128, "P": 128}),
    ("multiscale", "chunked", {"B": 1, "T": 1024, "H": 4, "N": 64, "P": 64}),
    ("multiscale", "chunks", {"B": 1, "T": 1024, "H": 4, "N": 64, "P": 64}),
    ("linear_attention", "chunked", {"B": 1, "T": 1024, "H": 4, "N": 64, "P": 64}),
    ("toeplitz", "quadratic", {"B": 1, "T": 1024, "H": 4, "N": 64, "P": 64}),
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
      for t, n, p in ((1024, 128, 128), (520, 256, 512), (330, 64, 64), (330, 16, 128),
                      (330, 128, 16), (330, 32, 15))),
    *(("per_value", "chunked", {"B": 1, "T": t, "H": 4, "N": n, "P": p})
      for t, n, p in ((1024, 128, 128), (330, 16, 256), (330, 64, 16))),
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
ENDS = (0, 130, 130, 131, 300)
Cell = tuple[str, str, str, dict[str, int], bool, str | None]


def cells(only: str | None) -> list[Cell]:
    """(spec, order, dtype, sizes, with states, schedule of packed sequences) of every run.
    "chunked" stands for the schedule of sweeps, "chunks" for that of chunks in parallel, in the
    chunked order both."""
    made: list[Cell] = [
        (spec, order, dtype, SHORT if spec == "log_linear" else SMALL,
         spec not in TWO_TYPES and order != "quadratic" and (spec, order) not in STATELESS
         and dtype in ("bfloat16", "float64"), None)
        for spec, orders in {**ORDERS, **MORE}.items() for order in orders for dtype in DTYPES
        if (order, dtype) != ("chunks", "float16")  # states in memory would be too narrow
        and (spec not in TWO_TYPES or dtype in ("bfloat16", "float64"))
    ]  # fmt: skip
    made += [(spec, order, "bfloat16", sizes, False, None) for spec, order, sizes in LARGE]
    made += [(spec, order, dtype, {**SMALL, "B": 1}, state, schedule)
             for spec, order, schedule, state in PACKED
             for dtype in ("bfloat16", "float32", "float64")]  # fmt: skip
    if only == "packed":
        return [c for c in made if c[5] is not None]
    return [c for c in made if only is None or c[0] == only]


def run(cell: Cell) -> dict[str, Any]:
    """One cell on the GPU: errors of values and gradients, or what went wrong; same bits twice."""
    spec, order, dtype, sizes, state, schedule = cell
    found: dict[str, Any] = {"spec": spec, "order": order, "dtype": dtype, "state": state,
                             "T": sizes["T"], "N": sizes["N"], "packed": schedule}  # fmt: skip
    start = time.time()
    try:
        found |= (_measure(spec, order, dtype, sizes, state) if schedule is None else
                  _measure_packed(spec, order, dtype, sizes, state, schedule))  # fmt: skip
    except Exception as e:
        found["failed"] = f"{type(e).__name__}: {e}"[:600]
    return {**found, "seconds": round(time.time() - start, 1)}


def _measure(spec: str, order: str, dtype: str, sizes: dict[str, int],
             state: bool) -> dict[str, Any]:  # fmt: skip
    import torch

    import smac
    from smac.testing.cells import Cell as TestCell
    from smac.testing.inputs import as_tuple, recipe
    from smac.testing.properties import Trial, values_and_gradients

    # What a kernel fails to write is NaN, not luck.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    schedule = {"chunked": "sweep", "chunks": "chunks"}.get(order, "auto")
    order = "chunked" if order == "chunks" else order
    op = smac.compile(TEXTS.get(spec, spec), target="triton", order=order, schedule=schedule)
    given = {**sizes, "W": sizes["T"]}
    have = {a for i in op.spec.inputs for a in i.axes}
    wanted = tuple((a, n) for a, n in given.items() if a in have)
    # Masks per channel in chunks: the hard decays too, resets among them.
    special = spec in ("gla", "rwkv6") and order == "chunked"
    cell = TestCell("triton", order, dtype, wanted, layout="strided", state=state, special=special)
    trial = Trial(op, cell, recipe(op.spec), "cuda")
    values, gradients = values_and_gradients(trial)
    first, second = (as_tuple(trial.call(trial.inputs)) for _ in range(2))
    torch.cuda.synchronize()
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise AssertionError("two runs gave different bits")
    return {"error": values.relative, "ratio": values.ratio,
            "gradient_error": gradients.relative, "gradient_ratio": gradients.ratio}  # fmt: skip


def _measure_packed(spec: str, order: str, dtype: str, sizes: dict[str, int], state: bool,
                    schedule: str) -> dict[str, Any]:  # fmt: skip
    """Packed sequences: the bits of each alone, run in the same pieces; nothing waits for
    cu_seqlens; in float64 and float32 the oracle's values and gradients."""
    import torch

    import smac
    from smac.testing.cells import Cell as TestCell
    from smac.testing.inputs import recipe
    from smac.testing.properties import Trial, packed

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    op = smac.compile(spec, target="triton", order=order, schedule=schedule,
                      chunk=None if order == "linear" else 32)  # fmt: skip
    given = {**sizes, "W": sizes["T"]}
    have = {a for i in op.spec.inputs for a in i.axes}
    wanted = tuple((a, n) for a, n in given.items() if a in have)
    cell = TestCell("triton", order, dtype, wanted, layout="strided")
    trial = Trial(op, cell, recipe(op.spec), "cuda")
    packed(trial, state)
    ends = torch.tensor(ENDS, device="cuda", dtype=torch.int32)
    axes = {i.name: i.axes for i in op.spec.inputs}
    x = {n: v if v is None else v.detach() for n, v in trial.inputs.items()}

    def outputs(inputs: dict[str, Any], **more: Any) -> list[Any]:
        made = op(**inputs, return_state=state, **more)
        return [made[0], made[1].S] if state else [made]

    outputs(x, cu_seqlens=ends)  # compiled
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    whole = outputs(x, cu_seqlens=ends)
    torch.cuda.set_sync_debug_mode("default")
    for i, (start, stop) in enumerate(pairwise(ENDS)):
        alone = outputs({n: v if v is None or "T" not in axes[n] else
                         v.narrow(axes[n].index("T"), start, stop - start)
                         for n, v in x.items()})  # fmt: skip
        own = [whole[0][:, start:stop], *(s[i : i + 1] for s in whole[1:])]
        # Sums of decays over a range come of prefix sums along all of T: equal, but not in bits.
        exact = order != "quadratic" or spec == "toeplitz"
        # One token alone runs code compiled for T = 1, where multiply-adds fuse in other places; or
        # by the quadratic order, for without a state a chunk that covers T is that.
        if (order == "linear" or not state) and stop - start == 1:
            exact = False
            for a, b in zip(own, alone, strict=True):
                torch.testing.assert_close(a, b)
        if exact and not all(torch.equal(a, b) for a, b in zip(own, alone, strict=True)):
            raise AssertionError(f"sequence {i} has other bits than alone")
    torch.cuda.synchronize()
    return {"held": "each sequence as alone, nothing waited for"}


def digests() -> dict[str, str]:
    """sha256 of every file that decides what the kernels compute."""
    paths = [*ROOT.glob("templates/triton/*.jinja"), *ROOT.glob("smac/lower/*.py"),
             *ROOT.glob("smac/codegen/*triton*.py"), ROOT / "smac/ir.py"]  # fmt: skip
    return {str(p.relative_to(ROOT)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(paths)}  # fmt: skip


def changed() -> list[str]:
    """Files that are not as they were when the GPU run was green, added and removed ones too."""
    if not RECORD.exists():
        return ["(never verified on a GPU)"]
    old, new = json.loads(RECORD.read_text())["digests"], digests()
    return sorted(p for p in old.keys() | new.keys() if old.get(p) != new.get(p))


def record(results: list[dict[str, Any]]) -> None:
    """Write verified.json."""
    import torch
    import triton

    RECORD.write_text(json.dumps({
        "device": torch.cuda.get_device_name(), "python": platform.python_version(),
        "torch": torch.__version__, "triton": triton.__version__, "cells": len(results),
        "results": results, "digests": digests(),
    }, indent=1) + "\n")  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """One line a cell: worst relative error, rms ratio to the same-precision baseline; of packed
    sequences, what they were held to."""
    lines = [f"{'spec':24}{'order':10}{'dtype':9}{'T':>5}{'N':>4} {'error':>8}{'ratio':>6} "
             f"{'grad':>8}{'ratio':>6} {'s':>5}"]  # fmt: skip
    for r in sorted(results, key=lambda r: (r["spec"], r["order"], r["dtype"], r["T"])):
        name = r["spec"] + ("" if r.get("packed") is None else " packed")
        head = f"{name:24}{r['order']:10}{r['dtype']:9}{r['T']:5}{r['N']:4} "
        tail = (f"FAILED {r['failed']}" if "failed" in r else
                f"{r['held']}, {r['seconds']} s" if "held" in r else
                f"{r['error']:8.1e}{r['ratio']:6.2f} {r['gradient_error']:8.1e}"
                f"{r['gradient_ratio']:6.2f} {r['seconds']:5}")  # fmt: skip
        lines.append(head + tail)
    return "\n".join(lines)


def run_all(workers: int, only: str | None) -> list[dict[str, Any]]:
    """Every cell, each in a fresh process, `workers` at a time."""
    context = multiprocessing.get_context("spawn")
    results = []
    with ProcessPoolExecutor(workers, context, max_tasks_per_child=1) as pool:
        waiting = {pool.submit(run, c): c for c in cells(only)}
        for done in as_completed(waiting):
            spec, order, dtype, sizes, state, schedule = waiting[done]
            try:
                results.append(done.result())
            except Exception as e:
                results.append({"spec": spec, "order": order, "dtype": dtype, "state": state,
                                "T": sizes["T"], "N": sizes["N"], "packed": schedule, "seconds": 0,
                                "failed": f"the process died: {e}"})  # fmt: skip
    return results


def main() -> int:
    """Exit code 1 when a cell failed."""
    parser = argparse.ArgumentParser(description="SMAC's Triton target on a real GPU")
    parser.add_argument("--changed", action="store_true", help="print what changed since verified")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--only", help="one spec, or packed")
    asked = parser.parse_args()
    if asked.changed:
        files = changed()
        print("GPU run: nothing has changed since" if not files else
              "changed since the last green GPU run: " + ", ".join(files))  # fmt: skip
        return 0
    results = run_all(asked.workers, asked.only)
    wrong = [r for r in results if "failed" in r]
    if not wrong and asked.only is None:
        record(results)
    print(table(results))
    print(f"{len(results)} cells, {len(wrong)} failed")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
