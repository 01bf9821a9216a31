"""Exponentials for a lag function: h[n] ≈ Σ Re c zⁿ, poles by Ho–Kalman, the error measured.

The Hankel matrix h[i + j] of a sum of r exponentials has rank r, and its eigenvectors turn the same
matrix moved by one step, h[i + j + 1], into r × r numbers whose eigenvalues are the poles (Ho and
Kalman 1966; for real h the matrix is symmetric and the balanced realisation needs one basis). Rows
are sampled ever more thinly, which is exact for sums of exponentials and cheap at any length.
Coefficients follow by least squares, reweighted towards the largest error (Lawson 1961).

Nothing here is trusted: `Fit.error` is measured at every lag below the horizon, on the numbers that
the kernels are given. All in float64.

Non-goals: which functions may be fitted (lags.py), what becomes of the poles (resolve.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

#: Rows weighed by their spacing to these powers: even errors at short lags, or at long ones.
_WEIGHTS = (-0.5, 0.0, 0.5, 1.0)
_LAWSON = 40
#: The highest rank that is tried only to say in an error what would have been needed.
_BEYOND = 96
#: Significant bits of a float32: an angle of few enough bits times a position is then exact.
_BITS = 24


@dataclass(frozen=True, slots=True)
class Mode:
    """One pole: Re c · decayⁿ · exp(i·angle·n) = decayⁿ (real · cos angle n + sine · sin angle n).

    `angle` 0 is a plain decay, of rank 1; others take two lanes. 0 ≤ decay ≤ 1, 0⁰ = 1.
    """

    decay: float
    angle: float
    real: float
    sine: float

    @property
    def rank(self) -> int:
        """Lanes that it takes."""
        return 1 if self.angle == 0 else 2


@dataclass(frozen=True, slots=True)
class Fit:
    """What stands for a lag function: Σ modes. `error`: the largest |h[n] − ĥ[n]| over all
    0 ≤ n < horizon, in float64. `mass`: Σ |coefficients|, by which rounding is amplified."""

    text: str
    tol: float
    horizon: int
    modes: tuple[Mode, ...]
    error: float

    @property
    def rank(self) -> int:
        """Lanes, of all modes together."""
        return sum(m.rank for m in self.modes)

    @property
    def mass(self) -> float:
        """Σ |c|."""
        return sum(math.hypot(m.real, m.sine) for m in self.modes)


class NoFit(Exception):
    """No rank allowed is enough; says what would have been."""


def fit(h: Array, text: str, tol: float, max_rank: int) -> Fit:
    """The fit of least rank whose largest error is at most `tol`; `h` [horizon] in float64.

    Raises NoFit, its message a sentence on the rank that would be needed.
    """
    import numpy as np

    if np.abs(h).max() <= tol:  # nothing to fit: L̂ = 0
        return Fit(text, tol, len(h), (Mode(0.5, 0.0, 0.0, 0.0),), float(np.abs(h).max()))
    problem = _Problem(h)
    best = math.inf
    for rank in range(1, max_rank + 1):
        for modes, seen in problem.candidates(rank, tol):
            if sum(m.rank for m in modes) > max_rank:
                continue
            best = min(best, seen)
            if seen <= tol and (error := problem.error(modes)) <= tol:
                return Fit(text, tol, len(h), modes, error)
    needed = problem.needed(tol, max_rank)
    raise NoFit(f"the best of rank {max_rank} or less is off by {best:.2g}; {needed}")


class _Problem:
    """A lag function with everything that all ranks share."""

    def __init__(self, h: Array) -> None:
        import numpy as np

        self.h, self.M = h, len(h)
        rows = _spread(self.M // 2, 64, 256)
        self.sampled = _spread(self.M, 1024, 1024)
        spacing = np.gradient(rows.astype(float)) if len(rows) > 1 else np.ones(len(rows))
        self.bases = []
        for power in _WEIGHTS:
            d = spacing ** (power / 2)
            H, S = (h[rows[:, None] + rows + k] * d[:, None] * d for k in (0, 1))
            sigma, U = np.linalg.eigh(H)
            order = np.argsort(-np.abs(sigma))
            U = U[:, order]
            self.bases.append((sigma[order], U.T @ S @ U))

    def candidates(
        self, rank: int, tol: float, steps: int = _LAWSON
    ) -> Iterator[tuple[tuple[Mode, ...], float]]:
        """Modes of about `rank` lanes with their error on the sampled lags, a set a weighting."""
        for sigma, S in self.bases:
            if rank <= len(sigma) and abs(sigma[rank - 1]) > 1e-15 * abs(sigma[0]):
                poles = self.poles(sigma[:rank], S[:rank, :rank])
                if poles:
                    yield self.solve(poles, tol, steps)

    def poles(self, sigma: Array, S: Array) -> list[tuple[float, float]]:
        """(decay, angle) of each real pole and of one of each pair; none that grows."""
        import numpy as np

        scale = np.sqrt(np.abs(sigma))
        z = np.linalg.eigvals(S * np.sign(sigma)[:, None] / scale[:, None] / scale)
        found = []
        for x in z:
            size, angle = min(abs(x), 1.0), abs(float(np.angle(x)))
            if size < 1e-12:  # 1 at lag 0 and nothing after it
                found.append((0.0, 0.0))
            elif x.imag >= 0:
                found.append((float(size), sum(split(angle, self.M))))
        return list(dict.fromkeys(found))

    def solve(self, poles: list[tuple[float, float]], tol: float,
              steps: int) -> tuple[tuple[Mode, ...], float]:  # fmt: skip
        """Coefficients that make the largest error on the sampled lags small, and that error."""
        import numpy as np

        V, h = _columns(poles, self.sampled), self.h[self.sampled]
        weight, best, chosen = np.ones(len(h)), math.inf, None
        for step in range(steps):
            root = np.sqrt(weight)
            scale = np.linalg.norm(V * root[:, None], axis=0) + 1e-300
            c = np.linalg.lstsq(V * root[:, None] / scale, h * root, rcond=1e-13)[0] / scale
            off = np.abs(h - V @ c)
            if off.max() < best:
                best, chosen = float(off.max()), c
            if best <= 0.5 * tol or (step == 5 and best > 5 * tol):
                break
            weight *= off / off.max() + 1e-3
            weight /= weight.mean()
        assert chosen is not None
        rest = iter(chosen.tolist())
        return tuple(Mode(d, a, next(rest), next(rest) if a else 0.0) for d, a in poles), best

    def error(self, modes: tuple[Mode, ...]) -> float:
        """The largest error over every lag, in blocks."""
        import numpy as np

        worst, block = 0.0, 2**15
        for start in range(0, self.M, block):
            n = np.arange(start, min(start + block, self.M))
            worst = max(worst, float(np.abs(self.h[n] - evaluate(modes, n)).max()))
        return worst

    def needed(self, tol: float, rank: int) -> str:
        """What rank beyond `rank` would do, in words; each try is a fit that was measured."""
        best, tried = math.inf, rank
        while (rank := max(rank + 1, rank * 5 // 4)) <= _BEYOND:
            for modes, seen in self.candidates(rank, tol, 6):
                best, tried = min(best, self.error(modes) if seen <= tol else seen), rank
            if best <= tol:
                return f"rank {rank} would reach it"
        if math.isinf(best):
            return ("more poles add nothing: they coincide, or turn too slowly for positions in "
                    "float32 to tell them apart")  # fmt: skip
        return f"rank {tried} still leaves {best:.2g}: it does not compress"


def split(angle: float, M: int) -> tuple[float, float]:
    """A coarse and a fine part of `angle`, of so few bits each that their products with positions
    below M are exact in float32. What remains beyond both is dropped."""
    coarse = _few_bits(angle, M)
    return coarse, _few_bits(angle - coarse, M)


def _few_bits(angle: float, M: int) -> float:
    if angle == 0:
        return 0.0
    unit = 2.0 ** (math.floor(math.log2(abs(angle))) + 1 + (M - 1).bit_length() - _BITS)
    return float(round(angle / unit) * unit)


def _spread(count: int, dense: int, more: int) -> Array:
    """0 … dense − 1, then ever more thinly up to count − 1."""
    import numpy as np

    first = np.arange(min(count, dense))
    rest = np.geomspace(dense, count - 1, more).astype(int) if count > dense else first[:0]
    return np.unique(np.concatenate([first, rest]))


def _columns(poles: list[tuple[float, float]], n: Array) -> Array:
    """The modes' values at lags n, [lags, lanes]."""
    import numpy as np

    columns = []
    for decay, angle in poles:
        size = np.exp(n * math.log(decay)) if decay else (n == 0) * 1.0
        columns += [size] if not angle else [size * np.cos(angle * n), size * np.sin(angle * n)]
    return np.stack(columns, 1)


def evaluate(modes: tuple[Mode, ...], n: Array) -> Array:
    """ĥ at lags n."""
    poles = [(m.decay, m.angle) for m in modes]
    c = [x for m in modes for x in ((m.real, m.sine) if m.angle else (m.real,))]
    found: Array = _columns(poles, n) @ c
    return found
