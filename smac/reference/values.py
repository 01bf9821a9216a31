"""Tensors with named axes, and the spec's scalar language evaluated on them, eagerly, in torch.

The oracle's own interpretation: it shares the expression tree with the compiler and nothing else.

Non-goals: no masks (`dense.py`), no speed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from smac.expr import At, Between, Call, Expr, Given, Index, Name, Num, Pos, Size

#: A log decay at or below this (−inf included) is a reset: factor 0, gradient 0.
RESET = -256.0

_Map = Callable[[Tensor], Tensor]
_Pair = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Value:
    """A tensor whose dimensions are named; `axes[i]` names dimension i."""

    axes: tuple[str, ...]
    data: Tensor

    def to(self, axes: tuple[str, ...]) -> Tensor:
        """The data permuted to `axes`, with length 1 where this value lacks one."""
        missing = set(self.axes) - set(axes)
        if missing:
            raise ValueError(f"value over {self.axes} has {sorted(missing)} beyond {axes}")
        data = self.data.permute([self.axes.index(a) for a in axes if a in self.axes])
        for dim, axis in enumerate(axes):
            if axis not in self.axes:
                data = data.unsqueeze(dim)
        return data

    def rename(self, old: str, new: str) -> Value:
        """The same data with axis `old` called `new`."""
        return Value(tuple(new if a == old else a for a in self.axes), self.data)


def union(*values: Value) -> tuple[str, ...]:
    """The axes of all the values, in order of first appearance."""
    return tuple(dict.fromkeys(a for v in values for a in v.axes))


def pointwise(fn: Callable[..., Tensor], *values: Value) -> Value:
    """`fn` of the values' data, broadcast by axis names."""
    axes = union(*values)
    return Value(axes, fn(*(v.to(axes) for v in values)))


def add(a: Value, b: Value) -> Value:
    """a + b by axis names."""
    return pointwise(torch.add, a, b)


def mul(a: Value, b: Value) -> Value:
    """a · b by axis names."""
    return pointwise(torch.mul, a, b)


def contract(axes: tuple[str, ...], *values: Value) -> Value:
    """Einsum by axis names: the product of all values, summed over what `axes` leaves out."""
    letter = {a: i for i, a in enumerate(union(*values))}
    operands: list[object] = []
    for v in values:
        operands += [v.data, [letter[a] for a in v.axes]]
    kept = tuple(a for a in axes if a in letter)
    return Value(kept, torch.einsum(*operands, [letter[a] for a in kept]))


def _guard(cotangent: Tensor, slope: Tensor) -> Tensor:
    """cotangent · slope with 0·inf = 0: a branch that nothing reads has no gradient."""
    return torch.where(cotangent == 0, torch.zeros_like(slope), cotangent * slope)


class _Guarded(torch.autograd.Function):
    """fn(x) whose slope may be infinite: the gradient is `_guard`ed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fn: _Map, slope: _Map) -> Tensor:
        """fn(x)."""
        ctx.save_for_backward(x)
        ctx.slope = slope
        return fn(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        """g · slope(x), 0 where g is 0."""
        (x,) = ctx.saved_tensors
        return _guard(g, ctx.slope(x)), None, None


def _guarded(fn: _Map, slope: _Map) -> _Map:
    def apply(x: Tensor) -> Tensor:
        return cast(Tensor, _Guarded.apply(x, fn, slope))

    return apply


class _GuardedPair(torch.autograd.Function):
    """fn(x, y) of two slopes that may be infinite or NaN where nothing reads the result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, fn: _Pair, slopes: tuple[_Pair, _Pair]) -> Tensor:
        """fn(x, y), elementwise on equal shapes."""
        ctx.save_for_backward(x, y)
        ctx.slopes = slopes
        return fn(x, y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """g · slope by each argument, 0 where g is 0."""
        x, y = ctx.saved_tensors
        pairs = zip(ctx.slopes, ctx.needs_input_grad, strict=False)
        found = [_guard(g, slope(x, y)) if needed else None for slope, needed in pairs]
        return (*found, None, None)


def _pair(fn: _Pair, by_x: _Pair, by_y: _Pair) -> _Pair:
    def apply(x: Tensor, y: Tensor) -> Tensor:
        return cast(Tensor, _GuardedPair.apply(*torch.broadcast_tensors(x, y), fn, (by_x, by_y)))

    return apply


def _product(x: Tensor, y: Tensor) -> Tensor:
    """x · y; a log decay of −inf is multiplied too, and nothing reads its slope."""
    if not x.is_floating_point() or bool(x.isfinite().all() & y.isfinite().all()):
        return torch.mul(x, y)
    return _infinite_product(x, y)


_infinite_product = _pair(torch.mul, lambda x, y: y, lambda x, y: x)


def _power_by_base(x: Tensor, y: Tensor) -> Tensor:
    """y · x^(y − 1), 0 at y = 0 whatever x is: x⁰ is 1 at 0 too."""
    return torch.where(y == 0, torch.zeros_like(x), y * x.pow(y - 1))


def _power_by_exponent(x: Tensor, y: Tensor) -> Tensor:
    """x^y · log x, 0 at x = 0 for y ≥ 0."""
    zero = (x == 0) & (y >= 0)
    return torch.where(zero, torch.zeros_like(x), x.pow(y) * x.log())


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def _elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.expm1(x.clamp(max=0)))


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def _clamp(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, low), high)


