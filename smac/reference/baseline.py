"""The same-precision baseline: an eager quadratic form in the type of the operands.

L is built in float64 and rounded once; scores, masked scores and Y are formed in the operand type.
Error ratios (`Numbers` in the design) compare a kernel's error to this one's.

Non-goals: initial states, packed sequences.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from smac.expr import names
from smac.reference.carried import ordered
from smac.reference.dense import mask_matrix
from smac.reference.oracle import Inputs, Outputs, bind, contraction, needs_z, outputs
from smac.reference.values import Value
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


def baseline(spec: Spec, inputs: Inputs) -> Outputs:
    """Outputs of `spec` as a careful eager implementation gives them in the inputs' own types.

    Pointwise parts run in the accumulator's type (float32, or float64 for float64 operands).
    Differentiable: its gradients are the baseline of gradients.
    """
    target = operand_dtype(spec, inputs)
    acc = torch.promote_types(target, torch.float32)
    p = bind(spec, inputs, acc)
    mask = mask_matrix(spec.contraction.L, bind(spec, inputs, torch.float64).scope)
    q, k, v, low = (Value(x.axes, x.data.to(target)) for x in (p.q, p.k, p.v, mask))
    rounded = replace(p, q=q, k=k, v=v)
    y = ordered(p, contraction(rounded, low, v))
    z = ordered(p, contraction(rounded, low, None)) if needs_z(spec) else None
    wide = [None if x is None else Value(x.axes, x.data.to(acc)) for x in (y, z)]
    assert wide[0] is not None
    out = outputs(p, wide[0], wide[1])
    return out.to(target) if isinstance(out, torch.Tensor) else tuple(o.to(target) for o in out)
