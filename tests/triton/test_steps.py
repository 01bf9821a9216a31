"""Steps that write their state where the caller says, in Triton's interpreter: the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
#: Copies of a state in three steps, where it is not left as it is made: lanes in turn and chunks do
#: not work in place, another type is another tensor, and S and z are made as one.
COPIED = {"linear_attention parted": 3, "log_linear same": 3, "ssd low": 3, "ssd chunked same": 3}


def test_states_go_where_they_are_wanted() -> None:
    """By every spec with a state, in place; elsewhere; where they may not be written; by tapes."""
    done = subprocess.run([sys.executable, "-W", "ignore", str(HERE / "steps_triton.py")],
                          capture_output=True, text=True, check=False)  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 23, done.stderr[-2000:]
    assert not [x for x in found if x["wrong"]], found
    assert {x["case"]: x["copies"] for x in found if x["copies"]} == COPIED
