"""The pieces that every order shares: operands, mask values, buffers, and the output's derivative.

`parts(request)` turns a specialised spec into values over named axes. Lowerings arrange them into
kernels; none of this knows an order or a mask family.

Non-goals: no order, no schedule, no sizes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from smac.derive import diff, simplify
from smac.errors import PlanError
from smac.expr import (
    ONE,
    SCAN_FUNCTIONS,
    ZERO,
    At,
    Between,
    Call,
    Expr,
    Name,
    call,
    names,
    transform,
    walk,
)
from smac.ir import Buffer, Gather, LaneIR, Scan, Value
from smac.masks.base import Lane, Mask
from smac.plan.types import Request
from smac.spec import Spec


@dataclass(frozen=True, slots=True)
class Parts:
    """A request in pieces: see the fields' types in ir.py.

    `lane_values` are the decays, reads and writes of `lanes`; `bases` the values under the nodes of
    `entry`; `channel` and `group` as in `ir.Kernel`; `y_axes` the axes of Y.
    """

    spec: Spec
    mask: Mask
    q: Value
    k: Value
    v: Value
    lanes: tuple[LaneIR, ...]
    lane_values: tuple[Value, ...]
    entry: Expr
    bases: tuple[Value, ...]
    gathers: tuple[Gather, ...]
    symbol: Value | None
    scans: tuple[Scan, ...]
    channel: str | None
    group: str | None
    y_axes: tuple[str, ...]
    reads_z: bool
    state: bool

    @property
    def integers(self) -> frozenset[str]:
        """Inputs that hold ids: they take no gradient."""
        return frozenset(s.source for s in self.scans)


def canonical(spec: Spec, axes: Collection[str]) -> tuple[str, ...]:
    """`axes` in the order of buffers: batch axes, T, S, W, H, groups, N, P."""
    order = (*spec.batch, "T", "S", "W", "H", *spec.groups, "N", "P")
    return tuple(a for a in order if a in axes)


def parts(request: Request, by_lanes: bool = True) -> Parts:
    """The pieces of `request`. `by_lanes`: an order that goes by lanes, not by the entry, takes
    their row and column factors into Q and K (the entry has them itself)."""
    spec, mask = request.spec, request.mask
    c = spec.contraction
    scans = _Scans(spec)
    entry = scans.replace(mask.entry())
    group = _group(spec, (c.Q, c.K, c.V, *mask.parameters()))
    axes = _Axes(spec, group, scans)
    reads_z = any("Z" in names(e) for _, e in spec.output)
    v_axes = canonical(spec, {*axes.of(c.V), *(("P",) if reads_z else ())})
    q = Value("Q", c.Q, axes.of(c.Q), "operand")
    k = Value("K", c.K, axes.of(c.K), "operand")
    v = Value("V", c.V, v_axes, "operand", ONE if reads_z else None)
    bases = _Bases(axes)
    entry = bases.replace(entry)
    lanes, lane_values = _lanes(request, axes, scans)
    if by_lanes:
        q, k, v, lanes, lane_values = _fold_factors(axes, q, k, v, lanes, lane_values)
    symbol = mask.symbol()
    if symbol is None:
        kernel_symbol = None
    else:
        kernel_symbol = Value("h", symbol[0], axes.of(symbol[0]), "acc")
    carried = frozenset(q.axes + k.axes + v.axes) | {
        a for x in (*bases.values, *lane_values) for a in x.axes
    }
    if group is not None and "H" not in carried:
        carried |= {"H"}
    y_axes = canonical(spec, carried & {*spec.batch, "T", "H", "P"})
    return Parts(
        spec, mask, q, k, v, lanes, lane_values, entry, tuple(bases.values),
        _gathers(mask, scans, bases), kernel_symbol, tuple(scans.steps), c.channel, group,
        y_axes, reads_z, request.state,
    )  # fmt: skip


def input_buffers(p: Parts) -> tuple[Buffer, ...]:
    """One buffer an input, in call order, with canonical axes."""
    return tuple(
        Buffer(i.name, canonical(p.spec, i.axes), "input", "input", i.name) for i in p.spec.inputs
    )


def state_buffers(p: Parts, *names_: str) -> tuple[Buffer, ...]:
    """States (batch…, H, R, N, P) in the accumulator's type; axes nobody carries have length 1.

    For masks that cut at ids, "last" / "last_out": the id before the first token, after the last.
    """
    axes = (*p.spec.batch, "H", "R", "N", "P")
    ids = tuple(b for b in p.spec.batch)
    return tuple(
        Buffer(n, ids, "int", "state") if n.startswith("state.last") else Buffer(n, axes, "acc", "state")
        for n in names_
    )


def output_axes(p: Parts, e: Expr) -> tuple[str, ...]:
    """Axes of an output: those of Y where it reads Y or Z, and of its inputs; groups become H."""
    found: set[str] = set()
    for name in names(e):
        found |= set(p.y_axes if name in ("Y", "Z") else p.spec.axes_of(Name(name)))
    found |= {a for a in p.spec.axes_of(e) if a not in ("Y", "Z")}
    if found & set(p.spec.groups):
        found = (found - set(p.spec.groups)) | {"H"}
    return canonical(p.spec, frozenset(found))


def cotangent(p: Parts) -> Value:
    """dY, with dZ as its tail: Σ over outputs of chain(d out, ∂ out/∂ Y); may read Y and Z."""
    heads = sum_of([chain(Name(f"d.{n}"), diff(e, Name("Y"))) for n, e in p.spec.output])
    tail = sum_of([chain(Name(f"d.{n}"), diff(e, Name("Z"))) for n, e in p.spec.output])
    return Value("dY", heads, p.y_axes, "operand", tail if p.reads_z else None)


def needs_y(value: Value) -> bool:
    """The cotangent depends on Y or Z: the backward has to read Y first."""
    found = names(value.expr) | (names(value.tail) if value.tail is not None else frozenset())
    return bool(found & {"Y", "Z"})


#: Functions whose derivatives can be infinite where values are finite.
SINGULAR = frozenset({"div", "pow", "log", "log1p", "sqrt"})


def chain(g: Expr, d: Expr, infinite: bool = False) -> Expr:
    """g·d with the trivial cases folded.

    Where d may be infinite though g is 0 (`infinite`: a log decay may be −inf; or d is singular),
    the product is `chain`, with 0·inf = 0."""
    d = simplify(d)
    if d == ZERO:
        return ZERO
    guarded = infinite or any(isinstance(n, Call) and n.fn in SINGULAR for n in walk(d))
    return g if d == ONE else call("chain" if guarded else "mul", g, d)


def sum_of(terms: list[Expr]) -> Expr:
    """Σ terms without the zeros."""
    kept = [t for t in terms if t != ZERO]
    if not kept:
        return ZERO
    total = kept[0]
    for t in kept[1:]:
        total = call("add", total, t)
    return total


class _Scans:
    """Integer scans of ids, each once, as a buffer."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.steps: list[Scan] = []

    def replace(self, e: Expr) -> Expr:
        return transform(e, self._one)

    def _one(self, e: Expr) -> Expr | None:
        if not (isinstance(e, Call) and e.fn in SCAN_FUNCTIONS):
            return None
        (source,) = e.args
        assert isinstance(source, Name)
        out = f"{e.fn}.{source.id}"
        step = Scan(out, e.fn, source.id)
        if step not in self.steps:
            self.steps.append(step)
        return Name(out)

    def source(self, name: str) -> str | None:
        return next((s.source for s in self.steps if s.out == name), None)


