"""From a spec, options and a call's shapes to a launcher: specialise, plan, lay out.

Non-goals: no tensors are run (launch.py), no options checked (options.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from smac.errors import PlanError
from smac.expr import Expr, Index, Size, names, walk
from smac.levels import Expanded, expand, levels_of, planned_levels
from smac.runtime import ahead
from smac.runtime import device as devices
from smac.runtime.launch import Cell, Launcher
from smac.runtime.options import Options
from smac.runtime.packed import count
from smac.runtime.state import Layout
from smac.runtime.validate import (
    Signature,
    check_lags,
    check_levels,
    id_inputs,
    operand_dtype,
)
from smac.spec import Spec, specialise

if TYPE_CHECKING:
    from smac.plan.types import Plan


def launcher_for(spec: Spec, options: Options, signature: Signature, values: tuple[Any, ...],
                 state: bool, step: bool, cu_seqlens: Any = None,
                 choose: Callable[[Plan], Plan] | None = None,
                 whole: bool = False) -> Launcher:  # fmt: skip
    """Check `values`, plan for them, and make their launcher. `choose` puts another plan in the
    place of the planner's, forward and backward. `whole`: all levels of an input are walked, as
    they are for states, also those that T does not reach."""
    from smac.masks import build

    sizes = signature.check(values, step)
    present: dict[str, Tensor] = {
        i.name: x for i, x in zip(spec.inputs, values, strict=True) if x is not None
    }
    absent = frozenset(i.name for i in spec.inputs if i.name not in present)
    device = next(iter(present.values())).device
    target = devices.target_for(device, options.target)
    if target == "triton" and device.type == "cuda":
        ahead.begin(device)
    if cu_seqlens is None:
        check_levels(spec, sizes)
    levels = {}
    if spec.levels in sizes and not (whole or state or cu_seqlens is not None):
        levels = {spec.levels: levels_of(sizes["T"])}
    made = prepared(spec, absent, {**sizes, **levels})
    special = made.spec
    mask = build(special.contraction.L, special)
    check_lags(spec.name, mask.entry(), special, sizes)
    n = 0 if cu_seqlens is None else count(spec.name, cu_seqlens, sizes, device)
    layout = layout_for(special, n > 0) if state else None
    dtype = operand_dtype(special, {name: x.dtype for name, x in present.items()})

    def make(backward: bool, frozen: frozenset[str] = frozenset()) -> Plan:
        planning = {a: max(n, 1) for a, n in {**sizes, **levels}.items()}
        plan = planned(spec, options, planning, devices.dtype_named(dtype), devices.row(device),
                       target, backward=backward, state=state, absent=absent,
                       sequences=n, frozen=frozen)  # fmt: skip
        return plan if choose is None or any(n == 0 for n in sizes.values()) else choose(plan)

    cell = Cell(spec.name, {n: spec.input(n).axes for n in present}, sizes, dtype, device,
                special.batch, layout, _ends_here(special) if state else None, step,
                n, spec.levels, made.parts, id_inputs(special.contraction.L))  # fmt: skip
    return Launcher(cell, make(False), lambda frozen: make(True, frozen),
                    options.precision_in(devices.dtype_named(dtype)))  # fmt: skip


def planned(spec: Spec, options: Options, sizes: Mapping[str, int], dtype: str, device: str,
            target: str, *, backward: bool, state: bool, absent: frozenset[str],
            sequences: int = 0, frozen: frozenset[str] = frozenset()) -> Plan:  # fmt: skip
    """The planner's answer for these options."""
    from smac.plan import make

    return make(spec, sizes=dict(sizes), dtype=dtype, device=device, target=target,
                order=options.order, chunk=options.chunk, schedule=options.schedule,
                backward=backward, state=state, absent=absent,
                sequences=sequences, frozen=frozen)  # fmt: skip


def prepared(spec: Spec, absent: frozenset[str], sizes: Mapping[str, int]) -> Expanded:
    """`spec` specialised, and expanded for the levels in `sizes`, or those of T."""
    special = specialise(spec, absent)
    return expand(special, planned_levels(special, sizes, sizes["T"]))


def layout_for(special: Spec, packed: bool = False) -> Layout:
    """How a state of a specialised and expanded spec lies in memory; PlanError naming the law for a
    mask without one.

    `packed`: B counts sequences, whether or not an input carries it."""
    from smac.masks import build

    spec = special
    mask = build(special.contraction.L, special)
    generators = mask.generators()
    missing = mask.missing("state" if generators else "generators")
    if generators is None or missing is not None:
        raise PlanError(f"{spec.name}: no state: {missing}; step, init_state, initial_state and "
                        "return_state need generators")  # fmt: skip
    ids = sorted(id_inputs(special.contraction.L))
    if len(ids) > 1:
        raise PlanError(f"{spec.name}: no state: found documents by {', '.join(ids)}; expected "
                        "one input of ids")  # fmt: skip
    c = special.contraction
    carried = set(_spread(special, (c.Q, c.K, c.V, *mask.parameters())))
    carried |= {"B"} if packed else set()
    normalised = any("Z" in names(e) for _, e in special.output)
    last = tuple(a for a in (*special.batch, "H", *special.groups) if ids and (
        a in special.input(ids[0]).axes or (packed and a == "B")))  # fmt: skip
    axes = (*special.batch, "H", "R", "N", "P")
    return Layout(axes, frozenset(carried - {"T", "S"}), generators.rank, normalised,
                  ids[0] if ids else None, last, _reads_position(special))  # fmt: skip


def sizes_for(spec: Spec, given: Mapping[str, int]) -> dict[str, int]:
    """Sizes by axis: those given, then the spec's own, then what follows from them. PlanError.

    Levels that are given without a T are of any T that they reach."""
    from smac.plan.sizes import at_sizes

    if spec.levels in given and "T" not in given:
        given = {**given, "T": 1}
    return dict(at_sizes(specialise(spec), given)[2])


def _spread(spec: Spec, exprs: tuple[Expr, ...]) -> Iterator[str]:
    """Axes of the expressions, groups as H."""
    for e in exprs:
        for axis in spec.axes_of(e):
            yield "H" if axis in spec.groups else axis


def _every(spec: Spec) -> Iterator[Expr]:
    from smac.masks import build

    c, mask = spec.contraction, build(spec.contraction.L, spec)
    generators = mask.generators()
    lanes = () if generators is None else (*generators.lanes, *generators.above)
    of_lanes = (e for x in lanes for e in (x.log_decay, x.reset, x.read, x.write) if e is not None)
    for e in (c.Q, c.K, c.V, mask.entry(), *of_lanes, *(e for _, e in spec.output)):
        yield from walk(e)


def _reads_position(spec: Spec) -> bool:
    return any(isinstance(e, Index) and e.axis == "T" for e in _every(spec))


def _ends_here(spec: Spec) -> str | None:
    """Why a sequence of this (specialised) spec cannot be continued, or None."""
    if any(isinstance(e, Size) and e.axis == "T" for e in _every(spec)):
        return "the spec reads size(T), which is not known before the end"
    return None

