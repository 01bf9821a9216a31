"""What packed sequences mean for a plan: which specs cannot tell one sequence from the next.

Sequences lie behind one another along T at B = 1, and each is run as if it were alone. Kernels that
know where a sequence starts give t, s and T their meaning in it; pointwise expressions do not.

Non-goals: no lengths (they stay on the device), no costs (shape.py takes their mean).
"""

from __future__ import annotations

from collections.abc import Iterator

from smac.axes import SEQ
from smac.expr import At, Between, Expr, Index, Size, children, walk
from smac.plan.types import Request


def why_not_packed(r: Request) -> str | None:
    """Why the request's spec cannot run packed sequences, or None."""
    if not r.packed:
        return None
    if r.size("B") != 1:
        return f"found B = {r.size('B')}; expected B = 1, sequences behind one another along T"
    if SEQ in {*r.spec.batch, *r.spec.groups}:
        return f"found an axis called {SEQ}, which counts the sequences; expected another name"
    for e in (x for whole in _pointwise(r) for x in walk(whole)):
        if isinstance(e, Index) and e.axis == "T":
            return ("the spec reads index(T), which would run on from one sequence to the next; "
                    "pass positions as an input with axis T instead")  # fmt: skip
        if isinstance(e, Size) and e.axis == "T":
            return ("the spec reads size(T), which every sequence has its own of; pass it as an "
                    "input with axis T instead")  # fmt: skip
    for node in walk(r.mask.entry()):
        if isinstance(node, At | Between) and any(
            isinstance(x, Size) for i in children(node)[1:] for x in walk(i)
        ):
            return (f"mask '{r.mask}' reads from the middle or the end of T, and every sequence "
                    "has a T of its own; for lags on both sides add two causal masks instead, one "
                    "of them transposed")  # fmt: skip
    return None


def _pointwise(r: Request) -> Iterator[Expr]:
    """Expressions that are evaluated token by token: operands, outputs, the mask's parameters."""
    c, generators = r.spec.contraction, r.mask.generators()
    yield from (c.Q, c.K, c.V, *r.mask.parameters(), *(e for _, e in r.spec.output))
    for x in () if generators is None else (*generators.lanes, *generators.above):
        yield from (e for e in (x.log_decay, x.reset, x.read, x.write) if e is not None)
