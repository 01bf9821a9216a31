"""Inputs that take no gradient: the others' are what they were, by a program with less to do."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from drawn import SPECS, draw
from torch import Tensor

import smac
from smac.lower import backward
from smac.runtime.job import Job, case

Inputs = dict[str, Tensor]


def leaves(inputs: Inputs, frozen: frozenset[str] = frozenset()) -> Inputs:
    """Copies, of which those that are not `frozen` take gradients."""
    return {n: x.detach().clone().requires_grad_(x.is_floating_point() and n not in frozen)
            for n, x in inputs.items()}  # fmt: skip


def back(op: Any, inputs: Inputs) -> None:
    made = op(**inputs)
    sum(y.square().sum() for y in ((made,) if isinstance(made, Tensor) else made)).backward()


def programs(op: smac.Op, **options: Any) -> tuple[str, ...]:
    """Names of the kernels of a backward on triton."""
    made = backward(op.plan(device="h100", backward=True, **options))
    return tuple(k.name for k in made.steps if hasattr(k, "name"))


@pytest.mark.parametrize("name", SPECS)
def test_the_other_gradients_stay_what_they_are(name: str) -> None:
    """Each input frozen by itself, and all but it; float64, on torch."""
    op = smac.compile(name)
    inputs = draw(op.spec)
    floats = [n for n, x in inputs.items() if x.is_floating_point()]
    whole = leaves(inputs)
    back(op, whole)
    for n in floats:
        for frozen in (frozenset({n}), frozenset(floats) - {n}):
            some = leaves(inputs, frozen)
            if len(frozen) == len(floats):
                continue
            back(op, some)
            for m in floats:
                if m in frozen:
                    assert some[m].grad is None
                else:
                    torch.testing.assert_close(some[m].grad, whole[m].grad, rtol=1e-11, atol=1e-11)


def test_the_oracle_agrees_where_gradients_are_partial() -> None:
    op = smac.compile("ssd", order="chunked", chunk=16)
    inputs = draw(op.spec, T=50)
    for frozen in map(frozenset, combinations(("x", "dt", "A", "B", "C"), 2)):
        ours, theirs = leaves(inputs, frozen), leaves(inputs, frozen)
        back(op, ours)
        back(op.reference, theirs)
        for n in inputs.keys() - frozen:
            torch.testing.assert_close(ours[n].grad, theirs[n].grad, rtol=1e-10, atol=1e-10)


def test_a_decay_that_is_frozen_has_no_kernel() -> None:
    """Sweeps store dQ, dK and dV, and no state is kept for the gradient of a decay."""
    op = smac.compile("retnet", target="triton", schedule="sweep")
    assert programs(op) == ("grad_q", "grad_k", "grad_v", "grad_mask", "grad_inputs")
    assert programs(op, frozen=("gamma",)) == ("grad_q", "grad_k", "grad_v")
    assert "saved" not in op.source(frozen=("gamma",), device="h100")
    op = smac.compile("toeplitz", target="triton", order="quadratic")
    assert programs(op, frozen=("h",)) == ("grad_q", "grad_kv")
    assert programs(op, frozen=("h", "k")) == ("grad_q", "grad_v")


def test_what_only_frozen_inputs_want_is_not_read() -> None:
    op = smac.compile("retnet", target="triton", schedule="sweep")
    assert programs(op, frozen=("q", "gamma")) == ("grad_k", "grad_v")
    op = smac.compile("retnet", target="triton", schedule="chunks")
    sizes = {"N": 64, "P": 64}
    assert "grad_qk" in programs(op, **sizes)
    assert "grad_qk" not in programs(op, frozen=("q", "k"), **sizes)


def test_segments_go_backward_as_sweeps_under_a_frozen_decay() -> None:
    op = smac.compile("retnet", target="triton", schedule="segmented")
    sizes = {"T": 65536, "N": 64, "P": 64}
    assert "adjoints" in programs(op, **sizes)
    found = programs(op, frozen=("gamma",), **sizes)
    assert "join_QG" in found
    assert "adjoints" not in found


def test_a_plan_says_what_is_frozen_and_costs_it_less() -> None:
    op, sizes = smac.compile("retnet", target="triton"), {"B": 4, "T": 4096, "H": 16, "N": 128}
    plan = op.plan(device="h100", backward=True, **sizes)
    less = op.plan(device="h100", backward=True, frozen=("gamma",), **sizes)
    assert less.chosen.time < plan.chosen.time
    assert less.explain().splitlines()[0] == (
        "plan    retnet: bfloat16 on h100, target triton, backward, gamma frozen")
    assert op.plan(device="h100", frozen=("gamma",)) == op.plan(device="h100")


def test_levels_are_frozen_together() -> None:
    op = smac.compile("log_linear", target="triton")
    plan = op.plan(device="h100", backward=True, frozen=("l",), T=64)
    assert plan.frozen == ("l",)
    assert not any(b.role == "gradient" and b.of.startswith("l") for b in backward(plan).buffers)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(smac.PlanError) as e:
        smac.compile("retnet").plan(backward=True, frozen=("g",))
    assert str(e.value) == "retnet: frozen: found 'g'; expected inputs, of q, k, v, gamma"


def test_a_gradient_that_is_not_asked_for_compiles_nothing_new() -> None:
    """`torch.autograd.grad` for one input runs the program for all that require one."""
    op = smac.compile("retnet")
    inputs = leaves(draw(op.spec))
    y = op(**inputs)
    (d,) = torch.autograd.grad(y.sum(), [inputs["q"]])
    assert d.shape == inputs["q"].shape
    (launcher,) = op._launchers.values()
    assert len(launcher._backwards) == 1


def test_programs_are_kept_by_what_is_frozen() -> None:
    op = smac.compile("retnet")
    inputs = draw(op.spec)
    for frozen in ({"gamma"}, {"q"}, {"gamma"}, set()):
        back(op, leaves(inputs, frozenset(frozen)))
    (launcher,) = op._launchers.values()
    assert set(launcher._backwards) == {frozenset({"gamma"}), frozenset({"q"}), frozenset()}


def test_a_state_alone_takes_a_gradient() -> None:
    op = smac.compile("ssd")
    inputs = {n: x.detach() for n, x in draw(op.spec).items()}
    _, state = op(**inputs, return_state=True)
    S = state.S.clone().requires_grad_()
    op(**inputs, initial_state=S).square().sum().backward()
    T = state.S.clone().requires_grad_()
    op.reference(**inputs, initial_state=T).square().sum().backward()
    torch.testing.assert_close(S.grad, T.grad, rtol=1e-10, atol=1e-10)


def test_compiled_calls_make_no_gradient_of_what_is_frozen() -> None:
    op = smac.compile("retnet")
    inputs = draw(op.spec)
    some, whole = leaves(inputs, frozenset({"gamma"})), leaves(inputs)
    back(torch.compile(lambda **x: op(**x), fullgraph=True, backend="aot_eager"), some)
    back(op, whole)
    for n in ("q", "k", "v"):
        torch.testing.assert_close(some[n].grad, whole[n].grad)
    assert some["gamma"].grad is None


def test_trials_of_other_processes_know_what_is_frozen() -> None:
    sizes = {"B": 1, "T": 40, "H": 2, "N": 4, "P": 4, "S": 40}
    job = Job(str(smac.load("retnet")), {"target": "torch"}, sizes,
              dict.fromkeys(("q", "k", "v", "gamma"), "float64"), "cpu", backward=True,
              frozen=["gamma"])  # fmt: skip
    made = case(job)
    launcher = made.launcher()
    found = made.run(launcher)()
    assert [x is None for x in found] == [False, False, False, True]
    assert made.runnable(launcher, made.tensors(launcher)).program == backward(
        launcher.backward_of((True, True, True, False)).plan)
