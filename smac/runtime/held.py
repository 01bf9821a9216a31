"""Is a result that of the op? Tensors held to those of the torch target in float64.

Wide tolerances: what is looked for is code that is wrong, which is off by its own size, not digits
that are lost (`smac.check` counts those).

Non-goals: drawing inputs (draws.py), running anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

#: Root-mean-square error relative to that of the values, by operand type and precision.
TOLERANCE = {"float64": 1e-8, "float32": 1e-3, "tf32": 2e-2, "float16": 2e-2, "bfloat16": 5e-2}
#: Gradients come of longer chains of roundings.
GRADIENTS = 2.0
#: What a plain computation in the same types loses is let pass this many times: sums that cancel
#: lose digits by any kernel.
SLACK = 4.0
#: Fewer numbers than this may cancel, and are measured by the largest of their peers too.
FEW = 64


def tolerance(dtype: str, precision: str, gradients: bool) -> float:
    """The error that is let pass."""
    name = "tf32" if (dtype, precision) == ("float32", "tf32") else dtype
    return TOLERANCE[name] * (GRADIENTS if gradients else 1.0)


def worst(names: Sequence[str], got: Sequence[Tensor | None], exact: Sequence[Tensor | None],
          limit: float, losses: Mapping[str, float] | None = None,
          ) -> tuple[str, float] | None:  # fmt: skip
    """The first tensor that is off by more than `limit`, and than `SLACK` times what `losses` says
    of any computation in these types, and its error; None where all are right.

    Where the exact value is beyond the type of the result nothing is asked of it."""
    scales = [_rms(x.double()) for x in exact if x is not None and x.numel()]
    largest = max((s for s in scales if s < float("inf")), default=0.0)
    for name, a, b in zip(names, got, exact, strict=True):
        if a is None or b is None or not a.numel():
            continue
        error = _error(a, b, largest)
        if not error <= max(limit, SLACK * (losses or {}).get(name, 0.0)):
            return name, error
    return None


def relative(got: Tensor, exact: Tensor) -> float:
    """The root mean square of the error, relative to that of the values."""
    return _error(got, exact, 0.0)


def _error(got: Tensor, exact: Tensor, largest: float) -> float:
    if not got.dtype.is_floating_point:
        return 0.0 if torch.equal(got.long(), exact.long().to(got.device)) else float("inf")
    b = exact.double().to(got.device)
    fits = b.abs() < torch.finfo(got.dtype).max / 2
    a, b = got.double()[fits], b[fits]
    scale = max(_rms(b), largest if b.numel() < FEW else 0.0)
    return _rms(a - b) / scale if scale else _rms(a)


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt()) if x.numel() else 0.0
