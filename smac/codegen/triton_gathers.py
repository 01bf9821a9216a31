"""Context of the gathers of a mask's gradient: W = (Q Kᵀ) ∘ (dY Vᵀ) ∘ weight, added up as its law
says.

Non-goals: no states, no sums of parts (triton_steps.py), no text of a weight (triton_entry.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from smac.codegen.print_triton import Text, real
from smac.codegen.triton_entry import Entry, by_lags, of_lags
from smac.codegen.triton_kernel import FAR, Draft, Launch, Layout, StoreText, value
from smac.codegen.triton_lanes import both_carries
from smac.codegen.triton_masks import along, band, meeting, note_lags, tile_lags, whole
from smac.codegen.triton_sweeps import DOT, draft_of, length
from smac.codegen.triton_tiles import Frame, Ix, Tensor
from smac.errors import CodegenError
from smac.expr import Expr, Name
from smac.ir import SEQ, Carry, Gather, Kernel
from smac.masks.band import FULL, Form, Support, empty, form


@dataclass(frozen=True, slots=True)
class Lags:
    """Where sums of lags go: lag x to index `sign`·x + `shift` along `axis`, which has `count`."""

    axis: str
    sign: int
    shift: str
    count: str


@dataclass(slots=True)
class Gathering:
    """One gather being written: its draft, both sides of W, the tensors that it stores to, where
    its lags go if it adds up lags, and the `weight` of all that a program adds up, where tiles have
    none."""

    d: Draft
    k: Kernel
    g: Gather
    kv: Carry
    qg: Carry
    out: str
    parts: str | None
    entries: list[Entry]
    lags: Lags | None
    weight: str | None = None


def tile_sides(k: Kernel, g: Gather) -> tuple[str, str]:
    """Rows and columns of the tiles of a gather, as the wrapper's text."""
    chunk = f"rows({k.walk.chunk}, op)"
    if g.pattern != "lag":
        return chunk, chunk
    tail = value(k, both_carries(k)[0].right).tail is not None
    return f"tall({chunk}, width(n_N, op) + width({length('P', tail)}, op), op)", chunk


def gather(k: Kernel, g: Gather, name: str, layout: Layout, known: dict[str, Tensor],
           out: str, parts: str | None, lags: Lags | None = None) -> Launch:  # fmt: skip
    """W, gathered into `out` (`parts`: column sums of a "cut"; `lags`: where those go)."""
    kv, qg = both_carries(k)
    (height, chunk), diagonal = tile_sides(k, g), lags is not None
    count = ("i_own", "n_diagonals", "n_diagonals") if diagonal else (
        "i_own", "tl.cdiv(n_T, C)", f"triton.cdiv(n_T, {chunk})")  # fmt: skip
    d = draft_of(k, name, layout, known, [count])
    d.about = f"Gathers {g.out} by {g.pattern}."
    d.inside = layout.packed and diagonal  # a diagonal is summed over all sequences
    if d.inside:
        d.scope.fixed[SEQ] = Ix(f"at_{SEQ}", fixed=True, section=1)
    tail = value(k, kv.right).tail is not None
    d.constants = {"C": chunk, "DN": "width(n_N, op)",
                   "DP": f"width({length('P', tail)}, op)", **DOT}
    if lags is not None:
        d.constants = {"R": height, **d.constants}
        d.scalars = {"first": "first", "shift": lags.shift, "count": lags.count}
    if k.channel is not None:
        if tail and k.channel == "P":
            raise CodegenError(f"triton: kernel '{k.name}' has a mask per P and a column with none")
        d.scope.fixed[k.channel] = Ix(f"at_{k.channel}", fixed=True)
        d.grid.insert(1, (f"at_{k.channel}", f"n_{k.channel}", f"n_{k.channel}"))
    full = f"n_N % ({d.constants['DN']}) == 0 and n_P % ({d.constants['DP']}) == 0"
    d.constants |= {"WHOLE": "False" if tail else full, "FAR": FAR}
    d.extra = {"total": Text("b_total"), "w": Text("b_w"), "part": Text("b_part")}
    x = _texts(Gathering(d, k, g, kv, qg, out, parts, [], lags))
    launch = d.finish("tiles_grad", x, warps=f"max(4, {height} // 16)")
    if not diagonal:
        return launch
    # Two programs an SM hide each other's waits, where a third stage leaves room for one.
    fit = f"min(2, stages(op, {height}, {d.constants['DN']}, {d.constants['DP']}))"
    # Behind the loop it would take some more, and the loop would run with half of the programs.
    cap = f"128 if {height} == 128 else None" if x["weight"] else ""
    return replace(launch, stages=fit, registers=cap)


