"""The autograd node of an op: forward is one derived program, backward another.

Non-goals: no derivation (lower/adjoint.py), no layouts (launch.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smac.errors import LaunchError

if TYPE_CHECKING:
    from smac.runtime.launch import Launcher


def differentiable(launcher: Launcher, needs: tuple[bool, ...],
                   tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:  # fmt: skip
    """Present inputs, then state buffers → outputs, then states, with the backward recorded for
    the tensors that need it."""
    # What torch.func's transforms need costs 10 µs a call, so that only they get it.
    node = _Transformed if torch._C._are_functorch_transforms_active() else Node
    made: tuple[Tensor, ...] = node.apply(launcher, needs, *tensors)
    return made


def _keep(ctx: Any, launcher: Launcher, needs: tuple[bool, ...], tensors: Sequence[Tensor],
          made: tuple[Tensor, ...]) -> None:  # fmt: skip
    """Keep the inputs; nothing that the forward computed is needed again."""
    ctx.launcher, ctx.needs = launcher, needs
    ctx.save_for_backward(*tensors)
    ctx.mark_non_differentiable(*[x for x in made if not x.is_floating_point()])


class Node(torch.autograd.Function):
    """`apply(launcher, needs, *tensors)`."""

    @staticmethod
    def forward(ctx: Any, launcher: Launcher, needs: tuple[bool, ...],
                *tensors: Tensor) -> tuple[Tensor, ...]:  # fmt: skip
        """Run the forward program."""
        made = launcher.forward(tensors)
        _keep(ctx, launcher, needs, tensors, made)
        return made

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Run the backward program; on torch, `create_graph` records its own operations."""
        launcher, saved, needs = ctx.launcher, ctx.saved_tensors, ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() and launcher.target != "torch":
            with torch.no_grad():
                found = launcher.backward(saved, cotangents, needs, ctx.needs)
            wanted = [g for g in found if g is not None]
            guarded = iter(_Once.apply(launcher.name, launcher.target, len(wanted), *wanted,
                                       *saved, *cotangents))  # fmt: skip
            return (None, None, *(None if g is None else next(guarded) for g in found))
        return (None, None, *launcher.backward(saved, cotangents, needs, ctx.needs))


class _Transformed(torch.autograd.Function):
    """The same, as `torch.func` wants it."""

    @staticmethod
    def forward(launcher: Launcher, needs: tuple[bool, ...],
                *tensors: Tensor) -> tuple[Tensor, ...]:  # fmt: skip
        """Run the forward program."""
        return launcher.forward(tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the inputs."""
        launcher, needs, *tensors = inputs
        _keep(ctx, launcher, needs, tensors, output)

    backward = Node.backward


class _Once(torch.autograd.Function):
    """Gradients that cannot be differentiated again, and say so when that is tried."""

    @staticmethod
    def forward(name: str, target: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The first `count` tensors; the others are what they depend on."""
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Only names are kept."""
        ctx.name, ctx.target = inputs[:2]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, ...]:
        """LaunchError."""
        raise LaunchError(f"{ctx.name}: double backward is not available on target "
                          f"'{ctx.target}'; use target='torch'")  # fmt: skip
