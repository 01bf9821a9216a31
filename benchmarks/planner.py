"""`python -m benchmarks.planner`: the planner's choice on this CPU against the best measured order.

Cells are drawn from a seed: a spec, T log-uniform, N, P, H and B. Every order runs as the op with
that order forced, its chunk left to the planner; times are the least of several runs, on one
thread. A cell's regret is the time of the planner's order over that of the fastest one. Orders that
are predicted to be hopeless are left out and shown as such. It never asserts.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import smac
from benchmarks.cases import MODES
from benchmarks.cpu import machine
from smac.errors import PlanError
from smac.paths import shipped_specs
from smac.testing.cells import Cell, axes_needed, complete
from smac.testing.inputs import Recipe, draw, recipe

ORDERS = ("chunked", "linear", "quadratic")
BAR = 1.5
#: An order is left out if it should take longer than `SLOW` seconds and `HOPELESS` times the best.
SLOW, HOPELESS = 1.0, 6.0
#: A cell is drawn again until B·T·H·(N + P) is at most this, so that a run takes under a second.
CAP = 2**23
WIDTHS = (16, 32, 64, 128)


@dataclass(frozen=True)
class Drawn:
    """A spec and its sizes."""

    spec: str
    sizes: Mapping[str, int]

    def __str__(self) -> str:
        return f"{self.spec:17}" + " ".join(f"{a}={n}" for a, n in self.sizes.items())


@dataclass(frozen=True)
class Outcome:
    """A cell in one mode: seconds of every order measured, and of the planner's choice."""

    cell: str
    mode: str
    choice: str
    best: str
    taken: float
    ratio: float
    seconds: Mapping[str, float]
    left_out: tuple[str, ...]


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Torch's own threads, set and put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cells(count: int, seed: int, longest: int = 8192) -> list[Drawn]:
    """`count` cells from `seed`, T from 16 to `longest`, none larger than CAP."""
    rng = random.Random(seed)
    specs = sorted(shipped_specs())
    found: list[Drawn] = []
    while len(found) < count:
        name = rng.choice(specs)
        T = int(math.exp(rng.uniform(math.log(16), math.log(longest))))
        drawn = {
            "B": rng.choice((1, 2)), "T": T,
            "H": rng.randint(1, 24), "N": rng.choice(WIDTHS), "P": rng.choice(WIDTHS), "G": 1,
        }  # fmt: skip
        sizes = {a: n for a, n in drawn.items() if a in axes_needed(smac.load(name))}
        if math.prod(drawn[a] for a in "BTH") * (drawn["N"] + drawn["P"]) <= CAP:
            found.append(Drawn(name, sizes))
    return found


@cache
def _recipe(name: str) -> Recipe:
    return recipe(smac.load(name))


def inputs_of(cell: Drawn, absent: tuple[str, ...]) -> dict[str, Any]:
    """Random inputs, all of them leaves."""
    spec = smac.load(cell.spec)
    full = complete(spec, dict(cell.sizes))
    return draw(spec, Cell("torch", "auto", "float32", full, absent), _recipe(cell.spec))


def least(run: Callable[[], object], budget: float) -> float:
    """Least seconds of a run: at least three after a first one, more while `budget` lasts.

    A first run beyond the budget stands."""
    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    if first > 2 * budget:
        return first
    times: list[float] = []
    while len(times) < 3 or (len(times) < 20 and time.perf_counter() - start < budget):
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return min(times)


def measure(
    cell: Drawn, order: str, inputs: Mapping[str, Any], budget: float
) -> tuple[float, float]:
    """Seconds of a forward, and of a backward alone, in `order`."""
    op: Any = smac.compile(cell.spec, order=order, target="torch")
    leaves = [x for x in inputs.values() if x is not None and x.requires_grad]

    def forward() -> None:
        with torch.no_grad():
            op(**inputs)

    y = op(**inputs)
    dy = torch.ones_like(y)
    back = least(lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True), budget)
    return least(forward, budget), back


def outcomes(cell: Drawn, budget: float) -> list[Outcome]:
    """Both modes of a cell: every order measured, the choice compared."""
    absent = ("z",) if any(i.name == "z" for i in smac.load(cell.spec).inputs) else ()
    inputs = inputs_of(cell, absent)

    def plan(order: str, backward: bool) -> Any:
        op: Any = smac.compile(cell.spec, order=order, target="torch")
        return op.plan(dtype="float32", device="cpu", backward=backward, absent=absent,
                       **cell.sizes)  # fmt: skip

    chosen = tuple(plan("auto", b) for b in (False, True))
    seconds: dict[str, tuple[float, float]] = {}
    left_out = []
    for order in ORDERS:
        try:
            planned = [plan(order, b) for b in (False, True)]
        except PlanError:
            continue
        if planned[0].order != order or planned[1].order != order:
            continue
        due = sum(p.chosen.time for p in planned)
        if due > max(SLOW, HOPELESS * sum(p.chosen.time for p in chosen)):
            left_out.append(order)
            continue
        seconds[order] = measure(cell, order, inputs, budget)
    return [judged(cell, mode, chosen, seconds, tuple(left_out)) for mode in MODES]


def judged(
    cell: Drawn, mode: str, chosen: tuple[Any, Any], seconds: Mapping[str, tuple[float, float]],
    left_out: tuple[str, ...],
) -> Outcome:  # fmt: skip
    """The choice in `mode` against the best order; forward and backward are chosen apart."""
    both = mode != MODES[0]
    total = {o: f + b if both else f for o, (f, b) in seconds.items()}
    first, last = chosen[0].order, chosen[1].order
    taken = seconds[first][0] + (seconds[last][1] if both else 0.0)
    best = min(total, key=total.__getitem__)
    choice = first if first == last or not both else f"{first}/{last}"
    return Outcome(str(cell), mode, choice, best, taken, taken / total[best], total, left_out)


def table(found: list[Outcome]) -> str:
    """The report, worst regret last: ≤ 100 columns."""
    lines = [f"{'cell':55}{'mode':11}{'choice':18}{'best':10}{'ratio':>6}"]
    for o in sorted(found, key=lambda o: o.ratio):
        mode = "forward" if o.mode == MODES[0] else "fwd + bwd"
        lines.append(f"{o.cell:55}{mode:11}{o.choice:18}{o.best:10}{o.ratio:6.2f}")
    worst = max((o.ratio for o in found), default=1.0)
    skipped = sum(len(o.left_out) for o in found)
    right = sum(o.choice == o.best for o in found)
    lines.append(f"worst regret {worst:.2f}, bar {BAR:g}: {'pass' if worst <= BAR else 'FAIL'}; "
                 f"{right} of {len(found)} choices were the best")  # fmt: skip
    if skipped:
        lines.append(f"{skipped} orders left out: predicted over {SLOW:g} s and "
                     f"{HOPELESS:g} × the choice")  # fmt: skip
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner", description=__doc__)
    parser.add_argument("--cells", type=int, default=30, help="cells to draw (default 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the cells (default 0)")
    parser.add_argument("--longest", type=int, default=8192, help="largest T (default 8192)")
    parser.add_argument("--budget", type=float, default=0.4,
                        help="seconds for the runs of an order and mode (default 0.4)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args(argv)
    found: list[Outcome] = []
    with threads(1):
        about = machine()
        for cell in tqdm(cells(options.cells, options.seed, options.longest), file=sys.stderr):
            found += outcomes(cell, options.budget)
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(table(found))
    if options.json:
        figures = {"machine": about, "outcomes": [asdict(o) for o in found]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
