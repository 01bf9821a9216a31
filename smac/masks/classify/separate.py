"""One product of a multiplied-out formula, sorted by what its factors depend on.

    coefficient · row(t) · col(s) · t^i · s^j · exp Σ_{k=s+1..t} log_decay[k] · [t − s ≥ step] · …

Non-goals: sums of such parts (realise.py), what only the lag decides (lag.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from smac.expr import (
    S_POS,
    T_POS,
    ZERO,
    At,
    Between,
    Call,
    Expr,
    Index,
    Name,
    Num,
    Pos,
    Size,
    call,
    transform,
    walk,
)
from smac.masks.classify import polynomial as poly
from smac.masks.classify import terms
from smac.masks.classify.forms import mono_positions, moved, positions
from smac.masks.classify.normal import Normal
from smac.masks.classify.polynomial import UNIT, Mono, Poly
from smac.show import show

#: A log decay that resets (at or below −256; see `masks.base.Lane`).
RESET = Num(-1000)


class Unknown(Exception):
    """No structure was found; the message says where. `kind`: the name of the kernel, if any."""

    def __init__(self, message: str, kind: str = "unknown") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Part:
    """See the module's docstring; `inner_row`, `inner_col` are read at t − 1 and s + 1.

    `log_decay` is a sum of products over inputs (of names, not of positions). `extra` holds masks
    to multiply by, as (fn, argument). `shift`: how far the sum of decays ends before t, starts
    after s + 1.
    """

    coefficient: Poly
    t: int = 0
    s: int = 0
    row: Poly = field(default_factory=lambda: poly.constant(1))
    col: Poly = field(default_factory=lambda: poly.constant(1))
    inner_row: Poly = field(default_factory=lambda: poly.constant(1))
    inner_col: Poly = field(default_factory=lambda: poly.constant(1))
    log_decay: Poly = field(default_factory=dict)
    lag: Poly = field(default_factory=lambda: poly.constant(1))
    step: int = 0
    extra: tuple[tuple[str, Expr], ...] = ()
    shift: tuple[int, int] = (0, 0)


class Sorter:
    """Sorts the factors of products read by `normal`."""

    def __init__(self, normal: Normal) -> None:
        self.normal = normal
        self.free = Normal(normal.least, normal.along)

    def part(self, m: Mono, c: Fraction) -> Part:
        """The factors of c·m, sorted. Raises Unknown."""
        self.out: dict[str, Poly] = {
            name: poly.constant(1)
            for name in ("coefficient", "row", "col", "inner_row", "inner_col", "lag")
        }
        self.out["coefficient"] = poly.constant(c)
        self.decay: Poly = {}
        self.extra: list[tuple[str, Expr]] = []
        self.shift: tuple[int, int] | None = None
        t = s = step = 0
        for e, n in m.powers:
            if e == T_POS and n > 0:
                t += n
            elif e == S_POS and n > 0:
                s += n
            elif poly.step(e) is not None:
                step = poly.step(e) or 0
            else:
                self._factor(e, n)
        self._exponent(dict(m.exponent))
        shift = self.shift or (0, 0)
        shift = (max(shift[0], int(self.out["inner_row"] != poly.constant(1))),
                 max(shift[1], int(self.out["inner_col"] != poly.constant(1))))  # fmt: skip
        if self.shift is not None and shift != self.shift:
            raise Unknown("a value at t - 1 or s + 1 beside a sum that does not end there")
        return Part(t=t, s=s, step=step, log_decay=self.decay, shift=shift,
                    extra=tuple(sorted(self.extra, key=lambda x: (x[0], show(x[1])))),
                    **self.out)  # fmt: skip

    def _times(self, slot: str, p: Poly) -> None:
        self.out[slot] = poly.times(self.out[slot], p)

    def _factor(self, e: Expr, n: int) -> None:
        """One atom to a power, into its slot."""
        where = positions(e)
        if not where:
            self._times("coefficient", poly.atom(e, n))
            return
        if self._condition(e) or self._wave(e, n):
            return
        if len(where) == 1:
            self._one_sided(e, n, "t" in where)
            return
        if n == 1 and self._around(e):
            return
        lag = self.lag_of(poly.atom(e, n))
        if lag is not None:
            self._times("lag", lag)
            return
        match e:
            case At(base, (Pos("t"), Pos("s"))) if n == 1:
                self.extra.append(("dense", base))
            case _:
                raise Unknown(f"{show(e)} is a function of both t and s", self._kind(e, n))

    def _kind(self, e: Expr, n: int) -> str:
        """The name of a factor that does not come apart."""
        match e:
            case Call("eq", (Call("add" | "sub", _) as left, Num(0))):
                found = [poly.product(m) for m in self.free.poly(left)]
                bases = {x.base for x in found if isinstance(x, At)}
                if len(found) == 2 and len(bases) == 1:
                    return "equal ids (blocks, not runs: see document(ids))"
            case Call("add" | "sub", _) if n < 0:
                if all(len(mono_positions(m)) < 2 for m in self.free.poly(e)):
                    return "Cauchy (no finite rank)"
        return "unknown"

    def _one_sided(self, e: Expr, n: int, row: bool) -> None:
        """A function of t alone or of s alone, read there or one token nearer to the other."""
        here, offsets = (T_POS, S_POS)[not row], {0: "", (-1 if row else 1): "inner_"}
        for off, prefix in offsets.items():
            at = here if off == 0 else call("add" if off > 0 else "sub", here, Num(1))
            found = self._pointwise(e, at)
            if found is not None:
                self._times(prefix + ("row" if row else "col"), poly.atom(found, n))
                return
        raise Unknown(f"{show(e)} is read elsewhere than at {'t' if row else 's'}")

    def _pointwise(self, e: Expr, at: Expr) -> Expr | None:
        """`e` as an expression over the sequence axis, where it is all read at `at`."""
        at = self.normal.canonical(at)

        def one(n: Expr) -> Expr | None:
            if isinstance(n, At):
                return n.base if n.index == (at,) and isinstance(n.base, Name) else n
            return Index("T") if n == at and isinstance(at, Pos) else None

        def stop(n: Expr) -> Expr | None:
            new = one(n)
            return new if new is not n or isinstance(n, At) else None

        out = transform(e, stop)
        kept = any(isinstance(n, At | Between | Pos) for n in walk(out))
        return None if kept else out

    # ---- conditions and waves of both positions

    def _condition(self, e: Expr) -> bool:
        """[… = 0] as a document, a period or a block mask; False when it is none of these."""
        match e:
            case Call("eq", (Call("mod", (lag, Num(int(d)))), Num(0))) if self._is_lag(lag):
                self.extra.append(("period", Num(d)))
                return True
            case Call("eq", (left, Num(0))) if terms.known("level") and self._level(left):
                return True
            case Call("eq", (left, Num(0))) if positions(left) == {"t", "s"}:
                return self._equal(left)
        return False

    def _level(self, left: Expr) -> bool:
        """bit_length(t ^ s) = l, for pairs on and below the diagonal."""
        p = self.free.poly(left)
        level = [m for m in p if m != UNIT]
        if len(level) != 1 or p[level[0]] not in (1, -1):
            return False
        l = -p.get(UNIT, Fraction(0)) / p[level[0]]  # noqa: E741 (the paper's letter)
        match poly.product(level[0]):
            case Call("bit_length", (Call("xor", (a, b)),)) if {a, b} == {T_POS, S_POS} and l >= 0:
                self.extra.append(("level", poly.value_of(l)))
                return True
        return False

    def _around(self, e: Expr) -> bool:
        """h[(t − s) mod T], up to turns of T."""
        if not wraps(e) or not isinstance(e, At):
            return False
        (index,) = e.index
        assert isinstance(index, Call)
        if self._is_turn(index.args[0]):
            self.extra.append(("circulant", e.base))
            return True
        return False

    def _is_turn(self, e: Expr) -> bool:
        p = {m: c for m, c in self.free.poly(e).items() if m != Mono(((Size("T"), 1),))}
        return p == self.free.poly(call("sub", T_POS, S_POS))

    def _is_lag(self, e: Expr) -> bool:
        p = self.free.poly(e)
        return p == self.free.poly(call("sub", T_POS, S_POS)) or p == self.free.poly(
            call("sub", S_POS, T_POS)
        )

    def _equal(self, left: Expr) -> bool:
        match left:
            case Between(Call("starts", (ids,)), Pos("s"), Pos("t")):
                self.extra.append(("document", ids))
                return True
            case Between(base, Pos("s"), Pos("t")) if _never_negative(base):
                cut = call("where", call("gt", base, ZERO), RESET, ZERO)
                self.decay = poly.add(self.decay, poly.atom(cut))
                return True
        terms = sorted((m for m in self.free.poly(left)), key=poly.mono_key)
        match [poly.product(m) for m in terms]:
            case [At(Call("runs", (ids,)), (Pos("s"),)), At(Call("runs", (same,)), (Pos("t"),))]:
                if ids == same:
                    self.extra.append(("document", ids))
                    return True
            case [Call("floordiv", (Pos("s"), d)), Call("floordiv", (Pos("t"), e))] if d == e:
                starts = call("eq", call("mod", Index("T"), d), ZERO)
                self.decay = poly.add(self.decay, poly.atom(call("where", starts, RESET, ZERO)))
                return True
        return False

    def _wave(self, e: Expr, n: int) -> bool:
        """cos or sin of 2π·t·s/T."""
        match e:
            case Call("cos" | "sin" as fn, (angle,)) if n == 1:
                key = Mono(tuple(sorted(((S_POS, 1), (T_POS, 1), (Size("T"), -1)),
                                        key=lambda x: poly.key(x[0]))))  # fmt: skip
                p = self.free.poly(angle)
                if set(p) == {key} and abs(float(p[key]) - 2 * math.pi) < 1e-14:
                    self.extra.append(("fourier", Name(fn)))
                    return True
        return False

    # ---- exponents

    def _exponent(self, e: Poly) -> None:
        sums, e = poly.select(e, lambda m: any(isinstance(a, Between) for a in poly.atoms([m])))
        for m, c in sums.items():
            self._sum(m, c)
        plain, e = poly.select(e, lambda m: bool(mono_positions(m)) and _only_positions(m))
        self._polynomial(plain)
        for m, c in e.items():
            where = mono_positions(m)
            if not where:
                self._times("coefficient", poly.exponential({m: c}))
            elif len(where) == 1:
                continue
            else:
                lag = self.lag_of(poly.exponential({m: c}))
                if lag is None:
                    text = show(poly.expression(poly.exponential({m: c})))
                    kind = "Vandermonde (no finite rank)" if len(m.powers) > 1 else "unknown"
                    raise Unknown(f"{text} mixes t and s", kind)
                self._times("lag", lag)
        alone = {m: c for m, c in e.items() if len(mono_positions(m)) == 1}
        for m, c in self._differences(alone).items():
            factor = poly.expression(poly.exponential({m: c}))
            self._one_sided(factor, 1, "t" in mono_positions(m))

    def _differences(self, alone: Poly) -> Poly:
        """What is left without g[t] − g[s]: a product of decays, not exp(g[t]) · exp(−g[s])."""
        left, g = dict(alone), dict[Mono, Fraction]()
        for m, c in alone.items():
            other = self.free.poly(moved(poly.product(m), S_POS, T_POS))
            same = next(iter(other), m)
            if "t" in mono_positions(m) and len(other) == 1 and alone.get(same) == -c * other[same]:
                g[m] = c
                del left[m], left[same]
        if g:
            rise = self._pointwise(poly.expression(g), T_POS)
            if rise is None:
                raise Unknown(f"exp of a difference of {show(poly.expression(g))}: it is read "
                              "elsewhere than at t and s")  # fmt: skip
            self.extra.append(("cumulative", rise))
        return left

    def _sum(self, m: Mono, c: Fraction) -> None:
        """coefficient · Σ base between the positions."""
        found = [(e, n) for e, n in m.powers if isinstance(e, Between)]
        rest = Mono(tuple(x for x in m.powers if x not in found), m.exponent)
        if len(found) != 1 or found[0][1] != 1 or mono_positions(rest):
            raise Unknown(f"exp({show(poly.product(m))}): expected one sum over k, times a factor "
                          "without t and s")  # fmt: skip
        ((between, _),) = found
        assert isinstance(between, Between)
        shift = _ends(between)
        if shift is None or self.shift not in (None, shift):
            raise Unknown(f"{show(between)} does not run from s + 1 (or s + 2) to t (or t - 1)")
        self.shift = shift
        if c == 1 and rest == UNIT:
            match between.base:
                case Call("log", (Call("sub", (Num(1), Call("starts", (ids,)))),)):
                    self.extra.append(("document", ids))
                    return
        base = poly.times({rest: c}, self.free.poly(between.base))
        self.decay = poly.add(self.decay, base)

    def _polynomial(self, p: Poly) -> None:
        """An exponent that is a polynomial in t and s: a rate where it is r·(t − s)."""
        if not p:
            return
        over = self.free.poly(moved(poly.expression(p), call("add", T_POS, S_POS), S_POS))
        lag, over = poly.select(over, lambda m: mono_positions(m) == {"t"})
        for m, c in lag.items():
            if dict(m.powers).get(T_POS) == 1:
                rate = Mono(tuple(x for x in m.powers if x[0] != T_POS), m.exponent)
                self.decay = poly.add(self.decay, {rate: c})
            else:
                self._times("lag", poly.exponential({m: c}))
        for m, c in over.items():
            if mono_positions(m) != {"s"}:
                raise Unknown(f"exp({show(poly.expression(p))}) mixes t and s",
                              "Vandermonde (a chirp; no finite rank)")  # fmt: skip
            self._one_sided(poly.expression(poly.exponential({m: c})), 1, False)

    def lag_of(self, p: Poly) -> Poly | None:
        """The terms over the lag, which t then stands for; None where s stays."""
        over = moved(poly.expression(p), call("add", T_POS, S_POS), S_POS)
        try:
            out = Normal(self.normal.least, self.normal.along, lag=True).poly(over)
        except poly.TooLarge:
            return None
        return None if any("s" in mono_positions(m) for m in out) else out


def wraps(e: Expr) -> bool:
    """Whether `e` is read around a circle of T tokens, and the language has masks of that."""
    match e:
        case At(_, (Call("mod", (_, Size("T"))),)):
            return terms.known("circulant")
    return False


def _only_positions(m: Mono) -> bool:
    """A product of powers of t and s and of what has no position."""
    return not m.exponent and all(
        (isinstance(e, Pos) and n > 0) or not positions(e) for e, n in m.powers
    )


def _ends(e: Between) -> tuple[int, int] | None:
    """(i, j) for the sum over s + 1 + j ≤ k ≤ t − i, both 0 or 1."""
    highs: Mapping[Expr, int] = {T_POS: 0, call("sub", T_POS, Num(1)): 1}
    lows: Mapping[Expr, int] = {S_POS: 0, call("add", S_POS, Num(1)): 1}
    if e.high not in highs or e.low not in lows:
        return None
    return highs[e.high], lows[e.low]


def _never_negative(e: Expr) -> bool:
    """Whether `e` ≥ 0 by its form."""
    match e:
        case Num(value):
            return value >= 0
        case Call("exp" | "abs" | "sigmoid" | "softplus" | "relu" | "sqrt" | "starts", _):
            return True
        case Call("lt" | "le" | "gt" | "ge" | "eq" | "ne", _):
            return True
        case Call("pow", (_, Num(int(n)))):
            return n % 2 == 0
        case Call("add" | "mul" | "div" | "minimum", (a, b)):
            return _never_negative(a) and _never_negative(b)
        case Call("sub", (Num(1), a)):
            return isinstance(a, Call) and a.fn in poly.COMPARISONS
    return False
