"""Errors of a case at its full size, against the float64 oracle on a corner of it.

The corner is the first batch, the first tokens and the first heads. y there depends on nothing
outside; nor do gradients, when dY is zero outside. So the kernels that run are those that are
timed, and the oracle, quadratic in T, stays small.

Non-goals: no tolerance; the tests have those.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Shape
from benchmarks.cases_gpu import FIELDS, GpuCase, op_of
from benchmarks.peers import Inputs

#: Tokens and heads of the corner; a mask per channel takes N times the memory.
TOKENS, CHANNEL_TOKENS, HEADS = 1024, 256, 4


def corner(case: GpuCase) -> Shape:
    """The sizes that the oracle sees: whole groups of heads, N and P unchanged."""
    s = case.shape
    per_group = s.H // s.G
    heads = min(s.H, HEADS)
    heads -= heads % per_group if heads > per_group else 0
    tokens = min(s.T, CHANNEL_TOKENS if case.kind == "gla" else TOKENS)
    return Shape(1, tokens, heads, s.P, s.N, max(heads // per_group, 1))


def cut(x: Tensor, axes: str, small: Shape) -> Tensor:
    """The corner of a tensor with `axes`."""
    for dim, axis in enumerate(axes):
        x = x.narrow(dim, 0, getattr(small, axis))
    return x


def relative(got: Tensor, exact: Tensor) -> float:
    """Root mean square of the error over that of the exact values."""
    return float((got.detach().double() - exact).norm() / exact.norm().clamp_min(1e-300))


def _small(case: GpuCase, inputs: Inputs, small: Shape) -> Inputs:
    """The corner of the inputs in float64, leaves of their own."""
    fields = FIELDS[case.kind]
    return {f.name: cut(inputs[f.name].detach(), f.axes, small).double().requires_grad_(f.grad)
            for f in fields}  # fmt: skip


def exact_y(case: GpuCase, inputs: Inputs) -> Tensor:
    """The oracle's y on the corner, [1, T, H, P] of `corner`."""
    with torch.no_grad():
        return _reference(case, _small(case, inputs, corner(case)))


def _reference(case: GpuCase, small: Inputs) -> Tensor:
    y: Tensor = op_of(case.kind).reference(**small)
    return y


def y_error(case: GpuCase, y: Tensor, exact: Tensor) -> float:
    """Of one side's y [B, T, H, P]. NaN where any of it, in the corner or not, is not finite."""
    if not bool(torch.isfinite(y).all()):
        return float("nan")
    return relative(cut(y.detach(), "BTHP", corner(case)), exact)


def smac_error(case: GpuCase, inputs: Inputs, mode: str) -> float:
    """SMAC's worst relative error: of y, and with a backward of y and each gradient."""
    if case.kind == "step":
        return _step_error(case, inputs)
    op = op_of(case.kind)
    if mode == "forward":
        with torch.no_grad():
            return y_error(case, op(**inputs), exact_y(case, inputs))
    small, double = corner(case), _small(case, inputs, corner(case))
    y, exact = op(**inputs), _reference(case, double)
    dy = torch.zeros_like(y)
    cut(dy, "BTHP", small).normal_()
    graded = [f for f in FIELDS[case.kind] if f.grad]
    got = torch.autograd.grad(y, [inputs[f.name] for f in graded], dy)
    due = torch.autograd.grad(exact, [double[f.name] for f in graded],
                              cut(dy, "BTHP", small).double())  # fmt: skip
    errors = [y_error(case, y, exact.detach())]
    errors += [relative(cut(a, f.axes, small), b) for f, a, b in zip(graded, got, due, strict=True)]
    return max(errors, key=lambda e: (e != e, e))


def _step_error(case: GpuCase, inputs: Inputs) -> float:
    """One token from a random state."""
    op: Any = op_of("step")
    s, small = case.shape, corner(case)
    state = torch.randn(s.B, s.H, s.N, s.P, device=inputs["x"].device)
    own = state.clone()
    y, _ = op.step(own, **inputs, out_state=own)  # in place, as it is timed
    token = {f.name: x.unsqueeze(1) if f.axes.startswith("B") else x
             for f, x in zip(FIELDS["step"], _small(case, inputs, small).values(), strict=True)}
    exact = op.reference(**token, initial_state=cut(state, "BHNP", small).double())
    return y_error(case, y.unsqueeze(1), exact)
