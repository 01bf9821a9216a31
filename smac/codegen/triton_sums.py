"""Gathers of a mask's gradient as launches: where the sums of each lie, and what is behind them.

Non-goals: no kernel text (triton_gathers.py), no stores (triton_steps.py).
"""

from __future__ import annotations

from smac.codegen.triton_gathers import Lags, gather, tile_sides
from smac.codegen.triton_kernel import carried_axes, heads_and_batch, value
from smac.codegen.triton_wrapper import Host
from smac.expr import Expr, Name, names, substitute
from smac.ir import Gather, Kernel, Store
from smac.masks.band import Form, form


def gathers(host: Host, name: str, k: Kernel, stores: tuple[Store, ...]) -> tuple[Store, ...]:
    """Launch a kernel a gather; answer the stores over what they were put in."""
    raw: dict[str, Expr] = {}
    for i, g in enumerate(k.gathers):
        made = _gather(host, f"{name}_{g.pattern}_{i}", k, g)
        read = {s.expr for s in stores if g.out in names(s.expr)}
        if "_h" in host.known[made].axes and read != {Name(g.out)}:  # not only added up
            axes = tuple(a for a in host.known[made].axes if a != "_h")
            whole = host.fresh("raw", host.canonical(set(axes)))
            host.lines.append(f"{whole} = {host.summed(made, host.known[whole].axes)}")
            made = whole
        raw[g.out] = Name(made)
    return tuple(Store(s.buffer, substitute(s.expr, raw), s.axes) for s in stores)


def _gather(host: Host, name: str, k: Kernel, g: Gather) -> str:
    """One gather, over all of batch, heads and channel; the tensor that holds it."""
    owned = {*heads_and_batch(host.layout, carried_axes(k))} | ({k.channel} if k.channel else set())
    base = value(k, g.base)
    along = "W" if g.pattern == "lag" and "W" in base.axes else "T"
    axes = host.canonical({*owned, along, *("S" if g.pattern == "entry" else "")})
    if g.pattern == "lag":
        return _lags(host, name, k, g, tuple(a for a in axes if a != along), along)
    out = host.fresh("raw", axes)
    if g.pattern == "cut":
        return _cut(host, name, k, g, out, axes)
    covers = g.pattern in ("all", "col", "row") and not (g.index and _form(g.index[0]).const)
    host.allocate(out, "acc", fill="empty" if covers else "zeros")
    host.launch(gather(k, g, name, host.layout, host.known, out, None))
    return out


def _lags(host: Host, name: str, k: Kernel, g: Gather, rest: tuple[str, ...], along: str) -> str:
    """Sums along diagonals of tiles, for each of the axes `rest`. A lag lies in several diagonals,
    each of which has a place of its own for it along _h: stores add these up."""
    rows, cols = tile_sides(k, g)
    parts = host.fresh("tiles", ("_h", *rest, along))
    low, high = f"1 - triton.cdiv(n_T, {cols})", f"(n_T - 1) // ({rows}) * (({rows}) // ({cols}))"
    support = k.support
    if support is not None and support.lo is not None:
        low = f"max({low}, -(-({support.lo} - {rows} + 1) // {cols}))"
    if support is not None and support.hi is not None:
        high = f"min({high}, ({support.hi} + {cols} - 1) // {cols})"
    host.lines += [f"first = {low}", f"n_diagonals = max({high} - first + 1, 0)"]
    shape = [f"({rows}) // ({cols}) + 1", *(host.size(a) for a in rest), host.size(along)]
    host.allocate(parts, "acc", shape, fill="zeros")
    f = _form(g.index[0])
    shift = " + ".join([str(f.const), *(f"{c} * {host.size(a)}" for a, c in f.sizes)])
    lags = Lags(along, f.t, shift, host.size(along))
    host.helpers.add("tall")
    host.launch(gather(k, g, name, host.layout, host.known, parts, None, lags))
    return parts


def _cut(host: Host, name: str, k: Kernel, g: Gather, out: str, axes: tuple[str, ...]) -> str:
    """Sums of W at rows and at columns, in float64, and from them the sum over high ≥ k > low."""
    rows = f"triton.cdiv(n_T, rows({k.walk.chunk}, op))"
    rows += " + 1" if host.layout.packed else ""  # a slot behind a sequence may be empty
    by_row = host.fresh("cut", axes)
    host.allocate(by_row, "torch.float64")
    parts = host.fresh("cut", ("_r", *axes))
    host.allocate(parts, "torch.float64", [rows, *(host.size(a) for a in axes)], fill="zeros")
    host.launch(gather(k, g, name, host.layout, host.known, by_row, parts))
    low, high = (_form(e) for e in g.index)
    at = axes.index("T")
    row, col = f"{by_row}.movedim({at}, 0)", f"{parts}.sum(0).movedim({at}, 0)"
    top, bottom = (row, col) if high.t else (col, row)
    host.helpers.add("cut_sums")
    host.lines.append(f"{out} = cut_sums({top}, {bottom}, {high.const}, {low.const})")
    have = host.known[f"resets_{g.base}"].axes
    reset = f"resets_{g.base}.diff(dim={have.index('T')})"
    for i, a in enumerate(have):
        if a in host.layout.groups and a not in axes:
            reset += f".repeat_interleave(n_H // n_{a}, {i})"
            have = tuple("H" if x == a else x for x in have)
    index = ", ".join(":" if a in have else "None" for a in axes)
    host.lines.append(f"{out} = {out}.movedim(0, {at})")
    host.lines.append(f"{out} = torch.where({reset}[{index}] != 0, 0.0, {out}).to(acc)")
    return out


def _form(e: Expr) -> Form:
    f = form(e)
    assert f is not None  # the adjoint law asked
    return f
