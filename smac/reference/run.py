"""The oracle's front door: `reference` and `recurrence` on a spec and its tensors.

Non-goals: the maths itself (`dense.py`, `states.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from smac.reference.carried import dense_run, step_run
from smac.reference.oracle import Inputs, Outputs, Problem, bind
from smac.reference.states import State, coerce
from smac.spec import Spec

_Method = Callable[[Problem, State | None, bool], tuple[Outputs, State | None]]


def reference(spec: Spec, inputs: Inputs, *, initial_state: object = None,
              return_state: bool = False, cu_seqlens: Tensor | None = None,
              dtype: torch.dtype = torch.float64) -> Any:  # fmt: skip
    """Outputs of `spec` by a dense einsum in `dtype` (a tensor, or a tuple in output order).

    `inputs`: tensors by name, None or missing = absent. `initial_state`: a tensor S, or anything
    with attributes S, z, last, pos. With `return_state`, the pair (outputs, State). `cu_seqlens`
    (n + 1 integers): n sequences packed along T at batch size 1, each run by itself.
    Differentiable. Raises LaunchError (inputs do not fit), PlanError (a mask without a state).
    """
    y, state = _run(spec, inputs, initial_state, return_state, cu_seqlens, dtype, dense_run)
    if not return_state:
        return y
    assert state is not None
    return y, state


def recurrence(spec: Spec, inputs: Inputs, initial_state: object = None, *,
               cu_seqlens: Tensor | None = None,
               dtype: torch.dtype = torch.float64) -> tuple[Outputs, State]:  # fmt: skip
    """Outputs and last state token by token: S ← a·S + K⊗V, Y = Q·S, lane by lane.

    Arguments as for `reference`. Raises PlanError for a mask without a finite state.
    """
    y, state = _run(spec, inputs, initial_state, True, cu_seqlens, dtype, step_run)
    assert state is not None
    return y, state


def _run(spec: Spec, inputs: Inputs, given: object, want: bool, cu_seqlens: Tensor | None,
         dtype: torch.dtype, method: _Method) -> tuple[Outputs, State | None]:  # fmt: skip
    state = coerce(given)
    if cu_seqlens is None:
        offset = 0 if state is None or state.pos is None else int(state.pos)
        return method(bind(spec, inputs, dtype, offset), state, want)
    ends = [int(n) for n in cu_seqlens]
    pieces = [_run(spec, _cut(spec, inputs, a, b), _row(state, i), want, None, dtype, method)
              for i, (a, b) in enumerate(pairwise(ends))]  # fmt: skip
    return _join(spec, [y for y, _ in pieces]), _stack([s for _, s in pieces])


def _cut(spec: Spec, inputs: Inputs, start: int, stop: int) -> dict[str, Tensor | None]:
    """The inputs between two positions of a packed sequence."""
    cut: dict[str, Tensor | None] = {}
    for item in spec.inputs:
        x = inputs.get(item.name)
        for dim, axis in enumerate(item.axes if x is not None else ()):
            if axis in ("T", "S"):
                x = x.narrow(dim, start, stop - start) if x is not None else None
        cut[item.name] = x
    return cut


def _row(state: State | None, i: int) -> State | None:
    """Sequence i of a batched state."""
    if state is None:
        return None
    return State(*(None if f is None or not isinstance(f, Tensor) or f.dim() == 0
                   else f[i : i + 1] for f in (state.S, state.z, state.last)))  # type: ignore[arg-type]  # fmt: skip


def _join(spec: Spec, pieces: list[Outputs]) -> Outputs:
    """Outputs of consecutive sequences, joined along T (right behind the batch axes)."""
    batch = {"B", *(a.name for a in spec.axes if a.kind == "batch")}
    carried = {axis for item in spec.inputs for axis in item.axes} & batch
    dim = len(carried)
    if isinstance(pieces[0], Tensor):
        return torch.cat([p for p in pieces if isinstance(p, Tensor)], dim)
    return tuple(torch.cat(list(parts), dim) for parts in zip(*pieces, strict=True))


def _stack(states: list[State | None]) -> State | None:
    """States of n sequences along the batch axis."""
    found = [s for s in states if s is not None]
    if not found:
        return None

    def cat(field: str) -> Tensor | None:
        parts = [getattr(s, field) for s in found]
        return None if any(p is None for p in parts) else torch.cat(parts)

    S = cat("S")
    assert S is not None
    return State(S, cat("z"), cat("last"))
