"""Float64 evaluation of mask expressions on pairs of positions, for testing laws of masks.

Written for trust, not speed: a `where` evaluates each side only at the positions that take it, and
an `At` out of range is an error, so a mask that relies on values it must not read is found out.
Differentiable: torch's autograd goes through it, which is the reference for the adjoint law.

Non-goals: batch and head axes (laws hold for each alone), speed, low precision.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from smac.expr import At, Between, Call, Expr, Given, Index, Name, Num, Pos, Size

#: Log decays at or below this cut: they count as −inf, with gradient 0.
RESET = -256.0


@dataclass(frozen=True)
class Positions:
    """M pairs (t, s) in a sequence of length T, and the tensors that names stand for.

    `values` are float64 (ids: int64) without batch axes: [] for scalars, [T] along the sequence,
    [W] along lags, [T, S] for a matrix.
    """

    T: int
    values: Mapping[str, Tensor]
    t: Tensor
    s: Tensor
    pairs: bool = True  # False: no positions at all, tensors go whole through pointwise functions
    bases: Mapping[Expr, Tensor] = field(default_factory=dict)  # instead of what these evaluate to

    def at(self, chosen: Tensor) -> Positions:
        """The pairs where `chosen` (bool, [M]) holds."""
        return replace(self, t=self.t[chosen], s=self.s[chosen])

    def base(self, e: Expr) -> Tensor:
        """The tensor that an `At` or a `Between` reads."""
        return self.bases[e] if e in self.bases else pointwise(e, self.T, self.values)


def grid(T: int, values: Mapping[str, Tensor]) -> Positions:
    """All T × T pairs, row by row."""
    n = torch.arange(T)
    return Positions(T, values, n.repeat_interleave(T), n.repeat(T))


def matrix(
    entry: Expr, T: int, values: Mapping[str, Tensor], bases: Mapping[Expr, Tensor] | None = None
) -> Tensor:
    """L [T, T] from its entry; `bases` replaces what parameter expressions evaluate to."""
    at = replace(grid(T, values), bases=bases or {})
    return _spread(evaluate(entry, at), at).double().reshape(T, T)


def pointwise(e: Expr, T: int, values: Mapping[str, Tensor]) -> Tensor:
    """An expression without positions: [], [T], [W] or [T, S], as its inputs have it."""
    none = torch.arange(0)
    return evaluate(e, Positions(T, values, none, none, False))


def evaluate(e: Expr, p: Positions) -> Tensor:
    """`e` at each pair: [M], or [] where it depends on no position.

    Raises IndexError for an `At` out of range and TypeError for a node that has no value here.
    """
    match e:
        case Num(value):
            return torch.tensor(
                value, dtype=torch.int64 if isinstance(value, int) else torch.double
            )
        case Name(name):
            return p.bases[e] if e in p.bases else p.values[name]
        case Size("T" | "S"):
            return torch.tensor(p.T)
        case Index("T" | "W"):
            return torch.arange(p.T)
        case Pos(which):
            return p.t if which == "t" else p.s
        case At(base, index):
            return _read(p.base(base), [evaluate(i, p) for i in index], p)
        case Between(base, low, high):
            return _sum_between(p.base(base), evaluate(low, p), evaluate(high, p), p.T)
        case Call("where", (cond, a, b)) if p.pairs:
            return _where(_spread(evaluate(cond, p) != 0, p), a, b, p)
        case Call(fn, args):
            return _FUNCTIONS[fn](*(evaluate(a, p) for a in args))
        case Given() | Index() | Size():
            raise TypeError(f"{e} has no value at a pair of positions")


def _spread(x: Tensor, p: Positions) -> Tensor:
    """x as [M]."""
    return x.expand(p.t.shape[0]) if x.ndim == 0 else x


def _where(taken: Tensor, a: Expr, b: Expr, p: Positions) -> Tensor:
    """Each side at the pairs that take it, and nowhere else."""
    yes, no = p.at(taken), p.at(~taken)
    out = torch.zeros(p.t.shape[0], dtype=torch.double)
    out = out.masked_scatter(taken, _spread(evaluate(a, yes), yes).double())
    return out.masked_scatter(~taken, _spread(evaluate(b, no), no).double())


def _read(base: Tensor, index: list[Tensor], p: Positions) -> Tensor:
    """base[index]; a base without the axis is constant along it."""
    if base.ndim == 0:
        return base
    for i, length in zip(index, base.shape, strict=True):
        if i.numel() and (int(i.min()) < 0 or int(i.max()) >= length):
            raise IndexError(f"reads {int(i.min())} … {int(i.max())} of an axis of {length}")
    return base[tuple(_spread(i, p) for i in index)]


def covers(low: Tensor, high: Tensor, T: int) -> Tensor:
    """[M, T]: whether low < k ≤ high."""
    k = torch.arange(T)
    return (k > low[:, None]) & (k <= high[:, None])


def _sum_between(base: Tensor, low: Tensor, high: Tensor, T: int) -> Tensor:
    """Σ base[k] over low < k ≤ high, −inf where the range holds a reset; [M]."""
    base = base.expand(T)
    inside, reset = covers(low, high, T), base <= RESET
    total = (torch.where(reset, 0.0, base) * inside).sum(-1)
    return torch.where((inside & reset).any(-1), float("-inf"), total)


def starts(ids: Tensor) -> Tensor:
    """1 where a run of equal ids starts."""
    return torch.cat([torch.ones_like(ids[:1]), (ids[1:] != ids[:-1]).to(ids.dtype)])


def _moved(fn: str) -> Callable[[Tensor], Tensor]:
    """x along T, its first axis, at other tokens, ends repeated; constants stay."""

    def move(x: Tensor) -> Tensor:
        if x.ndim == 0 or x.shape[0] == 0:
            return x
        if fn == "flip":
            return x.flip(0)
        return torch.cat([x[1:], x[-1:]] if fn == "ahead" else [x[:1], x[:-1]])

    return move


def _chain(g: Tensor, d: Tensor) -> Tensor:
    """g · d with 0 · inf = 0."""
    return torch.where((g == 0) | (d == 0), 0.0, g * d)


def _bit_length(x: Tensor) -> Tensor:
    return torch.tensor([int(v).bit_length() for v in x.flatten()]).reshape(x.shape)


def _truth(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A comparison as 0 or 1, which can be subtracted."""
    return lambda a, b: fn(a, b).to(torch.int64)


