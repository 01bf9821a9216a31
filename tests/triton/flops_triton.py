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

#: Whole tiles of float32, so that nothing is padded but the last chunk.
SIZES = {"B": 1, "T": 40, "H": 2, "G": 1, "N": 32, "P": 64}
CASES = {"gla": "gla", "per value": SPECS["channel_p"][0], "groups": SPECS["channel_groups"][0],
         "gated": SPECS["channel_gated"][0]}  # fmt: skip


def main() -> None:
    """Count every product of one forward and one backward."""
    done = 0
    real = InterpreterBuilder.create_dot

    def counted(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        nonlocal done
        done += 2 * a.data.shape[0] * a.data.shape[1] * b.data.shape[1]
        return real(self, a, b, *rest)

    InterpreterBuilder.create_dot = counted
    for name, spec in CASES.items():
        op = smac.compile(spec, target="triton", order="chunked", chunk=32)
        have = {a for i in op.spec.inputs for a in i.axes}
        sizes = {a: n for a, n in SIZES.items() if a in have}
        inputs = {i.name: (-torch.rand([SIZES[a] for a in i.axes])).requires_grad_()
                  for i in op.spec.inputs}  # fmt: skip
        done = 0
        y = op(**inputs)
        counts = [done]
        done = 0
        torch.autograd.grad(y.sum(), list(inputs.values()))
        counts.append(done)
        for backward, count in enumerate(counts):
            plan = op.plan(dtype="float32", device="h100", backward=bool(backward), **sizes)
            print(json.dumps({"cell": f"{name} {'backward' if backward else 'forward'}",
                              "done": count, "planned": plan.chosen.flops}))  # fmt: skip


if __name__ == "__main__":
    main()
