"""Derived gradients against finite differences, in float64, for every spec and order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from drawn import BY_FFT, CHUNKED, SPECS, STATEFUL, draw, floats
from torch import Tensor

import smac
from smac.runtime.state import State

ORDERS = [(name, order) for name in SPECS for order in ("linear", "chunked", "quadratic")
          if name in CHUNKED or order == "quadratic"
          or (name in BY_FFT and order == "linear")]  # fmt: skip
#: Fewer than 60 numbers in all, so that every entry of the Jacobian is checked.
TINY = {"B": 1, "T": 3, "H": 1, "G": 1, "N": 1, "P": 1}


def compiled(name: str, order: str) -> smac.Op:
    """The op, with chunks that a short sequence crosses."""
    return smac.compile(name, target="torch", order=order, chunk=None if order == "linear" else 2)


def function(op: smac.Op, inputs: dict[str, Tensor]) -> Callable[..., Tensor]:
    """The op as a function of its float inputs alone."""
    names = [n for n, x in inputs.items() if x.is_floating_point()]
    return lambda *xs: op(**{**inputs, **dict(zip(names, xs, strict=True))})


@pytest.mark.parametrize(("name", "order"), ORDERS)
def test_gradients(name: str, order: str) -> None:
    op = compiled(name, order)
    inputs = draw(op.spec, B=1, T=5, H=2, G=1, N=2, P=2)
    assert torch.autograd.gradcheck(function(op, inputs), floats(inputs), fast_mode=True)


@pytest.mark.parametrize(("name", "order"), ORDERS)
def test_every_entry_of_the_jacobian(name: str, order: str) -> None:
    op = compiled(name, order)
    inputs = draw(op.spec, **TINY)
    assert sum(x.numel() for x in floats(inputs)) <= 60
    assert torch.autograd.gradcheck(function(op, inputs), floats(inputs))


@pytest.mark.parametrize("order", ["linear", "chunked"])
@pytest.mark.parametrize("name", STATEFUL)
def test_gradients_of_states(name: str, order: str) -> None:
    op = compiled(name, order)
    inputs = draw(op.spec, B=1, T=5, H=2, G=1, N=2, P=2)
    names = [n for n, x in inputs.items() if x.is_floating_point()]
    _, start = op(**draw(op.spec, B=1, T=3, H=2, G=1, N=2, P=2, seed=1, grad=False),
                  return_state=True)  # fmt: skip
    carried = [x.detach().requires_grad_() for x in (start.S, start.z) if x is not None]

    def run(*xs: Tensor) -> tuple[Tensor, ...]:
        n = len(names)
        state = State(xs[n], xs[n + 1] if len(xs) > n + 1 else None, start.last, None,
                      start.pos)  # fmt: skip
        y, new = op(**{**inputs, **dict(zip(names, xs[:n], strict=True))}, initial_state=state,
                    return_state=True)  # fmt: skip
        return (y, new.S) if new.z is None else (y, new.S, new.z)

    assert torch.autograd.gradcheck(run, [*floats(inputs), *carried], fast_mode=True)


@pytest.mark.parametrize(("name", "order"), ORDERS)
def test_double_backward(name: str, order: str) -> None:
    op = compiled(name, order)
    inputs = draw(op.spec, **TINY)
    assert torch.autograd.gradgradcheck(function(op, inputs), floats(inputs), fast_mode=True)


def test_gradcheck_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    from smac.runtime.launch import Launcher

    right = Launcher.backward

    def wrong(self: Launcher, *args: object) -> tuple[Tensor | None, ...]:
        first, *rest = right(self, *args)  # type: ignore[arg-type]
        return (None if first is None else 1.01 * first, *rest)

    monkeypatch.setattr(Launcher, "backward", wrong)
    op = compiled("ssd", "chunked")
    inputs = draw(op.spec, **TINY)
    with pytest.raises(RuntimeError, match="numerical"):
        torch.autograd.gradcheck(function(op, inputs), floats(inputs), fast_mode=True)


def test_double_backward_on_triton_is_refused_only_when_used() -> None:
    op = compiled("retnet", "chunked")
    inputs = draw(op.spec)
    y = op(**inputs)
    (launcher,) = op._launchers.values()
    launcher.target = "triton"  # what runs is torch; the guard looks at the name
    once = torch.autograd.grad(y.square().sum(), floats(inputs), create_graph=True)
    due = torch.autograd.grad(op.reference(**inputs).square().sum(), floats(inputs))
    for a, b in zip(once, due, strict=True):
        assert torch.allclose(a, b)
    with pytest.raises(smac.LaunchError) as e:
        torch.autograd.grad(once[0].sum(), floats(inputs))
    assert str(e.value) == ("retnet: double backward is not available on target 'triton'; "
                            "use target='torch'")  # fmt: skip
