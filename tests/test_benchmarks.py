"""The CPU benchmark measures what it says: both sides compute the same, bars are read rightly."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import compiled, cpu, crossover, planner, regret
from benchmarks.cases import MODES, Shape, case, side
from benchmarks.memory import peak_bytes
from smac.errors import PlanError

SMALL = Shape(1, 100, 4, 8, 16, 2)
ROW = cpu.Row("1,4096,24,64,128,1", 4096, "forward", 0.1, default=0.5, best=0.29,
              best_chunk="chunk 64", smac_bytes=2**20, default_bytes=2**22,
              difference=1e-7)  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_smac_and_transformers_agree(mode: str) -> None:
    """y, and in forward+backward the gradient of every input, within float32's rounding."""
    c = case(SMALL)
    ours, theirs = side(c, "smac", mode)(), side(c, "chunk 32", mode)()
    assert len(ours) == (1 if mode == "forward" else 1 + len(c.inputs))
    assert cpu.difference(ours, theirs) < 2e-5


def test_bars_at_the_long_shape() -> None:
    assert cpu.bars(ROW) == [
        ("x default", pytest.approx(5.0), 5.0, True),
        ("x best", pytest.approx(2.9), 3.0, False),
        ("memory share", 0.25, 0.25, True),
    ]


def test_bars_elsewhere_ask_only_not_to_be_behind() -> None:
    other = replace(ROW, T=1024, smac=0.3, smac_bytes=2**21)
    assert [(what, met) for what, _, _, met in cpu.bars(other)] == [
        ("x best", False), ("memory share", False)]  # fmt: skip


def test_the_table_shows_every_bar_and_fits_a_screen() -> None:
    text = cpu.table([ROW], {"forward": 1.2}, {"forward": 1.3})
    assert "1.20 of linear, bar 1.1 FAIL; 1.30 with new pages" in text
    assert text.count("pass") == 2
    assert text.count("FAIL") == 2
    assert max(map(len, text.splitlines())) <= 100


def test_medians_take_turns_and_warm_up() -> None:
    order: list[str] = []
    pauses = iter([0.0, 0.03, 0.0, 0.0])

    def slow() -> None:
        order.append("slow")
        time.sleep(next(pauses))

    taken = cpu.medians({"slow": slow, "quick": lambda: order.append("quick")}, 3)
    assert order == ["slow", "quick"] * 4
    assert taken["slow"] < 0.02, "one slow moment of three moves no median"


def test_memory_of_a_child_counts_what_it_makes() -> None:
    """transformers at chunk 64 keeps at least scores [T, chunk, H] and y; not its inputs."""
    shape = Shape(1, 2048, 8, 16, 16, 1)
    peak = peak_bytes("chunk 64", "forward", shape)
    assert 2048 * 64 * 8 * 4 < peak < 100 * 2**20


def test_a_failing_child_says_why() -> None:
    with pytest.raises(RuntimeError, match="invalid literal"):
        peak_bytes("chunk x", "forward", SMALL)


def test_the_generated_forward_can_be_compiled_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo takes the printed function (Inductor takes minutes, so that is left out here)."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, dynamic: real(f, backend="eager",
                                                                  dynamic=dynamic))  # fmt: skip
    found = compiled.measure(SMALL, 1)
    assert found.difference < 1e-6
    assert str(found).startswith(f"{SMALL!s:22}torch.compile on the generated forward: ")
    assert len(str(found)) <= 110


