"""A mask of your own, outside SMAC: L[t,s] = γ^(t−s) cos(ω(t−s)) for t ≥ s, as xPos has it.

The entry is enough for the quadratic order; lanes, by cos(a−b) = cos a cos b + sin a sin b, give
rank 2, and with it the linear and the chunked order."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import smac
from smac.expr import S_POS, T_POS, Expr, Index, Num, call
from smac.masks import Lane, Mask, register
from smac.reference import define_mask
from smac.signatures import Param


@register("ripple", (Param("gamma", allows=()), Param("omega", allows=())))
@dataclass(frozen=True)
class Ripple(Mask):
    gamma: Expr  # > 0
    omega: Expr  # radians a token

    def entry(self) -> Expr:
        lag = call("sub", T_POS, S_POS)
        fade, angle = call("mul", lag, call("log", self.gamma)), call("mul", lag, self.omega)
        wave = call("mul", call("exp", fade), call("cos", angle))
        return call("where", call("ge", T_POS, S_POS), wave, Num(0))

    def lanes(self) -> tuple[Lane, ...]:
        waves = [call(f, call("mul", self.omega, Index("T"))) for f in ("cos", "sin")]
        return tuple(Lane(call("log", self.gamma), read=w, write=w) for w in waves)


SPEC = """
smac = 1
name = "ripple_attention"
[inputs]
q = "B T H N"
k = "B T H N"
v = "B T H P"
gamma = "H"
omega = "H"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q / sqrt(size(N))"
K = "k"
V = "v"
L = "ripple(gamma, omega)"
[output]
y = "Y"
"""


def ripple(t, s, gamma, omega) -> torch.Tensor:
    """The definition once more, on tensors, for the float64 oracle: away from the class above."""
    return torch.where(t >= s, gamma ** (t - s).clamp(min=0) * torch.cos(omega * (t - s)), 0)


def main() -> None:
    define_mask("ripple", ripple)
    torch.manual_seed(0)
    inputs = [*torch.randn(3, 1, 300, 2, 16), *torch.tensor([[0.9, 0.99], [0.3, 1]])]
    inputs[-1].requires_grad_()
    for order in ("quadratic", "chunked", "linear"):
        op = smac.compile(SPEC, order=order)
        y, exact = op(*inputs), op.reference(*inputs)
        (slope,) = torch.autograd.grad(y.sum(), inputs[-1:])
        error = ((y - exact).norm() / exact.norm()).item()
        print(f"{order:10} relative error {error:.1e}, d omega {slope}")
        assert error < 1e-5
    # In float64: the angle ω·t of a long sequence is too large for float32's digits.
    report = smac.check(SPEC, targets=["torch"], dtypes=["float64"], draw={"gamma": (0.5, 1)})
    print(report)
    assert report.ok


if __name__ == "__main__":
    main()