def _compare(fn: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: fn(a, b).to(torch.promote_types(a.dtype, torch.int32))


def _bit_length(x: Tensor) -> Tensor:
    x = x.long()
    return sum(((x >> k) > 0).long() for k in range(63))  # type: ignore[return-value]


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "exp": torch.exp, "expm1": torch.expm1, "log": _guarded(torch.log, lambda x: 1 / x),
    "log1p": _guarded(torch.log1p, lambda x: 1 / (1 + x)),
    "sqrt": _guarded(torch.sqrt, lambda x: 0.5 / x.sqrt()), "abs": torch.abs,
    "sin": torch.sin, "cos": torch.cos,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "logsigmoid": lambda x: -_softplus(-x),
    "silu": lambda x: x * torch.sigmoid(x), "relu": torch.relu, "elu": _elu, "gelu": _gelu,
    "softplus": _softplus, "minimum": torch.minimum, "maximum": torch.maximum, "clamp": _clamp,
    "where": lambda c, a, b: torch.where(c != 0, a, b),
    "add": torch.add, "sub": torch.sub, "neg": torch.neg,
    "mul": _product,
    "div": _pair(torch.div, lambda x, y: 1 / y, lambda x, y: -x / (y * y)),
    "pow": _pair(torch.pow, _power_by_base, _power_by_exponent),
    "lt": _compare(torch.lt), "le": _compare(torch.le),
    "gt": _compare(torch.gt), "ge": _compare(torch.ge), "eq": _compare(torch.eq),
    "ne": _compare(torch.ne), "mod": torch.remainder,
    "floordiv": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "xor": lambda a, b: a.long() ^ b.long(), "bit_length": _bit_length,
}  # fmt: skip
#: Functions whose arguments stay integers when all of them are (positions in entry formulas).
_INTEGRAL = frozenset(("add", "sub", "mul", "neg", "mod", "floordiv", "xor", "bit_length",
                       "lt", "le", "gt", "ge", "eq", "ne", "abs", "minimum", "maximum", "clamp",
                       "where"))  # fmt: skip


