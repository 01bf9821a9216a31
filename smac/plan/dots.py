"""Flops of the matrix products, product by product: the one place that counts them.

On the torch target these equal what `torch.utils.flop_counter` counts on the generated source: each
product of templates/torch is listed here by the letters of its two operands, and `Product.flops`
is torch.einsum's own rule. The triton target multiplies whole pieces, ragged ones too.

The FFT order multiplies elementwise, and torch counts no flops of an FFT: it has no products.

Non-goals: no scalar work, no bytes (cost.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from smac.derive import simplify
from smac.expr import ONE, ZERO, Expr, call
from smac.masks.base import Lane
from smac.masks.lanes import Lanes, resets_every
from smac.plan.bands import block_columns, entries
from smac.plan.shape import Shape, learns, shape_of, sides_of
from smac.plan.types import Dot, Request
from smac.terms import MaskTerm

#: Batch axes by their names; c chunks, i rows and j columns of a tile; g groups, r heads in one.
Letters = frozenset[str]
NONE: Letters = frozenset()
C, I, J, N, P = (frozenset(x) for x in "cijnp")  # noqa: E741 (letters of the maths)
#: Products of a chunk with itself, which kernels that take a chunk from both sides make once.
INSIDE = ("scores", "intra", "dscores", "dQ intra", "dK intra", "dV intra")


@dataclass(frozen=True, slots=True)
class Product:
    """`a`, `b` → letters of `out`, or all but those of `drop`."""

    name: str
    a: Letters
    b: Letters
    out: Letters | None = None
    drop: Letters = NONE

    def flops(self, size: dict[str, int]) -> int:
        """Two a multiply-add, as torch.einsum multiplies at these sizes.

        A letter to sum that one operand alone carries is summed before; with none in common to
        sum, the product is elementwise and counts nothing.
        """
        a, b = (frozenset(x for x in s if size[x] != 1) for s in (self.a, self.b))
        out = (a | b) - self.drop if self.out is None else self.out
        if not (a & b) - out:
            return 0
        return 2 * math.prod(size[x] for x in (a & b) | ((a | b) & out))


@dataclass(frozen=True, slots=True)
class Halving:
    """Products by halving levels, m = 1, 2, … C/2 with C up to a power of two: `times` a level.

    Each level has C/2m blocks of m × m for every one of `batch`, with a channel of letter `along`.
    """

    name: str
    batch: Letters
    along: Letters
    times: int = 1

    def flops(self, size: dict[str, int]) -> int:
        """Two a multiply-add."""
        rows = 1 << max(size["i"] - 1, 0).bit_length()
        channel = math.prod(size[x] for x in self.along)
        batch = math.prod(size[x] for x in self.batch - I - J - self.along)
        return self.times * batch * channel * rows * (rows - 1)


@dataclass(frozen=True, slots=True)
class LaneLetters:
    """Letters of a lane's decays over rows (empty: it never decays), and of its factors."""

    decay: Letters
    read: Letters
    write: Letters
    trained: bool


