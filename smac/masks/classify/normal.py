"""A formula multiplied out on one side of the diagonal: conditions decided, functions unfolded.

`Normal(least)` reads an expression for lags t − s ≥ least: |t − s| is t − s there, t ≥ s holds, and
every condition on the lag alone becomes steps [t − s ≥ c], so that a window is 1 − [t − s ≥ w].
What it cannot open stays an opaque atom; nothing is approximated.

Non-goals: no structure is looked for (separate.py), no value is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from smac.expr import (
    ONE,
    S_POS,
    ZERO,
    At,
    Between,
    Call,
    Expr,
    Index,
    Name,
    Num,
    call,
    transform,
)
from smac.masks.classify import polynomial as poly
from smac.masks.classify.forms import (
    boolean,
    constant_of,
    either,
    half_wave,
    lag_form,
    leading,
    mono_positions,
    offset,
    placed,
    same_residue,
    settles,
    whole,
)  # fmt: skip
from smac.masks.classify.polynomial import COMPARISONS, UNIT, Mono, Poly, TooLarge

Along = Callable[[Expr], bool]


class Normal:
    """Reads expressions for lags of at least `least`; `along` says which have a sequence axis."""

    def __init__(self, least: int, along: Along, lag: bool = False) -> None:
        """With `lag`, t is the lag itself and there is no s."""
        self.least, self.along, self.lag = least, along, lag

    def poly(self, e: Expr) -> Poly:
        """`e` multiplied out. Raises TooLarge."""
        match e:
            case Num(value) if math.isfinite(value):
                return poly.constant(Fraction(value))
            case At(base, index):
                return self._at(base, index)
            case Between(base, low, high):
                return self._between(base, low, high)
            case Call(fn, args):
                return self._call(fn, args)
            case _:
                return poly.atom(e)

    def canonical(self, e: Expr) -> Expr:
        """`e` in canonical order."""
        return poly.expression(self.poly(e))

    def _call(self, fn: str, args: tuple[Expr, ...]) -> Poly:
        match fn, args:  # a condition compared with 0 or 1 is itself, or its opposite
            case ("eq" | "ne", (a, Num(0 | 1) as n)) | ("eq" | "ne", (Num(0 | 1) as n, a)) if (
                boolean(a)
            ):
                holds = (fn == "eq") == (n.value == 1)
                c = self.truth(a)
                return c if holds else poly.add(poly.constant(1), c, -1)
        if fn in COMPARISONS:
            return self._compare(fn, poly.add(self.poly(args[0]), self.poly(args[1]), -1))
        own = getattr(self, f"_{fn}", None)
        return own(*args) if own is not None else self._opaque(fn, args)

    def _opaque(self, fn: str, args: tuple[Expr, ...]) -> Poly:
        return poly.atom(Call(fn, tuple(self.canonical(a) for a in args)))

    # ---- arithmetic

    def _add(self, a: Expr, b: Expr) -> Poly:
        return poly.add(self.poly(a), self.poly(b))

    def _sub(self, a: Expr, b: Expr) -> Poly:
        return poly.add(self.poly(a), self.poly(b), -1)

    def _neg(self, a: Expr) -> Poly:
        return poly.add({}, self.poly(a), -1)

    def _mul(self, a: Expr, b: Expr) -> Poly:
        return poly.times(self.poly(a), self.poly(b))

    def _div(self, a: Expr, b: Expr) -> Poly:
        return poly.times(self.poly(a), self._inverse(self.poly(b)))

    def _inverse(self, p: Poly) -> Poly:
        """1 / p, where p is one product, or a sum as one atom."""
        if not p:
            raise TooLarge  # a division by zero is no structure
        if len(p) == 1:
            ((m, c),) = p.items()
            if not any(isinstance(e, Call) and e.fn in COMPARISONS for e, _ in m.powers):
                powers = tuple((e, -n) for e, n in m.powers)
                return {Mono(powers, tuple((x, -k) for x, k in m.exponent)): 1 / c}
        first = p[min(p, key=poly.mono_key)]
        whole = poly.expression({m: c / first for m, c in p.items()})
        return {Mono(((whole, -1),)): 1 / first}

    def _pow(self, a: Expr, b: Expr) -> Poly:
        base, by = self.poly(a), self.poly(b)
        n = constant_of(by)
        if n is not None and n.denominator == 1 and abs(n) <= 64:
            if n < 0:
                base = self._inverse(base)
            return poly.power(base, abs(int(n)))
        k = constant_of(base)
        if k is not None and k < 0:
            return self._signed(abs(k), by)
        return poly.exponential(poly.times(by, self._log_of(base)))

    def _signed(self, size: Fraction, by: Poly) -> Poly:
        """(−size)^by for a whole exponent: the sign is a parity of each position."""
        if not whole(by):
            raise TooLarge
        sign = poly.constant(1)
        for m, c in by.items():
            if c % 2 == 0:
                continue
            if m == UNIT:
                sign = poly.add({}, sign, -1)
            else:
                odd = call("mod", poly.product(m), Num(2))
                sign = poly.times(sign, poly.atom(call("sub", ONE, call("mul", Num(2), odd))))
        sizes = self._log_of(poly.constant(size))
        return poly.times(sign, poly.exponential(poly.times(by, sizes)))

    def _log_of(self, p: Poly) -> Poly:
        """log p for a positive p: of one product, the sum of its logs."""
        if len(p) != 1:
            return poly.atom(call("log", poly.expression(p)))
        ((m, c),) = p.items()
        if c < 0:
            return poly.atom(call("log", poly.expression(p)))
        out: Poly = dict(m.exponent)
        if c != 1:
            out = poly.add(out, poly.atom(call("log", poly.value_of(c))))
        for e, n in m.powers:
            match e:
                case Call("sqrt", (x,)):
                    out = poly.add(out, self._log_of(self.poly(x)), Fraction(n, 2))
                case _:
                    out = poly.add(out, poly.atom(call("log", e)), n)
        return out

    # ---- functions

    def _exp(self, a: Expr) -> Poly:
        return poly.exponential(self.poly(a))

    def _log(self, a: Expr) -> Poly:
        p = self.poly(a)
        if len(p) == 1 and not next(iter(p)).powers and p[next(iter(p))] > 0:
            return self._log_of(p)
        return poly.atom(call("log", poly.expression(p))) if constant_of(p) != 1 else {}

    def _sqrt(self, a: Expr) -> Poly:
        p = self.poly(a)
        if len(p) == 1 and not next(iter(p)).powers and p[next(iter(p))] > 0:
            return poly.exponential(poly.times(self._log_of(p), poly.constant(Fraction(1, 2))))
        return poly.atom(call("sqrt", poly.expression(p)))

    def _cos(self, a: Expr) -> Poly:
        return self._wave(self.poly(a), "cos")

    def _sin(self, a: Expr) -> Poly:
        return self._wave(self.poly(a), "sin")

    def _wave(self, p: Poly, fn: str) -> Poly:
        """cos or sin of a sum f(t) + g(s), by the theorems of addition; else one atom."""
        if not p:
            return poly.constant(1 if fn == "cos" else 0)
        column, row = poly.select(p, lambda m: mono_positions(m) == {"s"})
        if column and row and all(mono_positions(m) <= {"t"} for m in row):
            if not any("t" in mono_positions(m) for m in row):
                return half_wave(p, fn)
            ct, st = half_wave(row, "cos"), half_wave(row, "sin")
            cs, ss = half_wave(column, "cos"), half_wave(column, "sin")
            if fn == "cos":
                return poly.add(poly.times(ct, cs), poly.times(st, ss), -1)
            return poly.add(poly.times(st, cs), poly.times(ct, ss))
        return half_wave(p, fn)

    def _abs(self, a: Expr) -> Poly:
        p = self.poly(a)
        lag = lag_form(p, self.lag)
        if lag is not None and lag[0] < 0:
            p = poly.add({}, p, -1)
        sign = self._compare("ge", p)
        if settles(sign, p):
            return poly.times(poly.add(poly.add({}, sign, 2), poly.constant(1), -1), p)
        if p and min(p.items(), key=lambda x: poly.mono_key(x[0]))[1] < 0:
            p = poly.add({}, p, -1)
        return poly.atom(call("abs", poly.expression(p)))

    def _relu(self, a: Expr) -> Poly:
        return self._maximum(a, ZERO)

    def _maximum(self, a: Expr, b: Expr) -> Poly:
        x, y = self.poly(a), self.poly(b)
        if boolean(a) and boolean(b):
            return poly.add(poly.add(x, y), poly.times(x, y), -1)
        which = self._compare("ge", poly.add(x, y, -1))
        if not settles(which, poly.add(x, y, -1)):
            return self._opaque("maximum", (a, b))
        return either(which, x, y)

    def _minimum(self, a: Expr, b: Expr) -> Poly:
        x, y = self.poly(a), self.poly(b)
        if boolean(a) and boolean(b):
            return poly.times(x, y)
        which = self._compare("ge", poly.add(x, y, -1))
        if not settles(which, poly.add(x, y, -1)):
            return self._opaque("minimum", (a, b))
        return either(which, y, x)

    def _clamp(self, x: Expr, low: Expr, high: Expr) -> Poly:
        return self._minimum(call("maximum", x, low), high)

    def _where(self, condition: Expr, a: Expr, b: Expr) -> Poly:
        truth = self.truth(condition)
        known = constant_of(truth)
        if known is not None:
            return self.poly(a if known else b)
        return either(truth, self.poly(a), self.poly(b))

    def _mod(self, a: Expr, b: Expr) -> Poly:
        p, n = self.poly(a), constant_of(self.poly(b))
        if n is None or n.denominator != 1 or n < 1 or not whole(p):
            return self._opaque("mod", (a, b))
        left = {m: c % n for m, c in p.items() if c % n}
        if set(left) <= {UNIT}:
            return poly.constant(left.get(UNIT, Fraction(0)))
        near = {m: (c - n if m != UNIT and 2 * c > n else c) for m, c in left.items()}
        return poly.atom(call("mod", poly.expression(near), Num(int(n))))

    # ---- conditions

    def truth(self, e: Expr) -> Poly:
        """1 where `e` is not 0, else 0."""
        match e:
            case Call(fn, _) if fn in COMPARISONS:
                return self.poly(e)
            case Call("mul" | "minimum" as fn, (a, b)) if fn == "mul" or boolean(e):
                return poly.times(self.truth(a), self.truth(b))
            case Call("add" | "maximum", (a, b)) if boolean(a) and boolean(b):
                x, y = self.truth(a), self.truth(b)
                return poly.add(poly.add(x, y), poly.times(x, y), -1)
        p = self.poly(e)
        return p if boolean(e) else poly.add(poly.constant(1), self._compare("eq", p), -1)

    def _compare(self, fn: str, p: Poly) -> Poly:
        """[p fn 0], over atoms [q ≥ 0] and [q = 0] alone."""
        one = poly.constant(1)
        if fn in ("lt", "gt", "le", "ne"):
            if fn == "le":
                return self._compare("ge", poly.add({}, p, -1))
            opposite = {"lt": "ge", "ne": "eq", "gt": "le"}[fn]
            return poly.add(one, self._compare(opposite, p), -1)
        known = constant_of(p)
        if known is not None:
            return one if (known >= 0 if fn == "ge" else known == 0) else {}
        lag = lag_form(p, self.lag)
        if lag is not None:
            return self._lag_condition(fn, *lag)
        if fn == "eq":
            return self._equal(p)
        first = leading(p)
        if first < 0 and whole(p):  # [−q ≥ 0] = 1 − [q − 1 ≥ 0] for integers
            up = poly.add(poly.add({}, p, -1), one, -1)
            return poly.add(one, self._compare("ge", up), -1)
        if not whole(p):
            p = {m: c / abs(first) for m, c in p.items()}
        rest, moved_over = poly.select(p, lambda m: m != UNIT)
        value = poly.value_of(-moved_over.get(UNIT, Fraction(0)))
        return poly.atom(call("ge", poly.expression(rest), value))

    def _equal(self, p: Poly) -> Poly:
        first = leading(p)
        p = {m: c / first for m, c in p.items()}
        same = same_residue(p)
        if same is not None:
            return poly.atom(call("eq", same, ZERO))
        return poly.atom(call("eq", poly.expression(p), ZERO))

    def _lag_condition(self, fn: str, k: Fraction, c: Fraction) -> Poly:
        """[k·n + c ≥ 0] or [k·n + c = 0] as steps of n."""
        at = -c / k
        if fn == "eq":
            if at.denominator != 1:
                return {}
            return poly.add(self._step(int(at)), self._step(int(at) + 1), -1)
        if k > 0:
            return self._step(math.ceil(at))
        return poly.add(poly.constant(1), self._step(math.floor(at) + 1), -1)

    def _step(self, c: int) -> Poly:
        return poly.constant(1) if c <= self.least else poly.step_atom(c)

    # ---- what is read at positions

    def _at(self, base: Expr, index: tuple[Expr, ...]) -> Poly:
        """A pointwise base is taken apart: (x · A)[t] is x[t] · A."""
        at = tuple(self.canonical(i) for i in index)

        def read(e: Expr) -> Expr | None:
            match e:
                case Call("runs" | "starts", _):
                    return At(e, at)
                case Name() if self.along(e):
                    return At(e, at)
                case Index("T"):
                    return at[0]
            return None

        if isinstance(base, Name) or (isinstance(base, Call) and base.fn in ("runs", "starts")):
            return poly.atom(At(base, at) if self.along(base) else base)
        return self.poly(transform(base, read))

    def _between(self, base: Expr, low: Expr, high: Expr) -> Poly:
        (a, i), (b, j) = offset(self.poly(low)), offset(self.poly(high))
        if a == b or (a, b) == ("t", "s"):
            shift = self.least if a != b else 0
            if j - i - shift <= 0:
                return {}  # the range is empty on this side of the diagonal
        if (a, b, i) == ("s", "t", -1):
            return poly.add(self._at(base, (S_POS,)), self._between(base, S_POS, high))
        return poly.atom(Between(self.canonical(base), placed(a, i), placed(b, j)))