def _texts(w: Gathering) -> dict[str, object]:
    """The kernel's texts: which tiles a program visits, and what it does with each."""
    d, k, g = w.d, w.k, w.g
    height = "R" if w.lags else "C"
    rows, cols = along("row", "o_i", 0, height, 1), along("col", "o_j", 1, "C", 1)
    _, row_scale = d.weights((w.qg.left, w.qg.right), rows)
    _, col_scale = d.weights((w.kv.left, w.kv.right), cols)
    scales = [s for s in (row_scale, col_scale) if s and k.channel is None]
    x: dict[str, object] = {"channel": k.channel, "reverse": False, "inside": d.inside,
                            "whole": None, "scale": " * ".join(scales),
                            "height": height}  # fmt: skip
    x["weight"] = w.weight = _weight(w)
    x["edge"] = _tile(w, rows, cols, None)
    support = FULL if k.support is None or w.weight or by_lags(g.weight) else k.support
    # What a cut takes is sums in float64, not masks: beside them two loops spill.
    if k.channel is None and not empty(support) and g.pattern != "cut":
        free = replace(rows, mask=None, section=3), replace(cols, mask=None, section=3)
        x["whole"] = _tile(w, *free, support)
    x["even"] = x["whole"] is not None and w.weight is not None
    if x["even"]:
        d.constants["EVEN"] = f"n_T % ({d.constants[height]}) == 0"
    note_lags(d, x, w.entries, height)
    return x | _visits(w, support if x["whole"] else None)


def _weight(w: Gathering) -> str | None:
    """The weight of what a diagonal adds up, where it is the same for all tiles of one; None: tiles
    have their own."""
    if w.g.pattern != "lag" or w.d.inside or not of_lags(w.g.weight):
        return None
    t, s = Ix("(i_diagonal * C + o_i)", 0, None, 2), Ix("o_j", 1, None, 2)
    return real(Entry(w.d, {"t": t, "s": s}, {}).text(w.g.weight))


def _tile(w: Gathering, rows: Ix, cols: Ix, within: Support | None) -> dict[str, object]:
    """Texts of W on a tile, and of what is added up or stored of it."""
    d, k, g, down = w.d, w.k, w.g, replace(cols, dim=0)
    y: dict[str, object] = {"masked": within is None, "row": None, "col": None}
    operand = d.operand if k.channel else d.core
    if k.channel is None:
        y["row"], _ = d.weights((w.qg.left, w.qg.right), rows)
        y["col"], _ = d.weights((w.kv.left, w.kv.right), down)
    sides: tuple[tuple[str, str, str, str], ...] = (("q", w.qg.left, "k", w.kv.left),
                                                    ("dy", w.qg.right, "v", w.kv.right))
    for (a, a_name, b, b_name), axis, letter in zip(sides, "NP", "cp", strict=True):
        if k.channel == axis:
            y[f"{a}_n"] = d.operand(a_name, {"T": rows}, cast=False)
            y[f"{b}_n"] = d.operand(b_name, {"T": cols}, cast=False)
        else:
            wide: Frame = {axis: Ix(f"o_{letter}", 1, f"m_{letter}", 0, f"D{axis}")}
            y[a] = operand(a_name, {"T": rows, **wide})
            y[b] = operand(b_name, {"T": down, **wide})
    entry = Entry(d, {"t": rows, "s": cols}, {}, within, tile_lags(rows.section),
                  f"[{rows.extent}, C]")  # fmt: skip
    w.entries.append(entry)
    y["weight"] = real(entry.text(g.weight)) if w.weight is None else None
    y["gather"], y["stores"] = _added(w, entry, rows, cols)
    return y


