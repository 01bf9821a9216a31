"""Tiles of L that interpreted kernels of the quadratic order multiply; a child process.

Prints one JSON line a mask: products of a forward and of a backward, in tiles of 16 × 16.
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
from specs_triton import spec
from triton.runtime.interpreter import InterpreterBuilder

import smac

T, H = 128, 1
#: Mask, inputs beside q, k and v.
CASES = {
    "causal": ("causal()", ""),
    "window": ("window(17)", ""),
    "documents": ("document(ids)", 'ids = "T"\n'),
    "causal documents": ("document(ids) * causal()", 'ids = "T"\n'),
    "gated documents": ("document(ids) * semiseparable(log_decay = a)",
                        'ids = "T"\na = "T"\n'),
    "documents and more": ("document(ids) * causal() + window(1)", 'ids = "T"\n'),
}  # fmt: skip


def main() -> None:
    """Documents of 32, 1, 31 and 64 tokens."""
    done = 0
    real = InterpreterBuilder.create_dot

    def counted(self: Any, *operands: Any) -> Any:
        nonlocal done
        done += 1
        return real(self, *operands)

    InterpreterBuilder.create_dot = counted
    ids = torch.repeat_interleave(torch.tensor([3, 1, 4, 3]), torch.tensor([32, 1, 31, 64]))
    for name, (mask, more) in CASES.items():
        op = smac.compile(spec(mask, more), target="triton", order="quadratic", chunk=16)
        given = {i.name: ids if i.name == "ids" else -torch.rand(
            [{"B": 1, "T": T, "H": H, "N": 4, "P": 4}[a] for a in i.axes]).requires_grad_()
            for i in op.spec.inputs}  # fmt: skip
        done = 0
        y = op(**given)
        counts = [done]
        done = 0
        torch.autograd.grad(y.sum(), [x for x in given.values() if x.requires_grad])
        error = (y - op.reference(**given)).abs().max().item()
        print(json.dumps({"mask": name, "products": [*counts, done], "error": error}))


if __name__ == "__main__":
    main()
