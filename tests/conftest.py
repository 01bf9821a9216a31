"""Settings that every test shares."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

# Plans in tests are those of the shipped device table, whatever was calibrated on this machine.
os.environ["SMAC_CALIBRATED"] = "0"

_SHARED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", **_SHARED)
# CI draws the same examples each time: a red run is a change of the code, and can be repeated.
settings.register_profile("ci", derandomize=True, database=None, print_blob=True, **_SHARED)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

_START = time.time()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What tests/aot compiled in this run: registers, spills, shared memory."""
    table = Path(__file__).resolve().parents[1] / "build" / "aot.txt"
    if not hasattr(terminalreporter.config, "workerinput") and table.exists() and (
            table.stat().st_mtime >= _START):  # fmt: skip
        terminalreporter.section("ahead-of-time compiles")
        terminalreporter.write_line(table.read_text(encoding="utf-8"))
