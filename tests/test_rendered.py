"""Rendered modules read like code: no name undefined, none unused, no line of blanks."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from drawn import BY_FFT, CHUNKED, SPECS, STATEFUL

import smac

ORDERS = ("quadratic", "chunked", "linear")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The torch sources of every shipped spec and order, with and without states, as files."""
    out = tmp_path_factory.mktemp("rendered")
    for name in SPECS:
        known = ORDERS if name in CHUNKED else ORDERS[::2] if name in BY_FFT else ORDERS[:1]
        for order in known:
            op = smac.compile(name, target="torch", order=order)
            for state in (False, True) if name in STATEFUL and order != "quadratic" else (False,):
                made = op._source("torch", {}, "float64", "cpu", state, ())
                (out / f"{name}_{order}_{state}.py").write_text(made.text, "utf-8")
    return out


def test_ruff_finds_nothing(folder: Path) -> None:
    assert len(list(folder.iterdir())) == 81
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select",
         "F,E4,E7,E9,W,B,RUF059", "--ignore", "E741", "--output-format", "concise", "."],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def test_functions_have_no_holes(folder: Path) -> None:
    for path in folder.iterdir():
        body = path.read_text("utf-8").split("\ndef forward(")[1]
        assert "\n\n\n\n" not in body, path.name
        assert "    \n" not in body, path.name


@pytest.mark.parametrize(("rows", "whole", "kept", "deep", "chip", "due"), [
    (64, 128, 64, True, 227, 4), (64, 128, 64, False, 227, 3), (64, 128, 64, True, 163, 3),
    (64, 64, 64, True, 227, 3),  # two programs share an SM
    (64, 256, 64, True, 227, 1), (64, 128, 128, True, 227, 2),
])  # fmt: skip
def test_a_program_alone_on_its_sm_has_one_load_more_in_flight(
        rows: int, whole: int, kept: int, deep: bool, chip: int, due: int) -> None:  # fmt: skip
    text = smac.compile("ssd", target="triton").source(target="triton")
    known: dict[str, Any] = {"on_chip": lambda: chip * 1024}
    (stages,) = (f for f in ast.parse(text).body
                 if isinstance(f, ast.FunctionDef) and f.name == "stages")  # fmt: skip
    exec(ast.unparse(stages), known)
    assert known["stages"](SimpleNamespace(itemsize=2), rows, whole, kept, deep) == due
    assert known["stages"](SimpleNamespace(itemsize=4), rows, whole, kept, deep) == 1


def test_a_sweep_of_a_normaliser_takes_no_load_more() -> None:
    """Its column pads V's: lion's loads in flight asked for more on chip than there is."""
    sizes = {"N": 128, "P": 64}
    plain = smac.compile("retnet", target="triton", order="chunked", schedule="sweep", chunk=64)
    assert "deep=True" in plain.source(**sizes)
    for name in ("lion", "linear_attention"):
        op = smac.compile(name, target="triton", order="chunked", schedule="sweep", chunk=64)
        assert "deep=True" not in op.source(**sizes)
