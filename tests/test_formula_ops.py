"""Specs whose mask is a formula: every legal order against the oracle, which reads the formula."""

from __future__ import annotations

import pytest
import torch

import smac
from smac.masks import build
from smac.masks.classify import classified, resolve
from smac.masks.formula import Formula
from smac.show import show

HEADS = {"q": "B T H N", "k": "B T H N", "v": "B T H P"}


def spec(formula: str, **more: str) -> smac.Spec:
    """A spec with this formula as its mask; `more` are further inputs."""
    contraction = {"equation": "TN,SN,SP,TS->TP", "Q": "q", "K": "k", "V": "v",
                   "L": f'entry("{formula}")'}  # fmt: skip
    return smac.Spec("formula", {**HEADS, **more}, contraction, {"out": "Y"})


#: name → (formula, its inputs, orders that are legal)
ALL = ("quadratic", "chunked", "linear")
CASES = {
    "wave": ("where(t >= s, gamma ** (t - s) * cos(omega * (t - s)), 0)",
             {"gamma": "H", "omega": "H"}, ALL),
    "packed": ("(t >= s) * (runs(ids)[t] == runs(ids)[s]) * prod(a[k], k, s + 1, t)",
               {"ids": "B T", "a": "B T H"}, ALL),
    "linear": ("where(t >= s, alpha + beta * (t - s), 0)", {"alpha": "H", "beta": "H"}, ALL),
    "differences": ("where(t >= s, exp(g[t] - g[s]), 0)", {"g": "B T H"}, ALL),
    "dilated": ("(t >= s) * ((t - s) % 3 == 0) * x[t]", {"x": "B T H"}, ALL),
    "blocks": ("(t >= s) * (t // 4 == s // 4)", {}, ALL),
    "power": ("where(t >= s, (1 + t - s) ** (-p), 0)", {"p": "H"}, ("quadratic", "linear")),
    "gamma": ("where(t >= s, (t - s) * gamma ** (t - s), 0)", {"gamma": "H"}, ALL),
    "levels": ("(t >= s) * (x[t] * (bit_length(t ^ s) == 1) + (bit_length(t ^ s) == 3))",
               {"x": "B T H"}, ALL),
    "both": ("gamma ** abs(t - s)", {"gamma": "H"}, ALL),
    "circle": ("h[(t - s) % size(T)]", {"h": "H W"}, ("quadratic", "linear")),
    "plane": ("gamma ** (abs(t % 4 - s % 4) + abs(t // 4 - s // 4))", {"gamma": "H"},
              ("quadratic",)),
    "lags": ("2 * h[t - s + size(T) - 1]", {"h": "H W"}, ("quadratic", "linear")),
    "cauchy": ("1 / (3 + x[t] + y[s])", {"x": "B T H", "y": "B T H"}, ("quadratic",)),
}  # fmt: skip
RUNS = [(name, order) for name, (_, _, orders) in CASES.items() for order in orders]


def inputs(s: smac.Spec, T: int, both: bool) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(T)
    sizes = {"B": 2, "T": T, "H": 3, "N": 4, "P": 5, "W": 2 * T - 1 if both else T}
    found = {}
    for i in s.inputs:
        shape = [sizes[a] for a in i.axes]
        if i.name == "ids":
            found[i.name] = torch.randint(0, 3, shape, generator=g)
            continue
        x = torch.rand(shape, generator=g, dtype=torch.float64) * 0.8 + 0.15
        found[i.name] = (x - 0.5 if i.name in HEADS else x).requires_grad_()
    return found