class _Axes:
    """Axes of an expression in a kernel: canonical, one group axis, other groups spread to H."""

    def __init__(self, spec: Spec, group: str | None, scans: _Scans) -> None:
        self.spec, self.group, self.scans = spec, group, scans

    def of(self, e: Expr) -> tuple[str, ...]:
        back = {s.out: Name(s.source) for s in self.scans.steps}
        found = set(self.spec.axes_of(transform(
            e, lambda n: back.get(n.id) if isinstance(n, Name) else None)))  # fmt: skip
        foreign = found & set(self.spec.groups) - {self.group}
        if foreign:
            found = (found - foreign) | {"H"}
        if "H" in found:
            found -= {self.group}
        return canonical(self.spec, frozenset(found))


class _Bases:
    """Values under the `At` and `Between` nodes of an entry, and its bare names."""

    def __init__(self, axes: _Axes) -> None:
        self.axes = axes
        self.values: list[Value] = []

    def replace(self, entry: Expr) -> Expr:
        return transform(entry, self._one)

    def name(self, base: Expr) -> Name:
        for v in self.values:
            if v.expr == base:
                return Name(v.name)
        integer = isinstance(base, Name) and self.axes.scans.source(base.id) is not None
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


def _gathers(mask: Mask, scans: _Scans, bases: _Bases) -> tuple[Gather, ...]:
    """The adjoint law over value names; empty where a mask states none (no gradients to take)."""
    if mask.missing("adjoint") is not None:
        return ()
    return tuple(
        Gather(f"d.{base.id}.{i}", c.pattern, base.id, bases.replace(scans.replace(c.weight)), c.index)
        for i, c in enumerate(mask.adjoint())
        for base in (bases.name(scans.replace(c.base)),)
    )