def _added(w: Gathering, entry: Entry, rows: Ix, cols: Ix) -> tuple[list[str], list[StoreText]]:
    """Lines that add up W on a tile, and stores of it."""
    d, g = w.d, w.g
    match g.pattern:
        case "lag":
            return ["b_total += b_w"], []
        case "entry":
            at = {"T": rows, "S": cols} if _form(g.index[0]).t == 1 else {"T": cols, "S": rows}
            return [], [d.store(w.out, Name("w"), at, 2)]
        case "cut":
            low, high = (entry.text(e).text for e in g.index)
            assert w.parts is not None
            columns: Frame = {"_r": Ix("i_own"), "T": replace(cols, dim=0)}
            return [f"b_w = tl.where({high} > {low}, b_w, 0.0).to(tl.float64)",
                    "b_total += tl.sum(b_w, 1)", "b_part = tl.sum(b_w, 0)"], [
                        _plain(d, w.parts, "b_part", columns)]  # fmt: skip
        case pattern:
            return [f"b_total += tl.sum(b_w, {0 if pattern == 'col' else 1})"], []


def _visits(w: Gathering, within: Support | None) -> dict[str, object]:
    """Which tiles a program visits, and where it stores the sums. `within`: the lags of the tiles
    that need no masks."""
    d, k, g, diagonal = w.d, w.k, w.g, w.lags is not None
    own = Ix("o_own", 0, "m_own")
    zeros = {"lag": "tl.zeros([R, C], dtype=ACC)", "cut": "tl.zeros([C], dtype=tl.float64)"}
    start = ["o_own = i_own * C + o_i", "m_own = o_own < n_T"]
    x: dict[str, object] = {"row": "i_own * C", "col": "i_tile * C", "stores": []}
    by_row = g.pattern != "col"
    begin, end = band(k.support, "i_own * C", "C", by_row)
    if w.lags:
        start = ["i_diagonal = i_own + first"]
        begin = "tl.cdiv(tl.maximum(i_diagonal * C, 0), R)"
        end = "tl.cdiv(tl.maximum(tl.minimum(n_T, n_T + i_diagonal * C), 0), R)"
        x |= {"row": "i_tile * R", "col": "(i_tile * R - i_diagonal * C)",
              "sign": "-" if w.lags.sign < 0 else ""}
        there = Ix("o_at", 0, "((o_at >= 0) & (o_at < count))")
        x["stores"] = [_plain(d, w.out, "b_part", {"_h": Ix("i_part"), w.lags.axis: there})]
    elif g.pattern == "cut":
        x["stores"] = [_plain(d, w.out, "b_total", {"T": own})]
    elif g.pattern != "entry":
        shift = 0 if g.pattern == "all" else _form(g.index[0]).const
        place = f"o_own + {shift}"
        at = Ix(f"({place})", 0, f"(m_own & ({place} >= 0) & ({place} < n_T))") if shift else own
        x["stores"] = [d.store(w.out, Name("total"), {"T": at}, 1)]
        if g.pattern == "col":
            x |= {"row": "i_tile * C", "col": "i_own * C"}
    ends = [f"i_begin = {begin}", f"i_end = {end}"]
    ends += [] if diagonal else meeting(d, k, g.weight, "i_own * C", "C")
    ends += [] if within is None else _free(within, diagonal, by_row)
    start += [] if d.inside else ends
    if g.pattern != "entry":
        start.append(f"b_total = {zeros.get(g.pattern, 'tl.zeros([C], dtype=ACC)')}")
    return {**x, "start": start, "enter": ends, "diagonal": diagonal,
            "summed": g.pattern not in ("entry", "cut")}


def _free(within: Support, diagonal: bool, by_row: bool) -> list[str]:
    """Lines that say which tiles of a program need no masks: those from i_from to i_to."""
    if not diagonal:
        begin, end = whole(within, "i_own * C", "C", by_row)
        ends, sure = f"tl.minimum({end}, n_T // C)", ["(i_own + 1) * C <= n_T"]
    else:
        begin, ends = "0", "tl.minimum(n_T // R, (n_T + i_diagonal * C - C + R) // R)"
        sure = [] if within.lo is None else [f"i_diagonal * C - C + 1 >= {within.lo}"]
        sure += [] if within.hi is None else [f"i_diagonal * C + R - 1 <= {within.hi}"]
    lines = [f"i_from = tl.minimum(tl.maximum(i_begin, {begin}), i_end)",
             f"i_to = tl.maximum(tl.minimum(i_end, {ends}), i_from)"]  # fmt: skip
    return [*lines, *(f"i_to = tl.where({s}, i_to, i_from)" for s in sure)]


def _plain(d: Draft, tensor: str, text: str, frame: Frame) -> StoreText:
    pointer, mask = d.scope.address(tensor, frame, 1)
    return StoreText(pointer, text, mask)


def _form(e: Expr) -> Form:
    f = form(e)
    assert f is not None  # the adjoint law asked
    return f
