"""Every mask of the language as a dense matrix: L[t,s] by its definition, T × S, differentiable.

The definitions are written out a second time, away from `smac.masks`, so that the two can disagree.

Non-goals: no structure is used, no generators (`states.py`), no memory is saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from smac.errors import LaunchError, SmacError
from smac.expr import Expr
from smac.reference.values import RESET, Scope, Value, add, evaluate, mul, pointwise
from smac.terms import MaskTerm

Arg = Expr | MaskTerm | str | bool | int | float


def mask_matrix(term: MaskTerm, scope: Scope) -> Value:
    """L over the axes T and S, and those that its parameters carry (batch, H, N or P)."""
    if term.fn not in _RULES:
        raise SmacError(f"the oracle does not know the mask '{term.fn}'; teach it with smac."
                        f"reference.define_mask('{term.fn}', lambda t, s, *parameters: …), or "
                        "compare with a matrix of your own")  # fmt: skip
    return _RULES[term.fn](scope, *term.args)


def scalar(arg: Arg, scope: Scope) -> Value:
    """A mask's scalar argument: an expression or a plain number."""
    if isinstance(arg, MaskTerm | str):
        raise ValueError(f"expected a scalar argument, found {arg!r}")
    return scope.scalar(arg) if isinstance(arg, int | float) else evaluate(arg, scope)


def define_mask(name: str, entry: Callable[..., Tensor]) -> None:
    """Teach the oracle a mask registered outside this package, by its definition.

    `entry(t, s, *parameters)` → L[t,s], elementwise: positions are integers and parameters floats,
    in shapes that broadcast. Raises ValueError for a name that the oracle knows.
    """
    if name in _RULES:
        raise ValueError(f"the oracle already has a mask {name!r}")

    def rule(scope: Scope, *args: Arg) -> Value:
        at = scope.index("T").data
        made = pointwise(entry, Value(("T",), at), Value(("S",), at),
                         *(scalar(a, scope) for a in args))  # fmt: skip
        return Value(made.axes, made.data.to(scope.dtype))

    _RULES[name] = rule


def _mask(arg: Arg, scope: Scope) -> Value:
    if not isinstance(arg, MaskTerm):
        raise ValueError(f"expected a mask, found {arg!r}")
    return mask_matrix(arg, scope)


def _lags(scope: Scope) -> Tensor:
    """t − s, [T, S]."""
    t = torch.arange(scope.sizes["T"], device=scope.device)
    return t[:, None] - t[None, :]


def _where(condition: Tensor, scope: Scope) -> Value:
    return Value(("T", "S"), condition.to(scope.dtype))


def _causal(scope: Scope) -> Value:
    return _where(_lags(scope) >= 0, scope)


def _decay(scope: Scope, gamma: Arg) -> Value:
    """γ**n for n = t − s ≥ 0; its slope at γ = 0 is that of the power, not of the logarithm.

    NaN for γ < 0, which a decay does not have.
    """
    lags = _lags(scope)
    base = scalar(gamma, scope)
    n = Value(("T", "S"), lags.clamp(min=0).to(scope.dtype))

    def raised(g: Tensor, n: Tensor) -> Tensor:
        return torch.where(g < 0, torch.full_like(g, math.nan), torch.pow(g, n))

    power = pointwise(raised, Value(base.axes, base.data.to(scope.dtype)), n)
    return mul(power, _where(lags >= 0, scope))


def _semiseparable(scope: Scope, log_decay: Arg) -> Value:
    """exp Σ_{k=s+1..t} g_k, summed entry by entry (no differences of one long sum)."""
    g = scalar(log_decay, scope)
    rest = tuple(a for a in g.axes if a != "T")
    data = g.to((*rest, "T")).expand(*(g.to((*rest, "T")).shape[:-1]), scope.sizes["T"])
    reset = data <= RESET
    finite = torch.where(reset, torch.zeros_like(data), data)
    below = _lags(scope) > 0  # row k, column s: k > s
    zero = torch.zeros((), dtype=data.dtype, device=data.device)
    total = torch.where(below, finite.unsqueeze(-1), zero).cumsum(-2)
    cuts = (below & reset.unsqueeze(-1)).cumsum(-2)
    alive = (_lags(scope) >= 0) & (cuts == 0)
    entry = torch.where(alive, torch.where(alive, total, zero).exp(), zero)
    return Value((*rest, "T", "S"), entry)


