"""First use of an op on a GPU: its kernels are checked, unless they are known to be right.

What was right is remembered by source, device and versions, so that of all processes on a machine
one checks (smac/runtime/self_check.py), and the others need not even load what checks.

Non-goals: the check itself; the torch target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from smac.runtime.cache import Key, Remembered
from smac.runtime.device import capturing, device_name, versions
from smac.runtime.options import Options
from smac.runtime.warm import without_memory
from smac.spec import Spec

if TYPE_CHECKING:
    from smac.runtime.launch import Launcher, Runnable

RESULTS = Remembered("checked", {"name": str, "program": str})


@dataclass(frozen=True)
class FirstUse:
    """For launchers of `spec`: `given`, the call's inputs by name, without their memory."""

    spec: Spec
    options: Options
    given: Mapping[str, Tensor]

    @staticmethod
    def of(spec: Spec, options: Options, values: tuple[Any, ...]) -> FirstUse:
        """For a call with these inputs, in the spec's order."""
        names = (i.name for i in spec.inputs)
        return FirstUse(spec, options, {n: without_memory(x) for n, x in
                                        zip(names, values, strict=True) if x is not None})

    def __call__(self, launcher: Launcher, runnable: Runnable) -> None:
        """Compile `runnable`, a program of `launcher`, and check it, unless that has been done.

        Raises CodegenError where its results are wrong."""
        key = _key(launcher, runnable)
        if capturing() or RESULTS.read(key) is not None:
            return
        from smac.runtime.self_check import Check

        if Check(self.spec, self.options, self.given)(launcher, runnable):
            RESULTS.write(key, {"name": self.spec.name, "program": runnable.program.name})


def _key(launcher: Launcher, runnable: Runnable) -> Key:
    return {"source": runnable.source.digest, "device": device_name(launcher.cell.device),
            **versions()}  # fmt: skip
