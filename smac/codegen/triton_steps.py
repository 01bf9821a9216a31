"""Steps of a program as launches: which store a kernel does itself, what goes through partial sums.

Non-goals: no kernel text, no sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from smac.codegen.triton_channel_reads import channel_chunks, channel_sweep
from smac.codegen.triton_channels import prepare_channel, swept
from smac.codegen.triton_chunks import chunks
from smac.codegen.triton_fft import convolution
from smac.codegen.triton_join import join
from smac.codegen.triton_kernel import carried_axes, heads_and_batch, value
from smac.codegen.triton_lanes import lane_grad, recurrent_grad
from smac.codegen.triton_masks import tiles
from smac.codegen.triton_packed import slots_of
from smac.codegen.triton_pointwise import PointStore, pointwise, row_and_column
from smac.codegen.triton_prefix import prefix
from smac.codegen.triton_rows import Row, prepare
from smac.codegen.triton_sums import gathers
from smac.codegen.triton_sweeps import Target, read_of, recurrent, sweep
from smac.codegen.triton_turns import prepare_turns, turns_of
from smac.codegen.triton_wrapper import Host, axes_of
from smac.errors import CodegenError
from smac.expr import Between, Expr, Name, call, names, substitute, walk
from smac.ir import SEQ, Join, Kernel, LaneGrad, Move, Read, Scan, Step, Store, Value
from smac.plan.tokens import COLUMNS, SEGMENT

KINDS = ("chunked", "recurrent", "tiles", "fft")


def add_step(host: Host, step: Step) -> None:
    """One step of the program, appended to `host`."""
    if isinstance(step, Scan):
        _scan(host, step)
        return
    if isinstance(step, Join):
        _join(host, step)
        return
    if isinstance(step, Move):
        _move(host, step)
        return
    name = f"{host.program.name}_{step.name if step.name != host.program.name else 'kernel'}"
    if step.kind == "pointwise":
        put_stores(host, name, {v.name: v for v in step.values}, step.stores)
        return
    if step.kind not in KINDS:
        raise CodegenError(f"triton: kernel '{step.name}' is of kind '{step.kind}'; "
                           f"expected pointwise, {', '.join(KINDS)}")  # fmt: skip
    if step.kind == "fft":
        put_stores(host, f"{name}_stores", {}, convolution(host, name, step))
        return
    _note_states(host, step)
    _note_sums(host, name, step)
    per_channel = step.kind == "chunked" and step.channel is not None
    rows = prepare(host, step) if step.kind == "chunked" and not per_channel else {}
    stores = step.stores
    if per_channel:
        stores = _channel(host, name, step)
    elif step.reads and all(c.restores for c in step.carries):
        stores = chunks(host, name, step, rows)
    elif step.in_turn:
        _turns(host, name, step, rows)
    else:
        if step.reads:
            stores = _read(host, name, step, rows)
        elif any(c.saves or c.leaves for c in step.carries):
            host.launch(sweep(step, name, host.layout, host.known, [], rows))
        if step.lane_grads:
            stores = _lanes(host, name, step, rows, stores)
    if step.gathers:
        stores = gathers(host, name, step, stores)
    put_stores(host, f"{name}_stores", {v.name: v for v in step.values}, stores)


def _scan(host: Host, s: Scan) -> None:
    scan = "scan_sequences" if host.layout.packed else "scan_ids"
    host.helpers.add(scan)
    dim = host.known[s.source].axes.index("T")
    last = "None" if s.last is None else host.variables[s.last]
    source, out = host.variables[s.source], host.variables[s.out]
    ends = ", cu_seqlens" if host.layout.packed else ""
    host.lines.append(f"{out} = {scan}({source}, {dim}, {last}, {s.fn == 'runs'}{ends})")
    host.made.add(s.out)


def _move(host: Host, m: Move) -> None:
    """A copy of a tensor at other tokens; backward, its gradient added where it was read."""
    name, at = f"{m.fn}_grad" if m.back else m.fn, host.known[m.source].axes.index("T")
    host.helpers.add(name)
    text = f"{name}({host.variables[m.source]}, {at})"
    if m.back:
        host.put(m.out, [text])
        return
    host.lines.append(f"{host.variables[m.out]} = {text}")
    host.made.add(m.out)


def _join(host: Host, j: Join) -> None:
    """The states that enter the segments of a split walk; the last is the final one."""
    if j.final is not None:
        if j.tail:
            host.extra_columns[j.final] = 1
        host.ensure(j.final)
    name = f"{host.program.name}_{j.name}"
    host.launch(join(j, name, host.layout, host.known, host.lanes))


def _note_states(host: Host, k: Kernel) -> None:
    """Allocate the states that a kernel fills; remember which have a column more."""
    rows = f"rows({k.walk.chunk}, op)" if k.kind == "chunked" else str(SEGMENT)
    host.chunk = slots_of(rows) if host.layout.packed else f"triton.cdiv(n_T, {rows})"
    host.segments = f"triton.cdiv(n_T, {k.walk.segment})"
    host.lanes = max(1, sum(x.carried for x in k.lanes) if k.in_turn else len(k.lanes))
    for c in k.carries:
        tail = value(k, c.right).tail is not None
        for name in (c.initial, c.final, c.saves, c.restores, c.leaves, c.enters):
            if name is not None and tail:
                host.extra_columns[name] = 1
        met = None if c.restores else c.met  # chunks know how many tiles of N they have
        for name in (c.final, c.saves, met, c.leaves, c.spans):
            if name is not None:
                host.ensure(name)


def _note_sums(host: Host, name: str, k: Kernel) -> None:
    """Prefix sums in float64 of every log decay that the entry or a weight sums over a range."""
    exprs = [e for e in (k.entry, *(g.weight for g in k.gathers)) if e is not None]
    for e in (n for x in exprs for n in walk(x) if isinstance(n, Between)):
        assert isinstance(e.base, Name)
        v = value(k, e.base.id)
        sums, counts = f"prefix_{v.name}", f"resets_{v.name}"
        if sums in host.made:
            continue
        axes = host.canonical({*v.axes, "T"})
        shape = ["n_T + 1" if a == "T" else host.size(a) for a in axes]
        for made, dtype in ((sums, "torch.float64"), (counts, "torch.int32")):
            host.known[made] = _tensor(made, axes, True)
            host.variables[made] = made
            host.allocate(made, dtype, shape)
        host.launch(prefix(f"{name}_{sums}", host.layout, host.known, v.expr, axes, sums, counts))


def _tensor(name: str, axes: tuple[str, ...], as_is: bool = False):  # type: ignore[no-untyped-def]
    from smac.codegen.triton_tiles import Tensor

    return Tensor(name, axes, as_is)


def _read(host: Host, name: str, k: Kernel, rows: Mapping[Row, str]) -> tuple[Store, ...]:
    """Launch the reads with the stores that they can do; answer the stores that are left."""
    if k.kind == "tiles":
        placed = [_place_read(host, k, r) for r in k.reads]
        host.launch(tiles(k, name, host.layout, host.known, [m.targets for m in placed]))
        return tuple(s for m in placed for s in m.left(host))
    read, _ = read_of(k)
    made = _place_read(host, k, read)
    if k.kind == "chunked":
        host.launch(sweep(k, name, host.layout, host.known, made.targets, rows))
    else:
        host.launch(recurrent(k, name, host.layout, host.known, made.targets))
    return made.left(host)


def _place_read(host: Host, k: Kernel, read: Read) -> Placed:
    """Where `read` goes: the kernel's stores, or those of them that read it, where it has more."""
    stores = tuple(s for s in k.stores if len(k.reads) == 1 or read.out in names(s.expr))
    kept = "P" if read.over == "N" else "N"
    return _place(host, replace(k, reads=(read,), stores=stores), (read.out,), kept)


