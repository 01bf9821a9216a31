"""Contexts of the reads under a mask per channel: sweeps that contract it, chunks that keep it.

A read that contracts the channel sums it away inside the scores of a chunk, so it is a sweep over
plain tiles (`channel_sweep`). A read that keeps it weighs every channel by itself, from saved
states and all chunks in parallel (`channel_chunks`); so is the gradient of the decays.

Non-goals: no sums of decays and no scores (triton_channels.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from smac.codegen.print_triton import Text
from smac.codegen.triton_channels import (
    CARRIED,
    LEVELS,
    NEAR,
    OTHERS,
    end_of,
    kept,
    own_pair,
    sum_texts,
)
from smac.codegen.triton_kernel import Draft, Launch, identifier, value
from smac.codegen.triton_lanes import saved_state
from smac.codegen.triton_sweeps import (
    DOT,
    Target,
    about,
    columns_grid,
    draft_of,
    evenness,
    length,
    read_stores,
    sides,
    sides_texts,
    state_texts,
    tile_stores,
)
from smac.codegen.triton_tiles import Frame, Ix
from smac.codegen.triton_wrapper import Host
from smac.errors import CodegenError
from smac.ir import Kernel


def channel_sweep(host: Host, k: Kernel, name: str, targets: list[Target],
                  made: Mapping[str, str]) -> Launch:  # fmt: skip
    """The read of `k` chunk by chunk; without a read, the states that it saves."""
    (carry,) = k.carries
    read = k.reads[0] if k.reads else None
    channel = str(k.channel)
    if read is not None and read.over != channel:
        raise CodegenError(f"triton: kernel '{k.name}' reads over {read.over} in a sweep; expected "
                           f"{channel}, the channel of its mask")  # fmt: skip
    contracted, kept, _, k_name = sides(channel, carry)
    tail = value(k, carry.right).tail is not None
    n_contracted, n_kept = length(contracted, tail), length(kept, tail)
    d = draft_of(k, name, host.layout, host.known, columns_grid(n_kept))
    d.about = about(read, carry)
    d.constants = {"C": f"rows({k.walk.chunk}, op)", "DC": f"width({n_contracted}, op)",
                   "BK": f"columns({n_kept}, op)", **DOT}  # fmt: skip
    side_c, side_k = Ix("o_c", 1, "m_c", 0, "DC"), Ix("o_k", 1, "m_k", 0, "BK")
    chunk = Ix("i_chunk", section=1)
    decayed: Frame = {"C": chunk, "I": Ix("o_i", 0, None, 0, "C"), channel: side_c}
    at: Frame = {"T": Ix("o_i", 0, "m_t", 1, "C", start="i_first"), kept: side_k}

    def scaled(what: str) -> str:
        return d.scope.load(made[what], decayed, 2, raw=True).text

    x = {**sides_texts(contracted, kept, tail, carry.reverse),
         **state_texts(d, carry, contracted, 0), "read": None}  # fmt: skip
    x["touches"] = any((carry.initial, carry.final, carry.saves))
    x["left"] = scaled("rows" if carry.reverse else "columns")
    x["right"] = d.whole(k_name, at)
    x["end"] = end_of(d, made["sums"], channel, side_c, chunk)
    if read is not None:
        x["operand"] = scaled("columns" if carry.reverse else "rows")
        ends = Ix("o_i", 0, None, 0, "C"), Ix("o_j", 1, None, 0, "C")
        order = "JI" if carry.reverse else "IJ"
        pairs: Frame = {"C": chunk, **dict(zip(order, ends, strict=True))}
        x["scores"] = d.scope.load(made["scores"], pairs, 2, raw=True).text
        x["read"] = identifier(read.out)
        x["stores"] = read_stores(d, read, targets, at, kept, 2)
    evenness(d, {contracted: "DC", kept: "BK"}, tail)
    # Four warps hold a state of 128 × 64 beside the tiles of a chunk; wide types take more room.
    many = f"8 if width({n_contracted}, op) > (128 if op.itemsize == 2 else 16) else 4"
    return replace(d.finish("channel_sweep", x), warps=many)


def channel_chunks(host: Host, k: Kernel, name: str, targets: list[Target],
                   made: Mapping[str, str]) -> Launch:  # fmt: skip
    """Reads that keep the channel, and the gradient of the decays, from saved states."""
    channel = str(k.channel)
    other = "P" if channel == "N" else "N"
    carries = {c.reverse: c for c in k.carries}
    (row, column), (left, right) = CARRIED[channel], OTHERS[channel]
    tail = value(k, carries[False].right).tail is not None
    d = _draft(host, k, name)
    t = Ix("o_i", 0, "m_t", 0, "C", start="i_first")
    # Tiles of the channel are loaded behind the loop over the other axis, those of stores last.
    side, across = Ix("o_c", 1, "m_c", 2, "BC"), Ix("o_o", 1, "m_o", 1, "BO")
    tile: Frame = {"T": t, channel: side}
    late: Frame = {"T": t, channel: replace(side, section=3)}
    n_other = length(other, tail)
    d.constants |= {"BO": f"columns({n_other}, op)", **DOT}
    evenness(d, {channel: "BC", other: "BO"}, tail)
    by_side = {r.carry: r.out for r in k.reads}
    grad = next((g.decay for g in k.lane_grads if g.decay is not None), None)
    own = [g.read for g in k.lane_grads if g.read is not None]
    x: dict[str, object] = {
        "channel": channel, "other": other, "n_other": n_other, "decay": grad,
        "column": len(k.carries) > 1, **sum_texts(d, k, made["sums"], side),
        "own": own_pair(d, k, tile), "own_grad": bool(own),
        "left": d.whole(left, {"T": t, other: across}),
        "right": d.whole(right, {"T": t, other: across}),
        "b": d.operand(column, tile, cast=False),
    }  # fmt: skip
    state: Frame = {"C": Ix("i_chunk"), other: Ix("o_o", 0, None, 1), channel: Ix("o_c", 1)}
    x["states"] = saved_state(d, carries[False], state, 0)
    if True in carries:
        x["adjoints"] = saved_state(d, carries[True], state, 0)
        x["a"] = d.operand(row, tile, cast=False)
        x["end"] = end_of(d, made["sums"], channel, side, Ix("i_chunk"))
    found = [(by_side[c.name], "column" if c.reverse else "row")
             for c in k.carries if c.name in by_side]  # fmt: skip
    if grad is not None:
        d.constants["EXACT"] = "op.itemsize >= 4"
        lane = kept(k)
        found.append((grad, "decay"))
        x["log"] = f"({d.number(str(lane.decay), late, 2)} + tl.zeros([C, BC], ACC))"
        x["reset"] = d.integer(lane.reset, late, 2)
    found += [(out, "pair_grad") for out in own]
    x["outs"] = [(identifier(out), what) for out, what in found if identifier(out) != what]
    d.about = ", ".join(out for out, _ in found) + f", keeping {channel}, chunks in parallel."
    d.extra = {out: Text(f"b_{identifier(out)}") for out, _ in found}
    x["stores"] = tile_stores(d, targets, late, channel, 2)
    return d.finish("channel_chunks", x, warps=8)


def _draft(host: Host, k: Kernel, name: str) -> Draft:
    """A draft whose programs own a chunk, some channels, a head and a batch entry."""
    rows, width = f"rows({k.walk.chunk}, op)", f"columns(n_{k.channel}, op)"
    grid = [("i_chunk", "tl.cdiv(n_T, C)", f"triton.cdiv(n_T, {rows})"),
            ("i_block", f"tl.cdiv(n_{k.channel}, BC)", f"triton.cdiv(n_{k.channel}, {width})")]
    d = draft_of(k, name, host.layout, host.known, grid)
    d.constants = {"C": rows, "BC": width, "LEVELS": LEVELS.format(chunk=k.walk.chunk),
                   "NEAR": NEAR}  # fmt: skip
    return d
