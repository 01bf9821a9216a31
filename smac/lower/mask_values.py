"""What a mask becomes in a kernel: values under its lanes and its entry, scans of ids, gathers.

Non-goals: no operands (values.py), no order, no mask family: only laws are asked.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from smac.derive import simplify
from smac.expr import (
    MOVE_FUNCTIONS,
    ONE,
    SCAN_FUNCTIONS,
    ZERO,
    At,
    Between,
    Call,
    Expr,
    Name,
    call,
    transform,
)
from smac.ir import Gather, LaneIR, Move, Scan, Value
from smac.masks.base import Cotangent, Lane, Mask
from smac.masks.lanes import carried, turned
from smac.masks.make import mul
from smac.plan.types import Request
from smac.spec import Spec

Lanes = tuple[LaneIR, ...]
Values = tuple[Value, ...]


def canonical(spec: Spec, axes: Collection[str]) -> tuple[str, ...]:
    """`axes` in the order of buffers: batch axes, T, S, W, H, groups, N, P."""
    order = (*spec.batch, "T", "S", "W", "H", *spec.groups, "N", "P")
    return tuple(a for a in order if a in axes)


class Scans:
    """What is made of inputs along T, each once, as a buffer: scans of ids, and moves."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.steps: list[Scan | Move] = []

    def replace(self, e: Expr) -> Expr:
        return transform(e, self._one)

    def _one(self, e: Expr) -> Expr | None:
        if isinstance(e, Call) and e.fn in MOVE_FUNCTIONS:
            return self._move(e.fn, self.replace(e.args[0]))
        if not (isinstance(e, Call) and e.fn in SCAN_FUNCTIONS):
            return None
        (source,) = e.args
        assert isinstance(source, Name)
        return self._made(Scan(f"{e.fn}.{source.id}", e.fn, source.id))

    def _move(self, fn: str, source: Expr) -> Expr:
        """What is the same at every token stays."""
        assert isinstance(source, Name)
        if "T" not in self.spec.axes_of(Name(self.root(source.id))):
            return source
        return self._made(Move(f"{fn}.{source.id}", fn, source.id))

    def _made(self, step: Scan | Move) -> Name:
        if step not in self.steps:
            self.steps.append(step)
        return Name(step.out)

    @property
    def scans(self) -> tuple[Scan, ...]:
        return tuple(s for s in self.steps if isinstance(s, Scan))

    @property
    def moves(self) -> tuple[Move, ...]:
        return tuple(s for s in self.steps if isinstance(s, Move))

    def root(self, name: str) -> str:
        """The input that `name` is made of."""
        step = next((s for s in self.steps if s.out == name), None)
        return name if step is None else self.root(step.source)

    def integer(self, name: str) -> bool:
        """Whether `name` holds integers that a scan has made."""
        step = next((s for s in self.steps if s.out == name), None)
        return step is not None and (isinstance(step, Scan) or self.integer(step.source))


class Axes:
    """Axes of an expression in a kernel: canonical, one group axis, other groups spread to H."""

    def __init__(self, spec: Spec, group: str | None, scans: Scans) -> None:
        self.spec, self.group, self.scans = spec, group, scans

    def of(self, e: Expr) -> tuple[str, ...]:
        back = {s.out: Name(self.scans.root(s.out)) for s in self.scans.steps}
        found = set(self.spec.axes_of(transform(
            e, lambda n: back.get(n.id) if isinstance(n, Name) else None)))  # fmt: skip
        foreign = found & set(self.spec.groups) - {self.group}
        if foreign:
            found = (found - foreign) | {"H"}
        if "H" in found:
            found -= {self.group}
        return canonical(self.spec, frozenset(found))


