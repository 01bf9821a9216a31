"""The Triton target on a real GPU (skipped without one), and what has changed since that run."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import pool
import report

HERE = Path(__file__).parent


def script() -> ModuleType:
    """tests/gpu/run.py as a module."""
    spec = importlib.util.spec_from_file_location("gpu_run", HERE / "run.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_every_cell_on_the_gpu() -> None:
    """The table of errors; verified.json."""
    import subprocess

    done = subprocess.run([sys.executable, str(HERE / "run.py")], text=True, capture_output=True,
                          check=False)  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_calls_are_played_captured_and_compiled() -> None:
    """Tapes, CUDA graphs and torch.compile have the bits of eager calls; opcheck finds nothing."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-m", "benchmarks.calls", "--check"], text=True,
                          capture_output=True, check=False, cwd=HERE.parents[1])  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_changes_since_the_last_green_run_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with another digest, a new one and a missing one are named; equal ones are not."""
    run = script()
    now = run.digests()
    first, second, *_ = now
    old = {**now, first: "0" * 64, "templates/triton/gone.jinja": "1"}
    del old[second]
    record = tmp_path / "verified.json"
    record.write_text(json.dumps({"digests": old}))
    monkeypatch.setattr(run, "RECORD", record)
    assert run.changed() == sorted([first, second, "templates/triton/gone.jinja"])
    record.write_text(json.dumps({"digests": now}))
    assert run.changed() == []
    broken = {"spec": "ssd", "order": "linear", "dtype": "float32", "failed": "Broken: y is off"}
    record.write_text(json.dumps({"digests": now, "failed": [broken], "left": 2}))
    assert run.changed() == ["(ssd linear float32: Broken: y is off)", "(2 cells were not run)"]


@pytest.mark.parametrize(("changed", "error"), [
    ({}, 1), ({"triton": "0"}, 2), ({"digests": {}}, 2), ({"results": []}, 2),
])  # fmt: skip
def test_a_cell_whose_program_is_what_it_was_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, object], error: int
) -> None:
    """It is where the versions, what starts programs, or the program are others."""
    import measure

    run = script()
    monkeypatch.setattr(run, "RECORD", tmp_path / "verified.json")
    monkeypatch.setattr(measure, "values", lambda *cell: {"error": 2})
    cell = run.cells("ssd")[0]
    made = run.run(cell)
    assert (made["error"], len(made["source"])) == (2, 64)
    known = {**report.machine(), "digests": run.digests(), "results": [{**made, "error": 1}]}
    run.RECORD.write_text(json.dumps({**known, **changed}))
    run._verified.cache_clear()
    assert run.run(cell)["error"] == error
    known["results"][0]["source"] = "another"
    run.RECORD.write_text(json.dumps(known))
    run._verified.cache_clear()
    assert run.run(cell)["error"] == 2
    monkeypatch.setenv(run.AGAIN, "1")
    run._verified.cache_clear()
    assert run.run(cell)["error"] == 2


def test_the_matrix_is_what_the_planner_takes() -> None:
    """Every shipped spec, in all orders and schedules that can be had, and in no other: a new spec,
    or an order that it can newly be run in, has to be verified. Others: in some of these."""
    from smac.paths import shipped_specs

    run = script()
    assert set(run.ORDERS) == set(shipped_specs())
    no = run.refused()
    for spec, orders in {**run.ORDERS, **run.MORE}.items():
        taken = {o for o in run.WAYS if any((spec, o, d) not in no for d in run.DTYPES)}
        # A planner's own choice is one of the others; segments are sweeps that start elsewhere.
        assert set(orders) <= taken, spec
        assert taken - {"auto", "segmented"} <= set(orders) or spec in run.MORE, spec
    assert {(c[0], c[1]) for c in run.cells() if c[5] is None} == {
        (s, o) for s, orders in {**run.ORDERS, **run.MORE}.items() for o in orders}  # fmt: skip
    names = [run._key(run.name_of(c)) for c in run.cells()]
    assert len(names) == len(set(names))


JOBS = """import os, time
def job(what):
    if what == "crash":
        os._exit(7)
    if what == "hang":
        time.sleep(60)
    if what == "raise":
        raise ValueError("no such thing")
    return {"pid": os.getpid(), "made": what.upper()}
