"""tune="quick" | "full": a plan's configurations tried on the machine, the best one remembered.

Kernels are compiled by some child processes at once, then one child after the other checks and
times: what crashes or hangs there is noted, and a new child goes on behind it. The best is kept in
the user's cache by what it depends on, so that the next process finds it without a search.

Non-goals: which configurations (plan/space.py), what happens to one (trial.py), steps of decoding.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch

from smac import __version__
from smac.errors import PlanError
from smac.plan.config import Config
from smac.plan.space import MODES, replanned, space
from smac.plan.words import duration
from smac.progress import Progress
from smac.runtime.cache import Key, Remembered
from smac.runtime.children import Result, drive
from smac.runtime.device import device_name, versions
from smac.runtime.job import Job
from smac.runtime.options import Options
from smac.spec import Spec

if TYPE_CHECKING:
    from smac.plan.types import Plan

#: A configuration must be so much faster than the planner's to be taken: timings vary.
WORTH = 0.98
#: Processes that compile at once.
COMPILERS = 4
RESULTS = Remembered("tune", {
    "mode": str, "seconds": float, "planned": (float, None),
    "config": {"order": str, "schedule": str, "chunk": int,
               "tiles": dict.fromkeys(("columns", "warps", "stages"), (int, None))},
})  # fmt: skip


@dataclass(frozen=True)
class Tuner:
    """Makes a plan of `spec` run in its best configuration; `dtypes` of the inputs that are there.
    """

    spec: Spec
    options: Options
    dtypes: Mapping[str, torch.dtype]
    device: torch.device

    def __call__(self, plan: Plan) -> Plan:
        """The plan in the configuration that is remembered, or found now."""
        return recalled(plan, self.options, self.device) or self.search(plan)

    def search(self, plan: Plan) -> Plan:
        """Try what `space` has; print a summary on stderr and remember the best."""
        start = time.perf_counter()
        configs = dict(enumerate(space(plan, self.options.tune, self.options.chunk)))
        results = {0: Result(configs[0], None, "nothing else to try")}
        if len(configs) > 1:
            with Progress((1 + compiles(plan, self.device)) * len(configs),
                          sys.stderr.isatty()) as bar:  # fmt: skip
                results = _tried(self._job(plan), configs, bar, compiles(plan, self.device))
        best = best_of(results)
        print(summary(plan, results, best, time.perf_counter() - start), file=sys.stderr)
        timed = results[best].seconds
        if timed is not None or len(configs) == 1:
            RESULTS.write(key(plan, self.options, self.device), {
                "mode": self.options.tune, "seconds": timed or 0.0, "planned": results[0].seconds,
                "config": configs[best].to_dict()})  # fmt: skip
        return replanned(plan, configs[best])

    def _job(self, plan: Plan) -> Job:
        r = plan.request
        dtypes = {n: str(d).removeprefix("torch.") for n, d in self.dtypes.items()}
        return Job(str(self.spec), {**asdict(self.options), "tune": "off"}, dict(r.sizes), dtypes,
                   str(self.device), r.state, r.sequences, r.backward,
                   list(plan.frozen))  # fmt: skip


def recalled(plan: Plan, options: Options, device: torch.device) -> Plan | None:
    """`plan` as a search in this mode or a fuller one has left it; None where there was none."""
    found = RESULTS.read(key(plan, options, device))
    if found is None or found["mode"] not in MODES[MODES.index(options.tune) :]:
        return None
    config = Config.from_dict(found["config"])
    try:
        return None if config is None else replanned(plan, config)
    except PlanError:  # of a version that planned otherwise
        return None


def key(plan: Plan, options: Options, device: torch.device) -> Key:
    """All that a result depends on. B, T and H count by powers of two."""
    r, forced = plan.request, (options.order, options.schedule, str(options.chunk))
    kept = ("N", "P", *r.spec.groups, plan.asked.levels if plan.asked else None)
    sizes = {a: n if a in kept else 2 ** max(n - 1, 0).bit_length()
             for a, n in r.sizes}  # fmt: skip
    return {
        "smac": __version__, "spec": (plan.asked or r.spec).digest, "target": r.target,
        "direction": "backward" if r.backward else "forward", "dtype": r.dtype, "state": r.state,
        "frozen": " ".join(plan.frozen),
        "sequences": 2 ** max(r.sequences - 1, 0).bit_length() if r.sequences else 0,
        "sizes": " ".join(f"{a}={n}" for a, n in sizes.items()), "forced": " ".join(forced),
        "precision": options.precision, "device": device_name(device), **versions(),
    }  # fmt: skip


@cache
def compiles(plan: Plan, device: torch.device) -> bool:
    """Whether a plan's kernels go through a compiler."""
    return plan.request.target == "triton" and device.type == "cuda"


def _tried(job: Job, configs: dict[int, Config], bar: Progress,
           compiling: bool) -> dict[int, Result]:  # fmt: skip
    """Every configuration's result: compiled where there is a compiler, then checked and timed."""
    failed: dict[int, Result] = {}
    if compiling:
        shares = [dict(list(configs.items())[i::COMPILERS]) for i in range(COMPILERS)]
        with ThreadPoolExecutor(COMPILERS) as pool:
            for found in pool.map(lambda s: drive(job, s, "compile", bar.at), filter(None, shares)):
                failed |= {i: r for i, r in found.items() if r.wrong}
    left = {i: c for i, c in configs.items() if i not in failed}
    return dict(sorted({**failed, **drive(job, left, "time", bar.at)}.items()))


def best_of(results: Mapping[int, Result]) -> int:
    """The fastest that is right; the planner's own, number 0, unless another is worth it."""
    timed = {i: r.seconds for i, r in results.items() if r.seconds is not None}
    best = min(timed, key=lambda i: timed[i], default=0)
    own = timed.get(0)
    return 0 if own is not None and timed[best] > WORTH * own else best


def summary(plan: Plan, results: Mapping[int, Result], best: int, took: float) -> str:
    """A line a configuration: its time and what of the planner's choice that is, or why not."""
    return "\n".join(_summary(plan, results, best, took))


def _summary(plan: Plan, results: Mapping[int, Result], best: int, took: float) -> Iterator[str]:
    r, own = plan.request, results[0].seconds
    sizes = " ".join(f"{a}={n}" for a, n in r.sizes if a != "S")
    yield (f"smac tune: {r.spec.name} {'backward' if r.backward else 'forward'}, {r.dtype} on "
           f"{r.device}, {sizes}: {len(results)} tried in {took:.0f} s")  # fmt: skip
    width = max(len(str(x.config)) for x in results.values())
    for i, x in results.items():
        share = f"{x.seconds / own:6.2f}×" if own and x.seconds is not None else ""
        said = x.wrong if x.seconds is None else f"{duration(x.seconds):>9}{share}"
        mark = "*" if i == best else " "
        yield f"{mark} {x.config!s:{width}}  {said}" + ("  (planned)" if i == 0 else "")
