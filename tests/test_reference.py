"""The oracle against a second account of the same maths: recurrence, plain loops, closed forms."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st
from torch import Tensor

import smac
from smac.errors import LaunchError, PlanError
from smac.reference import baseline, recurrence, reference

DOUBLE = torch.float64
HEAD = 'smac = 1\nname = "t"\n[axes]\nG = "group of H"\nE = "batch"\n[inputs]\n'
QKV = 'q = "B T H N"\nk = "B T G N"\nv = "B T H P"\n'


def spec(L: str, extra: str = "", *, channel: str = "", y: str = "Y", qkv: str = QKV) -> smac.Spec:
    head = HEAD if "T G" in qkv else HEAD.replace('G = "group of H"\n', "")
    head = head if "E " in qkv + extra else head.replace('E = "batch"\n', "")
    return smac.load(
        f"{head}{qkv}{extra}\n[contraction]\nequation = 'TN,SN,SP,TS{channel}->TP'\n"
        f"Q = 'q'\nK = 'k'\nV = 'v'\nL = '''{L}'''\n[output]\ny = '{y}'\n"
    )


def tensors(T: int, seed: int = 0) -> dict[str, Tensor | None]:
    torch.manual_seed(seed)
    shapes = {"q": (2, T, 4, 3), "k": (2, T, 2, 3), "v": (2, T, 4, 5)}
    return {n: torch.randn(s, dtype=DOUBLE).requires_grad_() for n, s in shapes.items()}


def log_decays(T: int, *shape: int) -> Tensor:
    g = -torch.rand(2, T, *shape, dtype=DOUBLE)
    for t, value in enumerate((-math.inf, -50.0, 0.0, 0.4, -256.0)):
        if t + 1 < T:
            g[t % 2, t + 1] = value
    return g.requires_grad_()


CASES = {
    "causal()": ("", {}),
    "decay(gamma)": ('gamma = "H"', {"gamma": torch.tensor([0.9, 0.0, 1.0, 1.1], dtype=DOUBLE)}),
    "semiseparable(log_decay = g)": ('g = "B T H"', {}),
    "semiseparable(log_decay = g) * document(ids)": ('g = "B T H"\nids = "B T"', {}),
    "decay(gamma) + 0.5 * semiseparable(log_decay = g)": (
        'gamma = "H"\ng = "B T H"', {"gamma": torch.tensor([0.9, 0.5, 1.0, 0.1], dtype=DOUBLE)}),
    "row(c) * causal() + diagonal(c)": ('c = "B T H"', {}),
    "col(c) * semiseparable(log_decay = g)": ('c = "B T H"\ng = "B T H"', {}),
    # Lanes that read positions: turns, distances, a Fenwick tree.
    "wave(omega, 0.5) * semiseparable(log_decay = g) + decay(gamma) * wave(omega)": (
        'omega = "H"\ngamma = "H"\ng = "B T H"',
        {"omega": torch.tensor([0.3, 1.7, 0.0, -2.0], dtype=DOUBLE),
         "gamma": torch.tensor([0.9, 0.5, 1.0, 0.1], dtype=DOUBLE)}),
    "lag() * decay(gamma)": (
        'gamma = "H"', {"gamma": torch.tensor([0.9, 0.5, 1.0, 0.1], dtype=DOUBLE)}),
    "(row(c) * level(0) + level(1) + row(c) * level(2) + level(3)) * semiseparable(log_decay = g)":
        ('c = "B T H"\ng = "B T H"', {}),
    "col(cos(index(T))) * causal()": ("", {}),
}  # fmt: skip


def case(L: str, T: int) -> tuple[smac.Spec, dict[str, Tensor | None]]:
    declared, given = CASES[L]
    inputs = {**tensors(T), **{n: x.requires_grad_() for n, x in given.items()}}
    if "g =" in declared:
        inputs["g"] = log_decays(T, 4)
    if "c =" in declared:
        inputs["c"] = torch.randn(2, T, 4, dtype=DOUBLE).requires_grad_()
    if "ids" in declared:
        inputs["ids"] = torch.tensor([0, 0, 1, 1, 0, 0, 0, 2, 2])[:T].repeat(2, 1)
    return spec(L, declared), inputs


def leaves(inputs: dict[str, Tensor | None]) -> list[Tensor]:
    return [x for x in inputs.values() if x is not None and x.requires_grad]


@pytest.mark.parametrize("T", [0, 1, 9])
@pytest.mark.parametrize("L", CASES)
def test_einsum_and_recurrence_agree_with_gradients(L: str, T: int) -> None:
    s, inputs = case(L, T)
    (y, state), (y2, state2) = reference(s, inputs, return_state=True), recurrence(s, inputs)
    torch.testing.assert_close(y, y2, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.S, state2.S, rtol=1e-12, atol=1e-12)
    if T == 0:
        assert state.S.abs().sum() == 0
        return
    loss, loss2 = y.sin().sum() + state.S.cos().sum(), y2.sin().sum() + state2.S.cos().sum()
    grads = torch.autograd.grad(loss, leaves(inputs), allow_unused=True)
    grads2 = torch.autograd.grad(loss2, leaves(inputs), allow_unused=True)
    for a, b in zip(grads, grads2, strict=True):
        a, b = (torch.zeros(()) if x is None else x for x in (a, b))
        assert torch.isfinite(a).all()
        torch.testing.assert_close(*torch.broadcast_tensors(a.double(), b.double()),
                                   rtol=1e-10, atol=1e-10)  # fmt: skip


@pytest.mark.parametrize("cut", [0, 1, 4, 9])
@pytest.mark.parametrize("L", CASES)
def test_two_runs_through_a_state_equal_one(L: str, cut: int) -> None:
    s, inputs = case(L, 9)
    whole, end = reference(s, inputs, return_state=True)

    def part(a: int, b: int) -> dict[str, Tensor | None]:
        timed = {i.name for i in s.inputs if "T" in i.axes}
        return {n: x[:, a:b] if n in timed else x for n, x in inputs.items()}

    first, middle = reference(s, part(0, cut), return_state=True)
    second, last = reference(s, part(cut, 9), initial_state=middle, return_state=True)
    stepped, _ = recurrence(s, part(cut, 9), middle)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(last.S, end.S, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(stepped, second, rtol=1e-12, atol=1e-12)


def test_a_turn_far_from_the_start_is_that_of_its_lag() -> None:
    """Angles of 10⁵ turns, made in float64, in float32 too; a state that does not say how far."""
    s = spec("decay(0.9) * wave(omega)", 'omega = "H"')
    inputs = {**tensors(6), "omega": torch.tensor([0.3, 1.7, 0.0, -2.0], dtype=DOUBLE)}
    whole, end = reference(s, inputs, return_state=True)
    zero = torch.zeros_like(end.S)
    far, last = reference(s, inputs, initial_state=smac.State(zero, pos=400_000),
                          return_state=True)  # fmt: skip
    torch.testing.assert_close(far, whole, rtol=1e-10, atol=1e-10)
    assert (end.pos, last.pos) == (6, 400_006)
    plain, _ = recurrence(s, inputs, smac.State(zero, pos=400_000), dtype=torch.float32)
    torch.testing.assert_close(plain.double(), whole, rtol=1e-5, atol=1e-5)
    for start in (zero, smac.State(zero)):
        with pytest.raises(LaunchError) as e:
            reference(s, inputs, initial_state=start)
        assert str(e.value) == "initial_state.pos is missing; this spec needs S, pos"


def test_what_reads_no_position_needs_none() -> None:
    """A wave that does not turn, and one on the side of given(…) that is not taken."""
    still = spec("decay(0.9) * wave(0) + level(0) * given(g, wave(1), causal())",
                 'g = {axes = "H", optional = true}')  # fmt: skip
    _, state = reference(still, tensors(6), return_state=True)
    assert state.pos is None
    reference(still, tensors(6), initial_state=state)


def test_rank_of_the_state_and_its_lane_order() -> None:
    s, inputs = case("decay(gamma) + 0.5 * semiseparable(log_decay = g)", 5)
    _, state = reference(s, inputs, return_state=True)
    assert state.S.shape == (2, 4, 2, 3, 5)
    alone, own = case("decay(gamma)", 5)
    _, first = reference(alone, {**own, "gamma": inputs["gamma"]}, return_state=True)
    torch.testing.assert_close(state.S[:, :, 0], first.S)
    same = spec("causal() + 2 * causal()")  # lanes that differ in their factor alone are one
    assert reference(same, tensors(5), return_state=True)[1].S.shape == (2, 4, 3, 5)


def test_a_mask_without_a_state_says_so() -> None:
    s = spec("document(ids)", 'ids = "B T"')
    inputs = {**tensors(3), "ids": torch.zeros(2, 3, dtype=torch.int64)}
    assert reference(s, inputs).shape == (2, 3, 4, 5)
    with pytest.raises(PlanError, match="t: its mask has no finite state"):
        reference(s, inputs, return_state=True)


FORMULAS = {
    "window(3)": lambda t, s, T: float(0 <= t - s < 3),
    "transpose(causal())": lambda t, s, T: float(t <= s),
    "strict(transpose(causal()))": lambda t, s, T: float(t < s),
    'shift(causal(), "t")': lambda t, s, T: float(t - 1 >= s),
    'shift(causal(), "s")': lambda t, s, T: float(t >= s + 1),
    'fourier("cos")': lambda t, s, T: math.cos(2 * math.pi * t * s / T),
    'fourier("sin")': lambda t, s, T: math.sin(2 * math.pi * t * s / T),
    'entry("where(t >= s, 1 / (1 + t - s), 0)")': lambda t, s, T: (t >= s) / (1 + abs(t - s)),
    'entry("bit_length(t ^ s) + (t + s) % 3")': lambda t, s, T: (t ^ s).bit_length() + (t + s) % 3,
    "causal() * window(2) + 3 * transpose(window(2))": lambda t, s, T: (
        float(0 <= t - s < 2) + 3 * float(0 <= s - t < 2)),
}  # fmt: skip


@pytest.mark.parametrize("L", FORMULAS)
def test_masks_by_their_definition(L: str) -> None:
    T = 7
    inputs = tensors(T)
    q, k, v = inputs["q"], inputs["k"].repeat_interleave(2, 2), inputs["v"]
    mask = torch.tensor([[FORMULAS[L](t, s, T) for s in range(T)] for t in range(T)], dtype=DOUBLE)
    expected = torch.einsum("bthn,bshn,bshp,ts->bthp", q, k, v, mask)
    torch.testing.assert_close(reference(spec(L), inputs), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("both", [False, True])
def test_toeplitz_reads_the_lag_axis(both: bool) -> None:
    T, W = 6, 11 if both else 8
    h = torch.randn(4, W, dtype=DOUBLE)
    s = spec(f"toeplitz(h, bidirectional = {both!s})" if both else "toeplitz(h)", 'h = "H W"')
    inputs = tensors(T)
    mask = torch.zeros(4, T, T, dtype=DOUBLE)
    for t in range(T):
        for c in range(T if both else t + 1):
            mask[:, t, c] = h[:, t - c + (T - 1 if both else 0)]
    k = inputs["k"].repeat_interleave(2, 2)
    expected = torch.einsum("bthn,bshn,bshp,hts->bthp", inputs["q"], k, inputs["v"], mask)
    torch.testing.assert_close(reference(s, {**inputs, "h": h}), expected)


def test_decay_at_zero_has_the_slope_of_the_power() -> None:
    s = spec("decay(gamma)", 'gamma = "H"')
    gamma = torch.zeros(4, dtype=DOUBLE, requires_grad=True)
    inputs = tensors(5)
    (slope,) = torch.autograd.grad(reference(s, {**inputs, "gamma": gamma}).sum(), gamma)
    k = inputs["k"].repeat_interleave(2, 2)
    lag1 = torch.einsum("bthn,bthn,bthp->h", inputs["q"][:, 1:], k[:, :-1], inputs["v"][:, :-1])
    torch.testing.assert_close(slope, lag1)


LOG_DECAYS = [-math.inf, -256.0, -50.0, -1.0, 0.0, 0.7]


@given(st.lists(st.sampled_from(LOG_DECAYS), min_size=1, max_size=8))
def test_resets_are_exact_and_have_no_gradient(values: list[float]) -> None:
    event(f"resets: {sum(v <= -256 for v in values)}")
    T = len(values)
    g = torch.tensor(values, dtype=DOUBLE).reshape(1, T, 1).requires_grad_()
    s = spec("semiseparable(log_decay = g)", 'g = "B T H"', qkv=QKV.replace("G", "H"))
    one = torch.ones(1, T, 1, 1, dtype=DOUBLE)
    y = reference(s, {"q": one, "k": one, "v": one, "g": g})
    expected, state = [], 0.0
    for v in values:
        state = (0.0 if v <= -256 else math.exp(v)) * state + 1
        expected.append(state)
    torch.testing.assert_close(y.flatten(), torch.tensor(expected, dtype=DOUBLE))
    (slope,) = torch.autograd.grad(y.sum(), g)
    assert torch.isfinite(slope).all()
    assert (slope[g <= -256] == 0).all()


def test_normaliser_is_the_contraction_with_ones() -> None:
    s, inputs = spec("causal()", y="Y / (1 + Z * Z)"), tensors(6)
    y = reference(spec("causal()"), inputs)
    z = reference(spec("causal()"), {**inputs, "v": torch.ones_like(inputs["v"])})
    got, state = reference(s, inputs, return_state=True)
    torch.testing.assert_close(got, y / (1 + z * z))
    assert state.z is not None
    assert state.z.shape == state.S.shape[:-1]


def test_packed_sequences_are_runs_by_themselves() -> None:
    s, inputs = case("semiseparable(log_decay = g)", 9)
    one = {n: x[:1] if x is not None else None for n, x in inputs.items()}
    y, state = reference(s, one, cu_seqlens=torch.tensor([0, 4, 4, 9]), return_state=True)
    head, _ = reference(s, {n: x[:, :4] for n, x in one.items()}, return_state=True)
    tail, end = reference(s, {n: x[:, 4:] for n, x in one.items()}, return_state=True)
    torch.testing.assert_close(y, torch.cat([head, tail], 1))
    torch.testing.assert_close(state.S[2:], end.S)
    assert (state.S[1] == 0).all()


def test_documents_carry_their_last_id() -> None:
    s, inputs = case("semiseparable(log_decay = g) * document(ids)", 4)
    inputs["g"] = -torch.ones(2, 4, 4, dtype=DOUBLE)
    inputs["ids"] = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]])
    _, state = reference(s, inputs, return_state=True)
    assert state.last is not None
    assert state.last.tolist() == [1, 0]
    y = reference(s, inputs, initial_state=state)
    fresh = reference(s, inputs)
    assert torch.equal(y[0], fresh[0])  # last id 1, first id 0: another document
    assert not torch.allclose(y[1], fresh[1])


def test_batch_axes_keep_their_order_and_missing_axes_are_dropped() -> None:
    s = spec("causal()", qkv='q = "B E T N"\nk = "B T N"\nv = "E T P"\n')
    q, k, v = (torch.randn(n, dtype=DOUBLE) for n in ((2, 3, 5, 4), (2, 5, 4), (3, 5, 6)))
    y, state = reference(s, {"q": q, "k": k, "v": v}, return_state=True)
    mask = torch.ones(5, 5, dtype=DOUBLE).tril()
    torch.testing.assert_close(y, torch.einsum("betn,bsn,esp,ts->betp", q, k, v, mask))
    assert state.S.shape == (2, 3, 4, 6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_baseline_is_as_good_as_its_type(dtype: torch.dtype) -> None:
    s, inputs = case("semiseparable(log_decay = g)", 9)
    low = {n: x.detach().to(dtype) for n, x in inputs.items()}
    exact, got = reference(s, low), baseline(s, low)
    assert got.dtype == dtype
    error = ((got.double() - exact).norm() / exact.norm()).item()
    eps = torch.finfo(dtype).eps
    assert error < 4 * eps
    assert dtype == DOUBLE or error > eps / 1000


def test_shapes_that_do_not_fit_are_named() -> None:
    s, inputs = spec("causal()"), tensors(4)
    with pytest.raises(LaunchError, match=r"k: found T = 3; expected 4"):
        reference(s, {**inputs, "k": inputs["k"][:, :3]})
    with pytest.raises(LaunchError, match=r"v: found shape \(2, 4, 4\); expected axes B T H P"):
        reference(s, {**inputs, "v": inputs["v"][..., 0]})
    with pytest.raises(LaunchError, match=r"inputs: found \['w'\]; expected some of q, k, v"):
        reference(s, {**inputs, "w": inputs["v"]})


def test_the_oracle_shares_no_maths_with_the_compiler() -> None:
    forbidden = ("smac.masks", "smac.plan", "smac.lower", "smac.codegen", "smac.runtime")
    folder = Path(smac.__file__).parent / "reference"
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) else [
                a.name for a in node.names] if isinstance(node, ast.Import) else []  # fmt: skip
            assert not [m for m in found if m.startswith(forbidden)], path


def test_what_a_reset_multiplies_has_no_gradient() -> None:
    s = spec("semiseparable(log_decay = g * c)", 'g = "B T H"\nc = "H"\n')
    inputs = {**tensors(5), "g": torch.full((2, 5, 4), -0.5, dtype=DOUBLE),
              "c": torch.ones(4, dtype=DOUBLE, requires_grad=True)}  # fmt: skip
    inputs["g"][:, 2] = -torch.inf
    (got,) = torch.autograd.grad(reference(s, inputs).sum(), inputs["c"])
    assert torch.isfinite(got).all()
    assert got.abs().min() > 0


def test_the_slope_of_a_power_at_nought() -> None:
    s = spec('entry("where(t >= s, gamma ** (t - s), 0)")', 'gamma = "H"\n')
    inputs = {**tensors(5), "gamma": torch.zeros(4, dtype=DOUBLE, requires_grad=True)}
    (got,) = torch.autograd.grad(reference(s, inputs).sum(), inputs["gamma"])
    due = spec("decay(gamma)", 'gamma = "H"\n')
    (want,) = torch.autograd.grad(reference(due, inputs).sum(), inputs["gamma"])
    torch.testing.assert_close(got, want)
