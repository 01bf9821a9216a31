"""A mask's entry over a tile of L, as Triton text.

Positions are vectors along the tile's rows and columns, what is read at them rows, columns, gathers
or matrix tiles, a `Between` the difference of prefix sums that the wrapper made in float64. What
depends on t − s alone is a vector over the tile's lags.

Non-goals: no kernels (triton_masks.py), no mask families.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from smac.codegen.print_triton import Text, real, show
from smac.codegen.triton_kernel import Draft, atom
from smac.codegen.triton_tiles import Frame, Ix, spread
from smac.errors import CodegenError
from smac.expr import (
    S_POS,
    T_POS,
    At,
    Between,
    Call,
    Expr,
    Name,
    Num,
    Pos,
    call,
    children,
    transform,
    walk,
)
from smac.masks.band import Support, form, inside, never_below


class Entry:
    """Prints mask entries over a tile whose positions t and s are indexed by `at`.

    `within`: the lags of a tile that has no others. `lags` indexes the lags t − s of a tile: what
    depends on them alone is made once for each of them, and spread over the tile's `shape`.
    """

    def __init__(self, d: Draft, at: Mapping[str, Ix], channel: Frame,
                 within: Support | None = None, lags: Ix | None = None,
                 shape: str = "[C, C]") -> None:  # fmt: skip
        self.d, self.at, self.channel = d, at, channel
        self.within, self.lags, self.shape = within, lags, shape
        self.rank = 2
        #: What is spread over the tile already, by the name that stands for it.
        self.spread: dict[str, Text] = {}

    def text(self, e: Expr, scale: str | None = None) -> Text:
        """`e` over the tile, times a number: once for each lag, where all of `e` is made by lag."""
        e = e if self.within is None else inside(e, self.within)
        if scale and self.lags is not None and by_lags(e):
            e, scale = self._made(e, scale), None
        e = e if self.lags is None else transform(e, self._by_lag)
        found = self._narrow(e) if narrow(e) else self._wide(e)
        return Text(f"{atom(real(found))} * {scale}") if scale else found

    def _by_lag(self, e: Expr) -> Expr | None:
        """A name for what is made once for each lag; None: `e` stays as it is."""
        if not by_lags(e):
            return e if isinstance(e, At | Between) else None
        return self._made(e)

    def _made(self, e: Expr, scale: str | None = None) -> Name:
        """A name for `e` (times a number), made once for each lag."""
        assert self.lags is not None
        vector = Entry(self.d, {"t": self.lags}, self.channel)
        vector.rank = 1
        made = real(vector.text(lagged(e), scale))
        self.spread[made] = Text(f"tl.reshape(tl.gather({made}, o_pair, 0), {self.shape})")
        return Name(made)

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
            case Name(id) if id in self.spread:
                return self.spread[id]
            case Pos(which):
                ix = self.at[which]
                return Text(spread(place(ix), ix.dim, self.rank), "int")
            case At(base, index):
                return self._base(base, {**self.channel, **self._frame(index)})
            case Between(base, low, high):
                return self._between(base, low, high)
            case _:
                return self._base(e, self.channel)

    def _base(self, e: Expr, frame: Frame) -> Text:
        """A value of the mask (its name hides a tensor's), a size, …"""
        if isinstance(e, Name) and e.id in self.d.values:
            return self.d.value(e.id, frame, self.rank)
        return self.d.scope.text(e, frame, self.rank, {})

    def _frame(self, index: tuple[Expr, ...]) -> Frame:
        """How T (or a lag), and S where there are two indices, are read."""
        if len(index) == 2:
            return {"T": self._ix(index[0], "T"), "S": self._ix(index[1], "T")}
        return {"T": self._ix(index[0], "T"), "W": self._ix(index[0], "W")}

    def _ix(self, e: Expr, axis: str) -> Ix:
        if isinstance(e, Pos) and self.rank == 2:
            return self.at[e.which]
        section = max((self.at[n.which].section for n in walk(e) if isinstance(n, Pos)), default=0)
        dim, f = 2 if self.rank == 2 else 0, form(e)
        parts = [] if f is None else [(c, self.at[p]) for c, p in ((f.t, "t"), (f.s, "s")) if c]
        if f is None or f.sizes or not all(abs(c) == 1 and ix.start for c, ix in parts):
            text = self._wide(e).text
            return Ix(_factor(text), dim, self._there(text, axis), section, self.at["t"].extent)
        start = _signed([(c, ix.start) for c, ix in parts], 0)
        var = _signed([(c, spread(ix.var, ix.dim, self.rank)) for c, ix in parts], f.const)
        mask = self._there(self._narrow(e).text, axis)
        return Ix(_factor(var), dim, mask, section, self.at["t"].extent, start=_factor(start))

    def _there(self, text: str, axis: str) -> str:
        """Whether there is a position `text` along an axis."""
        self.d.scope.sizes.add(axis)
        return f"({text} >= 0) & ({text} < n_{axis})"

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


_COMPARED = ("ge", "gt", "le", "lt", "eq", "ne")
#: Functions of positions that are no larger than their arguments.
_SUMS = ("add", "sub", "neg", "minimum", "maximum", "abs", *_COMPARED)


def _positions(e: Expr) -> bool:
    """Whether a position itself is in `e`, not only what is read there."""
    if isinstance(e, At | Between):
        return False
    return isinstance(e, Pos) or any(map(_positions, children(e)))




#: Functions that are no dearer on a tile than what they are given is to gather.
_CHEAP = (*_SUMS, "mul", "where", "chain")


def of_lags(e: Expr) -> bool:
    """Whether `e` depends on positions through t − s alone."""
    f = form(e)
    if f is not None:
        return f.t == -f.s
    if isinstance(e, Between):
        return False
    if isinstance(e, At):
        return len(e.index) == 1 and of_lags(e.index[0])
    if isinstance(e, Call) and e.fn in _COMPARED and form(call("sub", *e.args)) is not None:
        return of_lags(call("sub", *e.args))
    return all(map(of_lags, children(e)))


def by_lags(e: Expr) -> bool:
    """Whether `e` is made lag by lag: it depends on t − s alone, and is read in memory or takes
    more than a few operations."""
    nodes = list(walk(e))
    dear = any(isinstance(n, At) or (isinstance(n, Call) and n.fn not in _CHEAP) for n in nodes)
    return dear and any(isinstance(n, Pos) for n in nodes) and of_lags(e)


def lagged(e: Expr) -> Expr:
    """`e`, which depends on t − s alone, with the lag called t."""

    def one(n: Expr) -> Expr | None:
        if n == call("sub", T_POS, S_POS):
            return T_POS
        return Num(0) if n == S_POS else None

    return transform(e, one)


def _factor(text: str) -> str:
    """`text` fit to be a factor."""
    return f"({text})" if " " in text else text
