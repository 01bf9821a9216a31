"""The CPU benchmark measures what it says: both sides compute the same, bars are read rightly."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import cpu, planner
from benchmarks.cases import MODES, Shape, case, side
from benchmarks.memory import peak_bytes

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


def test_the_planner_benchmark_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two tiny cells: each in both modes, every order that can be had, the choice among them."""
    file = tmp_path / "figures.json"
    argv = ["--cells", "2", "--longest", "40", "--budget", "0.01", "--json", str(file)]
    assert planner.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[1:])) <= 100
    assert "worst regret" in lines[-1]
    figures = json.loads(file.read_text("utf-8"))["outcomes"]
    assert [f["mode"] for f in figures] == [*MODES, *MODES]
    for f in figures:
        assert "quadratic" in f["seconds"]
        assert set(f["choice"].split("/")) <= set(f["seconds"])
        assert f["best"] in f["seconds"]


def test_cells_of_a_seed_are_the_same_ones() -> None:
    assert planner.cells(5, 3) == planner.cells(5, 3) != planner.cells(5, 4)


def test_regret_of_a_choice_by_hand() -> None:
    """Forward and backward are chosen apart; the best is one order for both."""
    chosen = tuple(type("P", (), {"order": o})() for o in ("quadratic", "chunked"))
    seconds = {"quadratic": (1.0, 9.0), "chunked": (2.0, 3.0)}
    cell = planner.Drawn("ssd", {"T": 64})
    one, both = (planner.judged(cell, m, chosen, seconds, ()) for m in MODES)  # type: ignore[arg-type]
    assert (one.choice, one.best, one.ratio) == ("quadratic", "quadratic", 1.0)
    assert (both.choice, both.best, both.ratio) == ("quadratic/chunked", "chunked", 0.8)
    late = planner.judged(cell, MODES[0], chosen[::-1], seconds, ("linear",))  # type: ignore[arg-type]
    assert (late.choice, late.best, late.ratio) == ("chunked", "quadratic", 2.0)
    text = planner.table([late, both])
    assert "worst regret 2.00, bar 1.5: FAIL; 0 of 2 choices were the best" in text
    assert "1 orders left out" in text