def _channel(host: Host, name: str, k: Kernel) -> tuple[Store, ...]:
    """Launch a kernel under a mask per channel; answer the stores that are left."""
    channel = str(k.channel)
    ready = prepare_channel(host, k)
    if swept(k):
        made = _place(host, k, tuple(r.out for r in k.reads), "P" if channel == "N" else "N")
        host.launch(channel_sweep(host, k, name, made.targets, ready))
    else:
        grads = tuple(n for g in k.lane_grads for n in g.outs)
        made = _place(host, k, (*(r.out for r in k.reads), *grads), channel)
        host.launch(channel_chunks(host, k, name, made.targets, ready))
    return made.left(host)


def _turns(host: Host, name: str, k: Kernel, rows: Mapping[Row, str]) -> None:
    """Launch the sweeps for states of lanes in turn."""
    ready, (carry,) = prepare_turns(host, k), k.carries
    for i, turn in enumerate(turns_of(k, ready, carry.upper)):
        of = f"{name}_{i}" if i else name
        host.launch(sweep(k, of, host.layout, host.known, [], rows, turn))


@dataclass(slots=True)
class Placed:
    """Where a kernel's outs go: its own stores, sums of parts of them, and stores for others."""

    targets: list[Target] = field(default_factory=list)
    partials: list[tuple[str, str]] = field(default_factory=list)
    later: list[Store] = field(default_factory=list)
    raw: dict[str, Expr] = field(default_factory=dict)

    def left(self, host: Host) -> tuple[Store, ...]:
        """Once the kernel is launched: sum its parts; the stores that are left."""
        for target, part in self.partials:
            host.put(target, [host.summed(part, host.program.buffer(target).axes)])
        return tuple(Store(s.buffer, substitute(s.expr, self.raw), s.axes) for s in self.later)


