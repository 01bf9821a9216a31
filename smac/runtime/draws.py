"""Tensors that suit a spec, drawn for trials and self-tests: finite outputs, decays that shrink.

Values lie in ±(0.1, 0.9): below 0 where a log decay would grow otherwise, of any sign in V and, in
a spec without normaliser (a sum of any signs is no divisor), in Q and K, above 0 elsewhere. What
suits every spec is not known beforehand, so there are several ways to draw (`WAYS`), the first the
best.

Non-goals: hard values and layouts (smac/testing/inputs.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import torch
from torch import Tensor

from smac.expr import Expr, names
from smac.masks.base import Mask
from smac.reference.values import Scope, Value, evaluate
from smac.runtime.validate import id_inputs
from smac.spec import Spec

#: Whether Q, K and V have any sign; whether all that a mask reads is below 0.
WAYS = ((True, False), (False, False), (True, True), (False, True))
#: Small lengths at which log decays are looked at.
SMALL = {"B": 2, "H": 4, "N": 5, "P": 3, "G": 2}


def draw(spec: Spec, mask: Mask, sizes: Mapping[str, int], dtypes: Mapping[str, torch.dtype],
         device: torch.device, way: int = 0, seed: int = 0) -> dict[str, Tensor]:  # fmt: skip
    """The inputs of a specialised spec, by name: the same for the same seed on any device."""
    g = torch.Generator().manual_seed(seed)
    length = {**sizes, "S": sizes["T"]}
    made = {}
    for name, axes, kind in kinds(spec, mask, way):
        shape = [length[a] for a in axes]
        if kind == "ids":
            along = [-1 if a == "T" else 1 for a in axes]
            x = (torch.arange(length["T"]) // 7).reshape(along).expand(shape).contiguous()
        else:
            x = 0.1 + 0.8 * torch.rand(shape, generator=g)
            if kind == "signed":
                x = x * (1 - 2 * torch.randint(0, 2, shape, generator=g))
            x = -x if kind == "negative" else x
        made[name] = x.to(device, dtypes[name])
    return made


def kinds(spec: Spec, mask: Mask, way: int) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Name and axes of every input, and how it is drawn: ids, signed, negative or positive."""
    signed, whole = WAYS[way]
    read = frozenset(n for e in mask.parameters() for n in names(e))
    ids, below = id_inputs(spec.contraction.L), read if whole else negative(spec, mask)
    free = _operands(spec, mask) if signed else frozenset()
    for i in spec.inputs:
        yield i.name, i.axes, ("ids" if i.name in ids else "signed" if i.name in free else
                               "negative" if i.name in below else "positive")  # fmt: skip


def _operands(spec: Spec, mask: Mask) -> frozenset[str]:
    """Inputs along N or P that are read by Q, K and V alone; by V alone where Z divides.

    A mean of values of one sign hardly varies: what its gradients differ in would be roundings."""
    c, divided = spec.contraction, any("Z" in names(e) for _, e in spec.output)
    positive = (c.Q, c.K) if divided else ()
    others = {n for e in (*mask.parameters(), *positive) for n in names(e)}
    read = {n for e in (c.Q, c.K, c.V) for n in names(e)} - others
    return frozenset(i.name for i in spec.inputs
                     if i.name in read and "T" in i.axes and {"N", "P"} & set(i.axes))  # fmt: skip


def negative(spec: Spec, mask: Mask) -> tuple[str, ...]:
    """The fewest inputs to draw below 0 for every log decay to be at most 0."""
    generators = mask.generators()
    if generators is None:
        return ()
    decays = [lane.log_decay for lane in generators.lanes]
    read = [i.name for i in spec.inputs if any(i.name in names(e) for e in decays)]
    for count in range(len(read) + 1):
        for chosen in combinations(read, count):
            if all(_settles(spec, e, chosen) for e in decays):
                return chosen
    return ()


def _settles(spec: Spec, log_decay: Expr, negative: tuple[str, ...]) -> bool:
    """Whether a log decay is in [−20, 0] for inputs over the range that is drawn."""
    return all(-20 <= x <= 0 for x in _samples(spec, log_decay, negative))


def _samples(spec: Spec, log_decay: Expr, negative: tuple[str, ...]) -> Iterator[float]:
    one = torch.ones((), dtype=torch.float64)
    for level in (0.1, 0.5, 0.9):
        tensors = {i.name: Value((), -level * one if i.name in negative else level * one)
                   for i in spec.inputs}  # fmt: skip
        sizes = {a: 2 for i in spec.inputs for a in i.axes} | SMALL | {"T": 2}
        scope = Scope(tensors, sizes, frozenset(tensors), {}, torch.float64, torch.device("cpu"))
        yield evaluate(log_decay, scope).data.max().item()
