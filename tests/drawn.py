"""Inputs for the runtime's tests: small, drawn so that decays shrink and outputs are finite."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

import smac
from smac.levels import levels_of
from smac.testing.inputs import recipe, values

SPECS = ("cosformer", "gamma_memory", "gla", "global_filter", "hydra", "linear_attention", "lion",
         "log_linear", "low_rank", "mamba3", "multiscale", "packed_ssd", "prefix_lm", "retnet",
         "rmt", "rwkv6", "semiseparable2", "ssd", "toeplitz", "window", "xpos")  # fmt: skip
#: Those with a chunked order, and those that keep a state between calls: nothing above the
#: diagonal, and no size(T). A state of those that are `COUNTED` says how many tokens came before.
CHUNKED = tuple(name for name in SPECS
                if name not in ("global_filter", "rmt", "toeplitz", "window"))  # fmt: skip
BY_FFT = ("global_filter", "toeplitz")
STATEFUL = tuple(name for name in CHUNKED if name not in (
    "cosformer", "hydra", "lion", "low_rank", "prefix_lm"))  # fmt: skip
COUNTED = ("gamma_memory", "log_linear", "xpos")
#: Levels of T that are drawn unless more are due: as many as 64 tokens have, states' and calls'.
LEVELS = 7
SIZES = {"B": 2, "T": 9, "H": 4, "G": 2, "N": 3, "P": 2}


@cache
def _recipe(text: str) -> Any:
    return recipe(smac.load(text))


def draw(spec: smac.Spec, *, seed: int = 0, dtype: torch.dtype = torch.float64,
         absent: tuple[str, ...] = (), grad: bool = True,
         **sizes: int) -> dict[str, Tensor]:  # fmt: skip
    """Inputs of `spec` by name, at SIZES unless told otherwise; floats are leaves of a graph."""
    lengths = SIZES | sizes
    lengths = {"S": lengths["T"], "W": lengths["T"]} | lengths
    if spec.levels is not None:
        lengths[spec.levels] = max(sizes.get(spec.levels, LEVELS), levels_of(lengths["T"]))
    g = torch.Generator().manual_seed(seed)
    kinds = _recipe(str(spec)).kinds
    made = {i.name: values(i, lengths, kinds[i.name], g) for i in spec.inputs}
    made = {n: x.to(dtype) if x.is_floating_point() else x for n, x in made.items()}
    return {n: x.requires_grad_(grad and x.is_floating_point()) for n, x in made.items()
            if n not in absent}  # fmt: skip


def floats(inputs: dict[str, Tensor]) -> list[Tensor]:
    """The inputs that take gradients."""
    return [x for x in inputs.values() if x.is_floating_point()]


def token(spec: smac.Spec, inputs: dict[str, Tensor], t: int) -> dict[str, Tensor]:
    """Inputs of token t, without their T axis."""
    axes = {i.name: i.axes for i in spec.inputs}
    return {n: x.select(axes[n].index("T"), t) if "T" in axes[n] else x for n, x in inputs.items()}


def span(spec: smac.Spec, inputs: dict[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    """Inputs of tokens start … stop − 1."""
    axes = {i.name: i.axes for i in spec.inputs}
    return {n: x.narrow(axes[n].index("T"), start, stop - start) if "T" in axes[n] else x
            for n, x in inputs.items()}  # fmt: skip


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    """Equal shapes, and values to `tolerance` of the largest."""
    assert a.shape == b.shape
    scale = max(b.abs().max().item(), 1.0) if b.numel() else 1.0
    assert torch.allclose(a, b.to(a.dtype), rtol=0, atol=tolerance * scale), (a - b).abs().max()
