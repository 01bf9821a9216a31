"""Tapes of interpreted programs, played on other tensors of the same kind: a child process.

Prints one JSON line a case: the steps of its tapes, why a tape could not be, and how many values,
states and gradients differ in a bit from what the functions give when called as they are written.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import cells_triton as c  # switches the interpreter on
import torch
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from smac.runtime import player
from smac.runtime.direct import Bound, Direct
from smac.runtime.tape import Tape

CASES = (
    ("ssd", "chunked", {"state": True}), ("multiscale", "chunks", {"H": 1}),
    ("packed_ssd", "quadratic", {"packed": True, "H": 1}),
    ("toeplitz", "quadratic", {"H": 2, "W": 1030}),  # lags enough to be laid side by side
    ("retnet", "linear", {"H": 1, "T": 5}), ("xpos", "chunked", {"state": True, "H": 1}),
)  # fmt: skip


class Interpreted(Direct):
    """Starts interpreted kernels on bare pointers, as compiled ones are."""

    def __init__(self) -> None:
        pass

    def kernels(self, names: Mapping[str, Any]) -> dict[str, Any]:
        """Interpreted functions."""
        return {n: x for n, x in names.items() if isinstance(x, InterpretedFunction)}

    def watched(self) -> bool:
        """By nobody."""
        return False

    def stream(self, index: int) -> int:
        """Nothing that a kernel here reads."""
        return 7

    def bind(self, kernel: Any, compiled: Any, grid: Sequence[int],
             values: Sequence[Any]) -> Bound | None:  # fmt: skip
        """A launch on values whose pointers are numbers."""
        kinds = [(x.shape, x.stride(), x.dtype) if isinstance(x, Tensor) else None for x in values]

        def launch(*args: Any) -> None:
            assert args[:4] == (0, 0, 0, 7)
            given = [x if kind is None else at(x, *kind)
                     for x, kind in zip(args[4:], kinds, strict=True)]  # fmt: skip
            kernel[grid](*given)

        return launch, (0, 0, 0, 0)


def at(pointer: int, shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory at `pointer` as a tensor."""
    if 0 in shape:
        return torch.empty_strided(shape, stride, dtype=dtype)
    last = sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    held = (ctypes.c_char * ((last + 1) * dtype.itemsize)).from_address(pointer)
    return torch.frombuffer(held, dtype=dtype).as_strided(shape, stride)


def calls(spec: str, order: str, state: bool = False, packed: bool = False,
          **sizes: int) -> list[Tensor]:  # fmt: skip
    """Values, states and gradients of three calls: one tensor twice where two inputs are of one
    shape, then others of the same strides, then others whose last axis is no longer contiguous."""
    op = c.compiled(spec, order)
    given = {**c.SIZES, "T": 19, **sizes}
    given.setdefault("W", given["T"])
    inputs = c.draw(op, given, False)
    more: dict[str, Any] = {}
    if packed:
        more = {"cu_seqlens": torch.tensor((0, 10, 10, given["T"]))}
    found: list[Tensor] = []
    for n in range(3):
        x = {k: v if "ids" in k else v * (1 - n / 8) for k, v in inputs.items()}
        if n == 0:
            first: dict[Any, Tensor] = {}
            x = {k: first.setdefault((v.shape, v.dtype, bool((v <= 0).all())), v)
                 for k, v in x.items()}  # fmt: skip
        if n == 2:
            x = {k: torch.stack([v, v], -1)[..., 1] for k, v in x.items()}
        leaf = {k: v.detach().requires_grad_() for k, v in x.items() if v.is_floating_point()}
        if spec == "xpos":  # each call further on: a position is no part of a tape
            empty = op.init_state(dtype=torch.float64, **{a: given[a] for a in "BHNP"})
            more = {"initial_state": dataclasses.replace(empty, S=empty.S + 0.1, pos=7 * n)}
        made = op(**(x | leaf), return_state=state, **more)
        y, s = made if state else (made, None)
        outs = [y, *((s.S,) if s is not None else ())]
        torch.manual_seed(n)
        found += outs
        found += torch.autograd.grad(outs, list(leaf.values()), [torch.randn_like(o) for o in outs])
    return found


def main() -> None:
    """Every case."""
    torch.set_num_threads(1)
    players: list[player.Player] = []
    real = player.player

    def played(function: Any) -> Any:
        players.append(player.Player(function, Interpreted()))
        return players[-1]

    from smac.runtime import launch

    for spec, order, options in CASES:
        launch.player = real
        due = calls(spec, order, **options)
        players.clear()
        launch.player = played
        found = calls(spec, order, **options)
        tapes = [t for p in players for t in p._tapes.values() if isinstance(t, Tape)]
        wrong = sum(not torch.equal(a, b) for a, b in zip(found, due, strict=True))
        print(json.dumps({
            "case": f"{spec}-{order}", "tapes": [len(p._tapes) for p in players],
            "not": [w for p in players for w in p.why_not], "wrong": wrong, "held": len(due),
            "steps": sum(len(t.steps) for t in tapes),
            "scratch": sum(len(t.offsets) for t in tapes),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
