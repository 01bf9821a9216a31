"""The oracle's front door: `reference` and `recurrence` on a spec and its tensors.

Non-goals: the maths itself (`dense.py`, `states.py`), cutting packed sequences (`packed.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smac.reference.carried import dense_run, step_run
from smac.reference.oracle import Inputs, Outputs, bind
from smac.reference.packed import Method, packed_run
from smac.reference.positions import first_position
from smac.reference.states import State, coerce
from smac.spec import Spec


def reference(spec: Spec, inputs: Inputs, *, initial_state: object = None,
              return_state: bool = False, cu_seqlens: Tensor | None = None,
              dtype: torch.dtype = torch.float64) -> Any:  # fmt: skip
    """Outputs of `spec` by a dense einsum in `dtype` (a tensor, or a tuple in output order).

    `inputs`: tensors by name, None or missing = absent. `initial_state`: a tensor S, or anything
    with attributes S, z, last, pos. With `return_state`, the pair (outputs, State). `cu_seqlens`
    (n + 1 integers): n sequences packed along T at B = 1, each run by itself; states have n for B.
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
         dtype: torch.dtype, method: Method) -> tuple[Outputs, State | None]:  # fmt: skip
    state = coerce(given)
    if cu_seqlens is not None:
        return packed_run(spec, inputs, state, want, cu_seqlens, dtype, method)
    p = bind(spec, inputs, dtype, first_position(spec, inputs, state))
    return method(p, state, want)
