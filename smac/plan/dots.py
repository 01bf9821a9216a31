"""Flops of the matrix products, product by product: the one place that counts them.

On the torch target these equal what `torch.utils.flop_counter` counts on the generated source.
Two flops a multiply-add; chunks are padded to full ones; the quadratic order's tiles are cut at
the support on the torch target, whole on triton.

Non-goals: no scalar work, no bytes (cost.py).
"""

from __future__ import annotations

from smac.plan.shape import Shape, shape_of
from smac.plan.types import Dot, Request


def dots(request: Request, order: str, chunk: int, schedule: str = "segments") -> tuple[Dot, ...]:
    """The products of `request` in `order` with pieces of `chunk` tokens."""
    return shape_dots(shape_of(request), request, order, chunk, schedule)


def shape_dots(
    x: Shape, request: Request, order: str, chunk: int, schedule: str
) -> tuple[Dot, ...]:
    """`dots` with the request's numbers at hand."""
    back = request.backward
    if schedule == "tokens":  # triton's recurrence multiplies in registers, without dots
        return ()
    if schedule == "fft":
        return _fft(x, back)
    if order == "quadratic":
        pairs = entries(x, chunk, whole=request.target == "triton")
        return (_quadratic_backward if back else _quadratic)(x, pairs)
    return (_chunked_backward if back else _chunked)(x, -(-x.T // chunk), chunk)


def entries(x: Shape, rows: int, whole: bool = False) -> int:
    """Entries of L in the tiles that are computed, for one head.

    Rows go in blocks of `rows`; a lower mask stops at the block's last row, any other runs over all
    columns. `whole`: ragged blocks count as full ones.
    """
    blocks = -(-x.T // rows)
    if not x.support.lower:
        return (blocks * rows) ** 2 if whole else x.T * x.T
    full = rows * rows * (blocks * (blocks + 1) // 2)
    if whole or not blocks:
        return full
    last = x.T - (blocks - 1) * rows
    return full - rows * blocks * rows + last * x.T


def _in_chunk(x: Shape, C: int, axis: str) -> int:
    """Entries of one chunk's block, C × C, for the product that sums or keeps `axis`.

    With a decay along `axis` the block goes by halving levels, m = 1, 2, … C/2: C/2m blocks of
    m × m below the diagonal, which is elementwise.
    """
    return C * (C - 1) // 2 if x.channel == axis else C * C


def _chunked(x: Shape, nC: int, C: int) -> tuple[Dot, ...]:
    """In-chunk scores and values; for each lane the state that a chunk adds, and what it reads."""
    unit = 2 * x.batch * nC
    lanes = x.rank or 0
    state = unit * C * x.n("K") * x.p * lanes
    return (
        Dot("scores", unit * _scores_heads(x) * _in_chunk(x, C, "N") * x.n("QK")),
        Dot("intra", unit * x.all_heads * _in_chunk(x, C, "P") * x.p),
        Dot("state", state * x.heads("KVL")),
        Dot("read", unit * C * x.n("QK") * x.p * lanes * x.all_heads),
    )


def _chunked_backward(x: Shape, nC: int, C: int) -> tuple[Dot, ...]:
    """A pass for the states, then the reverse pass, which makes every gradient."""
    unit = 2 * x.batch * nC
    sums, values = _in_chunk(x, C, "N"), _in_chunk(x, C, "P")
    scores = unit * _scores_heads(x) * sums * x.n("QK")
    dvalues = unit * x.all_heads * values * x.p
    keys = unit * x.heads("QKL" if x.channel == "N" else "QK") * sums * x.n("QK")
    outer = unit * C * x.n("QK") * x.p * (x.rank or 0)
    state, full = outer * x.heads("KVL"), outer * x.all_heads
    again = (Dot("intra", dvalues), Dot("read", full)) if x.again else ()
    return (
        Dot("states pass", state), Dot("state", state), Dot("scores", scores),
        Dot("dscores", dvalues), Dot("dQ intra", keys), Dot("dK intra", keys),
        Dot("dV intra", dvalues), Dot("QdY state", full), Dot("dQ read", full),
        Dot("dK read", full), Dot("dV read", full), *again,
    )  # fmt: skip


def _scores_heads(x: Shape) -> int:
    """Heads of Q·K, the mask's too where it stands between them."""
    return x.heads("QKL" if x.channel == "N" else "QK")


def _quadratic(x: Shape, pairs: int) -> tuple[Dot, ...]:
    """Scores and values on tiles."""
    unit = 2 * x.batch * pairs
    return (
        Dot("scores", unit * _scores_heads(x) * x.n("QK")),
        Dot("values", unit * x.all_heads * x.p),
    )


def _quadratic_backward(x: Shape, pairs: int) -> tuple[Dot, ...]:
    """Scores again, their gradient, and the gradients of the operands."""
    unit = 2 * x.batch * pairs
    scores, values = unit * _scores_heads(x) * x.n("QK"), unit * x.all_heads * x.p
    again = (Dot("values", values),) if x.again else ()
    return (
        Dot("scores", scores), Dot("dscores", values), Dot("dQ", scores), Dot("dK", scores),
        Dot("dV", values), *again,
    )  # fmt: skip


def _fft(x: Shape, back: bool) -> tuple[Dot, ...]:
    """Reads of the expanded state K⊗V after its convolution; backward reads for each operand."""
    read = 2 * x.batch * x.T * x.all_heads * x.n("QK") * x.p
    reads = ("dQ read", "dK read", "dV read") if back else ("read",)
    return tuple(Dot(name, read) for name in reads)
