"""Tensors for a cell: values that a spec can live with, in any layout.

What suits an input is found, not told: log decays should not grow, γ lies in [0, 1], and outputs
and gradients must be finite. Each input is tried as "normal", "unit", "negative", "positive".

Non-goals: no properties, no judgement of errors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smac.errors import SmacError
from smac.expr import Expr, Name, names
from smac.masks.classify import resolve
from smac.reference.oracle import bind
from smac.reference.run import reference
from smac.reference.values import evaluate
from smac.runtime.validate import id_inputs
from smac.spec import Spec
from smac.terms import Input, MaskTerm
from smac.testing.cells import Cell, axes_needed, complete, optional_inputs

KINDS = ("normal", "unit", "negative", "positive")
Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """How to draw each input: a kind of `KINDS`, "ids", or the caller's (low, high).

    `bare`: inputs that are log decays themselves (specials go there). `linear`: inputs in which
    the outputs are linear, as the oracle finds.
    """

    kinds: Mapping[str, str | Range]
    bare: frozenset[str]
    linear: tuple[str, ...] = ()


def _terms(term: MaskTerm) -> list[MaskTerm]:
    return [term, *(t for a in term.args if isinstance(a, MaskTerm) for t in _terms(a))]


def _inlined(e: Expr, spec: Spec) -> frozenset[str]:
    """Inputs below `e`, through lets."""
    lets, found = dict(spec.let), set[str]()
    todo = set(names(e))
    while todo:
        name = todo.pop()
        todo |= set(names(lets[name])) if name in lets else set()
        found.add(name)
    return frozenset(found & {i.name for i in spec.inputs})


def _arguments(spec: Spec, fn: str) -> list[Expr]:
    """First arguments of every `fn` in the mask, formulas taken for what they are."""
    args = [t.args[0] for t in _terms(resolve(spec).contraction.L) if t.fn == fn]
    return [a for a in args if not isinstance(a, MaskTerm | str | bool)]


def values(item: Input, sizes: Mapping[str, int], kind: str | Range, g: torch.Generator) -> Tensor:
    """A float64 tensor (int64 for ids) of one input's shape."""
    shape = [sizes[a] for a in item.axes]
    if kind == "ids":
        starts = torch.rand(shape, generator=g) < 0.15
        along = item.axes.index("T")
        return (starts.long().cumsum(along) + torch.randint(0, 3, (), generator=g)) % 3
    if kind == "normal":
        return torch.randn(shape, generator=g, dtype=torch.float64)
    unit = 0.05 + 0.9 * torch.rand(shape, generator=g, dtype=torch.float64)
    if isinstance(kind, tuple):
        return kind[0] + (kind[1] - kind[0]) * (unit - 0.05) / 0.9
    return {"unit": unit, "negative": -unit, "positive": unit + 0.5}[kind]


def _probe(spec: Spec, kinds: Mapping[str, str | Range], absent: frozenset[str],
           seed: int = 0) -> dict[str, Tensor | None]:  # fmt: skip
    sizes = {a: {"T": 8, "H": 8, "N": 3, "P": 3}.get(a, 1) for a in axes_needed(spec)}
    lengths = dict(complete(spec, sizes)) | {"S": sizes.get("T", 8)}
    g = torch.Generator().manual_seed(seed)
    drawn = {i.name: values(i, lengths, kinds[i.name], g) for i in spec.inputs}
    return {n: None if n in absent else x for n, x in drawn.items()}


def _calm(spec: Spec, kinds: Mapping[str, str | Range]) -> bool:
    """Whether γ ∈ [0, 1] and log decays mostly shrink."""
    scope = bind(spec, _probe(spec, kinds, frozenset()), torch.float64).scope
    for e in _arguments(spec, "decay"):
        gamma = evaluate(e, scope).data
        if not ((gamma >= 0) & (gamma <= 1)).all():
            return False
    for e in _arguments(spec, "semiseparable"):
        g = evaluate(e, scope).data
        if not (g.double().mean() <= 0 and g.max() <= 0.1):
            return False
    return True


def _finite(spec: Spec, kinds: Mapping[str, str | Range]) -> bool:
    """Whether outputs and gradients are finite, with and without the optional inputs."""
    for absent in {frozenset[str](), frozenset(optional_inputs(spec))}:
        inputs = _probe(spec, kinds, absent)
        leaves = [x.requires_grad_() for x in inputs.values() if x is not None
                  and x.is_floating_point()]  # fmt: skip
        outs = as_tuple(reference(spec, inputs))
        total = torch.stack([y.sum() for y in outs]).sum()
        if not torch.isfinite(total):
            return False
        grads = torch.autograd.grad(total, leaves, allow_unused=True)
        if not all(torch.isfinite(x).all() for x in grads if x is not None):
            return False
    return True


def as_tuple(y: object) -> tuple[Tensor, ...]:
    """Outputs as a tuple, one or several."""
    return (y,) if isinstance(y, Tensor) else tuple(y)  # type: ignore[arg-type]


