"""A plan as text: the request, what was chosen, every candidate and why it lost.

Non-goals: no numbers of its own (cost.py made them).
"""

from __future__ import annotations

import textwrap

from smac.plan.dense import dense_paths
from smac.plan.shape import Shape, shape_of
from smac.plan.types import Candidate, Plan, Request
from smac.plan.words import duration, quantity

WIDTH = 100
_HEADS = ("order", "chunk", "schedule", "flops", "bytes", "launches", "workspace", "time")
_RIGHT = _HEADS[3:]


def explain(plan: Plan) -> str:
    """The text: at most `WIDTH` columns, a table with units."""
    r, x = plan.request, shape_of(plan.request)
    lines = [*_request_lines(r), *_wrap("mask      ", _mask_text(r, x)), ""]
    lines += [*_wrap("chosen    ", _chosen_text(plan.chosen)), ""]
    lines += _table(plan.candidates)
    lines += _wrap("", "chunk: tokens in a chunk x chunks in flight (rows of a block for quadratic);"
                       " flops: matrix products, 2 a multiply-add; time: predicted")  # fmt: skip
    if plan.illegal:
        lines.append("")
    for label, why in plan.illegal:
        lines += _wrap(f"not {label}: ", why)
    return "\n".join([*lines, "", *_dense_lines(r, x)])


def _request_lines(r: Request) -> list[str]:
    what = "backward" if r.backward else "forward"
    state = ", with states" if r.state else ""
    sizes = " ".join(f"{a}={n}" for a, n in r.sizes if a != "S")
    head = f"{r.dtype} on {r.device}, target {r.target}, {what}{state}"
    return [*_wrap("plan      ", f"{r.spec.name}: {head}"), *_wrap("sizes     ", sizes)]


def _mask_text(r: Request, x: Shape) -> str:
    laws = ["no generators" if x.rank is None else f"generators of rank {x.rank}"]
    laws.append("lower triangular" if x.support.lower else "not lower triangular")
    if x.symbol:
        laws.append("a symbol (Toeplitz)")
    if x.channel:
        laws.append(f"one per {x.channel}")
    return f"{r.mask}: {', '.join(laws)}"


def _chosen_text(c: Candidate) -> str:
    parts = ", ".join(f"{k} {duration(v)}" for k, v in c.parts)
    return f"{c.order}, chunk {c.chunk}, schedule {c.schedule}: {duration(c.time)} ({parts})"


def _row(c: Candidate) -> tuple[str, ...]:
    chunk = f"{c.chunk}x{c.segment // c.chunk}" if c.segment > c.chunk else f"{c.chunk}"
    return (c.order, chunk, c.schedule, quantity(c.flops), quantity(c.bytes, "B"),
            f"{c.launches}", quantity(c.workspace, "B"), duration(c.time))  # fmt: skip


def _table(candidates: tuple[Candidate, ...]) -> list[str]:
    rows = [_HEADS, *(_row(c) for c in candidates)]
    widths = [max(len(r[i]) for r in rows) for i in range(len(_HEADS))]
    indent = sum(widths) + 2 * len(widths)
    lines = []
    for row, last in zip(rows, ["verdict", *(c.verdict for c in candidates)], strict=True):
        cells = (t.rjust(w) if h in _RIGHT else t.ljust(w)
                 for t, w, h in zip(row, widths, _HEADS, strict=True))  # fmt: skip
        lines += _wrap("  ".join(cells) + "  ", last, indent)
    return lines


def _dense_lines(r: Request, x: Shape) -> list[str]:
    """The dense paths, and what the mask's law makes of the two that matter."""
    paths = dense_paths(r, x)
    heads = x.batch * x.all_heads
    by_law = 2 * heads * x.n("QK") * x.p * x.matvec
    text = "; ".join(f"{p.text}: {quantity(p.flops)}" for p in paths[:3])
    dense = next((p.flops for p in paths if p.text == "((K V) L) Q"), 0)
    return [
        *_wrap("dense     ", f"with L as a plain matrix, the best of {len(paths)} contraction paths "
                             f"are (flops): {text}"),
        *_wrap("by law    ", f"((K V) L) Q takes {quantity(dense)} dense; charged by the mask's law, "
                             f"{quantity(x.matvec)} a channel, its product with L takes "
                             f"{quantity(by_law)}: that is the linear order"),
        *_wrap("          ", "cutting T into chunks makes L diagonal blocks (quadratic inside) and "
                             "low rank below them (linear between): that is the chunked order"),
    ]  # fmt: skip


def _wrap(head: str, text: str, indent: int | None = None) -> list[str]:
    """`head` and `text`, broken at `WIDTH`, continued under the text."""
    pad = " " * min(len(head) if indent is None else indent, WIDTH - 20)
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=pad,
                         break_long_words=True) or [head.rstrip()]  # fmt: skip
