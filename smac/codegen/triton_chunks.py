"""Context of a kernel that takes every chunk by itself, between states that sweeps have saved.

It makes Y or gradients of the contraction, whichever it is asked to read, and stores what
expressions over those it can: tiles, sums over a tile's columns, and sums over the heads of a group
(a program takes several in turn). What is left goes to tensors of its own, for pointwise kernels.

Non-goals: no sweeps (triton_sweeps.py), no sums over batch or tokens (the wrapper's).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from smac.codegen.print_triton import Text, real
from smac.codegen.triton_factors import carries, factored
from smac.codegen.triton_kernel import (
    Draft,
    StoreText,
    carried_axes,
    heads_and_batch,
    identifier,
    owned_grid,
    value,
)
from smac.codegen.triton_lanes import log_decay, restored
from smac.codegen.triton_rows import Row
from smac.codegen.triton_sweeps import DOT, WIDE_WARPS, evenness, factor_texts, lane_sums
from smac.codegen.triton_tiles import Frame, Ix, Scope, Tensor
from smac.codegen.triton_turns import (
    Gradients,
    Turns,
    behind,
    gradients,
    prepare_turns,
    run_lanes,
)
from smac.codegen.triton_wrapper import Host, axes_of
from smac.expr import Expr, Name, call, names, substitute
from smac.ir import SEQ, Kernel, Store

_T = Ix("o_i", 0, "m_t", 0, "C", start="i_first")
_SIDES: Mapping[str, Ix] = {"N": Ix("o_n", 1, "m_n", 0, "DN"), "P": Ix("o_p", 1, "m_p", 0, "DP")}
_WIDTHS = {"N": "DN", "P": "DP"}
#: By which factors of operands the rows and columns of each product are weighed.
_WEIGHTS = {
    "y_row": "q", "y_col": "kv", "dq_row": "y", "dq_col": "kv", "dk_row": "v", "dk_col": "qy",
    "dv_row": "k", "dv_col": "qy", "w_row": "qy", "w_col": "kv",
    "sum_row": "y", "sum_col": "v", "sum_k": "k", "sum_q": "q",
}  # fmt: skip
#: Columns of N, and warps, of programs that sum weights over heads. Each tile of N makes them all
#: again, so it is as wide as registers and shared memory allow for beside states [N, P].
_SUMMED = (
    "width(min(n_N, 128 if n_P <= 64 else 64), op)", "8 if op.itemsize == 2 and n_N > 64 else 4",
)  # fmt: skip
#: The most lanes whose states are loaded ahead.
_AHEAD = 2


@dataclass(slots=True)
class Sorted:
    """Stores by how the kernel makes them: (buffer, expression, side of its tile or None)."""

    tiles: list[tuple[str, Expr, str]] = field(default_factory=list)
    totals: list[tuple[str, Expr, str]] = field(default_factory=list)
    vectors: dict[str, list[tuple[Expr, str | None]]] = field(default_factory=dict)
    later: list[Store] = field(default_factory=list)


def chunks(host: Host, name: str, k: Kernel, rows: Mapping[Row, str]) -> tuple[Store, ...]:
    """Launch the kernel; answer the stores that are left, over what it stored for them."""
    natural = {*heads_and_batch(host.layout, carried_axes(k)), "T"}
    own = {r.out: host.canonical(natural | {"N" if r.over == "P" else "P"}) for r in k.reads}
    if k.in_turn:
        return _in_turn(host, name, k, rows, natural, own)
    own |= {o: host.canonical(natural) for g in k.lane_grads
            for o in (g.decay, g.read, g.write) if o is not None}  # fmt: skip
    return _launch(host, name, k, rows, natural, own)


def _in_turn(host: Host, name: str, k: Kernel, rows: Mapping[Row, str], natural: set[str],
             own: Mapping[str, tuple[str, ...]]) -> tuple[Store, ...]:  # fmt: skip
    """`chunks` with a loop over lanes. Their gradients go to tensors, for pointwise kernels."""
    turns, grads = prepare_turns(host, k), gradients(host, k, host.canonical(natural))
    of_lanes = [s for s in k.stores if names(s.expr) & grads.lanes.keys()]
    own_stores = tuple(s for s in k.stores if s not in of_lanes)
    left = _launch(host, name, replace(k, stores=own_stores), rows, natural, own, (turns, grads))
    raw = behind(host, grads)
    return (*left, *(Store(s.buffer, substitute(s.expr, raw), s.axes) for s in of_lanes))


def _launch(host: Host, name: str, k: Kernel, rows: Mapping[Row, str], natural: set[str],
            own: Mapping[str, tuple[str, ...]], turns: tuple[Turns, Gradients] | None = None,
            ) -> tuple[Store, ...]:  # fmt: skip
    found = _sort(host, k, natural, own)
    bare = _bare(host, found, k.stores, own)
    # Weights of heads that share Q and K are added up before they meet them.
    summed = bool(bare) and bare.keys() == {"d.Q", "d.K"} & own.keys() and _shared(k, host.known)
    # Tiles of N are programs of their own where nothing is summed over N.
    split = not k.lane_grads and not found.vectors and not {"Y", "d.V"} & own.keys()
    deep = _SUMMED[0] if summed else "columns(n_N, op)" if split else "width(n_N, op)"
    d = _draft(host, name, k, bool(found.totals), split, deep)
    d.rows, d.row = rows, {"C": Ix("i_chunk"), "I": Ix("o_i", 0, section=0, extent="C")}
    x = _texts(d, k, turns)
    x["summed"] = summed
    d.extra = {o: Text(f"b_{identifier(o)}") for o in own}
    terms: dict[str, list[str]] = {}
    x["totals"], x["total_stores"] = _totals(host, d, found, bare, own, terms)
    x["dq_total"], x["dk_total"] = (f"b_total{bare[n]}" if n in bare else None
                                    for n in ("d.Q", "d.K"))  # fmt: skip
    made, left = _stores(host, d, found, natural, own, terms)
    x["stores"], x["parts"] = made.stores, made.parts
    evenness(d, _WIDTHS, value(k, k.carries[0].right).tail is not None)
    d.constants["EXACT"] = "op.itemsize >= 4"
    x["split"] = split
    # More warps than rows fill would hold the same tiles twice. Heads taken in turn are loaded
    # ahead where registers allow for it: not beside the gradients of lanes.
    many = summed and not k.in_turn and sum(lane.carried for lane in k.lanes) > _AHEAD
    ahead = "1" if k.lane_grads or many else "2 if op.itemsize == 2 else 1"
    trains = k.lane_grads or "d.V" in own
    warps = _SUMMED[1] if summed else WIDE_WARPS if trains else 4
    if any(c.against for c in k.carries):
        host.tiles = f"triton.cdiv(n_N, {d.constants['DN']})" if split else "1"
        host.ensure(next(c.met for c in k.carries if c.met))
    elif k.lane_grads and not k.in_turn:
        d.scalars["met_tiles"] = host.tiles
    template = "turns" if k.in_turn else "chunks"
    host.launch(replace(d.finish(template, x), warps=warps, stages=ahead))
    for buffer, texts in terms.items():
        host.put(buffer, texts)
    return left


def _sort(host: Host, k: Kernel, natural: set[str], own: Mapping[str, tuple[str, ...]]) -> Sorted:
    out = Sorted()
    values = {v.name: v for v in k.values}
    groups = set(host.layout.groups)
    for b in dict.fromkeys(s.buffer for s in k.stores):
        stores = [s for s in k.stores if s.buffer == b]
        target = set(host.program.buffer(b).axes)
        axes = [set(axes_of(host, s, values, own)) for s in stores]
        sides = {next((a for a in ("N", "P") if a in x), None) for x in axes}
        fits = all(x - {"N", "P"} == natural and not {"N", "P"} <= x for x in axes)
        if not fits:
            out.later += stores
        elif not target & {"N", "P"}:
            out.vectors[b] = [(s.expr, next((a for a in ("N", "P") if a in x), None))
                              for s, x in zip(stores, axes, strict=True)]  # fmt: skip
        elif len(sides) == 1 and next(iter(sides)) in target:
            side = str(next(iter(sides)))
            total = stores[0].expr
            for s in stores[1:]:
                total = call("add", total, s.expr)
            shared = "H" in natural and target - groups == (natural | {side}) - {"H"}
            (out.totals if shared else out.tiles).append((b, total, side))
        else:
            out.later += stores
    return out


def _bare(host: Host, found: Sorted, stored: tuple[Store, ...],
          own: Mapping[str, tuple[str, ...]]) -> dict[str, int]:  # fmt: skip
    """Reads over N that are summed over heads as they stand, by nothing but factors that all heads
    share, and that nothing else reads: which of the totals each is."""
    known = {**host.known, **{o: Tensor(o, axes) for o, axes in own.items()}}
    bare: dict[str, int] = {}
    for i, (_, e, side) in enumerate(found.totals):
        if not names(e) <= known.keys():
            continue
        f = factored(e, side, known)
        shared = not carries(call("mul", f.vector, f.scalar), "H", known)
        if isinstance(f.core, Name) and f.core.id in own and side == "N" and shared and sum(
                f.core.id in names(s.expr) for s in stored) == 1:  # fmt: skip
            bare[f.core.id] = i
    return bare


def _shared(k: Kernel, known: Mapping[str, Tensor]) -> bool:
    """Whether Q and K, with all their factors, are the same for the heads of a group."""
    keys = next(c for c in k.carries if c.name == "KV").left
    exprs = [v.expr for v in k.values if v.name in ("Q", keys)]
    return not any("H" in known[i].axes for e in exprs for i in names(e))


def _draft(host: Host, name: str, k: Kernel, sums_heads: bool, split: bool, deep: str) -> Draft:
    layout, chunk = host.layout, f"rows({k.walk.chunk}, op)"
    owned = heads_and_batch(layout, carried_axes(k))
    batch = [a for a in owned if a != "H"]
    fixed = {a: Ix(f"at_{a}", fixed=True) for a in batch}
    grid = [("i_chunk", "tl.cdiv(n_T, C)", f"triton.cdiv(n_T, {chunk})")]
    heads = "1"
    if "H" in owned:
        fixed |= {"H": Ix("at_H", fixed=True, section=1), "_h": Ix("i_heads", fixed=True)}
        fixed |= {g: Ix(f"at_{g}", fixed=True) for g in layout.groups}
        if sums_heads:
            host.helpers.add("heads_each")
            tiles = [f"triton.cdiv(n_N, {deep})"] if split else []
            programs = " * ".join([*tiles, grid[0][2], "n_H", *(f"n_{a}" for a in batch)])
            each = [f"n_H // n_{g}" for g in layout.groups] or ["n_H"]
            heads = f"{name}_heads"
            host.lines.append(f"{heads} = heads_each(({', '.join(each)},), {programs})")
        grid.append(("i_heads", "(n_H // HEADS)", f"(n_H // {heads})"))
    if split:  # beside each other: what they share is then in the cache
        grid.insert(0, ("i_n", "tl.cdiv(n_N, DN)", f"triton.cdiv(n_N, {deep})"))
    fixed |= {SEQ: Ix(f"at_{SEQ}", fixed=True)} if layout.packed else {}
    scope = Scope(fixed, layout.groups, host.known, layout.packed)
    d = Draft(name, "Chunks in parallel: " + ", ".join(r.out for r in k.reads) + ".", scope,
              {v.name: v for v in k.values}, [*grid, *owned_grid(batch)], {})  # fmt: skip
    if "H" in owned:
        d.head = "(i_heads * HEADS)"
    d.constants = {"C": chunk, "DN": deep, "DP": "width(n_P, op)", "HEADS": heads,
                   **DOT}  # fmt: skip
    return d


def _texts(d: Draft, k: Kernel, turns: tuple[Turns, Gradients] | None) -> dict[str, object]:
    """Operands, factors and lanes; which products the template makes."""
    forward = next(c for c in k.carries if c.name == "KV")
    reverse = next((c for c in k.carries if c.name == "QG"), None)
    outs = {r.out for r in k.reads}
    x: dict[str, object] = {"y": "Y" in outs, "dq": "d.Q" in outs, "dk": "d.K" in outs,
                            "dv": "d.V" in outs, "grads": bool(k.lane_grads),
                            "n_p": "n_P", "reverse": False, "dy": None}  # fmt: skip
    operands = {"q": "Q", "k": forward.left, "v": forward.right}
    if reverse is not None:
        operands["y"] = reverse.right
    n, p = ({"T": _T, a: _SIDES[a]} for a in "NP")
    x["q"], x["k"], x["v"] = d.core("Q", n), d.core(forward.left, n), d.core(forward.right, p)
    if reverse is not None:
        x["dy"] = d.core(reverse.right, p)
    factors = {a: _factor(d, v) for a, v in operands.items()}
    x["factors"] = [(a, text) for a, text in factors.items() if text]
    x["weights"] = {w: " * ".join(f"b_f{a}" for a in of if factors.get(a))
                    for w, of in _WEIGHTS.items()}  # fmt: skip
    x["heads"], x["shared"] = "H" in d.scope.fixed, _shared(k, d.scope.known)
    lanes = _lanes(d, k) if turns is None else run_lanes(d, k, *turns)
    x["lanes"] = lanes
    # Gradients of a lane are gathered with the rows that write to it along the tile's rows: s, or
    # above the diagonal t.
    trained = {bool(lane["upper"]) for lane in lanes if lane["grads"]}
    x["grads_below"], x["grads_above"] = False in trained, True in trained
    return x


def _factor(d: Draft, operand: str) -> str | None:
    """The factors that an operand's core leaves out, over the rows of a chunk."""
    rows, number = d.weights((operand,), _T)
    if rows is None and number is None:
        return None
    return " * ".join(t for t in (rows or "tl.full([C], 1.0, ACC)", number) if t)


