"""A mask that SMAC has never heard of, and its op on a target against the oracle, as a program.

L[t,s] = exp(−rate·(t² − s²)/64) for t ≥ s: memories age faster as time goes on. One lane, no lag
symbol. `python outside.py torch|triton` prints the largest error of values and gradients by order.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

import smac
from smac.expr import S_POS, T_POS, Expr, Index, Num, call
from smac.masks import Lane, Mask, register
from smac.reference import define_mask
from smac.signatures import Param

SPEC = """
smac = 1
name = "ageing"
[axes]
G = "group of H"
[inputs]
q = "B T G N"
k = "B T G N"
v = "B T H P"
rate = "H"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q"
K = "k"
V = "v"
L = "aging(rate)"
[output]
y = "Y * sigmoid(Y)"
"""


@register("aging", (Param("rate", allows=()),))
@dataclass(frozen=True)
class Aging(Mask):
    """exp(−rate·(t² − s²)/64) on and below the diagonal."""

    rate: Expr

    def entry(self) -> Expr:
        squares = call("sub", call("mul", T_POS, T_POS), call("mul", S_POS, S_POS))
        fade = call("exp", call("neg", call("mul", self.rate, call("div", squares, Num(64)))))
        return call("where", call("ge", T_POS, S_POS), fade, Num(0))

    def lanes(self) -> tuple[Lane, ...]:
        odd = call("sub", call("mul", Num(2), Index("T")), Num(1))  # k² − (k − 1)²
        return (Lane(call("neg", call("mul", self.rate, call("div", odd, Num(64))))),)


def aging(t: Tensor, s: Tensor, rate: Tensor) -> Tensor:
    """The definition again, for the oracle."""
    return torch.where(t >= s, torch.exp(-rate * (t**2 - s**2).clamp(min=0) / 64), 0)


def worst(target: str, order: str) -> float:
    """The largest relative error of values and gradients, in float64."""
    g = torch.Generator().manual_seed(0)
    shapes = (1, 37, 1, 5), (1, 37, 1, 5), (1, 37, 2, 3), (2,)
    inputs = [torch.rand(s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes]
    op = smac.compile(SPEC, target=target, order=order, chunk=None if order == "linear" else 16)
    found, due = op(*inputs), op.reference(*inputs)
    dy = torch.randn(due.shape, generator=g, dtype=torch.float64)
    pairs = [(found, due), *zip(torch.autograd.grad(found, inputs, dy),
                                torch.autograd.grad(due, inputs, dy), strict=True)]  # fmt: skip
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in pairs)


if __name__ == "__main__":
    define_mask("aging", aging)
    orders = ("quadratic", "chunked", "linear")
    print(json.dumps({order: worst(sys.argv[1], order) for order in orders}))
