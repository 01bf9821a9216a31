"""Compiled Triton kernels started directly: the one place that knows how Triton does it.

`kernel[grid](…)` looks at every argument of every launch to find the compiled kernel. Who knows
that kernel from a launch before, with arguments of the same kind, can hand the arguments to it at
once. Where Triton does not look as known here, `bind` returns None, and launches stay ordinary.

Non-goals: which arguments are of the same kind (tape.py sees to that).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

#: What a compiled kernel's `run` is called with before the kernel's own arguments, since Triton
#: 3.6: the grid, the stream, a handle, metadata, metadata for hooks, and two hooks.
PARAMETERS = ("gridX", "gridY", "gridZ", "stream", "function", "kernel_metadata", "launch_metadata",
              "launch_enter_hook", "launch_exit_hook", "args")  # fmt: skip
#: Where the stream stands among them.
STREAM = 3

#: A function, and its first arguments, the stream's place among them to be filled.
Bound = tuple[Callable[..., object], tuple[Any, ...]]


class Direct:
    """How to start compiled kernels on the tensors' GPU."""

    def __init__(self) -> None:
        from triton import knobs
        from triton.runtime import JITFunction, driver

        self._knobs, self._kind = knobs.runtime, JITFunction
        self._driver = driver

    def kernels(self, names: Mapping[str, Any]) -> dict[str, Any]:
        """Those of a module's names that are kernels (or functions that kernels call)."""
        return {n: x for n, x in names.items() if isinstance(x, self._kind)}

    def watched(self) -> bool:
        """Whether someone, a profiler say, wants to be told of each launch: none is direct then."""
        hooks = (self._knobs.launch_enter_hook, self._knobs.launch_exit_hook)
        return any(getattr(hook, "calls", hook) for hook in hooks)

    def stream(self, index: int) -> int:
        """The current stream's handle."""
        found: int = self._driver.active.get_current_stream(index)
        return found

    def bind(self, kernel: Any, compiled: Any, grid: Sequence[int],
             values: Sequence[Any]) -> Bound | None:  # fmt: skip
        """How to launch `compiled`, which launching `kernel` on `values` returned; None: not known.

        Pointers are passed as whole numbers, all else as in `values`, in the kernel's order."""
        try:
            run, function, metadata = compiled.run, compiled.function, compiled.packed_metadata
        except AttributeError:
            return None
        if kernel.pre_run_hooks or function is None or not _looks_known(run.__class__):
            return None
        grid = (*grid, 1, 1)[:3]
        if _plain_launch(run):
            # What `run` does in 3.6 where a kernel asks for no memory of the driver's.
            return run.launch, (*grid, 0, function, run.launch_cooperative_grid, run.launch_pdl,
                                None, None, metadata, None, None, None)  # fmt: skip
        return run, (*grid, 0, function, metadata, None, None, None)


@cache
def _looks_known(kind: Any) -> bool:
    """Whether a launcher of this type takes PARAMETERS, the later of them as *args perhaps."""
    if kind.__name__ != "CudaLauncher":
        return False
    _, *names = inspect.signature(kind.__call__).parameters
    return tuple(names[:-1]) == PARAMETERS[: len(names) - 1] and names[-1:] == ["args"]


@cache
def _of_3_6() -> bool:
    import triton

    return str(triton.__version__).startswith("3.6.")


def _plain_launch(run: Any) -> bool:
    return _of_3_6() and not run.global_scratch_size and not run.profile_scratch_size