def _place(host: Host, k: Kernel, outs: tuple[str, ...], kept: str) -> Placed:
    """Allocate what a kernel stores whose tiles are over rows and the axis `kept`."""
    owned = heads_and_batch(host.layout, carried_axes(k))
    natural = host.canonical({*owned, "T", kept})
    without = tuple(a for a in natural if a != kept)
    own = {**dict.fromkeys(outs, natural), "Z": without}
    values = {v.name: v for v in k.values}
    made = Placed()
    for s in k.stores:
        found = names(s.expr)
        axes = set(axes_of(host, s, values, own))
        column = axes == set(without) and kept not in host.layout.sized
        whole = axes == set(natural) and "Z" not in found
        if not (s.expr == Name("Z") or whole or column):
            made.later.append(s)
            continue
        buffer = host.program.buffer(s.buffer)
        alone = sum(o.buffer == s.buffer for o in k.stores) == 1 and s.buffer not in host.made
        goal = without if s.expr == Name("Z") else natural
        single = set() if {kept} & {*buffer.axes, *host.layout.sized} else {kept}
        if alone and set(goal) - single == set(buffer.axes):
            host.ensure(s.buffer)
            made.targets.append((s.buffer, s.expr))
        else:
            part = host.fresh("partial", goal)
            host.allocate(part, "acc")
            made.targets.append((part, s.expr))
            made.partials.append((s.buffer, part))
    for out in sorted({n for s in made.later for n in names(s.expr)} & own.keys()):
        tensor = host.fresh("raw", own[out])
        host.allocate(tensor, "acc")
        made.targets.append((tensor, Name(out)))
        made.raw[out] = Name(tensor)
    return made


def _lanes(host: Host, name: str, k: Kernel, rows: Mapping[Row, str],
           stores: tuple[Store, ...]) -> tuple[Store, ...]:  # fmt: skip
    """Launch every lane's gradients; answer the stores over what they were put in."""
    raw: dict[str, Expr] = {}
    for grad in k.lane_grads:
        lane = f"{name}_lane" + (f"_{grad.lane}" if len(k.lanes) > 1 else "")
        raw |= (_by_tokens if k.kind == "recurrent" else _by_chunks)(host, lane, k, grad, rows)
    return tuple(Store(s.buffer, substitute(s.expr, raw), s.axes) for s in stores)


