"""Context of the reads over tiles of L: which tiles a program goes over, what it does with each.

Non-goals: no states, no mask families, no text of an entry (triton_entry.py), no gradients of the
mask (triton_gathers.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from smac.codegen.print_triton import real
from smac.codegen.triton_entry import Entry, by_lags
from smac.codegen.triton_kernel import FAR, Draft, Launch, Layout, identifier, value
from smac.codegen.triton_sweeps import (
    DOT,
    Target,
    about,
    draft_of,
    length,
    read_stores,
    sides,
)
from smac.codegen.triton_tiles import Frame, Ix, Tensor
from smac.errors import CodegenError
from smac.expr import Expr, Name
from smac.ir import Carry, Kernel, Read
from smac.masks.band import FULL, Support, empty, equal_at

#: Rows and columns of the tiles that a program of a read goes over.
SHAPE = "[R, C]"
#: The tiles that T is cut into.
ALL = "tl.cdiv(n_T, C)"


def tiles(k: Kernel, name: str, layout: Layout, known: dict[str, Tensor],
          targets: list[list[Target]]) -> Launch:  # fmt: skip
    """The reads of `k` over tiles of its entry, and `targets` of each: one, or two of a carry, of
    which each contracts what the other keeps."""
    (read, *others), carry = _reads(k)
    contracted, kept, c_name, k_name = sides(read.over, carry)
    tail = value(k, carry.right).tail is not None
    n_contracted, n_kept = length(contracted, tail), length(kept, tail)
    if tail and k.channel == "P":
        raise CodegenError(f"triton: kernel '{k.name}' has a mask per P and a column without one")
    chunk, width = f"rows({k.walk.chunk}, op)", f"width({n_contracted}, op)"
    # Two reads have sums of both widths in registers, whole: rows of one tile, then.
    height = chunk if others else f"tall({chunk}, {width}, op)"
    columns = f"{'width' if others else 'columns'}({n_kept}, op)"
    blocks = ("i_k", f"tl.cdiv({n_kept}, BK)", f"triton.cdiv({n_kept}, {columns})")
    tile_rows = ("i_row", "tl.cdiv(n_T, R)", f"triton.cdiv(n_T, {height})")
    d = draft_of(k, name, layout, known, [blocks, tile_rows])
    d.about = " ".join(about(r, carry) for r in k.reads)
    d.constants = {"R": height, "C": chunk, "DC": width, "BK": columns, **DOT}
    full = [f"n_{a} % ({d.constants[b]}) == 0" for a, b in ((contracted, "DC"), (kept, "BK"))]
    # The column behind the last of P is told from the others by their mask.
    d.constants |= {"WHOLE": "False" if tail else " and ".join(full), "FAR": FAR}
    rows, cols = along("row", "o_i", 0, "R"), along("col", "o_j", 1, "C")
    side_c, side_k = Ix("o_c", 1, "m_c", 0, "DC"), Ix("o_k", 1, "m_k", 0, "BK")
    x: dict[str, object] = {"contracted": contracted, "kept": kept, "channel": k.channel,
                            "read": identifier(read.out), "reverse": carry.reverse,
                            "beside": None, "scale": None, "after": []}  # fmt: skip
    at: Frame = {str(k.channel): Ix("i_n", None, None, 2)}
    if k.channel == contracted:  # then operands are read channel by channel too
        x["operand_n"] = d.operand(read.operand, {"T": rows, **at}, cast=False)
        x["left_n"] = d.operand(c_name, {"T": cols, **at}, cast=False)
    elif k.channel:
        x["right_n"] = d.operand(k_name, {"T": cols, **at}, cast=False)
    if k.channel:
        x["operand"] = d.operand(read.operand, {"T": rows, contracted: side_c})
    else:
        # As it is in memory: a product takes it from there, and not through registers, whose loads
        # have Hopper's products wait for one another. Its factors act on entries and on sums.
        x["operand"] = d.core(read.operand, {"T": rows, contracted: side_c})
        own = () if others else (read.operand,)
        x["scale"] = d.numbers((*own, c_name, k_name))
    for other in others:
        x["beside"] = identifier(other.out)
        x["operand_beside"] = d.core(other.operand, {"T": rows, kept: side_k})
    if not k.channel:
        x["after"] = [(identifier(r.out), f) for r in k.reads
                      for f in _factors(d, r.operand, rows, bool(others))]  # fmt: skip
    _bodies(d, k, x, rows, cols, {c_name: {contracted: side_c}, k_name: {kept: side_k}})
    x["begin"], x["end"] = band(k.support, "first_row", "R", by_row=not carry.reverse)
    # Rows that have all columns before them: the last are the longest, and start first.
    x["late"] = x["begin"] == "0" and x["end"] != ALL and not layout.packed
    keeps = ({kept: side_k}, {contracted: side_c})
    x["stores"] = [s for r, to, at_k in zip(k.reads, targets, keeps, strict=False)
                   for s in read_stores(d, r, to, {"T": rows, **at_k}, next(iter(at_k)), 2)]
    launch = d.finish("tiles", x, warps=f"max(4, {height} // 16)")
    if not (others and x["even"]):
        return launch
    # Entries made by lag leave room: what stores alone read may wait on the stack.
    return replace(launch, registers=f"crowd({' * '.join(launch.grid)}, op)")


def _reads(k: Kernel) -> tuple[tuple[Read, ...], Carry]:
    """The reads of a kernel over tiles, and what they read; CodegenError where tiles cannot."""
    if len(k.carries) != 1 or len(k.reads) > (1 if k.channel else 2):
        raise CodegenError(f"triton: kernel '{k.name}' has {len(k.reads)} reads of "
                           f"{len(k.carries)} carries; expected one or two of one")  # fmt: skip
    (carry,) = k.carries
    if carry.initial or carry.final or carry.saves:
        raise CodegenError(f"triton: kernel '{k.name}' goes over tiles; it carries no states")
    return k.reads, carry


def _factors(d: Draft, operand: str, rows: Ix, numbers: bool) -> list[str]:
    """Factors of what is read by `operand`: by row, and the `numbers` that entries do not have."""
    row, number = d.vector((operand,), rows), d.numbers((operand,)) if numbers else None
    return [x for x in (row and f"({row})[:, None]", number) if x]


def _bodies(d: Draft, k: Kernel, x: dict[str, object], rows: Ix, cols: Ix,
            operands: Mapping[str, Frame]) -> None:  # fmt: skip
    """Texts of tiles: of those at the band's edges and at the end of T, and of the others."""
    assert k.entry is not None
    channel: Frame = {} if k.channel is None else {k.channel: Ix("i_n", None, None, 2)}
    core = d.operand if k.channel else d.core
    scale = str(x["scale"]) if x["scale"] else None
    made: list[Entry] = []

    def body(at: Ix, within: Support | None) -> dict[str, object]:
        """A tile's, whose columns are `at`; `within`: the lags that it has."""
        down = replace(at, dim=0)
        t, s = (at, rows) if x["reverse"] else (rows, at)
        assert k.entry is not None
        made.append(Entry(d, {"t": t, "s": s}, channel, within, tile_lags(at.section), SHAPE))
        left, right = (core(n, {"T": down, **own}) for n, own in operands.items())
        return {"masked": within is None, "left": left, "right": right,
                "entry": real(made[-1].text(k.entry, scale)),
                "col": None if k.channel else d.weights(tuple(operands), down)[0]}  # fmt: skip

    # Made by lag, an entry is 0 outside of the band at no cost: its edges need no masks.
    by_lag = by_lags(k.entry) and not k.channel
    support = FULL if k.support is None or by_lag else k.support
    x["edge"], x["whole"] = body(cols, None), None
    if not k.channel and not empty(support):
        x["whole"] = body(replace(cols, mask=None, section=3), support)
        x["from"], x["to"] = whole(support, "first_row", "R", by_row=not x["reverse"])
    x["even"] = by_lag and not d.scope.packed
    if x["even"]:
        d.constants["EVEN"] = f"n_T % ({d.constants['R']}) == 0"
    x["runs"] = meeting(d, k, k.entry, "first_row", "R")
    note_lags(d, x, made, "R")


