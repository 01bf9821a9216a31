"""Fits to tensors: approx(toeplitz(h)) for the h at hand, one fit a head.

What differs between heads becomes inputs of the fitted spec (log decays, coefficients, angles, with
the heads' axis); without heads the fit is numbers, as in resolve.py.

Non-goals: tensors of torch (the op hands arrays over), when to fit again (the op's user decides).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from smac.certified import lags
from smac.certified.fit import Fit, Mode, NoFit, fit, split
from smac.certified.resolve import NAME, limits, terms, turned, wave
from smac.errors import PlanError
from smac.expr import Expr, Name, fold, names, substitute
from smac.masks import build
from smac.masks.base import Mask
from smac.spec import Contraction, Input, MaskTerm, Spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

#: What stands for a mode that a head has not.
_NONE = Mode(0.5, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Fitted:
    """`spec` with fits in place of every approx(…), for sequences of up to `horizon` tokens.
    `tensors`: the inputs that it has beyond the original's, float64 over the heads' axis. `fits`:
    of each approx(…), that of the head with the largest error."""

    spec: Spec
    horizon: int
    tensors: Mapping[str, Array]
    fits: tuple[Fit, ...]


def needs(spec: Spec) -> tuple[str, ...]:
    """Inputs whose values the fits of `spec` depend on, in call order."""
    found = {n for t in _every(spec.contraction.L, dict(spec.let)) for n in _reads(t)}
    return tuple(i.name for i in spec.inputs if i.name in found)


def refit(spec: Spec, T: int, given: Mapping[str, Array]) -> Fitted:
    """Every approx(…) of `spec` fitted at T lags; `given`: float64 arrays of the inputs it needs.

    Raises PlanError for inputs whose axes are neither lags nor heads, and where no fit is found.
    """
    work = _Work(spec, T, given)
    L = work.replaced(spec.contraction.L)
    c = spec.contraction
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    values["contraction"] = Contraction(c.equation, c.Q, c.K, c.V, L, c.channel)
    made = tuple(Input(n, (axis,)) for n, axis in work.axes.items())
    lets = dict(spec.let)
    used = _used((c.Q, c.K, c.V, *(e for _, e in spec.output), *_leaves(L)), lets)
    values["inputs"] = (*(i for i in spec.inputs if i.name in used), *made)
    values["let"] = tuple((n, e) for n, e in spec.let if n in used)
    return Fitted(Spec._assemble(values), T, work.tensors, tuple(work.fits))


class _Work:
    """The terms of one spec, as they are replaced."""

    def __init__(self, spec: Spec, T: int, given: Mapping[str, Array]) -> None:
        self.spec, self.T, self.given = spec, T, given
        self.lets = dict(spec.let)
        self.tensors: dict[str, Array] = {}
        self.axes: dict[str, str] = {}
        self.fits: list[Fit] = []

    def replaced(self, term: MaskTerm) -> MaskTerm:
        if term.fn != NAME:
            return MaskTerm(term.fn, tuple(
                self.replaced(a) if isinstance(a, MaskTerm) else a for a in term.args))  # fmt: skip
        inner, tol, most = _inlined(term, self.lets).args
        assert isinstance(inner, MaskTerm)
        mask = build(inner)
        what = f"{self.spec.name}: {NAME}({mask})"
        why = lags.why_not(mask)
        if why is not None:
            raise PlanError(f"{what}: {why}")
        axis = self._heads(mask, what)
        h = self._values(mask, axis, what)
        bounds = limits(tol, most, what)
        found = [self._fit(row, n, mask, bounds, what, axis) for n, row in enumerate(h)]
        worst = max(found, key=lambda f: f.error)
        if axis is None:
            self.fits.append(worst)
            return terms(worst.modes, self.T)
        self.fits.append(replace(worst, text=f"{worst.text} (the worst of {len(found)} heads)"))
        return self._by_head(found, axis, bounds[1], what)

    def _heads(self, mask: Mask, what: str) -> str | None:
        """The axis of heads that the tensors carry, if any."""
        every = [i for i in self.spec.inputs if i.name in lags.reads(mask)]
        found = {a for i in every for a in i.axes} - {"W"}
        odd = found - {"H", *self.spec.groups}
        if odd:
            raise PlanError(f"{what}: found axes {', '.join(sorted(odd))}; expected lags W and "
                            "heads alone: there is one fit a head")  # fmt: skip
        if len(found) > 1:
            raise PlanError(f"{what}: found heads by {' and '.join(sorted(found))}; expected one "
                            "axis of heads")  # fmt: skip
        return next(iter(found), None)

    def _values(self, mask: Mask, axis: str | None, what: str) -> Array:
        """h [heads, T]."""
        arrays = {}
        for i in self.spec.inputs:
            if i.name in lags.reads(mask):
                x = self.given[i.name]
                if i.axes == ("W", axis):
                    x = x.T
                if "W" in i.axes and x.shape[-1] < self.T:
                    raise PlanError(f"{what}: {i.name} has {x.shape[-1]} lags; expected at least "
                                    f"T = {self.T}")  # fmt: skip
                arrays[i.name] = x if "W" in i.axes else x[..., None]
        try:
            h = lags.values(mask.entry(), self.T, arrays)
        except ValueError as e:
            raise PlanError(f"{what}: {e}") from None
        return h if axis is not None else h.reshape(1, self.T)

    def _fit(self, h: Array, head: int, mask: Mask, bounds: tuple[float, int], what: str,
             axis: str | None) -> Fit:  # fmt: skip
        try:
            return fit(h, str(mask), *bounds)
        except NoFit as e:
            where = "" if axis is None else f" of head {head}"
            raise PlanError(f"{what}: no sum of exponentials within tol = {bounds[0]:g} at {self.T}"
                            f" lags{where}: {e}") from None  # fmt: skip

    def _by_head(self, found: list[Fit], axis: str, most: int, what: str) -> MaskTerm:
        """A sum of lanes whose numbers are inputs with the heads' axis."""
        plain = _columns([[m for m in f.modes if not m.angle] for f in found])
        waves = _columns([[m for m in f.modes if m.angle] for f in found])
        rank = len(plain) + 2 * len(waves)
        if rank > most:
            raise PlanError(f"{what}: all heads together take rank {rank}; expected at most "
                            f"max_rank = {most}")  # fmt: skip
        made: list[MaskTerm] = []
        for modes in plain:
            real = self._input([m.real for m in modes], axis)
            made.append(MaskTerm("scale", (real, self._decay(modes, axis))))
        for modes in waves:
            parts = [split(m.angle, self.T) for m in modes]
            turns = turned(*(self._input([p[k] for p in parts], axis) for k in (0, 1)))
            c = [self._input([getattr(m, k) for m in modes], axis) for k in ("real", "sine")]
            made += wave(turns, c[0], c[1], self._decay(modes, axis))
        total = made[0]
        for term in made[1:]:
            total = MaskTerm("add", (total, term))
        return total

    def _decay(self, modes: list[Mode], axis: str) -> MaskTerm:
        """By its logarithm: a decay near 1 rounded to float32 would be wrong far out."""
        logs = [math.log(m.decay) if m.decay else -math.inf for m in modes]
        return MaskTerm("semiseparable", (self._input(logs, axis),))

    def _input(self, numbers: list[float], axis: str) -> Name:
        import numpy

        name = f"fit_{len(self.tensors)}"
        while name in {i.name for i in self.spec.inputs} | self.lets.keys():
            name += "_"
        self.tensors[name], self.axes[name] = numpy.array(numbers), axis
        return Name(name)


