"""Contexts of the kernels over tiles of L: reads by `entry`, and gathers of the mask's gradient.

Non-goals: no states, no mask families, no text of an entry (triton_entry.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from smac.codegen.print_triton import Text, real
from smac.codegen.triton_entry import Entry, by_lags
from smac.codegen.triton_kernel import FAR, Draft, Launch, Layout, StoreText, identifier, value
from smac.codegen.triton_lanes import both_carries
from smac.codegen.triton_sweeps import (
    DOT,
    Target,
    about,
    columns_grid,
    draft_of,
    length,
    read_of,
    read_stores,
    sides,
)
from smac.codegen.triton_tiles import Frame, Ix, Tensor
from smac.errors import CodegenError
from smac.expr import Expr, Name
from smac.ir import SEQ, Gather, Kernel
from smac.masks.band import FULL, Form, Support, empty, equal_at, form

#: Rows and columns of the tiles that a program of a read goes over.
SHAPE = "[R, C]"


def tiles(k: Kernel, name: str, layout: Layout, known: dict[str, Tensor],
          targets: list[Target]) -> Launch:  # fmt: skip
    """The read of `k` over tiles of its entry."""
    read, carry = read_of(k)
    if carry.initial or carry.final or carry.saves:
        raise CodegenError(f"triton: kernel '{k.name}' goes over tiles; it carries no states")
    contracted, kept, c_name, k_name = sides(read.over, carry)
    tail = value(k, carry.right).tail is not None
    n_contracted, n_kept = length(contracted, tail), length(kept, tail)
    if tail and k.channel == "P":
        raise CodegenError(f"triton: kernel '{k.name}' has a mask per P and a column without one")
    chunk, width = f"rows({k.walk.chunk}, op)", f"width({n_contracted}, op)"
    height = f"tall({chunk}, {width}, op)"
    tile_rows = ("i_row", "tl.cdiv(n_T, R)", f"triton.cdiv(n_T, {height})")
    d = draft_of(k, name, layout, known, [*columns_grid(n_kept), tile_rows])
    d.about = about(read, carry)
    d.constants = {"R": height, "C": chunk, "DC": width, "BK": f"columns({n_kept}, op)", **DOT}
    whole = [f"n_{a} % ({d.constants[b]}) == 0" for a, b in ((contracted, "DC"), (kept, "BK"))]
    # The column behind the last of P is told from the others by their mask.
    d.constants |= {"WHOLE": "False" if tail else " and ".join(whole), "FAR": FAR}
    rows, cols = _along("row", "o_i", 0, "R"), _along("col", "o_j", 1, "C")
    side_c, side_k = Ix("o_c", 1, "m_c", 0, "DC"), Ix("o_k", 1, "m_k", 0, "BK")
    x: dict[str, object] = {"contracted": contracted, "kept": kept, "channel": k.channel,
                            "read": identifier(read.out), "reverse": carry.reverse}  # fmt: skip
    at: Frame = {str(k.channel): Ix("i_n", None, None, 2)}
    if k.channel == contracted:  # then operands are read channel by channel too
        x["operand_n"] = d.operand(read.operand, {"T": rows, **at}, cast=False)
        x["left_n"] = d.operand(c_name, {"T": cols, **at}, cast=False)
    elif k.channel:
        x["right_n"] = d.operand(k_name, {"T": cols, **at}, cast=False)
    if k.channel:
        x["operand"] = d.operand(read.operand, {"T": rows, contracted: side_c})
    else:
        x["operand"] = _scaled(d, read.operand, (c_name, k_name), rows,
                               {"T": rows, contracted: side_c})
    _bodies(d, k, x, rows, cols, {c_name: {contracted: side_c}, k_name: {kept: side_k}})
    x["begin"], x["end"] = _band(k.support, "first_row", "R", by_row=not carry.reverse)
    x["stores"] = read_stores(d, read, targets, {"T": rows, kept: side_k}, kept, 2)
    return d.finish("tiles", x, warps=f"max(4, {height} // 16)")


def _scaled(d: Draft, name: str, others: tuple[str, ...], rows: Ix, frame: Frame) -> str:
    """A program's own operand with its factors, and with those of the others that are numbers."""
    row, scale = d.weights((name,), rows)
    _, more = d.weights(others, rows)
    factors = [f"({row})[:, None]" if row else None, scale, more]
    return f"({' * '.join(f for f in (d.core(name, frame, cast=False), *factors) if f)}).to(OP)"


