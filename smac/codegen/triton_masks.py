"""Contexts of the kernels over tiles of L: reads by `entry`, and gathers of the mask's gradient.

`Entry` prints a mask's entry over a tile: positions are vectors along its rows and columns, what is
read at them rows, columns, gathers or matrix tiles, a `Between` the difference of prefix sums that
the wrapper made in float64.

Non-goals: no states, no mask families.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from smac.codegen.print_triton import Text, show
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
from smac.codegen.triton_tiles import Frame, Ix, Tensor, spread
from smac.errors import CodegenError
from smac.expr import At, Between, Call, Expr, Name, Pos, children, walk
from smac.ir import SEQ, Gather, Kernel
from smac.masks.band import FULL, Form, Support, empty, equal_at, form, inside, never_below


class Entry:
    """Prints mask entries over a tile whose positions t and s are indexed by `at`.

    `within`: the lags of a tile that has no others, and whose rows and columns are all there;
    what else must hold for reads without a mask is then in `sure`.
    """

    def __init__(self, d: Draft, t: Ix, s: Ix, channel: Frame,
                 within: Support | None = None) -> None:  # fmt: skip
        self.d, self.at, self.channel, self.within = d, {"t": t, "s": s}, channel, within
        self.sure: list[str] = []

    def text(self, e: Expr) -> Text:
        """`e` over the tile."""
        e = e if self.within is None else inside(e, self.within)
        return self._narrow(e) if narrow(e) else self._wide(e)

    def _narrow(self, e: Expr) -> Text:
        """`e`, its positions in 32 bits."""
        return show(e, lambda n: self._leaf(n, self._place))

    def _wide(self, e: Expr) -> Text:
        """`e`, its positions in 64 bits."""
        return show(e, lambda n: self._leaf(n, self._position))

    def _place(self, ix: Ix) -> str:
        return ix.place or ix.position

    def _position(self, ix: Ix) -> str:
        return ix.position

    def _leaf(self, e: Expr, place: Callable[[Ix], str]) -> Text:
        match e:
            case Pos(which):
                ix = self.at[which]
                return Text(spread(place(ix), ix.dim, 2), "int")
            case At(base, index):
                return self._base(base, {**self.channel, **self._frame(index)})
            case Between(base, low, high):
                return self._between(base, low, high)
            case _:
                return self._base(e, self.channel)

    def _base(self, e: Expr, frame: Frame) -> Text:
        """A value of the mask (its name hides a tensor's), a size, …"""
        if isinstance(e, Name) and e.id in self.d.values:
            return self.d.value(e.id, frame, 2)
        return self.d.scope.text(e, frame, 2, {})

    def _frame(self, index: tuple[Expr, ...]) -> Frame:
        """How T (or a lag), and S where there are two indices, are read."""
        if len(index) == 2:
            return {"T": self._ix(index[0], "T"), "S": self._ix(index[1], "T")}
        return {"T": self._ix(index[0], "T"), "W": self._ix(index[0], "W")}

    def _ix(self, e: Expr, axis: str) -> Ix:
        if isinstance(e, Pos):
            return self.at[e.which]
        section = max((self.at[n.which].section for n in walk(e) if isinstance(n, Pos)), default=0)
        f = form(e)
        parts = [] if f is None else [(f.t, self.at["t"]), (f.s, self.at["s"])]
        if f is None or f.sizes or not all(abs(c) <= 1 and (ix.start or not c) for c, ix in parts):
            text = self._wide(e).text
            return Ix(text, 2, f"({text} >= 0) & ({text} < n_{axis})", section)
        start = _signed([(c, ix.start) for c, ix in parts], 0)
        var = _signed([(c, spread(ix.var, ix.dim, 2)) for c, ix in parts], f.const)
        if self.within is not None and never_below(f, self.within):
            self.sure.append(f"{_signed([(1, 'n_T')], f.const)} <= n_{axis}")
            self.d.scope.sizes.add(axis)
            return Ix(var, 2, None, section, start=f"({start})")
        text = self._narrow(e).text
        return Ix(var, 2, f"({text} >= 0) & ({text} < n_{axis})", section, start=f"({start})")

    def _between(self, base: Expr, low: Expr, high: Expr) -> Text:
        if not isinstance(base, Name):
            raise CodegenError("triton: a sum between positions is over an expression; "
                               "expected the name of a value")  # fmt: skip
        ends = [self._end(high), self._end(low)]
        g = [self._prefix(f"prefix_{base.id}", ix) for ix in ends]
        r = [self._prefix(f"resets_{base.id}", ix) for ix in ends]
        hi, lo = self.text(high).text, self.text(low).text
        total = f"tl.where({r[0]} == {r[1]}, ({g[0]} - {g[1]}).to(ACC), float('-inf'))"
        a, b = form(high), form(low)
        if self.within is not None and a and b and never_below(a.plus(b, -1), self.within):
            return Text(total)
        return Text(f"tl.where({hi} > {lo}, {total}, 0.0)")

    def _prefix(self, tensor: str, ix: Ix) -> str:
        return self.d.scope.load(tensor, {**self.channel, "T": ix}, 2).text

    def _end(self, e: Expr) -> Ix:
        """The index in prefix sums (of k < i) that includes position `e`."""
        f = form(e)
        if f is None or {abs(f.t), abs(f.s)} != {0, 1} or f.sizes or f.t + f.s != 1:
            raise CodegenError("triton: a sum between positions other than t or s plus an integer")
        ix = self.at["t" if f.t else "s"]
        clamped = f"tl.minimum(tl.maximum({ix.position} + {f.const + 1}, 0), n_T)"
        return replace(ix, var=clamped, mask=None, start="", place="")


def _signed(terms: list[tuple[int, str]], const: int) -> str:
    """A sum of texts, each times 1, 0 or -1, and an integer."""
    texts = [(c, x) for c, x in [*terms, (const, str(abs(const)))] if c]
    out = "".join(f" {'+' if c > 0 else '-'} {x}" for c, x in texts)
    return out.removeprefix(" + ").strip() or "0"


def narrow(e: Expr) -> bool:
    """Whether positions in 32 bits do for `e`: it adds, subtracts and compares them, and no product
    of two, nor a bit of a larger number, is taken."""
    f = form(e)
    if f is not None:
        return abs(f.t) <= 1 and abs(f.s) <= 1
    if isinstance(e, At | Between):
        return True
    if isinstance(e, Call) and e.fn not in ("where", "chain") and e.fn not in _SUMS:
        moving = [a for a in e.args if _positions(a)]
        return len(moving) <= 1 and e.fn != "pow" and all(map(narrow, moving))
    return all(map(narrow, children(e)))


#: Functions of positions that are no larger than their arguments.
_SUMS = ("add", "sub", "neg", "ge", "gt", "le", "lt", "eq", "ne", "minimum", "maximum", "abs")


def _positions(e: Expr) -> bool:
    """Whether a position itself is in `e`, not only what is read there."""
    if isinstance(e, At | Between):
        return False
    return isinstance(e, Pos) or any(map(_positions, children(e)))


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
    chunk = f"rows({k.walk.chunk}, op)"
    tile_rows = ("i_row", "tl.cdiv(n_T, C)", f"triton.cdiv(n_T, {chunk})")
    d = draft_of(k, name, layout, known, [*columns_grid(n_kept), tile_rows])
    d.about = about(read, carry)
    d.constants = {"C": chunk, "DC": f"width({n_contracted}, op)",
                   "BK": f"columns({n_kept}, op)", **DOT}  # fmt: skip
    rows, cols = _positions_of("row", 0), _positions_of("col", 1)
    side_c, side_k = Ix("o_c", 1, "m_c", 0, "DC"), Ix("o_k", 1, "m_k", 0, "BK")
    i_n = Ix("i_n", None, None, 2)
    channel: Frame = {} if k.channel is None else {k.channel: i_n}
    x: dict[str, object] = {"contracted": contracted, "kept": kept, "channel": k.channel,
                            "read": identifier(read.out), "inside": None}  # fmt: skip
    # Under a mask per channel, operands are read channel by channel too, with all their factors.
    factored = k.channel is None
    operand = d.core if factored else d.operand
    x["operand"] = operand(read.operand, {"T": rows, contracted: side_c})
    row, row_scale = d.weights((read.operand,), rows) if factored else (None, None)
    whole = [f"n_{a} % ({d.constants[b]}) == 0" for a, b in ((contracted, "DC"), (kept, "BK"))]
    # The column behind the last of P is told from the others by their mask.
    d.constants |= {"WHOLE": "False" if tail else " and ".join(whole), "FAR": FAR}

    def body(at: Ix, within: Support | None) -> tuple[dict[str, object], list[str]]:
        """Texts of a tile whose columns are `at`."""
        down = replace(at, dim=0)
        t, s = (at, rows) if carry.reverse else (rows, at)
        assert k.entry is not None
        entry = Entry(d, t, s, channel, within)
        texts: dict[str, object] = {
            "masked": within is None,
            "left": operand(c_name, {"T": down, contracted: side_c}),
            "right": operand(k_name, {"T": down, kept: side_k}),
            "entry": _number(entry.text(k.entry)),
        }
        col, col_scale = d.weights((c_name, k_name), down) if factored else (None, None)
        texts["times"] = "".join(f" * {y}" for y in (
            f"({row})[:, None]" if row else None, f"({col})[None, :]" if col else None,
            row_scale, col_scale) if y)  # fmt: skip
        return texts, entry.sure

    x["edge"], _ = body(cols, None)
    support = FULL if k.support is None else k.support
    if factored and not empty(support):
        x["all"], sure = body(replace(cols, mask=None, section=3), support)
        begin, end = _whole_tiles(support, "i_row", by_row=not carry.reverse)
        x["inside"] = {"begin": begin, "end": end,
                       "sure": " & ".join(f"({c})" for c in dict.fromkeys(
                           ["first_row + C <= n_T", *sure]))}  # fmt: skip
    down = replace(cols, dim=0)
    if k.channel == contracted:
        x["operand_n"] = d.operand(read.operand, {"T": rows, **channel}, cast=False)
        x["left_n"] = d.operand(c_name, {"T": cols, **channel}, cast=False)
    elif k.channel is not None:
        x["right_n"] = d.operand(k_name, {"T": cols, **channel}, cast=False)
    assert k.entry is not None
    x["begin"], x["end"] = _band(k.support, "i_row", by_row=not carry.reverse)
    x["runs"] = _meeting(d, k, k.entry, "i_row")
    x["stores"] = read_stores(d, read, targets, {"T": rows, kept: side_k}, kept, 2)
    return d.finish("tiles", x)


def _positions_of(side: str, dim: int, section: int | None = None) -> Ix:
    """Positions along the rows ("row") or columns ("col") of a tile."""
    letter = "r" if side == "row" else "s"
    return Ix("o_i", dim, f"m_{letter}", dim if section is None else section, "C",
              start=f"first_{side}", place=f"o_{letter}")  # fmt: skip


def _whole_tiles(support: Support, own: str, by_row: bool) -> tuple[str, str]:
    """First and last + 1 of the tiles all of whose lags are in the band, as `_band`."""
    below, above = (support.hi, support.lo) if by_row else (support.lo, support.hi)
    sign = -1 if by_row else 1
    begin = "i_begin" if below is None else (
        f"tl.maximum({own} * C + 2 * C + {sign * below - 2}, 0) // C")  # fmt: skip
    end = "i_end" if above is None else f"tl.maximum({own} * C + {sign * above + 1}, 0) // C"
    return begin, end


def _number(t: Text) -> str:
    from smac.codegen.print_triton import real

    return real(t)


def _band(support: Support | None, own: str, by_row: bool) -> tuple[str, str]:
    """First and last + 1 of the tiles that meet tile `own`: a row's columns, or a column's rows."""
    lo, hi = (None, None) if support is None else (support.lo, support.hi)
    below, above = (hi, lo) if by_row else (lo, hi)
    sign = -1 if by_row else 1
    begin = "0" if below is None else f"tl.maximum({own} * C + {sign * below}, 0) // C"
    last = None if above is None else f"tl.maximum({own} * C + C + {sign * above - 1}, -C) // C + 1"
    return begin, "tl.cdiv(n_T, C)" if last is None else f"tl.minimum(tl.cdiv(n_T, C), {last})"


def _meeting(d: Draft, k: Kernel, e: Expr, own: str) -> list[str]:
    """Lines that leave out tiles at whose rows and columns no run is the same, where `e` is zero
    between different runs."""
    lines = []
    for base in equal_at(e):
        source = d.values[base.id].expr if isinstance(base, Name) and base.id in k.runs else None
        if isinstance(source, Name):
            t = d.scope.use(source.id)
            lines.append(f"i_begin, i_end = meeting(q_{t.id}, s_{t.id}_T, {own}, i_begin, i_end, "
                         "n_T, C)")  # fmt: skip
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
    rows, cols = Ix("o_r", 0, "m_r", 1, "C"), Ix("o_s", 1, "m_s", 1, "C")
    down = replace(cols, dim=0)
    x: dict[str, object] = {"channel": k.channel}
    sides_: tuple[tuple[str, str, str, str], ...] = (("q", qg.left, "k", kv.left),
                                                     ("dy", qg.right, "v", kv.right))  # fmt: skip
    for (a, a_name, b, b_name), axis, var in zip(sides_, "NP", ("o_n", "o_p"), strict=True):
        if k.channel == axis:
            x[f"{a}_n"] = d.operand(a_name, {"T": rows}, cast=False)
            x[f"{b}_n"] = d.operand(b_name, {"T": cols}, cast=False)
        else:
            wide: Frame = {axis: Ix(var, 1, f"m_{axis.lower()}", 0, f"D{axis}")}
            x[a] = d.operand(a_name, {"T": rows, **wide})
            x[b] = d.operand(b_name, {"T": down, **wide})
    entry = Entry(d, rows, cols, {})
    x["weight"] = _number(entry.text(g.weight))
    x |= _gathered(d, g, entry, k, out, parts)
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
    begin, end = _band(k.support, "i_own", by_row=True)
    if g.pattern in ("row", "all", "col"):
        lines = [f"b_total += tl.sum(b_w, {0 if g.pattern == 'col' else 1})"]
        shift = 0 if g.pattern == "all" else _form(g.index[0]).const
        place = f"o_own + {shift}"
        at = Ix(f"({place})", 0, f"(m_own & ({place} >= 0) & ({place} < n_T))") if shift else own
        x["stores"] = [d.store(out, Name("total"), {"T": at}, 1)]
    if g.pattern == "col":
        x["tile_row"], x["tile_col"] = "i_tile", "i_own"
        begin, end = _band(k.support, "i_own", by_row=False)
    elif g.pattern == "lag":
        start = ["i_diagonal = i_own + first"]
        begin, end = "tl.maximum(i_diagonal, 0)", "tl.minimum(tiles, tiles + i_diagonal)"
        x["tile_row"], x["tile_col"] = "i_tile", "i_tile - i_diagonal"
        zeros, lines = "tl.zeros([C, C], dtype=ACC)", ["b_total += b_w"]
        whole: Frame = {"_d": Ix("i_own"), "_r": Ix("o_i", 0), "_c": Ix("o_i", 1)}
        x["stores"] = [d.store(out, Name("total"), whole, 2)]
    elif g.pattern == "entry":
        first_is_row = _form(g.index[0]).t == 1
        r, c = Ix("o_r", 0, "m_r"), Ix("o_s", 1, "m_s")
        place2 = {"T": r, "S": c} if first_is_row else {"T": c, "S": r}
        x["tile_stores"] = [d.store(out, Name("w"), place2, 2)]
    elif g.pattern == "cut":
        low, high = (entry.text(e).text for e in g.index)
        zeros = "tl.zeros([C], dtype=tl.float64)"
        lines = [f"b_w = tl.where({high} > {low}, b_w, 0.0).to(tl.float64)",
                 "b_total += tl.sum(b_w, 1)", "b_part = tl.sum(b_w, 0)"]  # fmt: skip
        assert parts is not None
        x["stores"] = [_plain(d, out, "b_total", {"T": own})]
        columns: Frame = {"_r": Ix("i_own"), "T": Ix("o_s", 0, "m_s")}
        x["tile_stores"] = [_plain(d, parts, "b_part", columns)]
    ends = [f"i_begin = {begin}", f"i_end = {end}"]
    ends += [] if g.pattern == "lag" else _meeting(d, k, g.weight, "i_own")
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
