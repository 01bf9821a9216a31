"""The two sides of the CPU benchmark on one set of inputs: SMAC's ssd and transformers' own scan.

Non-goals: no clocks, no tables; timing.py and memory.py measure, cpu.py prints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

Run = Callable[[], torch.Tensor]
#: What transformers' Mamba2Config takes unasked, and the chunks that its best is sought among.
DEFAULT_CHUNK, CHUNKS = 256, (16, 32, 64, 128, 256)
MODES = ("forward", "forward+backward")


class Shape(NamedTuple):
    """Sizes of one SSD layer: batch, tokens, heads, value channels, state channels, groups."""

    B: int
    T: int
    H: int
    P: int
    N: int
    G: int

    def __str__(self) -> str:
        return ",".join(str(size) for size in self)


@dataclass(frozen=True)
class Case:
    """Inputs of one layer in float32, all of them asking for gradients, and dY."""

    inputs: dict[str, torch.Tensor]
    dy: torch.Tensor

    @property
    def leaves(self) -> tuple[torch.Tensor, ...]:
        """The inputs in call order."""
        return tuple(self.inputs.values())


def case(shape: Shape, seed: int = 0) -> Case:
    """Random inputs as a fresh Mamba-2 layer has them: A in [−16, −1], steps of 0.001 to 0.1."""
    g = torch.Generator().manual_seed(seed)
    b, t, h, p, n, groups = shape
    step = torch.exp(torch.empty(h).uniform_(-6.9, -2.3, generator=g))
    inputs = {
        "x": torch.randn(b, t, h, p, generator=g),
        "dt": torch.randn(b, t, h, generator=g) * 0.5,
        "A": -torch.empty(h).uniform_(1, 16, generator=g),
        "B": torch.randn(b, t, groups, n, generator=g) * n**-0.5,
        "C": torch.randn(b, t, groups, n, generator=g),
        "D": torch.ones(h),
        "dt_bias": step + torch.log(-torch.expm1(-step)),
    }
    dy = torch.randn(b, t, h, p, generator=g)
    return Case({name: x.requires_grad_() for name, x in inputs.items()}, dy)


def smac_call(c: Case) -> Run:
    """SMAC's op, as `smac.compile("ssd")` gives it, with nothing overridden."""
    import smac

    op: Any = smac.compile("ssd")
    return lambda: op(**c.inputs)


def peer_call(c: Case, chunk: int) -> Run:
    """transformers' own scan in PyTorch, at chunk size `chunk`."""
    from transformers import logging
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    logging.set_verbosity_error()  # it is known here that the peer is its PyTorch path
    i = c.inputs
    return lambda: mamba2_chunk_scan(
        i["x"], i["dt"], i["A"], i["B"], i["C"], chunk_size=chunk, D=i["D"],
        dt_bias=i["dt_bias"], dt_softplus=True,
    )  # fmt: skip


def runner(c: Case, call: Run, mode: str) -> Callable[[], tuple[torch.Tensor, ...]]:
    """`call` as `mode` says: y alone and no graph, or y followed by every input's gradient."""

    def forward() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return (call(),)

    def both() -> tuple[torch.Tensor, ...]:
        y = call()
        return (y.detach(), *torch.autograd.grad(y, c.leaves, c.dy))

    return forward if mode == "forward" else both


def side(c: Case, name: str, mode: str) -> Callable[[], tuple[torch.Tensor, ...]]:
    """A runner by name: "smac", or "chunk 256" for transformers' scan at that chunk."""
    call = smac_call(c) if name == "smac" else peer_call(c, int(name.removeprefix("chunk ")))
    return runner(c, call, mode)
