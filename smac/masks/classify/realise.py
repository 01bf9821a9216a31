"""Sorted parts → a mask of the algebra: one side of the diagonal at a time.

Only stable realisations: a decay is a decay (never γ^t · γ^−s), n^i beside a decay stays a function
of the lag, a cosine of the lag is two bounded rows and columns.

Non-goals: which side is which (`classify`), checks of numbers (check.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from smac.expr import ONE, S_POS, T_POS, Call, Expr, Index, Name, Num, call
from smac.masks.algebra import MAX_RANK
from smac.masks.classify import lag as lags
from smac.masks.classify import polynomial as poly
from smac.masks.classify import terms
from smac.masks.classify.forms import moved
from smac.masks.classify.normal import Normal
from smac.masks.classify.polynomial import Mono, Poly
from smac.masks.classify.separate import Part, Sorter, Unknown, wraps
from smac.masks.make import mul
from smac.show import show
from smac.terms import MaskTerm

MAX_MASKS, MAX_PERIOD = 32, 16
_ONES_ON_DIAGONAL = ("decay", "semiseparable", "cumulative", "document")


@dataclass(frozen=True)
class Side:
    """One side of the diagonal: a lower triangular mask and what it was made by.

    `rank`: of the strictly lower blocks, an upper bound; None where it is not finite or not known.
    """

    term: MaskTerm
    rank: int | None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Realiser:
    """`lag_names`: inputs over W; `along`: does an expression carry T."""

    normal: Normal
    lag_names: frozenset[str]
    full: bool = False
    lines: list[str] = field(default_factory=list)

    def side(self, p: Poly, whole: Poly | None) -> Side:
        """The mask of a multiplied-out formula; `whole` is the formula over the lag, where it is a
        function of that alone. Raises Unknown, TooLarge."""
        around = any(wraps(e) for e in poly.atoms(p))
        if whole is not None and not around and not self._plain(whole):
            return self._toeplitz(whole)
        p = self._closed(p)
        groups: dict[Key, tuple[Part, dict[int, Poly]]] = {}
        sorter = Sorter(self.normal)
        for m, c in self._split(p, sorter).items():
            part = sorter.part(m, c)
            rest = replace(part, coefficient=HELD, t=0, s=0, step=0)
            _, at = groups.setdefault(_key(rest), (rest, {}))
            at[part.step] = poly.add(at.get(part.step, {}), _powers(part))
        kernels: dict[Key, tuple[Part, dict[int, Fraction], list[Pair]]] = {}
        for rest, by_step in groups.values():
            for weights, factor in _proportional(by_step):
                for part, pairs in self._pairs(rest, factor):
                    alone = replace(part, row=HELD, col=HELD)
                    key = (*_key(alone), tuple(sorted(weights.items())))
                    kernels.setdefault(key, (alone, weights, []))[2].extend(pairs)
        return self._sum(kernels.values())

    def _sum(self, kernels: Iterable[tuple[Part, dict[int, Fraction], list[Pair]]]) -> Side:
        """The kernels, each with its rows and columns, added up."""
        masks: list[MaskTerm] = []
        ranks: list[int | None] = []
        for part, weights, pairs in kernels:
            merged = _merged(pairs)
            kernel, rank = self._kernel(part, weights)
            masks += [self._wrap(kernel, row, col) for row, col in merged]
            ranks.append(None if rank is None else rank * len(merged))
            if len(merged) > 1:
                self.lines.append(f"{len(merged)} columns beside it, each with its row")
        if len(masks) > MAX_MASKS:
            raise Unknown(f"a sum of {len(masks)} masks; at most {MAX_MASKS} are kept apart")
        known = [r for r in ranks if r is not None]
        return Side(terms.total(masks), sum(known) if len(known) == len(ranks) else None,
                    tuple(dict.fromkeys(self.lines)))  # fmt: skip

    def _wrap(self, kernel: MaskTerm, row: Poly, col: Poly) -> MaskTerm:
        """Rows and columns around a mask; what has no sequence axis scales it."""
        c: Expr = ONE
        rows, cols = poly.expression(row), poly.expression(col)
        if not self._varies(rows):
            c, rows = rows, ONE
        if not self._varies(cols):
            c, cols = mul(c, cols), ONE
        return terms.wrap(kernel, rows, cols, c)

    def _varies(self, e: Expr) -> bool:
        return self.normal.along(e)

    def _closed(self, p: Poly) -> Poly:
        """[n ≥ 1]·f + [n = 0]·g is f, where g is what f is on the diagonal."""
        below, rest = poly.select(p, lambda m: lags.steps(m) == 1)
        if not below or self.normal.least:
            return p
        off = poly.add({lags.without_step(m): c for m, c in below.items()}, rest)
        return off if self._on_diagonal(off) == self._on_diagonal(rest) else p

    def _on_diagonal(self, p: Poly) -> Poly:
        return self.normal.poly(moved(poly.expression(p), T_POS, T_POS))

    def _split(self, p: Poly, sorter: Sorter) -> Poly:
        """A sum that ends before t counts from lag 1; its value at lag 0 is a diagonal."""
        out: Poly = {}
        for m, c in p.items():
            part = sorter.part(m, c)
            if sum(part.shift) == 1 and max(part.step, self.normal.least) < 1:
                first = poly.step_atom(1)
                here = self._on_diagonal({m: c})
                below = poly.add(poly.constant(1), first, -1)
                out = poly.add(out, poly.add(poly.times({m: c}, first), poly.times(here, below)))
            else:
                out = poly.add(out, {m: c})
        return out

    # ---- functions of the lag

    def _toeplitz(self, p: Poly) -> Side:
        """All of it as h over the lag axis, where no sum of decays is a stable form of it."""
        by_step: dict[int, Poly] = {}
        for m, c in p.items():
            at = by_step.setdefault(lags.steps(m), {})
            by_step[lags.steps(m)] = poly.add(at, {lags.without_step(m): c})
        rank = lags.rank(p)
        ends = sorted(by_step)
        if len(ends) == 2 and ends[0] == 0 and not poly.add(by_step[0], by_step[ends[1]]):
            term = terms.mul(self._symbol(by_step[0]), terms.window(ends[1]))
            self.lines.append(f"band: lags below {ends[1]}, a ring of {ends[1]} tokens")
            return Side(term, None, tuple(self.lines))
        term = self._symbol(p)
        if rank is None:
            self.lines.append("no finite rank found: n^i exp(r n) cos(w n) are the lag functions "
                              "that have one")  # fmt: skip
        else:
            self.lines.append(f"exponential polynomial of the lag: a linear recurrence of order "
                              f"{rank} (a Jordan block a rate)")  # fmt: skip
        return Side(term, rank, tuple(self.lines))

    def _symbol(self, p: Poly) -> MaskTerm:
        h = lags.symbol(p, self.lag_names)
        self.lines.append(f"Toeplitz: symbol h(n) = {show(poly.expression(p)).replace('t', 'n')}"
                          if not self.lag_names else f"Toeplitz: symbol {show(h)}")  # fmt: skip
        return terms.toeplitz(h)

    # ---- groups of parts that differ in powers of t and s, and in steps

    def _pairs(self, part: Part, factor: Poly) -> list[tuple[Part, list[Pair]]]:
        """(row, column) for each product of powers; a polynomial of the lag stays one: in powers
        of lag(), or beside a decay as a function of the lag."""
        over = self.normal.poly(moved(poly.expression(factor), call("add", T_POS, S_POS), S_POS))
        spread = any(e in (T_POS, S_POS) for m in factor for e, _ in m.powers)
        in_lag = spread and not any(e == S_POS for m in over for e, _ in m.powers)
        if in_lag and terms.known("lag") and part.lag == HELD:
            return [_with_power(part, m, c) for m, c in over.items()]
        if in_lag and (part.log_decay or part.lag != HELD):
            return [(replace(part, lag=poly.times(part.lag, over)), [(part.row, part.col)])]
        pairs = []
        for m, c in factor.items():
            powers = dict(m.powers)
            t, s = powers.pop(T_POS, 0), powers.pop(S_POS, 0)
            rest: Poly = {Mono(tuple(powers.items()), m.exponent): c}
            pairs.append((poly.times(poly.times(rest, part.row), _index_power(t)),
                          poly.times(part.col, _index_power(s))))  # fmt: skip
        return [(part, pairs)]

    def _kernel(self, part: Part, weights: Mapping[int, Fraction]) -> tuple[MaskTerm, int | None]:
        """What is left without rows and columns: decays, lag functions, documents, steps."""
        gap = sum(part.shift)
        if self.full and (gap or part.log_decay or part.lag != HELD or set(weights) != {0}):
            raise Unknown("its two sides differ")
        if min(weights) < gap and self.normal.least < gap:
            raise Unknown("a value at t - 1 or s + 1 on the diagonal itself")
        weights = _moved_steps(weights, gap, self.normal.least)
        rank: int | None = 1
        factors: list[MaskTerm] = []
        decay = part.log_decay
        scale: Expr = ONE
        if part.lag != HELD:
            rank = lags.rank(part.lag)
            rates, decay = poly.select(decay, self._constant)
            h = poly.times(part.lag, poly.exponential(poly.times(rates, poly.atom(T_POS))))
            factors.append(self._symbol(h))
        if decay:
            factors.append(self._decay(decay))
        if gap:
            scale, inner = self._shifted(part, decay, factors)
            factors = [*([factors[0]] if part.lag != HELD else []), inner]
        for fn, argument in part.extra:
            rank = self._extra(fn, argument, factors, rank)
        stepped, ring = terms.steps(weights)
        if stepped == terms.window(1):  # decays and documents are 1 on the diagonal
            factors = [f for f in factors if f.fn not in _ONES_ON_DIAGONAL]
        if not factors:
            kernel = terms.ones() if self.full else stepped
        elif stepped == terms.CAUSAL:
            lower = self.full or any(terms.lower(f) for f in factors)
            kernel = terms.product(factors if lower else [terms.CAUSAL, *factors])
        elif stepped == terms.STRICT:
            lower = any(terms.lower(f) for f in factors)
            kernel = terms.strict(terms.product(factors if lower else [terms.CAUSAL, *factors]))
        else:
            kernel = terms.product([*factors, stepped])
        if rank is not None and rank > MAX_RANK:
            raise Unknown(f"a rank of {rank}; at most {MAX_RANK} lanes are kept")
        if ring:
            rank = None
            self.lines.append("band of lags: a ring of tokens, no sum of lanes")
        return terms.scale(scale, kernel), rank

    def _plain(self, p: Poly) -> bool:
        """Whether sums of decays, rows and columns realise a lag function, and do so stably."""
        stable = terms.known("lag")  # the planner asks how many digits its lanes leave
        if any(lags.periods(m) > MAX_PERIOD for m in p) or (lags.rank(p) or 0) > MAX_RANK:
            return False
        return all(lags.degree(m) is not None and (stable or not lags.damped(m)) for m in p)

    def _constant(self, m: Mono) -> bool:
        return not any(self.normal.along(e) for e in poly.atoms([m]))

    def _decay(self, decay: Poly) -> MaskTerm:
        if len(decay) == 1:
            ((m, c),) = decay.items()
            match m:
                case Mono(((Call("log", (gamma,)), 1),), ()) if c == 1 and self._constant(m):
                    self.lines.append(f"decay: {show(gamma)} a token, for {show(gamma)} >= 0")
                    return MaskTerm("decay", (gamma,))
        log_decay = poly.expression(decay)
        self.lines.append(f"1-semiseparable: log decay {show(log_decay)} at each token")
        return MaskTerm("semiseparable", (log_decay,))

    def _shifted(self, part: Part, decay: Poly, factors: list[MaskTerm]) -> tuple[Expr, MaskTerm]:
        """The mask that is read at t − 1 or s + 1, moved; and what the constant rates still owe."""
        inner = factors[-1] if decay else terms.CAUSAL
        inner = terms.wrap(inner, poly.expression(part.inner_row), poly.expression(part.inner_col))
        for axis, by in zip("ts", part.shift, strict=True):
            if by:
                inner = MaskTerm("shift", (inner, axis))
                self.lines.append(f"shifted by one token along {axis}")
        rates, _ = poly.select(decay, self._constant)
        owed = poly.exponential(poly.times(rates, poly.constant(sum(part.shift))))
        return poly.expression(owed), inner

    def _extra(
        self, fn: str, argument: Expr, factors: list[MaskTerm], rank: int | None
    ) -> int | None:
        match fn, argument:
            case "document", ids:
                self.lines.append(f"documents: runs of equal {show(ids)}; the state resets there")
                factors.append(MaskTerm("document", (ids,)))
                return rank
            case "cumulative", g:
                if self.full:
                    raise Unknown("its two sides differ")
                self.lines.append(f"1-semiseparable: log decay {show(g)} less its value one token "
                                  "before; the two exponentials alone would overflow")  # fmt: skip
                factors.append(MaskTerm("cumulative", (g,)))
                return rank
            case "period", Num(int(d)):
                if d > MAX_PERIOD:
                    raise Unknown(f"a period of {d} has rank {d}; at most {MAX_PERIOD} are kept")
                self.lines.append(f"period {d}: one lane a remainder")
                here = call("mod", Index("T"), Num(d))
                factors.append(terms.total([
                    terms.wrap(terms.ones() if self.full else terms.CAUSAL, hit, hit)
                    for hit in (call("eq", here, Num(r)) for r in range(d))]))  # fmt: skip
                return None if rank is None else rank * d
            case "lag", Num(int(n)):
                self.lines.append(f"polynomial of the lag: power {n}, {n + 1} lanes a decay")
                factors += terms.lag_power(n)
                return None if rank is None else rank * (n + 1)
            case "circulant", h:
                self.lines.append(f"circulant: {show(h)} around T tokens, T log T by FFT")
                factors.append(MaskTerm("circulant", (h,)))
                return None
            case "level", Num(int(n)):
                self.lines.append(f"Fenwick: level {n} of a binary counter, a lane")
                factors.append(MaskTerm("level", (Num(n),)))
                return rank
            case "fourier", Name(kind):
                self.lines.append(f"Fourier: {kind}(2 pi t s / T), T log T by FFT, no finite rank")
                factors.append(MaskTerm("fourier", (kind,)))
                return None
            case "dense", M:
                self.lines.append(f"dense: {show(M)} is a matrix without structure")
                factors.append(MaskTerm("dense", (M,)))
                return None
        raise AssertionError(fn)


Key = tuple[object, ...]
#: A row and the column beside it.
Pair = tuple[Poly, Poly]
#: The empty product.
HELD = poly.constant(1)


def _powers(part: Part) -> Poly:
    """coefficient · t^i · s^j."""
    out = part.coefficient
    for e, n in ((T_POS, part.t), (S_POS, part.s)):
        if n:
            out = poly.times(out, poly.atom(e, n))
    return out


def _with_power(part: Part, m: Mono, c: Fraction) -> tuple[Part, list[Pair]]:
    """The part times one power of the lag, for which t stands in `m`."""
    powers = dict(m.powers)
    n = powers.pop(T_POS, 0)
    rest: Poly = {Mono(tuple(powers.items()), m.exponent): c}
    extra = (*part.extra, *([("lag", Num(n))] if n else []))
    return replace(part, extra=extra), [(poly.times(rest, part.row), part.col)]


def _index_power(n: int) -> Poly:
    return poly.atom(Index("T"), n) if n else HELD


def _merged(pairs: list[Pair]) -> list[Pair]:
    """Pairs of one column added by their rows, then those of one row by their columns."""
    ways = []
    for first in (1, 0):
        found = pairs
        for by in (first, 1 - first):
            groups: dict[tuple[tuple[Mono, Fraction], ...], Pair] = {}
            for pair in found:
                key = tuple(sorted(pair[by].items(), key=lambda x: poly.mono_key(x[0])))
                same = groups.get(key)
                other = pair[1 - by] if same is None else poly.add(same[1 - by], pair[1 - by])
                groups[key] = (other, pair[by]) if by else (pair[by], other)
            found = [p for p in groups.values() if p[0] and p[1]]
        ways.append(found)
    return min(ways, key=len)


def _proportional(by_step: dict[int, Poly]) -> list[tuple[dict[int, Fraction], Poly]]:
    """Steps whose polynomials are multiples of one another, together: (weights, polynomial)."""
    out: list[tuple[dict[int, Fraction], Poly]] = []
    for step, p in sorted(by_step.items()):
        if not p:
            continue
        for weights, q in out:
            m = next(iter(q))
            if m in p and not poly.add(p, q, -p[m] / q[m]):
                weights[step] = p[m] / q[m]
                break
        else:
            out.append(({step: Fraction(1)}, p))
    return out


def _moved_steps(weights: Mapping[int, Fraction], by: int, least: int) -> dict[int, Fraction]:
    """Steps as an inner mask's strictness: [n ≥ gap] is implied by its shift."""
    out: dict[int, Fraction] = {}
    for step, w in weights.items():
        at = 0 if by and step <= max(by, least) else step
        out[at] = out.get(at, Fraction(0)) + w
    return {c: w for c, w in out.items() if w} or {0: Fraction(0)}


def _key(part: Part) -> Key:
    """A part as a value to group by."""
    polys = (part.coefficient, part.row, part.col, part.inner_row, part.inner_col,
             part.log_decay, part.lag)  # fmt: skip
    own = tuple(frozenset(p.items()) for p in polys)
    return (*own, part.t, part.s, part.step, part.extra, part.shift)
