"""Scalar expressions: the frozen tree that every quoted string of a spec becomes.

Non-goals: no evaluation, no tensors, no axes (axes.py infers those from a spec).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

#: Functions of the language by name, with their number of arguments.
FUNCTIONS: dict[str, int] = {
    "exp": 1, "expm1": 1, "log": 1, "log1p": 1, "sqrt": 1, "abs": 1, "sin": 1, "cos": 1,
    "tanh": 1, "sigmoid": 1, "logsigmoid": 1, "silu": 1, "relu": 1, "elu": 1, "gelu": 1,
    "softplus": 1, "minimum": 2, "maximum": 2, "clamp": 3, "where": 3,
}  # fmt: skip
#: Operators, as the `Call.fn` that they become.
OPERATORS: dict[str, int] = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "pow": 2, "neg": 1,
    "lt": 2, "le": 2, "gt": 2, "ge": 2, "eq": 2, "ne": 2,
}  # fmt: skip
#: Functions of mask entries only (integers in, integers out).
ENTRY_FUNCTIONS: dict[str, int] = {"mod": 2, "floordiv": 2, "xor": 2, "bit_length": 1}
#: Functions of integer ids along T: `starts(ids)` is 1 where ids[t] ≠ ids[t−1] (and at t = 0),
#: `runs(ids)` their running count. Not pointwise: lowering computes each once, as a buffer.
SCAN_FUNCTIONS: dict[str, int] = {"starts": 1, "runs": 1}
#: Functions of inputs along T, which lanes of moved masks read (masks/moves.py): the value at token
#: T − 1 − t, at t + 1, at t − 1, ends repeated. Not pointwise: lowering copies each input once.
MOVE_FUNCTIONS: dict[str, int] = {"flip": 1, "ahead": 1, "behind": 1}
#: Functions that derivation makes; users cannot write them.
#: `chain(g, d)` is g·d with 0·inf = 0 (`Numbers` in the design); `erf` and `sign` come from fdiff.
DERIVED_FUNCTIONS: dict[str, int] = {"chain": 2, "erf": 1, "sign": 1}


@dataclass(frozen=True, slots=True)
class Num:
    """A finite number, or ±inf where a mask's law makes one."""

    value: int | float