def _bodies(d: Draft, k: Kernel, x: dict[str, object], rows: Ix, cols: Ix,
            operands: Mapping[str, Frame]) -> None:  # fmt: skip
    """Texts of tiles: of those at the band's edges and at the end of T, and of the others."""
    assert k.entry is not None
    channel: Frame = {} if k.channel is None else {k.channel: Ix("i_n", None, None, 2)}
    core = d.operand if k.channel else d.core
    made: list[Entry] = []

    def body(at: Ix, within: Support | None) -> dict[str, object]:
        """A tile's, whose columns are `at`; `within`: the lags that it has."""
        down = replace(at, dim=0)
        t, s = (at, rows) if x["reverse"] else (rows, at)
        assert k.entry is not None
        made.append(Entry(d, {"t": t, "s": s}, channel, within, _lags(at.section), SHAPE))
        left, right = (core(n, {"T": down, **own}) for n, own in operands.items())
        return {"masked": within is None, "left": left, "right": right,
                "entry": real(made[-1].text(k.entry)),
                "col": None if k.channel else d.weights(tuple(operands), down)[0]}  # fmt: skip

    by_lag = by_lags(k.entry) and not k.channel  # then what is outside of the band costs nothing
    support = FULL if k.support is None or by_lag else k.support
    x["edge"], x["whole"] = body(cols, None), None
    if not k.channel and not empty(support):
        x["whole"] = body(replace(cols, mask=None, section=3), support)
        x["from"], x["to"] = _whole(support, by_row=not x["reverse"])
    x["even"] = by_lag and not d.scope.packed
    if x["even"]:
        d.constants["EVEN"] = f"n_T % ({d.constants['R']}) == 0"
    x["runs"] = _meeting(d, k, k.entry, "first_row", "R")
    _by_lag(d, x, made, "R")


def _along(side: str, var: str, dim: int, extent: str, section: int | None = None) -> Ix:
    """Positions along the rows ("row") or columns ("col") of a tile."""
    letter = "r" if side == "row" else "s"
    return Ix(var, dim, f"m_{letter}", dim if section is None else section, extent,
              start=f"first_{side}", place=f"o_{letter}")  # fmt: skip


def _lags(section: int) -> Ix:
    """The lags of a tile, as rows or columns know them."""
    return Ix("o_lag", 0, None, section, "LAGS", start="first_lag", place="o_n")


def _by_lag(d: Draft, x: dict[str, object], entries: list[Entry], height: str) -> None:
    """How many lags a tile has, where an entry is made by lag."""
    x["lags"] = any(e.spread for e in entries)
    if x["lags"]:
        d.constants["LAGS"] = f"triton.next_power_of_2({d.constants[height]} + {d.constants['C']})"


def _band(support: Support | None, first: str, height: str, by_row: bool) -> tuple[str, str]:
    """First and last + 1 of the tiles of C that `height` positions from `first` meet: rows their
    columns, or columns their rows."""
    lo, hi = (None, None) if support is None else (support.lo, support.hi)
    below, above = (hi, lo) if by_row else (lo, hi)
    sign = -1 if by_row else 1
    begin = "0" if below is None else f"tl.maximum({_plus(first, sign * below)}, 0) // C"
    if above is None:
        return begin, "tl.cdiv(n_T, C)"
    last = f"tl.maximum({_plus(f'{first} + {height}', sign * above - 1)}, -C) // C + 1"
    return begin, f"tl.minimum(tl.cdiv(n_T, C), {last})"


