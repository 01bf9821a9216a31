"""What a formula's structure is: entry("…") becomes a mask of the algebra, or says why not.

`classify` multiplies the formula out on each side of the diagonal (normal.py), sorts every product
by what it depends on (separate.py), realises the parts as masks (realise.py), and holds the result
to the formula in float64 (check.py) before anyone uses it. Unknown is an answer.

Non-goals: approximation, choosing an order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache

from smac.axes import POSITIONS, Scope
from smac.expr import ONE, S_POS, T_POS, ZERO, Expr, Num, call, fold
from smac.masks.classify import named, terms, two_axes
from smac.masks.classify.check import ClassificationError, verify
from smac.masks.classify.forms import exchanged, mono_positions, moved
from smac.masks.classify.lag import symbol
from smac.masks.classify.normal import Normal
from smac.masks.classify.polynomial import Poly, TooLarge, close, expression
from smac.masks.classify.realise import Realiser, Side
from smac.masks.classify.separate import Unknown
from smac.show import show
from smac.spec import Spec
from smac.terms import MaskTerm

__all__ = ["ClassificationError", "Found", "classified", "classify", "resolve"]


#: Below every lag: no side of the diagonal is assumed.
ANY_LAG = -(2**40)


@dataclass(frozen=True, slots=True)
class Found:
    """What a formula is.

    `term`: the same L in the mask language, or None: unknown. `structure`: its name, in a few
    words. `rank`: of the blocks below the diagonal plus those above it, None where it is not
    finite or not known. `lines`: how it was found. `compared`: entries that were checked.
    """

    term: MaskTerm | None
    structure: str
    rank: int | None
    lines: tuple[str, ...]
    compared: int = 0


def classify(formula: Expr, scope: Scope) -> Found:
    """The structure of `formula` (an entry: t, s, x[t], …), whose names `scope` knows.

    Raises ClassificationError where the mask found does not give the formula's numbers.
    """
    axes = tuple(sorted((n, tuple(sorted(a))) for n, a in scope.of_name.items()))
    return _classify(fold(formula), _Hashable(scope, axes))


def classified(spec: Spec) -> Iterator[tuple[MaskTerm, Found]]:
    """Each formula of a specialised spec's mask, with what was found."""
    waiting: list[object] = [spec.contraction.L]
    for term in waiting:
        if isinstance(term, MaskTerm):
            waiting += term.args
            if term.fn == "entry":
                yield term, classify(_formula(term), spec.scope)


def resolve(spec: Spec) -> Spec:
    """`spec` with the formulas of its mask replaced by the masks that were found for them."""
    c = spec.contraction
    new = _resolved(c.L, spec)
    if new == c.L:
        return spec
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    return Spec._assemble(values | {"contraction": replace(c, L=new)})


def _resolved(term: MaskTerm, spec: Spec) -> MaskTerm:
    if term.fn == "entry":
        found = classify(_formula(term), spec.scope).term
        return term if found is None else found
    args = (_resolved(a, spec) if isinstance(a, MaskTerm) else a for a in term.args)
    return MaskTerm(term.fn, tuple(args))


def _formula(term: MaskTerm) -> Expr:
    (formula,) = term.args
    assert not isinstance(formula, MaskTerm | str | bool)
    return formula


@dataclass(frozen=True, eq=False)
class _Hashable:
    """A scope that compares by the axes of its names."""

    scope: Scope
    axes: tuple[tuple[str, tuple[str, ...]], ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashable) and self.axes == other.axes

    def __hash__(self) -> int:
        return hash(self.axes)


@lru_cache(maxsize=512)
def _classify(formula: Expr, key: _Hashable) -> Found:
    scope = key.scope
    try:
        found = _Reading(formula, scope).found()
    except TooLarge:
        return Found(None, "unknown", None, ("it does not multiply out within the limits",))
    except Unknown as e:
        axes = two_axes.split(formula)
        what = named.name(formula) if e.kind == "unknown" else e.kind
        found = Found(None, what, None, (str(e),)) if axes is None else _per_axis(axes, key)
    if found.term is None:
        return found
    from smac.masks.registry import build

    mask = build(found.term)
    compared = verify(formula, mask, scope)
    if not compared:
        why = "it has no finite value at any of the drawn parameters, and could not be checked"
        return Found(None, "unknown", None, (why,))
    rank, generators = found.rank, mask.generators()
    if generators is not None:
        rank = generators.rank if rank is None else min(rank, generators.rank)
    structure = found.structure.replace(f"rank {found.rank}", f"rank {rank}")
    return Found(found.term, structure, rank, found.lines, compared)


