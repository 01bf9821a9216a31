"""`smac bench --calibrate`: a measured row is kept, plans of this machine use it, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import smac
from smac import cli
from smac.plan import TABLE, calibrated
from smac.plan.devices import Device, device_row
from smac.runtime import calibrate, device

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("SMAC_CALIBRATED", "1")
    calibrated._read.cache_clear()
    yield tmp_path / "smac" / "devices.json"
    calibrated._read.cache_clear()


def measured(**rates: float) -> Device:
    return replace(TABLE["cpu"], name="cpu*", **rates)  # type: ignore[arg-type]


def chosen(where: str | torch.device | None = None) -> tuple[str, str]:
    p = smac.compile("ssd", target="torch").plan(T=4096, H=2, device=where)
    return p.request.device, p.order


def test_plans_of_this_machine_use_the_row(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen() == ("cpu", "chunked")
    # No bandwidth to speak of: what touches fewest bytes wins, whatever its flops.
    slow = measured(bandwidth=1e3, cached=1e3, dot32=1e18, op=0.0)
    assert calibrated.keep(slow, device.machine(CPU)) == cache
    assert chosen() == chosen("cpu") == chosen(CPU) == chosen("cpu*")
    assert chosen()[0] == "cpu*"
    plans = [smac.compile("ssd", target="torch").plan(T=4096, H=2, device=d).chosen.time
             for d in ("cpu*", "h100")]  # fmt: skip
    assert plans[0] > 1e3 * plans[1]
    assert "on cpu*, target torch" in smac.compile("ssd").plan(T=64, device="cpu").explain()
    y = smac.compile("linear_attention")(*(torch.ones(1, 4, 1, 2) for _ in range(3)))
    assert torch.isfinite(y).all()
    monkeypatch.setenv("SMAC_CALIBRATED", "0")
    assert chosen() == ("cpu", "chunked")


def test_a_row_of_another_machine_does_not_count(cache: Path) -> None:
    calibrated.keep(measured(), "another one, 64 threads")
    assert chosen()[0] == "cpu"
    assert device_row("cpu*") == measured()


def test_rows_are_kept_beside_each_other(cache: Path) -> None:
    calibrated.keep(measured(), "a")
    calibrated.keep(replace(TABLE["h100"], name="h100*"), "b")
    calibrated.keep(measured(op=1.0), "c")
    assert {n: (m, r.op) for n, (m, r) in calibrated.rows().items()} == {
        "cpu*": ("c", 1.0), "h100*": ("b", TABLE["h100"].op)}  # fmt: skip


@pytest.mark.parametrize("spoilt", [
    {"bandwidth": 0}, {"bandwidth": -1}, {"units": 1.5}, {"dot32": "fast"}, {"name": "h100"},
    {"more": 1}, {"scalar": None},
])  # fmt: skip
def test_a_spoilt_row_is_left_out(spoilt: dict[str, object], cache: Path) -> None:
    calibrated.keep(measured(), device.machine(CPU))
    file = json.loads(cache.read_text())
    file["rows"]["cpu*"]["row"] |= spoilt
    cache.write_text(json.dumps(file))
    calibrated._read.cache_clear()
    assert chosen() == ("cpu", "chunked")
    with pytest.raises(smac.PlanError, match=r"found 'cpu\*'.*smac bench --calibrate measures"):
        device_row("cpu*")


def test_the_cpu_is_measured() -> None:
    """Every rate is positive and finite at small sizes; what is no rate stays as shipped."""
    steps = list(calibrate.calibrate(CPU, small=True))
    assert [what for what, _ in steps] == ["matrix products", "memory", "operations",
                                           "scalar work", "threads"]  # fmt: skip
    row = steps[-1][1]
    assert calibrated._possible(row)
    assert row.name == "cpu*"
    assert row.units == torch.get_num_threads()
    assert (row.cache, row.in_flight) == (TABLE["cpu"].cache, TABLE["cpu"].in_flight)


def test_the_command_keeps_what_it_prints(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(_: torch.device) -> Iterator[tuple[str, Device]]:
        yield "all of it", measured(bandwidth=123e9)

    monkeypatch.setattr(calibrate, "calibrate", fake)
    assert cli.main(["bench", "--calibrate", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "measured: all of it" in err
    assert "bandwidth      1.23e+11        5e+09" in out
    assert f"{cache}: written" in out
    assert calibrated.rows()["cpu*"][1].bandwidth == 123e9


@pytest.mark.parametrize("argv", [["bench"], ["bench", "ssd", "--calibrate"]])
def test_bench_takes_a_spec_or_calibrates(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 1
    assert "of SPEC and --calibrate; expected one of them" in capsys.readouterr().err
