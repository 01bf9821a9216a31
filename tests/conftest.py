"""Settings that every test shares."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Plans in tests are those of the shipped device table, whatever was calibrated on this machine.
os.environ["SMAC_CALIBRATED"] = "0"

_SHARED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", **_SHARED)
# CI draws the same examples each time: a red run is a change of the code, and can be repeated.
settings.register_profile("ci", derandomize=True, database=None, print_blob=True, **_SHARED)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
