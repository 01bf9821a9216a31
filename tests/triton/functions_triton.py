"""Every scalar function as Triton prints it, interpreted, against torch; a child process.

Prints one JSON line a function and type: the worst relative error over arguments from 1e-9 to 30.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F

from smac.codegen.emit import emit
from smac.expr import FUNCTIONS, Expr, Index, Name, Num, Size, call
from smac.ir import Buffer, Kernel, Program, Store, Walk
from smac.runtime.module import load

X, Y = Name("x"), Name("y")
POSITIVE = call("exp", X)
TORCH = {"logsigmoid": F.logsigmoid, "silu": F.silu, "elu": F.elu, "gelu": F.gelu,
         "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x))}  # fmt: skip
AXES = ("T", "N")


def cases(x: torch.Tensor, y: torch.Tensor) -> dict[str, tuple[Expr, torch.Tensor]]:
    """Name → (expression, its value in float64)."""
    p = x.exp()
    made: dict[str, tuple[Expr, torch.Tensor]] = {}
    for fn, n in FUNCTIONS.items():
        if n == 1:
            positive = fn in ("log", "log1p", "sqrt")
            of = TORCH.get(fn) or getattr(torch, fn)
            made[fn] = (call(fn, POSITIVE if positive else X), of(p if positive else x))
    made["log"] = (call("log", call("add", POSITIVE, Num(1.5))), torch.log(p + 1.5))
    tenth, low = Num(0.1), Num(-0.3)
    return made | {
        "erf": (call("erf", X), x.erf()), "sign": (call("sign", X), x.sign()),
        "minimum": (call("minimum", X, Y), torch.minimum(x, y)),
        "maximum": (call("maximum", X, tenth), x.clamp(min=0.1)),
        "clamp": (call("clamp", X, low, tenth), x.clamp(-0.3, 0.1)),
        "where": (call("where", call("lt", X, Y), X, tenth), torch.where(x < y, x, 0.1)),
        "comparison": (call("ge", X, Y), (x >= y).double()),
        "pow": (call("pow", POSITIVE, Y), p**y), "cube": (call("pow", X, Num(3)), x**3),
        "inverse": (call("pow", X, Num(-2)), x**-2.0),
        "root": (call("pow", POSITIVE, Num(0.5)), p.sqrt()),
        "negative_base": (call("pow", call("neg", POSITIVE), Num(3.0)), -(p**3)),
        "third": (call("mul", call("div", Num(1), Num(3)), X), x / 3),
        "root_of_two": (call("mul", call("sqrt", Num(2)), X), 2**0.5 * x),
        "chain": (call("chain", call("relu", X), call("div", Num(1), call("relu", X))),
                  (x > 0).double()),
        "index_and_size": (call("add", Index("T"), call("mul", call("abs", X), Size("N"))),
                           torch.arange(x.shape[0]).double()[:, None] + x.abs() * x.shape[1]),
    }  # fmt: skip


def main() -> None:
    """Render one pointwise kernel with a store a case; run it in both types."""
    g = torch.Generator().manual_seed(0)
    scales = (1e-9, 1e-4, 1e-2, 1.0, 5.0)
    x64 = torch.cat([torch.randn(20, 5, generator=g, dtype=torch.float64) * s for s in scales])
    y64 = torch.randn(100, 5, generator=g, dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        x, y = x64.to(dtype), y64.to(dtype)
        known = cases(x.double(), y.double())
        buffers = (*(Buffer(n, AXES, "input", "input", n) for n in "xy"),
                   *(Buffer(f"o_{n}", AXES, "acc", "output") for n in known))  # fmt: skip
        stores = tuple(Store(f"o_{n}", e, AXES) for n, (e, _) in known.items())
        program = Program("forward", buffers, (Kernel("fns", "pointwise", Walk(1, 1), (),
                                                      stores=stores),))  # fmt: skip
        source = emit(program, "triton")
        found = load(source.digest, source.text).forward(x, y)
        for (name, (_, exact)), got in zip(known.items(), found, strict=True):
            # gelu's 1 + erf cancels far below zero, there as here: measured by its argument.
            scale = torch.maximum(exact.abs(), x.double().abs()) if name == "gelu" else exact.abs()
            error = ((got.double() - exact).abs() / scale.clamp(min=1e-300)).max().item()
            print(json.dumps({"cell": f"{name}-{str(dtype)[6:]}", "error": error}))


if __name__ == "__main__":
    main()
