"""Flops of products that interpreted kernels do, and those that plans count; a child process.

Prints one JSON line a spec and pass: what `tl.dot` multiplied, and `plan.chosen.flops`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from specs_triton import SPECS
from triton.runtime.interpreter import InterpreterBuilder

import smac

#: Whole tiles, so that nothing is padded but the last chunk; those of 16-bit types are wider.
SIZES = {"B": 1, "T": 40, "H": 2, "G": 1, "N": 32, "P": 64}
CASES = (
    ("gla", "gla", "float32"), ("per value", SPECS["channel_p"][0], "float32"),
    ("groups", SPECS["channel_groups"][0], "float32"),
    ("gated", SPECS["channel_gated"][0], "float32"),
    ("gla bfloat16", "gla", "bfloat16"), ("gla float16", "gla", "float16"),
)  # fmt: skip


def main() -> None:
    """Count every product of one forward and one backward."""
    done = 0
    real = InterpreterBuilder.create_dot

    def counted(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        nonlocal done
        done += 2 * a.data.shape[0] * a.data.shape[1] * b.data.shape[1]
        return real(self, a, b, *rest)

    InterpreterBuilder.create_dot = counted
    for name, spec, dtype in CASES:
        op = smac.compile(spec, target="triton", order="chunked", chunk=32)
        have = {a for i in op.spec.inputs for a in i.axes}
        known = SIZES if dtype == "float32" else {**SIZES, "N": 64}
        sizes = {a: n for a, n in known.items() if a in have}
        drawn = {i.name: -torch.rand([known[a] for a in i.axes]) for i in op.spec.inputs}
        inputs = {n: x.to(getattr(torch, dtype)).requires_grad_() for n, x in drawn.items()}
        done = 0
        y = op(**inputs)
        counts = [done]
        done = 0
        torch.autograd.grad(y.sum(), list(inputs.values()))
        counts.append(done)
        for backward, count in enumerate(counts):
            plan = op.plan(dtype=dtype, device="h100", backward=bool(backward), **sizes)
            print(json.dumps({"cell": f"{name} {'backward' if backward else 'forward'}",
                              "done": count, "planned": plan.chosen.flops}))  # fmt: skip


if __name__ == "__main__":
    main()
