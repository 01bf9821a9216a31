"""What kernels under a mask per channel share: decays summed along chunks, and what sweeps read.

The channel axis is N or P. Two operands carry it: one in rows (Q, or dY) and one in columns (K, or
V). For a whole program, and for all chunks at once, kernels write: log2 decays summed along each
chunk, both operands times decays from the chunk's start and to its end, and scores of the pairs of
a chunk under L. Sweeps that contract the channel then multiply plain tiles.

Non-goals: no sweeps, no reads that keep the channel (triton_channel_reads.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from smac.codegen.print_triton import real
from smac.codegen.triton_kernel import FAR, Draft, atom, owned_grid, value
from smac.codegen.triton_rows import Sum
from smac.codegen.triton_sweeps import DOT, lane_of
from smac.codegen.triton_tiles import Frame, Ix, Scope
from smac.codegen.triton_wrapper import Host
from smac.expr import Expr, names
from smac.ir import SEQ, Kernel, LaneIR

#: Which operands carry the channel, (in rows, in columns), and which the other axis, by channel.
CARRIED = {"N": ("Q", "K"), "P": ("dY", "V")}
OTHERS = {"N": ("dY", "V"), "P": ("Q", "K")}
LEVELS = "rows({chunk}, op).bit_length() - 1"
#: Powers of 2 up to which factors to the middle of a chunk take the place of levels: products of
#: two, times operands, stay in bfloat16's range. Others lack range, or digits in sums of paths.
NEAR = "56.0 if op == torch.bfloat16 else 0.0"


@dataclass(frozen=True, slots=True)
class Made:
    """A tensor over chunks: "rows" or "columns" (an operand times decays), or their "scores"."""

    what: str
    sum: Sum
    exprs: tuple[Expr, ...]


def prepare_channel(host: Host, k: Kernel) -> dict[str, str]:
    """Tensors for `k`: its "sums" and, where it sweeps, "rows", "columns" and "scores" that it
    reads. Launches kernels for those that the program does not have yet."""
    total, chunk = channel_sum(k), k.walk.chunk
    found = {"sums": _sums(host, k, total)}
    if not swept(k):
        return found
    wanted: dict[Made, None] = {}
    for other in (s for s in host.program.steps if isinstance(s, Kernel)):
        if other is k or (swept(other) and channel_sum(other) == total and _ready(host, other)):
            wanted |= dict.fromkeys(_needs(other))
    fresh = [w for w in wanted if (chunk, w) not in host.rows]
    if fresh:
        _scores(host, k, total, found["sums"], fresh)
    return found | {w.what: host.rows[chunk, w] for w in _needs(k)}


def kept(k: Kernel) -> LaneIR:
    """The one lane with a state; the others are diagonals."""
    return lane_of(replace(k, lanes=tuple(x for x in k.lanes if x.keeps)))


def own_pair(d: Draft, k: Kernel, frame: Frame) -> str | None:
    """The mask between a token and itself, over rows and channels; None: 1, and "": 0."""
    terms = [] if kept(k).late else ["1.0"]
    terms += [d.number(x.read, frame, 2) if x.read else "1.0" for x in k.lanes if not x.keeps]
    if terms == ["1.0"]:
        return None
    return f"({' + '.join(terms)})" if len(terms) > 1 else "".join(map(atom, terms))


def channel_sum(k: Kernel) -> Sum:
    """The decays and resets of the one lane, as they are summed."""
    lane = kept(k)
    decay, reset = (None if n is None else value(k, n).expr for n in (lane.decay, lane.reset))
    return Sum(decay, reset)


def swept(k: Kernel) -> bool:
    """Whether the kernel carries a state itself, under a mask per channel."""
    return k.channel is not None and k.kind == "chunked" and not any(c.restores for c in k.carries)


def _needs(k: Kernel) -> list[Made]:
    """What a sweep reads: what it multiplies the kept operand with, and what reads the state."""
    total, channel = channel_sum(k), str(k.channel)
    names_of = dict(zip(("rows", "columns"), CARRIED[channel], strict=True))
    exprs = {what: value(k, n).expr for what, n in names_of.items()
             if any(v.name == n for v in k.values)}  # fmt: skip
    (carry,) = k.carries
    whats = ["rows" if carry.reverse else "columns"] if not k.reads else ["rows", "columns"]
    found = [Made(w, total, (exprs[w],)) for w in whats]
    return found + ([Made("scores", total, tuple(exprs.values()))] if k.reads else [])


def _ready(host: Host, k: Kernel) -> bool:
    """Whether all that a sweep's operands read has been made."""
    return all(n in host.made for w in _needs(k) for e in w.exprs for n in names(e))


