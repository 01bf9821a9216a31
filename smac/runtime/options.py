"""What `compile` takes beside the spec, checked.

Non-goals: whether a mask can do an order, or a target a schedule (the planner says).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from smac.errors import PlanError

CHOICES = {
    "target": ("auto", "torch", "triton"),
    "order": ("auto", "linear", "quadratic", "chunked"),
    "tune": ("off", "quick", "full"),
    "precision": ("ieee", "tf32"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """Options of an op; `PlanError` names the one that is not understood."""

    target: str = "auto"
    order: str = "auto"
    chunk: int | None = None
    schedule: str = "auto"
    tune: str = "off"
    precision: str = "ieee"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            found = getattr(self, name)
            if found not in allowed:
                raise PlanError(f"{name}: found {found!r}; expected one of {', '.join(allowed)}")
        chunk = self.chunk
        if chunk is not None and (type(chunk) is not int or chunk < 1):
            raise PlanError(f"chunk: found {chunk!r}; expected a whole number, at least 1")
        if not isinstance(self.schedule, str):
            raise PlanError(f"schedule: found {self.schedule!r}; expected a name, or auto")

    def precision_in(self, dtype: str) -> str:
        """How products in `dtype` are computed: of float64, some compilers take no other."""
        return "ieee" if dtype == "float64" else self.precision

    def __str__(self) -> str:
        """Only what differs from the defaults, as keywords: ", order='linear'"."""
        return "".join(f", {f.name}={getattr(self, f.name)!r}" for f in fields(self)
                       if getattr(self, f.name) != f.default)  # fmt: skip