def _whole(support: Support, by_row: bool) -> tuple[str, str]:
    """As `_band` of the program's rows, those of the tiles that have no lag outside of the band."""
    below, above = (support.hi, support.lo) if by_row else (support.lo, support.hi)
    sign = -1 if by_row else 1
    begin = "0" if below is None else (
        f"tl.maximum({_plus('first_row + R + C', sign * below - 2)}, 0) // C")  # fmt: skip
    end = "n_T // C" if above is None else (
        f"tl.maximum({_plus('first_row', sign * above + 1)}, 0) // C")  # fmt: skip
    return begin, end


def _plus(text: str, n: int) -> str:
    return text if n == 0 else f"{text} {'+' if n > 0 else '-'} {abs(n)}"


def _meeting(d: Draft, k: Kernel, e: Expr, first: str, height: str) -> list[str]:
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


def gather(k: Kernel, g: Gather, name: str, layout: Layout, known: dict[str, Tensor],
           out: str, parts: str | None) -> Launch:  # fmt: skip
    """W = (Q Kᵀ) ∘ (dY Vᵀ) ∘ weight, gathered into `out` (`parts`: column sums of a "cut")."""
    kv, qg = both_carries(k)
    own = "diag" if g.pattern == "lag" else "col" if g.pattern == "col" else "row"
    chunk = f"rows({k.walk.chunk}, op)"
    count = ("i_own", "n_diagonals", "n_diagonals") if own == "diag" else (
        "i_own", "tl.cdiv(n_T, C)", f"triton.cdiv(n_T, {chunk})")  # fmt: skip
    d = draft_of(k, name, layout, known, [count])
    d.about = f"Gathers {g.out} by {g.pattern}."
    d.inside = layout.packed and own == "diag"  # a diagonal is summed over all sequences
    if d.inside:
        d.scope.fixed[SEQ] = Ix(f"at_{SEQ}", fixed=True, section=1)
    tail = value(k, kv.right).tail is not None
    d.constants = {"C": chunk, "DN": "width(n_N, op)",
                   "DP": f"width({length('P', tail)}, op)", **DOT}
    if own == "diag":
        d.scalars = {"first": "first"}
    if k.channel is not None:
        if tail and k.channel == "P":
            raise CodegenError(f"triton: kernel '{k.name}' has a mask per P and a column with none")
        d.scope.fixed[k.channel] = Ix(f"at_{k.channel}", fixed=True)
        d.grid.insert(1, (f"at_{k.channel}", f"n_{k.channel}", f"n_{k.channel}"))
    even = f"n_N % (width(n_N, op)) == 0 and n_P % ({d.constants['DP']}) == 0"
    d.constants |= {"WHOLE": "False" if tail else even, "FAR": FAR}
    rows, cols = _along("row", "o_i", 0, "C", 1), _along("col", "o_i", 1, "C", 1)
    down = replace(cols, dim=0)
    x: dict[str, object] = {"channel": k.channel, "reverse": False}
    sides_: tuple[tuple[str, str, str, str], ...] = (("q", qg.left, "k", kv.left),
                                                     ("dy", qg.right, "v", kv.right))  # fmt: skip
    for (a, a_name, b, b_name), axis, letter in zip(sides_, "NP", "cp", strict=True):
        if k.channel == axis:
            x[f"{a}_n"] = d.operand(a_name, {"T": rows}, cast=False)
            x[f"{b}_n"] = d.operand(b_name, {"T": cols}, cast=False)
        else:
            wide: Frame = {axis: Ix(f"o_{letter}", 1, f"m_{letter}", 0, f"D{axis}")}
            x[a] = d.operand(a_name, {"T": rows, **wide})
            x[b] = d.operand(b_name, {"T": down, **wide})
    entry = Entry(d, {"t": rows, "s": cols}, {}, lags=_lags(1))
    x["weight"] = real(entry.text(g.weight))
    x |= _gathered(d, g, entry, k, out, parts)
    _by_lag(d, x, [entry], "C")
    return d.finish("tiles_grad", x)


