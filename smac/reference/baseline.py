"""The same-precision baseline: an eager quadratic form in the type of the operands.

L is built in float64 and rounded once; scores, masked scores and Y are formed in the operand type.
Error ratios (`Numbers` in the design) compare a kernel's error to this one's.

Non-goals: packed sequences.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from smac.expr import names
from smac.reference.carried import Carried, finite_lanes, ordered
from smac.reference.dense import mask_matrix
from smac.reference.oracle import Inputs, Problem, bind, contraction, needs_z, outputs
from smac.reference.positions import first_position
from smac.reference.states import State, coerce, entering, leaving
from smac.reference.values import Value, add
from smac.spec import Spec


def operand_dtype(spec: Spec, inputs: Inputs) -> torch.dtype:
    """The type that Q, K and V's inputs promote to, those that carry T."""
    c = spec.contraction
    todo, seen = {n for e in (c.Q, c.K, c.V) for n in names(e)}, set[str]()
    lets = dict(spec.let)
    while todo:
        name = todo.pop()
        if name not in seen and name in lets:
            todo |= names(lets[name])
        seen.add(name)
    found: torch.dtype | None = None
    for item in spec.inputs:
        x = inputs.get(item.name)
        if x is None or item.name not in seen or "T" not in item.axes:
            continue
        if x.is_floating_point():
            found = x.dtype if found is None else torch.promote_types(found, x.dtype)
    return found or torch.float32


def baseline(spec: Spec, inputs: Inputs, *, initial_state: object = None,
             return_state: bool = False) -> Any:  # fmt: skip
    """Outputs of `spec` as a careful eager implementation gives them in the inputs' own types.

    Pointwise parts and sums run in the accumulator's type (float32, or float64 for float64
    operands); what states add is made of products in the operand type too. Differentiable: its
    gradients are the baseline of gradients. With
    `return_state`, the pair (outputs, State).
    """
    target = operand_dtype(spec, inputs)
    acc = torch.promote_types(target, torch.float32)
    given = coerce(initial_state)
    start = first_position(spec, inputs, given)
    p = bind(spec, inputs, acc, start)
    mask = mask_matrix(spec.contraction.L, bind(spec, inputs, torch.float64, start).scope)
    mask = _to(mask, target)
    p = replace(p, q=_to(p.q, target), k=_to(p.k, target), v=_to(p.v, target))
    ones = Value((), torch.ones((), dtype=target, device=p.scope.device))
    states = given is not None or return_state
    y, S = _product(p, mask, p.v, given, "S", states)
    z, Z = _product(p, mask, ones, given, "z", states) if needs_z(spec) else (None, None)
    result = outputs(p, y, z)
    low = (result.to(target) if isinstance(result, torch.Tensor)
           else tuple(o.to(target) for o in result))  # fmt: skip
    if not return_state:
        return low
    assert S is not None
    return low, State(S, Z)


def _to(value: Value, dtype: torch.dtype) -> Value:
    return Value(value.axes, value.data.to(dtype))


def _product(p: Problem, mask: Value, v: Value, given: State | None, field: str,
             states: bool) -> tuple[Value, torch.Tensor | None]:  # fmt: skip
    """Y (or Z) in the accumulator's type, from products in the operand type; the last state."""
    acc = p.scope.dtype
    y = _to(ordered(p, contraction(p, mask, v)), acc)
    if not states:
        return y, None
    wide = replace(p, q=_to(p.q, acc), k=_to(p.k, acc))
    carried = Carried(wide, finite_lanes(p, given), _to(v, acc))
    start = carried.enter(getattr(given, field, None))
    y = add(y, entering(wide.q, carried.lanes, start, p.order({*carried.out, "T"}),
                        v.data.dtype))
    end = leaving(wide.k, carried.v, carried.lanes, start, carried.axes, v.data.dtype)
    return ordered(p, y), carried.pack(end)
