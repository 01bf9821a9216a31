"""`make`: a spec and sizes become a Plan; `crossover`: where the quadratic order stops winning.

Non-goals: no formulas (cost.py), no caching (the op keeps its plans).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from smac.certified import Fit, resolve
from smac.errors import PlanError
from smac.expr import names
from smac.masks import build
from smac.plan.candidates import SCHEDULES, Way, lacks_generators, largest_chunk, pieces, ways
from smac.plan.cost import candidate
from smac.plan.devices import ITEMSIZE, Device, device_row
from smac.plan.packed import why_not_packed
from smac.plan.shape import Shape, shape_of
from smac.plan.sizes import at_levels, at_sizes
from smac.plan.types import ORDERS, Candidate, Plan, Request
from smac.plan.words import verdict
from smac.spec import Spec, specialise

_TARGETS = tuple(SCHEDULES)
#: Every schedule that there is, of any order and target.
_SCHEDULES = tuple(sorted({s for own in SCHEDULES.values() for s in own.values()}
                         | {"fft", "chunks", "segmented"}))  # fmt: skip


def make(
    spec: Spec, *, sizes: Mapping[str, int], dtype: str, device: str, target: str = "auto",
    order: str = "auto", chunk: int | None = None, schedule: str = "auto",
    backward: bool = False, state: bool = False, absent: frozenset[str] = frozenset(),
    sequences: int = 0, frozen: frozenset[str] = frozenset(),
    table: Mapping[str, Device] | None = None,
) -> Plan:  # fmt: skip
    """The plan for `spec` at `sizes` on `device`: every way costed, the fastest chosen.

    `backward` plans the backward alone; `state`: initial and final states are in use; `sequences`
    that lie packed along T (0: T is one sequence, batched by B); `frozen`: inputs that take no
    gradient. `order`, `chunk` and `schedule` force the choice; `table` replaces the device table.
    Raises PlanError for sizes, names and orders that cannot be, naming the law that a forced order
    misses.
    """
    row = device_row(device, table)
    unfitted = specialise(spec, frozenset(absent))
    _check_frozen(spec, frozen)
    request, fits = _request(unfitted, sizes, dtype, device, row, target, backward, state,
                             sequences, frozenset(frozen) if backward else frozenset())
    _check_choice("order", order, ("auto", *ORDERS))
    _check_choice("schedule", schedule, ("auto", *_SCHEDULES))
    _check_chunk(chunk, order, schedule, request)
    shape = shape_of(request)
    every = ways(shape, request)
    asked = [w for w in every if order in ("auto", w.order) and schedule in ("auto", w.schedule)]
    legal = [w for w in asked if w.reason is None]
    if not legal:
        raise _nothing(request, order, schedule, asked)
    found = _weigh(shape, request, row, legal, chunk)
    if not found:  # a chunk that covers T: one chunk is the quadratic order, where there is one
        whole = [w for w in every if w.order == "quadratic" and w.reason is None]
        found = _weigh(shape, request, row, whole or legal, chunk, cover=True)
    if not found:
        raise PlanError(f"{spec.name}: chunk: found {chunk}, whose rows of Q, K, V and dY do not "
                        f"fit on chip together in the gradient of the mask (N = {shape.n('QK')}, "
                        f"P = {shape.p}); ask for fewer, or leave chunk out")  # fmt: skip
    found.sort(key=lambda c: (c.time, ORDERS.index(c.order), -c.chunk))
    best = found[0]
    judged = tuple(replace(c, verdict=verdict(c, best)) for c in found)
    illegal = tuple((w.label, w.reason) for w in every if w.reason is not None)
    return Plan(request, judged[0], judged, illegal, fits, unfitted)


def crossover(
    spec: Spec, *, sizes: Mapping[str, int] | None = None, low: int = 16, high: int = 2**17,
    **request: Any,
) -> int | None:  # fmt: skip
    """The least T, to a multiple of 16, from which another order beats the quadratic one.

    Bisects between `low` and `high`, for one crossing. `request` goes to `make`. None when the
    quadratic order still wins at `high`.
    """

    def beaten(T: int) -> bool:
        return make(spec, sizes={**(sizes or {}), "T": T}, **request).order != "quadratic"

    if not beaten(high):
        return None
    step = 16
    lo, hi = low // step, high // step
    while lo < hi:
        mid = (lo + hi) // 2
        lo, hi = (lo, mid) if beaten(mid * step) else (mid + 1, hi)
    return lo * step


def _request(
    spec: Spec, sizes: Mapping[str, int], dtype: str, device: str, row: Device, target: str,
    backward: bool, state: bool, sequences: int, frozen: frozenset[str],
) -> tuple[Request, tuple[Fit, ...]]:  # fmt: skip
    """The request of a specialised spec, with levels expanded, mask fitted and built, sizes
    complete and target decided; and the fits."""
    _check_choice("dtype", dtype, tuple(ITEMSIZE))
    _check_choice("target", target, ("auto", *_TARGETS))
    if target == "auto":
        target = "triton" if row.kind == "gpu" else "torch"
    special, mask, done = at_sizes(spec, sizes)
    special, fits = resolve(special, dict(done)["T"])
    mask = build(special.contraction.L, special) if fits else mask
    request = Request(special, mask, done, dtype, device, target, backward, state, sequences,
                      at_levels(spec, frozen, dict(done)))  # fmt: skip
    why = why_not_packed(request)
    if why is not None:
        raise PlanError(f"{spec.name}: packed sequences (cu_seqlens): {why}")
    missing = lacks_generators(request)
    if state and missing is not None:
        raise PlanError(f"{spec.name}: an initial or final state {missing}")
    if special.contraction.channel == "P" and any("Z" in names(e) for _, e in special.output):
        raise PlanError(f"{spec.name}: Z with a mask per P: found a normaliser for each value "
                        "channel, expected one a head; take Z from a mask without P")  # fmt: skip
    return request, fits


def _weigh(
    shape: Shape, r: Request, row: Device, legal: list[Way], chunk: int | None, cover: bool = False
) -> list[Candidate]:
    """Every legal way at every chunk to try, costed; `cover`: at chunks that cover T too."""
    return [candidate(shape, r, row, w.order, c, w.schedule)
            for w in legal for c in pieces(shape, r, row, w, chunk, cover)]  # fmt: skip


def _nothing(r: Request, order: str, schedule: str, asked: list[Way]) -> PlanError:
    """Why no way is left."""
    name = r.spec.name
    if not asked:
        known = _listing(r.target, order)
        return PlanError(f"{name}: schedule='{schedule}' is no schedule of order='{order}' on "
                         f"target {r.target}; expected one of {known}")  # fmt: skip
    if order != "auto":
        return PlanError(f"{name}: order='{order}' {asked[0].reason}" if len(asked) == 1
                         else f"{name}: order='{order}' {_reasons(asked)}")  # fmt: skip
    reasons = "; ".join(f"{w.label}: {w.reason}" for w in asked)
    return PlanError(f"{name}: no order is left on target {r.target}: {reasons}")


def _reasons(asked: list[Way]) -> str:
    """The first way's reason, then those of the others by schedule."""
    first, *rest = asked
    return "; ".join([str(first.reason), *(f"by {w.schedule}: {w.reason}" for w in rest)])


