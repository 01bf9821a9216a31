"""`look`: everything that a picture shows of a plan, as numbers.

Non-goals: no text (text.py), no matplotlib (draw.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from smac.masks.base import Support
from smac.picture.sample import sample
from smac.plan import crossover, make
from smac.plan.types import ORDERS, Plan

#: Lengths at which times are predicted.
LENGTHS = tuple(2**n for n in range(6, 18))
#: Tiles a side that are shown, from the first token on.
TILES = 12
#: What happens to a tile of T × T: nothing, all of its entries, those of the support, or the state.
ZERO, FULL, CUT, STATE = "zero", "full", "cut", "state"
#: Below this, relative to the first, a singular value counts as 0.
NOTHING = 1e-12


@dataclass(frozen=True)
class Facts:
    """A spec, looked at. `matrix`: L[t][s] of one head on sampled values; `sigma`: singular values
    of its block below the diagonal (rows from T/2 on, columns before T/2), largest first; `tiles`:
    rows of ZERO, FULL, CUT or STATE; `times`: (T, ((order, seconds), …)); `beaten`: from which T
    another order beats the quadratic one, None where none does."""

    plan: Plan
    matrix: tuple[tuple[float, ...], ...]
    sigma: tuple[float, ...]
    tiles: tuple[tuple[str, ...], ...]
    times: tuple[tuple[int, tuple[tuple[str, float], ...]], ...]
    beaten: int | None

    @property
    def rank(self) -> int | None:
        """The rank that the mask's law claims, None without generators."""
        known = self.plan.request.mask.generators()
        return None if known is None else known.rank

    @property
    def found(self) -> int:
        """Singular values that are not 0."""
        if not self.sigma or self.sigma[0] == 0:
            return 0
        return sum(x > NOTHING * self.sigma[0] for x in self.sigma)


def look(plan: Plan, T: int = 96) -> Facts:
    """What a picture of `plan` shows; its mask is sampled at T tokens.

    Raises SmacError where no values give a finite mask.
    """
    r, asked_for = plan.request, plan.asked or plan.request.spec
    L = sample(r.spec if plan.fits else asked_for, T)
    sigma = torch.linalg.svdvals(L[T // 2 :, : T // 2])
    sizes = plan.lengths
    asked: dict[str, Any] = {
        "dtype": r.dtype, "device": r.device, "target": r.target, "backward": r.backward
    }  # fmt: skip
    return Facts(
        plan, tuple(map(tuple, L.tolist())), tuple(sigma.tolist()), tiles(plan),
        tuple((n, _times(make(asked_for, sizes={**sizes, "T": n}, **asked))) for n in LENGTHS),
        crossover(asked_for, sizes=sizes, **asked),
    )  # fmt: skip


def _times(plan: Plan) -> tuple[tuple[str, float], ...]:
    """The fastest candidate of each order that has one."""
    best = {o: min((c.time for c in plan.candidates if c.order == o), default=None)
            for o in ORDERS}  # fmt: skip
    return tuple((o, t) for o, t in best.items() if t is not None)


def tiles(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """What the chosen order does with the first tiles, by the support that planning knows."""
    r = plan.request
    count = min(TILES, -(-r.size("T") // plan.chunk))
    carried = plan.order in ("chunked", "linear") and r.mask.generators() is not None
    where = r.mask.support()
    return tuple(tuple(_tile(where, i, j, plan.chunk, carried) for j in range(count))
                 for i in range(count))  # fmt: skip


def _tile(where: Support, i: int, j: int, side: int, carried: bool) -> str:
    """Rows i, columns j, in tiles of `side`: lags from `low` to `high`."""
    low, high = (i - j - 1) * side + 1, (i - j + 1) * side - 1
    lo, hi = (low if where.lo is None else where.lo), (high if where.hi is None else where.hi)
    if high < lo or low > hi or lo > hi:
        return ZERO
    if carried and i != j:
        return STATE
    return FULL if lo <= low and high <= hi else CUT
