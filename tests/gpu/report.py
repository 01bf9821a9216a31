"""What a GPU run found, as a matrix, as words, and as verified.json.

Non-goals: running anything.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DTYPES = ("bfloat16", "float16", "float32", "float64")
Refused = Mapping[tuple[str, str, str], str]


def matrix(results: list[dict[str, Any]]) -> str:
    """spec × order (and schedule) × data type: the worst rms error of values / of gradients over
    all sizes, by that of the same-precision baseline; in float64 the worst relative error."""
    rows: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for r in results:
        way = f"{r['order']} {r['packed']}" if r.get("packed") else r["order"]
        name = f"{r['spec']} packed" if r.get("packed") else r["spec"]
        rows.setdefault((name, way), {}).setdefault(r["dtype"], []).append(r)
    lines = [f"{'spec':24}{'order':18}" + "".join(f"{d:>14}" for d in DTYPES)]
    for (name, way), found in sorted(rows.items()):
        cells = "".join(f"{_worst(found[d], d) if d in found else '-':>14}" for d in DTYPES)
        lines.append(f"{name:24}{way:18}{cells}")
    return "\n".join(lines)


def _worst(found: list[dict[str, Any]], dtype: str) -> str:
    """A cell of the matrix, of one or more sizes."""
    if any("failed" in r for r in found):
        return "FAILED"
    if all("held" in r for r in found):
        return "as alone"
    if dtype == "float64":
        return f"{max(max(r['error'], r['gradient_error']) for r in found):.1e}"
    ratio, steep = (max(r[k] for r in found) for k in ("ratio", "gradient_ratio"))
    return f"{ratio:.2f} / {steep:.2f}"


def failures(results: list[dict[str, Any]]) -> str:
    """A line for each cell that failed."""
    return "\n".join(
        f"FAILED {r['spec']} {r['order']} {r['dtype']} T={r['T']} N={r['N']} P={r['P']}"
        f"{' packed' if r.get('packed') else ''}: {r['failed']}"
        for r in results if "failed" in r)  # fmt: skip


def refusals(refused: Refused) -> str:
    """What is a PlanError: a line for each reason, its specs, orders and data types behind it.
    Reasons that differ in a mask's text or a data type are one; verified.json has them all."""
    by: dict[str, dict[str, list[str]]] = {}
    for (spec, order, dtype), why in refused.items():
        said = re.sub(r" by fft: .*", "", why.replace(dtype, "this type"))
        said = re.sub(r"mask '[^']*'", "the mask", said)
        by.setdefault(said, {}).setdefault(f"{spec} {order}", []).append(dtype)
    lines = ["What the planner refuses on triton (chunks: the schedule of parallel chunks):"]
    for why, cells in sorted(by.items()):
        who = ", ".join(s + ("" if len(d) == len(DTYPES) else f" ({' '.join(d)})")
                        for s, d in cells.items())  # fmt: skip
        lines.append(f"  {why.rstrip(';')}\n      {who}")
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """The device and the versions that results hold for."""
    import torch
    import triton

    return {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "torch": torch.__version__, "triton": triton.__version__}  # fmt: skip


def record(path: Path, results: list[dict[str, Any]], left: int, digests: Mapping[str, str],
           refused: Refused) -> None:  # fmt: skip
    """Write verified.json: right cells, wrong ones, and how many were left."""
    right = [r for r in results if "failed" not in r]
    key = str if not results else lambda r: tuple(str(r.get(k)) for k in results[0])
    path.write_text(json.dumps({
        **machine(), "python": platform.python_version(), "cells": len(right), "left": left,
        "failed": [r for r in results if "failed" in r],
        "results": sorted(right, key=key), "digests": dict(digests),
        "refused": [[*cell, why] for cell, why in refused.items()],
    }, indent=1) + "\n", encoding="utf-8")  # fmt: skip
