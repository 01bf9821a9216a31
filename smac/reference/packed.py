"""Packed sequences by their definition: each is cut out and run by itself.

Non-goals: the maths of one sequence (`carried.py`), checks of cu_seqlens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor

from smac.reference.carried import Carried, finite_lanes
from smac.reference.oracle import Inputs, Outputs, Problem, bind
from smac.reference.states import State, document_ids
from smac.reference.values import Value, evaluate
from smac.spec import Spec

#: Runs one sequence: a problem, the state before it, whether the state behind it is wanted.
Method = Callable[[Problem, State | None, bool], tuple[Outputs, State | None]]
#: Which tensors of a state have an axis B when a sequence runs alone.
Batched = Mapping[str, bool]


def packed_run(spec: Spec, inputs: Inputs, state: State | None, want: bool, cu_seqlens: Tensor,
               dtype: torch.dtype, method: Method) -> tuple[Outputs, State | None]:  # fmt: skip
    """Outputs of all sequences along T, and their states along a first axis of length n."""
    batched = _batched(bind(spec, inputs, dtype)) if want or state is not None else {}
    results = []
    for i, (start, stop) in enumerate(pairwise(int(n) for n in cu_seqlens)):
        p = bind(spec, _cut(spec, inputs, start, stop), dtype)
        results.append(method(p, _row(state, i, batched), want))
    joined = _join(spec, [y for y, _ in results])
    states = [s for _, s in results if s is not None]
    return joined, _stack(states, batched) if states else None


def _batched(p: Problem) -> Batched:
    lanes, one = finite_lanes(p, None), Value((), torch.ones((), dtype=p.scope.dtype))
    ids = document_ids(p.spec.contraction.L)
    return {"S": "B" in Carried(p, lanes, p.v).axes, "z": "B" in Carried(p, lanes, one).axes,
            "last": ids is not None and "B" in evaluate(ids, p.scope).axes}  # fmt: skip


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


def _row(state: State | None, i: int, batched: Batched) -> State | None:
    """Sequence i of a state, as that sequence has it alone."""
    if state is None:
        return None

    def one(x: Tensor | None, field: str) -> Tensor | None:
        return x if x is None else x[i : i + 1] if batched[field] else x[i]

    S = one(state.S, "S")
    assert S is not None
    return State(S, one(state.z, "z"), one(state.last, "last"))


def _join(spec: Spec, pieces: list[Outputs]) -> Outputs:
    """Outputs of consecutive sequences, joined along T (right behind the batch axes)."""
    batch = {"B", *(a.name for a in spec.axes if a.kind == "batch")}
    dim = len({axis for item in spec.inputs for axis in item.axes} & batch)
    if isinstance(pieces[0], Tensor):
        return torch.cat([p for p in pieces if isinstance(p, Tensor)], dim)
    return tuple(torch.cat(list(parts), dim) for parts in zip(*pieces, strict=True))


def _stack(states: list[State], batched: Batched) -> State:
    """States of n sequences; an empty one that came from nowhere has last id −1."""

    def all_of(field: str) -> Tensor | None:
        parts = [getattr(s, field) for s in states]
        some = next((p for p in parts if p is not None), None)
        if some is None:
            return None
        full = [torch.full_like(some, -1) if p is None else p for p in parts]
        return torch.cat(full) if batched[field] else torch.stack(full)

    S = all_of("S")
    assert S is not None
    return State(S, all_of("z"), all_of("last"))
