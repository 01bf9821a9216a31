"""Cells for the planner's regret: drawn by seed, every legal candidate measured, the choice judged.

A cell is a spec and its sizes, log-uniform. Forward and backward are planned apart and judged
apart: a cell's regret in one of them is the time of the planner's candidate over that of the
fastest one. N and P are few powers of two and T a multiple of 64, so that cells share kernels.

Non-goals: no tables, no command line (planner.py).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

import smac
from smac.errors import SmacError
from smac.plan.config import OWN
from smac.plan.space import space
from smac.testing.cells import Cell, axes_needed, complete
from smac.testing.inputs import Recipe, as_tuple, draw, recipe

#: Specs whose masks differ in what they allow: scalar decays, none, several lanes, per channel,
#: levels, lags alone, a band.
SPECS = ("ssd", "retnet", "linear_attention", "multiscale", "semiseparable2", "cosformer", "gla",
         "log_linear", "toeplitz", "window")  # fmt: skip
DIRECTIONS = ("forward", "backward")
#: Choices within this of the best measured candidate are near it.
NEAR = 1.1
Key = tuple[str, int, str]  # order, chunk, schedule
Timer = Callable[[Callable[[], object]], float]


@dataclass(frozen=True)
class Limits:
    """Of a device: N and P to draw, the longest T, most elements B·T·H·(N + P); a candidate that
    is predicted to take longer than `slow` seconds and `hopeless` times the choice is left out.
    `step`: T is a multiple; `like`: B and H are neither 1 nor multiples of 16, which kernels are
    compiled apart for."""

    states: tuple[int, ...]
    widths: tuple[int, ...]
    longest: int
    elements: int
    heads: int
    batch: int
    slow: float
    hopeless: float
    step: int = 1
    like: bool = False


LIMITS = {
    "cpu": Limits((16, 32, 64, 128), (16, 32, 64, 128), 8192, 2**23, 24, 2, 1.0, 6.0),
    "cuda": Limits((32, 64, 128), (64, 128), 2**15, 2**26, 63, 15, 0.1, 20.0, 64, like=True),
}


@cache
def loaded(name: str) -> Any:
    """A shipped spec."""
    return smac.load(name)


@dataclass(frozen=True)
class Drawn:
    """A spec and its sizes."""

    spec: str
    sizes: Mapping[str, int]

    def __str__(self) -> str:
        return f"{self.spec:17}" + " ".join(f"{a}={n}" for a, n in self.sizes.items())

    @property
    def absent(self) -> tuple[str, ...]:
        """A gate z makes every candidate slower by the same pass: it is left out."""
        return ("z",) if any(i.name == "z" for i in loaded(self.spec).inputs) else ()


@dataclass(frozen=True)
class Outcome:
    """A cell in one direction: seconds measured and predicted of every candidate, by name.

    `tried`: those that quick tuning would time, tiles that differ from the printer's left out.
    """

    cell: str
    direction: str
    choice: str
    measured: Mapping[str, float]
    predicted: Mapping[str, float]
    left_out: tuple[str, ...] = ()
    failed: Mapping[str, str] | None = None
    tried: tuple[str, ...] = ()

    @property
    def tuned(self) -> float | None:
        """The regret when quick tuning chooses; None where that has no figures."""
        times = [self.measured[k] for k in self.tried if k in self.measured]
        return min(times) / self.measured[self.best] if times else None

    @property
    def best(self) -> str:
        """The fastest candidate."""
        return min(self.measured, key=self.measured.__getitem__)

    @property
    def ratio(self) -> float | None:
        """The regret; None where the choice itself has no figure."""
        if self.choice not in self.measured:
            return None
        return self.measured[self.choice] / self.measured[self.best]


def share(ratios: Sequence[float]) -> str:
    """How many of these regrets are near the best, and the worst."""
    near, of = sum(r <= NEAR for r in ratios), len(ratios)
    return (f"{near} of {of} choices ({100 * near / max(of, 1):.1f} %) within "
            f"{100 * (NEAR - 1):.0f} % of the best, worst {max(ratios, default=1):.2f}")


def cells(count: int, seed: int, device: str, longest: int | None = None) -> list[Drawn]:
    """`count` cells from `seed`, T from 16 (64 on a GPU) to `longest`, none above the limits."""
    limits, rng = LIMITS[device], random.Random(seed)
    most = longest or limits.longest
    found: list[Drawn] = []

    def log_uniform(low: int, high: int, step: int = 1) -> int:
        n = math.exp(rng.uniform(math.log(low), math.log(high + 1)))
        return min(max(low, round(n / step) * step), high)

    while len(found) < count:
        name = rng.choice(SPECS)
        drawn = {
            "B": log_uniform(1, limits.batch),
            "T": log_uniform(min(max(16, limits.step), most), most, limits.step),
            "H": log_uniform(2, limits.heads),
            "N": rng.choice(limits.states), "P": rng.choice(limits.widths), "G": 1,
        }  # fmt: skip
        if limits.like and any(drawn[a] == 1 or drawn[a] % 16 == 0 for a in "BH"):
            continue
        needed = axes_needed(loaded(name))
        sizes = {a: n for a, n in drawn.items() if a in needed}
        if math.prod(drawn[a] for a in "BTH") * (drawn["N"] + drawn["P"]) <= limits.elements:
            found.append(Drawn(name, sizes))
    return found


@cache
def _recipe(name: str) -> Recipe:
    return recipe(loaded(name))


def dtype_on(device: str) -> str:
    """What cells run in."""
    return "float32" if device == "cpu" else "bfloat16"


def inputs_of(cell: Drawn, device: str) -> dict[str, Any]:
    """Random inputs, all of them leaves."""
    spec = loaded(cell.spec)
    full = complete(spec, dict(cell.sizes))
    where = Cell("auto", "auto", dtype_on(device), full, cell.absent)
    return draw(spec, where, _recipe(cell.spec), device)


def key(candidate: Any) -> Key:
    """What a candidate is forced by."""
    return candidate.order, candidate.chunk, candidate.schedule


def named(k: Key) -> str:
    """A candidate in a word or three."""
    order, chunk, schedule = k
    return f"{order} {schedule}" if order == "linear" else f"{order} {chunk} {schedule}"


def forced(spec: str, k: Key, device: str) -> Any:
    """The op that runs candidate `k` alone."""
    order, chunk, schedule = k
    return smac.compile(spec, order=order, schedule=schedule,
                        chunk=None if order == "linear" else chunk,
                        target="torch" if device == "cpu" else "triton")  # fmt: skip


def plans(cell: Drawn, device: str) -> tuple[Any, Any]:
    """The plans of forward and backward."""
    op: Any = smac.compile(cell.spec, target="torch" if device == "cpu" else "triton")
    first, last = (op.plan(dtype=dtype_on(device), device=device, backward=b, absent=cell.absent,
                           **cell.sizes) for b in (False, True))  # fmt: skip
    return first, last


def worthwhile(plan: Any, device: str) -> tuple[list[Any], tuple[str, ...]]:
    """The candidates to measure, and the names of those that would take too long."""
    limits = LIMITS[device]
    most = max(limits.slow, limits.hopeless * plan.chosen.time) if device == "cpu" else limits.slow
    found = [c for c in plan.candidates if c.time <= most or key(c) == key(plan.chosen)]
    return found, tuple(named(key(c)) for c in plan.candidates if c not in found)


def runs(op: Any, inputs: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], object]]]:
    """A forward without a graph; then, when it is asked for, a backward alone."""

    def forward() -> None:
        with torch.no_grad():
            op(**inputs)

    yield DIRECTIONS[0], forward
    leaves = [x for x in inputs.values() if x is not None and x.requires_grad]
    y = as_tuple(op(**inputs))
    dy = [torch.ones_like(x) for x in y]
    yield DIRECTIONS[1], lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True,
                                                     allow_unused=True)  # fmt: skip


def outcomes(cell: Drawn, device: str, timer: Timer) -> list[Outcome]:
    """Both directions of a cell: every candidate measured."""
    inputs = inputs_of(cell, device)
    both = plans(cell, device)
    chosen = [worthwhile(p, device) for p in both]
    wanted = {key(c) for found, _ in chosen for c in found}
    measured: list[dict[str, float]] = [{}, {}]
    failed: list[dict[str, str]] = [{}, {}]
    for k in sorted(wanted):
        asked = [any(key(c) == k for c in found) for found, _ in chosen]
        place = 0
        try:
            for _, run in runs(forced(cell.spec, k, device), inputs):
                if asked[place]:
                    measured[place][named(k)] = timer(run)
                place += 1
        except Exception as error:  # one candidate; the others are measured
            if not isinstance(error, SmacError) and not _alive(device):
                raise
            for way in range(place, len(asked)):
                if asked[way]:
                    failed[way][named(k)] = f"{type(error).__name__}: {error}"[:200]
    return [Outcome(str(cell), d, named(key(p.chosen)), m,
                    {named(key(c)): c.time for c in p.candidates}, left, bad or None,
                    tuple(dict.fromkeys(named((w.order, w.chunk, w.schedule))
                                        for w in space(p, "quick") if w.tiles == OWN)))
            for d, p, m, (_, left), bad in zip(DIRECTIONS, both, measured, chosen, failed,
                                               strict=True)]  # fmt: skip


def render_once() -> None:
    """Programs of this process that are equal are rendered once: hundreds of ops share them."""
    from smac.runtime.launch import Runnable

    Runnable.of = staticmethod(cache(Runnable.of))  # type: ignore[method-assign]


def _alive(device: str) -> bool:
    from benchmarks.clock import alive

    return device == "cpu" or alive()


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Torch's own threads, set and put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)

