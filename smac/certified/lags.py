"""The lag function of a mask, as numbers: h[n] = L[s + n, s], where that depends on n alone.

Whether it does is read off the entry; *unknown is an answer*: what is not seen to be a function of
t − s is refused, never sampled and hoped for.

Non-goals: fits (fit.py), masks above the diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from smac.expr import At, Call, Expr, Index, Name, Num, Pos, Size, call, names, walk
from smac.masks.band import form
from smac.masks.base import Mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def why_not(mask: Mask) -> str | None:
    """What keeps `mask` from being a function of t − s ≥ 0, or None."""
    if not mask.support().lower:
        return "it is nonzero above the diagonal; multiply it by causal() inside approx(…)"
    entry = mask.entry()
    if any(isinstance(e, Size | Index) for e in walk(entry)):
        return "it reads sizes; write numbers, since the fit also serves shorter sequences"
    if not _of_lag(entry):
        return ("it is not seen to depend on t - s alone; keep what does not outside, as in "
                "approx(A) * B")  # fmt: skip
    return None


def _of_lag(e: Expr) -> bool:
    """Whether the value of `e` is the same for equal t − s."""
    linear = form(e)
    if linear is not None:
        return linear.t == -linear.s
    match e:
        case Num() | Name():
            return True
        case At(_, index):
            return all(_of_lag(i) for i in index)
        case Call("lt" | "le" | "gt" | "ge" | "eq" | "ne", (a, b)) if form(call("sub", a, b)):
            return _of_lag(call("sub", a, b))
        case Call(_, args):
            return all(_of_lag(a) for a in args)
        case _:
            return False


def reads(mask: Mask) -> tuple[str, ...]:
    """The inputs that the mask's values depend on, sorted."""
    return tuple(sorted(names(mask.entry())))


def values(entry: Expr, count: int, tensors: Mapping[str, Array] | None = None) -> Array:
    """h[0 … count − 1] in float64, [..., count]; `tensors` by name, their last axis lags or 1.

    Raises ValueError for what is no function of the lag, and for values that are not finite.
    """
    import numpy

    with numpy.errstate(all="ignore"):
        found = _value(entry, numpy.arange(count, dtype=numpy.float64), tensors or {})
    found = numpy.asarray(found, dtype=numpy.float64)
    found = numpy.broadcast_to(found, (*found.shape[:-1], count)) if found.ndim else (
        numpy.full(count, float(found)))  # fmt: skip
    if not numpy.isfinite(found).all():
        raise ValueError(f"it is {found[~numpy.isfinite(found)][0]} at some lag below {count}")
    return found


def _value(e: Expr, n: Array, tensors: Mapping[str, Array]) -> Any:
    """`e` at t = n, s = 0. A `where` takes a side at each lag; the other may be anything."""
    match e:
        case Num(value):
            return float(value)
        case Pos(which):
            return n if which == "t" else 0.0 * n
        case Name(id):
            return tensors[id]
        case At(base, (index,)):
            return _read(_value(base, n, tensors), _value(index, n, tensors))
        case Call(fn, args) if fn in _functions():
            return _functions()[fn](*(_value(a, n, tensors) for a in args))
        case _:
            raise ValueError(f"'{type(e).__name__}' has no value at a lag")


def _read(base: Any, index: Any) -> Any:
    import numpy

    at = numpy.asarray(index).astype(int)
    return base if numpy.ndim(base) == 0 else base[..., at.clip(0, base.shape[-1] - 1)]


_TABLE: dict[str, Any] = {}


def _functions() -> dict[str, Any]:
    """The scalar language on numpy arrays; made once, when numpy is first needed."""
    if _TABLE:
        return _TABLE
    import numpy as np

    def sigmoid(x: Any) -> Any:
        return 0.5 * (1 + np.tanh(0.5 * x))

    erf = np.vectorize(math.erf, otypes=[float])
    _TABLE.update({
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide,
        "pow": np.power, "neg": np.negative, "lt": np.less, "le": np.less_equal,
        "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
        "where": lambda c, a, b: np.where(np.asarray(c) != 0, a, b),
        "minimum": np.minimum, "maximum": np.maximum, "clamp": np.clip, "abs": np.abs,
        "mod": np.mod, "floordiv": np.floor_divide, "exp": np.exp, "expm1": np.expm1,
        "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos,
        "tanh": np.tanh, "sigmoid": sigmoid, "silu": lambda x: x * sigmoid(x),
        "softplus": lambda x: np.logaddexp(x, 0.0), "logsigmoid": lambda x: -np.logaddexp(-x, 0.0),
        "relu": lambda x: np.maximum(x, 0.0), "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
        "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
        "bit_length": lambda x: np.ceil(np.log2(np.abs(x) + 1)),
        "xor": lambda a, b: np.bitwise_xor(np.asarray(a, int), np.asarray(b, int)).astype(float),
    })  # fmt: skip
    return _TABLE
