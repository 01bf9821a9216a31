"""A classification held to its formula in float64, on drawn parameters and several lengths.

Every entry of short sequences, and drawn pairs of a long one, around each number of the formula.
The mask's entry and, where it has them, its lanes are compared: what orders run on is what is
checked.

Non-goals: the oracle's tests of compiled ops (`smac.check`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

from smac.axes import Scope
from smac.errors import SmacError
from smac.expr import Call, Expr, Name, Num, children, walk
from smac.masks.base import Lane, Mask
from smac.masks.classify.evaluate import Memo, Point, Tensor, placed, value
from smac.show import show

LENGTHS = (1, 2, 5, 9, 16)
_LONG, _PAIRS, _DRAWS = 160, 48, 3
_TOLERANCE = 1e-9


class ClassificationError(SmacError):
    """A formula and the mask found for it differ in number: a defect of the classifier."""


def verify(formula: Expr, mask: Mask, scope: Scope) -> int:
    """How many entries were compared. Raises ClassificationError where one differs.

    Entries at which the formula itself has no value (a log of a negative number, an overflow) say
    nothing; 0 is the answer where that is all of them.
    """
    names = sorted({n.id for n in walk(formula) if isinstance(n, Name)})
    compared = 0
    for draw in range(2 * _DRAWS):
        # Python's generator, not for secrets: the same numbers in every run.
        source = random.Random(f"{draw} {show(formula)}")
        entries = _Entries(formula, mask, scope, names, source, positive=draw < _DRAWS)
        compared += sum(entries.compare(T, t, s) for T, t, s in entries.places())
    return compared


class _Entries:
    """The formula and the mask at one draw of parameters."""

    def __init__(self, formula: Expr, mask: Mask, scope: Scope, names: list[str],
                 source: random.Random, positive: bool) -> None:  # fmt: skip
        self.formula, self.mask, self.scope, self.source = formula, mask, scope, source
        self.entry = mask.entry()
        generators = mask.generators()
        self.lanes = None if generators is None else generators.lanes
        self.above: tuple[Lane, ...] = getattr(generators, "above", ())
        self.ids = {n.id for e in walk(formula) if isinstance(e, Call) and e.fn in
                    ("starts", "runs") for n in children(e) if isinstance(n, Name)}  # fmt: skip
        self.positive = positive
        self.drawn = {n: self._draw(n, _LONG) for n in names}
        self.long = _long(formula)
        self.memo: Memo = {}

    def _draw(self, name: str, length: int) -> Tensor:
        axes = self.scope.of_name[name]
        n = 2 * length - 1 if "W" in axes else length

        def one() -> float:
            size = self.source.uniform(0.25, 1.1)
            return size if self.positive else size * self.source.choice((-1, 1))

        if name in self.ids:
            return [self.source.choice((0, 0, 1, 2)) for _ in range(n)]
        if {"T", "S"} <= axes:
            return [[one() for _ in range(n)] for _ in range(n)]
        return [one() for _ in range(n)] if axes & {"T", "W"} else one()

    def places(self) -> Iterator[tuple[int, int, int]]:
        """(T, t, s): all of the short lengths, some of a long one."""
        for T in LENGTHS:
            yield from ((T, t, s) for t in range(T) for s in range(T))
        T = min(self.long, _LONG)
        near = {c + d for c in self._numbers() for d in (-1, 0, 1)}
        lags = sorted({min(n, T - 1) for n in near if n >= 0})
        for lag in lags:
            t = self.source.randrange(lag, T)
            yield from ((T, t, t - lag), (T, t - lag, t))
        for _ in range(_PAIRS):
            yield T, self.source.randrange(T), self.source.randrange(T)

    def _numbers(self) -> list[int]:
        found = {abs(n.value) for n in walk(self.formula) if isinstance(n, Num)}
        return sorted(int(x) for x in found if x < _LONG)[:16]

    def compare(self, T: int, t: int, s: int) -> int:
        """1 where both were compared, 0 where the formula has no value."""
        p = Point(T, self.drawn, t, s, memo=self.memo)
        try:
            want = float(value(self.formula, replace(p, strict=False)))
        except (ArithmeticError, ValueError, IndexError):
            return 0
        if not math.isfinite(want):
            return 0
        found = {"entry": self._mask(p)}
        if self.lanes is not None:
            found["lanes"] = self._by_lanes(p)
        for law, got in found.items():
            if got is None and not self.positive:
                continue  # outside what the families' parameters may be: NaN, and no wrong number
            if got is None or not abs(got - want) <= _TOLERANCE * max(1.0, abs(want)):
                raise ClassificationError(
                    f'entry("{show(self.formula)}") was classified as {self.mask}, whose {law} '
                    f"at t = {t}, s = {s} (T = {T}) is {got} where the formula gives {want}; this "
                    "is a defect of SMAC: report the formula, and write the mask instead"
                )
        return 1

    def _mask(self, p: Point) -> float | None:
        try:
            return float(value(self.entry, p))
        except (ArithmeticError, ValueError, IndexError):
            return None

    def _by_lanes(self, p: Point) -> float | None:
        assert self.lanes is not None
        lanes = self.lanes
        if p.t < p.s:  # lanes above the diagonal are those of the transpose
            lanes, p = self.above, replace(p, t=p.s, s=p.t)
        try:
            return math.fsum(_lane(x, p) for x in lanes)
        except (ArithmeticError, ValueError, IndexError):
            return None


def _lane(lane: Lane, p: Point) -> float:
    """read[t] · exp(Σ log decays) · write[s], 0 behind a reset; a late lane stops before t."""
    late = bool(getattr(lane, "late", False))
    if late and p.t == p.s:
        return 0.0
    places = range(p.s + 1, p.t + 1 - late)
    if lane.reset is not None and any(placed(lane.reset, k, p) for k in places):
        return 0.0
    steps = [placed(lane.log_decay, k, p) for k in places]
    decay = 0.0 if any(x <= -256 for x in steps) else math.exp(math.fsum(steps))
    return placed(lane.read, p.t, p) * decay * placed(lane.write, p.s, p)


def _long(formula: Expr) -> int:
    """A length that goes past every number of the formula."""
    numbers = [abs(n.value) for n in walk(formula) if isinstance(n, Num)]
    return 40 + 2 * int(max((x for x in numbers if x < _LONG), default=0))
