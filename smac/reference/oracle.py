"""The float64 oracle: a spec's outputs by one dense einsum, and by a step-by-step recurrence.

    Y[t,p] = Σ_s Σ_n L[t,s] · Q[t,n] · K[s,n] · V[s,p],  Z the same with V = 1

Both are plain differentiable torch, so `torch.autograd` through them is the gradients' oracle.

Non-goals: speed, memory, masks beyond the language (`dense.define_mask` teaches it more).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smac.errors import LaunchError
from smac.expr import Expr, names
from smac.reference.values import Scope, Value, contract, evaluate, union
from smac.spec import Spec

Outputs = Tensor | tuple[Tensor, ...]
Inputs = Mapping[str, Tensor | None]


class _Lets(dict[str, Value]):
    """Inputs by name; a let is evaluated when it is first asked for."""

    def __init__(self, lets: Mapping[str, Expr]) -> None:
        super().__init__()
        self.lets = lets
        self.scope: Scope | None = None

    def __missing__(self, name: str) -> Value:
        if name not in self.lets or self.scope is None:
            raise LaunchError(f"{name}: this input is absent, and the expression needs it")
        self[name] = evaluate(self.lets[name], self.scope)
        return self[name]


@dataclass(frozen=True)
class Problem:
    """A spec with its tensors: operands evaluated, K and V on axis T still."""

    spec: Spec
    scope: Scope
    q: Value
    k: Value
    v: Value

    @property
    def batch(self) -> tuple[str, ...]:
        """B, then the further batch axes, in canonical order."""
        return ("B", *(a.name for a in self.spec.axes if a.kind == "batch"))

    def order(self, axes: set[str]) -> tuple[str, ...]:
        """`axes` in the canonical order: batch, T, H, R, N, P."""
        return tuple(a for a in (*self.batch, "T", "H", "R", "N", "P") if a in axes)


def bind(spec: Spec, inputs: Inputs, dtype: torch.dtype, offset: int = 0) -> Problem:
    """Evaluate Q, K and V in `dtype`. Groups are expanded to heads: head h reads h // (H/G)."""
    unknown = set(inputs) - {i.name for i in spec.inputs}
    if unknown:
        raise LaunchError(f"inputs: found {sorted(unknown)}; expected some of "
                          f"{', '.join(i.name for i in spec.inputs)}")  # fmt: skip
    sizes, groups = _sizes(spec, inputs)
    present = frozenset(n for n, x in inputs.items() if x is not None)
    device = next(x.device for x in inputs.values() if x is not None)
    tensors = _Lets(dict(spec.let))
    levels = frozenset(a.name for a in spec.axes if a.kind == "levels")
    scope = Scope(tensors, sizes, present, groups, dtype, device, offset, levels)
    tensors.scope = scope
    for item in spec.inputs:
        x = inputs.get(item.name)
        if x is not None:
            data = x.to(dtype) if x.is_floating_point() else x
            tensors[item.name] = _heads(Value(item.axes, data), sizes, groups)
        elif item.default is not None:
            tensors[item.name] = scope.scalar(float(item.default))
    c = spec.contraction
    q, k, v = (_float(evaluate(e, scope), dtype) for e in (c.Q, c.K, c.V))
    return Problem(spec, scope, q, k, v)


def _float(value: Value, dtype: torch.dtype) -> Value:
    return Value(value.axes, value.data.to(dtype))


def _sizes(spec: Spec, inputs: Inputs) -> tuple[dict[str, int], dict[str, int]]:
    sizes: dict[str, int] = {}
    for item in spec.inputs:
        x = inputs.get(item.name)
        if x is None:
            continue
        if x.dim() != len(item.axes):
            raise LaunchError(f"{item.name}: found shape {tuple(x.shape)}; expected axes "
                              f"{' '.join(item.axes)}")  # fmt: skip
        for axis, n in zip(item.axes, x.shape, strict=True):
            if sizes.setdefault(axis, n) != n:
                raise LaunchError(f"{item.name}: found {axis} = {n}; expected {sizes[axis]}")
    sizes.setdefault("T", sizes.get("S", 0))
    groups = {a.name: sizes[a.name] for a in spec.axes if a.kind == "group" and a.name in sizes}
    for axis, n in groups.items():
        heads = sizes.setdefault("H", n)
        if n == 0 or heads % n:
            raise LaunchError(f"{axis}: found {n} groups of {heads} heads; expected a divisor")
    return sizes, groups


def _heads(value: Value, sizes: Mapping[str, int], groups: Mapping[str, int]) -> Value:
    for axis, n in groups.items():
        if axis in value.axes:
            dim = value.axes.index(axis)
            data = value.data.repeat_interleave(sizes["H"] // n, dim)
            value = Value(value.axes, data).rename(axis, "H")
    return value


def _sources(value: Value) -> Value:
    return value.rename("T", "S")


def contraction(p: Problem, mask: Value, v: Value | None) -> Value:
    """Σ_s Σ_n L Q K V by einsum; V = 1 when None. Scores first, so that T × S is the largest."""
    k = _sources(p.k)
    parts = [p.q, k, mask] if v is None else [p.q, k, mask, _sources(v)]
    axes = {a for x in parts for a in x.axes} - {"S", "N"}
    summed = () if "N" in mask.axes else ("N",)
    scores = contract(tuple(a for a in union(p.q, k) if a not in summed), p.q, k)
    return contract(p.order(axes), scores, *parts[2:])


def outputs(p: Problem, y: Value, z: Value | None) -> Outputs:
    """The [output] table over Y and Z, each broadcast over Y's axes and its own inputs'."""
    outer = p.scope.tensors
    assert isinstance(outer, _Lets)
    tensors = _Lets(outer.lets)
    tensors.update(outer)
    tensors["Y"] = y
    if z is not None:
        tensors["Z"] = z
    scope = tensors.scope = replace(p.scope, tensors=tensors)
    results = []
    for _, e in p.spec.output:
        value = _float(evaluate(e, scope), scope.dtype)
        length = dict(zip(value.axes, value.data.shape, strict=True))
        length.update(zip(y.axes, y.data.shape, strict=True))
        axes = p.order(set(length))
        results.append(value.to(axes).expand([length[a] for a in axes]))
    return results[0] if len(results) == 1 else tuple(results)


def needs_z(spec: Spec) -> bool:
    """Whether an output reads the normaliser Z."""
    return any("Z" in names(e) for _, e in spec.output)