def test_the_planner_benchmark_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tiny cells: each both ways, every candidate measured, the choice among them; a second
    run goes on, other sources begin anew."""
    argv = ["--cells", "2", "--longest", "40", "--budget", "0.001", "--out", str(tmp_path)]
    assert planner.main(argv) == 0
    out = capsys.readouterr().out
    assert "bars 95 %, 1.5" in out
    assert max(map(len, (tmp_path / "planner_cpu.txt").read_text("utf-8").splitlines()[1:])) <= 100
    figures = json.loads((tmp_path / "planner_cpu.json").read_text("utf-8"))
    assert [f["direction"] for f in figures["outcomes"]] == [*regret.DIRECTIONS] * 2
    for f in figures["outcomes"]:
        assert set(f["measured"]) <= set(f["predicted"])
        assert f["choice"] in f["measured"]
        assert f["failed"] is None
    seen: list[str] = []
    real = regret.outcomes
    monkeypatch.setattr(planner, "outcomes",
                        lambda c, *rest: (seen.append(str(c)), real(c, *rest))[1])  # fmt: skip
    assert planner.main([*argv, "--cells", "3"]) == 0
    assert len(seen) == 1
    assert planner.main([*argv, "--report"]) == 0
    monkeypatch.setattr(planner.store, "sources", lambda: "others")
    assert planner.main([*argv, "--cells", "1"]) == 0
    assert len(seen) == 2


@pytest.mark.parametrize("device", regret.LIMITS)
def test_cells_of_a_seed_are_the_same_ones(device: str) -> None:
    drawn = regret.cells(300, 3, device)
    assert drawn == regret.cells(300, 3, device) != regret.cells(300, 4, device)
    limits = regret.LIMITS[device]
    lengths = sorted(c.sizes["T"] for c in drawn)
    assert lengths[-1] <= limits.longest
    assert all(t % limits.step == 0 for t in lengths)
    middle = (lengths[0] * limits.longest) ** 0.5
    assert middle / 4 < lengths[150] < middle * 4, "T is log-uniform, but for what is too large"
    assert {c.spec for c in drawn} == set(regret.SPECS)
    for c in drawn:
        if limits.like:  # one kernel serves all of them
            assert all(c.sizes[a] % 16 not in (0, 1) or c.sizes[a] % 16 == 1 < c.sizes[a]
                       for a in "BH")  # fmt: skip
        assert c.sizes["B"] * c.sizes["T"] * c.sizes["H"] <= limits.elements


def outcome(**changed: Any) -> regret.Outcome:
    return regret.Outcome(**{
        "cell": "ssd T=64", "direction": "forward", "choice": "chunked 64 sweep",
        "measured": {"chunked 64 sweep": 1.2e-3, "quadratic 64 tiles": 1e-3},
        "predicted": {"chunked 64 sweep": 1e-3, "quadratic 64 tiles": 2e-3,
                      "quadratic 32 tiles": 3e-3, "linear tokens": 1.0},
        "left_out": ("linear tokens",), **changed})  # fmt: skip


def test_regret_by_hand() -> None:
    late = outcome()
    assert (late.best, late.ratio) == ("quadratic 64 tiles", pytest.approx(1.2))
    right = outcome(direction="backward", choice="quadratic 64 tiles")
    broken = outcome(measured={"quadratic 64 tiles": 1e-3}, cell="gla T=64",
                     failed={"chunked 64 sweep": "CodegenError: no\nway"})  # fmt: skip
    assert broken.ratio is None
    text = planner.table([late, right, broken])
    assert "1 of 2 choices (50.0 %) within 10 % of the best, worst 1.20; bars 95 %" in text
    assert "1.5: MISSED" in text
    assert "3 candidates left out as hopeless by prediction, 1 failed" in text
    assert "chunke 64 sweep  1.2/1" in text
    assert "failed: gla T=64 forward, chunked 64 sweep: CodegenError: no way" in text
    assert "held" in planner.summary([right])
    assert "tuning" not in planner.summary([right])
    both = outcome(tried=("chunked 64 sweep", "quadratic 64 tiles", "quadratic 16 tiles"))
    assert both.tuned == 1.0
    assert outcome(tried=("chunked 64 sweep",)).tuned == pytest.approx(1.2)
    assert "tries: 1 of 1 (100.0 %), worst 1.00; bar 99 %: held" in planner.summary([both])


def test_a_candidate_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = regret.Drawn("toeplitz", {"B": 1, "T": 32, "H": 1, "N": 4, "P": 4})
    real = regret.forced

    def forced(spec: str, k: regret.Key, device: str) -> Any:
        if k[0] == "linear":
            raise ValueError("a defect")
        return real(spec, k, device)

    monkeypatch.setattr(regret, "forced", forced)
    for o in regret.outcomes(cell, "cpu", lambda run: (run(), 1.0)[1]):
        assert o.failed == {"linear fft": "ValueError: a defect"}
        assert o.measured == {"quadratic 32 tiles": 1.0}


def test_a_backward_that_is_refused_is_no_failure_of_the_forward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As segments of float16 whose backward would be chunks."""
    cell = regret.Drawn("toeplitz", {"B": 1, "T": 32, "H": 1, "N": 4, "P": 4})
    real = regret.runs

    def runs(op: Any, inputs: Any) -> Any:
        yield next(real(op, inputs))
        raise PlanError("toeplitz: no backward")

    monkeypatch.setattr(regret, "runs", runs)
    forward, backward = regret.outcomes(cell, "cpu", lambda run: (run(), 1.0)[1])
    assert forward.failed is None
    assert forward.measured
    assert set(backward.failed or {}) == set(backward.predicted)
    assert not backward.measured


def test_crossovers_by_hand(tmp_path: Path) -> None:
    """Lines that cross between two points, one that never does, one that always did."""
    def line(*seconds: float) -> crossover.Curve:
        return list(zip((16, 32, 64, 128), seconds, strict=True))

    flat = line(2, 2, 2, 2)
    assert crossover.crossing({"quadratic": line(1, 2, 4, 8), "chunked": flat}) == 32
    assert crossover.crossing({"quadratic": line(1, 1, 4, 8), "chunked": flat}) == pytest.approx(
        32 * 2**0.5)  # fmt: skip
    assert crossover.crossing({"quadratic": line(1, 1, 1, 1), "chunked": flat}) is None
    assert crossover.crossing({"quadratic": line(3, 3, 3, 3), "chunked": flat}) == 16
    assert crossover.crossing({"quadratic": flat}) is None
    found = [outcome(cell=f"ssd B=1 T={t} H=2", direction=d,
                     measured={"chunked 64 sweep": 1.0, "quadratic 64 tiles": t / 100,
                               "quadratic 32 tiles": 9.0})
             for t in (64, 128, 256) for d in regret.DIRECTIONS]  # fmt: skip
    assert crossover.curves(found, "ssd", "forward", "measured") == {
        "quadratic": [(64, 0.64), (128, 1.28), (256, 2.56)],
        "chunked": [(64, 1.0), (128, 1.0), (256, 1.0)]}  # fmt: skip
    assert crossover.said(found).splitlines()[1].split() == ["ssd", "forward", "64", "100"]
    if find_spec("matplotlib"):
        assert crossover.plot(found, tmp_path / "a.png", "title").stat().st_size > 10**4
        assert crossover.scatter(found, tmp_path / "b.png", "title").stat().st_size > 10**4


@pytest.mark.parametrize("device", regret.LIMITS)
def test_crossover_cells_can_be_planned(device: str) -> None:
    every = crossover.sweep(device)
    assert len({str(c) for c in every}) == len(every)
    for cell in every[-1:]:
        first, last = regret.plans(cell, device)
        assert len(first.candidates) > 1 < len(last.candidates)
