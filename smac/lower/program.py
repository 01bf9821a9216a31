"""Plan → Program: the pipeline, readable top to bottom, verified after each pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from smac.expr import Expr, Index, names, walk
from smac.ir import Buffer, Carry, Kernel, Move, Program, Scan, Step
from smac.lower import two_sided
from smac.lower.adjoint import (
    Backward,
    apart,
    blank,
    in_segments,
    output_stores,
    parallel,
    pointwise,
    saved_states,
    together,
)
from smac.lower.channels import by_channel, swept
from smac.lower.chunked import chunked
from smac.lower.kernels import Order
from smac.lower.linear import linear
from smac.lower.mask_values import canonical
from smac.lower.quadratic import pairs, quadratic
from smac.lower.segments import split
from smac.lower.sides import READ_Y, named, raw_output, reading, sides_of
from smac.lower.two_sided import Sides
from smac.lower.values import Parts, input_buffers, output_axes, parts, state_buffers
from smac.plan.types import Plan
from smac.verify import verify

ORDERS = {"quadratic": quadratic, "linear": linear, "chunked": chunked}


def forward(plan: Plan) -> Program:
    """Outputs (and the final state) from inputs (and the initial state)."""
    if (sides := _sides(plan)) is not None:
        p = sides.parts
        made, scratch = two_sided.forward(sides)
        return _program("forward", plan, p, (*input_buffers(p), *_outputs(p), *scratch), made)
    p = parts(plan.request, _by_lanes(plan))
    order = ORDERS[plan.order](p, plan.chosen)
    states = _states_in(p, "state.S0"), _states_out(p, "state.ST")
    buffers = (*input_buffers(p), *states[0], *_outputs(p), *states[1])
    carry = Carry("KV", "K", "V", initial="state.S0" if p.state else None,
                  final="state.ST" if p.state else None)  # fmt: skip
    steps: tuple[Step, ...] = ()
    scratch = ()
    if p.reads_z and plan.request.target == "triton":
        steps, scratch = raw_output(order, final=carry.final)
        steps = (*steps, pointwise("epilogue", output_stores(p)))
        return _split("forward", plan, p, Backward(steps, scratch), buffers)
    channel = _by_channel(plan, p)
    if plan.chosen.schedule == "chunks" or (channel and not swept(p, READ_Y)):
        both = [replace(kv, final=carry.final) for kv, _ in sides_of(order)]
        steps = tuple(order.kernel(f"states{named(kv)}", (p.k, p.v),
                                   (replace(kv, saves="saved.KV"),), reverse=kv.reverse)
                      for kv in both)  # fmt: skip
        scratch = (saved_states(p, "saved.KV", "state" if channel else "operand"),)
        carries = tuple(replace(kv, initial=None, final=None, restores="saved.KV",
                                blank=blank(p, kv)) for kv in both)  # fmt: skip
        kernel = order.kernel("forward", (p.q, p.k, p.v), carries, (READ_Y,))
        steps = (*steps, replace(kernel, stores=output_stores(p)))
    else:
        steps, scratch = reading(order, "forward", (p.q, p.k, p.v), READ_Y, output_stores(p),
                                 final=carry.final)  # fmt: skip
    return _split("forward", plan, p, Backward(steps, scratch), buffers)


def backward(plan: Plan) -> Program:
    """Gradients of the float inputs (and of the initial state) from those of the outputs."""
    if (sides := _sides(plan)) is not None:
        p, made = sides.parts, two_sided.backward(sides)
    else:
        p = parts(plan.request, _by_lanes(plan))
        order: Order = ORDERS[plan.order](p, plan.chosen)
        order = replace(order, paired=order.kind == "tiles" and pairs(p, plan.request))
        made = (by_channel if _by_channel(plan, p) else _spread(plan))(order)
    cotangents = tuple(
        Buffer(f"d.{n}", output_axes(p, e), "operand", "cotangent", n) for n, e in p.spec.output
    )
    gradients = tuple(
        Buffer(f"grad.{b.name}", b.axes, "input", "gradient", b.name)
        for b in input_buffers(p) if b.name in dict(p.differentiable)
    )  # fmt: skip
    buffers = (
        *input_buffers(p), *cotangents, *_states_in(p, "state.S0", "state.dST"), *gradients,
        *(state_buffers(p, "state.dS0") if p.state else ()),
    )  # fmt: skip
    return _split("backward", plan, p, made, buffers)


def _spread(plan: Plan) -> Callable[[Order], Backward]:
    """How the schedule spreads the reads of a backward over kernels."""
    if plan.chosen.schedule == "segmented":
        return in_segments
    if plan.chosen.schedule == "chunks":
        return parallel
    if plan.chosen.schedule == "fft":  # one transform of each product serves every read
        return together
    return apart if plan.request.target == "triton" else together


def _sides(plan: Plan) -> Sides | None:
    """On torch, the two orders of a mask with lanes above its diagonal; None where one is all."""
    generators = plan.request.mask.generators()
    if generators is None or not generators.above or not _by_lanes(plan):
        return None
    if plan.request.target == "triton":
        return None

    def order(above: bool) -> Order:
        return ORDERS[plan.order](parts(plan.request, above=above), plan.chosen)

    return Sides(order(False) if generators.lanes else None, order(True))


def _by_channel(plan: Plan, p: Parts) -> bool:
    """Whether chunks are walked by kernels of their own for a mask per channel."""
    return plan.request.target == "triton" and plan.order == "chunked" and p.channel is not None


def _by_lanes(plan: Plan) -> bool:
    """Whether the order carries the states of the mask's lanes, rather than evaluate its entry."""
    return plan.order != "quadratic" and plan.chosen.schedule != "fft"