def _cumulative(scope: Scope, g: Arg) -> Value:
    """exp(g[t] − g[s]), the difference set to 0 above the diagonal first: exp would overflow."""
    value = scalar(g, scope)
    rest = tuple(a for a in value.axes if a != "T")
    data = value.to((*rest, "T"))
    below, zero = _lags(scope) >= 0, torch.zeros((), dtype=data.dtype, device=data.device)
    rise = torch.where(below, data.unsqueeze(-1) - data.unsqueeze(-2), zero)
    return Value((*rest, "T", "S"), torch.where(below, rise.exp(), zero))


def _toeplitz(scope: Scope, h: Arg, bidirectional: Arg = False) -> Value:
    lags, T = _lags(scope), scope.sizes["T"]
    value = scalar(h, scope)
    rest = tuple(a for a in value.axes if a != "W")
    data = value.to((*rest, "W"))
    index = lags + (T - 1) if bidirectional else lags.clamp(min=0)
    matrix = Value((*rest, "T", "S"), data[..., index])
    return matrix if bidirectional else mul(matrix, _causal(scope))


def _window(scope: Scope, w: Arg) -> Value:
    lags = Value(("T", "S"), _lags(scope))
    return pointwise(lambda n, w: ((n >= 0) & (n < w)).to(scope.dtype), lags, scalar(w, scope))


def _circulant(scope: Scope, h: Arg) -> Value:
    value = scalar(h, scope)
    rest = tuple(a for a in value.axes if a != "W")
    data = value.to((*rest, "W"))
    return Value((*rest, "T", "S"), data[..., _lags(scope) % max(scope.sizes["T"], 1)])


def _differ(scope: Scope) -> Tensor:
    """bit_length(t xor s), [T, S]: the level at which two tokens meet."""
    t = scope.index("T").data.long()
    apart = t[:, None] ^ t[None, :]
    return sum((apart >> k > 0).long() for k in range(41))  # type: ignore[return-value]


def _level(scope: Scope, level: Arg) -> Value:
    hit = _differ(scope) == int(scalar(level, scope).data)
    return _where(hit & (_lags(scope) >= 0), scope)


def _fenwick(scope: Scope, l: Arg) -> Value:  # noqa: E741 (the paper's letter)
    """l[t, level of t and s]; what has no levels is the same at all of them."""
    value = scalar(l, scope)
    along = next((a for a in value.axes if a in scope.levels), None)
    if along is None:
        return mul(value, _causal(scope))
    rest = tuple(a for a in value.axes if a not in ("T", along))
    at = _differ(scope)
    data = value.to((*rest, "T", along))
    data = data.expand(*data.shape[:-2], len(at), -1)
    end = scope.offset + len(at)
    due = max(end - 1, 0).bit_length() + 1  # an initial state has all tokens before
    if data.shape[-1] < due:
        raise LaunchError(f"fenwick(l): found {along} = {data.shape[-1]} at {end} tokens; "
                          f"expected at least {due} levels")  # fmt: skip
    rows = torch.arange(len(at), device=scope.device)[:, None]
    return mul(Value((*rest, "T", "S"), data[..., rows, at]), _causal(scope))


