"""Tapes of rendered programs, in Triton's interpreter: other tensors, the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_played_programs_have_the_bits_of_called_ones() -> None:
    """Every case is recorded with one tensor for several inputs, then played on others; strides
    that are new have a tape of their own."""
    done = subprocess.run([sys.executable, "-W", "ignore", str(HERE / "tapes_triton.py")],
                          capture_output=True, text=True, check=False)  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 6, done.stderr[-2000:]
    assert not [x for x in found if x["wrong"] or x["not"] or x["tapes"] != [2, 2]], found
    # Not idle: there are tensors to hold to, launches, and memory that only kernels see (there is
    # none in the quadratic order of a mask of lags alone: torch folds those).
    assert all(x["held"] >= 15 and x["steps"] >= 16 for x in found), found
    assert all(x["scratch"] for x in found if x["case"] != "toeplitz-quadratic"), found
