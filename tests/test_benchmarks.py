"""The CPU benchmark measures what it says: both sides compute the same, bars are read rightly."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from benchmarks import cpu
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
    text = cpu.table([ROW], {"forward": 1.2})
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
