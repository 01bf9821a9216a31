"""Which configurations of a plan are worth a trial, and a plan in another configuration.

The planner's own comes first, then what the costs have next, then other tiles for the best of them.
A choice that the caller forced stays: the plan's candidates hold nothing else.

Non-goals: no trials (runtime/tune.py), no costs of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from smac.errors import PlanError
from smac.plan.candidates import CHUNKS, ROWS, largest_chunk
from smac.plan.choose import make
from smac.plan.config import Config, Tiles
from smac.plan.devices import ITEMSIZE
from smac.plan.types import Plan

MODES = ("quick", "full")
#: At most so many, and none that the costs have so many times slower than the best.
MOST, SLOWEST = {"quick": 6, "full": 36}, {"quick": 4.0, "full": 10.0}
#: Ways (order, schedule, chunk) that are tried; with other tiles, the first of them.
WAYS, RECUT = {"quick": 3, "full": 12}, {"quick": 1, "full": 4}
#: What the printer never takes by itself. 16-bit tiles narrower than 64 are not safe.
OTHER_COLUMNS = {2: (128,), 4: (64, 16), 8: (16,)}
OWN_COLUMNS = {2: 64, 4: 32, 8: 32}


def space(plan: Plan, mode: str, chunk: int | None = None) -> tuple[Config, ...]:
    """Configurations to try in the place of `plan`'s, its own first. `mode`: "quick" or "full";
    `chunk`: the one that the caller insists on."""
    triton = plan.request.target == "triton"
    ways = _ways(plan, mode, chunk)[: WAYS[mode] if triton else MOST[mode]]
    found = list(ways)
    if triton:
        cuts = _cuts(plan, mode)
        recut = [w for w in ways if w.schedule != "tokens"][: RECUT[mode]]
        found += [replace(w, tiles=t) for t in cuts for w in recut]
    return tuple(dict.fromkeys(found))[: MOST[mode]]


def replanned(plan: Plan, config: Config) -> Plan:
    """`plan` in `config`. Raises PlanError where its request cannot run so."""
    if config == plan.config:
        return plan
    r = plan.request
    item, columns = ITEMSIZE[r.dtype], config.tiles.columns
    if columns is not None and columns not in OTHER_COLUMNS[item]:
        due = " or ".join(map(str, OTHER_COLUMNS[item]))
        raise PlanError(f"{r.spec.name}: found tiles of {columns} columns in {r.dtype}; "
                        f"expected {due}: narrower ones are not safe, wider ones do not fit")
    whole = config.order != "linear"
    made = make(plan.asked or r.spec, sizes=dict(r.sizes), dtype=r.dtype, device=r.device,
                target=r.target, order=config.order, schedule=config.schedule,
                chunk=config.chunk if whole else None, backward=r.backward, state=r.state,
                sequences=r.sequences)  # fmt: skip
    found = replace(made, tiles=config.tiles)
    if found.config != config:
        raise PlanError(f"{r.spec.name}: found configuration '{config}', which runs here as "
                        f"'{found.config}'; expected one that fits T = {r.size('T')}")  # fmt: skip
    return replace(plan, chosen=made.chosen, tiles=config.tiles)


def _ways(plan: Plan, mode: str, chunk: int | None) -> list[Config]:
    """Orders, schedules and chunks by predicted time, the plan's own in front."""
    r = plan.request
    most = largest_chunk(r.target, ITEMSIZE[r.dtype])
    own = plan.config
    times: dict[Config, float] = {}
    for order, schedule in dict.fromkeys((c.order, c.schedule) for c in plan.candidates):
        chunks = [c.chunk for c in plan.candidates if (c.order, c.schedule) == (order, schedule)]
        if chunk is None and order != "linear":
            tried = CHUNKS if order == "chunked" else ROWS
            chunks += [c for c in tried[r.target] if c <= most]
        for c in sorted(set(chunks)):
            config = Config(order, schedule, c)
            try:
                times[config] = replanned(plan, config).chosen.time
            except PlanError:  # does not fit these sizes
                continue
    limit = SLOWEST[mode] * plan.chosen.time
    rest = sorted((t, i) for i, t in enumerate(times.values()) if t <= limit)
    every = list(times)
    return [own, *(every[i] for _, i in rest if every[i] != own)]


def _cuts(plan: Plan, mode: str) -> Iterator[Tiles]:
    """Tiles that differ from the printer's: in one number; in full, in several."""
    r = plan.request
    item = ITEMSIZE[r.dtype]
    wide = max(r.size("N"), r.size("P")) if r.backward else r.size("P")  # what may be split
    own = OWN_COLUMNS[item]
    columns = [c for c in OTHER_COLUMNS[item] if wide > min(c, own)]
    stages = [2, 1] if item == 2 else []
    if mode == "quick":
        yield from (Tiles(warps=8), *(Tiles(stages=s) for s in stages[:1]),
                    *(Tiles(columns=c) for c in columns[:1]))  # fmt: skip
        return
    numbers = [Tiles(c, w, s) for c in (None, *columns) for w in (None, 8, 2)
               for s in (None, *stages)]  # fmt: skip
    yield from sorted(numbers[1:], key=lambda t: sum(v is not None for v in
                                                     (t.columns, t.warps, t.stages)))  # fmt: skip
