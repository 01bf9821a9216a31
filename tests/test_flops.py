"""Flops in a plan are what torch's own counter counts on the rendered program that it plans for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import smac
from smac.codegen import emit
from smac.errors import PlanError
from smac.lower import backward as lower_backward
from smac.lower import forward as lower_forward
from smac.parse import load
from smac.plan import Plan, make
from smac.runtime.module import load as load_module
from tests.drawn import BY_FFT, CHUNKED, SPECS, draw, floats

WAYS = ("chunked", "linear", "quadratic")
#: Sizes as in attention with a group for each two heads; T leaves a short chunk behind.
SIZES = {"B": 2, "T": 70, "H": 4, "G": 2, "N": 3, "P": 5}


def planned(spec: smac.Spec, order: str, backward: bool, chunk: int | None = None,
            **sizes: int) -> Plan:  # fmt: skip
    known = {a: n for a, n in (SIZES | sizes).items() if a in spec.scope.axes}
    return make(spec, sizes=known, dtype="float64", device="cpu", order=order, chunk=chunk,
                backward=backward)  # fmt: skip


def counted(p: Plan) -> int:
    """What the counter sees in one call of the program that `p` leads to, on tensors that fit."""
    program = (lower_backward if p.request.backward else lower_forward)(p)
    source = emit(program, "torch", "ieee")
    run = getattr(load_module(source.digest, source.text), program.name)
    tensors = []
    for b in program.buffers:
        if b.role in ("input", "cotangent"):
            x = torch.rand([p.request.size(a) for a in b.axes], dtype=torch.float64)
            tensors.append((2 * x).long() if b.dtype == "int" or b.name == "ids" else x)
    with FlopCounterMode(display=False) as counter:
        run(*tensors)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("order", WAYS)
@pytest.mark.parametrize("name", SPECS)
def test_every_spec(name: str, order: str, backward: bool) -> None:
    spec = load(name)
    chunk = {"chunked": 16, "quadratic": 32}.get(order)
    try:
        plan = planned(spec, order, backward, chunk)
    except PlanError as e:
        assert name not in CHUNKED
        assert order == "chunked" or name not in BY_FFT
        assert "needs generators" in str(e)  # noqa: PT017 (one cell of the grid cannot be)
        return
    assert plan.order == order
    assert plan.chosen.flops == counted(plan), plan.chosen.dots


def test_the_op_itself_counts_the_same() -> None:
    """A call of the op, and the gradient alone, as a user would count them."""
    spec = load("ssd")
    op = smac.compile("ssd", order="chunked", chunk=16)
    inputs = draw(spec, **SIZES)
    with FlopCounterMode(display=False) as forward:
        y = op(**inputs)
    with FlopCounterMode(display=False) as back:
        torch.autograd.grad(y.sum(), floats(inputs))
    for counter, backward in ((forward, False), (back, True)):
        plan = op.plan(dtype="float64", device="cpu", backward=backward, **SIZES)
        assert plan.chosen.flops == counter.get_total_flops() > 0


def test_fft_counts_nothing() -> None:
    """It multiplies elementwise, and torch has no count of an FFT: its work is in scalar_flops."""
    plan = planned(load("toeplitz"), "linear", False)
    assert plan.chosen.schedule == "fft"
    assert plan.chosen.flops == counted(plan) == 0 < plan.chosen.scalar_flops


# ---- drawn specs ----------------------------------------------------------------------------

SPEC = """
smac = 1
name = "counted"
[axes]
G = "group of H"
[inputs]
q = "{q}"
k = "{k}"
v = "{v}"
{a}z = "B T H P"
[contraction]
equation = "TN,SN,SP,{L}->TP"
Q = "q"
K = "k"
V = "v"
L = "{mask}"
[output]
y = "{y}"
"""
OUTPUTS = ("Y / (Z + 9) + z", "Y * z", "exp(Y / 99) + z", "Y + z", "2 * Y - z")
MASKS = (
    "semiseparable(log_decay = -abs(a))", "causal()", "row(a) * causal()",
    "semiseparable(log_decay = -abs(a)) + causal()", "decay(0.9) + row(a) * decay(0.5)",
    "strict(causal())", "window(5) * semiseparable(log_decay = -abs(a))",
)  # fmt: skip


@st.composite
def plans(draw: st.DrawFn, order: str) -> Plan:
    """A plan on the torch target: mask, sizes and chunk drawn, and which heads an operand has.

    One of them has all heads. Z has no channel, so it is not read beside a mask for each P."""
    heads = {x: draw(st.sampled_from(["", "G", "H"]), label=x) for x in "qkva"}
    heads |= {} if "H" in heads.values() else {"v": "H"}
    channel = draw(st.sampled_from(["", "", "N", "P"]))
    mask = MASKS[0] if channel else draw(st.sampled_from(MASKS))
    axes = {x: f"B T {heads[x]} {d}" for x, d in zip("qkva", ["N", "N", "P", channel], strict=True)}
    axes["a"] = f'a = "{axes["a"]}"\n' if "a)" in mask else ""
    text = SPEC.format(**axes, L=f"TS{channel}", mask=mask,
                       y=draw(st.sampled_from(OUTPUTS[channel == "P" :])))  # fmt: skip
    chunk = draw(st.sampled_from([2, 4, 16])) if order != "linear" else None
    G = draw(st.integers(1, 3))
    sizes = {
        "B": draw(st.integers(1, 2)), "T": draw(st.integers(1, 5 * (chunk or 4))),
        "G": G, "H": G * draw(st.integers(1, 3)), "N": draw(st.integers(1, 4)),
        "P": draw(st.integers(1, 4)),
    }  # fmt: skip
    backward = draw(st.booleans())
    event(f"{mask} {channel}, backward={backward}")
    try:
        return planned(load(text), order, backward, chunk, **sizes)
    except PlanError as e:
        assert "has none" in str(e) or "no row, column or scale factors" in str(e)  # noqa: PT017
        return planned(load(text), "quadratic", backward, chunk, **sizes)


@pytest.mark.parametrize("order", WAYS)
def test_drawn_specs(order: str) -> None:
    @settings(max_examples=15, deadline=None)
    @given(plans(order))
    def check(p: Plan) -> None:
        assert p.chosen.flops == counted(p), (p.chosen, str(p.request.spec))

    check()