def _lanes(d: Draft, k: Kernel) -> list[dict[str, object]]:
    """Lanes of both sides; of one above the diagonal a row's factor is what it writes with."""
    lanes: list[dict[str, object]] = []
    for i, lane in enumerate(k.lanes):
        factors = factor_texts(d, lane, {"T": _T}, lane.upper)
        lanes.append(factors | lane_sums(d, k, i) | {"upper": lane.upper})
    for i, (lane, text) in enumerate(zip(k.lanes, lanes, strict=True)):
        text |= restored(d, k, lane, {"R": Ix(str(i))} if i else {})
        grad = next((g for g in k.lane_grads if g.lane == i), None)
        text["grads"] = None if grad is None else {
            n: None if o is None else identifier(o)
            for n, o in (("decay", grad.decay), ("read", grad.read), ("write", grad.write))
        }  # fmt: skip
        if grad is not None:
            log = log_decay(d, lane, _T)
            text["cut"] = f"({log} <= -256.0) | ({d.integer(lane.reset, {'T': _T}, 1)} != 0)"
    return lanes


def _stage(e: Expr, own: Mapping[str, tuple[str, ...]]) -> str:
    """The read behind which `e` can be stored: stores come early, so that tiles do not pile up."""
    found = [n for n in names(e) if n in own]
    stages = [s for s in ("Y", "d.V", "d.Q", "d.K") if s in own]
    if any(n not in stages for n in found):
        return "lanes"
    last = max((stages.index(n) for n in found), default=0)
    return stages[last]


