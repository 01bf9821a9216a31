"""Does a call fit its op? Names, ranks, axis sizes, devices, types; the first misfit is reported.

Non-goals: states (`state.Layout.checked`), what the planner can do. Runs once for each new
combination of shapes, dtypes and devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from smac.errors import LaunchError
from smac.expr import SCAN_FUNCTIONS, Call, Expr, Name, names, walk
from smac.levels import levels_of
from smac.masks.band import FULL, empty, form, highest, reads
from smac.signatures import SIGNATURES
from smac.spec import Input, MaskTerm, Spec

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

#: Sets of inputs that a hint tries to exchange axes in.
SWAPS = 256


def id_inputs(term: MaskTerm) -> frozenset[str]:
    """Inputs that hold integer ids: what a mask takes by its bare name along T (`document`), or a
    formula reads by `runs(ids)` or `starts(ids)`."""
    found: set[str] = set()
    kinds = SIGNATURES.get(term.fn, ())
    for n, arg in enumerate(term.args):
        if isinstance(arg, MaskTerm):
            found |= id_inputs(arg)
        elif isinstance(arg, Name) and n < len(kinds) and kinds[n].form == "name":
            found.add(arg.id)
        elif not isinstance(arg, str | bool):
            scans = (e for e in walk(arg) if isinstance(e, Call) and e.fn in SCAN_FUNCTIONS)
            found |= {x.id for e in scans for x in e.args if isinstance(x, Name)}
    return frozenset(found)


@dataclass(frozen=True)
class Signature:
    """What a call may pass: the inputs in order, which are ids, and what axes mean."""

    op: str
    inputs: tuple[Input, ...]
    ids: frozenset[str]
    groups: tuple[str, ...]

    @staticmethod
    def of(spec: Spec) -> Signature:
        """The signature of `spec`."""
        groups = tuple(a.name for a in spec.axes if a.kind == "group")
        return Signature(spec.name, spec.inputs, id_inputs(spec.contraction.L), groups)

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs' names, in call order."""
        return tuple(i.name for i in self.inputs)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values in input order, None = absent; LaunchError for names that are not inputs."""
        order = self.names
        if len(args) > len(order):
            raise LaunchError(f"{self.op}: expected at most {len(order)} inputs "
                              f"({', '.join(order)}), got {len(args)}")  # fmt: skip
        for name in kwargs:
            if name not in order:
                near = get_close_matches(name, order, 1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise LaunchError(f"{self.op}: unexpected input '{name}'; expected some of "
                                  f"{', '.join(order)}{hint}")  # fmt: skip
            if name in order[: len(args)]:
                raise LaunchError(f"{self.op}: input '{name}' is passed by position and by name")
        return (*args, *(kwargs.get(n) for n in order[len(args) :]))

    def check(self, values: Sequence[Any], step: bool = False) -> dict[str, int]:
        """Sizes by axis when `values` fit, else LaunchError. With `step`, inputs come without T."""
        device: tuple[str, torch.device] | None = None
        for n, (item, x) in enumerate(zip(self.inputs, values, strict=True)):
            axes = declared(item, step)
            if x is None:
                if item.default is None and not item.optional:
                    raise LaunchError(f"{self.op}: input '{item.name}' ({shown(axes)}) is missing; "
                                      f"pass it by name, or as argument {n + 1}")  # fmt: skip
                continue
            if not isinstance(x, Tensor):
                raise LaunchError(f"{self.op}: {item.name} has axes {shown(axes)}: expected a "
                                  f"tensor, got {type(x).__name__}")  # fmt: skip
            if x.dim() != len(axes):
                raise LaunchError(f"{self.op}: {item.name} has axes {shown(axes)}: expected "
                                  f"{len(axes)} dimensions, got {x.dim()}, shape "
                                  f"{tuple(x.shape)}")  # fmt: skip
            if device is not None and x.device != device[1]:
                raise LaunchError(f"{self.op}: {item.name} ({shown(axes)}): expected device "
                                  f"{device[1]} (as {device[0]}), got {x.device}")  # fmt: skip
            device = device or (item.name, x.device)
        self._check_types(values, step)
        if device is None:
            raise LaunchError(f"{self.op}: no input was passed; expected {', '.join(self.names)}")
        return self._sizes({i.name: tuple(x.shape) for i, x in zip(self.inputs, values, strict=True)
                            if x is not None}, step)  # fmt: skip

    def _check_types(self, values: Sequence[Any], step: bool) -> None:
        double: tuple[str, bool, torch.dtype] | None = None
        for item, x in zip(self.inputs, values, strict=True):
            if x is None:
                continue
            where = f"{self.op}: {item.name} ({shown(declared(item, step))})"
            if item.name in self.ids:
                if x.dtype not in INTEGERS:
                    raise LaunchError(f"{where}: expected integers (ids), got {x.dtype}")
                continue
            if x.dtype not in FLOATS:
                raise LaunchError(f"{where}: expected float16, bfloat16, float32 or float64, "
                                  f"got {x.dtype}")  # fmt: skip
            is_double = x.dtype == torch.float64
            if double is not None and double[1] != is_double:
                raise LaunchError(f"{where}: got {x.dtype} beside {double[2]} ({double[0]}); "
                                  "expected float64 for all float inputs or for none")  # fmt: skip
            double = double or (item.name, is_double, x.dtype)

    def _sizes(self, shapes: Mapping[str, tuple[int, ...]], step: bool) -> dict[str, int]:
        axes = {i.name: declared(i, step) for i in self.inputs}
        sizes, misfit = fit(shapes, axes, self.groups)
        if misfit is not None:
            raise LaunchError(f"{self.op}: {misfit}{self._hint(shapes, axes)}")
        if step:
            sizes["T"] = 1
        if "S" in sizes:
            raise_unless(sizes.setdefault("T", sizes["S"]) == sizes["S"], f"{self.op}: expected "
                         f"S = T = {sizes['T']}, got S = {sizes['S']}")  # fmt: skip
        for axis in ("B", "T", "H", "N", "P"):
            sizes.setdefault(axis, 1)
        for axis in ("N", "P"):
            raise_unless(sizes[axis] >= 1, f"{self.op}: expected {axis} ≥ 1, got {sizes[axis]}")
        return sizes

    def _hint(self, shapes: Mapping[str, tuple[int, ...]],
              axes: Mapping[str, tuple[str, ...]]) -> str:  # fmt: skip
        """What would fit: some inputs with T and the head axis exchanged."""
        heads = {"H", *self.groups}
        swaps = {}
        for name in shapes:
            for i, (a, b) in enumerate(zip(axes[name], axes[name][1:], strict=False)):
                if a == "T" and b in heads:
                    swaps[name] = i
        wide = [n for n in swaps if len(axes[n]) > swaps[n] + 2]
        some = [list(c) for k in range(1, len(swaps)) for c in combinations(swaps, k)]
        for tried in (wide, list(swaps), *some[:SWAPS]):
            other = dict(shapes)
            for name in tried:
                i, s = swaps[name], shapes[name]
                other[name] = (*s[:i], s[i + 1], s[i], *s[i + 2 :])
            if tried and fit(other, axes, self.groups)[1] is None:
                i = swaps[tried[0]]
                due = axes[tried[0]]
                got = (*due[:i], due[i + 1], due[i], *due[i + 2 :])
                return (f"; it looks as if {', '.join(tried)} came as {shown(got)} where "
                        f"{shown(due)} is due: "
                        f"pass {tried[0]}.transpose({i}, {i + 1})")  # fmt: skip
        return ""


def fit(shapes: Mapping[str, tuple[int, ...]], axes: Mapping[str, tuple[str, ...]],
        groups: tuple[str, ...]) -> tuple[dict[str, int], str | None]:  # fmt: skip
    """Sizes by axis, and the first thing that does not fit (or None)."""
    sizes: dict[str, int] = {}
    first: dict[str, str] = {}
    for name, shape in shapes.items():
        for axis, n in zip(axes[name], shape, strict=True):
            if sizes.setdefault(axis, n) != n:
                due = f"{axis} = {sizes[axis]} (as {first[axis]})"
                return sizes, (f"{name} has axes {shown(axes[name])}: expected {due}, got {n}, "
                               f"shape {shape}")  # fmt: skip
            first.setdefault(axis, name)
    for group in groups:
        if group in sizes:
            heads, n = sizes.setdefault("H", sizes[group]), sizes[group]
            if n == 0 or heads % n:
                return sizes, (f"{first[group]} has axes {shown(axes[first[group]])}: expected a "
                               f"{group} that divides H = {heads}, got {group} = {n}")  # fmt: skip
    return sizes, None


def check_lags(op: str, entry: Expr, spec: Spec, sizes: Mapping[str, int]) -> None:
    """W against T: at least T, and exactly 2T − 1 where a mask reads lags of both signs."""
    carriers = {i.name for i in spec.inputs if "W" in i.axes}
    T, W = sizes["T"], sizes.get("W")
    if W is None or T == 0:
        return
    for node, where in reads(entry):
        if len(node.index) != 1 or not names(node.base) & carriers or empty(where):
            continue
        name = min(names(node.base) & carriers)
        f = form(node.index[0])
        by_lag = f is not None and f.t == -f.s and {a for a, _ in f.sizes} <= {"T"}
        if by_lag and f is not None and where == FULL and highest(f, where, T) == 2 * T - 2:
            raise_unless(W == 2 * T - 1, f"{op}: {name}: expected W = 2T − 1 = {2 * T - 1} "
                         f"(lags −(T−1) … T−1), got {W}")  # fmt: skip
        else:
            raise_unless(W >= T, f"{op}: {name}: expected W ≥ T = {T} (lags 0 … T−1), got {W}")


def check_levels(spec: Spec, sizes: Mapping[str, int]) -> None:
    """The levels of T that inputs hold against those that T has: more are allowed."""
    T, n = sizes["T"], sizes.get(spec.levels or "")
    if n is not None and n < levels_of(T):
        names = ", ".join(i.name for i in spec.inputs if spec.levels in i.axes)
        raise LaunchError(f"{spec.name}: {names}: expected {spec.levels} ≥ {levels_of(T)}, the "
                          f"levels of T = {T} (⌈log₂ T⌉ + 1), got {n}")  # fmt: skip


def operand_dtype(spec: Spec, dtypes: Mapping[str, torch.dtype]) -> torch.dtype:
    """The promotion of the float inputs of Q, K and V that carry T, of all of them when none does.

    `spec` is specialised: its lets are gone.
    """
    c = spec.contraction
    read = names(c.Q) | names(c.K) | names(c.V)
    used = [i for i in spec.inputs if i.name in read and dtypes[i.name] in FLOATS]
    along = [i for i in used if "T" in i.axes] or used
    rest = [dtypes[i.name] for i in along] or [d for d in dtypes.values() if d in FLOATS]
    if not rest:
        return torch.float32
    result = rest[0]
    for d in rest[1:]:
        result = torch.promote_types(result, d)
    return result


def declared(item: Input, step: bool) -> tuple[str, ...]:
    """The axes that a call passes: all of them, or those of one token."""
    return tuple(a for a in item.axes if a != "T") if step else item.axes


def shown(axes: tuple[str, ...]) -> str:
    """ "B T H P", or "no axes"."""
    return " ".join(axes) or "no axes"


def raise_unless(condition: bool, message: str) -> None:
    """LaunchError(message) unless the condition holds."""
    if not condition:
        raise LaunchError(message)
