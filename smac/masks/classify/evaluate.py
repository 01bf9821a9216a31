"""Float64 values of expressions and mask terms at one pair of positions, in plain Python.

Masks are planned where no torch is, so this is a third account of what they mean, beside the
families' own entries and the oracle. A `where` takes one side, and what it does not take is not
read. Written for trust, not speed.

Non-goals: axes other than T, W and S (each head is classified alike), gradients.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from smac.expr import (
    MOVE_FUNCTIONS,
    At,
    Between,
    Call,
    Expr,
    Given,
    Index,
    Name,
    Num,
    Pos,
    Size,
    walk,
)

Tensor = float | int | list[float] | list[int] | list[list[float]]
Memo = dict[tuple[int, int, int], tuple[Expr, float]]
_RESET = -256.0


@dataclass(frozen=True)
class Point:
    """A pair of positions in a sequence of length T, or a place along T or W (`index`).

    Outside its axis an input is 0, as the oracle has it for formulas; with `strict` (for masks,
    which must not read there) that is an IndexError.
    """

    T: int
    values: Mapping[str, Tensor]
    t: int = 0
    s: int = 0
    index: Mapping[str, int] | None = None
    strict: bool = True
    #: What bases are at places along T or W, by the identity of their nodes; and the nodes, since
    #: one that nobody holds any more gives its identity to the next.
    memo: Memo = field(default_factory=dict, compare=False)

    def along(self, k: int) -> Point:
        """The place k of the sequence (or lag) axis, for pointwise bases."""
        return Point(
            self.T, self.values, index={"T": k, "W": k}, strict=self.strict, memo=self.memo
        )


def value(e: Expr, p: Point) -> float:
    """`e` at `p`. Raises ArithmeticError, ValueError or IndexError where it has no value."""
    match e:
        case Num(x):
            return x
        case Name(name):
            return _tensor(p.values[name], p)
        case Size(axis):
            return p.T if axis in ("T", "S") else 3
        case Index(axis):
            return 0 if p.index is None else p.index.get(axis, 0)
        case Pos(which):
            return p.t if which == "t" else p.s
        case At(base, index):
            return _read(base, [int(value(i, p)) for i in index], p)
        case Between(base, low, high):
            places = range(int(value(low, p)) + 1, int(value(high, p)) + 1)
            found = [_read(base, [k], p) for k in places]
            return -math.inf if any(x <= _RESET for x in found) else math.fsum(found)
        case Given(_, present, _):
            return value(present, p)
        case Call("where", (cond, a, b)):
            return value(a if value(cond, p) else b, p)
        case Call("runs", (ids,)):
            return sum(_starts(ids, k, p) for k in range(_place(p) + 1))
        case Call("starts", (ids,)):
            return _starts(ids, _place(p), p)
        case Call(fn, (moved,)) if fn in MOVE_FUNCTIONS:
            k, last = _place(p), p.T - 1
            at = {"flip": last - k, "ahead": min(k + 1, last), "behind": max(k - 1, 0)}
            return value(moved, p.along(at[fn]))
        case Call(fn, args):
            return _FUNCTIONS[fn](*(value(a, p) for a in args))
    raise ValueError(f"{e} has no value here")


def _place(p: Point) -> int:
    return 0 if p.index is None else p.index["T"]


def _starts(ids: Expr, k: int, p: Point) -> int:
    return int(k == 0 or value(ids, p.along(k)) != value(ids, p.along(k - 1)))


def _tensor(x: Tensor, p: Point) -> float:
    if not isinstance(x, list):
        return x
    found = x[_place(p)]
    if isinstance(found, list):
        raise ValueError("a matrix where a vector is due")
    return found


def _read(base: Expr, at: list[int], p: Point) -> float:
    if any(not 0 <= i < p.T for i in at) and not (len(at) == 1 and 0 <= at[0] < _length(base, p)):
        if p.strict:
            raise IndexError(f"reads place {at} of {p.T}")
        return 0.0
    if len(at) == 2:
        assert isinstance(base, Name)
        rows = p.values[base.id]
        assert isinstance(rows, list)
        row = rows[at[0]]
        assert isinstance(row, list)
        return row[at[1]]
    return placed(base, at[0], p)


def placed(e: Expr, k: int, p: Point) -> float:
    """`e`, which has no positions, at place k of its axis."""
    key = (id(e), k, p.T)
    if key not in p.memo:
        p.memo[key] = e, value(e, p.along(k))
    return p.memo[key][1]


def _length(base: Expr, p: Point) -> int:
    """The places of a base along T or W: those of what it reads."""
    found = [len(x) for n in walk(base) if isinstance(n, Name)
             and isinstance(x := p.values[n.id], list)]  # fmt: skip
    return min(found, default=p.T)


def _pow(a: float, b: float) -> float:
    return math.pow(a, b)


def _exp(x: float) -> float:
    return 0.0 if x == -math.inf else math.exp(x)


def _log(x: float) -> float:
    return -math.inf if x == 0 else math.log(x)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


_FUNCTIONS: dict[str, Callable[..., float]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
    "neg": operator.neg, "pow": _pow, "lt": operator.lt, "le": operator.le, "gt": operator.gt,
    "ge": operator.ge, "eq": operator.eq, "ne": operator.ne, "mod": operator.mod,
    "floordiv": operator.floordiv, "xor": operator.xor, "bit_length": lambda x: x.bit_length(),
    "minimum": min, "maximum": max, "clamp": lambda x, lo, hi: min(max(x, lo), hi),
    "abs": abs, "exp": _exp, "expm1": math.expm1, "log": _log, "log1p": math.log1p,
    "sqrt": math.sqrt, "sin": math.sin, "cos": math.cos, "tanh": math.tanh,
    "sigmoid": _sigmoid, "logsigmoid": lambda x: -_softplus(-x), "softplus": _softplus,
    "silu": lambda x: x * _sigmoid(x), "relu": lambda x: max(x, 0),
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
}  # fmt: skip