@dataclass(frozen=True, slots=True)
class Name:
    """An input, a let, `Y`, `Z`, or a value that lowering named."""

    id: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function or an operator of the tables above, applied."""

    fn: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Size:
    """The length of an axis."""

    axis: str


@dataclass(frozen=True, slots=True)
class Index:
    """The position along an axis, from 0."""

    axis: str


@dataclass(frozen=True, slots=True)
class Given:
    """`present` when the input was passed, else `absent`; static, decided by `specialise`."""

    name: str
    present: Expr
    absent: Expr


@dataclass(frozen=True, slots=True)
class Pos:
    """A position inside a mask entry: `which` is "t" (row) or "s" (column)."""

    which: str


@dataclass(frozen=True, slots=True)
class At:
    """Inside a mask entry: `base` (it carries T, W, or T and S) evaluated at `index`.

    `At(x, (t,))` is x at row t, `At(x, (s,))` at column s, `At(h, (t - s,))` a lag,
    `At(M, (t, s))` an entry of a dense matrix. Index expressions hold `Pos` and integers only.
    """

    base: Expr
    index: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """Inside a mask entry: Σ base[k] over k = low+1 … high; 0 when the range is empty.

    `low` and `high` are a position plus an integer: (s, t) below the diagonal, (t, s) above it.
    `base` is a log decay; −inf (or ≤ −256) inside the range makes the sum −inf.
    """

    base: Expr
    low: Expr
    high: Expr


Expr = Num | Name | Call | Size | Index | Given | Pos | At | Between

T_POS, S_POS = Pos("t"), Pos("s")
ZERO, ONE = Num(0), Num(1)


def call(fn: str, *args: Expr) -> Call:
    """`Call` without the tuple."""
    return Call(fn, args)


def children(e: Expr) -> tuple[Expr, ...]:
    """The direct sub-expressions of `e`, in order."""
    match e:
        case Call(_, args):
            return args
        case Given(_, a, b):
            return (a, b)
        case At(base, index):
            return (base, *index)
        case Between(base, low, high):
            return (base, low, high)
        case _:
            return ()


def walk(e: Expr) -> Iterator[Expr]:
    """Every node of `e`, parents first."""
    yield e
    for c in children(e):
        yield from walk(c)


def rebuild(e: Expr, parts: tuple[Expr, ...]) -> Expr:
    """`e` with its direct sub-expressions replaced by `parts`."""
    match e:
        case Call(fn, _):
            return Call(fn, parts)
        case Given(name, _, _):
            return Given(name, *parts)
        case At(_, _):
            return At(parts[0], parts[1:])
        case Between(_, _, _):
            return Between(*parts)
        case _:
            return e


def transform(e: Expr, f: Callable[[Expr], Expr | None]) -> Expr:
    """`e` rewritten top-down: where `f` answers a tree it replaces the node, else go on below."""
    new = f(e)
    if new is not None:
        return new
    kids = children(e)
    return rebuild(e, tuple(transform(c, f) for c in kids)) if kids else e


def substitute(e: Expr, env: dict[str, Expr]) -> Expr:
    """`e` with each `Name` found in `env` replaced."""
    return transform(e, lambda n: env.get(n.id) if isinstance(n, Name) else None)


def names(e: Expr) -> frozenset[str]:
    """The identifiers that `e` reads, those asked for by `Given` included."""
    return frozenset(n.id if isinstance(n, Name) else n.name for n in walk(e)
                     if isinstance(n, Name | Given))  # fmt: skip


def number(value: int | float) -> Num:
    """`Num` in canonical form: a whole number is an int up to 2⁵³, a float beyond; −0.0 is 0.

    Equal numbers so print, and digest, alike.
    """
    value = value + 0  # True → 1
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return Num(int(value))
    if isinstance(value, int) and abs(value) > 2**53:
        return Num(float(value))
    return Num(value)


def integral(e: Expr) -> bool:
    """Whether `e` is integer arithmetic on positions, sizes and whole numbers."""
    match e:
        case Num(value):
            return isinstance(value, int)
        case Pos() | Size() | Index():
            return True
        case Call(fn, args):
            return fn in _INTEGER_FNS and all(integral(a) for a in args)
        case _:
            return False


_COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
_INTEGER_FNS = _COMPARISONS | set(ENTRY_FUNCTIONS) | {
    "add", "sub", "mul", "neg", "abs", "minimum", "maximum", "clamp", "where",
}  # fmt: skip


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


#: Every function on numbers, for constant folding. ValueError/OverflowError mean "leave it".
_ON_NUMBERS: dict[str, Callable[..., float]] = {
    "exp": math.exp, "expm1": math.expm1, "log": math.log, "log1p": math.log1p,
    "sqrt": math.sqrt, "abs": abs, "sin": math.sin, "cos": math.cos, "tanh": math.tanh,
    "sigmoid": _sigmoid, "logsigmoid": lambda x: -_softplus(-x), "silu": lambda x: x * _sigmoid(x),
    "relu": lambda x: max(x, 0), "elu": lambda x: x if x > 0 else math.expm1(x),
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))), "softplus": _softplus,
    "minimum": min, "maximum": max, "clamp": lambda x, lo, hi: min(max(x, lo), hi),
    "where": lambda c, a, b: a if c else b,
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b, "pow": lambda a, b: math.pow(a, b), "neg": lambda a: -a,
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b, "eq": lambda a, b: a == b, "ne": lambda a, b: a != b,
    "mod": lambda a, b: a % b, "floordiv": lambda a, b: a // b,
    "xor": lambda a, b: a ^ b, "bit_length": lambda a: a.bit_length(),
    "erf": math.erf, "sign": lambda x: (x > 0) - (x < 0),
    "chain": lambda g, d: g * d if g else 0,
}  # fmt: skip


def fold(e: Expr) -> Expr:
    """`e` with constants computed and the identities of 0 and 1 applied (x·0 is 0 here).

    A constant that is not finite, or not a real number, stays unfolded.
    """
    kids = children(e)
    if not kids:
        return number(e.value) if isinstance(e, Num) else e
    return _fold_node(rebuild(e, tuple(fold(c) for c in kids)))


def _fold_node(e: Expr) -> Expr:
    """`fold` of a node whose children are folded."""
    match e:
        case Given(_, a, b) if a == b:
            return a
        case At(Num() as base, _):
            return base
        case Between(Num(value), low, high):
            if value == 0:
                return ZERO
            if math.isinf(value):
                return e
            steps = call("maximum", _fold_node(call("sub", high, low)), ZERO)
            return _fold_node(call("mul", Num(value), steps))
        case Call(fn, args) if all(isinstance(a, Num) for a in args):
            return _fold_numbers(e, fn, [a.value for a in args if isinstance(a, Num)])
        case Call(fn, args):
            return _fold_identity(e, fn, args)
        case _:
            return e


def _fold_numbers(e: Expr, fn: str, values: list[int | float]) -> Expr:
    if fn not in _ON_NUMBERS:
        return e
    try:
        result = _ON_NUMBERS[fn](*values)
        return number(result) if math.isfinite(result) else e
    except (ValueError, OverflowError, ZeroDivisionError, TypeError, AttributeError):
        return e


def _fold_identity(e: Expr, fn: str, args: tuple[Expr, ...]) -> Expr:
    """0/1 identities of a call with at least one argument that is no number."""
    match fn, args:
        case ("add", (a, Num(0))) | ("add", (Num(0), a)) | ("sub", (a, Num(0))):
            return a
        case ("mul", (a, Num(1))) | ("mul", (Num(1), a)) | ("div" | "pow", (a, Num(1))):
            return a
        case ("mul", (_, Num(0)) | (Num(0), _)) | ("div", (Num(0), _)):
            return ZERO
        case ("chain", (_, Num(0)) | (Num(0), _)):
            return ZERO
        case ("chain", (a, Num(1))) | ("chain", (Num(1), a)):
            return a
        case "pow", (_, Num(0)):
            return ONE
        case ("mul" | "div", (a, Num(-1))) | ("mul", (Num(-1), a)) | ("sub", (Num(0), a)):
            return _fold_node(call("neg", a))
        case "neg", (Call("neg", (a,)),):
            return a
        case "neg", (Call("sub", (a, b)),):
            return call("sub", b, a)
        case ("add", (a, Call("neg", (b,)))) | ("add", (Call("neg", (b,)), a)):
            return _fold_node(call("sub", a, b))
        case "sub", (a, Call("neg", (b,))):
            return _fold_node(call("add", a, b))
        case "where", (Num(c), a, b):
            return a if c else b
        case "where", (_, a, b) if a == b:
            return a
        case _:
            return e


def reads_position(e: Expr) -> bool:
    """Whether `e` grows with a position that it reads: an angle then wants more digits than float32
    has. Remainders do not grow; what is read *at* a position is a number like any other."""
    match e:
        case Index("T") | Pos():
            return True
        case At() | Between() | Call("mod" | "lt" | "le" | "gt" | "ge" | "eq" | "ne", _):
            return False
        case _:
            return any(reads_position(x) for x in children(e))
