"""A plan as text: the request, what was chosen, every candidate and why it lost.

Non-goals: no numbers of its own (cost.py made them).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from smac.masks.classify import classified
from smac.plan.dense import dense_paths
from smac.plan.shape import Shape, shape_of
from smac.plan.types import Candidate, Plan, Request
from smac.plan.words import duration, quantity
from smac.show import show

_HEADS = ("order", "chunk", "schedule", "flops", "bytes", "launches", "workspace", "time")
_NUMBERS = _HEADS[3:]
#: Columns that a verdict needs beside the table; with fewer it goes below its row.
_VERDICT = 22
_LEGEND = (
    "chunk: tokens in a chunk × chunks in flight (quadratic: rows of a block); flops: of matrix "
    "products, 2 a multiply-add; time: predicted"
)


def explain(plan: Plan, width: int = 100) -> str:
    """The text, in at most `width` columns: a table with units, and what surrounds it."""
    return "\n".join(_lines(plan, max(width, 72)))


def _lines(plan: Plan, width: int) -> Iterator[str]:
    r, x = plan.request, shape_of(plan.request)
    mask = ("mask", _mask(plan, x))
    for head, text in (*_request(plan), *_formulas(r), mask, *_fits(plan),
                       ("chosen", _chosen(plan))):  # fmt: skip
        yield from _wrap(f"{head:8}", text, width)
    yield ""
    yield from _table(plan.candidates, width)
    yield from _wrap("", _LEGEND, width)
    if plan.illegal:
        yield ""
    for label, why in plan.illegal:
        yield from _wrap(f"not {label}: ", why, width, indent=4)
    yield ""
    for head, text in _dense(r, x):
        yield from _wrap(f"{head:8}", text, width)


def _request(plan: Plan) -> tuple[tuple[str, str], ...]:
    r = plan.request
    what = "backward" if r.backward else "forward"
    state = ", with states" if r.state else ""
    sizes = " ".join(f"{a}={n}" for a, n in r.sizes if a != "S")
    state += f", {r.sequences} packed sequences" if r.packed else ""
    state += f", {' '.join(plan.frozen)} frozen" if plan.frozen else ""
    head = f"{r.spec.name}: {r.dtype} on {r.device}, target {r.target}, {what}{state}"
    return ("plan", head), ("sizes", sizes)


def _formulas(r: Request) -> Iterator[tuple[str, str]]:
    """What each formula of the mask was found to be, and how."""
    for term, found in classified(r.spec):
        checked = f", held to it at {found.compared} entries in float64" if found.compared else ""
        yield "formula", f"{show(term)} is {found.structure}{checked}"
        for line in found.lines:
            yield "", line


def _mask(plan: Plan, x: Shape) -> str:
    laws = ["no generators" if x.rank is None else f"generators of rank {x.rank}"]
    laws.append("lower triangular" if x.support.lower else "not lower triangular")
    if x.symbol:
        laws.append("a symbol")
    if x.dft:
        laws.append("the Fourier transform")
    if x.channel:
        laws.append(f"one per {x.channel}")
    return f"{plan.mask_text}: {', '.join(laws)}"


def _fits(plan: Plan) -> Iterator[tuple[str, str]]:
    """What stands for each approx(…), and the bound that was measured."""
    for f in plan.fits:
        waves = sum(1 for m in f.modes if m.angle)
        kinds = f"decays: {len(f.modes) - waves}" + (f", damped waves: {waves}" if waves else "")
        yield "fit", (f"{f.text} by rank {f.rank} ({kinds}): |L - fit| <= {f.error:.3g}, measured "
                      f"at every lag below {f.horizon} (asked: {f.tol:g}); float32 rounds off up "
                      f"to about {f.mass * 6e-8:.1g} more")  # fmt: skip
    if plan.fits:
        worst = sum(f.error for f in plan.fits)
        whole = plan.asked is not None and plan.asked.contraction.L.fn == "approx"
        other = "" if whole else ", times the largest |entry| of what multiplies the fit in L"
        yield "bound", f"|Y - exact Y| <= {worst:.3g} |Q| |K| |V|, Frobenius norms a head{other}"
        if plan.order == "quadratic":
            yield "", ("the quadratic order needs no finite rank: without approx(…) the same plan "
                       "is exact")  # fmt: skip


def _chosen(plan: Plan) -> str:
    c, cut = plan.chosen, f", {plan.tiles}" if str(plan.tiles) else ""
    parts = ", ".join(f"{k} {duration(v)}" for k, v in c.parts)
    return f"{c.order}, chunk {c.chunk}, schedule {c.schedule}{cut}: {duration(c.time)} ({parts})"


def _row(c: Candidate) -> tuple[str, ...]:
    chunk = f"{c.chunk}×{c.segment // c.chunk}" if c.segment > c.chunk else f"{c.chunk}"
    return (c.order, chunk, c.schedule, quantity(c.flops), quantity(c.bytes, "B"),
            f"{c.launches}", quantity(c.workspace, "B"), duration(c.time))  # fmt: skip


def _table(candidates: tuple[Candidate, ...], width: int) -> Iterator[str]:
    rows = [_HEADS, *(_row(c) for c in candidates)]
    widths = [max(len(r[i]) for r in rows) for i in range(len(_HEADS))]
    indent = sum(widths) + 2 * len(widths)
    beside = width - indent >= _VERDICT
    for row, last in zip(rows, ["verdict", *(c.verdict for c in candidates)], strict=True):
        cells = "  ".join(t.rjust(w) if h in _NUMBERS else t.ljust(w)
                          for t, w, h in zip(row, widths, _HEADS, strict=True))  # fmt: skip
        if beside:
            yield from _wrap(cells + "  ", last, width, indent)
        else:
            yield cells
            yield from _wrap("    ", last, width)


def _dense(r: Request, x: Shape) -> tuple[tuple[str, str], ...]:
    """The dense paths, and what the mask's law makes of the two that matter."""
    paths = dense_paths(r, x)
    by_law = 2 * x.batch * x.all_heads * x.n("QK") * x.p * x.matvec
    best = "; ".join(f"{p.text}: {quantity(p.flops)}" for p in paths[:3])
    dense = next((p.flops for p in paths if p.text == "((K V) L) Q"), 0)
    return (
        ("dense", f"with L as a plain matrix, flops of the best of {len(paths)} paths: {best}"),
        ("by law", f"((K V) L) Q takes {quantity(dense)} dense; charged by the mask's law, "
                   f"{quantity(x.matvec)} a channel, the product with L takes {quantity(by_law)}: "
                   "that is the linear order"),
        ("", "cutting T into chunks makes L diagonal blocks (quadratic inside) and low rank below "
             "them (linear between): that is the chunked order"),
    )  # fmt: skip


def _wrap(head: str, text: str, width: int, indent: int | None = None) -> list[str]:
    """`head` and `text`, broken at `width`, continued under the text (or at `indent`)."""
    pad = " " * (len(head) if indent is None else indent)
    return textwrap.wrap(text, width, initial_indent=head, subsequent_indent=pad)