def _by_chunks(host: Host, name: str, k: Kernel, grad: LaneGrad,
               rows: Mapping[Row, str]) -> dict[str, Expr]:  # fmt: skip
    """All chunks in parallel; each gradient's name, and the tensor it went to."""
    axes = host.canonical({*heads_and_batch(host.layout, carried_axes(k)), "T"})
    outs: dict[str, str] = {}
    for out in (grad.decay, grad.read, grad.write):
        if out is not None:
            outs[out] = host.fresh("raw", axes)
            host.allocate(outs[out], "acc")
    host.launch(lane_grad(k, grad, name, host.layout, host.known, outs, rows))
    return {out: Name(made) for out, made in outs.items()}


def _by_tokens(host: Host, name: str, k: Kernel, grad: LaneGrad,
               rows: Mapping[Row, str]) -> dict[str, Expr]:  # fmt: skip
    """Token by token; a program's part of the sum over P goes along the axis _k, summed here."""
    owned = heads_and_batch(host.layout, carried_axes(k))
    axes = host.canonical({*owned, "T", *({k.channel} if k.channel else ())})
    parts = k.channel != "P"
    tail = value(k, k.carries[0].right).tail is not None
    blocks = f"triton.cdiv(n_P{' + 1' if tail else ''}, {COLUMNS})"
    outs: dict[str, str] = {}
    for out in (grad.decay, grad.read, grad.write):
        if out is not None:
            outs[out] = host.fresh("raw", ("_k", *axes) if parts else axes)
            shape = [*([blocks] if parts else []), *(host.size(a) for a in axes)]
            host.allocate(outs[out], "acc", shape)
    sequences = [f"n_{SEQ}"] if host.layout.packed else []
    programs = " * ".join([blocks, *(f"n_{a}" for a in owned), *sequences])
    scratch, turn = host.scratch(programs, f"{SEGMENT * COLUMNS} * pad(n_N)")
    host.launch(recurrent_grad(k, grad, name, host.layout, host.known, outs, scratch, turn))
    raw: dict[str, Expr] = {out: Name(made) for out, made in outs.items()}
    for out, made in outs.items() if parts else ():
        whole = host.fresh("raw", axes)
        host.lines.append(f"{whole} = {made}.sum(0)")
        raw[out] = Name(whole)
    return raw


def put_stores(host: Host, name: str, values: Mapping[str, Value],
               stores: tuple[Store, ...]) -> None:  # fmt: skip
    """Stores over tensors: by pointwise kernels, one for each set of axes, or by torch alone."""
    todo: dict[tuple[str, ...], dict[str, Expr]] = {}
    terms: dict[str, list[str]] = {}
    for s in stores:
        if isinstance(s.expr, Name) and s.expr.id in host.known:
            target = host.program.buffer(s.buffer).axes
            terms.setdefault(s.buffer, []).append(host.summed(s.expr.id, target))
            continue
        group = todo.setdefault(axes_of(host, s, values, {}), {})
        group[s.buffer] = call("add", group[s.buffer], s.expr) if s.buffer in group else s.expr
    for i, (axes, group) in enumerate(todo.items()):
        _, col = row_and_column(axes)
        points: list[PointStore] = []
        for b, e in group.items():
            buffer = host.program.buffer(b)
            alone = sum(b in g for g in todo.values()) == 1 and b not in terms
            if alone and b not in host.made and set(axes) == set(buffer.axes):
                host.ensure(b)
                points.append(PointStore(b, e))
                continue
            part = host.fresh("partial", tuple(a for a in axes if a != col or a in buffer.axes))
            host.allocate(part, "acc")
            points.append(PointStore(part, e))
            terms.setdefault(b, []).append(host.summed(part, buffer.axes))
        suffix = f"_{i}" if len(todo) > 1 else ""
        host.launch(pointwise(name + suffix, host.layout, host.known, values, axes, points))
    for b, found in terms.items():
        host.put(b, found)
