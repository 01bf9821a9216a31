"""The backward, derived: three SMAs and the mask's adjoint, then the chain to the inputs.

    dQ = SMA(dY, V, K; L)   dK = SMA(V, dY, Q; Lᵀ)   dV = SMA(K, Q, dY; Lᵀ)   dL = (QKᵀ) ∘ (dY Vᵀ)

dQ reads the product K ⊗ V that Y reads; dK and dV read Q ⊗ dY in reverse. `together` puts all of it
into one reverse walk (after one that saves states); `apart` gives each read a kernel of its own;
`parallel` sweeps for the states alone and then reads every chunk by itself, in two kernels.

Non-goals: no order (an `Order` makes the kernels), no target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from smac.derive import diff
from smac.expr import ZERO, Expr, Name, names
from smac.ir import TILE, Buffer, Carry, Kernel, Read, Step, Store, Value, Walk
from smac.lower.direct import direct
from smac.lower.kernels import Order
from smac.lower.mask_values import canonical
from smac.lower.sides import (
    READ_DK,
    READ_DQ,
    READ_DV,
    READ_Y,
    carries_of,
    named,
    per_head,
    raw_output,
    reading,
    sides_of,
    without_p,
)
from smac.lower.values import Parts, chain, cotangent, needs_y, output_axes, sum_of


@dataclass(frozen=True, slots=True)
class Backward:
    """Steps of a backward and the scratch buffers that they pass results through."""

    steps: tuple[Step, ...]
    scratch: tuple[Buffer, ...]


def together(order: Order) -> Backward:
    """One reverse walk that reads everything; states are saved by a forward walk before it."""
    dy = cotangent(order.parts)
    again = needs_y(dy) or stores_need_y(order.parts)
    return reversed_walk(order, dy, (READ_Y,) if again else (), input_stores(order))


def reversed_walk(order: Order, dy: Value, reads: tuple[Read, ...], stores: tuple[Store, ...],
                  side: str = "") -> Backward:  # fmt: skip
    """`together` under a given dY: `reads` beside the gradients', `stores` of what is read, and
    `side` in the names of kernels where a mask has two."""
    p = order.parts
    kv, qg = carries_of(p)
    steps: list[Step] = []
    scratch: tuple[Buffer, ...] = ()
    of_side = f"_{side}" if side else ""
    if order.stateful:
        saved = f"saved.KV{of_side}"
        steps.append(order.kernel(f"states{of_side}", (p.k, p.v), (replace(kv, saves=saved),)))
        scratch = (saved_states(p, saved),)
        # Of packed sequences several may begin behind the state that is restored.
        kv = replace(kv, initial=kv.initial if p.packed else None, restores=saved)
    main = order.kernel(
        f"backward{of_side}", (p.q, p.k, p.v, dy), (kv, qg),
        (*reads, READ_DQ, READ_DK, READ_DV), mask_grads=True, reverse=order.stateful,
    )  # fmt: skip
    steps.append(replace(main, stores=stores))
    return Backward(tuple(steps), scratch)


def apart(order: Order) -> Backward:
    """A kernel a read (or one for dK and dV, where the order has these `paired`), a kernel for the
    mask's gradients, and pointwise kernels around them."""
    p = order.parts
    dy = cotangent(p)
    steps: list[Step] = []
    scratch: list[Buffer] = []
    if needs_y(dy) or stores_need_y(p):
        y, buffers = raw_output(order)
        steps += y
        scratch += buffers
    if needs_y(dy) or p.reads_z:
        point, dy, buffers = materialised(p, dy)
        steps.append(point)
        scratch += buffers
    saves = order.stateful and bool(order.mask_uses())
    saved = ("saved.KV", "saved.QG") if saves else (None, None)
    one_by_one = (
        ("grad_q", (p.k, p.v, dy), READ_DQ, p.q, None, saved[0]),
        ("grad_k", (p.q, p.v, dy), READ_DK, p.k, None, None),
        ("grad_v", (p.q, p.k, dy), READ_DV, p.v, carries_of(p)[1].final, saved[1]),
    )
    for name, operands, read, like, final, saved_here in one_by_one[: 1 if order.paired else 3]:
        if not (p.learned(like) or final or saved_here):
            continue
        # The tail of V is constant: its gradient goes nowhere.
        buffer = Buffer(read.out, per_head(p, like), "acc", "scratch")
        stores = (Store(buffer.name, Name(read.out), buffer.axes),)
        made, waiting = reading(order, name, operands, read, stores, final=final, saves=saved_here)
        steps += made
        scratch += [*waiting, buffer]
    if order.paired:
        pair, outs = _paired(order, dy)
        steps.append(pair)
        scratch += outs
    if order.mask_uses():
        values = dict(order.mask_uses())
        for kv, qg in sides_of(order):
            carries = kv, qg
            if saves:
                carries = (replace(kv, initial=None, restores=saved[0]),
                           replace(qg, initial=None, final=None, restores=saved[1]))  # fmt: skip
            k = order.kernel(f"grad_mask{named(kv)}", (p.q, p.k, p.v, dy), carries,
                             mask_grads=True)  # fmt: skip
            grads = tuple(g for g in k.lane_grads if k.lanes[g.lane].upper == kv.upper)
            found = {g.out for g in k.gathers} | {n for g in grads for n in g.outs}
            outs = [Buffer(n, v.axes, "acc", "scratch") for n, v in values.items() if n in found]
            raw = tuple(Store(b.name, Name(b.name), b.axes) for b in outs)
            steps.append(replace(k, lane_grads=grads, stores=raw))
            scratch += outs
    if saves:
        scratch += [saved_states(p, "saved.KV"), saved_states(p, "saved.QG")]
    if left := input_stores(order):
        steps.append(pointwise("grad_inputs", left))
    if left and order.kind != "recurrent":
        steps, scratch = direct(steps, scratch)
    return Backward(tuple(steps), tuple(scratch))