def recipe(spec: Spec, given: Mapping[str, Range] | None = None) -> Recipe:
    """A way to draw every input of `spec`; `given` fixes (low, high) of some.

    Raises SmacError when no combination gives finite outputs and gradients.
    """
    given = given or {}
    ids = id_inputs(spec.contraction.L)
    kinds: dict[str, str | Range] = {i.name: "normal" for i in spec.inputs}
    kinds |= dict.fromkeys(ids, "ids")
    kinds |= dict(given)
    fixed = ids | set(given)
    rates = [e for fn in ("decay", "semiseparable") for e in _arguments(spec, fn)]
    decisive = sorted(frozenset().union(*(_inlined(e, spec) for e in rates)) - fixed)
    found = _search(spec, kinds, decisive, _calm)
    if found is not None:
        rest = [i.name for i in spec.inputs if i.name not in fixed]
        found = _search(spec, found, rest, lambda s, k: _calm(s, k) and _finite(s, k))
    if found is None:
        raise SmacError(f"{spec.name}: found no inputs with finite outputs and gradients; "
                        "pass draw={name: (low, high)} to check()")  # fmt: skip
    bare = frozenset(e.id for e in _arguments(spec, "semiseparable") if isinstance(e, Name))
    made = Recipe(found, bare & {i.name for i in spec.inputs if "T" in i.axes} - set(given))
    return replace(made, linear=_linear(spec, made))


def _search(spec: Spec, kinds: dict[str, str | Range], free: list[str],
            good: object) -> dict[str, str | Range] | None:  # fmt: skip
    """The first change of at most two of `free`'s kinds with which `good` holds."""
    assert callable(good)
    for count in range(min(len(free), 2) + 1):
        for chosen in itertools.combinations(free, count):
            for new in itertools.product(KINDS[1:], repeat=count):
                trial = {**kinds, **dict(zip(chosen, new, strict=True))}
                if good(spec, trial):
                    return trial
    return None


def _linear(spec: Spec, made: Recipe) -> tuple[str, ...]:
    """Inputs x with f(2x − 3x') = 2f(x) − 3f(x'), by the oracle."""
    found = []
    base = _probe(spec, made.kinds, frozenset())
    other = _probe(spec, made.kinds, frozenset(), seed=1)
    for item in spec.inputs:
        x, y = base[item.name], other[item.name]
        if x is None or y is None or not x.is_floating_point() or "T" not in item.axes:
            continue
        one, two, both = (as_tuple(reference(spec, {**base, item.name: z}))
                          for z in (x, y, 2 * x - 3 * y))  # fmt: skip
        if all(torch.allclose(2 * a - 3 * b, c, rtol=1e-9, atol=1e-9)
               for a, b, c in zip(one, two, both, strict=True)):  # fmt: skip
            found.append(item.name)
    return tuple(found)


def draw(spec: Spec, cell: Cell, made: Recipe, device: str = "cpu") -> dict[str, Tensor | None]:
    """The inputs of a cell in its dtype and layout; floats that it does not freeze are leaves of a
    graph."""
    sizes = dict(cell.sizes)
    sizes["S"] = sizes.get("T", 0)
    g = torch.Generator().manual_seed(cell.seed)
    dtype: torch.dtype = getattr(torch, cell.dtype)
    inputs: dict[str, Tensor | None] = {}
    for item in spec.inputs:
        x = values(item, sizes, made.kinds[item.name], g)
        if cell.special and item.name in made.bare:
            _specials(x, g)
        if x.is_floating_point():
            low = dtype.itemsize < 4 and cell.mixed and "T" not in item.axes
            x = x.to(torch.float32 if low else dtype)
        x = laid_out(x, cell.layout).to(device)
        inputs[item.name] = None if item.name in cell.absent else x.detach().requires_grad_(
            x.is_floating_point() and item.name not in cell.frozen)  # fmt: skip
    return inputs


def _specials(x: Tensor, g: torch.Generator) -> None:
    dice = torch.rand(x.shape, generator=g)
    for low, value in ((0.0, -math.inf), (0.03, -50.0), (0.06, 0.0), (0.12, 0.3), (0.15, -256.0)):
        x[(dice >= low) & (dice < low + 0.03)] = value


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same values with other strides; "expanded" makes the first axis one row, repeated."""
    if x.dim() == 0 or layout == "contiguous":
        return x
    if layout == "strided":
        # What lies between is nobody's to read.
        between = math.nan if x.is_floating_point() else 7
        room = x.new_full([*x.shape[:-1], 2 * x.shape[-1] + 1], between)
        view = room[..., 1::2]
        return view.copy_(x)
    if layout == "permuted":
        order = list(range(x.dim()))[::-1]
        return x.permute(order).contiguous().permute(order)
    return x[:1].expand(x.shape) if x.shape[0] > 0 else x