def _gathered(d: Draft, g: Gather, entry: Entry, k: Kernel, out: str,
              parts: str | None) -> dict[str, object]:  # fmt: skip
    """Which tiles a program visits, how it adds W up, where it stores the sums."""
    d.extra = {"total": Text("b_total"), "w": Text("b_w"), "part": Text("b_part")}
    own = Ix("o_own", 0, "m_own")
    start = ["o_own = i_own * C + o_i", "m_own = o_own < n_T"]
    x: dict[str, object] = {"tile_row": "i_own", "tile_col": "i_tile"}
    x |= {"stores": [], "tile_stores": []}
    zeros, lines = "tl.zeros([C], dtype=ACC)", []
    begin, end = _band(k.support, "i_own * C", "C", by_row=True)
    if g.pattern in ("row", "all", "col"):
        lines = [f"b_total += tl.sum(b_w, {0 if g.pattern == 'col' else 1})"]
        shift = 0 if g.pattern == "all" else _form(g.index[0]).const
        place = f"o_own + {shift}"
        at = Ix(f"({place})", 0, f"(m_own & ({place} >= 0) & ({place} < n_T))") if shift else own
        x["stores"] = [d.store(out, Name("total"), {"T": at}, 1)]
    if g.pattern == "col":
        x["tile_row"], x["tile_col"] = "i_tile", "i_own"
        begin, end = _band(k.support, "i_own * C", "C", by_row=False)
    elif g.pattern == "lag":
        start = ["i_diagonal = i_own + first"]
        begin, end = "tl.maximum(i_diagonal, 0)", "tl.minimum(tiles, tiles + i_diagonal)"
        x["tile_row"], x["tile_col"] = "i_tile", "i_tile - i_diagonal"
        zeros, lines = "tl.zeros([C, C], dtype=ACC)", ["b_total += b_w"]
        whole: Frame = {"_d": Ix("i_own"), "_r": Ix("o_i", 0), "_c": Ix("o_i", 1)}
        x["stores"] = [d.store(out, Name("total"), whole, 2)]
    elif g.pattern == "entry":
        first_is_row = _form(g.index[0]).t == 1
        r, c = entry.at["t"], entry.at["s"]
        place2 = {"T": r, "S": c} if first_is_row else {"T": c, "S": r}
        x["tile_stores"] = [d.store(out, Name("w"), place2, 2)]
    elif g.pattern == "cut":
        low, high = (entry.text(e).text for e in g.index)
        zeros = "tl.zeros([C], dtype=tl.float64)"
        lines = [f"b_w = tl.where({high} > {low}, b_w, 0.0).to(tl.float64)",
                 "b_total += tl.sum(b_w, 1)", "b_part = tl.sum(b_w, 0)"]  # fmt: skip
        assert parts is not None
        x["stores"] = [_plain(d, out, "b_total", {"T": own})]
        columns: Frame = {"_r": Ix("i_own"), "T": replace(entry.at["s"], dim=0)}
        x["tile_stores"] = [_plain(d, parts, "b_part", columns)]
    ends = [f"i_begin = {begin}", f"i_end = {end}"]
    ends += [] if g.pattern == "lag" else _meeting(d, k, g.weight, "i_own * C", "C")
    start += [] if d.inside else ends
    if g.pattern != "entry":
        start.append(f"b_total = {zeros}")
    return {**x, "inside": d.inside, "enter": ends, "gather": lines,
            "start": "\n".join("    " + s for s in start)}  # fmt: skip


def _plain(d: Draft, tensor: str, text: str, frame: Frame) -> StoreText:
    pointer, mask = d.scope.address(tensor, frame, 1)
    return StoreText(pointer, text, mask)


def _form(e: Expr) -> Form:
    f = form(e)
    assert f is not None  # the adjoint law asked
    return f
