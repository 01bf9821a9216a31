"""Where tensors live: which target runs them, and which row of the planner's device table.

Non-goals: no rates (plan/cost.py has the table). No silent fallback: what cannot run raises.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch

from smac.errors import LaunchError, PlanError

#: GPUs that the planner has rates of, by a piece of the name that CUDA gives them.
_GPUS = (("H200", "h200"), ("H100", "h100"), ("A100", "a100"))


@cache
def _row_of_gpu(index: int) -> str:
    name = torch.cuda.get_device_name(index)
    return next((row for piece, row in _GPUS if piece in name), "cuda")


def row(device: torch.device) -> str:
    """The planner's name for `device`: "cpu", "h100", "h200", "a100", else "cuda"."""
    if device.type == "cuda" and torch.cuda.is_available():
        return _row_of_gpu(torch.cuda.current_device() if device.index is None else device.index)
    return "cuda" if device.type == "cuda" else "cpu"


def named(device: str | torch.device | None) -> str:
    """The row for what `op.plan(device=…)` was given; None is this machine's own device."""
    if isinstance(device, torch.device):
        return row(device)
    if device is None:
        return row(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return row(torch.device(device)) if device.split(":")[0] in ("cuda", "cpu") else device


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def target_for(device: torch.device, asked: str) -> str:
    """The target that runs tensors of `device` when the user asked for `asked`.

    "auto" is triton on CUDA and torch elsewhere. LaunchError where triton is due but missing, and
    where its kernels cannot reach the tensors.
    """
    if asked == "auto":
        asked = "triton" if device.type == "cuda" else "torch"
    if asked == "triton" and not _has_triton():
        raise LaunchError(
            f"tensors on {device}: target 'triton' is due, but triton is not installed; "
            "install triton, or compile with target='torch'"
        )
    if asked == "triton" and device.type != "cuda" and not interpreted():
        raise LaunchError(
            f"tensors on {device}: target 'triton' runs on CUDA tensors; move them, compile with "
            "target='torch', or set TRITON_INTERPRET=1 before triton is imported"
        )
    return asked


def interpreted() -> bool:
    """Whether triton's interpreter was asked for, which runs kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


def target_on(row_name: str, asked: str) -> str:
    """As `target_for`, for a row of the device table."""
    return ("torch" if row_name == "cpu" else "triton") if asked == "auto" else asked


def dtype_named(name: str | torch.dtype) -> str:
    """ "float32" for "float32" or torch.float32; PlanError for what is no float type here."""
    text = str(name).removeprefix("torch.")
    if text not in ("float16", "bfloat16", "float32", "float64"):
        raise PlanError(
            f"dtype: found {text!r}; expected one of float16, bfloat16, float32, float64"
        )
    return text