def _totals(host: Host, d: Draft, found: Sorted, bare: Mapping[str, int],
            own: Mapping[str, tuple[str, ...]], terms: dict[str, list[str]]) -> tuple[
    list[dict[str, object]], list[StoreText]
]:  # fmt: skip
    """Sums over a program's heads: what is added up in the loop, and stored behind it. To those
    of `bare` products add what they make; factors of these come last."""
    texts: list[dict[str, object]] = []
    stores = []
    for i, (buffer, e, side) in enumerate(found.totals):
        frame = {"T": _T, side: _SIDES[side]}
        text: str | None = real(d.show(e, frame, 2))
        total = f"b_total{i}"
        if i in bare.values():
            running = {o: Text(f"b_total{j}") for o, j in bare.items()}
            text, total = None, real(replace(d, extra=running).show(e, frame, 2))
        texts.append({"i": i, "text": text, "width": _WIDTHS[side], "stage": _stage(e, own)})
        axes = [a for a in host.canonical({*d.scope.fixed, "T", side} - set(host.layout.groups))
                if a != "H"]  # fmt: skip
        part = host.fresh("partial", ("_h", *axes))
        terms[buffer] = [host.shares(part, tuple(axes), f"n_H // {d.constants['HEADS']}", buffer)]
        pointer, mask = d.scope.address(part, frame, 2)
        stores.append(StoreText(pointer, total, mask))
    return texts, stores


