"""op.refit: approx(…) fitted to tensors, one fit a head; nothing stale, no gradient that is not."""

from __future__ import annotations

import pickle

import pytest
import torch
from drawn import draw, span, token
from torch import Tensor
from under import under

import smac
from smac.errors import LaunchError, PlanError

POWER = 'approx(entry("where(t >= s, (1 + t - s) ** -0.5, 0)"), tol = 1e-3)'
GAUSS = POWER.replace("(1 + t - s) ** -0.5", "exp(-((t - s) / 16) ** 2)")
BY_HEAD = ', h = "H W"'


def spec(mask: str, more: str = "", extra: str = "") -> smac.Spec:
    sizes = "T = 64, H = 4, N = 8, P = 8"
    return under(mask, more, name="lag", sizes=sizes, extra=extra)


def lags(W: int = 64, dtype: torch.dtype = torch.float64) -> Tensor:
    """h [4, W]: three power laws, and a head that turns."""
    n = torch.arange(W, dtype=torch.float64)
    rows = [*((1 + n) ** -p for p in (0.3, 0.5, 1.0)), torch.cos(n / 5) * 0.95**n]
    return torch.stack(rows).to(dtype)


def within(y: Tensor, exact: Tensor, inputs: dict[str, Tensor], error: float) -> bool:
    """‖y − exact‖ ≤ error ‖q‖‖k‖‖v‖, in each head."""
    off, q, k, v = (x.double().transpose(1, 2).flatten(2).norm(dim=-1)
                    for x in (y - exact, *(inputs[n] for n in "qkv")))  # fmt: skip
    return bool((off <= error * q * k * v).all())


@pytest.mark.parametrize("order", ["quadratic", "chunked", "linear"])
def test_each_head_has_its_own_fit(order: str) -> None:
    op = smac.compile(spec("approx(toeplitz(h), tol = 1e-5)", BY_HEAD), target="torch", order=order)
    h = lags()
    fitted = op.refit(h=h)
    inputs = draw(op.spec, T=50, grad=False, absent=("h",))
    y, exact = fitted(**inputs), fitted.reference(**inputs)
    torch.testing.assert_close(exact, op.reference(**inputs, h=h))
    (made,) = fitted.plan(device="cpu").fits
    assert made.error <= 1e-5
    assert within(y, exact, inputs, made.error)
    assert torch.equal(fitted(**inputs, h=h), y)
    assert "the worst of 4 heads" in fitted.plan(device="cpu").explain()


def test_lags_without_heads_become_numbers() -> None:
    op = smac.compile(spec("approx(toeplitz(h)) * document(ids)", ', h = "W", ids = "B T"'))
    fitted = op.refit(h=lags()[1])
    assert [i.name for i in fitted.spec.inputs] == ["q", "k", "v", "ids"]
    inputs = draw(op.spec, T=64, grad=False, absent=("h",))
    y, exact = fitted(**inputs), fitted.reference(**inputs)
    assert within(y, exact, inputs, fitted.plan(device="cpu").fits[0].error)


def test_a_formula_of_tensors_by_way_of_a_let() -> None:
    """Powers p, one a head, through a let; p stays an input where something else reads it."""
    made = spec('p * approx(entry("where(t >= s, (1 + t - s) ** rate, 0)"))', ', p = "H"',
                '[let]\nrate = "-p"')  # fmt: skip
    op = smac.compile(made)
    p = torch.tensor([0.3, 0.5, 0.8, 1.2], dtype=torch.float64)
    fitted = op.refit(p=p)
    assert "p" in [i.name for i in fitted.spec.inputs]
    inputs = draw(spec(POWER), T=30, grad=False)
    y, exact = fitted(**inputs, p=p), fitted.reference(**inputs)
    assert within(y, exact, inputs, 1.2 * fitted.plan(device="cpu").fits[0].error)


def test_a_spike_beside_a_decay_and_a_pole_that_alternates() -> None:
    """Lag 0 apart, and signs that change at every token: heads of different kinds in one op."""
    op = smac.compile(spec("approx(toeplitz(h), tol = 1e-6)", BY_HEAD), order="chunked")
    n = torch.arange(32, dtype=torch.float64)
    h = torch.stack([0.9**n + (n == 0), (n == 0) * 1.0, (-0.8) ** n, 0 * n])
    fitted = op.refit(h=h)
    inputs = draw(op.spec, T=32, absent=("h",))
    y, exact = fitted(**inputs), fitted.reference(**inputs)
    assert within(y, exact, inputs, 1e-6)
    for g in torch.autograd.grad(y.sum(), [inputs[n] for n in "qkv"]):
        assert torch.isfinite(g).all()


def test_float32_inputs_get_float32_fits_that_hold_far_out() -> None:
    """A decay near 1 is kept by its logarithm: at lag 4000 it is still right."""
    op = smac.compile(spec("approx(toeplitz(h), tol = 1e-4)", BY_HEAD), order="chunked")
    h = lags(4096)
    fitted = op.refit(h=h)
    inputs = draw(op.spec, T=4096, B=1, N=2, P=2, grad=False, dtype=torch.float32, absent=("h",))
    y, exact = fitted(**inputs), fitted.reference(**inputs)
    assert y.dtype == torch.float32
    assert within(y, exact, inputs, 1.2 * fitted.plan(device="cpu").fits[0].error)