@dataclass(frozen=True)
class Scope:
    """What names mean: `tensors` by input or let name, `sizes` by axis, the float type in use.

    `present` holds the inputs that were passed; `groups` are the axes that were expanded to H;
    `levels` are axes that count the levels of T; `offset` is added to `index(T)` (tokens before the
    first, when a state is carried on).
    """

    tensors: Mapping[str, Value]
    sizes: Mapping[str, int]
    present: frozenset[str]
    groups: Mapping[str, int]
    dtype: torch.dtype
    device: torch.device
    offset: int = 0
    levels: frozenset[str] = frozenset()

    def scalar(self, x: float) -> Value:
        """A number without axes; integers stay integers."""
        dtype = torch.int64 if isinstance(x, int) and abs(x) < 2**62 else self.dtype
        return Value((), torch.tensor(x, dtype=dtype, device=self.device))

    def index(self, axis: str) -> Value:
        """Positions 0 … length − 1 along `axis` (a group's positions run along H)."""
        if axis in self.groups:
            heads = torch.arange(self.sizes["H"], device=self.device)
            return Value(("H",), heads // (self.sizes["H"] // self.sizes[axis]))
        start = self.offset if axis == "T" else 0
        length = self.sizes.get(axis, self.sizes["T"])  # W, where no input has it, is T
        return Value((axis,), torch.arange(start, start + length, device=self.device))


def evaluate(e: Expr, scope: Scope) -> Value:
    """The value of `e`. Entry formulas also meet `Pos` (axes T and S), `At` and `Between`."""
    match e:
        case Num(x):
            return scope.scalar(x)
        case Name(name):
            return scope.tensors[name]
        case Size(axis):
            return scope.scalar(scope.sizes[axis])
        case Index(axis):
            return scope.index(axis)
        case Given(name, yes, no):
            return evaluate(yes if name in scope.present else no, scope)
        case Pos(which):
            axis = "T" if which == "t" else "S"
            return Value((axis,), torch.arange(scope.sizes["T"], device=scope.device))
        case Call("starts" | "runs" as fn, (ids,)):
            return _scan(fn, evaluate(ids, scope))
        case Call(fn, args):
            return _apply(fn, [evaluate(a, scope) for a in args], scope)
        case At(base, index):
            return _gather(evaluate(base, scope), [evaluate(i, scope) for i in index], scope)
        case Between(base, low, high):
            return _between(*(evaluate(x, scope) for x in (base, low, high)))


def _apply(fn: str, values: list[Value], scope: Scope) -> Value:
    if fn not in _FUNCTIONS:
        raise ValueError(f"the oracle has no function {fn!r}")
    integral = fn in _INTEGRAL and not any(v.data.is_floating_point() for v in values)
    if not integral:
        values = [Value(v.axes, v.data.to(scope.dtype)) for v in values]
    result = pointwise(_FUNCTIONS[fn], *values)
    return result if integral else Value(result.axes, result.data.to(scope.dtype))


def _scan(fn: str, ids: Value) -> Value:
    """1 where a run of equal ids starts (and at 0), or the running count of those."""
    rest = tuple(a for a in ids.axes if a != "T")
    data = ids.to((*rest, "T"))
    start = torch.ones_like(data, dtype=torch.int64)
    start[..., 1:] = (data[..., 1:] != data[..., :-1]).long()
    return Value((*rest, "T"), start if fn == "starts" else start.cumsum(-1))


def _gather(base: Value, index: list[Value], scope: Scope) -> Value:
    """base[index] along T (or W, or T and S); 0 where an index falls outside."""
    along = ("T", "S") if len(index) == 2 else ("W",) if "W" in base.axes else ("T",)
    rest = tuple(a for a in base.axes if a not in along)
    positions = union(*index)
    data, picks = base.to((*along, *rest)), [v.to(positions).long() for v in index]
    inside = torch.ones((), dtype=torch.bool, device=scope.device)
    for n, pick in enumerate(picks):
        inside = inside & (pick >= 0) & (pick < data.shape[n])
    safe = [p.clamp(0, max(data.shape[n] - 1, 0)) for n, p in enumerate(picks)]
    if 0 in data.shape[: len(picks)]:
        shape = torch.broadcast_tensors(*picks)[0].shape
        return Value((*positions, *rest), data.new_zeros((*shape, *data.shape[len(picks) :])))
    out = data[tuple(safe)]
    mask = inside.reshape(inside.shape + (1,) * len(rest)) if inside.dim() else inside
    return Value((*positions, *rest), torch.where(mask, out, torch.zeros_like(out)))


def _between(base: Value, low: Value, high: Value) -> Value:
    """Σ base[k] over low < k ≤ high along T; −inf when a reset lies in the range."""
    ends = union(low, high)
    rest = tuple(a for a in base.axes if a != "T")
    data = base.to((*rest, "T"))
    data = data if data.is_floating_point() else data.double()
    k = torch.arange(data.shape[-1], device=data.device)
    inside = (k > low.to(ends).unsqueeze(-1)) & (k <= high.to(ends).unsqueeze(-1))
    reset = data <= RESET
    finite = torch.where(reset, torch.zeros_like(data), data)
    flat = inside.reshape(inside.shape[:-1].numel(), inside.shape[-1]).to(data.dtype)
    total = (finite @ flat.T).reshape(*data.shape[:-1], *inside.shape[:-1])
    cut = (reset.to(data.dtype) @ flat.T).reshape(total.shape) > 0
    minus_inf = torch.full_like(total, -math.inf)
    return Value((*rest, *ends), torch.where(cut, minus_inf, total))
