"""kron(A, B, width): a mask of rows and one of columns, on tokens that lie row by row in a plane.

γ^(|Δx| + |Δy|) is kron(D, D, width) with D = decay(γ) + strict(transpose(decay(γ))): RMT's decay in
two dimensions (Fan et al. 2023).

Non-goals: a scan for each axis (its states are T·N·P in memory): this runs in the quadratic order.
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.errors import PlanError
from smac.expr import ONE, S_POS, T_POS, At, Between, Expr, Pos, Size, call, transform, walk
from smac.masks.base import Mask
from smac.masks.make import mul
from smac.masks.registry import register


@register("kron")
@dataclass(frozen=True)
class Kron(Mask):
    """L[t,s] = A[t // w, s // w] · B[t mod w, s mod w], w tokens a row."""

    A: Mask
    B: Mask
    width: Expr

    def entry(self) -> Expr:
        above = call("floordiv", call("sub", Size("T"), ONE), self.width)
        rows = self._placed(self.A, "floordiv", call("add", above, ONE))
        return mul(rows, self._placed(self.B, "mod", self.width))

    def _placed(self, mask: Mask, op: str, length: Expr) -> Expr:
        """The entry of `mask` at rows, or at columns, of the plane, `length` of them."""
        entry = mask.entry()
        if any(isinstance(e, At | Between) for e in walk(entry)):
            raise PlanError(f"kron: mask '{mask}' reads tokens; expected masks of positions alone, "
                            "as causal(), decay(gamma), window(w) and their sums")  # fmt: skip
        at = {"t": call(op, T_POS, self.width), "s": call(op, S_POS, self.width)}

        def place(e: Expr) -> Expr | None:
            if isinstance(e, Pos):
                return at[e.which]
            return length if isinstance(e, Size) and e.axis == "T" else None

        return transform(entry, place)

    def transpose(self) -> Mask:
        return Kron(self.A.transpose(), self.B.transpose(), self.width)

    def why_no_generators(self) -> str:
        return "a plane of tokens has no one order in which a state could pass"