def _axes(host: Host, exprs: list[Expr]) -> tuple[str, ...]:
    """Batch and head axes of what `exprs` read."""
    found = {a for e in exprs for n in names(e) for a in host.known[n].axes}
    return host.canonical(found - {"T", "N", "P"})


def _draft(host: Host, name: str, about: str, k: Kernel, axes: tuple[str, ...],
           grid: list[tuple[str, str, str]]) -> Draft:  # fmt: skip
    """A draft whose programs own a chunk and one position of `axes`."""
    owned = list(reversed(axes))
    fixed = {a: Ix(f"at_{a}", fixed=True) for a in owned}
    if "H" in owned:
        fixed |= {g: Ix(f"at_{g}", fixed=True) for g in host.layout.groups}
    rows = f"rows({k.walk.chunk}, op)"
    width = f"columns(n_{k.channel}, op)"
    fixed |= {SEQ: Ix(f"at_{SEQ}", fixed=True)} if host.layout.packed else {}
    d = Draft(name, about, Scope(fixed, host.layout.groups, host.known, host.layout.packed),
              {v.name: v for v in k.values},
              [("i_chunk", "tl.cdiv(n_T, C)", f"triton.cdiv(n_T, {rows})"), *grid,
               *owned_grid(owned)], {"C": rows, "BC": width, "ACC": "TYPES[acc]"})  # fmt: skip
    return d


def _fresh(host: Host, k: Kernel, stem: str, axes: tuple[str, ...], last: str, size: str,
           dtype: str) -> str:  # fmt: skip
    """A new tensor (axes…, chunk, row, `last`)."""
    made = host.fresh(stem, (*axes, "C", "I", last))
    host.allocate(made, dtype, [*(host.size(a) for a in (*axes, "C")),
                                f"rows({k.walk.chunk}, op)", size])  # fmt: skip
    return made


def _sums(host: Host, k: Kernel, total: Sum) -> str:
    """The tensor of log2 decays summed along each chunk."""
    chunk, channel = k.walk.chunk, str(k.channel)
    if (chunk, total) in host.rows:
        return host.rows[chunk, total]
    axes = _axes(host, [e for e in (total.decay, total.reset) if e is not None])
    wide = "torch.float64 if op.itemsize >= 4 else acc"
    made = _fresh(host, k, "sums", axes, channel, f"n_{channel}", wide)
    host.rows[chunk, total] = made
    columns = f"triton.cdiv(n_{channel}, columns(n_{channel}, op))"
    d = _draft(host, _name(host, "sums"), "Log2 decays of channels, summed along each chunk.", k,
               axes, [("i_block", f"tl.cdiv(n_{channel}, BC)", columns)])  # fmt: skip
    d.constants["SUM"] = "tl.float64 if op.itemsize >= 4 else tl.float32"
    frame: Frame = {"T": Ix("o_t", 0, "m_t", 0, "C"), channel: Ix("o_c", 1, "m_c", 0, "BC")}
    at: Frame = {"C": Ix("i_chunk"), "I": Ix("tl.arange(0, C)", 0), channel: Ix("o_c", 1)}
    lane = kept(k)
    x = {
        "channel": channel, "pointer": d.scope.address(made, at, 2)[0],
        "log": "0.0" if lane.decay is None else d.number(lane.decay, frame, 2),
        "reset": None if lane.reset is None else d.integer(lane.reset, frame, 2),
    }  # fmt: skip
    host.launch(d.finish("channel_sums", x))
    return made


def _name(host: Host, what: str) -> str:
    """A kernel's name that the program does not have yet."""
    name = f"{host.program.name}_{what}"
    taken = sum(launch.name.startswith(name) for launch in host.kernels)
    return f"{name}_{taken}" if taken else name


