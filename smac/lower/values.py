"""The pieces that every order shares: operands, mask values, buffers, and the output's derivative.

`parts(request)` turns a specialised spec into values over named axes. Lowerings arrange them into
kernels; none of this knows an order or a mask family.

Non-goals: no order, no schedule, no sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.derive import diff, simplify
from smac.expr import ONE, ZERO, Call, Expr, Name, call, names, walk
from smac.ir import SEQ, Buffer, Gather, LaneIR, Move, Scan, Value
from smac.lower.mask_values import (
    Axes,
    Bases,
    Scans,
    canonical,
    folded,
    gathers,
    group_axis,
    lanes_of,
    scan_lanes,
)
from smac.masks.base import Mask
from smac.plan.types import Request
from smac.spec import Spec


@dataclass(frozen=True, slots=True)
class Parts:
    """A request in pieces: see the fields' types in ir.py.

    `lane_values` are the decays, reads and writes of `lanes`; `bases` the values under the nodes of
    `entry`; `channel` and `group` as in `ir.Kernel`; `y_axes` the axes of Y. `mirrored`: lanes are
    those above the diagonal, for a walk backward in time. `frozen`: inputs without a gradient.
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
    moves: tuple[Move, ...]
    channel: str | None
    group: str | None
    y_axes: tuple[str, ...]
    reads_z: bool
    state: bool
    packed: bool
    mirrored: bool
    frozen: frozenset[str]

    @property
    def integers(self) -> frozenset[str]:
        """Inputs that hold ids: they take no gradient."""
        return frozenset(s.source for s in self.scans)

    @property
    def floats(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Names and axes of float inputs, and of those at other tokens."""
        axes = {i.name: i.axes for i in self.spec.inputs}
        for m in self.moves:
            if m.source in axes:  # not a scan
                axes[m.out] = axes[m.source]
        return tuple((n, a) for n, a in axes.items() if n not in self.integers)

    @property
    def differentiable(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Those that take gradients: all but what is frozen, at whichever token."""
        without = set(self.frozen)
        for m in self.moves:
            if m.source in without:
                without.add(m.out)
        return tuple((n, a) for n, a in self.floats if n not in without)

    def learned(self, value: Value) -> bool:
        """Whether the gradient of `value` goes on to an input."""
        return bool(names(value.expr) & dict(self.differentiable).keys())


def parts(request: Request, by_lanes: bool = True, above: bool = False) -> Parts:
    """The pieces of `request`. `by_lanes`: an order that goes by lanes, not by the entry, takes
    their row and column factors into Q and K (the entry has them itself). `above`: on torch, the
    lanes are those above the diagonal, as they are backward in time."""
    spec, mask = request.spec, request.mask
    c = spec.contraction
    scans = Scans(spec)
    entry = scans.replace(mask.entry())
    group = group_axis(spec, (c.Q, c.K, c.V, *mask.parameters()))
    axes = Axes(spec, group, scans)
    reads_z = any("Z" in names(e) for _, e in spec.output)
    v_axes = canonical(spec, {*axes.of(c.V), *(("P",) if reads_z else ())})
    q = Value("Q", c.Q, axes.of(c.Q), "operand")
    k = Value("K", c.K, axes.of(c.K), "operand")
    v = Value("V", c.V, v_axes, "operand", ONE if reads_z else None)
    bases = Bases(axes)
    entry = bases.replace(entry)
    scan_lanes(mask, scans)
    lanes, lane_values = lanes_of(request, axes, scans, above)
    if by_lanes:
        q, k, v, lanes, lane_values = folded(axes, q, k, v, lanes, lane_values)
    symbol = mask.symbol()
    lags = None if symbol is None else Value("h", symbol[0], axes.of(symbol[0]), "acc")
    carried = frozenset(q.axes + k.axes + v.axes) | {
        a for x in (*bases.values, *lane_values) for a in x.axes
    }
    if group is not None and "H" not in carried:
        carried |= {"H"}
    y_axes = canonical(spec, carried & {*spec.batch, "T", "H", "P"})
    # Derivatives are dear, sympy's import too: only where the entry's are asked for.
    due = request.backward and not by_lanes
    return Parts(
        spec, mask, q, k, v, lanes, lane_values, entry, tuple(bases.values),
        gathers(mask, scans, bases) if due else (), lags, scans.scans, scans.moves, c.channel,
        group,
        y_axes, reads_z, request.state, request.packed, above, request.frozen,
    )  # fmt: skip


def input_buffers(p: Parts) -> tuple[Buffer, ...]:
    """One buffer an input, in call order, with canonical axes."""
    return tuple(
        Buffer(i.name, canonical(p.spec, i.axes), "input", "input", i.name) for i in p.spec.inputs
    )


def state_buffers(p: Parts, *states: str) -> tuple[Buffer, ...]:
    """States (batch…, H, R, N, P) in the accumulator's type; axes nobody carries have length 1.
    Packed sequences take the place of B.

    For masks that cut at ids, "last" / "last_out": the id before the first token, after the last;
    of each head where ids have heads.
    """
    batch = tuple(SEQ if p.packed and a == "B" else a for a in p.spec.batch)
    axes = (*batch, "H", "R", "N", "P")
    ids = {a for s in p.scans[:1] for a in p.spec.input(s.source).axes} | {SEQ}
    last = tuple(a for a in (*batch, "H", *p.spec.groups) if a in ids)
    return tuple(
        Buffer(n, last, "int", "state") if n.startswith("state.last")
        else Buffer(n, axes, "acc", "state")
        for n in states
    )  # fmt: skip


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
