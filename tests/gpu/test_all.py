"""The command that runs all GPU checks: what fails, hangs or is left is said, and counts."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_all", HERE / "all.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_line_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                       capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    every = script()
    beat = tmp_path / "beat"
    child = f"import time\nwhile True: open({str(beat)!r}, 'a').write('.'); time.sleep(0.05)"
    hang = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    monkeypatch.setattr(every, "STEPS", {
        "good": (("-c", "print('one')"), ("-c", "print('two'); print()")),
        "bad": (("-c", "print('fine')"), ("-c", "print('why'); raise SystemExit(3)")),
        "long": (("-c", hang),), "late": (("-c", "1 / 0"),),
    })  # fmt: skip
    assert every.main(["good", "--out", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.split() == ["good", "ok", "2", "of", "2", "0", "s", "two"]
    assert every.main(["--out", str(tmp_path / "b"), "--minutes", str(4 / 60)]) == 1
    good, bad, long, late = (x.split() for x in capsys.readouterr().out.splitlines())
    assert good[:2] == ["good", "ok"]
    assert (bad[:5], bad[-1]) == (["bad", "FAILED", "1", "of", "2"], "why")
    assert long[:5] == ["long", "STOPPED", "0", "of", "1"]
    assert late == ["late", "LEFT"]
    assert (tmp_path / "b" / "bad_1.log").read_text() == "why\n"
    before = beat.stat().st_size  # what it had started is gone too
    time.sleep(0.5)
    assert beat.stat().st_size == before > 0


def test_every_command_is_one_that_there_is() -> None:
    every = script()
    for commands in every.STEPS.values():
        for command in commands:
            if command[0] == "-m":
                assert importlib.util.find_spec(command[1]) is not None, command
            else:
                assert (every.ROOT / command[0]).exists(), command
    done = subprocess.run([sys.executable, str(HERE / "all.py"), "matrx"], text=True, check=False,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 2
    assert "found matrx; expected some of matrix, contracts, large, sanitizer" in done.stderr
