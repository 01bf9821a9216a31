"""The planner: which order, chunk and schedule to run a spec with, and why."""

from smac.plan.choose import crossover, make
from smac.plan.devices import TABLE, Device
from smac.plan.dots import dots
from smac.plan.types import Candidate, Dot, Plan, Request

__all__ = [
    "TABLE", "Candidate", "Device", "Dot", "Plan", "Request", "crossover", "dots", "make",
]  # fmt: skip