@dataclass(slots=True)
class Made:
    """What a program stores head by head, each behind a read: stores, and parts of vectors."""

    stores: list[dict[str, object]] = field(default_factory=list)
    parts: list[dict[str, object]] = field(default_factory=list)


def _stores(host: Host, d: Draft, found: Sorted, natural: set[str],
            own: Mapping[str, tuple[str, ...]], terms: dict[str, list[str]],
            ) -> tuple[Made, tuple[Store, ...]]:  # fmt: skip
    """What is stored head by head, and the stores that are left for others."""
    made = Made()

    def place(buffer: str, axes: set[str]) -> str:
        """The buffer itself where it has these axes, else a tensor to be summed into it, as where
        another kernel has filled the buffer."""
        target = host.program.buffer(buffer).axes
        if set(target) == axes and buffer not in host.made:
            host.ensure(buffer)
            return buffer
        part = host.fresh("partial", host.canonical(axes))
        host.allocate(part, "acc")
        terms[buffer] = [host.summed(part, target)]
        return part

    def store(stage: str, text: StoreText) -> None:
        made.stores.append({"stage": stage, "store": text})

    for buffer, e, side in found.tiles:
        tensor = place(buffer, natural | {side})
        store(_stage(e, own), d.store(tensor, e, {"T": _T, side: _SIDES[side]}, 2))
    for buffer, parts in found.vectors.items():
        pointer, mask = d.scope.address(place(buffer, natural), {"T": _T}, 1)
        total: list[str] = []
        for e, part_side in parts:
            total.append(f"b_part{len(made.parts)}")
            made.parts.append({"i": len(made.parts), "stage": _stage(e, own),
                               "text": _vector(d, e, part_side)})  # fmt: skip
        store("lanes", StoreText(pointer, " + ".join(total), mask))
    raw: dict[str, Expr] = {}
    for out in sorted({n for s in found.later for n in names(s.expr)} & own.keys()):
        tensor = host.fresh("raw", own[out])
        host.allocate(tensor, "acc")
        frame: Frame = {"T": _T, **{a: _SIDES[a] for a in own[out] if a in _SIDES}}
        store(_stage(Name(out), own), d.store(tensor, Name(out), frame, len(frame)))
        raw[out] = Name(tensor)
    left = tuple(Store(s.buffer, substitute(s.expr, raw), s.axes) for s in found.later)
    return made, left


def _vector(d: Draft, e: Expr, side: str | None) -> str:
    """`e` over the rows of a chunk, summed over the columns of its tile."""
    if side is None:
        return real(d.show(e, {"T": _T}, 1))
    ix = _SIDES[side]
    text = real(d.show(e, {"T": _T, side: ix}, 2))
    return f"tl.sum(tl.where(m_t[:, None] & {ix.mask}[None, :], {text}, 0.0), 1)"
