"""approx(…) terms replaced by what they are fitted with: a sum of decays, in the mask language.

So neither planner nor lowering nor kernels know of approximations: after `resolve` there is a mask
of finite rank, the same in every order. A real pole becomes c * decay(z). A pair of complex poles
becomes two lanes of one decay: cos(w(t − s)) = cos(wt)cos(ws) + sin(wt)sin(ws). Coefficients are
numbers: nothing is differentiated through a fit.

Non-goals: the fit itself (fit.py); the oracle keeps the mask that is approximated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache

from smac.certified import lags
from smac.certified.fit import Fit, Mode, NoFit, fit, split
from smac.errors import PlanError
from smac.expr import ZERO, Expr, Index, Num, call, number
from smac.masks import build
from smac.masks.base import Mask
from smac.masks.make import add, mul, sub
from smac.spec import Contraction, Spec
from smac.terms import MaskTerm

NAME = "approx"
#: The longest sequence that a fit is measured for.
LONGEST = 2**20
_MOST_RANK = 64


def approximations(term: MaskTerm) -> tuple[MaskTerm, ...]:
    """The approx(…) terms in `term`, in the order in which they are written."""
    if term.fn == NAME:
        return (term,)
    return tuple(x for a in term.args if isinstance(a, MaskTerm) for x in approximations(a))


def resolve(spec: Spec, T: int) -> tuple[Spec, tuple[Fit, ...]]:
    """`spec` (specialised) with every approx(…) fitted for sequences of up to T tokens.

    The same spec where nothing is approximated. Raises PlanError where a mask is no function of
    t − s that is known now, or needs a higher rank than was allowed.
    """
    c = spec.contraction
    if not approximations(c.L):
        return spec, ()
    if T > LONGEST:
        raise PlanError(f"{spec.name}: {NAME}: found T = {T}; expected at most {LONGEST}, the most "
                        "lags that a fit is measured at")  # fmt: skip
    horizon = max(16, 1 << (T - 1).bit_length())
    found: list[Fit] = []
    L = _replaced(c.L, spec, horizon, found)
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    values["contraction"] = Contraction(c.equation, c.Q, c.K, c.V, L, c.channel)
    return Spec._assemble(values), tuple(found)


def _replaced(term: MaskTerm, spec: Spec, horizon: int, found: list[Fit]) -> MaskTerm:
    if term.fn != NAME:
        return MaskTerm(term.fn, tuple(
            _replaced(a, spec, horizon, found) if isinstance(a, MaskTerm) else a
            for a in term.args))  # fmt: skip
    made = fit_of(term, spec, horizon)
    found.append(made)
    return terms(made.modes, horizon)


def fit_of(term: MaskTerm, spec: Spec, horizon: int) -> Fit:
    """The fit of one approx(…) term of `spec`, a power of two lags long. PlanError as `resolve`."""
    inner, tol, most = term.args
    assert isinstance(inner, MaskTerm)
    mask = build(inner)  # a formula as it stands, not as what it is classified to
    what = f"{spec.name}: {NAME}({mask})"
    return fitted(mask, *limits(tol, most, what), horizon, what)


def limits(tol: object, most: object, what: str) -> tuple[float, int]:
    """The two options as numbers that make sense."""
    if not isinstance(tol, Num) or not 0 < tol.value < 1e300:
        raise PlanError(f"{what}: tol: found {_shown(tol)}; expected a number above 0")
    if not isinstance(most, Num) or not isinstance(most.value, int) or not (
        1 <= most.value <= _MOST_RANK):  # fmt: skip
        raise PlanError(f"{what}: max_rank: found {_shown(most)}; expected a whole number from 1 "
                        f"to {_MOST_RANK}")  # fmt: skip
    return float(tol.value), most.value


def _shown(x: object) -> str:
    return f"{x.value!r}" if isinstance(x, Num) else str(x)


def fitted(mask: Mask, tol: float, most: int, horizon: int, what: str) -> Fit:
    """The fit of a mask that only numbers enter. PlanError with the reason where there is none."""
    why = lags.why_not(mask)
    if why is not None:
        raise PlanError(f"{what}: {why}")
    if tensors := lags.reads(mask):
        raise PlanError(f"{what}: it reads {', '.join(tensors)}, whose values are not known when "
                        f"planning; fit it to values by op.refit({tensors[0]}=…)")  # fmt: skip
    try:
        return _numbers(mask, tol, most, horizon)
    except (NoFit, ValueError) as e:
        raise PlanError(f"{what}: no sum of exponentials within tol = {tol:g} at {horizon} lags: "
                        f"{e}") from None  # fmt: skip


@lru_cache(maxsize=256)
def _numbers(mask: Mask, tol: float, most: int, horizon: int) -> Fit:
    return fit(lags.values(mask.entry(), horizon), str(mask), tol, most)


def terms(modes: tuple[Mode, ...], horizon: int) -> MaskTerm:
    """Σ modes in the mask language, for positions below `horizon`."""
    total: MaskTerm | None = None
    for term in (t for m in modes for t in _lanes(m, horizon)):
        total = term if total is None else MaskTerm("add", (total, term))
    assert total is not None
    return total


def _lanes(m: Mode, horizon: int) -> Iterator[MaskTerm]:
    decay = MaskTerm("decay", (number(m.decay),))
    if m.angle:
        turns = turned(*(number(a) for a in split(m.angle, horizon)))
        yield from wave(turns, number(m.real), number(m.sine), decay)
    else:
        yield MaskTerm("scale", (number(m.real), decay))


def wave(turns: tuple[Expr, Expr], real: Expr, sine: Expr, decay: MaskTerm) -> Iterator[MaskTerm]:
    """real cos(w(t − s)) + sine sin(w(t − s)), by what stands before cos(wt) and before sin(wt);
    `turns` are those two."""
    cos, sin = turns
    for read, write in ((cos, sub(mul(real, cos), mul(sine, sin))),
                        (sin, add(mul(real, sin), mul(sine, cos)))):  # fmt: skip
        yield MaskTerm("row", (read, MaskTerm("col", (write, decay))))


def turned(coarse: Expr, fine: Expr) -> tuple[Expr, Expr]:
    """cos and sin of (coarse + fine) t, each product with t exact in float32."""
    turns = [mul(a, Index("T")) for a in (coarse, fine) if a != ZERO]
    cos, sin = [call("cos", x) for x in turns], [call("sin", x) for x in turns]
    if len(turns) == 1:
        return cos[0], sin[0]
    return (sub(mul(cos[0], cos[1]), mul(sin[0], sin[1])),
            add(mul(sin[0], cos[1]), mul(cos[0], sin[1])))  # fmt: skip