def along(side: str, var: str, dim: int, extent: str, section: int | None = None) -> Ix:
    """Positions along the rows ("row") or columns ("col") of a tile."""
    letter = "r" if side == "row" else "s"
    return Ix(var, dim, f"m_{letter}", dim if section is None else section, extent,
              start=f"first_{side}", place=f"o_{letter}")  # fmt: skip


def tile_lags(section: int) -> Ix:
    """The lags of a tile, as rows or columns know them."""
    return Ix("o_lag", 0, None, section, "LAGS", start="first_lag", place="o_n")


def note_lags(d: Draft, x: dict[str, object], entries: list[Entry], height: str) -> None:
    """How many lags a tile has, where an entry is made by lag."""
    x["lags"] = any(e.spread for e in entries)
    if x["lags"]:
        d.constants["LAGS"] = f"triton.next_power_of_2({d.constants[height]} + {d.constants['C']})"


def band(support: Support | None, first: str, height: str, by_row: bool) -> tuple[str, str]:
    """First and last + 1 of the tiles of C that `height` positions from `first` meet: rows their
    columns, or columns their rows."""
    lo, hi = (None, None) if support is None else (support.lo, support.hi)
    below, above = (hi, lo) if by_row else (lo, hi)
    sign = -1 if by_row else 1
    begin = "0" if below is None else f"tl.maximum({_plus(first, sign * below)}, 0) // C"
    if above is None:
        return begin, ALL
    last = f"tl.maximum({_plus(f'{first} + {height}', sign * above - 1)}, -C) // C + 1"
    return begin, f"tl.minimum({ALL}, {last})"


def whole(support: Support, first: str, height: str, by_row: bool) -> tuple[str, str]:
    """As `band`, those of the tiles that have no lag outside of it."""
    below, above = (support.hi, support.lo) if by_row else (support.lo, support.hi)
    sign = -1 if by_row else 1
    begin = "0" if below is None else (
        f"tl.maximum({_plus(f'{first} + {height} + C', sign * below - 2)}, 0) // C")  # fmt: skip
    end = "n_T // C" if above is None else (
        f"tl.maximum({_plus(first, sign * above + 1)}, 0) // C")  # fmt: skip
    return begin, end


def _plus(text: str, n: int) -> str:
    return text if n == 0 else f"{text} {'+' if n > 0 else '-'} {abs(n)}"


def meeting(d: Draft, k: Kernel, e: Expr, first: str, height: str) -> list[str]:
    """Lines that leave out tiles at whose rows and columns no run is the same, where `e` is zero
    between different runs."""
    lines = []
    for base in equal_at(e):
        source = d.values[base.id].expr if isinstance(base, Name) and base.id in k.runs else None
        if isinstance(source, Name):
            t = d.scope.use(source.id)
            lines.append(f"i_begin, i_end = meeting(q_{t.id}, s_{t.id}_T, {first}, {height}, "
                         "i_begin, i_end, n_T, C)")  # fmt: skip
    return sorted(lines)
