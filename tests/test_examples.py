"""Every example runs to its end (each asserts what it shows) and stays short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import smac

FOLDER = Path(__file__).resolve().parent.parent / "examples"
EXAMPLES = sorted(p.name for p in FOLDER.glob("[0-9][0-9]_*.py"))
#: A line that each must print: the proof that it came to its point.
SAYS = {
    "01_hello.py": "last token by step: largest difference",
    "02_new_mask.py": "chunked    relative error",
    "03_property_test.py": "gated_retention",
    "04_mamba2.py": "40 tokens generated, equal: True",
    "05_variants.py": "4 variants, all checked",
    "demo.py": "All well.",
}


def test_every_example_is_listed() -> None:
    assert [*EXAMPLES, "demo.py"] == sorted(SAYS)


@pytest.mark.parametrize("name", sorted(SAYS))
def test_example_runs(name: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", FOLDER / name], cwd=tmp_path, text=True,
                          env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert SAYS[name] in done.stdout


@pytest.mark.parametrize("name", sorted(p.name for p in FOLDER.glob("*.py")))
def test_example_is_short(name: str) -> None:
    assert len((FOLDER / name).read_text("utf-8").splitlines()) <= 80


def test_every_variant_is_short_and_names_itself() -> None:
    for path in (FOLDER / "variants").iterdir():
        assert len(path.read_text("utf-8").splitlines()) < 25
        assert smac.load(path).name == path.stem
        assert smac.load(path).about


def test_the_text_is_plain_and_long_enough() -> None:
    text = (FOLDER / "data" / "alice.txt").read_bytes()
    assert len(text) > 1500
    assert text.isascii()