def _scores(host: Host, k: Kernel, total: Sum, sums: str, wanted: list[Made]) -> None:
    """Launch the kernel that makes `wanted`, by way of the operands as `k` has them."""
    channel, chunk = str(k.channel), k.walk.chunk
    exprs = {e for w in wanted for e in w.exprs}
    given = [e for e in (total.decay, total.reset) if e is not None]
    given += [value(k, x.read).expr for x in k.lanes if not x.keeps and x.read is not None]
    axes = _axes(host, [*given, *sorted(exprs, key=repr)])
    d = _draft(host, _name(host, "scores"), "Operands times their decays, and scores, of chunks.",
               k, axes, [])  # fmt: skip
    d.constants |= {"LEVELS": LEVELS.format(chunk=chunk), "NEAR": NEAR, "FAR": FAR, **DOT}
    t = Ix("o_i", 0, "m_t", 0, "C", start="i_first")
    side = Ix("o_c", 1, "m_c", 1, "BC")
    x: dict[str, object] = {"channel": channel, **sum_texts(d, k, sums, side), "own": None}
    if any(w.what == "columns" for w in wanted):
        x["end"] = end_of(d, sums, channel, side, Ix("i_chunk"))
    x |= dict.fromkeys(("rows", "columns", "scores", "row", "column"))
    at: Frame = {"C": Ix("i_chunk"), "I": Ix("o_i", 0), channel: Ix("o_c", 1)}
    for w in wanted:
        pairs = w.what == "scores"
        last, size = ("J", f"rows({chunk}, op)") if pairs else (channel, f"n_{channel}")
        made = _fresh(host, k, "scores" if pairs else "scaled", axes, last, size, "op")
        host.rows[chunk, w] = made
        x[w.what] = d.scope.address(made, {**at, "J": Ix("o_i", 1)} if pairs else at, 2)[0]
        for what, e in zip(("row", "column") if pairs else (w.what[:-1],), w.exprs, strict=True):
            x[what] = _operand(d, e, {"T": t, channel: side})
    if x["scores"]:
        x["own"] = own_pair(d, k, {"T": t, channel: side})
    host.launch(replace(d.finish("channel_scores", x), stages="1"))


def _operand(d: Draft, e: Expr, frame: Frame) -> str:
    """An operand [C, BC] in the accumulator's type, 0 beyond its axes."""
    masks = f"m_t[:, None] & {next(ix.mask for a, ix in frame.items() if a != 'T')}[None, :]"
    return f"tl.where({masks}, {real(d.scope.text(e, frame, 2, {}))}, 0.0)"


def sum_texts(d: Draft, k: Kernel, sums: str, side: Ix) -> dict[str, object]:
    """Sums of a chunk's rows, those that its rows read by, and those at the middles of blocks."""
    channel = str(k.channel)
    chunk: Mapping[str, Ix] = {"C": Ix("i_chunk")}
    middle: Frame = {**chunk, "I": Ix("o_middle", 0), channel: side}
    pointer, mask = d.scope.address(sums, middle, 2)
    rows: Frame = {**chunk, "I": Ix("o_i", 0, None, 0, "C"), channel: side}
    total, past = d.scope.load(sums, rows, 2, raw=True).text, None
    if kept(k).late:
        row = Ix("(o_i - 1)", 0, "(o_i > 0)", 0, "C")
        past = d.scope.load(sums, {**rows, "I": row}, 2, raw=True).text
    center: Frame = {**chunk, "I": Ix("(C // 2 - 1)"), channel: side}
    halfway = d.scope.load(sums, center, 1, raw=True).text
    return {
        "sum": total, "past": past,
        "middle": pointer, "middle_mask": mask, "halfway": halfway,
    }  # fmt: skip


def end_of(d: Draft, sums: str, channel: str, side: Ix, chunk: Ix) -> str:
    """Log2 decays of the channels over the whole chunk, a vector."""
    frame: Frame = {"C": chunk, "I": Ix("(C - 1)"), channel: side}
    return d.scope.load(sums, frame, 1, raw=True).text
