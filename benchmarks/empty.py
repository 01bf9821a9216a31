"""An autograd.Function that launches empty kernels, and does nothing else: what calls are held to.

Non-goals: no clocks (calls.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Launch = Callable[[int, Tensor], None]


def launcher(device: str) -> Launch:
    """`launch(n, x)` starts n empty kernels as Triton's users do; on a CPU it does nothing."""
    if device == "cpu":
        return lambda count, x: None
    from benchmarks.kernel import nothing

    def launch(count: int, x: Tensor) -> None:
        for _ in range(count):
            nothing[(1,)](x)

    return launch


class Empty(torch.autograd.Function):
    """`apply(launch, counts, output, *inputs)`: an output as `output`, gradients as the inputs, and
    as many launches forward and backward as `counts` says."""

    @staticmethod
    def forward(ctx: Any, launch: Launch, counts: tuple[int, int], output: Tensor,
                *inputs: Tensor) -> Tensor:  # fmt: skip
        """Allocate, launch."""
        ctx.save_for_backward(*inputs)
        ctx.launch, ctx.count = launch, counts[1]
        launch(counts[0], inputs[0])
        return torch.empty_like(output)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        """Allocate, launch."""
        inputs = ctx.saved_tensors
        ctx.launch(ctx.count, inputs[0])
        return (None, None, None, *(torch.empty_like(x) for x in inputs))