def _group(spec: Spec, exprs: tuple[Expr, ...]) -> str | None:
    """The first declared group axis that a value of the kernel would carry."""
    carried = {a for e in exprs for a in spec.axes_of(e) if a in spec.groups}
    return next((g for g in spec.groups if g in carried), None)


def _lanes(
    request: Request, axes: _Axes, scans: _Scans
) -> tuple[tuple[LaneIR, ...], tuple[Value, ...]]:
    """Lanes with values in place of expressions; constants 0 and 1 stay None."""
    generators = request.mask.generators()
    if generators is None:
        return (), ()
    values: list[Value] = []

    def value(name: str, e: Expr, trivial: Expr) -> str | None:
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
        return LaneIR(
            value(f"a{i}", x.log_decay, ZERO), reset,
            value(f"c{i}", x.read, ONE), value(f"b{i}", x.write, ONE),
        )  # fmt: skip

    lanes = tuple(lane(i, x) for i, x in enumerate(generators.lanes))
    return lanes, tuple(values)


Lanes = tuple[LaneIR, ...]
Values = tuple[Value, ...]


def _fold_factors(
    axes: _Axes, q: Value, k: Value, v: Value, lanes: Lanes, values: Values
) -> tuple[Value, Value, Value, Lanes, Values]:
    """A single lane's row factor belongs to Q and its column factor to K: L = c ∘ A ∘ b.

    Raises PlanError for several lanes with factors under a channel: no kernel has those."""
    if len(lanes) != 1:
        if axes.spec.contraction.channel and any(x.read or x.write for x in lanes):
            raise PlanError(
                "a sum of masks with a channel axis takes no row, column or scale factors in the "
                "linear and chunked orders; use order='quadratic'"
            )
        return q, k, v, lanes, values
    (lane,) = lanes
    by_name = {x.name: x for x in values}

    def times(operand: Value, name: str | None) -> Value:
        if name is None:
            return operand
        e = call("mul", by_name[name].expr, operand.expr)
        return replace(operand, expr=e, axes=axes.of(e))

    kept = tuple(x for x in values if x.name not in (lane.read, lane.write))
    q, k = times(q, lane.read), times(k, lane.write)
    return q, k, v, (replace(lane, read=None, write=None),), kept
