"""A spec of ten lines becomes a differentiable op, checked against its float64 einsum."""

from __future__ import annotations

import torch

import smac

SPEC = """
smac = 1
name = "hello"
[inputs]
q     = "B T H N"
k     = "B T H N"
v     = "B T H P"
gamma = "H"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q"
K = "k"
V = "v"
L = "decay(gamma)"
[output]
y = "Y"
"""


def main() -> None:
    op = smac.compile(SPEC)
    print(op)
    print(op.plan(B=1, T=500, H=4, N=16, P=32, dtype="float32", device="cpu").explain())

    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 500, 4, 16)
    v = torch.randn(1, 500, 4, 32)
    gamma = torch.tensor([0.9, 0.95, 0.99, 1.0], requires_grad=True)

    y = op(q, k, v, gamma)
    exact = op.reference(q, k, v, gamma)
    error = ((y - exact).norm() / exact.norm()).item()
    y.square().mean().backward()
    print(f"\ny {tuple(y.shape)}, relative error against float64 {error:.1e}")
    print(f"gradient of gamma {gamma.grad.tolist()}")

    # The same spec, decoding: all but the last token at once, then that token from the state.
    with torch.no_grad():
        _, state = op(q[:, :-1], k[:, :-1], v[:, :-1], gamma, return_state=True)
        last, state = op.step(state, q=q[:, -1], k=k[:, -1], v=v[:, -1], gamma=gamma)
    print(f"last token by step: largest difference {(last - y[:, -1]).abs().max().item():.1e}")
    assert error < 1e-6
    assert torch.allclose(last, y[:, -1], rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    main()
