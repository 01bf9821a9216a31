"""Tuning: the space, trials in children that crash, hang or are wrong, and what is remembered."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import smac
from smac import cachefile
from smac.plan.config import COLUMNS, STAGES, WARPS, Config, Tiles
from smac.plan.space import MODES, MOST, replanned, space
from smac.runtime import children, tune
from smac.runtime.children import Result

SIZES = {"B": 1, "T": 256, "H": 2, "N": 8, "P": 8}
WORSE = Path(__file__).with_name("worse_trial.py")
configs = st.builds(
    Config, st.sampled_from(("chunked", "quadratic", "linear")), st.text(max_size=9),
    st.integers(1, 2**20), st.builds(Tiles, st.sampled_from((None, *COLUMNS)),
                                     st.sampled_from((None, *WARPS)),
                                     st.sampled_from((None, *STAGES))),
)  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cachefile._miss.cache_clear()
    return tmp_path / "smac" / "tune"


def inputs(T: int = 256, grad: bool = False) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    shape = (1, T, 2, 8)
    made = {n: torch.randn(shape, generator=g) for n in ("q", "k", "v")}
    return {n: x.requires_grad_(grad) for n, x in made.items()} | {"gamma": torch.full((2,), 0.9)}


# ---- the space -------------------------------------------------------------------------------


@given(configs)
def test_a_configuration_survives_json(config: Config) -> None:
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                    lambda x: st.lists(x, max_size=3) | st.dictionaries(
                        st.sampled_from(("order", "schedule", "chunk", "tiles", "warps")), x)))
def test_anything_else_is_no_configuration(found: object) -> None:  # fmt: skip
    assert Config.from_dict(found) is None


@pytest.mark.parametrize(("field", "value"), [("warps", 3), ("columns", 8.0), ("stages", True)])
def test_tiles_that_no_kernel_has_are_no_configuration(field: str, value: object) -> None:
    found: Any = Config("chunked", "sweep", 64).to_dict()
    found["tiles"][field] = value
    assert Config.from_dict(found) is None


@given(st.sampled_from(("ssd", "retnet", "gla", "toeplitz", "rwkv6")), st.sampled_from(MODES),
       st.sampled_from((("cpu", "float32"), ("h100", "bfloat16"), ("h100", "float64"))),
       st.booleans(), st.sampled_from((17, 300, 4096)))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_the_space_is_small_distinct_and_legal(
    name: str, mode: str, on: tuple[str, str], backward: bool, T: int
) -> None:
    plan = smac.compile(name).plan(T=T, device=on[0], dtype=on[1], backward=backward)
    found = space(plan, mode)
    assert found[0] == plan.config
    assert len(set(found)) == len(found) <= MOST[mode]
    assert [replanned(plan, c).config for c in found] == list(found)
    assert set(space(plan, "quick", chunk=plan.chunk)) <= set(space(plan, "full"))


def test_a_forced_chunk_and_order_stay() -> None:
    plan = smac.compile("ssd", order="chunked", chunk=32).plan(device="h100", dtype="bfloat16")
    assert {(c.order, c.chunk) for c in space(plan, "full", 32)} == {("chunked", 32)}


def test_a_configuration_that_does_not_fit_says_so() -> None:
    plan = smac.compile("ssd").plan(T=40, device="cpu")
    with pytest.raises(smac.PlanError) as e:
        replanned(plan, Config("chunked", "segments", 64))
    assert str(e.value) == (
        "ssd: found configuration 'chunked segments 64', which runs here as 'quadratic tiles 64'; "
        "expected one that fits T = 40")  # fmt: skip


def test_a_plans_tiles_reach_the_source_and_explain() -> None:
    from smac.codegen import emit
    from smac.lower import forward

    plan = smac.compile("ssd").plan(device="h100", dtype="bfloat16")
    own, cut = (emit(forward(p), "triton").text for p in
                (plan, replace(plan, tiles=Tiles(128, 8, 2))))  # fmt: skip
    assert "num_warps=8," in cut
    assert "num_warps=8," not in own
    assert "num_stages=min(stages(op, rows(32, op), width(n_N, op), columns(n_P, op)), 2)," in cut
    assert "        return min(width(n, dtype), 128)" in cut
    assert "32, 128 columns, 8 warps, 2 stages: " not in plan.explain()
    told = " ".join(replace(plan, tiles=Tiles(128, 8, 2)).explain().split())
    assert "schedule sweep, 128 columns, 8 warps, 2 stages: " in told


# ---- trials ----------------------------------------------------------------------------------


def test_the_first_call_searches_and_the_next_process_does_not(
    cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    op = smac.compile("retnet", tune="quick", order="chunked")
    x = inputs()
    assert torch.allclose(op(**x).double(), op.reference(**x), atol=1e-4)
    told = capfd.readouterr().err
    assert told.startswith("smac tune: retnet forward, float32 on cpu, B=1 T=256")
    assert told.count("chunked segments") == 4
    assert told.count("\n* ") == 1
    assert "(planned)" in told
    (file,) = cache.iterdir()
    found = json.loads(file.read_text())
    kept = Config.from_dict(found["value"]["config"])
    assert op.plan(**SIZES).config == kept
    assert found["key"]["spec"] == op.spec.digest
    assert found["key"]["torch"] == torch.__version__
    code = ("import torch, smac\nfrom smac.runtime import tune\ntune.drive = None\n"
            "op = smac.compile('retnet', tune='quick', order='chunked')\n"
            "q, k, v = torch.randn(3, 1, 250, 2, 8)\n"
            "op(q, k, v, torch.full((2,), 0.9))\n"
            "print(op.plan(B=1, T=250, H=2, N=8, P=8).config)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(kept)
    assert done.stderr == ""


def test_what_crashes_hangs_or_is_wrong_is_noted_and_the_others_go_on(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(children, "COMMAND", (sys.executable, str(WORSE)))
    # As long as a child may take to import torch on a machine that has other work.
    monkeypatch.setattr(children, "EACH", 25.0)
    op = smac.compile("retnet", tune="quick", order="chunked")
    x = inputs()
    assert torch.allclose(op(**x).double(), op.reference(**x), atol=1e-4)
    told = {line[2:22].strip(): line[22:].strip() for line in
            capfd.readouterr().err.splitlines()[1:]}  # fmt: skip
    assert told["chunked segments 16"].startswith("ended with code -6")
    assert told["chunked segments 32"].startswith("was silent for 25 s and was ended")
    assert told["chunked segments 128"].startswith("y is off by 2.0e-01 (rms, relative), more tha")
    assert "(planned)" in told["chunked segments 64"]
    assert op.plan(**SIZES).chunk == 64


def test_children_that_never_come_to_a_trial_leave_the_planners_choice(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(children, "COMMAND", (sys.executable, "-c", "raise SystemExit('no luck')"))
    op = smac.compile("retnet", tune="quick")
    op(**inputs())
    told = capfd.readouterr().err
    assert "before it was tried, the child ended with code 1: no luck  (planned)" in told
    assert not cache.exists(), "a search without a result is not remembered"


# ---- what is remembered ----------------------------------------------------------------------


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No children: the second configuration is twice as fast; what was searched for, in order."""
    found: list[str] = []

    def drive(job: Any, configs: dict[int, Config], stage: str, notice: Any) -> dict[int, Result]:
        found.append("backward" if job.backward else "forward")
        return {i: Result(c, 1.0 if i == 1 else 2.0) for i, c in configs.items()}

    monkeypatch.setattr(tune, "drive", drive)
    return found