def _kron(scope: Scope, a: Arg, b: Arg, width: Arg) -> Value:
    """A over rows of the plane and B within them, each a small matrix of its own."""
    T, w = scope.sizes["T"], int(scalar(width, scope).data)
    rows, columns = (_mask(m, replace(scope, sizes={**scope.sizes, "T": n}))
                     for m, n in ((a, -(-T // w)), (b, w)))  # fmt: skip
    t = torch.arange(T, device=scope.device)

    def spread(x: Value, at: Tensor) -> Value:
        rest = tuple(axis for axis in x.axes if axis not in ("T", "S"))
        return Value((*rest, "T", "S"), x.to((*rest, "T", "S"))[..., at[:, None], at[None, :]])

    return mul(spread(rows, t // w), spread(columns, t % w))


def _wave(scope: Scope, omega: Arg, phase: Arg) -> Value:
    lags = Value(("T", "S"), _lags(scope).to(scope.dtype))
    return pointwise(lambda n, w, f: (w * n + f).cos(), lags, scalar(omega, scope),
                     scalar(phase, scope))  # fmt: skip


def _prefix(scope: Scope, p: Arg) -> Value:
    lags = Value(("T", "S"), _lags(scope))
    s = scope.index("T").rename("T", "S")
    return pointwise(lambda n, s, p: ((n >= 0) | (s < p)).to(scope.dtype), lags, s,
                     scalar(p, scope))  # fmt: skip


def _document(scope: Scope, ids: Arg) -> Value:
    """1 where t and s lie in one run of equal ids."""
    value = scalar(ids, scope)
    rest = tuple(a for a in value.axes if a != "T")
    data = value.to((*rest, "T"))
    change = torch.zeros_like(data, dtype=torch.int64)
    change[..., 1:] = (data[..., 1:] != data[..., :-1]).long()
    run = change.cumsum(-1)
    return Value((*rest, "T", "S"), (run[..., :, None] == run[..., None, :]).to(scope.dtype))


def _fourier(scope: Scope, kind: Arg) -> Value:
    t, T = torch.arange(scope.sizes["T"], device=scope.device), max(scope.sizes["T"], 1)
    angle = (2 * math.pi / T) * (t[:, None] * t[None, :] % T).to(scope.dtype)
    return Value(("T", "S"), angle.cos() if kind == "cos" else angle.sin())


def _strict(scope: Scope, mask: Arg) -> Value:
    return mul(_mask(mask, scope), _where(_lags(scope) != 0, scope))


def _transpose(scope: Scope, mask: Arg) -> Value:
    return _mask(mask, scope).rename("T", "·").rename("S", "T").rename("·", "S")


def _shift(scope: Scope, mask: Arg, along: Arg) -> Value:
    """A[t−1,s] or A[t,s+1]; 0 where that lies outside the matrix."""
    value = _mask(mask, scope)
    rest = tuple(a for a in value.axes if a not in ("T", "S"))
    data = value.to((*rest, "T", "S"))
    zero = torch.zeros_like(data)
    if along == "t":
        out = torch.cat([zero[..., :1, :], data[..., :-1, :]], -2)
    else:
        out = torch.cat([data[..., :, 1:], zero[..., :, :1]], -1)
    return Value((*rest, "T", "S"), out)


def _reverse(scope: Scope, mask: Arg) -> Value:
    value = _mask(mask, scope)
    return Value(value.axes, value.data.flip([value.axes.index(a) for a in ("T", "S")]))


def _column(value: Value) -> Value:
    return value.rename("T", "S")


_RULES: dict[str, Callable[..., Value]] = {
    "causal": _causal, "decay": _decay, "semiseparable": _semiseparable, "toeplitz": _toeplitz,
    "window": _window, "document": _document, "fourier": _fourier, "strict": _strict,
    "transpose": _transpose, "shift": _shift, "reverse": _reverse, "prefix": _prefix,
    "circulant": _circulant, "cumulative": _cumulative, "level": _level, "kron": _kron,
    "fenwick": _fenwick,
    "lag": lambda scope: Value(("T", "S"), _lags(scope).to(scope.dtype)), "wave": _wave,
    "ones": lambda scope: _where(_lags(scope) <= scope.sizes["T"], scope),
    "dense": lambda scope, m: scalar(m, scope),
    "entry": lambda scope, e: add(scalar(e, scope), _where(_lags(scope) > scope.sizes["T"], scope)),
    "approx": lambda scope, a, tol, most: _mask(a, scope),  # what is asked, not what is fitted
    "add": lambda scope, a, b: add(_mask(a, scope), _mask(b, scope)),
    "mul": lambda scope, a, b: mul(_mask(a, scope), _mask(b, scope)),
    "scale": lambda scope, c, a: mul(scalar(c, scope), _mask(a, scope)),
    "row": lambda scope, x, a: mul(scalar(x, scope), _mask(a, scope)),
    "col": lambda scope, x, a: mul(_column(scalar(x, scope)), _mask(a, scope)),
    "diagonal": lambda scope, u: mul(scalar(u, scope), _where(_lags(scope) == 0, scope)),
    "given": lambda scope, name, a, b: _mask(a if name in scope.present else b, scope),
}  # fmt: skip
