"""The sanitizer's script: its cases hold every template, its summaries are read, a lack is loud."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import planting
import sanitize
import templates_of


def test_every_template_has_a_case() -> None:
    assert set(sanitize.SANITIZED) == set(sanitize.WANTED)
    found = {t for case in sanitize.SANITIZED.values()
             for t in planting.rendered(case, sanitize.SIZES)[1].values()}  # fmt: skip
    assert found == templates_of.with_kernels()


@pytest.mark.parametrize(
    ("said", "clean", "line"),
    [
        ("ran ssd\n========= ERROR SUMMARY: 0 errors\n", True, "ERROR SUMMARY: 0 errors"),
        ("ran ssd\n========= ERROR SUMMARY: 3 errors\n", False, "ERROR SUMMARY: 3 errors"),
        ("ran x\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n", True,
         "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"),
        ("========= ERROR SUMMARY: 0 errors\n", False,
         "ERROR SUMMARY: 0 errors, but the case did not end"),
        ("Device not\nsupported", False, "no summary: Device not supported"),
    ],
)  # fmt: skip
def test_summaries_are_read(said: str, clean: bool, line: str) -> None:
    assert sanitize.summary(said) == (line, clean)


def test_a_missing_tool_is_loud(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "CUDA_PATH")}
    done = subprocess.run([sys.executable, str(sanitize.HERE / "sanitize.py")],
                          env={**env, "PATH": str(tmp_path)}, capture_output=True, text=True,
                          check=False)  # fmt: skip
    if Path("/usr/local/cuda/bin/compute-sanitizer").exists():
        pytest.skip("this machine has the tool where it is looked for")
    assert done.returncode == 2
    assert done.stderr.startswith("compute-sanitizer was not found on PATH")
