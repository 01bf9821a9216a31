"""The planner's constants are fitted to what was measured: planted ones are found again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import fit
from benchmarks.regret import key, named, share
from smac.parse import load
from smac.plan import make, rates
from smac.plan.rates import NARROW, WIDE, Rates

#: Where tiles and chunks are about as fast.
SIZES = [{"B": b, "T": t, "H": h, "N": n, "P": 64}
         for b, t, h in ((1, 256, 4), (2, 512, 8), (4, 1024, 8), (2, 1536, 16)) for n in (64, 128)]


def outcome(spec: str, sizes: dict[str, int], direction: str) -> dict[str, object]:
    """As planner.py leaves it: every candidate took what is predicted now."""
    p = make(load(spec), sizes=sizes, dtype="bfloat16", device="h100", target="triton",
             backward=direction == "backward")  # fmt: skip
    return {"cell": " ".join([spec, *(f"{a}={n}" for a, n in sizes.items())]),
            "direction": direction,
            "measured": {named(key(c)): c.time for c in p.candidates}}  # fmt: skip


def write(path: Path, outcomes: Sequence[object]) -> Path:
    path.write_text(json.dumps({"machine": {"row": "h100"}, "outcomes": outcomes}))
    return path


def measured(path: Path, by: Rates) -> list[fit.Known]:
    """Cells of a GPU on which `by` is the truth."""
    with fit.using(by):
        found = [outcome("retnet", s, d) for s in SIZES for d in ("forward", "backward")]
    return fit.read(write(path, found))


def test_constants_by_name_and_back() -> None:
    flat = fit.flat(NARROW)
    assert {"tile_step", "dots.sweep", "reach.swept back.1"} <= flat.keys()
    found = Rates()
    for name, value in flat.items():
        assert fit.flat(fit.moved(NARROW, name, 2 * value)) == {**flat, name: 2 * value}
        found = fit.moved(found, name, value)
    assert found == NARROW


def test_what_is_true_needs_no_fit(tmp_path: Path) -> None:
    known = measured(tmp_path / "cells.json", NARROW)
    assert fit.regrets(known, NARROW) == [1.0] * len(known) == [1.0] * 2 * len(SIZES)
    assert fit.fit(known, NARROW, 1, quiet=True) == NARROW
    assert share([1.0, 1.2]) == "1 of 2 choices (50.0 %) within 10 % of the best, worst 1.20"


def test_a_cell_is_planned_as_it_was_run(tmp_path: Path) -> None:
    """Without its gate: another pass over memory, which the measured calls did not make."""
    (known,) = fit.read(write(tmp_path / "ssd.json", [outcome("ssd", SIZES[0], "forward")]))
    assert "z" not in {i.name for i in known.request.spec.inputs}


def test_planted_constants_are_found(tmp_path: Path) -> None:
    """Tiles eight times as slow: choices are wrong, and right again when fitted."""
    planted = replace(NARROW, tile_step=8 * NARROW.tile_step, dots={**NARROW.dots, "tiles": 0.05})
    known = measured(tmp_path / "cells.json", planted)
    assert max(fit.regrets(known, NARROW)) > 1.1
    found = fit.fit(known, NARROW, 1, quiet=True)
    assert max(fit.regrets(known, found)) <= 1.1
    assert fit.loss(known, found, fit.flat(found)) < fit.loss(known, NARROW, fit.flat(NARROW)) / 2
    for name, value in fit.flat(found).items():
        if name.startswith(("dots", "reach")):
            assert value <= max(fit.MOST, fit.flat(NARROW)[name]), name


def test_a_choice_that_was_not_measured_is_not_judged(tmp_path: Path) -> None:
    one = outcome("retnet", SIZES[-1], "forward")
    (known,) = fit.read(write(tmp_path / "cells.json", [one]))
    times = known.times()
    first = min(times, key=lambda n: times[n])
    rest = {n: t for n, t in known.measured.items() if n != first}
    (left,) = fit.read(write(tmp_path / "rest.json", [{**one, "measured": rest}]))
    assert fit.regrets([left], NARROW) == []
    assert fit.read(write(tmp_path / "none.json", [{**one, "measured": {"linear fft": 1.0}}])) == []


def test_using_is_undone_and_is_of_16_bits_alone() -> None:
    other = replace(NARROW, tile_step=9.0)
    with fit.using(other):
        assert rates.rates(2) == other
        assert rates.rates(4) == rates.rates(8) == WIDE
    assert rates.rates(2) == NARROW


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    path.write_text('{"rows": []}')
    with pytest.raises(SystemExit) as refused:
        fit.main([str(path)])
    assert str(refused.value) == (
        f"{path}: expected what `python -m benchmarks.planner --device cuda` leaves, found "
        "KeyError: 'outcomes'")


def test_the_command_prints_shares_and_constants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    planted = replace(NARROW, tile_step=8 * NARROW.tile_step, dots={**NARROW.dots, "tiles": 0.05})
    measured(tmp_path / "cells.json", planted)
    assert fit.main([str(tmp_path / "cells.json"), "--minutes", "0.1"]) == 0
    now, held, fitted, *constants = capsys.readouterr().out.splitlines()
    assert now.startswith("now         ")
    assert held.startswith("held out    ")
    assert f"of {2 * len(SIZES)} choices" in held
    assert fitted.startswith("fitted      ")
    assert any(c.startswith("tile_step ") and " -> " in c for c in constants)