@pytest.mark.parametrize(("name", "order"), RUNS)
def test_outputs_and_gradients_are_those_of_the_formula(name: str, order: str) -> None:
    formula, more, _ = CASES[name]
    s = spec(formula, **more)
    op = smac.compile(s, order=order, target="torch")
    for T in (1, 37):
        given = inputs(s, T, name == "lags")
        y, want = op(**given), op.reference(**given)
        assert torch.allclose(y, want, rtol=1e-10, atol=1e-10)
        leaves = [x for x in given.values() if x.is_floating_point()]
        weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
        got = torch.autograd.grad(y, leaves, weight, materialize_grads=True, allow_unused=True)
        due = torch.autograd.grad(want, leaves, weight, materialize_grads=True, allow_unused=True)
        for a, b in zip(got, due, strict=True):
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("name", [n for n, (_, _, orders) in CASES.items() if orders != ALL])
def test_orders_that_need_a_state_are_refused_with_the_reason(name: str) -> None:
    formula, more, _ = CASES[name]
    with pytest.raises(smac.PlanError, match="order='chunked' needs generators"):
        smac.compile(spec(formula, **more), order="chunked").plan(T=64, H=2, N=8, P=8)


def test_a_formula_decodes_as_the_mask_that_it_is() -> None:
    formula, more, _ = CASES["packed"]
    s = spec(formula, **more)
    op = smac.compile(s, target="torch")
    given = inputs(s, 9, False)
    with torch.no_grad():
        y, end = op(**given, return_state=True)
        want, last = op.reference(**given, return_state=True)
        assert torch.allclose(y, want)
        assert torch.allclose(end.S, last.S)
        state = op.init_state(B=2, H=3, N=4, P=5, T=9, dtype="float64")
        for t in range(9):
            one = {n: x[:, t] if "T" in s.input(n).axes else x for n, x in given.items()}
            out, state = op.step(state, **one)
            assert torch.allclose(out, y[:, t])


def test_differences_never_take_an_exponential_alone() -> None:
    """exp(g[t]) is 0 here and exp(-g[s]) infinite, from the third token on."""
    formula, more, orders = CASES["differences"]
    s = spec(formula, **more)
    given = inputs(s, 21, False)
    given["g"] = (given["g"].detach() - 250).cumsum(1).requires_grad_()
    for order in orders:
        y = smac.compile(s, order=order, target="torch")(**given)
        assert torch.allclose(y, smac.compile(s).reference(**given), rtol=1e-10, atol=1e-10)
        (grad,) = torch.autograd.grad(y.sum(), [given["g"]])
        assert grad.isfinite().all()


def test_differences_keep_no_state() -> None:
    formula, more, _ = CASES["differences"]
    s = spec(formula, **more)
    op = smac.compile(s, target="torch")
    with pytest.raises(smac.PlanError) as e:
        op(**inputs(s, 9, False), return_state=True)
    why = "its lanes read other tokens than the one that comes in"
    assert f"mask 'cumulative(g)' has no state ({why})" in str(e.value)
    with pytest.raises(smac.PlanError, match=why):
        op.init_state(B=2, H=3, N=4, P=5, T=9, dtype="float64")


@pytest.mark.parametrize("name", ["packed", "both", "power", "gamma", "differences"])
def test_packed_sequences_are_those_of_the_formula_or_refused(name: str) -> None:
    formula, more, _ = CASES[name]
    s = spec(formula, **more)
    op = smac.compile(s, target="torch")
    given = {n: (x[:1] if "B" in s.input(n).axes else x).detach()
             for n, x in inputs(s, 21, False).items()}  # fmt: skip
    ends = torch.tensor([0, 8, 8, 21])
    if name == "gamma":  # its lanes read positions
        with pytest.raises(smac.PlanError, match="packed sequences"):
            op(**given, cu_seqlens=ends)
    else:
        y = op(**given, cu_seqlens=ends)
        assert torch.allclose(y, op.reference(**given, cu_seqlens=ends))
    parts = [op.reference(**{n: x[:, a:b] if "T" in s.input(n).axes else x
                             for n, x in given.items()}) for a, b in [(0, 8), (8, 21)]]  # fmt: skip
    assert torch.allclose(op.reference(**given, cu_seqlens=ends), torch.cat(parts, 1))


def test_the_plan_says_what_was_found_and_how() -> None:
    text = smac.compile(spec(*CASES["wave"][:1], **CASES["wave"][1])).plan(
        T=512, H=2, N=16, P=16, device="cpu").explain()  # fmt: skip
    flat = " ".join(text.split())
    assert 'formula entry("where(t >= s, gamma ** (t - s) * cos(omega * (t - s)), 0)") is ' in flat
    assert "semiseparable, rank 2, held to it at " in flat
    assert "support: t >= s decay: gamma a token, for gamma >= 0" in flat


