"""Scalar work, bytes, launches and time of one candidate.

The torch target runs one operation after the other, each a pass over its tensors, so its time is a
sum; a triton kernel overlaps, so its time is the largest of dots, scalar work, memory and the chain
of steps that wait for each other, scaled by how full the GPU is. Constants below are passes (reads
or writes of one element) and operations per piece; they describe the templates, not the devices.

Non-goals: flops of matrix products (dots.py), what is legal (candidates.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from smac.plan.bands import entries
from smac.plan.channel_work import channel_work
from smac.plan.cuts import (
    RESIDENT,
    VALUE_TILE,
    chunk_bytes,
    segment_tokens,
    span_tokens,
    turns,
)
from smac.plan.devices import ITEMSIZE, Device
from smac.plan.dots import dots
from smac.plan.rates import rates
from smac.plan.shape import Shape
from smac.plan.tokens import tokens_space
from smac.plan.types import Candidate, Dot, Request

# Passes over each kind of tensor in the torch target's chunked order, forward; backward takes
# `_BACKWARD` times as many.
_SCORES, _DECAYS, _WEIGHTS, _STATES, _OPERANDS, _OUTPUTS = 1, 6, 4, 12, 10, 10
_BACKWARD = 2.5
#: Passes over an operand with a channel's decays for each halving level, and its operations.
_LEVELS, _LEVEL_OPS = 18, (20, 45)
#: Passes over a block for each operation of a mask's entry, in the quadratic order; per channel.
_ENTRY, _CHANNEL_ENTRY = 7, 16
#: Operations that a segment of chunks, one chunk inside it, and a block of rows take (torch),
#: forward and backward. A segment's are many: broadcasts and copies for products count too.
_SEGMENT_OPS, _CHUNK_OPS, _ROWS_OPS = (80, 240), (2, 5), (15, 60)
#: The share of the dot rate that a kernel of large tiles reaches, and the tile that halves it, of
#: the torch target on a GPU. Triton's are in rates.py.
_GPU_DOTS, _GPU_HALF = 0.45, 16
_CPU_HALF = 4
#: Kernels of a triton forward, of a backward.
_KERNELS, _BACKWARD_KERNELS = 1, 4


@dataclass(frozen=True, slots=True)
class Work:
    """What a candidate does. `traffic` splits its bytes; `steps` wait for each other, in `swept`
    programs where those are not all; `before` must end first, and is no part of the other figures.
    `like`: the schedule whose rates its kernels reach on triton.
    """

    dots: tuple[Dot, ...]
    scalar: int
    traffic: tuple[tuple[str, int], ...]
    launches: int
    workspace: int
    programs: int = 0
    steps: float = 0.0
    swept: int = 0
    before: Work | None = None
    like: str = "sweep"

    @property
    def whole(self) -> Work:
        """This work and what is before it, as one."""
        if self.before is None:
            return self
        before = self.before.whole
        first = dict(before.traffic)
        traffic = tuple((name, n + first.pop(name, 0)) for name, n in self.traffic)
        return replace(self, before=None, traffic=(*traffic, *first.items()),
                       launches=self.launches + before.launches)  # fmt: skip

    @property
    def bytes(self) -> int:
        """All traffic."""
        return sum(n for _, n in self.traffic)

    @property
    def flops(self) -> int:
        """Of all dots."""
        return sum(d.flops for d in self.dots)


def work(x: Shape, request: Request, device: Device, order: str, chunk: int, schedule: str) -> Work:
    """What `request` takes in `order`, with pieces of `chunk`, on its target."""
    back = request.backward
    segment = segment_tokens(x, device, chunk, back)
    if request.target == "triton" and order == "chunked" and x.channel:
        return _triton_channel(x, back, chunk)
    found = dots(request, order, chunk, segment, schedule, x)
    if schedule == "fft":
        return _fft(x, back, found, request.target)
    if request.target == "triton":
        segments = -(-x.T // span_tokens(x, device, chunk)) if schedule == "segmented" else 0
        return _triton(x, back, order, chunk, schedule, found, segments)
    if order == "quadratic":
        return _torch_quadratic(x, back, chunk, found)
    return _torch_chunked(x, back, device, chunk, found)


# ---- torch ----------------------------------------------------------------------------------


def _torch_chunked(x: Shape, back: bool, device: Device, C: int, dots: tuple[Dot, ...]) -> Work:
    """Chunked (and linear, C = 1) by batched products over segments of chunks."""
    chunks = -(-x.T // C)
    tokens, lanes = x.batch * chunks * C, x.rank or 1
    more, unit = (_BACKWARD if back else 1), x.acc
    levels = C.bit_length() - 1 if x.channel else 0
    if x.channel:
        passes = _DECAYS + _LEVELS * levels
        inside = tokens * x.all_heads * (passes * x.channel_size + _WEIGHTS * C)
    else:
        inside = tokens * C * (_SCORES * x.heads("QK") + _DECAYS * lanes * x.heads("L")
                               + _WEIGHTS * x.heads("QKL"))  # fmt: skip
    states = _STATES * lanes * chunks * x.batch * x.all_heads * x.n("QK") * x.p
    traffic = (
        ("scores", int(more * unit * inside)),
        ("states", int(more * unit * states)),
        ("operands", int(more * unit * _OPERANDS * tokens * x.operands)),
        ("outputs", int(more * unit * _OUTPUTS * tokens * x.all_heads * x.p)),
    )
    segment = segment_tokens(x, device, C, back)
    whole = x.T - x.T % C
    pieces = -(-whole // segment) + (whole < x.T)  # a short chunk is a segment of its own
    space = (2 if back else 1) * (segment // C) * chunk_bytes(x, C)
    if back:  # the states that enter each segment pass through memory
        space += pieces * x.batch * lanes * x.all_heads * x.n("QK") * x.p * x.acc
    if x.above and (x.again or not back):  # Y of the side below waits for the other
        space += x.acc * x.batch * x.T * x.all_heads * x.p
    own = _SEGMENT_OPS[back] + lanes * levels * _LEVEL_OPS[back]
    launches = pieces * own + lanes * chunks * _CHUNK_OPS[back]
    return Work(dots, 0, traffic, launches, space)


def _torch_quadratic(x: Shape, back: bool, rows: int, dots: tuple[Dot, ...]) -> Work:
    """Blocks of rows; every operation of the mask's entry is a pass over the block."""
    more, unit = (_BACKWARD if back else 1), x.acc
    wide = x.channel_size
    entry = (_CHANNEL_ENTRY if x.channel else _ENTRY) * x.nodes * x.heads("L")
    inside = _SCORES * x.heads("QK") + wide * (entry + _WEIGHTS * x.heads("QKL"))
    tokens = x.batch * x.T
    traffic = (
        ("scores", int(more * unit * x.batch * entries(x, rows) * inside)),
        ("operands", int(more * unit * _OPERANDS * tokens * x.operands)),
        ("outputs", int(more * unit * _OUTPUTS * tokens * x.all_heads * x.p)),
    )
    blocks = -(-x.T // rows)
    tile = wide * (x.heads("QK") + 2 * x.heads("QKL"))
    space = x.acc * x.batch * min(rows, x.T) * x.T * tile * (2 if back else 1)
    return Work(dots, 0, traffic, blocks * (_ROWS_OPS[back] + (1 + back) * x.nodes), space)


# ---- triton ---------------------------------------------------------------------------------


def _triton(x: Shape, back: bool, order: str, C: int, schedule: str, dots: tuple[Dot, ...],
            segments: int = 0) -> Work:  # fmt: skip
    """One kernel forward, a few backward; what it reads and writes is inputs, outputs, states."""
    fitted = rates(x.item)
    heads, pieces = x.batch * x.all_heads, max(1, -(-x.T // C))
    columns = -(-x.p // VALUE_TILE)
    outputs = x.batch * x.T * x.all_heads * x.p * x.item
    traffic = [("operands", x.given * x.item * (2 if back else 1)), ("outputs", outputs)]
    entry_work = x.nodes + 2
    if order == "quadratic":
        scalar = heads * entries(x, C, whole=True) * x.nodes * x.channel_size
        scalar = int(scalar * fitted.entry_ops)
        programs = heads * pieces * columns
        row = entries(x, C, whole=True) / (max(x.T, 1) * C)  # tiles of a row of tiles, on average
        tile = fitted.tile_step + fitted.node_step * x.nodes + fitted.pair_step * x.pairs
        steps = (1 + back) * tile * row * C / 64
        steps *= fitted.tail_tile if x.tail else 1
        steps *= fitted.channel_tile if x.channel else 1
    elif schedule == "tokens":
        scalar = 2 * heads * x.n("QK") * x.p * (x.matvec + 2 * x.T)  # L·(K⊗V) by its law, K⊗V, Q·
        programs, steps = heads * columns, float(x.T)
    else:
        scalar = heads * x.T * (C * entry_work + 4 * x.n("QK"))
        step = fitted.turned_step if turned(x, back, schedule, C) else max(1.0, C / 80)
        lanes = 1 + fitted.lane_step * (max(x.rank or 1, x.sides) / x.sides - 1)
        programs, steps = heads * columns, pieces * step * lanes
        steps *= fitted.tail_step * (1 + back) if x.tail else 1
    space = 0
    kept = x.states_between(C) if schedule == "chunks" else x.states
    states = (kept or 1) * heads * x.n("QK") * x.p * x.item * pieces
    entering = None
    if segments:
        programs, steps = programs * segments, steps / segments
        entering = _entering(x, back, segments, programs, pieces)
        space = entering.workspace
    like = schedule if schedule != "segmented" else "chunks" if back and x.learned else "sweep"
    if like == "chunks":  # then a chunk is a program
        given, sweeps = x.given * x.item, (1 + back) * x.sides
        programs *= (kept or 1) if x.in_turn else 1
        first = Work((), 0, (("operands", sweeps * given), ("states", (1 + back) * states)),
                     sweeps, 0, programs, sweeps * fitted.state_step * pieces / max(segments, 1),
                     before=entering, like=like)  # fmt: skip
        traffic += [("gradients", given * back), ("states", (4 if back else 1) * states)]
        scalar = 2 * scalar if back else scalar
        return Work(dots, scalar, tuple(traffic), 1 + back, space + sweeps * states, heads * pieces,
                    before=first, like=like)  # fmt: skip
    sides = x.sides if schedule in ("sweep", "segmented", "tokens") else 1
    if sides > 1:  # what is above the diagonal is a sweep of its own, and Y of the first waits
        scalar, steps = sides * scalar, sides * steps
        traffic += [("operands above", x.given * x.item * (1 + back)),
                    ("Y below", 2 * x.batch * x.T * x.all_heads * x.p * x.acc)]  # fmt: skip
    if back:
        scalar, steps = 2 * scalar, 2 * steps
        like, more, scratch = _gradients(x, order, like, pieces)
        traffic, space = traffic + more, space + scratch
        if schedule == "tokens":  # states of tokens pass through scratch that is used again
            space = tokens_space(x)
    kernels = sides * (_BACKWARD_KERNELS if back else _KERNELS)
    return Work(dots, scalar, tuple(traffic), kernels, space, programs, steps, before=entering,
                like=like)  # fmt: skip


def turned(x: Shape, back: bool, schedule: str, C: int) -> bool:
    """Whether chunks of C rows are those of sweeps that turn their products; backward, sweeps that
    make gradients of the mask are not."""
    return turns(schedule, C, x.item) and not (back and x.learned)


def _gradients(x: Shape, order: str, like: str, pieces: int,
               ) -> tuple[str, list[tuple[str, int]], int]:  # fmt: skip
    """Of a kernel a gradient: whose rates they reach, what they read and write beside what a
    forward does, and scratch."""
    heads = x.batch * x.all_heads
    wide = order == "linear" or (order == "chunked" and x.learned)  # states, for the mask's
    traffic = []
    if like == "sweep":  # three sweeps read all but one operand each, and the mask's kernel all
        like = "sweep" if wide else "swept back"
        traffic = [("operands again", (1 + wide) * x.given * x.item)]
    traffic.append(("gradients", x.given * (x.acc if order == "linear" else x.item)))
    space = 0
    if x.heads("QK") < x.all_heads:  # gradients of shared operands, a head each, then summed
        space += 2 * heads * x.T * x.n("QK") * x.acc
    if wide:
        space += 2 * (x.states or 1) * heads * x.n("QK") * x.p * x.acc * pieces
    return like, [*traffic, ("per-head gradients and states", 2 * space)], space


def _entering(x: Shape, back: bool, segments: int, programs: int, pieces: int) -> Work:
    """What enters the segments of a sweep: a sweep for the states alone, and a join, a side."""
    fitted, sweeps = rates(x.item), (1 + back) * x.sides
    heads = x.batch * x.all_heads * segments
    ends = (1 + back) * (x.states or 1) * heads * x.n("QK") * x.p * x.acc
    step = fitted.state_step * (fitted.tail_step if x.tail else 1)
    steps = sweeps * (step * pieces / segments + fitted.join_step * segments)
    traffic = (("operands", sweeps * x.given * x.item), ("ends", 4 * ends))
    return Work((), 0, traffic, 2 * sweeps, ends, programs, steps, like="swept back")


def _triton_channel(x: Shape, back: bool, C: int) -> Work:
    """Kernels over all chunks at once, and sweeps that are left little to do."""
    w = channel_work(x, back, C)
    outputs = x.batch * x.T * x.all_heads * x.p * x.item
    traffic = [("operands", x.given * x.item * (1 + back)), ("outputs", outputs)]
    if back:
        traffic.append(("gradients", x.given * x.item))
    return Work(w.dots, w.scalar, (*traffic, *w.traffic), w.kernels, w.space, w.chunked, w.steps,
                w.swept)  # fmt: skip


# ---- torch.fft, on both targets -------------------------------------------------------------


def _fft(x: Shape, back: bool, dots: tuple[Dot, ...], target: str) -> Work:
    """The expanded state K⊗V convolved along T; backward convolves Q⊗dY too. On torch a state
    channel at a time, on triton as many as `state_channels` (triton_host.py) takes."""
    more, padded = (2 if back else 1), 2 ** max(1, (2 * x.T - 1).bit_length())
    columns = x.batch * x.all_heads * x.n("QK") * x.p
    scalar = more * 2 * columns * 5 * padded * padded.bit_length() // 2
    passes = ("states", (3 if back else 1) * x.acc * columns * padded * 8)
    one = max(columns // x.n("QK"), 1)
    each = max(1, 2**26 // (one * padded)) if target == "triton" else 1
    turns = -(-x.n("QK") // each)
    space = 3 * x.acc * one * min(each, x.n("QK")) * padded
    return Work(dots, scalar, (passes,), turns * _ROWS_OPS[back], space)


# ---- time -----------------------------------------------------------------------------------


def seconds(
    w: Work, request: Request, device: Device, chunk: int, schedule: str
) -> dict[str, float]:
    """Seconds of each resource: "dots", "scalar", "memory", "launches"; on triton "chain" too, and
    "states" for what sweeps do before."""
    rate = device.dot(request.dtype)
    doubles = 2 if request.dtype == "float64" else 1
    if not _by_passes(request.target, schedule):
        return _triton_seconds(w, request, device, chunk, rate, doubles, schedule)
    half = _CPU_HALF if device.kind == "cpu" else _GPU_HALF
    share = (1.0 if device.kind == "cpu" else _GPU_DOTS) * chunk / (chunk + half)
    inside = min(1.0, device.cache / max(w.workspace, 1))
    return {
        "dots": w.flops / (rate * share),
        "scalar": w.scalar * doubles / device.scalar,
        "memory": w.bytes * (inside / device.cached + (1 - inside) / device.bandwidth),
        "launches": w.launches * device.op,
    }


def _triton_seconds(
    w: Work, request: Request, device: Device, chunk: int, rate: float, doubles: int, schedule: str
) -> dict[str, float]:
    """Times of one kernel's resources; few programs leave SMs idle, many come in waves."""
    waves = max(w.programs, 1) / device.units
    idle = math.ceil(waves) / waves
    back = request.backward
    fitted = rates(ITEMSIZE[request.dtype])
    turned = w.like != "chunks" and turns(schedule, chunk, ITEMSIZE[request.dtype])
    rows = 64 if turned else chunk
    share = fitted.dots[w.like] * rows / (rows + _GPU_HALF) * (fitted.dots_back if back else 1)
    step = device.step if schedule != "tokens" else device.token
    rounds = math.ceil((w.swept or w.programs) / (device.units * RESIDENT))
    found = {
        "dots": idle * w.flops / (rate * share),
        "scalar": idle * w.scalar * doubles / device.scalar,
        "memory": w.bytes / (device.bandwidth * fitted.reach[w.like][back]) * min(idle, 2.5),
        "chain": rounds * w.steps * step,
        "launches": w.launches * device.launch,
    }
    if w.before is not None:
        first = _triton_seconds(w.before, request, device, chunk, rate, doubles, schedule)
        found["states"] = total(first, "triton", schedule)
    return found


def _by_passes(target: str, schedule: str) -> bool:
    """Whether the work is operations of torch, one behind the other."""
    return target == "torch" or schedule == "fft"


def total(parts: dict[str, float], target: str, schedule: str) -> float:
    """The time that the parts make: a sum of passes, or what overlaps plus the launches."""
    if _by_passes(target, schedule):
        return sum(parts.values())
    after = {"launches", "states"}
    return max(v for k, v in parts.items() if k not in after) + sum(parts.get(k, 0) for k in after)


def candidate(
    x: Shape, request: Request, device: Device, order: str, chunk: int, schedule: str
) -> Candidate:
    """The costed candidate, its verdict still open."""
    w = work(x, request, device, order, chunk, schedule)
    parts = seconds(w, request, device, chunk, schedule)
    in_segments = request.target == "torch" and order != "quadratic" and schedule != "fft"
    back = request.backward
    segment = segment_tokens(x, device, chunk, back) if in_segments else chunk
    if schedule == "segmented":
        segment = span_tokens(x, device, chunk)
    w = w.whole
    return Candidate(
        order=order, chunk=chunk, segment=segment, schedule=schedule, flops=w.flops,
        scalar_flops=w.scalar, bytes=w.bytes, launches=w.launches, workspace=w.workspace,
        time=total(parts, request.target, schedule), dots=w.dots, traffic=w.traffic,
        parts=tuple(parts.items()),
    )  # fmt: skip