def _real(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`fn` on float64, whatever comes in."""
    return lambda *args: fn(*(a.double() for a in args))


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "neg": operator.neg,
    "lt": _truth(operator.lt), "le": _truth(operator.le), "gt": _truth(operator.gt),
    "ge": _truth(operator.ge), "eq": _truth(operator.eq), "ne": _truth(operator.ne),
    "div": _real(operator.truediv), "pow": _real(torch.pow),
    "mod": torch.remainder, "floordiv": operator.floordiv, "xor": operator.xor,
    "bit_length": _bit_length, "starts": starts, "runs": lambda ids: starts(ids).cumsum(0),
    "flip": _moved("flip"), "ahead": _moved("ahead"), "behind": _moved("behind"),
    "where": lambda c, a, b: torch.where(c != 0, a, b),
    "minimum": torch.minimum, "maximum": torch.maximum, "abs": torch.abs, "sign": torch.sign,
    "clamp": lambda x, lo, hi: torch.minimum(torch.maximum(x, lo), hi), "chain": _chain,
    "exp": _real(torch.exp), "expm1": _real(torch.expm1), "log": _real(torch.log),
    "log1p": _real(torch.log1p), "sqrt": _real(torch.sqrt), "sin": _real(torch.sin),
    "cos": _real(torch.cos), "tanh": _real(torch.tanh), "sigmoid": _real(torch.sigmoid),
    "logsigmoid": _real(F.logsigmoid), "silu": _real(F.silu), "relu": _real(torch.relu),
    "elu": _real(F.elu), "gelu": _real(F.gelu), "erf": _real(torch.erf),
    "softplus": _real(lambda x: torch.logaddexp(x, torch.zeros_like(x))),
}  # fmt: skip
