"""Index forms and bands: what a mask entry's own conditions say about where it is nonzero.

A form is c_t·t + c_s·s + const + Σ sizes with integer coefficients. `band(entry)` reads the
`where` conditions and answers the lags that can be nonzero; *unknown is an answer* (the full
support), wrong is not.

Non-goals: no solving of general inequalities, no per-block patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from smac.expr import At, Between, Call, Expr, Num, Pos, Size, call, children, transform


@dataclass(frozen=True, slots=True)
class Support:
    """Where the mask can be nonzero: lags n = t − s with lo ≤ n ≤ hi; None is unbounded.

    Lower triangular is (0, None), upper (None, 0), dense (None, None), a window (0, w − 1).
    """

    lo: int | None = None
    hi: int | None = None

    @property
    def lower(self) -> bool:
        """No entry above the diagonal."""
        return self.lo is not None and self.lo >= 0

    @property
    def upper(self) -> bool:
        """No entry below the diagonal."""
        return self.hi is not None and self.hi <= 0


FULL = Support()
#: No lag at all: lo > hi.
EMPTY = Support(1, 0)


@dataclass(frozen=True, slots=True)
class Form:
    """t·`t` + s·`s` + `const` + Σ c · length of axis, over `sizes` (sorted, no zero among them)."""

    t: int = 0
    s: int = 0
    const: int = 0
    sizes: tuple[tuple[str, int], ...] = ()

    def plus(self, other: Form, k: int = 1) -> Form:
        """self + k · other."""
        total = dict(self.sizes)
        for axis, c in other.sizes:
            total[axis] = total.get(axis, 0) + k * c
        sizes = tuple(sorted((a, c) for a, c in total.items() if c))
        return Form(self.t + k * other.t, self.s + k * other.s, self.const + k * other.const, sizes)

    @property
    def constant(self) -> bool:
        """Neither t, s nor the length of an axis is in it."""
        return self.t == 0 and self.s == 0 and not self.sizes


def form(e: Expr) -> Form | None:
    """`e` as a linear form of the positions, or None when it is not one."""
    match e:
        case Num(value) if isinstance(value, int):
            return Form(const=value)
        case Pos("t"):
            return Form(t=1)
        case Pos("s"):
            return Form(s=1)
        case Size(axis):
            return Form(sizes=((axis, 1),))
        case Call("neg", (a,)):
            x = form(a)
            return None if x is None else Form().plus(x, -1)
        case Call("add" | "sub" | "mul" as fn, (a, b)):
            x, y = form(a), form(b)
            if x is None or y is None:
                return None
            if fn == "mul":
                return _times(x, y)
            return x.plus(y, 1 if fn == "add" else -1)
        case _:
            return None


def _times(x: Form, y: Form) -> Form | None:
    """The product where one factor is an integer."""
    if x.constant:
        return Form().plus(y, x.const)
    if y.constant:
        return Form().plus(x, y.const)
    return None


def at_positions(e: Expr, t: Expr, s: Expr) -> Expr:
    """`e` with its row and column positions replaced, conditions and indices included."""
    new = {"t": t, "s": s}
    return transform(e, lambda n: new[n.which] if isinstance(n, Pos) else None)


def hull(a: Support, b: Support) -> Support:
    """The smallest band that holds both."""
    if empty(a):
        return b
    if empty(b):
        return a
    lo = None if a.lo is None or b.lo is None else min(a.lo, b.lo)
    hi = None if a.hi is None or b.hi is None else max(a.hi, b.hi)
    return Support(lo, hi)


def meet(a: Support, b: Support) -> Support:
    """The lags that lie in both."""
    lows = [x for x in (a.lo, b.lo) if x is not None]
    highs = [x for x in (a.hi, b.hi) if x is not None]
    return Support(max(lows, default=None), min(highs, default=None))


def mirrored(a: Support) -> Support:
    """The band of the transpose."""
    return Support(None if a.hi is None else -a.hi, None if a.lo is None else -a.lo)


def empty(a: Support) -> bool:
    """No lag is in the band: the mask is zero everywhere."""
    return a.lo is not None and a.hi is not None and a.lo > a.hi


def band(e: Expr) -> Support:
    """The lags where `e` can be nonzero."""
    match e:
        case Num(0):
            return EMPTY
        case Call("where", (cond, a, b)):
            return hull(meet(_true(cond), band(a)), meet(_false(cond), band(b)))
        case Call("mul", (a, b)):
            return meet(band(a), band(b))
        case Call("chain", (a, b)):
            return meet(band(a), band(b))
        case Call("add" | "sub", (a, b)):
            return hull(band(a), band(b))
        case Call("neg", (a,)) | Call("div", (a, _)):
            return band(a)
        case Call("ge" | "gt" | "le" | "lt" | "eq", _):
            return _true(e)
        case _:
            return FULL


def reads(e: Expr, where: Support = FULL) -> Iterator[tuple[At, Support]]:
    """Each `At` of an entry with the lags at which the conditions around it let it be read."""
    match e:
        case At():
            yield e, where
        case Call("where", (cond, a, b)):
            yield from reads(cond, where)
            yield from reads(a, meet(where, _true(cond)))
            yield from reads(b, meet(where, _false(cond)))
        case _:
            for c in children(e):
                yield from reads(c, where)


def inside(e: Expr, where: Support) -> Expr:
    """`e` on the lags of `where` alone: conditions that all of them answer alike are decided."""

    def decided(n: Expr) -> Expr | None:
        if isinstance(n, At | Between):
            return n
        if isinstance(n, Call) and n.fn == "where":
            cond, a, b = n.args
            if empty(meet(where, _false(cond))):
                return inside(a, where)
            if empty(meet(where, _true(cond))):
                return inside(b, where)
        if isinstance(n, Call) and n.fn in _LIMITS:
            if empty(meet(where, _false(n))):
                return Num(1)
            if empty(meet(where, _true(n))):
                return Num(0)
        return None

    return transform(e, decided)


def never_below(f: Form, where: Support) -> bool:
    """Whether a form of t − s is 0 or more on all lags of `where`; False where that is unknown."""
    return f.t == -f.s and empty(meet(where, _limit("lt", f)))


def highest(f: Form, where: Support, T: int) -> int:
    """The largest value of a form of t − s on the lags of `where`, positions below T."""
    lo = -T + 1 if where.lo is None else max(where.lo, -T + 1)
    hi = T - 1 if where.hi is None else min(where.hi, T - 1)
    return max(f.t * lo, f.t * hi) + f.const + sum(c * T for _, c in f.sizes)


_OPPOSITE = {"ge": "lt", "gt": "le", "le": "gt", "lt": "ge"}
_LIMITS: dict[str, Callable[[int], Support]] = {
    "ge": lambda c: Support(c, None),
    "gt": lambda c: Support(c + 1, None),
    "le": lambda c: Support(None, c),
    "lt": lambda c: Support(None, c - 1),
    "eq": lambda c: Support(c, c),
}
_MIRROR = {"ge": "le", "gt": "lt", "le": "ge", "lt": "gt", "eq": "eq"}


def _true(cond: Expr) -> Support:
    """The lags at which `cond` can hold."""
    match cond:
        case Call("mul", (a, b)):
            return meet(_true(a), _true(b))
        case Call("maximum" | "minimum" | "add", (a, b)):
            return hull(_true(a), _true(b))
        case Call("ge" | "gt" | "le" | "lt" | "eq" as op, (a, b)):
            x, y = form(a), form(b)
            return FULL if x is None or y is None else _limit(op, x.plus(y, -1))
        case _:
            return band(cond)


def _false(cond: Expr) -> Support:
    """The lags at which `cond` can fail."""
    match cond:
        case Call(op, (a, b)) if op in _OPPOSITE:
            return _true(call(_OPPOSITE[op], a, b))
        case Call("ne", (a, b)):
            return _true(call("eq", a, b))
        case _:
            return FULL


def _limit(op: str, f: Form) -> Support:
    """The lags n = t − s at which `f op 0`, where f is a form of t − s alone."""
    if f.sizes or f.t != -f.s or abs(f.t) > 1:
        return FULL
    if f.t == 0:
        holds = {"ge": f.const >= 0, "gt": f.const > 0, "le": f.const <= 0, "lt": f.const < 0,
                 "eq": f.const == 0}  # fmt: skip
        return FULL if holds[op] else EMPTY
    if f.t == 1:  # n + const op 0
        return _LIMITS[op](-f.const)
    return _LIMITS[_MIRROR[op]](f.const)  # const − n op 0


def equal_at(e: Expr) -> frozenset[Expr]:
    """Bases that have one value at row and column wherever `e` is not zero: `At(ids, t) ==
    At(ids, s)` among its conditions."""
    return _equal(e) or frozenset()


#: Bases found equal; None where nothing is left that is not zero.
_Equal = frozenset[Expr] | None


def _equal(e: Expr) -> _Equal:
    match e:
        case Num(0):
            return None
        case Call("where", (cond, a, b)):
            holds = None if empty(_true(cond)) else _equal(cond)
            return _either(_both(holds, _equal(a)), _equal(b))
        case Call("mul" | "chain", (a, b)):
            return _both(_equal(a), _equal(b))
        case Call("add" | "sub" | "maximum" | "minimum", (a, b)):
            return _either(_equal(a), _equal(b))
        case Call("neg", (a,)) | Call("div", (a, _)):
            return _equal(a)
        case Call("eq", (At(a, (Pos(x),)), At(b, (Pos(y),)))) if a == b and {x, y} == {"t", "s"}:
            return frozenset((a,))
        case _:
            return frozenset()


def _both(a: _Equal, b: _Equal) -> _Equal:
    return None if a is None or b is None else a | b


def _either(a: _Equal, b: _Equal) -> _Equal:
    if a is None or b is None:
        return b if a is None else a
    return a & b
