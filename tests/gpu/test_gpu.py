"""The Triton target on a real GPU (skipped without one), and what has changed since that run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

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
    """The table of errors; verified.json when all is right."""
    import subprocess
    import sys

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


def test_the_matrix_covers_every_shipped_spec() -> None:
    """A new spec has to say in which orders it is verified."""
    from smac.paths import shipped_specs

    assert set(script().ORDERS) == set(shipped_specs())
