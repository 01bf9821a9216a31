"""How far off is too far: float64 by 1e-10, lower types by the same-precision baseline.

In float64 an error is relative to the largest value. Below that (`Numbers` in the design): rms ≤
1.25× and max ≤ 2× the baseline's error, plus one ulp of the scale; in float32, relative rms ≤ 1e-6
will also do. A gradient that sums many terms into few numbers gets √terms ulps, as its baseline's
error is then a single draw and no estimate.

Non-goals: running anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: Fewer numbers than this are too few for a ratio of rms errors.
FEW = 64


class Broken(Exception):
    """A property that does not hold: its name and what was found."""

    def __init__(self, what: str, message: str) -> None:
        super().__init__(f"{what}: {message}")
        self.what, self.message = what, message


@dataclass(frozen=True, slots=True)
class Error:
    """The worst relative error of a number of comparisons, and the worst ratio to the baseline."""

    relative: float = 0.0
    ratio: float = 0.0

    def __or__(self, other: Error) -> Error:
        """The worse of each."""
        return Error(max(self.relative, other.relative), max(self.ratio, other.ratio))


def judge(what: str, label: str, got: Tensor, exact: Tensor, plain: Tensor, terms: int,
          peers: float = 0.0) -> Error:  # fmt: skip
    """The error of `got` against `exact`, or Broken when it is beyond the tolerance.

    `plain`: the baseline's result; `terms`: how many terms each number sums beyond its peers';
    `peers`: the scale of the other gradients, which a few numbers that cancel are measured by.
    """
    if not got.numel():
        return Error()
    a, b, c = (x.detach().double() for x in (got, exact, plain))
    if not torch.isfinite(b).all():
        return Error()
    if not torch.isfinite(a).all():
        raise Broken(what, f"{label} holds {_first_odd(a)} where the oracle is finite")
    scale = b.abs().max().item()
    rms, top = _rms(a - b), (a - b).abs().max().item()
    relative = top / max(scale, 1.0)
    if got.dtype == torch.float64:
        if not relative <= 1e-10:
            raise Broken(what, f"{label} is off by {top:.1e} where values reach {scale:.1e}")
        return Error(relative)
    plain_rms, plain_top = _rms(c - b), (c - b).abs().max().item()
    eps = torch.finfo(got.dtype).eps
    few = got.numel() < FEW
    slack = eps * (max(scale, peers) * 4 if few else scale) * math.sqrt(terms)
    fine = rms <= 1.25 * plain_rms + slack and top <= 2 * plain_top + slack
    if not fine and got.dtype == torch.float32:
        fine = rms <= 1e-6 * max(_rms(b), 1e-30)
    if not fine:
        raise Broken(what, f"{label} is off by {rms:.1e} rms, {top:.1e} at most; the baseline by "
                     f"{plain_rms:.1e} and {plain_top:.1e}; values reach {scale:.1e}")  # fmt: skip
    ratio = rms / plain_rms if plain_rms > 0 and got.numel() >= FEW else 0.0
    return Error(relative, ratio)


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def _first_odd(x: Tensor) -> str:
    return repr(x[~torch.isfinite(x)][0].item())
