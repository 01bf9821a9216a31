"""From a caller's tensors to a program's: which goes where, and how its axes are turned.

Non-goals: no values change here; nothing is checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """From a caller's layout to a buffer's: a level of an axis picked (dimension, level), a T axis
    of length 1 put in, then axes permuted."""

    token: int | None
    order: tuple[int, ...]
    inverse: tuple[int, ...]
    picked: tuple[int, int] | None = None

    @staticmethod
    def between(declared: tuple[str, ...], canonical: tuple[str, ...], step: bool,
                picked: tuple[int, int] | None = None) -> View:  # fmt: skip
        """The view for an input with axes `declared` whose buffer has axes `canonical`; what is
        `picked` is an axis of the caller's tensor that neither names."""
        order = tuple(declared.index(a) for a in canonical)
        inverse = tuple(canonical.index(a) for a in declared)
        token = declared.index("T") if step and "T" in declared else None
        plain = order == tuple(range(len(order)))
        return View(token, () if plain else order, () if plain else inverse, picked)

    @property
    def plain(self) -> bool:
        """The caller's layout is the buffer's."""
        return self.token is None and not self.order and self.picked is None

    def to(self, x: Tensor) -> Tensor:
        """The tensor as the buffer has it."""
        if self.picked is not None:
            x = x.select(*self.picked)
        if self.token is not None:
            x = x.unsqueeze(self.token)
        return x.permute(self.order) if self.order else x

    def back(self, x: Tensor) -> Tensor:
        """A buffer's tensor as the caller has it, without an axis that was picked from."""
        if self.inverse:
            x = x.permute(self.inverse)
        return x if self.token is None else x.squeeze(self.token)


#: The place of a tensor in a list, and how it is seen from there (None: as it is).
Place = tuple[int, View | None]


@dataclass(frozen=True)
class Stack:
    """The gradient of a tensor that was picked from along `dim`: of its first levels where `places`
    say, of the others, up to `length`, zero."""

    places: tuple[Place, ...]
    dim: int
    length: int

    def of(self, made: Sequence[Tensor]) -> Tensor:
        """The gradient, from a backward's results."""
        found = taken_back(self.places, made)
        none = [torch.zeros_like(found[0])] * (self.length - len(found))
        return torch.stack([*found, *none], self.dim)


@dataclass(frozen=True)
class Routes:
    """Of a backward: where each of its arguments is among a run's tensors and cotangents, and where
    the gradient of each of the run's tensors is among its results (None: it has none)."""

    arguments: tuple[Place, ...]
    gradients: tuple[Place | Stack | None, ...]


def taken(places: tuple[Place, ...], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors at `places`, as they are seen there."""
    return [tensors[i] if view is None else view.to(tensors[i]) for i, view in places]


def taken_back(places: Sequence[Place], made: Sequence[Tensor]) -> list[Tensor]:
    """Results at `places`, as a caller has them."""
    return [made[i] if view is None else view.back(made[i]) for i, view in places]


def given_back(routes: Routes, made: Sequence[Tensor], needs: Sequence[bool]) -> tuple[Any, ...]:
    """Gradients in the caller's layout, None where none is needed."""
    return tuple([None if place is None or not need else
                  place.of(made) if isinstance(place, Stack) else
                  made[place[0]] if place[1] is None else place[1].back(made[place[0]])
                  for place, need in zip(routes.gradients, needs, strict=True)])  # fmt: skip
