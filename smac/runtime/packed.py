"""Packed sequences: does cu_seqlens fit a call?

Non-goals: what a plan makes of them (plan/packed.py). Values are looked at on the CPU alone: on a
GPU that would make the host wait.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from smac.errors import LaunchError


def count(op: str, cu_seqlens: object, sizes: Mapping[str, int], device: torch.device) -> int:
    """How many sequences `cu_seqlens` [n + 1] delimits, by its shape; LaunchError if it misfits."""
    at = f"{op}: cu_seqlens"
    due = "n + 1 integers, where each of n sequences starts along T, and T"
    if not isinstance(cu_seqlens, Tensor):
        raise LaunchError(f"{at}: expected a tensor of {due}; got {type(cu_seqlens).__name__}")
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise LaunchError(f"{at}: expected int32 or int64, got {cu_seqlens.dtype}")
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 2:
        raise LaunchError(f"{at}: expected {due}; got shape {tuple(cu_seqlens.shape)}")
    if cu_seqlens.device != device:
        raise LaunchError(f"{at}: expected device {device} (as the inputs), got "
                          f"{cu_seqlens.device}")  # fmt: skip
    if sizes["B"] != 1:
        raise LaunchError(f"{at}: expected B = 1, for sequences that lie behind one another along "
                          f"T; got B = {sizes['B']}")  # fmt: skip
    return cu_seqlens.shape[0] - 1


def check_values(op: str, cu_seqlens: Tensor, length: int) -> None:
    """LaunchError where the values are on the CPU and do not go from 0 to T without a step back."""
    if cu_seqlens.device.type != "cpu":
        return
    first, last = int(cu_seqlens[0]), int(cu_seqlens[-1])
    if first != 0 or last != length:
        raise LaunchError(f"{op}: cu_seqlens: expected to start with 0 and end with T = {length}, "
                          f"got {first} and {last}")  # fmt: skip
    back = (cu_seqlens.diff() < 0).nonzero()
    if len(back):
        i = int(back[0])
        raise LaunchError(f"{op}: cu_seqlens: expected entries that do not decrease, got "
                          f"{int(cu_seqlens[i])} then {int(cu_seqlens[i + 1])} at {i}")  # fmt: skip
