"""The chunked order of ssd in float32: errors at three lengths, and memory that T does not move."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from drawn import draw
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import smac
from smac.reference import recurrence
from smac.testing.inputs import as_tuple

SIZES = {"B": 1, "H": 4, "G": 1, "N": 16, "P": 16}


def chunked(**options: Any) -> smac.Op:
    return smac.compile("ssd", target="torch", order="chunked", **options)


@pytest.mark.parametrize("T", [64, 1024, 8192])
def test_float32_errs_as_little_at_every_length(T: int) -> None:
    op = chunked()
    inputs = draw(op.spec, T=T, grad=False, **SIZES)
    y = op(**{n: x.float() for n, x in inputs.items()})
    # a dense matrix of 8192² in float64 is more than this needs: the recurrence is an oracle too
    same = {n: x.float().double() for n, x in inputs.items()}
    exact, _ = recurrence(op.spec, same)
    assert isinstance(exact, Tensor)
    assert ((y - exact).square().mean() / exact.square().mean()).sqrt() <= 1e-6


@pytest.mark.parametrize(("order", "most"), [("linear", 1.3e-6), ("chunked", 5e-7)])
def test_a_decay_that_is_the_same_in_every_chunk_is_not_off_to_one_side(
    order: str, most: float
) -> None:
    """Token by token the sum itself is rounded at each: √T times an ulp is left (1.1e-6 here)."""
    op = smac.compile("retnet", target="torch", order=order)
    sizes = {"B": 1, "H": 4, "N": 4, "P": 4}
    inputs = {n: x.float() for n, x in draw(op.spec, T=8192, grad=False, **sizes).items()}
    inputs["gamma"] = 1 - 2.0 ** -torch.tensor([6.3, 9.1, 11.2, 12.8])
    exact, _ = recurrence(op.spec, {n: x.double() for n, x in inputs.items()})
    assert isinstance(exact, Tensor)
    error = (op(**inputs) - exact).square().mean((0, 1, 3)) / exact.square().mean((0, 1, 3))
    assert error.sqrt().max() <= most


class Peak(TorchDispatchMode):
    """Bytes of storages made inside and alive at once, at most; `known` ones do not count."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.known = {x.untyped_storage().data_ptr() for x in known}
        self.alive: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, Tensor):
                self._note(x.untyped_storage())
        return out

    def _note(self, storage: Any) -> None:
        key = storage.data_ptr()
        if storage.nbytes() and key not in self.alive and key not in self.known:
            self.alive[key] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, key, None)
            self.most = max(self.most, sum(self.alive.values()))


WIDE = {"B": 1, "H": 16, "G": 1, "N": 64, "P": 64}


def beyond(T: int, backward: bool = False) -> int:
    """Peak bytes of a call beside its inputs and results."""
    op = chunked(chunk=32)
    inputs = {n: x.detach().float() for n, x in draw(op.spec, T=T, **WIDE).items()}
    leaves = [x.requires_grad_(backward) for x in inputs.values()]
    dy = torch.ones_like(inputs["x"])
    with Peak([*leaves, dy]) as peak:
        y = op(**inputs)
        results = as_tuple(y)
        if backward:
            results = (*results, *torch.autograd.grad(y, leaves, dy))
    return peak.most - sum(x.untyped_storage().nbytes() for x in results)


def test_memory_of_a_forward_does_not_grow_with_t() -> None:
    assert 0 < beyond(4096) <= beyond(1024)


def test_memory_of_a_backward_grows_by_its_saved_states_alone() -> None:
    """Between passes only inputs are kept; a backward saves a state at each segment of the walk."""
    op = chunked(chunk=32)
    plan = op.plan(T=3072, device="cpu", dtype="float32", backward=True, **WIDE)
    state = 4 * WIDE["H"] * WIDE["N"] * WIDE["P"]
    assert plan.chosen.segment <= 512
    grown = beyond(3072, backward=True) - beyond(768, backward=True)
    assert grown <= state * (3072 - 768) / plan.chosen.segment + 4096


def test_the_counter_counts() -> None:
    with Peak([]) as peak:
        x = torch.zeros(1000)
        del x
        y = torch.ones(500) + torch.ones(500)
    assert 4000 <= peak.most <= 6000
    assert y.shape == (500,)


@pytest.mark.parametrize("order", ["chunked", "quadratic"])
def test_angles_of_a_million_keep_their_digits(order: str) -> None:
    """Angles are made in float64: at ωT = 10⁶ float32 has no fraction of a turn left."""
    text = str(smac.load("retnet")).replace('L = "decay(gamma)"',
                                            'L = "decay(gamma) * wave(40000.7)"')  # fmt: skip
    op = smac.compile(text, target="torch", order=order)
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 37, 2, 4, generator=g) for _ in range(3))
    inputs = {"q": q, "k": k, "v": v, "gamma": torch.tensor([0.9, 0.99])}
    exact = op.reference(**{n: x.double() for n, x in inputs.items()})
    assert (op(**inputs).double() - exact).norm() <= 1e-6 * exact.norm()
