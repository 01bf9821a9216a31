"""Gradients that a read's kernel can store itself: no scratch between it and a pointwise kernel.

Non-goals: no sums over heads or batch entries (their gradients stay in scratch), no new kernels.
"""

from __future__ import annotations

from dataclasses import replace

from smac.expr import Name, names
from smac.ir import Buffer, Kernel, Step, Store


def direct(steps: list[Step], scratch: list[Buffer]) -> tuple[list[Step], list[Buffer]]:
    """`steps` and `scratch` with each store of the last, pointwise step done by the kernel whose
    read it is of, where nothing else reads that, and every head and token has its own."""
    *first, last = steps
    assert isinstance(last, Kernel)
    axes = {b.name: b.axes for b in scratch}
    moved: dict[str, Store] = {}
    for s in last.stores:
        outs = sorted(names(s.expr) & axes.keys())
        if len(outs) == 1 and axes[outs[0]] == s.axes and _alone(last, s, outs[0]):
            moved[outs[0]] = s
    done = [_storing(k, moved) for k in first]
    found = {out for out, s in moved.items() if any(s in k.stores for k in _kernels(done))}
    left = tuple(s for s in last.stores if not any(moved[out] is s for out in found))
    kept = [b for b in scratch if b.name not in found]
    return [*done, *([replace(last, stores=left)] if left else [])], kept


def _alone(k: Kernel, s: Store, out: str) -> bool:
    """Whether `s` alone fills its buffer, and alone reads `out`."""
    others = [o for o in k.stores if o is not s]
    return not any(o.buffer == s.buffer or out in names(o.expr) for o in others)


def _storing(step: Step, moved: dict[str, Store]) -> Step:
    """A kernel that stores its reads as they are, with stores of `moved` in their own's place."""
    if not isinstance(step, Kernel):
        return step
    outs = [Name(r.out) for r in step.reads]
    if len(step.stores) != len(outs) or any(s.expr not in outs for s in step.stores):
        return step
    return replace(step, stores=tuple(moved.get(s.buffer, s) for s in step.stores))


def _kernels(steps: list[Step]) -> list[Kernel]:
    return [k for k in steps if isinstance(k, Kernel)]