def _columns(heads: list[list[Mode]]) -> list[list[Mode]]:
    """Modes by number, then head; a head that has fewer gets some of no weight."""
    ordered = [sorted(modes, key=lambda m: -m.decay) for modes in heads]
    count = max(map(len, ordered))
    return [[modes[n] if n < len(modes) else _NONE for modes in ordered] for n in range(count)]


def _every(term: MaskTerm, lets: Mapping[str, Expr]) -> list[MaskTerm]:
    if term.fn == NAME:
        return [_inlined(term, lets)]
    return [x for a in term.args if isinstance(a, MaskTerm) for x in _every(a, lets)]


def _inlined(term: MaskTerm, lets: Mapping[str, Expr]) -> MaskTerm:
    """`term` with lets put in."""

    def inline(e: Expr) -> Expr:
        while names(e) & lets.keys():
            e = substitute(e, dict(lets))
        return fold(e)

    return MaskTerm(term.fn, tuple(
        _inlined(a, lets) if isinstance(a, MaskTerm) else a if isinstance(a, str | bool)
        else inline(a) for a in term.args))  # fmt: skip


def _leaves(term: MaskTerm) -> list[Expr]:
    return [e for a in term.args if not isinstance(a, str | bool)
            for e in (_leaves(a) if isinstance(a, MaskTerm) else [a])]  # fmt: skip


def _reads(term: MaskTerm) -> frozenset[str]:
    return frozenset[str]().union(*(names(e) for e in _leaves(term)))


def _used(exprs: tuple[Expr, ...], lets: Mapping[str, Expr]) -> set[str]:
    """Names that `exprs` reach, through lets."""
    found, todo = set[str](), {n for e in exprs for n in names(e)}
    while todo:
        name = todo.pop()
        found.add(name)
        if name in lets:
            todo |= set(names(lets[name])) - found
    return found
