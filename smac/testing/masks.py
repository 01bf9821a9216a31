"""The laws of a mask against each other, in float64: for whoever writes a mask family.

    errors = law_errors(mask, T=7, values={"a": torch.tensor([...]).double()})
    assert max(errors.values()) < 1e-10

`entry` is the truth; `support`, `generators`, `symbol`, `dft`, `transpose` and `adjoint` are held
to it.

Non-goals: which laws a mask ought to have, compiled ops (`smac.check` tests those).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from smac.expr import Expr, names
from smac.masks.base import WRAPS, Cotangent, Lane, Mask
from smac.show import show
from smac.testing.positions import RESET, Positions, covers, evaluate, grid, matrix, pointwise


def law_errors(mask: Mask, T: int, values: Mapping[str, Tensor]) -> dict[str, float]:
    """The worst relative error of each law that the mask states, by name of the law.

    `values` as `Positions` has them, float64 for all but ids. A law that is not stated is left out.
    """
    dense = matrix(mask.entry(), T, values)
    found = {"support": distance(dense * _band(mask, T), dense)}
    found["transpose"] = distance(matrix(mask.transpose().entry(), T, values), dense.T)
    generators, lanes, symbol = mask.generators(), mask.lanes(), mask.symbol()
    if generators is not None:
        above = _from_lanes(generators.above, T, values).tril(-1).T
        found["generators"] = distance(_from_lanes(generators.lanes, T, values) + above, dense)
        late = all(x.late for x in generators.above)
        found["above"] = distance(above, dense.triu(1)) if late else float("inf")
    if lanes is not None:
        found["lanes"] = distance(_from_lanes(lanes, T, values), dense.tril())
    if symbol is not None:
        found["symbol"] = distance(_from_symbol(*symbol, T, values), dense)
    if (part := mask.dft()) is not None:
        whole = torch.fft.fft(torch.eye(T, dtype=torch.double)) if T else dense
        found["dft"] = distance(whole.real if part == "cos" else -whole.imag, dense) if T else 0.0
    if mask.missing("adjoint") is None:
        found["adjoint"] = _adjoint_error(mask, T, values)
    return found


def distance(got: Tensor, want: Tensor) -> float:
    """The largest error relative to max(1, largest |want|); inf where one is NaN."""
    if want.numel() == 0:
        return 0.0
    error = float(((got - want).abs() / want.abs().max().clamp(min=1)).max().detach())
    return error if error == error else float("inf")


def _band(mask: Mask, T: int) -> Tensor:
    """1 where the support says that L can be nonzero."""
    lag = torch.arange(T)[:, None] - torch.arange(T)
    where = mask.support()
    low = torch.full_like(lag, True, dtype=torch.bool) if where.lo is None else lag >= where.lo
    return low if where.hi is None else low & (lag <= where.hi)


def _from_lanes(lanes: tuple[Lane, ...], T: int, values: Mapping[str, Tensor]) -> Tensor:
    """L by the recurrence that a lane means, token by token."""
    out = torch.zeros(T, T, dtype=torch.double)
    for lane in lanes:
        a, read, write = (
            pointwise(e, T, values).double().expand(T)
            for e in (lane.log_decay, lane.read, lane.write)
        )
        cut = a <= RESET
        if lane.reset is not None:
            cut = cut | (pointwise(lane.reset, T, values) != 0)
        state = torch.zeros(T, dtype=torch.double)  # what each s has left behind at t
        for t in range(T):
            if lane.late:
                out[t] += (read[t] * state).detach()
            state = torch.zeros_like(state) if cut[t] else state * a[t].exp()
            state = state + write[t] * torch.eye(T, dtype=torch.double)[t]
            if not lane.late:
                out[t] += (read[t] * state).detach()
    return out


def _from_symbol(h: Expr, shift: int, T: int, values: Mapping[str, Tensor]) -> Tensor:
    """L from its lags."""
    lags = pointwise(h, T, values)
    lag = torch.arange(T)[:, None] - torch.arange(T)
    if shift == 0:
        return torch.where(lag >= 0, lags[lag.clamp(min=0)], 0.0)
    if shift == WRAPS:
        return lags[lag % max(T, 1)]
    return lags[lag + T - 1]


def _adjoint_error(mask: Mask, T: int, values: Mapping[str, Tensor]) -> float:
    """Gathered gradients against autograd through the entry, for a random dL.

    By parameter expression: how it depends on inputs is not the mask's business.
    """
    found = {e: pointwise(e, T, values) for e in mask.parameters()}
    bases = {e: v.detach().requires_grad_() for e, v in found.items()
             if v.is_floating_point() and names(e)}  # fmt: skip
    dL = torch.randn(T, T, dtype=torch.double, generator=torch.Generator().manual_seed(T))
    want = _grad((matrix(mask.entry(), T, values, bases) * dL).sum(), bases)
    got = {e: torch.zeros_like(v) for e, v in bases.items()}
    for term in mask.adjoint():
        got[term.base] += _gather(term, bases[term.base].shape, dL.flatten(), grid(T, values))
    scale = max([1.0, *(float(w.abs().max()) for w in want.values() if w.numel())])
    return max((distance(got[e] / scale, want[e] / scale) for e in bases), default=0.0)


def _grad(y: Tensor, bases: dict[Expr, Tensor]) -> dict[Expr, Tensor]:
    """dy by every base, 0 for those it does not read."""
    if not y.requires_grad:
        return {e: torch.zeros_like(v) for e, v in bases.items()}
    leaves = tuple(bases.values())
    grads = torch.autograd.grad(y, leaves, allow_unused=True, materialize_grads=True)
    return dict(zip(bases, grads, strict=True))


def _gather(term: Cotangent, shape: torch.Size, dL: Tensor, at: Positions) -> Tensor:
    """Σ of dL · weight by the term's pattern, in the shape of its base."""
    W = dL * evaluate(term.weight, at).double().expand(dL.shape[0])
    index = [evaluate(i, at) for i in term.index]
    if term.pattern == "cut":
        by_position = W @ covers(index[0], index[1], at.T).double()
        return by_position if len(shape) else by_position.sum()
    if not len(shape):
        return W.sum()
    if len(index) != len(shape):
        raise TypeError(f"'{term.pattern}' gathers {show(term.base)}, which has {len(shape)} axes")
    live = W != 0
    out = torch.zeros(shape, dtype=torch.double)
    return out.index_put(tuple(i[live] for i in index), W[live], accumulate=True)