def test_forward_and_backward_are_searched_apart_and_sizes_by_bucket(
    cache: Path, searched: list[str]
) -> None:
    def run(mode: str, T: int) -> None:
        y = smac.compile("retnet", tune=mode)(**inputs(T, grad=True))
        torch.autograd.grad(y.sum(), [x for x in inputs(T, grad=True).values()
                                      if x.requires_grad], allow_unused=True)  # fmt: skip

    run("quick", 256)
    assert searched == ["forward", "backward"]
    run("quick", 200)
    assert len(searched) == 2, "lengths from 129 to 256 are one bucket"
    run("quick", 300)
    assert len(searched) == 4
    run("full", 256)
    assert len(searched) == 6, "a quick search does not answer for a full one"
    run("quick", 256)
    assert len(searched) == 6, "a full search answers for a quick one"
    assert tune.RESULTS.count() == 4


@pytest.mark.parametrize("text", [
    "", "{", "[]", "[" * 5000, '{"key": {}, "value": {}}', "null", "\x00\xff",
])  # fmt: skip
def test_a_corrupt_file_is_a_miss_and_is_written_again(
    cache: Path, searched: list[str], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    smac.compile("retnet", tune="quick")(**inputs())
    (file,) = cache.iterdir()
    good = file.read_text()
    file.write_text(text, encoding="latin-1")
    smac.compile("retnet", tune="quick")(**inputs())
    assert len(searched) == 2
    assert file.read_text() == good
    assert f"{file}: not used: " in caplog.text


@pytest.mark.parametrize("change", [
    {"chunk": 48}, {"order": "fast"}, {"schedule": "sweep"}, {"chunk": 2**30}, {"chunk": -1},
])  # fmt: skip
def test_a_configuration_that_cannot_be_is_a_miss(
    cache: Path, searched: list[str], change: dict[str, object]
) -> None:
    smac.compile("retnet", tune="quick")(**inputs())
    (file,) = cache.iterdir()
    found = json.loads(file.read_text())
    found["value"]["config"] |= change
    file.write_text(json.dumps(found))
    smac.compile("retnet", tune="quick")(**inputs())
    assert len(searched) == 2


def test_another_version_or_device_is_a_miss(
    cache: Path, searched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    smac.compile("retnet", tune="quick")(**inputs())
    monkeypatch.setattr(tune, "versions", lambda: {"torch": "9", "triton": "9"})
    smac.compile("retnet", tune="quick")(**inputs())
    monkeypatch.setattr(tune, "device_name", lambda _: "another")
    smac.compile("retnet", tune="quick")(**inputs())
    assert len(searched) == 3


def test_without_tune_nothing_is_searched_or_read(cache: Path, searched: list[str]) -> None:
    smac.compile("retnet")(**inputs())
    smac.compile("retnet", tune="full").step(
        smac.compile("retnet").init_state(B=1, H=2, N=8, P=8),
        **{n: x[:, 0] if x.dim() > 1 else x for n, x in inputs().items()})  # fmt: skip
    assert not searched
    assert not cache.exists()
