"""Masks with a finite state, one token at a time: lanes, the recurrence, and what states add.

A lane is L[t,s] = read[t] · Π_{k=s+1..t} factor[k] · write[s]; masks are sums of lanes, in the
order in which the terms of a sum appear (a product's lanes: those of its left side outermost).

Non-goals: no shortcuts, no log space; `smac.masks` has its own account of the same masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smac.errors import LaunchError
from smac.expr import Expr
from smac.reference.dense import Arg, scalar
from smac.reference.values import RESET, Scope, Value, add, contract, mul, pointwise
from smac.terms import MaskTerm


@dataclass(frozen=True)
class Lane:
    """One rank of a mask; `factor` carries T, `read` and `write` may.

    `decays`, `reads` and `writes` say what they were made of: lanes are compared by these.
    """

    factor: Value
    read: Value
    write: Value
    decays: tuple[object, ...] = ()
    reads: tuple[object, ...] = ()
    writes: tuple[object, ...] = ()
    late: bool = False  # reads the state before the token's own factor and write

    def times(self, other: Lane) -> Lane:
        """The lane of the entrywise product of two lanes, both late or neither."""
        return Lane(mul(self.factor, other.factor), mul(self.read, other.read),
                    mul(self.write, other.write), self.decays + other.decays,
                    self.reads + other.reads, self.writes + other.writes, self.late)  # fmt: skip

    def strictly(self) -> tuple[Lane, ...]:
        """Without the diagonal: late, with one factor in the read; none for a diagonal."""
        if self.late or None in self.decays:
            return (self,) if self.late else ()
        return (replace(self, read=mul(self.factor, self.read),
                        reads=("late", *self.decays, *self.reads), late=True),)  # fmt: skip


@dataclass(frozen=True)
class State:
    """What a run leaves behind: S (…, B, H, r, N, P), r dropped when 1; z the same for V = 1;
    `last`, the last document id; `pos`, tokens seen, where the spec reads `index(T)`."""

    S: Tensor
    z: Tensor | None = None
    last: Tensor | None = None
    pos: int | None = None


def coerce(given: object) -> State | None:
    """A State from a bare tensor S or from anything that has S."""
    if given is None or isinstance(given, State):
        return given
    if isinstance(given, Tensor):
        return State(given)
    if not isinstance(getattr(given, "S", None), Tensor):
        raise LaunchError(f"initial_state: found {type(given).__name__}; expected a tensor "
                          "or a smac.State")  # fmt: skip
    return State(*(getattr(given, f, None) for f in ("S", "z", "last", "pos")))  # type: ignore[arg-type]


def _along_t(value: Value, scope: Scope) -> Value:
    value = Value(value.axes, value.data.to(scope.dtype))
    if "T" in value.axes:
        return value
    return Value((*value.axes, "T"), value.data.unsqueeze(-1).expand(*value.data.shape,
                                                                     scope.sizes["T"]))  # fmt: skip


def _one(scope: Scope) -> Value:
    return Value((), torch.ones((), dtype=scope.dtype, device=scope.device))


def _starts(ids: Value, last: Tensor | None, scope: Scope) -> Value:
    """1 where nothing passes from t−1 to t; at 0 unless `last` is the first id."""
    rest = tuple(a for a in ids.axes if a != "T")
    data = ids.to((*rest, "T"))
    before = torch.full_like(data[..., :1], -1) if last is None else last.unsqueeze(-1)
    start = data != torch.cat([before.to(data), data], -1)[..., :-1]
    if last is None:
        start[..., :1] = True
    return Value((*rest, "T"), start.to(scope.dtype))


def lanes(term: MaskTerm, scope: Scope, last: Tensor | None = None) -> tuple[Lane, ...] | None:
    """The lanes of a mask, or None when it has no finite state that is known here.

    Lanes of a sum or product that differ in `read` alone, or in `write` alone, are one.
    """
    return _lanes(term, scope, last) if _lower(term, scope) else None


def _lower(arg: Arg, scope: Scope) -> bool:
    """Whether the mask is zero above the diagonal (by its form)."""
    if not isinstance(arg, MaskTerm):
        return False
    match arg.fn:
        case "causal" | "decay" | "semiseparable" | "diagonal" | "level" | "fenwick":
            return True
        case "add":
            return all(_lower(a, scope) for a in arg.args)
        case "mul":
            return any(_lower(a, scope) for a in arg.args)
        case "scale" | "row" | "col":
            return _lower(arg.args[1], scope)
        case "strict" | "shift":
            return _lower(arg.args[0], scope)
        case "given":
            return _lower(arg.args[1] if arg.args[0] in scope.present else arg.args[2], scope)
    return False


def _lanes(term: Arg, scope: Scope, last: Tensor | None) -> tuple[Lane, ...] | None:
    """Lanes of the mask on and below the diagonal."""
    if not isinstance(term, MaskTerm):
        raise ValueError(f"expected a mask, found {term!r}")
    one, args = _one(scope), term.args
    match term.fn:
        case "causal" | "ones" | "prefix":
            return (Lane(_along_t(one, scope), one, one),)
        case "decay":
            return (Lane(_along_t(scalar(args[0], scope), scope), one, one, (term,)),)
        case "semiseparable":
            g = _along_t(scalar(args[0], scope), scope)
            reset, zero = g.data <= RESET, torch.zeros_like(g.data)
            factor = torch.where(reset, zero, torch.where(reset, zero, g.data).exp())
            return (Lane(Value(g.axes, factor), one, one, (term,)),)
        case "document":
            starts = _starts(scalar(args[0], scope), last, scope)
            return (Lane(Value(starts.axes, 1 - starts.data), one, one, (term,)),)
        case "level":
            return (_level(args[0], scope),)
        case "fenwick":
            return _fenwick(args[0], scope)
        case "lag":
            at, still = Value(("T",), _positions(scope).to(scope.dtype)), _along_t(one, scope)
            back = Value(("T",), -at.data)
            return (Lane(still, at, one, reads=("t",)), Lane(still, one, back, writes=("-s",)))
        case "wave":
            return _wave(args[0], args[1], scope)
        case "diagonal":
            zero = torch.zeros_like(one.data)
            return (Lane(_along_t(Value((), zero), scope), scalar(args[0], scope), one,
                         (None,), (args[0],)),)  # fmt: skip
        case "add" | "mul":
            left, right = (_lanes(a, scope, last) for a in args)
            if left is None or right is None:
                return None
            if term.fn == "add":
                return _merge([*left, *right])
            pairs = [(a, b) for a in left for b in right]
            return _merge([x.times(y) for a, b in pairs for x, y in _alike(a, b)])
        case "strict":
            found = _lanes(args[0], scope, last)
            return None if found is None else _merge([y for x in found for y in x.strictly()])
        case "shift" if args[1] == "t":
            found = _lanes(args[0], scope, last)
            if found is None or any(x.late or x.reads for x in found):
                return None
            return tuple(replace(x, late=True) for x in found)
        case "scale" | "row" | "col":
            return _scaled(_lanes(args[1], scope, last), scalar(args[0], scope), args[0], term.fn)
        case "given":
            return _lanes(args[1] if args[0] in scope.present else args[2], scope, last)
    return None


def _positions(scope: Scope) -> Tensor:
    return scope.index("T").data


def _wave(omega: Arg, phase: Arg, scope: Scope) -> tuple[Lane, ...]:
    """cos(ω(t − s) + φ) as cosine times cosine and sine times sine, of angles in float64."""
    rate, more = (Value(x.axes, x.data.double()) for x in (scalar(a, scope)
                                                           for a in (omega, phase)))  # fmt: skip
    columns = mul(rate, Value(("T",), _positions(scope).double()))
    still, rows = _along_t(_one(scope), scope), add(columns, more)

    def lane(turn: Callable[[Tensor], Tensor]) -> Lane:
        read, write = (Value(x.axes, turn(x.data).to(scope.dtype)) for x in (rows, columns))
        name = turn.__name__
        return Lane(still, read, write, (), ((name, omega, phase),), ((name, omega),))

    return lane(torch.cos), lane(torch.sin)


def _level(level: Arg, scope: Scope) -> Lane:
    """From the first half of each block of 2^l tokens to its second half."""
    block = 2 ** int(scalar(level, scope).data)
    at = _positions(scope) % block
    first, inside = 2 * at < block, at != 0
    read = first if block == 1 else ~first
    factor, reads, writes = (Value(("T",), x.to(scope.dtype)) for x in (inside, read, first))
    key = (None,) if block == 1 else ("level", level)
    return Lane(factor, reads, writes, key, key, key)


def _fenwick(l: Arg, scope: Scope) -> tuple[Lane, ...]:  # noqa: E741 (the paper's letter)
    """A lane for each level, read by its own weight; one for all where the weight has no levels."""
    weight = scalar(l, scope)
    along = next((a for a in weight.axes if a in scope.levels), None)
    if along is None:
        one = _one(scope)
        return _scaled((Lane(_along_t(one, scope), one, one),), weight, l, "row") or ()
    dim = weight.axes.index(along)
    rest = weight.axes[:dim] + weight.axes[dim + 1 :]
    found = []
    for k in range(weight.data.shape[dim]):
        lane = _level(k, scope)
        read = mul(Value(rest, weight.data.select(dim, k)), lane.read)
        found.append(replace(lane, read=read, reads=((l, k), *lane.reads)))
    return tuple(found)


def _alike(a: Lane, b: Lane) -> list[tuple[Lane, Lane]]:
    """Two lanes, both late or neither; nothing where their product is zero."""
    if a.late == b.late:
        return [(a, b)]
    return [(x, y) for x in a.strictly() for y in b.strictly()]


def _merge(parts: list[Lane]) -> tuple[Lane, ...]:
    """Lanes of equal decays made one where only `read`, or only `write`, tells them apart."""
    by_read: dict[object, Lane] = {}
    for x in parts:
        same = by_read.get(key := (x.decays, x.writes, x.late))
        by_read[key] = x if same is None else replace(
            same, read=add(same.read, x.read), reads=(*same.reads, "+", *x.reads))  # fmt: skip
    by_write: dict[object, Lane] = {}
    for x in by_read.values():
        same = by_write.get(key := (x.decays, x.reads, x.late))
        writes = x.writes if same is None else (*same.writes, "+", *x.writes)
        by_write[key] = x if same is None else replace(
            same, write=add(same.write, x.write), writes=writes)  # fmt: skip
    return tuple(by_write.values())


def _scaled(parts: tuple[Lane, ...] | None, by: Value, key: Arg,
            fn: str) -> tuple[Lane, ...] | None:  # fmt: skip
    if parts is None:
        return None
    if fn == "col":
        return tuple(replace(p, write=mul(by, p.write), writes=(key, *p.writes)) for p in parts)
    return tuple(replace(p, read=mul(by, p.read), reads=(key, *p.reads)) for p in parts)


def document_ids(term: MaskTerm) -> Expr | None:
    """The ids of the first document mask below `term`: where `State.last` comes from."""
    if term.fn == "document":
        return term.args[0]  # type: ignore[return-value]
    found = (document_ids(a) for a in term.args if isinstance(a, MaskTerm))
    return next((f for f in found if f is not None), None)


def at(value: Value, t: int) -> Value:
    """The value at token t, without its T axis (itself when it has none)."""
    if "T" not in value.axes:
        return value
    dim = value.axes.index("T")
    return Value(value.axes[:dim] + value.axes[dim + 1 :], value.data.select(dim, t))


def sweep(q: Value, k: Value, v: Value, parts: tuple[Lane, ...], state: list[Value],
          length: int, out: tuple[str, ...]) -> tuple[list[Value], list[Value]]:  # fmt: skip
    """Token by token: S ← factor·S + write·K⊗V, then Σ_lanes read·(Q·S) over axes `out` (no T).

    Returns the output of each token and the last state of each lane.
    """
    outputs: list[Value] = []
    for t in range(length):
        total: Value | None = None
        for r, lane in enumerate(parts):
            entering = mul(at(lane.write, t), mul(at(k, t), at(v, t)))
            before = state[r]
            state[r] = add(mul(at(lane.factor, t), state[r]), entering)
            seen = before if lane.late else state[r]
            term = contract(out, at(lane.read, t), at(q, t), seen)
            total = term if total is None else add(total, term)
        assert total is not None
        outputs.append(total)
    return outputs, state


def entering(
    q: Value, parts: tuple[Lane, ...], state: list[Value], out: tuple[str, ...],
    products: torch.dtype | None = None,
) -> Value:  # fmt: skip
    """What an initial state adds to Y: Σ read[t] · Π_{k≤t} factor · Q[t]·S₀, in one einsum.

    `products`: a type that what is multiplied, factors and Q first, is rounded to."""
    terms = []
    for lane, s in zip(parts, state, strict=True):
        dim = lane.factor.axes.index("T")
        data = lane.factor.data
        if lane.late:  # factors of the tokens before t alone
            ones = torch.ones_like(data.narrow(dim, 0, min(1, data.shape[dim])))
            data = torch.cat([ones, data], dim).narrow(dim, 0, data.shape[dim])
        total = Value(lane.factor.axes, data.cumprod(dim))
        if products is None:
            terms.append(contract(out, lane.read, total, q, s))
        else:
            rows = _rounded(mul(_rounded(mul(lane.read, total), products), q), products)
            terms.append(contract(out, rows, _rounded(s, products)))
    return _sum(terms)


def leaving(
    k: Value, v: Value, parts: tuple[Lane, ...], state: list[Value], out: tuple[str, ...],
    products: torch.dtype | None = None,
) -> list[Value]:  # fmt: skip
    """The last state of each lane: Σ_s Π_{k>s} factor · write·K⊗V + Π factor·S₀.

    `products`: a type that what is multiplied, factors and V first, is rounded to."""
    ends = []
    for lane, s in zip(parts, state, strict=True):
        dim = lane.factor.axes.index("T")
        data = lane.factor.data
        ones = torch.ones_like(data.narrow(dim, 0, min(1, data.shape[dim])))
        later = torch.cat([ones, data.flip(dim)], dim).cumprod(dim)
        after = Value(lane.factor.axes, later.narrow(dim, 0, data.shape[dim]).flip(dim))
        every = Value(lane.factor.axes[:dim] + lane.factor.axes[dim + 1 :], data.prod(dim))
        if products is None:
            new = contract(out, after, lane.write, k, v)
        else:
            columns = mul(_rounded(mul(after, lane.write), products), v)
            new = contract(out, k, _rounded(columns, products))
        ends.append(add(new, mul(every, s)))
    return ends


def _rounded(x: Value, dtype: torch.dtype) -> Value:
    return Value(x.axes, x.data.to(dtype).to(x.data.dtype))


def _sum(values: list[Value]) -> Value:
    total = values[0]
    for v in values[1:]:
        total = pointwise(torch.add, total, v)
    return total
