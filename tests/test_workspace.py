"""The workspace that a plan names is what the wrapper allocates, on tensors without memory.

Non-goals: what tensors hold; what results themselves take.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from smac import load
from smac.codegen import emit
from smac.codegen.triton_wrapper import arguments
from smac.ir import Program
from smac.lower import backward
from smac.plan import make
from smac.plan.tokens import SCRATCH
from smac.runtime.module import load as module_of


class Kernel:
    """Stands where a kernel stood; notes how many programs each launch has."""

    def __init__(self) -> None:
        self.grids: list[int] = []

    def __getitem__(self, grid: tuple[int]) -> Any:
        self.grids.append(*grid)
        return lambda *args, **options: None


class Made(TorchFunctionMode):
    """Bytes of each storage that a call of torch answers."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[int, int] = {}
        self.held: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.held.append(found)
            storage = found.untyped_storage()
            self.bytes.setdefault(storage._cdata, storage.nbytes())
        return found


def run(p: Program, sizes: dict[str, int]) -> tuple[int, dict[str, Kernel]]:
    """Bytes that `p` allocates beside its arguments and results, and its kernels by name."""
    source = emit(p, "triton", "ieee")
    function = getattr(module_of(source.digest, source.text), p.name)
    kernels = {n: Kernel() for n, f in function.__globals__.items() if hasattr(f, "warmup")}
    given = [torch.empty([sizes[a] for a in b.axes], device="meta",
                         dtype=torch.int32 if b.dtype == "int" else torch.bfloat16)
             for b in arguments(p)]  # fmt: skip
    with Made() as made:
        results = FunctionType(function.__code__, {**function.__globals__, **kernels})(*given)
    returned = {x.untyped_storage()._cdata for x in results}
    return sum(n for at, n in made.bytes.items() if at not in returned), kernels


def planned(spec: str, sizes: dict[str, int]) -> tuple[int, Program, dict[str, int]]:
    """The linear order's backward: workspace, program, all sizes."""
    plan = make(load(spec), sizes=sizes, dtype="bfloat16", device="h100", target="triton",
                order="linear", backward=True)  # fmt: skip
    return plan.chosen.workspace, backward(plan), dict(plan.request.sizes)


@pytest.mark.parametrize("sizes", [{"B": 2, "T": 1024, "N": 64, "P": 64},
                                   {"B": 512, "H": 64, "T": 64, "N": 16, "P": 16}])  # fmt: skip
@pytest.mark.parametrize("spec", ["ssd", "gla", "retnet", "linear_attention", "mamba3", "rwkv6",
                                  "cosformer", "hydra", "low_rank"])  # fmt: skip
def test_a_plan_names_what_a_backward_of_tokens_allocates(spec: str, sizes: dict[str, int]) -> None:
    workspace, program, whole = planned(spec, sizes)
    allocated, _ = run(program, whole)
    assert 0.85 * allocated <= workspace <= 1.15 * allocated


@pytest.mark.parametrize(("n", "turns"), [(16, 64), (512, 2048)])
def test_scratch_is_bounded_and_programs_take_turns(n: int, turns: int) -> None:
    _, program, whole = planned("ssd", {"B": 2**13, "H": 64, "G": 1, "T": 1, "N": n, "P": 64})
    _, kernels = run(program, whole)
    found = kernels["backward_grad_mask_lane"].grids
    assert len(found) == turns
    assert sum(found) == 2**13 * 64 * 4
    assert max(found) * 512 * n == SCRATCH