class Bases:
    """Values under the `At` and `Between` nodes of an entry, and its bare names."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.values: list[Value] = []

    def replace(self, entry: Expr) -> Expr:
        return transform(entry, self._one)

    def name(self, base: Expr) -> Name:
        for v in self.values:
            if v.expr == base:
                return Name(v.name)
        integer = isinstance(base, Name) and self.axes.scans.integer(base.id)
        value = Value(f"m{len(self.values)}", base, self.axes.of(base), "int" if integer else "acc")
        self.values.append(value)
        return Name(value.name)

    def _one(self, e: Expr) -> Expr | None:
        match e:
            case At(base, index):
                return At(self.name(base), index)
            case Between(base, low, high):
                return Between(self.name(base), low, high)
            case Name(_):
                return self.name(e)
            case _:
                return None


def gathers(mask: Mask, scans: Scans, bases: Bases) -> tuple[Gather, ...]:
    """The adjoint law over value names; empty where a mask states none (no gradients to take)."""
    if mask.missing("adjoint") is not None:
        return ()

    def gather(i: int, c: Cotangent) -> Gather:
        base = bases.name(scans.replace(c.base)).id
        weight = bases.replace(scans.replace(c.weight))
        return Gather(f"d.{base}.{i}", c.pattern, base, weight, c.index)

    return tuple(gather(i, c) for i, c in enumerate(mask.adjoint()))


def group_axis(spec: Spec, exprs: tuple[Expr, ...]) -> str | None:
    """The first declared group axis that a value of the kernel would carry."""
    carried = {a for e in exprs for a in spec.axes_of(e) if a in spec.groups}
    return next((g for g in spec.groups if g in carried), None)


def scan_lanes(mask: Mask, scans: Scans) -> None:
    """Meet what the lanes of both sides are made of, so that each side knows it all."""
    generators = mask.generators()
    for x in () if generators is None else (*generators.lanes, *generators.above):
        for e in (x.log_decay, x.reset, x.read, x.write):
            if e is not None:
                scans.replace(e)


def lanes_of(
    request: Request, axes: Axes, scans: Scans, above: bool = False
) -> tuple[tuple[LaneIR, ...], tuple[Value, ...]]:
    """Lanes with values in place of expressions; constants 0 and 1 stay None.

    On triton a kernel has those of both sides of the diagonal. On torch it has those of one: those
    `above` come with rows and columns exchanged, as a walk backward in time meets them."""
    generators = request.mask.generators()
    if generators is None:
        return (), ()
    both = request.target == "triton"
    own = turned(generators.above) if above else generators.lanes
    own = (*generators.lanes, *generators.above) if both else own
    values: list[Value] = []

    def keeps(x: Lane) -> bool:
        """Whether a lane has a state, which it always has where states are asked for."""
        return not both or request.state or x.late or x in carried(generators.lanes)

    def value(name: str, e: Expr, trivial: Expr) -> str | None:
        e = scans.replace(e)
        if simplify(e) == trivial:
            return None
        values.append(Value(name, e, axes.of(e), "acc"))
        return name

    def lane(i: int, x: Lane) -> LaneIR:
        reset = None
        if x.reset is not None:
            replaced = scans.replace(x.reset)
            values.append(Value(f"reset{i}", replaced, axes.of(replaced), "int"))
            reset = f"reset{i}"
        kept = keeps(x)
        read, write = (x.read, x.write) if kept else (mul(x.read, x.write), ONE)
        return LaneIR(
            value(f"a{i}", x.log_decay, ZERO) if kept else None, reset,
            value(f"c{i}", read, ONE), value(f"b{i}", write, ONE), x.late,
            upper=both and i >= len(generators.lanes), keeps=kept,
        )  # fmt: skip

    lanes = tuple(lane(i, x) for i, x in enumerate(own))
    return lanes, tuple(values)


def folded(
    axes: Axes, q: Value, k: Value, v: Value, lanes: Lanes, values: Values
) -> tuple[Value, Value, Value, Lanes, Values]:
    """A single lane's row factor belongs to Q and its column factor to K: L = c ∘ A ∘ b. (Of an
    upper lane, which is transposed, the other way round.)

    Several lanes keep theirs."""
    if len(lanes) != 1:
        return q, k, v, lanes, values
    (lane,) = lanes
    by_name = {x.name: x for x in values}

    def times(operand: Value, name: str | None) -> Value:
        if name is None:
            return operand
        e = call("mul", by_name[name].expr, operand.expr)
        return replace(operand, expr=e, axes=axes.of(e))

    kept = tuple(x for x in values if x.name not in (lane.read, lane.write))
    of_q, of_k = (lane.write, lane.read) if lane.upper else (lane.read, lane.write)
    q, k = times(q, of_q), times(k, of_k)
    return q, k, v, (replace(lane, read=None, write=None),), kept