class Operands:
    """Letters of Q, K, V, the mask and Y, as the lowering lays them out; `sizes` by letter."""

    def __init__(self, x: Shape, r: Request, lanes: tuple[Lane, ...]) -> None:
        spec, self.channel, self.again = r.spec, r.spec.contraction.channel, x.again
        self.frozen = r.frozen
        self.spec, c = spec, spec.contraction
        carried = (a for e in (c.Q, c.K, c.V, *r.mask.parameters()) for a in spec.axes_of(e))
        found = set(carried) & set(spec.groups)
        self.group = next((g for g in spec.groups if g in found), None)
        self.heads = frozenset("gr" if self.group else "h")
        self.q, self.k, self.v = (self.letters(e) for e in (c.Q, c.K, c.V))
        self.v |= P if x.tail else NONE
        self.lanes = tuple(self._lane(lane) for lane in self._folded(r, lanes))
        self.mask = self.letters(c.L) - C - I
        per_lane = frozenset().union(*(y.decay | y.read | y.write for y in self.lanes))
        everything = self.q | self.k | self.v | self.mask | per_lane
        self.batch = frozenset(spec.batch)
        self.y = (everything & (self.batch | P)) | C | I | self.heads
        self.state = self.batch | C | self.heads | N | P
        #: What a tile of weights carries beside its rows and columns: the mask's factors too.
        self.tile = (self.q | self.k | per_lane) - N - P
        self.size = self._sizes(x, r)

    def letters(self, e: Expr | MaskTerm) -> Letters:
        """Letters of an expression with T as c and i; H, and groups but the first, as heads."""
        axes = set(self.spec.axes_of(e))
        out = {a for a in axes if a in self.spec.batch} | {a.lower() for a in axes & {"N", "P"}}
        if axes & (set(self.spec.groups) - {self.group} | {"H"}):
            out |= self.heads
        elif self.group in axes:
            out.add("g")
        return frozenset(out) | (C | I if "T" in axes else NONE)

    def _folded(self, r: Request, lanes: tuple[Lane, ...]) -> tuple[Lane, ...]:
        """`lanes`; a single one's factors belong to Q and K."""
        if len(lanes) != 1:
            return lanes
        (lane,) = lanes
        c = r.spec.contraction
        self.q = self.letters(call("mul", lane.read, c.Q))
        self.k = self.letters(call("mul", lane.write, c.K))
        return (Lane(lane.log_decay, lane.reset),)

    def _lane(self, lane: Lane) -> LaneLetters:
        decays = simplify(lane.log_decay) != ZERO
        decay = self.letters(lane.log_decay) | I if decays else NONE
        if lane.reset is not None:
            decay |= self.letters(lane.reset) | I
        factors = [simplify(e) for e in (lane.read, lane.write)]
        read, write = (NONE if e == ONE else self.letters(e) for e in factors)
        learned = any(learns(e, self.frozen) for e in (lane.log_decay, lane.read, lane.write))
        return LaneLetters(decay, read, write, learned)

    def _sizes(self, x: Shape, r: Request) -> dict[str, int]:
        own = {a for i in r.spec.inputs for a in i.axes}
        length = {a: n if a in own else 1 for a, n in r.sizes}
        length["B"] = length.get("B", 1) * max(r.sequences, 1)
        size = {a: length[a] for a in r.spec.batch}
        size |= {"n": length["N"], "p": length["P"] + x.tail}
        groups = math.prod(length[g] for g in [self.group] if g)
        heads = r.size("H") if own & {"H", *r.spec.groups} else 1
        return size | {"h": heads, "g": groups, "r": heads // groups}


Products = Iterator[Product | Halving]


def dots(
    request: Request, order: str, chunk: int, segment: int, schedule: str = "segments",
    x: Shape | None = None,
) -> tuple[Dot, ...]:  # fmt: skip
    """The products of `request` in `order` with pieces of `chunk` tokens, `segment` in flight."""
    if schedule in ("tokens", "fft"):  # triton's recurrence multiplies in registers
        return ()
    x = shape_of(request) if x is None else x
    quadratic, back = order == "quadratic", request.backward
    whole = request.target == "triton"
    if quadratic:
        o = Operands(x, request, ())
        products = [(o, p) for p in (_tiles_backward if back else _tiles)(o)]
        pieces = _tile_sizes(x, chunk, whole)
    else:
        sides = sides_of(request)
        of_side = _chunks_backward if back else _chunks
        products = [(o, p) for lanes in sides
                    for o in [_between_chunks(Operands(x, request, lanes), x, lanes, chunk)]
                    for p in of_side(o, x.above)
                    if lanes is sides[0] or schedule != "chunks" or p.name not in INSIDE
                    ]  # fmt: skip
        pieces = _piece_sizes(x.T, chunk, segment, whole)
    found = {p.name: 0 for _, p in products}
    for count, own in pieces:
        for o, p in products:
            found[p.name] += count * p.flops(o.size | own)
    return tuple(Dot(name, n) for name, n in found.items())


def _between_chunks(o: Operands, x: Shape, lanes: Lanes, chunk: int) -> Operands:
    """`o` with those lanes that have a state between chunks; all share the tiles inside."""
    if x.in_turn and x.resets:
        o.lanes = tuple(y for y, of in zip(o.lanes, lanes, strict=True)
                        if not resets_every(of, chunk))  # fmt: skip
    return o


def _piece_sizes(T: int, chunk: int, segment: int, whole: bool) -> list[tuple[int, dict[str, int]]]:
    """(how many, sizes of c, i, j) of the segments of a walk; the last, short chunk is its own."""
    if whole:
        return [(-(-T // chunk), {"c": 1, "i": chunk, "j": chunk})]
    chunks, rest = divmod(T, chunk)
    full, left = divmod(chunks, max(segment // chunk, 1))
    every = [(full, segment // chunk, chunk), (1, left, chunk), (1, 1, rest)]
    return [(n, {"c": c, "i": i, "j": i}) for n, c, i in every if n and c and i]


# ---- chunks and their states ----------------------------------------------------------------


def _chunks(o: Operands, two_sided: bool) -> Products:
    """Scores and values in a chunk; for each lane the state that it adds, and what it reads."""
    yield from _scores(o)
    yield from _values(o)
    for lane in o.lanes:
        yield _state("state", o, lane)
        yield _read("read", o, lane)


def _chunks_backward(o: Operands, two_sided: bool) -> Products:
    """A pass for the states, then the reverse pass, which makes every gradient. The side of a mask
    that has two gets Y, where it is needed, from a forward pass of both."""
    if o.again and two_sided:
        yield from _chunks(o, two_sided)
    yield from (_state("states pass", o, lane) for lane in o.lanes)
    yield from _scores(o)
    yield from (_state("state", o, lane) for lane in o.lanes)
    if o.again and not two_sided:
        yield from _values(o)
        yield from (_read("read", o, lane) for lane in o.lanes)
    yield from {None: _inside_backward, "N": _inside_n, "P": _inside_p}[o.channel](o)
    for lane in o.lanes:
        rows = lane.decay | lane.read
        of_q, of_y = (o.q | rows, o.y) if o.channel == "N" else (o.q, o.y | rows)
        yield Product("QdY state", of_q, of_y, drop=I)
        yield from (_between_n if o.channel == "N" else _between)(o, lane)


def _tile(letters: Letters) -> Letters:
    return (letters - N - P) | I | J


def _columns(letters: Letters) -> Letters:
    return letters - I | J if letters & I else letters


def _scores(o: Operands) -> Products:
    if o.channel == "N":
        for lane in o.lanes:
            yield Halving("scores", o.q | o.k | lane.decay, N)
    else:
        yield Product("scores", o.q, _columns(o.k), drop=N)


def _values(o: Operands) -> Products:
    if o.channel == "P":
        for lane in o.lanes:
            yield Halving("intra", (o.q | o.k | o.v | lane.decay) - N, P)
    else:
        yield Product("intra", _tile(o.tile), _columns(o.v), drop=J)


def _state(name: str, o: Operands, lane: LaneLetters) -> Product:
    columns = lane.decay | lane.write
    if o.channel == "N":
        return Product(name, o.k | columns, o.v, drop=I)
    return Product(name, o.k, o.v | columns, drop=I)


def _read(name: str, o: Operands, lane: LaneLetters) -> Product:
    rows = lane.decay | lane.read if o.channel == "N" else NONE
    return Product(name, o.q | rows, o.state, drop=N)


def _inside_backward(o: Operands) -> Products:
    ds = _tile(o.q | o.k)
    yield Product("dscores", o.y, _columns(o.v), drop=P)
    yield Product("dQ intra", ds, _columns(o.k), o.q)
    yield Product("dK intra", ds, o.q, _columns(o.k))
    yield Product("dV intra", _tile(o.tile), o.y, _columns(o.v))


def _inside_n(o: Operands) -> Products:
    yield Product("dscores", o.y, _columns(o.v), drop=P)
    yield Product("dV intra", _tile(o.tile), o.y, _columns(o.v))
    for _ in o.lanes:
        yield Halving("dQ, dK intra", o.y - P, N, times=2)


def _inside_p(o: Operands) -> Products:
    ds = _tile(o.q | o.k)
    for _ in o.lanes:
        yield Halving("dscores, dV intra", o.y, P, times=3)
    yield Product("dQ intra", ds, _columns(o.k), o.q)
    yield Product("dK intra", ds, o.q, _columns(o.k))


def _between(o: Operands, lane: LaneLetters) -> Products:
    yield Product("dQ read", o.y | lane.decay | lane.read, o.state, o.q)
    yield Product("dK read", o.v | lane.decay | lane.write, o.state, o.k)
    yield Product("dV read", o.k, o.state, drop=N)
    if lane.trained:
        yield _read("read", o, lane)


def _between_n(o: Operands, lane: LaneLetters) -> Products:
    yield Product("dQ read", o.y, o.state, drop=P)
    yield Product("dK read", o.v, o.state, drop=P)
    yield Product("dV read", o.k | lane.decay, o.state, o.v)


# ---- tiles of the quadratic order -----------------------------------------------------------


def _tiles(o: Operands) -> Products:
    """Scores and values of a block of rows."""
    weights = _tile(o.q | o.k | o.mask)
    yield _tile_scores(o)
    yield Product("values", weights | (o.mask & P), _columns(o.v), drop=J)


def _tile_scores(o: Operands) -> Product:
    return Product("scores", o.q | (o.mask if o.channel == "N" else NONE), _columns(o.k), drop=N)


def _tiles_backward(o: Operands) -> Products:
    """Scores again, their gradient, and the gradients of the operands."""
    if o.again:
        yield from _tiles(o)
    weights, ds = _tile(o.q | o.k | o.mask), _tile(o.q | o.k)
    yield _tile_scores(o)
    if o.channel == "P":
        yield Product("dscores", o.y | J, _columns(o.v), ds)
    else:
        yield Product("dscores", o.y, _columns(o.v), drop=P)
    if o.channel == "N":
        ds = _tile(o.y) | (o.mask & N)
    yield Product("dQ", ds, _columns(o.k), o.q)
    yield Product("dK", ds, o.q, _columns(o.k))
    yield Product("dV", weights | (o.mask & P), o.y, _columns(o.v))


def _tile_sizes(x: Shape, rows: int, whole: bool) -> list[tuple[int, dict[str, int]]]:
    """(how many, sizes of c, i, j): the first block, the last, and all between as one wide one."""
    blocks = -(-x.T // rows)
    ends = sorted({0, blocks - 1}) if blocks else []
    found = []
    for k in ends:
        height = rows if whole else min(rows, x.T - k * rows)
        found.append((1, {"c": 1, "i": height, "j": block_columns(x, rows, k, whole)}))
    inner = entries(x, rows, whole) - sum(s["i"] * s["j"] for _, s in found)
    return [*found, (1, {"c": 1, "i": rows, "j": inner // rows})] if inner else found
