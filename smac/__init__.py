"""SMAC compiles structured masked attention from a short spec. The public surface, nothing else.

Everything is imported when it is first asked for, so `import smac` loads no torch, triton or sympy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from smac.errors import CodegenError, LaunchError, PlanError, SmacError, SpecError

if TYPE_CHECKING:
    from smac.parse import load as load
    from smac.runtime.op import Op as Op
    from smac.runtime.op import compile as compile
    from smac.runtime.state import State as State
    from smac.spec import Spec as Spec
    from smac.testing.check import Report as Report
    from smac.testing.check import check as check

__version__ = "0.1.0"

#: Where each lazy name lives.
_HOMES = {
    "Op": "smac.runtime.op", "Report": "smac.testing.check", "Spec": "smac.spec",
    "State": "smac.runtime.state", "check": "smac.testing.check", "compile": "smac.runtime.op",
    "load": "smac.parse",
}  # fmt: skip

__all__ = [
    "CodegenError", "LaunchError", "Op", "PlanError", "Report", "SmacError", "Spec", "SpecError",
    "State", "check", "compile", "load",
]  # fmt: skip


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'smac' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
