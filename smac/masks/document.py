"""document(ids): 1 where t and s lie in one run of equal ids, both triangles. Sequence packing.

Runs, not values: an id that comes back later is another document (interleaved ids would have
rank above 1). Multiplied by a lower mask it resets the state wherever a run starts.
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import ONE, S_POS, T_POS, ZERO, Expr, call
from smac.masks.base import Lane, Mask
from smac.masks.lanes import strictly
from smac.masks.make import at, keep
from smac.masks.registry import register


@register("document")
@dataclass(frozen=True)
class Document(Mask):
    """L[t,s] = 1[run of t = run of s]; ids are integers over T."""

    ids: Expr

    def entry(self) -> Expr:
        runs = call("runs", self.ids)
        return keep(call("eq", at(runs, T_POS), at(runs, S_POS)), ONE)

    def lanes(self) -> tuple[Lane, ...]:
        return (Lane(ZERO, reset=call("starts", self.ids)),)

    def above(self) -> tuple[Lane, ...]:
        return strictly(self.lanes())

    def transpose(self) -> Mask:
        return self