def _per_axis(axes: tuple[int, Expr, Expr], key: _Hashable) -> Found:
    """A formula of two dimensions, as the structure of its factor along each."""
    width, across, down = axes
    columns, rows = (_classify(fold(e), key) for e in (across, down))
    lines = (f"along a row of {width} tokens: {show(fold(across))} is {columns.structure}",
             f"from row to row: {show(fold(down))} is {rows.structure}")  # fmt: skip
    term = None
    if terms.known("kron") and rows.term is not None and columns.term is not None:
        origin = fold(moved(across, ZERO, ZERO))  # both factors have the value at the origin
        term = MaskTerm("kron", (rows.term, columns.term, Num(width)))
        term = terms.scale(fold(call("div", ONE, origin)), term)
    return Found(term, f"2-D separable, {width} tokens wide", None, lines)


class _Reading:
    """One formula on both sides of the diagonal."""

    def __init__(self, formula: Expr, scope: Scope) -> None:
        self.formula, self.scope = formula, scope
        self.lags = frozenset(n for n, axes in scope.of_name.items() if "W" in axes)

    def along(self, e: Expr) -> bool:
        """Whether `e` has a sequence axis."""
        return bool(self.scope.carried(e) & POSITIONS)

    def _side(self, p: Poly, least: int, full: bool = False) -> Side:
        whole = None if full else self._over_lags(least)
        return Realiser(Normal(least, self.along), self.lags, full).side(p, whole)

    def _over_lags(self, least: int) -> Poly | None:
        """The formula as a function of the lag, for which t then stands; None where s stays."""
        formula = exchanged(self.formula) if least else self.formula
        over = moved(formula, call("add", T_POS, S_POS), S_POS)
        try:
            p = Normal(least, self.along, lag=True).poly(over)
        except TooLarge:
            return None
        return None if any("s" in mono_positions(m) for m in p) else p

    def found(self) -> Found:
        lower = Normal(0, self.along).poly(self.formula)
        upper = Normal(1, self.along).poly(exchanged(self.formula))
        if not lower and not upper:
            return Found(terms.scale(ZERO, terms.CAUSAL), "zero", 0, ("zero everywhere",))
        whole = self._all_lags() or self._whole(lower, upper)
        if whole is not None:
            return whole
        if not upper:
            side = self._side(lower, 0)
            return self._named(side.term, side.rank, ("support: t >= s", *side.lines))
        below = self._side(lower, 0) if lower else None
        above = self._side(upper, 1)
        flipped = terms.transpose(above.term)
        if below is None:
            if above.term.fn != "strict" and not _strict(above.term):
                flipped = terms.strict(flipped)
            return self._named(flipped, above.rank, ("support: t < s", *above.lines))
        if not _strict(above.term):
            flipped = terms.strict(flipped)
        rank = None if None in (below.rank, above.rank) else below.rank + above.rank  # type: ignore[operator]
        lines = ("support: both triangles", *(f"below: {x}" for x in below.lines),
                 *(f"above: {x}" for x in above.lines))  # fmt: skip
        return self._named(terms.add(below.term, flipped), rank, lines)

    def _all_lags(self) -> Found | None:
        """h[t − s + T − 1]: lags of both signs, read from an axis with lag 0 in the middle."""
        over = moved(self.formula, call("add", T_POS, S_POS), S_POS)
        try:
            h = symbol(Normal(ANY_LAG, self.along, lag=True).poly(over), self.lags, middle=True)
        except (Unknown, TooLarge):
            return None
        lines = ("support: both triangles", f"Toeplitz: symbol {show(h)}, lag 0 in the middle")
        return Found(terms.toeplitz(h, True), "Toeplitz, no finite rank", None, lines)

    def _whole(self, lower: Poly, upper: Poly) -> Found | None:
        """A mask that the diagonal does not part: rows, columns, documents, matrices."""
        across = Normal(1, self.along).poly(exchanged(expression(lower)))
        if not upper or not close(across, upper):
            return None
        try:
            side = self._side(lower, 0, full=True)
        except Unknown:
            return None
        lines = ("support: both triangles alike", *side.lines)
        return Found(side.term, named.structure(side.term, side.rank, True), side.rank, lines)

    def _named(self, term: MaskTerm, rank: int | None, lines: tuple[str, ...]) -> Found:
        return Found(term, named.structure(term, rank), rank, lines)


def _strict(a: MaskTerm) -> bool:
    return a.fn in ("strict", "shift")