"""


def test_a_pool_outlives_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers, exceptions, a crash and a hang; what is kept is not run again, what failed is."""
    monkeypatch.setattr(pool, "PRELOAD", [])
    (tmp_path / "odd_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    job = importlib.import_module("odd_jobs").job
    keep = tmp_path / "keep.jsonl"
    names = ("a", "crash", "b", "hang", "raise", "c")
    found = pool.resumed(job, {n: n for n in names}, keep, 1, 2.0, None)
    assert {n: found[n]["made"] for n in "abc"} == {"a": "A", "b": "B", "c": "C"}
    assert found["crash"] == {"failed": "the process died with exit code 7", "raised": False}
    assert found["hang"] == {"failed": "ran past 2 s", "raised": False}
    assert found["raise"] == {"failed": "ValueError: no such thing", "raised": True}
    assert found["a"]["pid"] != found["b"]["pid"]  # the crash was between them
    again = pool.resumed(job, {n: n for n in ("a", "raise", "d")}, keep, 1, 2.0, None)
    assert again["a"] == found["a"]
    assert again["raise"] == found["raise"]
    assert again["d"]["made"] == "D"
    assert pool.resumed(job, {"e": "e"}, keep, 1, 2.0, 0.0) == {}  # no time: left
    monkeypatch.setattr(pool, "sources", lambda: "others")
    assert pool.resumed(job, {"a": "a"}, keep, 1, 2.0, None)["a"]["pid"] != found["a"]["pid"]


def test_a_record_holds_right_and_wrong_cells(tmp_path: Path) -> None:
    """One cell that fails keeps no other from being written; the matrix has the worst of sizes."""
    cell = {"spec": "ssd", "order": "chunked", "dtype": "bfloat16", "state": False, "packed": None,
            "T": 300, "N": 48, "P": 40, "H": 4}  # fmt: skip
    right = {"error": 1e-3, "ratio": 0.5, "gradient_error": 2e-3, "gradient_ratio": 0.75}
    results = [
        {**cell, **right}, {**cell, **right, "T": 520, "ratio": 1.1},
        {**cell, **right, "dtype": "float64", "error": 3e-15, "gradient_error": 4e-15},
        {**cell, "dtype": "float32", "failed": "ran past 9 s"},
        {**cell, "spec": "gla", "packed": "sweep", "held": "as alone"},
    ]  # fmt: skip
    report.record(tmp_path / "v.json", results, 3, {"a": "1"}, {("ssd", "chunks", "float16"): "w"})
    made = json.loads((tmp_path / "v.json").read_text())
    assert (made["cells"], made["left"], len(made["results"])) == (4, 3, 4)
    assert [r["failed"] for r in made["failed"]] == ["ran past 9 s"]
    assert made["refused"] == [["ssd", "chunks", "float16", "w"]]
    lines = report.matrix(results).splitlines()
    assert lines[1].split() == ["gla", "packed", "chunked", "sweep", "as", "alone", "-", "-", "-"]
    assert lines[2].split() == ["ssd", "chunked", "1.10", "/", "0.75", "-", "FAILED", "4.0e-15"]
    said = report.failures(results)
    assert said == "FAILED ssd chunked float32 T=300 N=48 P=40: ran past 9 s"


def test_refusals_that_differ_in_a_type_are_one() -> None:
    why = {("a", "linear", d): f"takes no {d} (mask 'x{d}')" for d in report.DTYPES}
    made = report.refusals({**why, ("b", "linear", "float64"): "takes no float64 (mask 'y')"})
    assert made.splitlines()[1:] == ["  takes no this type (the mask)",
                                     "      a linear, b linear (float64)"]  # fmt: skip
