"""The built wheel in a fresh environment, away from the checkout: specs and templates go along."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import pathlib, sys, torch, smac
root = pathlib.Path(sys.argv[1])
assert root not in pathlib.Path(smac.__file__).parents, smac.__file__
op = smac.compile("ssd")
torch.manual_seed(0)
x, dt = torch.randn(1, 70, 4, 8), torch.randn(1, 70, 4)
B, C = torch.randn(2, 1, 70, 2, 16)
inputs = dict(x=x, dt=dt, A=-torch.rand(4), B=B, C=C)
error = (op(**inputs) - op.reference(**inputs)).abs().max().item()
assert error < 1e-4, error
print("compiled", smac.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command that must succeed, run without this process' Python settings."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by hatchling from this checkout without a network."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=ROOT)
    (built,) = out.glob("smac_kernels-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new venv that holds the wheel, and borrows torch and the like from this one."""
    home = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", home / "venv", cwd=home)
    (site,) = (home / "venv" / "lib").glob("python*/site-packages")
    # The folder alone is added: the .pth files in it, where an editable install points at the
    # checkout, are not read.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    python = home / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=home)
    return python


def test_the_wheel_holds_every_spec_and_template(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, pattern in (("specs", "*.toml"), ("templates", "*.jinja")):
        shipped = list((ROOT / folder).rglob(pattern))
        assert shipped, f"no {pattern} below {folder}/"
        for path in shipped:
            assert f"smac/_data/{path.relative_to(ROOT).as_posix()}" in names
    assert not [n for n in names if n.startswith(("tests/", "examples/", "benchmarks/"))]


def test_ssd_compiles_and_runs_from_the_wheel(python: Path, tmp_path: Path) -> None:
    assert "compiled" in run(python, "-W", "ignore", "-c", SCRIPT, ROOT, cwd=tmp_path)


def test_smac_list_runs_from_the_wheel(python: Path, tmp_path: Path) -> None:
    shown = run(python.parent / "smac", "list", cwd=tmp_path)
    for spec in (ROOT / "specs").glob("*.toml"):
        assert spec.stem in shown
