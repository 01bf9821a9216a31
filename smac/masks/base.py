"""The laws a mask states. Planner and lowering ask these, never which family it is.

A family is one file: a frozen subclass of `Mask` that states `entry` and whatever else holds,
and a `register` line that gives it a name and a signature in the mask language. What follows from
`entry` alone (support, parameters, transpose, adjoint, an upper bound of the cost) is derived here.

Non-goals: no sizes (beyond `matvec_cost(T)`), no tensors, no target code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

from smac.expr import ONE, ZERO, Expr
from smac.locate import clip
from smac.masks.band import Support as Support  # re-exported: laws speak of it
from smac.masks.band import band, empty
from smac.show import show_mask
from smac.terms import MaskTerm

#: What `symbol` says beside a shift of 0.
MIDDLE, WRAPS = -1, -2
#: Why a mask with lanes has no state to keep.
ABOVE = "it is nonzero above the diagonal; multiply it by causal()"
ELSEWHERE = "its lanes read other tokens than the one that comes in"
#: Multiply-adds of one padded real FFT convolution, per token and doubling of T.
_FFT_COST = 5


@dataclass(frozen=True, slots=True)
class Lane:
    """One rank of a mask: L[t,s] = read[t] · exp(Σ_{k=s+1..t} log_decay[k]) · write[s], for t ≥ s.

    Each is a scalar expression over inputs and lets, with axes among B T H and the mask's channel.
    `log_decay` is a natural log ≤ 0 or > 0; ≤ −256 (−inf included) resets, with gradient 0.
    `reset` (a 0/1 expression with a T axis, or None) also cuts: nothing passes from t−1 to t where
    it is 1; it has no gradient, and at t = 0 it is asked too: it cuts the initial state off.
    `Call("starts", (ids,))` is such an expression: 1 where ids[t] differs from ids[t−1], and at 0.

    A `late` lane reads before it decays and writes: decays and resets count over k = s+1 … t−1, and
    t > s, so that the diagonal is 0. Backward in time it is the same lane with `read` and `write`
    exchanged: what is strictly above a diagonal is a sum of late lanes, transposed.
    """

    log_decay: Expr
    reset: Expr | None = None
    read: Expr = ONE
    write: Expr = ONE
    late: bool = False


@dataclass(frozen=True, slots=True)
class Generators:
    """L = Σ `lanes` on and below the diagonal, plus strictly above it (Σ `above`)ᵀ, all late.

    With nothing above, `lanes` are a finite state that can be kept between calls.
    """

    lanes: tuple[Lane, ...]
    above: tuple[Lane, ...] = ()

    @property
    def rank(self) -> int:
        """States of N × P that the linear order carries for a head, in both directions."""
        return len(self.lanes) + len(self.above)


@dataclass(frozen=True, slots=True)
class Cotangent:
    """One term of ⟨dL, ∂L/∂θ⟩ for the parameter expression θ (`base`).

    With W[t,s] = dL[t,s] · weight(t,s), the gradient of `base` gathers W by `pattern`, at the
    positions in `index` (the index of the `At`, or low and high of the `Between`, it came from):
    "row" Σ_s, at t plus an integer · "col" Σ_t, at s plus an integer · "entry" W itself, at both
    (in either order) · "lag" Σ over equal index, a form of t − s · "cut" Σ over high ≥ k > low, at
    k · "all" Σ_{t,s}: `base` is then a `Name` without T axis, index is empty.
    A base that lacks the axis it is read along gathers the sum over it.
    """

    pattern: str
    base: Expr
    weight: Expr
    index: tuple[Expr, ...] = ()


class Mask(ABC):
    """L[t,s]. Subclasses are frozen dataclasses whose fields are expressions, numbers or masks."""

    #: The name in the mask language; `register` sets it.
    name: ClassVar[str] = ""

    @abstractmethod
    def entry(self) -> Expr:
        """L[t,s] over `Pos`, `At`, `Between`, inputs and lets without T; 0 outside the support.

        Readers evaluate both sides of a `where` and clamp indices: what an `At` reads out of range
        must lie on the side not taken. A base without the axis it is read along is constant there.
        """

    def support(self) -> Support:
        """The band of lags that can be nonzero, as the entry's own conditions show it."""
        return band(self.entry())

    def generators(self) -> Generators | None:
        """Rank-r generators, or None where no finite state exists or none is known."""
        lanes, above = self.lanes(), self.above()
        if lanes is None or above is None:
            return None
        return Generators(lanes if lanes or above else (Lane(ZERO, read=ZERO),), above)

    def lanes(self) -> tuple[Lane, ...] | None:
        """Lanes that sum to L on and below the diagonal, whatever is above it; None: unknown.

        A mask that is not lower triangular states these too: its product with one that is has a
        finite state.
        """
        stated = self._stated()
        return None if stated is None else stated.lanes

    def above(self) -> tuple[Lane, ...] | None:
        """Late lanes that sum to what is strictly above the diagonal, transposed; None: unknown."""
        stated = self._stated()
        if stated is not None:
            return stated.above
        return () if self.support().lower else None

    def _stated(self) -> Generators | None:
        """What a family says that states `generators` rather than lanes."""
        return None if type(self).generators is Mask.generators else self.generators()

    def symbol(self) -> tuple[Expr, int] | None:
        """(h, shift) when L[t,s] = h[t − s + shift] reads a lag-axis expression; else None.

        Shift 0: h[n] for n ≥ 0, L is 0 above the diagonal. MIDDLE stands for "T − 1": lag 0 in the
        middle (bidirectional). WRAPS for h[(t − s) mod T]."""
        return None

    def dft(self) -> str | None:
        """ "cos" or "sin" when L is that part of the Fourier matrix, cos or sin of 2πts/T."""
        return None

    def parameters(self) -> tuple[Expr, ...]:
        """The expressions that L depends on, for axes and gradients."""
        from smac.masks.adjoint import parameters

        return parameters(self.entry())

    def transpose(self) -> Mask:
        """Lᵀ."""
        from smac.masks.algebra import Transposed

        return Transposed(self)

    def adjoint(self) -> tuple[Cotangent, ...]:
        """⟨dL, ∂L/∂θ⟩ for each parameter. PlanError where an index has no gather pattern."""
        from smac.masks.adjoint import adjoint

        return adjoint(self)

    def matvec_cost(self, T: int) -> int:
        """Scalar multiply-adds of L·x for one channel, by the cheapest law that holds."""
        known = [self._tile_cost(T)]
        generators = self.generators()
        if generators is not None:
            known.append(T * generators.rank)
        if self.symbol() is not None or self.dft() is not None:
            known.append(_FFT_COST * T * max(1, (2 * T - 1).bit_length()))
        return min(known)

    def _tile_cost(self, T: int) -> int:
        """Entries in the support, or a little more: those that the quadratic order evaluates."""
        where = self.support()
        if empty(where):
            return 0
        lo = -T + 1 if where.lo is None else max(where.lo, -T + 1)
        hi = T - 1 if where.hi is None else min(where.hi, T - 1)
        count = sum(T * (b - a + 1) - (b * (b + 1) - a * (a - 1)) // 2
                    for a, b in ((max(lo, 0), hi), (max(-hi, 1), -lo)) if b >= a)  # fmt: skip
        return max(count, 0)

    def missing(self, law: str) -> str | None:
        """Why a law does not hold, for errors; None when it does.

        "generators", "symbol", "adjoint", or "state": generators of a mask with nothing above the
        diagonal.
        """
        if law == "adjoint":
            from smac.masks.adjoint import why_no_adjoint

            why = why_no_adjoint(self)
        elif law == "generators":
            why = self.why_no_generators() if self.generators() is None else None
        elif law == "state":
            why = self._why_no_state()
        elif law == "symbol":
            why = "its entries are not read from one lag axis" if self.symbol() is None else None
        else:
            raise ValueError(
                f"unknown law '{law}'; expected generators, state, symbol or adjoint"
            )
        return None if why is None else f"mask '{clip(str(self), 200)}' has no {law} ({why})"

    def why_no_generators(self) -> str:
        """The reason, in a few words; asked only where `generators` is None."""
        return "no finite state" if self.lanes() is None else ABOVE

    def _why_no_state(self) -> str | None:
        generators = self.generators()
        if generators is None:
            return self.why_no_generators()
        if generators.above:
            return ABOVE
        from smac.masks.moves import moves

        return ELSEWHERE if any(map(moves, generators.lanes)) else None

    def term(self) -> MaskTerm:
        """The term of the mask language that means this mask."""
        values = (getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]
        args = tuple(v.term() if isinstance(v, Mask) else v for v in values)
        return MaskTerm(self.name or type(self).__name__, args)

    def __str__(self) -> str:
        """The mask as the spec would write it."""
        return show_mask(self.term())
