"""What target triton promises: on a GPU all of it, interpreted what is small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def script(*asked: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "ignore", str(HERE / "contracts.py"), *asked],
                          text=True, capture_output=True, check=False)  # fmt: skip


def test_promises_are_kept() -> None:
    done = script()
    found = [json.loads(line) for line in done.stdout.splitlines()]
    promised = {"decays", "views", "empty", "decoding"}
    assert {x["promise"] for x in found} >= promised, done.stderr[-2000:]
    assert not [x for x in found if not x["right"]]
    assert done.returncode == 0, done.stderr[-2000:]


def test_processes_can_share_promises() -> None:
    done = script("views", "empty", "--way", "tokens", "--dtype", "float64")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(x["promise"], x["cell"]) for x in found] == [
        ("views", "tokens torch.float64"), ("empty", "tokens T = 0"), ("empty", "tokens T = 1")]
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_promise_that_is_not_known_is_refused() -> None:
    done = script("vews")
    assert done.returncode == 2
    assert "found vews; expected some of decays, views, empty, decoding" in done.stderr
