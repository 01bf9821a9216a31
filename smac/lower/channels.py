"""The backward of the chunked order under a mask per channel, spread over kernels.

A read that contracts the channel (Y and dV for a mask per N; dQ and dK per P) is swept, and saves
the states on its way. A read that keeps it weighs each channel by itself; so is the gradient of the
decays taken. One kernel makes those from the saved states, every chunk by itself.

Non-goals: no decays and no tiles (the target's), no forward (program.py).
"""

from __future__ import annotations

from dataclasses import replace

from smac.expr import Name, names
from smac.ir import Buffer, Carry, Kernel, Read, Step, Store, Value
from smac.lower.adjoint import (
    Backward,
    input_stores,
    materialised,
    pointwise,
    saved_states,
    stores_need_y,
)
from smac.lower.kernels import Order
from smac.lower.sides import (
    READ_DK,
    READ_DQ,
    READ_DV,
    READ_Y,
    carries_of,
    per_head,
    raw_output,
)
from smac.lower.values import Parts, cotangent, needs_y


def swept(p: Parts, read: Read) -> bool:
    """Whether a read contracts the channel of the mask: a sweep then sums it away."""
    return read.over == p.channel


def by_channel(order: Order) -> Backward:
    """Sweeps for reads that contract the channel, then one kernel for all that keep it."""
    p = order.parts
    dy = cotangent(p)
    kv, qg = carries_of(p)
    saving = {c.name: replace(c, saves=f"saved.{c.name}") for c in (kv, qg)}
    restored = {c.name: replace(c, initial=None, final=None, saves=None, restores=f"saved.{c.name}")
                for c in (kv, qg)}  # fmt: skip
    steps: list[Step] = []
    scratch = [saved_states(p, n, "state") for n in ("saved.KV", "saved.QG")]
    if needs_y(dy) or stores_need_y(p):
        (y,), buffers = raw_output(order)
        assert isinstance(y, Kernel)
        if swept(p, READ_Y):
            steps.append(replace(y, carries=(saving["KV"],)))
        else:
            steps += [_states(order, saving["KV"]), replace(y, carries=(restored["KV"],))]
        scratch += buffers
        saving["KV"] = kv
    elif not swept(p, READ_DQ):
        steps.append(_states(order, saving["KV"]))
    if needs_y(dy) or p.reads_z:
        point, dy, more = materialised(p, dy)
        steps.append(point)
        scratch += more
    reads = (READ_DQ, READ_DK, READ_DV)
    mains = tuple(r for r in reads if not swept(p, r))
    kernels = [
        order.kernel(r.out, (p.q, p.k, p.v, dy), (saving[r.carry],), (r,),
                     reverse=r.carry == "QG")
        for r in reads if swept(p, r)
    ]  # fmt: skip
    kernels.append(order.kernel("chunks", (p.q, p.k, p.v, dy), tuple(restored.values()), mains,
                                mask_grads=True))  # fmt: skip
    made, raw = _stored(order, kernels)
    return Backward((*steps, *made), (*scratch, *raw))


def _states(order: Order, carry: Carry) -> Kernel:
    """A sweep that saves states and reads nothing."""
    p = order.parts
    return order.kernel("states", (p.k, p.v), (carry,))


def _stored(order: Order, kernels: list[Kernel]) -> tuple[list[Step], list[Buffer]]:
    """`kernels` with the stores that each can do by itself, and a pointwise one for the others."""
    stores = input_stores(order)
    own = {o: i for i, k in enumerate(kernels) for o in _outs(k)}
    of_input: dict[str, set[int]] = {}
    for s in stores:
        makers = {own[n] for n in names(s.expr) & own.keys()}
        of_input.setdefault(s.buffer, set()).update(makers)
    alone = {b: next(iter(i)) for b, i in of_input.items() if len(i) == 1}
    rest = tuple(s for s in stores if s.buffer not in alone)
    shared = {n for s in rest for n in names(s.expr)} & own.keys()
    made: list[Step] = []
    scratch: list[Buffer] = []
    for i, k in enumerate(kernels):
        mine = [s for s in stores if alone.get(s.buffer) == i]
        for out in sorted(o for o in shared if own[o] == i):
            buffer = Buffer(out, _axes(order, out), "acc", "scratch")
            scratch.append(buffer)
            mine.append(Store(out, Name(out), buffer.axes))
        made.append(replace(k, name=_named(k), stores=tuple(mine)))
    if rest:
        made.append(pointwise("grad_inputs", rest))
    return made, scratch


def _named(k: Kernel) -> str:
    """A sweep is called after what it reads."""
    return f"grad_{k.name[-1].lower()}" if k.name.startswith("d.") else k.name


def _outs(k: Kernel) -> tuple[str, ...]:
    return (*(r.out for r in k.reads), *(n for g in k.lane_grads for n in g.outs))


def _axes(order: Order, out: str) -> tuple[str, ...]:
    """Axes of a gradient that passes through memory."""
    p = order.parts
    operands: dict[str, Value] = {"d.Q": p.q, "d.K": p.k, "d.V": p.v}
    if out in operands:
        return per_head(p, operands[out])
    return next(v.axes for n, v in order.mask_uses() if n == out)
