"""A mask family of your own, defined outside SMAC: a decay that oscillates.

L[t,s] = γ^(t−s) cos(ω(t−s)) for t ≥ s, as xPos has it. The entry is enough for the quadratic order.
The lanes are a law more: by cos(a−b) = cos a cos b + sin a sin b the mask has rank 2, and so the
linear and the chunked order hold as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

import smac
from smac.expr import S_POS, T_POS, Expr, Index, Num, call
from smac.masks import Lane, Mask, register
from smac.signatures import Param


@register("ripple", (Param("gamma", allows=()), Param("omega", allows=())))
@dataclass(frozen=True)
class Ripple(Mask):
    gamma: Expr  # > 0
    omega: Expr  # radians a token

    def entry(self) -> Expr:
        lag = call("sub", T_POS, S_POS)
        fade = call("exp", call("mul", lag, call("log", self.gamma)))
        wave = call("cos", call("mul", lag, self.omega))
        return call("where", call("ge", T_POS, S_POS), call("mul", fade, wave), Num(0))

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


def exact(*inputs: torch.Tensor) -> torch.Tensor:
    """The same in float64 with the whole of L, written by hand: SMAC's oracle knows no ripple."""
    q, k, v, gamma, omega = (x.double() for x in inputs)
    lag = torch.arange(q.shape[1])[:, None] - torch.arange(q.shape[1])
    wave = torch.cos(omega[:, None, None] * lag)
    mask = torch.where(lag >= 0, gamma[:, None, None] ** lag * wave, 0)
    return torch.einsum("hts,bthn,bshn,bshp->bthp", mask, q, k, v) / q.shape[3] ** 0.5


def main() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 300, 2, 16)
    inputs = (q, k, v, torch.tensor([0.9, 0.99]), torch.tensor([0.3, 1.0]))
    for order in ("quadratic", "chunked", "linear"):
        leaves = [x.clone().requires_grad_() for x in inputs]
        y = smac.compile(SPEC, order=order)(*leaves)
        y.sum().backward()
        error = ((y - exact(*inputs)).norm() / y.norm()).item()
        print(f"{order:10} relative error {error:.1e}, d omega {leaves[-1].grad.tolist()}")
        assert error < 1e-5


if __name__ == "__main__":
    main()
