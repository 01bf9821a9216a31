"""check() itself: an op that is right passes, each way of being wrong is caught and shrunk."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import find, given
from hypothesis import strategies as st
from torch import Tensor

import smac
import smac.runtime.op
from smac.errors import PlanError, SmacError
from smac.paths import shipped_specs
from smac.reference import reference
from smac.reference.baseline import operand_dtype
from smac.runtime.state import State
from smac.testing.cells import LAYOUTS, Cell, cells, first_cells, ragged
from smac.testing.check import CHUNK, Settings, check, replay
from smac.testing.child import run_child
from smac.testing.errors import Broken, judge
from smac.testing.inputs import draw, laid_out, recipe
from smac.testing.report import Failure, Report, Row, Skip

SPECS = ("gla", "linear_attention", "multiscale", "packed_ssd", "retnet", "ssd", "toeplitz")


class Exact:
    """An op that is the oracle, rounded once; `wrong` spoils what it gives."""

    def __init__(self, spec: smac.Spec, wrong: Callable[..., Any] | None = None) -> None:
        self.spec, self.wrong = spec, wrong

    def __call__(self, *, initial_state: Any = None, return_state: bool = False,
                 cu_seqlens: Any = None, **inputs: Any) -> Any:  # fmt: skip
        low = operand_dtype(self.spec, inputs)
        acc = torch.promote_types(low, torch.float32)
        made = reference(self.spec, inputs, initial_state=initial_state, return_state=return_state,
                         cu_seqlens=cu_seqlens)  # fmt: skip
        y, state = made if return_state else (made, None)
        if self.wrong is not None:
            y, state = self.wrong(y, state, inputs, initial_state)
        y = y.to(low)
        if state is None:
            return y
        z = None if state.z is None else state.z.to(acc)
        return y, State(state.S.to(acc), z, state.last, None, state.pos)

    def step(self, state: Any, **token: Any) -> Any:
        dims = {i.name: i.axes.index("T") for i in self.spec.inputs if "T" in i.axes}
        wide = {n: x if x is None or n not in dims else x.unsqueeze(dims[n])
                for n, x in token.items()}  # fmt: skip
        y, after = self(initial_state=state, return_state=True, **wide)
        return y.squeeze(1), after


def checked(monkeypatch: pytest.MonkeyPatch, name: str, wrong: Callable[..., Any] | None = None,
            **options: Any) -> Report:  # fmt: skip
    monkeypatch.setattr(smac.runtime.op, "compile", lambda spec, **_: Exact(spec, wrong))
    asked = {"targets": ("torch",), "orders": ("chunked",), "dtypes": ("float64",), **options}
    return check(name, **asked)


@pytest.mark.parametrize("name", SPECS)
def test_an_exact_op_passes_in_every_type(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    report = checked(monkeypatch, name, dtypes=None, examples=6)
    assert report.ok, str(report)
    assert [r.dtype for r in report.rows] == ["float64", "float32", "bfloat16"]
    assert report.rows[0].value <= 1e-12
    assert 0 < report.rows[1].ratio <= 1.25


def off_by(amount: float) -> Callable[..., Any]:
    return lambda y, state, inputs, start: (y * (1 + amount), state)


def late(y: Tensor, state: Any, inputs: Any, start: Any) -> Any:
    """Wrong only past the second chunk boundary."""
    late = (torch.arange(y.shape[1]) >= 2 * CHUNK).to(y.dtype).reshape(-1, 1, 1)
    return y * (1 + 1e-6 * late), state


def leaks(y: Tensor, state: Any, inputs: Any, start: Any) -> Any:
    return y + 1e-6 * y.sum(1, keepdim=True), state


def forgets(y: Tensor, state: Any, inputs: Any, start: Any) -> Any:
    return y, State(torch.zeros_like(state.S), state.z, state.last) if state else None


def detaches(y: Tensor, state: Any, inputs: Any, start: Any) -> Any:
    """Right values, wrong gradients."""
    return (y - 0.01 * inputs["v"] + 0.01 * inputs["v"].detach(), state)


def contiguous_only(y: Tensor, state: Any, inputs: Any, start: Any) -> Any:
    return (y if inputs["v"].is_contiguous() else y + 1e-6), state


def narrow(y: Tensor, state: Any, inputs: Any, start: Any) -> Any:
    return (y + 1e-6 if inputs["q"].shape[-1] == 3 else y), state


FAULTS = {
    "values off by 1e-9": (off_by(1e-9), "values"), "past two chunks": (late, "values"),
    "leaks the future": (leaks, "values"), "forgets its state": (forgets, "state split"),
    "wrong gradient": (detaches, "gradients"), "strides": (contiguous_only, "values"),
    "not a number": (lambda y, s, i, t: (y * math.nan, s), "values"),
    "one N": (narrow, "values"), "shape": (lambda y, s, i, t: (y[:, :1], s), "values"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_kind_of_wrong_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, what = FAULTS[fault]
    report = checked(monkeypatch, "retnet", wrong, examples=40)
    assert not report.ok
    assert report.failures[0].what == what, str(report)
    assert "FAILED" in str(report)


def test_a_failure_is_shrunk_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    report = checked(monkeypatch, "retnet", narrow, examples=60)
    (failure,) = report.failures
    assert "B=1 H=1 N=3 P=1 T=1" in failure.cell
    space: dict[str, Any] = {}
    with pytest.raises(Broken, match=r"values: y is off by 1\.0e-06"):
        exec(failure.again, space)  # the text that a user would paste
    assert space["Cell"] is Cell


def test_an_order_that_is_refused_is_skipped_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(y: Tensor, state: Any, inputs: Any, start: Any) -> Any:
        raise PlanError("no law for this order")

    report = checked(monkeypatch, "retnet", refuse)
    assert not report.ok
    assert report.rows == ()
    assert any(s.why == "no law for this order" and s.cells > 0 for s in report.skipped)
    assert "NOTHING RUN" in str(report)


def test_a_crash_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(y: Tensor, state: Any, inputs: Any, start: Any) -> Any:
        raise RuntimeError("boom")

    (failure,) = checked(monkeypatch, "retnet", crash).failures
    assert failure.what == "torch chunked float64 RuntimeError"
    assert failure.message == "boom"


@pytest.mark.parametrize(
    ("options", "said"),
    [({"targets": ("cuda",)}, "found 'cuda'; expected one of torch, triton"),
     ({"orders": ("cubic",)}, "found 'cubic'; expected one of quadratic, chunked, linear")],
)  # fmt: skip
def test_unknown_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SmacError, match=said):
        check("retnet", **options)


def test_inputs_that_cannot_be_found_are_asked_for() -> None:
    text = str(smac.load("retnet")).replace('Q = "q / sqrt(size(N))"', 'Q = "log(q - 100)"')
    with pytest.raises(SmacError, match=r"pass draw=\{name: \(low, high\)\}"):
        recipe(smac.load(text))
    assert recipe(smac.load(text), {"q": (101.0, 102.0)}).kinds["q"] == (101.0, 102.0)


def test_recipes_find_what_suits_a_spec() -> None:
    assert recipe(smac.load("ssd")).kinds["A"] == "negative"
    assert recipe(smac.load("retnet")).kinds["gamma"] == "unit"
    assert recipe(smac.load("packed_ssd")).kinds["ids"] == "ids"
    gla = recipe(smac.load("gla"))
    assert gla.bare == {"g"}
    assert gla.linear == ("q", "k", "v")
    assert recipe(smac.load("ssd")).linear == ("x",)


@pytest.mark.parametrize("name", SPECS)
def test_every_group_crosses_two_chunks_with_a_tail(name: str) -> None:
    spec = smac.load(name)
    fixed = first_cells(spec, "torch", "chunked", "float64", CHUNK, True)
    lengths = [c.size("T") for c in fixed]
    assert ragged(CHUNK) == 2 * CHUNK + CHUNK // 2 + 1
    assert {0, ragged(CHUNK)} <= set(lengths)
    assert any(c.extra == "all" for c in fixed)
    strategy = cells(spec, "torch", "chunked", "float64", CHUNK, True)
    for T in (1, CHUNK - 1, CHUNK, CHUNK + 1, 37):
        find(strategy, lambda c, T=T: c.size("T") == T)
    for layout in LAYOUTS:
        find(strategy, lambda c, layout=layout: c.layout == layout)


@given(st.sampled_from(SPECS), st.data())
def test_drawn_cells_have_tensors_that_fit(name: str, data: st.DataObject) -> None:
    spec = smac.load(name)
    cell = data.draw(cells(spec, "torch", "chunked", "bfloat16", CHUNK, False))
    inputs = draw(spec, cell, recipe(spec))
    for item in spec.inputs:
        x = inputs[item.name]
        assert (x is None) == (item.name in cell.absent)
        if x is not None:
            assert list(x.shape) == [cell.size(a) for a in item.axes]
    assert eval(cell.literal()) == cell


@pytest.mark.parametrize("layout", LAYOUTS[:3])
def test_layouts_keep_values(layout: str) -> None:
    x = torch.randn(2, 3, 4, 5)
    y = laid_out(x, layout)
    assert torch.equal(x, y)
    assert y.is_contiguous() == (layout == "contiguous")


def test_specials_are_drawn() -> None:
    spec = smac.load("gla")
    sizes = (("B", 2), ("H", 2), ("N", 8), ("P", 2), ("T", 41))
    g = draw(spec, Cell("torch", "linear", "float64", sizes, special=True), recipe(spec))["g"]
    assert g is not None
    for value in (-math.inf, -256.0, -50.0, 0.0, 0.3):
        assert (g == value).any()


def test_tolerances_follow_the_type() -> None:
    exact = torch.randn(100, dtype=torch.float64)
    assert judge("v", "y", exact * (1 + 1e-12), exact, exact, 1).relative < 1e-10
    with pytest.raises(Broken, match="y is off by"):
        judge("v", "y", exact * (1 + 1e-9), exact, exact, 1)
    low = exact.to(torch.bfloat16)
    assert judge("v", "y", low, exact, low, 1).ratio == 1.0
    with pytest.raises(Broken, match="the baseline by"):
        judge("v", "y", (exact * 1.05).to(torch.bfloat16), exact, low, 1)
    with pytest.raises(Broken, match="y holds nan where the oracle is finite"):
        judge("v", "y", torch.full_like(low, math.nan), exact, low, 1)


def test_reports_add_up_go_through_json_and_fit_80_columns() -> None:
    row = Row("triton", "quadratic", "bfloat16", 12345, 1.5e-3, 1e-2, 1.04)
    bad = Failure("values", "y is off " * 40, "a cell " * 30, "replay('x',\n  Cell())")
    one = Report("x", (row,), (Skip("triton linear", "no law " * 30, 3),), (), 2.0)
    two = one + Report("x", (row,), (), (bad,), 1.0)
    assert one.ok
    assert not two.ok
    assert two.cells == 2 * 12345
    assert two.seconds == 3.0
    assert Report.from_json(json.loads(json.dumps(two.to_json()))) == two
    assert all(len(line) <= 80 for line in str(two).splitlines())
    assert not Report("x").ok


def test_a_child_that_dies_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    spec = smac.load("retnet")
    report = run_child(spec, Settings(draw={"gamma": "nonsense"}))  # type: ignore[dict-item]
    assert not report.ok
    assert "the child process ended with" in report.failures[0].message


@pytest.mark.parametrize("name", SPECS)
def test_shipped_specs_on_the_torch_target(name: str) -> None:
    report = check(name, targets=("torch",), quick=True)
    report += check(name, targets=("torch",), dtypes=("float64",), examples=5)
    assert report.ok, str(report)
    assert max(max(r.value, r.gradient) for r in report.rows if r.dtype == "float64") <= 1e-10
    assert {r.order for r in report.rows} >= {"quadratic"}


@pytest.mark.parametrize("name", sorted(set(shipped_specs()) - set(SPECS)))
def test_every_other_spec_on_the_torch_target(name: str) -> None:
    report = check(name, targets=("torch",), quick=True)
    assert report.ok, str(report)
    assert {r.order for r in report.rows} >= {"quadratic"}


@pytest.mark.parametrize("order", ["quadratic", "chunked", "linear"])
def test_shipped_specs_on_interpreted_triton(order: str) -> None:
    report = check("retnet", targets=("triton",), orders=(order,), dtypes=("float64",), quick=True)
    assert report.ok, str(report)


def test_replay_runs_a_cell_on_the_real_op() -> None:
    sizes = (("B", 1), ("H", 2), ("N", 3), ("P", 2), ("T", 37))
    replay("retnet", Cell("torch", "chunked", "float64", sizes, chunk=16))


class Together(Exact):
    """Lets packed sequences run on into each other."""

    def __call__(self, *, cu_seqlens: Any = None, **inputs: Any) -> Any:
        return super().__call__(**inputs)


def test_sequences_that_run_into_each_other_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smac.runtime.op, "compile", lambda spec, **_: Together(spec))
    report = check("toeplitz", targets=("torch",), orders=("quadratic",), dtypes=("float64",),
                   quick=True)  # fmt: skip
    assert [f.what for f in report.failures] == ["packed"]