def test_a_plan_of_an_unknown_formula_says_why() -> None:
    formula, more, _ = CASES["cauchy"]
    plan = smac.compile(spec(formula, **more)).plan(T=64, H=2, N=8, P=8, device="cpu")
    flat = " ".join(plan.explain().split())
    assert plan.order == "quadratic"
    assert 'formula entry("1 / (3 + x[t] + y[s])") is Cauchy (no finite rank)' in flat
    assert "not chunked: " in flat


def test_formulas_stand_beside_masks_and_resolve() -> None:
    contraction = {"equation": "TN,SN,SP,TS->TP", "Q": "q", "K": "k", "V": "v",
                   "L": 'decay(gamma) * entry("(t >= s) * x[t]") + entry("x[t - 1]")'}  # fmt: skip
    s = smac.Spec("mixed", {**HEADS, "gamma": "H", "x": "B T H"}, contraction, {"out": "Y"})
    assert show(resolve(s).contraction.L) == (
        'decay(gamma) * (row(x) * causal()) + entry("x[t - 1]")')  # fmt: skip
    assert [f.term is None for _, f in classified(s)] == [False, True] or [
        f.term is None for _, f in classified(s)] == [True, False]  # fmt: skip
    assert isinstance(build(s.contraction.L, s).B, Formula)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("formula", "inputs_", "message"),
    [
        ("runs(x + 1)[t]", {"x": "B T"}, "runs(ids): expected the name of an input"),
        ("runs(z)[t] == runs(z)[s]", {"x": "B T"}, "unknown name 'z'"),
    ],
)
def test_ids_of_formulas_are_inputs(formula: str, inputs_: dict[str, str], message: str) -> None:
    with pytest.raises(smac.SpecError) as e:
        spec(formula, **inputs_)
    assert message in str(e.value)


def test_ids_of_formulas_are_no_lets() -> None:
    contraction = {"equation": "TN,SN,SP,TS->TP", "Q": "q", "K": "k", "V": "v",
                   "L": 'entry("runs(twice)[t] == runs(twice)[s]")'}  # fmt: skip
    let = {"twice": "2 * x"}
    with pytest.raises(smac.SpecError, match=r"runs\(twice\): expected the name of an input of"):
        smac.Spec("lets", {**HEADS, "x": "B T"}, contraction, {"out": "Y"}, let=let)


SIGN = "where(gamma < 0, 1 - 2 * (index(T) % 2), 1)"


@pytest.mark.parametrize("order", ALL)
def test_a_decay_below_0_is_nan_and_its_signs_are_rows_and_columns(order: str) -> None:
    """As `masks/decay.py` says: never another number; alternating signs are written beside it."""
    made = {}
    for L in ("decay(gamma)", f"row({SIGN}) * col({SIGN}) * decay(abs(gamma))"):
        contraction = {"equation": "TN,SN,SP,TS->TP", "Q": "q", "K": "k", "V": "v", "L": L}
        s = smac.Spec("negative", {**HEADS, "gamma": "H"}, contraction, {"out": "Y"})
        given = inputs(s, 21, False)
        given["gamma"] = torch.tensor([-0.7, 0.5, -0.2], dtype=torch.float64)
        op = smac.compile(s, order=order, target="torch")
        made[L] = (op(**given), op.reference(**given))
    for y in made["decay(gamma)"]:
        assert y[:, :, [0, 2]].isnan().all()
        assert y[:, :, 1].isfinite().all()
    t = torch.arange(21)
    power = given["gamma"] ** (t[:, None] - t).clamp(min=0)[..., None]
    power = power * (t[:, None] >= t)[..., None]
    want = torch.einsum("bthn,bshn,bshp,tsh->bthp", *(given[n] for n in "qkv"), power)
    y, reference = made[L]
    assert torch.allclose(y, want, rtol=1e-10, atol=1e-10)
    assert torch.allclose(reference, want, rtol=1e-10, atol=1e-10)