def _listing(target: str, order: str) -> str:
    own = SCHEDULES[target]
    names = [s for o, s in own.items() if order in ("auto", o)]
    if order in ("auto", "linear"):
        names.append("fft")
    if order in ("auto", "chunked") and target == "triton":
        names += ["chunks", "segmented"]
    return ", ".join(["auto", *sorted(set(names))])


def _check_frozen(spec: Spec, frozen: frozenset[str]) -> None:
    known = [i.name for i in spec.inputs]
    for name in sorted(frozen):
        if name not in known:
            raise PlanError(f"{spec.name}: frozen: found {name!r}; expected inputs, of "
                            f"{', '.join(known)}")  # fmt: skip


def _check_choice(what: str, found: str, expected: tuple[str, ...]) -> None:
    if found not in expected:
        raise PlanError(f"{what}: found {found!r}; expected one of {', '.join(expected)}")


def _check_chunk(chunk: int | None, order: str, schedule: str, r: Request) -> None:
    """A forced chunk is a power of two that the target has tiles for."""
    if chunk is None:
        return
    if order == "linear" or schedule in ("tokens", "fft"):
        raise PlanError(f"chunk: found {chunk} with the linear order, which has no chunks; "
                        "leave chunk out, or ask for order='chunked'")  # fmt: skip
    least, most = 16 if r.target == "triton" else 2, largest_chunk(r.target, ITEMSIZE[r.dtype])
    whole = isinstance(chunk, int) and not isinstance(chunk, bool)
    if not whole or not least <= chunk <= most or chunk & (chunk - 1):
        raise PlanError(f"chunk: found {chunk!r}; expected a power of two from {least} to {most} "
                        f"in {r.dtype} on target {r.target}")  # fmt: skip
