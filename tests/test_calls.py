"""The benchmark of calls, without a GPU: counts, bare launches, the table, checks that can fail.

Nothing here asserts on time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks import calls, calls_check
from benchmarks.calls import CASES, Cost, bare, counts, measure, table
from benchmarks.calls_check import Sample
from smac.runtime.direct import STREAM
from smac.runtime.tape import Called, Launched, Tape


def test_a_case_is_measured_on_the_cpu() -> None:
    cost = measure(CASES[2], "cpu", samples=1)
    assert cost.forward > 0 and cost.both > 0 and cost.empty > 0  # noqa: PT018
    assert (cost.bare, cost.beyond, cost.launches, cost.note) == (None, None, (0, 0), "")


def tape(launched: list[Any]) -> Tape:
    """A tape that makes a tensor, launches on it, the input and scratch, and sums."""
    steps = (
        Called(torch.empty_strided, [(2,), (1,)], {}, (), False, (1,), True, ((1, 0),)),
        Launched(lambda *x: launched.append(x), [6, 1, 1, 0, 0, 0, 0, 5], ((4, 0), (5, 1), (6, 2))),
        Called(torch.sum, [0], {}, ((0, 1),), False, (3,), True, (), (1,)),
    )
    return Tape(steps, (3,), 3, 512, ((2, 0),), torch.device("cpu"))


def test_launches_are_counted_and_run_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[Any] = []
    made = tape(launched)
    assert counts((made, replace(made, steps=made.steps[1:2]))) == ((1, 1), (2, 1))

    class Stream:
        cuda_stream = 9

    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    x = torch.ones(2)
    run, (held, block) = bare(made, [x])  # type: ignore[misc]
    launched.clear()
    run()
    due = (6, 1, 1, 9, x.data_ptr(), held[1].data_ptr(), block.data_ptr(), 5)
    assert launched == [due]
    assert due[STREAM] == 9


def test_the_table() -> None:
    cost = Cost("ssd 1,64", 31.25, 11.0, 250.0, 200.0, (2, 4), (3, 14))
    assert table([cost, replace(cost, bare=None, note="not played")]).splitlines() == [
        "case B,T,H,P,N,G                forward   bare  beyond     f+b   empty  ratio  launches",
        "ssd 1,64                           31.2   11.0    20.2   250.0   200.0   1.25"
        "  3 + 14, SMAC's own 2 + 4",
        "ssd 1,64                           31.2      –       –   250.0   200.0   1.25"
        "  3 + 14, SMAC's own 2 + 4 not played",
    ]


def test_a_compiled_call_is_held_to_an_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """And other bits are seen."""
    sample = Sample.of("linear_attention", {}, True, False, "cpu")
    calls_check.compiled(sample)
    monkeypatch.setattr(torch, "compile", lambda f, fullgraph: lambda **x: (
        lambda y, s: (y * (1 + 1e-6), s))(*f(**x)))  # fmt: skip
    with pytest.raises(AssertionError, match="result 0 has other bits"):
        calls_check.compiled(sample)


def test_what_fails_is_reported(monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    def wrong(sample: Sample) -> None:
        raise AssertionError("other bits")

    def right(sample: Sample) -> None: ...

    monkeypatch.setattr(calls_check, "CASES", (("ssd", {"order": "quadratic"}, False, True),))
    monkeypatch.setattr(calls_check, "checks", lambda device: (right, wrong))
    assert calls.main(["--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "ssd quadratic packed         right ok, wrong FAILED (AssertionError: other bits)",
        "1 checks failed",
    ]
