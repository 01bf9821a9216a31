"""A problem with a carried state: lanes, the state that enters, outputs and the state that leaves.

Two ways that share nothing but the lanes: `dense_run` (einsum and cumulative products) and
`step_run` (token by token). Non-goals: choosing between them, splitting packed sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from smac.errors import LaunchError, PlanError
from smac.reference.dense import mask_matrix
from smac.reference.oracle import Outputs, Problem, contraction, needs_z, outputs
from smac.reference.positions import reads_position
from smac.reference.states import (
    Lane,
    State,
    at,
    document_ids,
    entering,
    lanes,
    leaving,
    sweep,
)
from smac.reference.values import Value, add, evaluate, union


@dataclass(frozen=True)
class Carried:
    """The lanes of a problem with one right operand: V, or 1 for the normaliser."""

    p: Problem
    lanes: tuple[Lane, ...]
    v: Value

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes of the state of one lane: those of Y without T, and N."""
        rates = [x for lane in self.lanes for x in (lane.factor, lane.read, lane.write)]
        return self.p.order(set(union(self.p.q, self.p.k, self.v, *rates)) - {"T"})

    @property
    def out(self) -> tuple[str, ...]:
        """Axes of one token's output."""
        return tuple(a for a in self.axes if a != "N")

    @property
    def _lane_dim(self) -> int:
        return sum(a not in ("N", "P") for a in self.axes)

    def _shape(self) -> list[int]:
        return [self.p.scope.sizes[a] for a in self.axes]

    def enter(self, given: Tensor | None) -> list[Value]:
        """The state that enters each lane; zeros when none is given."""
        shape, rank, dim = self._shape(), len(self.lanes), self._lane_dim
        if given is None:
            zero = torch.zeros(shape, dtype=self.p.scope.dtype, device=self.p.scope.device)
            return [Value(self.axes, zero)] * rank
        expected = [*shape[:dim], *([rank] if rank > 1 else []), *shape[dim:]]
        if list(given.shape) != expected:
            raise LaunchError(f"initial_state: found shape {tuple(given.shape)}; "
                              f"expected {tuple(expected)}")  # fmt: skip
        data = given.to(self.p.scope.dtype)
        if rank == 1:
            return [Value(self.axes, data)]
        return [Value(self.axes, data.select(dim, r)) for r in range(rank)]

    def pack(self, states: list[Value]) -> Tensor:
        """The lanes' states as one tensor; the lane axis is dropped when the rank is 1."""
        full = [s.to(self.axes).expand(self._shape()) for s in states]
        return full[0] if len(full) == 1 else torch.stack(full, self._lane_dim)

    def dense(self, mask: Value, given: Tensor | None) -> tuple[Value, Tensor]:
        """Y by einsum plus what the given state adds; the state that leaves."""
        p, state = self.p, self.enter(given)
        y = contraction(p, mask, self.v)
        if given is not None:
            y = add(y, entering(p.q, self.lanes, state, p.order({*self.out, "T"})))
        return ordered(p, y), self.pack(leaving(p.k, self.v, self.lanes, state, self.axes))

    def steps(self, given: Tensor | None) -> tuple[Value, Tensor]:
        """Y and the state that leaves, token by token."""
        p, length = self.p, self.p.scope.sizes["T"]
        rows, state = sweep(p.q, p.k, self.v, self.lanes, self.enter(given), length, self.out)
        shape = [p.scope.sizes[a] for a in self.out]
        full = [row.to(self.out).expand(shape) for row in rows]
        data = torch.stack(full) if full else p.q.data.new_zeros((0, *shape))
        return ordered(p, Value(("T", *self.out), data)), self.pack(state)


def ordered(p: Problem, value: Value) -> Value:
    """`value` with its axes in the canonical order."""
    axes = p.order(set(value.axes))
    return Value(axes, value.to(axes))


def dense_run(p: Problem, given: State | None, want_state: bool) -> tuple[Outputs, State | None]:
    """Outputs by the dense einsum; a state only when one is given or wanted."""
    mask, one = mask_matrix(p.spec.contraction.L, p.scope), _one(p)
    if given is None and not want_state:
        z = ordered(p, contraction(p, mask, None)) if needs_z(p.spec) else None
        return outputs(p, ordered(p, contraction(p, mask, p.v)), z), None
    parts = finite_lanes(p, given)
    y, S = Carried(p, parts, p.v).dense(mask, given.S if given else None)
    z = zS = None
    if needs_z(p.spec):
        z, zS = Carried(p, parts, one).dense(mask, given.z if given else None)
    return outputs(p, y, z), _state(p, S, zS, given)


def step_run(p: Problem, given: State | None, want_state: bool) -> tuple[Outputs, State | None]:
    """Outputs and state by the recurrence."""
    parts = finite_lanes(p, given)
    y, S = Carried(p, parts, p.v).steps(given.S if given else None)
    z = zS = None
    if needs_z(p.spec):
        z, zS = Carried(p, parts, _one(p)).steps(given.z if given else None)
    return outputs(p, y, z), _state(p, S, zS, given)


def _one(p: Problem) -> Value:
    return Value((), torch.ones((), dtype=p.scope.dtype, device=p.scope.device))


def finite_lanes(p: Problem, given: State | None) -> tuple[Lane, ...]:
    """The mask's lanes. Raises PlanError where it has no finite state."""
    parts = lanes(p.spec.contraction.L, p.scope, given.last if given else None)
    if parts is None:
        raise PlanError(f"{p.spec.name}: its mask has no finite state: found no generators; "
                        "call it without initial_state and return_state")  # fmt: skip
    return parts


def _state(p: Problem, S: Tensor, z: Tensor | None, given: State | None) -> State:
    return State(S, z, _last(p, given), _position(p))


def _last(p: Problem, given: State | None) -> Tensor | None:
    expr = document_ids(p.spec.contraction.L)
    if expr is None:
        return None
    ids = evaluate(expr, p.scope)
    if p.scope.sizes["T"] == 0:
        return given.last if given else None
    return at(ids, p.scope.sizes["T"] - 1).data


def _position(p: Problem) -> int | None:
    reads = reads_position(p.spec, p.scope.present)
    return p.scope.offset + p.scope.sizes["T"] if reads else None
