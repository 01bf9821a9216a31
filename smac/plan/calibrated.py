"""Rows of the device table that were measured on this machine: `smac bench --calibrate` keeps them.

A calibrated row is called after the row that it refines, with a star: "cpu*", "h100*". It counts
for the machine it was measured on; `op.plan(device="h100")` still means the shipped row. They lie
in the user's cache, in `devices.json`; SMAC_CALIBRATED=0 leaves them out.

Non-goals: no measuring (runtime/calibrate.py), no knowledge of which machine this is.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from smac.cachefile import read_json, write_json
from smac.errors import PlanError
from smac.plan.devices import Device, from_dict

STAR = "*"
FILE = "devices.json"
_SHAPE = {"smac": int, "rows": {str: {"machine": str, "row": {str: (str, float)}}}}


@cache
def _read(wanted: bool) -> dict[str, tuple[str, Device]]:
    found = read_json(FILE, _SHAPE) if wanted else None
    rows: dict[str, tuple[str, Device]] = {}
    for name, entry in (found or {"rows": {}})["rows"].items():
        try:
            row = from_dict(entry["row"])
        except PlanError:  # of another version
            continue
        if row.name == name and name.endswith(STAR) and _possible(row):
            rows[name] = entry["machine"], row
    return rows


def _possible(row: Device) -> bool:
    """Rates that a plan may divide by, counts that are whole."""
    rates = (row.dot64, row.dot32, row.dot16, row.scalar, row.bandwidth, row.cached, row.units)
    counts = (row.units, row.cache, row.on_chip, row.in_flight)
    return min(rates) > 0 and all(isinstance(n, int) for n in counts)


def rows() -> dict[str, tuple[str, Device]]:
    """Calibrated rows by name, each with the machine that it was measured on."""
    return _read(os.environ.get("SMAC_CALIBRATED", "1") != "0")


def name_for(base: str, machine: str) -> str:
    """`base`, or the calibrated row of it where that was measured on `machine`."""
    found = rows().get(base + STAR)
    return base + STAR if found is not None and found[0] == machine else base


def keep(row: Device, machine: str) -> Path:
    """Puts a measured row beside the others; where they lie."""
    known = {name: {"machine": m, "row": r.to_dict()} for name, (m, r) in _read(True).items()}
    known[row.name] = {"machine": machine, "row": row.to_dict()}
    path = write_json(FILE, {"smac": 1, "rows": known})
    _read.cache_clear()
    return path