def _paired(order: Order, dy: Value) -> tuple[Kernel, list[Buffer]]:
    """dV and dK as two reads of one kernel, and the buffers that it stores them to."""
    p = order.parts
    ((_, qg),) = sides_of(order)
    outs = [Buffer(r.out, per_head(p, x), "acc", "scratch")
            for r, x in ((READ_DV, p.v), (READ_DK, p.k))]  # fmt: skip
    pair = order.kernel("grad_kv", (p.q, p.k, p.v, dy), (qg,), (READ_DV, READ_DK),
                        reverse=qg.reverse)  # fmt: skip
    return replace(pair, stores=tuple(Store(b.name, Name(b.name), b.axes) for b in outs)), outs


def in_segments(order: Order) -> Backward:
    """Sweeps that are cut along T: one for each read, unless the mask has gradients, which want
    the states of every chunk, forward and reverse, side by side."""
    return parallel(order) if order.mask_uses() else apart(order)


def parallel(order: Order) -> Backward:
    """States of both sweeps first; then every chunk by itself: what is as wide as V, with the
    mask's gradients, in one kernel, what is as wide as Q and K in another, which can split N."""
    p = order.parts
    dy = cotangent(p)
    steps: list[Step] = []
    scratch: list[Buffer] = []
    reads: tuple[Read, ...] = (READ_DV,) if p.learned(p.v) else ()
    first = [order.kernel(f"states{named(kv)}", (p.k, p.v), (replace(kv, saves="saved.KV"),),
                          reverse=kv.reverse) for kv, _ in sides_of(order)]  # fmt: skip
    restored = [replace(kv, initial=None, restores="saved.KV", blank=blank(p, kv))
                for kv, _ in sides_of(order)]  # fmt: skip
    if needs_y(dy):
        if order.in_turn:  # no sweep reads Y: chunks do, behind their states
            steps, first = [*first], []
            y, buffers = raw_output(order, restored)
        else:
            y, buffers = raw_output(order)
        point, dy, more = materialised(p, dy)
        steps += [*y, point]
        scratch += [*buffers, *more]
    elif stores_need_y(p):
        reads = (READ_Y, *reads)
    states = [saved_states(p, n, "operand") for n in ("saved.KV", "saved.QG")]
    due = tuple(r for r, v in ((READ_DQ, p.q), (READ_DK, p.k)) if p.learned(v))
    met = "met" if order.mask_uses() else None
    if met:  # a decay that crosses a whole chunk: ⟨S, G⟩, while both are on chip
        states.append(Buffer(met, (*p.spec.batch, "C", "H", "R", TILE, "P"), "acc", "scratch"))
    beside = met is not None and len(due) == 2 and not order.in_turn
    against = met and "saved.KV"
    carries: tuple[Carry, ...] = ()
    for i, (_, qg) in enumerate(sides_of(order)):
        sweep = replace(qg, saves="saved.QG")
        if not beside:
            sweep = replace(sweep, against=against, met=met, blank=restored[i].blank)
        steps += first[i : i + 1]
        steps.append(order.kernel(f"adjoints{named(qg)}", (p.q, dy), (sweep,), reverse=qg.reverse))
        carries = (*carries, restored[i],
                   replace(qg, initial=None, final=None, restores="saved.QG", met=met,
                           blank=blank(p, qg)))  # fmt: skip
    operands = (p.q, p.k, p.v, dy)
    wide = order.kernel("grad_v", operands, carries, reads, mask_grads=True)
    deep = order.kernel("grad_qk", operands, tuple(
        replace(c, against=against if beside else None, met=met if beside else None)
        if c.name == "QG" else c for c in carries), due)  # fmt: skip
    ours = frozenset(("d.Q", "d.K"))
    stored = (replace(deep, stores=input_stores(order, only=ours)),
              replace(wide, stores=input_stores(order, without=ours)))  # fmt: skip
    steps += [k for k in stored if k.stores]
    return Backward(tuple(steps), (*scratch, *states))


