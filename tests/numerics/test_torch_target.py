"""The torch target against the oracle in float64: values, gradients and states to 1e-10."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from drawn import BY_FFT, SPECS, close, draw, floats
from drawn import CHUNKED as SHIPPED_CHUNKED
from drawn import STATEFUL as SHIPPED_STATEFUL
from specs_torch import ALL, CASES, STATEFUL
from torch import Tensor

import smac
from smac.testing.inputs import as_tuple

CHUNK = 8
LENGTHS = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3)
SHIPPED = [(n, o) for n in SPECS for o in ALL if n in SHIPPED_CHUNKED or o == "quadratic"
           or (n in BY_FFT and o == "linear")]  # fmt: skip
MADE = [(n, o) for n, case in CASES.items() for o in case.orders]


@cache
def compiled(text: str, order: str) -> smac.Op:
    return smac.compile(text, target="torch", order=order,
                        chunk=None if order == "linear" else CHUNK)  # fmt: skip


def inputs_of(name: str, op: smac.Op, T: int) -> dict[str, Tensor]:
    """Inputs of a case; log decays hold −inf, −50, 0 and 0.3, wherever T has room."""
    case = CASES.get(name)
    both = {"W": max(2 * T - 1, 0)} if case and case.lags == "both" else {}
    sizes = {"B": 2, "E": 2, "H": 4, "G": 2, "F": 1, "N": 3, "P": 2} | both
    if op.spec.levels is not None:
        sizes.pop(op.spec.levels)  # as many as all lengths here have
    found = draw(op.spec, T=T, **sizes)
    g = torch.Generator().manual_seed(T)
    for n in case.bare if case else _log_decays(name):
        with torch.no_grad():
            x = found[n]
            dice = torch.rand(x.shape, generator=g)
            for i, value in enumerate((-math.inf, -50.0, 0.0, 0.3)):
                x[(dice >= 0.08 * i) & (dice < 0.08 * i + 0.08)] = value
    return found


def _log_decays(name: str) -> tuple[str, ...]:
    return ("g",) if name == "gla" else ()


def text_of(name: str) -> str:
    return CASES[name].toml(name) if name in CASES else name


def grads_close(found: object, due: object, inputs: dict[str, Tensor], *more: Tensor) -> None:
    """Gradients of random combinations of two results agree."""
    ys = [(a, b) for a, b in zip(found, due, strict=True) if b.requires_grad]  # type: ignore[call-overload]
    leaves = [*floats(inputs), *more]
    if not ys:
        return
    g = torch.Generator().manual_seed(5)
    weights = [torch.randn(b.shape, generator=g, dtype=b.dtype) for _, b in ys]
    mine, theirs = (torch.autograd.grad([y[i] for y in ys], leaves, weights, allow_unused=True)
                    for i in (0, 1))  # fmt: skip
    for a, b, x in zip(mine, theirs, leaves, strict=True):
        a, b = (torch.zeros_like(x) if z is None else z for z in (a, b))
        close(a, b)


@pytest.mark.parametrize(("name", "order"), [*SHIPPED, *MADE])
def test_values_and_gradients(name: str, order: str) -> None:
    op = compiled(text_of(name), order)
    for T in LENGTHS:
        inputs = inputs_of(name, op, T)
        found, due = as_tuple(op(**inputs)), as_tuple(op.reference(**inputs))
        for a, b in zip(found, due, strict=True):
            close(a, b)
        grads_close(found, due, inputs)


@pytest.mark.parametrize("order", ["chunked", "linear"])
@pytest.mark.parametrize("name", [*SHIPPED_STATEFUL, *STATEFUL])
def test_states(name: str, order: str) -> None:
    op = compiled(text_of(name), order)
    _, start = op.reference(**inputs_of(name, op, 5), return_state=True)
    S, z = (x if x is None else x.detach().requires_grad_() for x in (start.S, start.z))
    start = smac.State(S, z, start.last, None, start.pos)
    for T in LENGTHS:
        inputs = inputs_of(name, op, T)
        y, state = op(**inputs, initial_state=start, return_state=True)
        exact, due = op.reference(**inputs, initial_state=start, return_state=True)
        found, want = ([*as_tuple(out), *(x for x in (s.S, s.z) if x is not None)]
                       for out, s in ((y, state), (exact, due)))  # fmt: skip
        for a, b in zip(found, want, strict=True):
            close(a, b)
        if due.last is not None:
            assert torch.equal(state.last, due.last)
        grads_close(found, want, inputs, *(x for x in (S, z) if x is not None))