def _split(name: str, plan: Plan, p: Parts, made: Backward,
           buffers: tuple[Buffer, ...]) -> Program:  # fmt: skip
    """The program of what was made; its sweeps in segments where the schedule says so."""
    steps, scratch = made.steps, made.scratch
    if plan.chosen.schedule == "segmented":
        steps, more = split(p, steps)
        scratch = (*scratch, *more)
    return _program(name, plan, p, (*buffers, *scratch), steps)


def _program(name: str, plan: Plan, p: Parts, buffers: tuple[Buffer, ...],
             steps: tuple[Step, ...]) -> Program:  # fmt: skip
    last = "state.last" if p.state and p.scans else None
    read = frozenset().union(*(_reads(k) for k in steps if isinstance(k, Kernel)))
    used = tuple(s for s in p.scans if s.out in read)
    if p.state and not used:  # decays of nothing fold the resets away; the last ids still go out
        used = p.scans[:1]
    moves = _moves(p, read)
    moved = {m.source for m in moves}
    used = tuple(s for s in p.scans if s in used or s.out in moved)
    scans = tuple(replace(s, last=last) for s in used)
    made = [Buffer(s.out, _scan_axes(p, s), "int", "scratch") for s in scans]
    moved_buffers, back = _moved(p, moves, steps)
    made += moved_buffers
    if p.state and any(map(_reads_position, steps)):
        made.append(Buffer("state.pos", (), "int", "state"))
    if p.packed:
        made.append(Buffer("cu_seqlens", ("ENDS",), "int", "lengths"))
    return verify(Program(name, (*buffers, *made), (*scans, *moves, *steps, *back), p.spec.batch,
                          p.spec.groups, p.packed, plan.tiles))  # fmt: skip


def _moves(p: Parts, read: frozenset[str]) -> tuple[Move, ...]:
    """Those that kernels read, and those that these are made of."""
    kept: list[Move] = []
    for m in reversed(p.moves):
        if m.out in read or m.out in {k.source for k in kept}:
            kept.insert(0, m)
    return tuple(kept)


def _moved(p: Parts, moves: tuple[Move, ...],
           steps: tuple[Step, ...]) -> tuple[list[Buffer], tuple[Move, ...]]:  # fmt: skip
    """Buffers of moves and of their gradients, and the steps that take those to the inputs."""
    floats = dict(p.floats)
    inputs = {i.name: i for i in p.spec.inputs}
    stored = {s.buffer for k in steps if isinstance(k, Kernel) for s in k.stores}
    buffers, back = [], []
    for m in reversed(moves):  # a move of a move hands its gradient to that first
        root = m
        while (inner := next((x for x in p.moves if x.out == root.source), None)) is not None:
            root = inner
        source = next((s.source for s in p.scans if s.out == root.source), root.source)
        axes = canonical(p.spec, inputs[source].axes)
        own = ("input", source) if m.out in floats else ("int", "")
        buffers.append(Buffer(m.out, axes, own[0], "scratch", own[1]))
        if f"grad.{m.out}" in stored:
            buffers.append(Buffer(f"grad.{m.out}", axes, "acc", "sum"))
            back.append(Move(f"grad.{m.source}", m.fn, f"grad.{m.out}", back=True))
            stored.add(f"grad.{m.source}")
    return buffers, tuple(back)


def _reads(k: Kernel) -> frozenset[str]:
    """The names that a kernel's values and stores read."""
    return frozenset().union(*map(names, _exprs(k)))


def _reads_position(step: Step) -> bool:
    """Whether a step's values or stores depend on how far from the start their token is."""
    exprs = _exprs(step) if isinstance(step, Kernel) else ()
    return any(isinstance(x, Index) and x.axis == "T" for e in exprs for x in walk(e))


def _exprs(k: Kernel) -> tuple[Expr, ...]:
    """What a kernel computes token by token: its values and stores."""
    values = (e for v in k.values for e in (v.expr, v.tail) if e is not None)
    return (*values, *(s.expr for s in k.stores))


def _scan_axes(p: Parts, s: Scan) -> tuple[str, ...]:
    return next(b.axes for b in input_buffers(p) if b.name == s.source)


def _outputs(p: Parts) -> tuple[Buffer, ...]:
    return tuple(Buffer(n, output_axes(p, e), "operand", "output", n) for n, e in p.spec.output)


def _states_in(p: Parts, *states: str) -> tuple[Buffer, ...]:
    if not p.state:
        return ()
    return state_buffers(p, *states, *(("state.last",) if p.scans else ()))


def _states_out(p: Parts, name: str) -> tuple[Buffer, ...]:
    if not p.state:
        return ()
    return state_buffers(p, name, *(("state.last_out",) if p.scans else ()))
