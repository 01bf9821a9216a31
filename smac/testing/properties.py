"""The properties that a cell is held to, each a function of a `Trial`; `Broken` says what failed.

Values and gradients against the float64 oracle; the same bits twice; causality; linearity; a run in
two halves; a step against the last token; packed sequences. A property that does not apply to a
cell (no state, nothing linear) is passed over: `check` counts what is skipped for a whole order.

Non-goals: choosing cells (`cells.py`), judging precision (`errors.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from smac.expr import Name
from smac.masks.classify import resolve
from smac.reference.baseline import baseline, operand_dtype
from smac.reference.dense import mask_matrix
from smac.reference.oracle import bind
from smac.reference.run import reference
from smac.runtime.state import State
from smac.testing.cells import BEFORE, Cell
from smac.testing.errors import Broken, Error, judge
from smac.testing.inputs import Recipe, as_tuple, draw

Tensors = dict[str, Tensor | None]


@dataclass
class Trial:
    """A cell being run: the op, the inputs, and the oracle's account of them."""

    op: Any
    cell: Cell
    recipe: Recipe
    device: str = "cpu"

    @cached_property
    def inputs(self) -> Tensors:
        """What the op is called with."""
        return draw(self.op.spec, self.cell, self.recipe, self.device)

    @cached_property
    def acc(self) -> torch.dtype:
        """The accumulator's type: that of states."""
        return torch.promote_types(operand_dtype(self.op.spec, self.inputs), torch.float32)

    @cached_property
    def initial(self) -> State | None:
        """A state to start from: what three other tokens leave behind."""
        return self.state_after(BEFORE) if self.cell.state else None

    def state_after(self, tokens: int) -> State:
        """The oracle's state after some other tokens, as leaves of a graph."""
        sizes = tuple((a, tokens if a == "T" else n) for a, n in self.cell.sizes)
        before = replace(self.cell, sizes=sizes, seed=self.cell.seed + 1000, special=False)
        given = draw(self.op.spec, before, self.recipe, self.device)
        given = {n: x if "T" in self.op.spec.input(n).axes else self.inputs[n]
                 for n, x in given.items()}  # fmt: skip
        _, s = reference(resolve(self.op.spec), given, return_state=True)
        return self.leaves(s)

    def leaves(self, s: Any) -> State:
        """The oracle's state in the accumulator's type, as leaves of a graph."""

        def leaf(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.detach().to(self.acc).requires_grad_()

        S = leaf(s.S)
        assert S is not None
        return State(S, leaf(s.z), s.last, None, s.pos)

    def call(self, inputs: Tensors, **more: Any) -> Any:
        """The op on `inputs`."""
        return self.op(**inputs, **more)

    @property
    def tolerance(self) -> float:
        """For comparing the op with itself: relative to the largest value."""
        dtype: torch.dtype = getattr(torch, self.cell.dtype)
        return {8: 1e-10, 4: 1e-5}.get(dtype.itemsize, 4 * torch.finfo(dtype).eps)

    def t_dim(self, output: int) -> int:
        """Which dimension of an output is T."""
        spec = self.op.spec
        axes = {*spec.axes_of(spec.output[output][1]), *spec.axes_of(Name("Y"))}
        return sum(a in axes for a in spec.batch)

    def same(self, name: str, got: Any, expected: Any, peers: float = 0.0) -> None:
        """Equal outputs up to `tolerance` of their scale, or of that of their `peers`."""
        for a, b in zip(as_tuple(got), as_tuple(expected), strict=True):
            if a.shape != b.shape:
                raise Broken(name, f"found shape {tuple(a.shape)}, expected {tuple(b.shape)}")
            scale = max(1.0, peers, b.detach().abs().max().item() if b.numel() else 0.0)
            error = (a.double() - b.double()).abs().max().item() if b.numel() else 0.0
            if not error <= self.tolerance * scale:
                raise Broken(name, f"off by {error:.1e} where values reach {scale:.1e}")

    def timed(self, cut: Callable[[Tensor, int], Tensor]) -> Tensors:
        """Inputs with `cut(x, dim of T)` applied to those that carry T."""
        spec = self.op.spec
        dims = {i.name: i.axes.index("T") for i in spec.inputs if "T" in i.axes}
        return {n: x if x is None or n not in dims else cut(x, dims[n])
                for n, x in self.inputs.items()}  # fmt: skip


def ours(trial: Trial) -> tuple[list[Tensor], list[Tensor]]:
    """What the op makes of the cell: outputs (the last state behind them), and gradients."""
    start = trial.initial
    _, leaves = _leaves(trial.inputs, start)
    got = _flat(trial.call(trial.inputs, **_asked(start)), start)
    return got, _gradients(got, _weights(trial, got), leaves)


def values_and_gradients(trial: Trial) -> tuple[Error, Error]:
    """Outputs, the last state, and gradients of everything that floats, against the oracle."""
    spec, inputs, start = trial.op.spec, trial.inputs, trial.initial
    if start:  # the oracle judges a formula by the formula, but knows no state of one
        spec = resolve(spec)
    names, leaves = _leaves(inputs, start)
    got, grads = ours(trial)
    exact = _flat(reference(spec, inputs, **_asked(start)), start)
    plain = _flat(baseline(spec, inputs, **_asked(start)), start)
    labels = [n for n, _ in spec.output] + ["state.S", "state.z"]
    due = operand_dtype(spec, inputs)
    worst = Error()
    for i, (label, a, b, c) in enumerate(zip(labels, got, exact, plain, strict=False)):
        if a.shape != b.shape:
            raise Broken("values", f"{label}: found shape {tuple(a.shape)}, expected "
                         f"{tuple(b.shape)}")  # fmt: skip
        if a.dtype != (due if i < len(spec.output) else trial.acc):
            raise Broken("values", f"{label}: found {a.dtype}, expected {due}")
        worst = worst | judge("values", label, a, b, c, 1)
    weights = _weights(trial, got)
    true, rough = (_gradients(ys, weights, leaves) for ys in (exact, plain))
    steep, peers = Error(), max((x.abs().max().item() for x in true if x.numel()), default=0.0)
    for name, leaf, a, b, c in zip(names, leaves, grads, true, rough, strict=True):
        terms = max(1, max(y.numel() for y in got) // max(1, leaf.numel()))
        steep = steep | judge("gradients", name, a, b, c, terms, peers)
    return worst, steep


def _asked(start: State | None) -> dict[str, Any]:
    return {"initial_state": start, "return_state": True} if start else {}


def _weights(trial: Trial, got: list[Tensor]) -> list[Tensor]:
    """Cotangents of the outputs, the same ones each time."""
    g = torch.Generator().manual_seed(trial.cell.seed)
    return [torch.randn(y.shape, generator=g).to(y.device, y.dtype) for y in got]


def _leaves(inputs: Tensors, start: State | None) -> tuple[list[str], list[Tensor]]:
    pairs = [(n, x) for n, x in inputs.items() if x is not None and x.requires_grad]
    if start:
        pairs += [(f"initial_state.{f}", x) for f in ("S", "z")
                  if (x := getattr(start, f)) is not None]  # fmt: skip
    return [n for n, _ in pairs], [x for _, x in pairs]


def _flat(result: Any, start: State | None) -> list[Tensor]:
    if not start:
        return list(as_tuple(result))
    y, state = result
    return [*as_tuple(y), state.S, *([] if state.z is None else [state.z])]


def _gradients(ys: list[Tensor], weights: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    pairs = [(y, w.to(y.dtype)) for y, w in zip(ys, weights, strict=True) if y.requires_grad]
    if not pairs:
        return [torch.zeros_like(x) for x in leaves]
    found = torch.autograd.grad([y for y, _ in pairs], leaves, [w for _, w in pairs],
                                allow_unused=True)  # fmt: skip
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]


def repeat(trial: Trial) -> None:
    """The same call gives the same bits."""
    with torch.no_grad():
        one, two = (as_tuple(trial.call(trial.inputs)) for _ in range(2))
    if not all(torch.equal(a, b) for a, b in zip(one, two, strict=True)):
        raise Broken("repeat", "two equal calls gave different bits")


def causal(trial: Trial) -> None:
    """Where L is lower triangular, what comes later changes nothing before it."""
    T, spec = trial.cell.size("T"), trial.op.spec
    with torch.no_grad():
        scope = bind(spec, trial.inputs, torch.float64).scope
        mask = mask_matrix(spec.contraction.L, scope)
        if T < 2 or mask.to((*(a for a in mask.axes if a not in "TS"), "T", "S")).triu(1).any():
            return
        half = T // 2

        def later(x: Tensor, dim: int) -> Tensor:
            changed = x.detach().clone(memory_format=torch.contiguous_format)
            if x.is_floating_point():
                changed.narrow(dim, half, T - half).mul_(0.5)
            return changed

        before, after = (as_tuple(trial.call(x)) for x in (trial.inputs, trial.timed(later)))
        for i, (a, b) in enumerate(zip(before, after, strict=True)):
            dim = trial.t_dim(i)
            trial.same("causality", b.narrow(dim, 0, half), a.narrow(dim, 0, half))


def linear(trial: Trial) -> None:
    """f(2x − 3x') = 2f(x) − 3f(x') for the inputs in which the oracle is linear."""
    if trial.cell.dtype in ("bfloat16", "float16"):
        return
    with torch.no_grad():
        for name in trial.recipe.linear:
            x = trial.inputs[name]
            if x is None:
                continue
            other = x.flip(0).cos()
            one, two, both = (as_tuple(trial.call({**trial.inputs, name: z}))
                              for z in (x, other, 2 * x - 3 * other))  # fmt: skip
            expected = tuple(2 * a - 3 * b for a, b in zip(one, two, strict=True))
            trial.same(f"linearity in {name}", both, expected)


def split(trial: Trial) -> None:
    """Two halves through a state are one run."""
    T = trial.cell.size("T")
    half = (2 * T) // 3
    with torch.no_grad():
        whole, end = trial.call(trial.inputs, return_state=True)
        head = trial.timed(lambda x, dim: x.narrow(dim, 0, half))
        tail = trial.timed(lambda x, dim: x.narrow(dim, half, T - half))
        first, middle = trial.call(head, return_state=True)
        second, last = trial.call(tail, initial_state=middle, return_state=True)
    for i, y in enumerate(as_tuple(whole)):
        joined = torch.cat([as_tuple(first)[i], as_tuple(second)[i]], trial.t_dim(i))
        trial.same("state split", joined, y)
    trial.same("state split", last.S, end.S)


def step(trial: Trial) -> None:
    """One step from the state of all tokens but the last gives the last token's output."""
    T = trial.cell.size("T")
    if T < 1:
        return
    with torch.no_grad():
        whole, end = trial.call(trial.inputs, return_state=True)
        head = trial.timed(lambda x, dim: x.narrow(dim, 0, T - 1))
        _, state = trial.call(head, return_state=True)
        y, after = trial.op.step(state, **trial.timed(lambda x, dim: x.select(dim, T - 1)))
    for i, (a, b) in enumerate(zip(as_tuple(y), as_tuple(whole), strict=True)):
        trial.same("step", a, b.select(trial.t_dim(i), T - 1))
    trial.same("step", after.S, end.S)


def packed(trial: Trial, stateful: bool) -> None:
    """cu_seqlens at B = 1, empty sequences and one of a token among them: outputs, last states and
    gradients are those of each sequence by itself."""
    spec, T = trial.op.spec, trial.cell.size("T")
    g = torch.Generator().manual_seed(trial.cell.seed)
    cuts = torch.randint(0, T + 1, (3,), generator=g).tolist()
    ends = torch.tensor(sorted([0, *cuts, cuts[0], min(cuts[0] + 1, T), T]), device=trial.device)
    inputs = {n: x if x is None or "B" not in spec.input(n).axes
              else x.detach().narrow(spec.input(n).axes.index("B"), 0, 1)
              for n, x in trial.inputs.items()}  # fmt: skip
    for n, given in trial.inputs.items():
        x = inputs[n]
        if x is not None and given is not None:
            inputs[n] = x.detach().requires_grad_(given.requires_grad)
    more: dict[str, Any] = {"cu_seqlens": ends}
    start = None
    if stateful:
        spec = resolve(spec)
        _, s = reference(spec, inputs, return_state=True, **more)
        start = trial.leaves(s)
        more |= {"initial_state": start, "return_state": True}
    names, leaves = _leaves(inputs, start)
    got, exact = (_flat(f(), start) for f in (lambda: trial.call(inputs, **more),
                                              lambda: reference(spec, inputs, **more)))  # fmt: skip
    trial.same("packed", tuple(got), tuple(exact))
    if trial.tolerance > 1e-5:
        return  # a gradient that cancels has no scale of its own to be held to
    weights = [torch.randn(y.shape, generator=g).to(y.device, y.dtype) for y in got]
    grads, true = (_gradients(ys, weights, leaves) for ys in (got, exact))
    peers = max((x.abs().max().item() for x in true if x.numel()), default=0.0)
    for name, a, b in zip(names, grads, true, strict=True):
        terms = max(1, max(y.numel() for y in got) // max(1, b.numel()))
        trial.same(f"packed gradient of {name}", a, b, peers * terms**0.5)


EXTRA_PROPERTIES: dict[str, Callable[[Trial], None]] = {
    "repeat": repeat, "causal": causal, "linear": linear, "split": split, "step": step,
}  # fmt: skip
#: Those that need a mask with a finite state.
STATEFUL = frozenset({"split", "step"})


def run_trial(trial: Trial, stateful: bool, packs: bool = True) -> tuple[Error, Error]:
    """Every property of the cell; the worst errors of values and gradients. Raises Broken.

    `stateful`: the order carries states on; `packs`: it takes packed sequences."""
    errors = values_and_gradients(trial)
    wanted = [*EXTRA_PROPERTIES, "packed"] if trial.cell.extra == "all" else [trial.cell.extra]
    for name in wanted:
        if name == "packed":
            if packs:
                packed(trial, stateful)
        elif name in EXTRA_PROPERTIES and (stateful or name not in STATEFUL):
            EXTRA_PROPERTIES[name](trial)
    return errors
