"""A mask as numbers to look at: one head's L[t,s], on values that show what the mask does.

No spec says which values its inputs take, so they are found: of a few kinds for each input that the
mask reads, the ones with which L neither grows nor is gone at once. The oracle evaluates L.

Non-goals: realistic data, gradients, and any judgement of kernels (testing/ has that).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from smac.errors import SmacError
from smac.expr import Name, names
from smac.reference.dense import mask_matrix
from smac.reference.oracle import bind
from smac.signatures import SIGNATURES
from smac.spec import Input, MaskTerm, Spec, specialise
from smac.testing.cells import complete

#: Kinds of values: (low, high) of a uniform draw; None is a normal one.
_RANGES: dict[str, tuple[float, float] | None] = {
    "normal": None, "keeps": (0.82, 0.97), "fades": (-0.2, -0.02), "small": (0.02, 0.2),
    "low": (-3.5, -2.0), "halves": (0.5, 0.8),
}  # fmt: skip
#: Inputs whose kinds are searched; the rest stay normal.
_MOST = 3
#: The share of entries above a tenth of the largest that makes a picture worth looking at.
_SHARE = 0.3


def sample(spec: Spec, T: int = 96, seed: int = 0) -> Tensor:
    """L [T, T] in float64: of the first batch, head and channel, every optional input passed.

    Raises SmacError when no values give a finite mask.
    """
    spec = specialise(spec)  # without lets, so that names are inputs
    free = _free(spec)[:_MOST]
    best: tuple[float, dict[str, str]] | None = None
    for kinds in itertools.product(_RANGES, repeat=len(free)):
        chosen = dict(zip(free, kinds, strict=True))
        score = _score(_matrix(spec, min(T, 48), chosen, seed))
        if math.isfinite(score) and (best is None or score < best[0] - 1e-3):
            best = score, chosen
    if best is None:
        raise SmacError(f"{spec.name}: found no values of {', '.join(free) or 'the inputs'} with "
                        "which the mask is finite; there is nothing to draw")  # fmt: skip
    return _matrix(spec, T, best[1], seed)


def _score(L: Tensor) -> float:
    """0 is best: entries of all sizes, none that outgrow the largest of the diagonal."""
    top = L.abs().max()
    if not torch.isfinite(top) or top == 0:
        return math.inf
    share = (L.abs() > 0.1 * top).double().mean()
    diagonal = L.diagonal().abs().max().clamp(min=0.1 * top)
    return float((share - _SHARE).abs() + (top / diagonal).log().clamp(min=0))


def _free(spec: Spec) -> list[str]:
    """Float inputs that the mask reads, in call order; not those along lags or columns."""
    found = _read(spec.contraction.L) - _ids(spec.contraction.L)
    return [i.name for i in spec.inputs if i.name in found and not {"W", "S"} & set(i.axes)]


def _read(term: MaskTerm) -> frozenset[str]:
    parts = [_read(a) if isinstance(a, MaskTerm) else names(a)
             for a in term.args if not isinstance(a, str | bool)]  # fmt: skip
    return frozenset[str]().union(*parts)


def _ids(term: MaskTerm) -> frozenset[str]:
    """Inputs that are integers: arguments that a signature wants to be bare names."""
    own = {a.id for p, a in zip(SIGNATURES.get(term.fn, ()), term.args, strict=False)
           if p.form == "name" and isinstance(a, Name)}  # fmt: skip
    return frozenset(own).union(*(_ids(a) for a in term.args if isinstance(a, MaskTerm)))


def _matrix(spec: Spec, T: int, kinds: Mapping[str, str], seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    ids = _ids(spec.contraction.L)
    sizes = {"S": T, **dict(complete(spec, {"T": T}))}
    drawn = {i.name: _runs(i, T) if i.name in ids else _values(i, sizes, kinds.get(i.name), g)
             for i in spec.inputs}  # fmt: skip
    scope = bind(spec, drawn, torch.float64).scope
    made = mask_matrix(spec.contraction.L, scope)
    rest = tuple(a for a in made.axes if a not in ("T", "S"))
    L: Tensor = made.to((*rest, "T", "S")).expand(*(1,) * len(rest), T, T)
    return L.reshape(-1, T, T)[0]


def _runs(item: Input, T: int) -> Tensor:
    """Three documents of unequal length."""
    ids = torch.bucketize(torch.arange(T), torch.tensor([0.28 * T, 0.68 * T]))
    shape = [T if a == "T" else 1 for a in item.axes]
    return ids.reshape(shape)


def _values(item: Input, sizes: Mapping[str, int], kind: str | None,
            g: torch.Generator) -> Tensor:  # fmt: skip
    """Everything but positions has length 1. Lags hold a wave that dies away with the distance, and
    a little noise: a wave alone would have a finite rank, which weights that are learnt have not.
    """
    shape = [sizes.get(a, 1) for a in item.axes]
    if "W" in item.axes:
        W, T = sizes["W"], sizes["T"]
        n = (torch.arange(W, dtype=torch.float64) - (W - T)).abs()
        wave = (1 + 0.6 * torch.cos(2 * math.pi * n / (T / 5))) / 1.6
        noise = 0.02 * torch.rand(W, generator=g, dtype=torch.float64)
        return (wave * torch.exp(-n / (T / 3)) * (1 - noise)).reshape(shape)
    bounds = _RANGES[kind or "normal"]
    if bounds is None:
        return torch.randn(shape, generator=g, dtype=torch.float64)
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=g, dtype=torch.float64)