def blank(p: Parts, carry: Carry) -> bool:
    """Whether `carry` starts from nothing, once: packed sequences start anywhere."""
    return carry.initial is None and not p.packed


def pointwise(name: str, stores: tuple[Store, ...]) -> Kernel:
    """A kernel without a mask: stores of expressions over buffers."""
    return Kernel(name, "pointwise", Walk(1, 1), (), stores=stores)


def output_stores(p: Parts) -> tuple[Store, ...]:
    """The [output] table."""
    return tuple(Store(n, e, output_axes(p, e)) for n, e in p.spec.output)


def input_stores(order: Order, only: frozenset[str] | None = None,
                 without: frozenset[str] = frozenset()) -> tuple[Store, ...]:  # fmt: skip
    """grad_x += chain(d use, ∂ use/∂ x) for each use of each float input x: those uses whose d is
    `only` one of some, or all `without` some."""
    p = order.parts
    uses: list[tuple[Name, Expr, tuple[str, ...]]] = [
        (Name(f"d.{n}"), e, output_axes(p, e)) for n, e in p.spec.output
    ]
    uses += [(Name(f"d.{v.name}"), v.expr, v.axes) for v in (p.q, p.k, p.v)]
    of_mask = {n for n, _ in order.mask_uses()}
    uses += [(Name(n), v.expr, v.axes) for n, v in order.mask_uses()]
    uses = [u for u in uses if u[0].id not in without and (only is None or u[0].id in only)]
    stores = []
    for name, own in p.differentiable:
        by_axes: dict[tuple[str, ...], list[Expr]] = {}
        for grad, e, axes in uses:
            if name not in names(e):
                continue
            infinite = grad.id in of_mask
            term = chain(grad, diff(e, Name(name)), infinite)
            if term != ZERO:
                by_axes.setdefault(canonical(p.spec, {*axes, *own}), []).append(term)
        stores += [Store(f"grad.{name}", sum_of(t), a) for a, t in by_axes.items()]
    return tuple(stores)


def stores_need_y(p: Parts) -> bool:
    """The derivative of an output with respect to an input reads Y or Z."""
    return any(
        {"Y", "Z"} & names(chain(Name("g"), diff(e, Name(n))))
        for _, e in p.spec.output for n, _ in p.differentiable if n in names(e)
    )  # fmt: skip


def saved_states(p: Parts, name: str, dtype: str = "acc") -> Buffer:
    """A scratch buffer for the states that enter the pieces of a walk."""
    return Buffer(name, (*p.spec.batch, "C", "H", "R", "N", "P"), dtype, "scratch")


def materialised(p: Parts, dy: Value) -> tuple[Kernel, Value, tuple[Buffer, ...]]:
    """dY (and dZ) as buffers, and the value that reads them."""
    buffers = [Buffer("d.Y", p.y_axes, "acc", "scratch")]
    stores = [Store("d.Y", dy.expr, dy.axes)]
    if dy.tail is not None:
        buffers.append(Buffer("d.Z", without_p(p.y_axes), "acc", "scratch"))
        stores.append(Store("d.Z", dy.tail, dy.axes))
    tail = None if dy.tail is None else Name("d.Z")
    value = Value("dY", Name("d.Y"), dy.axes, "operand", tail)
    return pointwise("cotangent", tuple(stores)), value, tuple(buffers)