def test_gradients_of_what_is_not_fitted() -> None:
    op = smac.compile(spec("approx(toeplitz(h), tol = 1e-9)", BY_HEAD), order="chunked")
    h = 0.9 ** torch.arange(16, dtype=torch.float64) * torch.ones(4, 1)
    fitted = op.refit(h=h)
    inputs = draw(op.spec, T=16, absent=("h",))
    ys = fitted(**inputs), fitted.reference(**inputs)
    found, due = (torch.autograd.grad(y.square().sum(), [inputs[n] for n in "qkv"]) for y in ys)
    for a, b in zip(found, due, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("mask", "turns"), [(POWER, False), (GAUSS, True)])
def test_states_go_on_by_the_fit(mask: str, turns: bool) -> None:
    """Halves and steps equal the whole; the state of a fit that turns knows its position."""
    op = smac.compile(spec(mask), order="chunked", chunk=8)
    with pytest.raises(PlanError, match=r"its fit depends on T; op.refit\(T=…\) makes one"):
        op.init_state()
    fitted = op.refit(T=64)
    inputs = draw(op.spec, T=40, grad=False)
    y = fitted(**inputs)
    first, state = fitted(**span(op.spec, inputs, 0, 25), return_state=True)
    rest, last = fitted(**span(op.spec, inputs, 25, 39), initial_state=state, return_state=True)
    one, end = fitted.step(last, **token(op.spec, inputs, 39))
    assert end.pos == (40 if turns else None)
    torch.testing.assert_close(torch.cat([first, rest, one[:, None]], 1), y)


def test_nothing_stale_is_used() -> None:
    op = smac.compile(spec("approx(toeplitz(h))", BY_HEAD))
    h = lags()
    fitted = op.refit(h=h)
    inputs = draw(op.spec, T=9, grad=False, absent=("h",))
    with pytest.raises(LaunchError) as e:
        fitted(**inputs, h=h.clone())
    assert str(e.value) == (
        "lag: h: found another tensor than the one that was fitted; call op.refit(h=…) on the "
        "original op again, or leave it out")  # fmt: skip
    with pytest.raises(LaunchError, match=r"^lag: h: no gradient reaches it through approx\(…\)"):
        fitted(**inputs, h=h.clone().requires_grad_())
    before = fitted(**inputs)
    h.mul_(2)
    with pytest.raises(LaunchError, match="found other values than those that were fitted; call"):
        fitted(**inputs)
    again = fitted.refit(h=h)
    torch.testing.assert_close(again(**inputs), 2 * before, rtol=0, atol=1e-2)


def test_a_longer_sequence_than_was_fitted_is_refused() -> None:
    fitted = smac.compile(spec(POWER)).refit(T=16)
    inputs = draw(fitted.spec, T=17, grad=False)
    said = "lag: found T = 17; this op was fitted for at most 16 tokens; call refit"
    with pytest.raises(PlanError, match=said):
        fitted(**inputs)
    with pytest.raises(PlanError, match=said):
        fitted.plan(T=17, device="cpu")
    assert fitted.plan(device="cpu").request.size("T") == 16


def test_pickling_keeps_the_fit() -> None:
    op = smac.compile(spec("approx(toeplitz(h))", BY_HEAD))
    fitted = op.refit(h=lags(), T=32)
    again = pickle.loads(pickle.dumps(fitted))
    inputs = draw(op.spec, T=20, grad=False, absent=("h",))
    assert torch.equal(again(**inputs), fitted(**inputs))
    assert repr(again).splitlines()[0] == "Op 'lag' (fitted for T ≤ 32)"
    assert "fit_0" not in repr(again)


@pytest.mark.parametrize(("mask", "more", "given", "said"), [
    ("approx(toeplitz(h))", BY_HEAD, {}, "lag: refit: 'h': expected a tensor with axes H W, found "
     "NoneType"),
    ("approx(toeplitz(h))", BY_HEAD, {"h": torch.ones(3)}, "expected a tensor with axes H W, found "
     r"shape \(3,\)"),
    ("approx(toeplitz(h))", BY_HEAD, {"h": lags(), "q": torch.ones(1)}, "no fit depends on 'q'; "
     "expected h"),
    (POWER, "", {"q": torch.ones(1)}, "no fit depends on 'q'; expected T alone"),
    ("approx(toeplitz(h))", BY_HEAD, {"h": lags(), "T": 65}, "h has 64 lags; expected at least "
     "T = 65"),
    ("approx(toeplitz(h))", BY_HEAD, {"h": lags(), "T": 0}, "refit: T: found 0; expected a whole"),
    ("approx(toeplitz(h))", ', h = "B W"', {"h": lags()}, "found axes B; expected lags W and heads "
     "alone"),
    ("approx(toeplitz(h), max_rank = 3)", BY_HEAD, {"h": lags()}, "at 64 lags of head 0: the best "
     "of rank 3 or less"),
    ("approx(toeplitz(h), max_rank = 5, tol = 1e-3)", BY_HEAD, {"h": lags()}, "all heads together "
     "take rank 6; expected at most max_rank = 5"),
])  # fmt: skip
def test_what_cannot_be_fitted_is_refused_in_words(
    mask: str, more: str, given: dict[str, Tensor], said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        smac.compile(spec(mask, more)).refit(**given)  # type: ignore[arg-type]


def test_export_with_heads_is_refused() -> None:
    fitted = smac.compile(spec("approx(toeplitz(h))", BY_HEAD)).refit(h=lags())
    with pytest.raises(PlanError, match="lag: export: its fit is by head"):
        fitted.export("never.py")
