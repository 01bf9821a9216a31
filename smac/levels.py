"""fenwick(l) for a number of levels: a spec with an axis of levels becomes one without.

L[t,s] = l[t, bit_length(t xor s)] for t ≥ s is Σ_k row(l_k) * level(k), where l_k is l at level k.
So behind `expand` there are inputs l_0, l_1, … without the axis, and a sum of masks that planner,
lowering and kernels know. T tokens take ⌈log₂ T⌉ + 1 levels: the token itself, then blocks of 1, 2,
4 … tokens. Log-linear attention (arXiv:2506.04761).

Non-goals: no tensors (views of them are runtime/views.py's); the oracle reads l as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from smac.errors import PlanError
from smac.expr import ONE, Expr, Name, Num, substitute
from smac.spec import Spec
from smac.terms import Input, MaskTerm

NAME = "fenwick"
#: Positions below 2⁴⁰ have no more levels.
MOST = 41


def levels_of(T: int) -> int:
    """How many levels T tokens have: ⌈log₂ T⌉ + 1, and 1 for none."""
    return max(T - 1, 0).bit_length() + 1


def planned_levels(spec: Spec, sizes: Mapping[str, int], T: int) -> int:
    """The levels to plan for at T tokens: those in `sizes`, by default as many as T has.

    Raises PlanError where they are too few or too many."""
    axis, due = spec.levels, levels_of(T)
    n = due if axis is None else sizes.get(axis, due)
    if isinstance(n, bool) or not isinstance(n, int) or not due <= n <= max(MOST, due):
        raise PlanError(f"{spec.name}: found {axis} = {n!r} at T = {T}; expected {due} levels or "
                        f"more (⌈log₂ T⌉ + 1), at most {MOST}")  # fmt: skip
    return n


@dataclass(frozen=True)
class Expanded:
    """`spec` without an axis of levels; `parts`: for each input that had it, the inputs that it
    became, level by level."""

    spec: Spec
    parts: Mapping[str, tuple[str, ...]]


def expand(spec: Spec, levels: int) -> Expanded:
    """`spec` (specialised) for a number of levels; itself where it has no axis of them."""
    axis = spec.levels
    if axis is None:
        return Expanded(spec, {})
    taken = {i.name for i in spec.inputs} | {n for n, _ in spec.output}
    parts: dict[str, tuple[str, ...]] = {}
    inputs: list[Input] = []
    for i in spec.inputs:
        if axis in i.axes:
            parts[i.name] = _names(i.name, levels, taken)
            axes = tuple(a for a in i.axes if a != axis)
            inputs += [replace(i, name=n, axes=axes) for n in parts[i.name]]
        else:
            inputs.append(i)
    c = spec.contraction
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    values |= {
        "axes": tuple(a for a in spec.axes if a.name != axis),
        "inputs": tuple(inputs),
        "contraction": replace(c, L=_Fenwick(spec, axis, parts, levels).of(c.L)),
    }
    return Expanded(Spec._assemble(values), parts)


def _names(name: str, levels: int, taken: set[str]) -> tuple[str, ...]:
    """Names that nothing has yet: `l_0`, `l_1`, …"""
    stem = f"{name}_"
    while taken & {f"{stem}{k}" for k in range(levels)}:
        stem += "_"
    made = tuple(f"{stem}{k}" for k in range(levels))
    taken |= set(made)
    return made


@dataclass(frozen=True)
class _Fenwick:
    """Replaces fenwick(l) in mask terms."""

    spec: Spec
    axis: str
    parts: Mapping[str, tuple[str, ...]]
    levels: int

    def of(self, term: MaskTerm) -> MaskTerm:
        if term.fn != NAME:
            return MaskTerm(term.fn, tuple(self.of(a) if isinstance(a, MaskTerm) else a
                                           for a in term.args))  # fmt: skip
        (l,) = term.args  # noqa: E741 (the paper's letter)
        assert isinstance(l, Expr)
        carried = self.spec.scope.carried(l)
        fn = "row" if "T" in carried else "scale"
        if self.axis not in carried:  # absent, its default in its place
            whole = MaskTerm("causal", ())
            return whole if l == ONE else MaskTerm(fn, (l, whole))
        total: MaskTerm | None = None
        for k in range(self.levels):
            one = MaskTerm(fn, (self._at(l, k), MaskTerm("level", (Num(k),))))
            total = one if total is None else MaskTerm("add", (total, one))
        assert total is not None
        return total

    def _at(self, e: Expr, k: int) -> Expr:
        """`e` at level k."""
        return substitute(e, {n: Name(made[k]) for n, made in self.parts.items()})
