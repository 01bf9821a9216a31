"""Where tensors live: which target runs them, and which row of the planner's device table.

Non-goals: no rates (plan/devices.py has the table). No silent fallback: what cannot run raises.
"""

from __future__ import annotations

import contextlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch

from smac.errors import LaunchError, PlanError
from smac.plan.calibrated import name_for
from smac.plan.devices import device_row

#: GPUs that the planner has rates of, by a piece of the name that CUDA gives them.
_GPUS = (("H200", "h200"), ("H100", "h100"), ("A100", "a100"))


@cache
def _name_of_gpu(index: int) -> str:
    return torch.cuda.get_device_name(index)


@cache
def _name_of_cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def machine(device: torch.device) -> str:
    """What rates depend on: the GPU by name; the CPU by name and torch's threads."""
    if device.type == "cuda" and torch.cuda.is_available():
        return _name_of_gpu(torch.cuda.current_device() if device.index is None else device.index)
    return f"{_name_of_cpu()}, {torch.get_num_threads()} threads"


def shipped_row(device: torch.device) -> str:
    """The planner's name for `device`: "cpu", "h100", "h200", "a100", else "cuda"."""
    if device.type != "cuda":
        return "cpu"
    return next((row for piece, row in _GPUS if piece in machine(device)), "cuda")


def row(device: torch.device) -> str:
    """As `shipped_row`, or this machine's calibrated row of it: "cpu*", "h100*", …"""
    return name_for(shipped_row(device), machine(device))


def capturing() -> bool:
    """Whether launches go into a CUDA graph, which repeats them as they were."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


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
    if asked != "auto":
        return asked
    return "torch" if device_row(row_name).kind == "cpu" else "triton"


def dtype_named(name: str | torch.dtype) -> str:
    """ "float32" for "float32" or torch.float32; PlanError for what is no float type here."""
    text = str(name).removeprefix("torch.")
    if text not in ("float16", "bfloat16", "float32", "float64"):
        raise PlanError(
            f"dtype: found {text!r}; expected one of float16, bfloat16, float32, float64"
        )
    return text


def versions() -> dict[str, str]:
    """Of what compiles and runs kernels."""

    def of(package: str) -> str:
        with contextlib.suppress(PackageNotFoundError):
            return version(package)
        return ""

    return {"torch": torch.__version__, "triton": of("triton")}


def device_name(device: torch.device) -> str:
    """The GPU's name; of a CPU, its kind and how many threads torch has."""
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    return f"{device.type} {os.uname().machine}, {torch.get_num_threads()} threads"
