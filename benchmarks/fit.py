"""`python -m benchmarks.fit FILE …`: the planner's constants, fitted to cells that were measured.

FILE: what `python -m benchmarks.planner --device cuda` leaves (planner_cuda.json). Every constant
of smac/plan/rates.py for 16-bit operands is moved up and down in turn, by steps that shrink, for as
long as choices get better. It prints which moved, and how many choices are near the best of what
was measured: of all cells, and of each half of them after a fit to the other. It writes nothing:
rates.py is edited by a person who has read this.

Non-goals: no measurements (planner.py), no rates of devices (`smac bench --calibrate`).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.regret import NEAR, Drawn, Key, dtype_on, key, loaded, named, share
from smac.plan import TABLE, cost, make
from smac.plan import rates as module
from smac.plan.devices import Device
from smac.plan.rates import NARROW, Rates
from smac.plan.shape import Shape, shape_of
from smac.plan.types import Request

#: Shares cannot be more; what comes near is no fit but a hole in the model.
MOST = 0.95
STEPS = (0.3, 0.17, 0.09, 0.05)
#: What a choice that is not near costs at once, the logarithm of its regret, a candidate's error, a
#: pair in the wrong order, and a constant's way from where it was.
_FAR, _REGRET, _ERROR, _ORDER, _WAY = 0.25, 3.0, 0.12, 0.1, 0.06
#: Candidates that are slower than the best by this do not matter.
_HOPELESS = 4.0


@dataclass(frozen=True)
class Known:
    """A cell one way: what was measured of its candidates, seconds by their names."""

    request: Request
    shape: Shape
    device: Device
    keys: tuple[Key, ...]
    measured: Mapping[str, float]

    def times(self) -> dict[str, float]:
        """What the planner predicts now, of candidates that are not hopeless."""
        best = min(self.measured.values())
        found = {}
        for order, chunk, schedule in self.keys:
            name = named((order, chunk, schedule))
            if self.measured.get(name, 0.0) > 2 * _HOPELESS * best:
                continue
            w = cost.work(self.shape, self.request, self.device, order, chunk, schedule)
            parts = cost.seconds(w, self.request, self.device, chunk, schedule)
            found[name] = cost.total(parts, self.request.target, schedule)
        return found


def read(path: Path) -> list[Known]:
    """The cells of a file. Raises SystemExit for a file of something else."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return [k for o in found["outcomes"] if (k := _known(o, TABLE[found["machine"]["row"]]))]
    except (OSError, ValueError, KeyError, TypeError) as e:
        sys.exit(f"{path}: expected what `python -m benchmarks.planner --device cuda` leaves, "
                 f"found {type(e).__name__}: {e}")  # fmt: skip


def _known(outcome: Mapping[str, Any], device: Device) -> Known | None:
    """None where nothing that is a candidate now was measured."""
    spec, *sizes = outcome["cell"].split()
    p = make(loaded(spec), sizes={a: int(n) for a, n in (x.split("=") for x in sizes)},
             dtype=dtype_on("cuda"), device=device.name, target="triton",
             backward=outcome["direction"] == "backward",
             absent=frozenset(Drawn(spec, {}).absent))  # fmt: skip
    keys = tuple(key(c) for c in p.candidates)
    measured = {n: t for k in keys if (t := outcome["measured"].get(n := named(k))) is not None}
    return Known(p.request, shape_of(p.request), device, keys, measured) if measured else None


# ---- constants ------------------------------------------------------------------------------


def flat(rates: Rates) -> dict[str, float]:
    """Every constant by its name: "tile_step", "dots.sweep", "reach.sweep.1" (backward)."""
    found: dict[str, float] = {}
    for f in fields(rates):
        value = getattr(rates, f.name)
        if not isinstance(value, Mapping):
            found[f.name] = value
            continue
        for kind, one in value.items():
            if isinstance(one, tuple):
                found |= {f"{f.name}.{kind}.{i}": x for i, x in enumerate(one)}
            else:
                found[f"{f.name}.{kind}"] = one
    return found


def moved(rates: Rates, name: str, value: float) -> Rates:
    """`rates` with one constant at `value`."""
    field, *where = name.split(".")
    if not where:
        return replace(rates, **{field: value})  # type: ignore[arg-type]
    table = dict(getattr(rates, field))
    if len(where) == 1:
        table[where[0]] = value
    else:
        pair = list(table[where[0]])
        pair[int(where[1])] = value
        table[where[0]] = tuple(pair)
    return replace(rates, **{field: table})  # type: ignore[arg-type]


@contextmanager
def using(rates: Rates) -> Iterator[None]:
    """The planner's costs of 16-bit operands by `rates`."""
    before = module.NARROW
    module.NARROW = rates
    try:
        yield
    finally:
        module.NARROW = before


# ---- how good they are ----------------------------------------------------------------------


def regrets(known: Sequence[Known], rates: Rates) -> list[float]:
    """The time of each choice over the best; cells whose choice was not measured are left out."""
    with using(rates):
        return [r for k in known if (r := _regret(k, k.times())) is not None]


def _regret(k: Known, times: Mapping[str, float]) -> float | None:
    choice = min(times, key=lambda n: times[n])
    return k.measured[choice] / min(k.measured.values()) if choice in k.measured else None


def loss(known: Sequence[Known], rates: Rates, start: Mapping[str, float]) -> float:
    """What a fit makes small: regrets above all, then errors of predictions."""
    total = sum(_WAY * abs(math.log(v / start[n])) for n, v in flat(rates).items())
    with using(rates):
        return total + sum(_loss(k, k.times()) for k in known)


def _loss(k: Known, times: Mapping[str, float]) -> float:
    found, best = 0.0, min(k.measured.values())
    regret = _regret(k, times)
    if regret is not None:
        found += _REGRET * max(0.0, math.log(regret) - 0.06) + _FAR * (regret > NEAR)
    near = {n: t for n, t in k.measured.items() if n in times and t < _HOPELESS * best}
    found += _ERROR * sum(abs(math.log(times[n] / t)) for n, t in near.items()) / max(len(near), 1)
    for a, fast in near.items():
        for b, slow in near.items():
            if fast < slow / NEAR:
                found += _ORDER * max(0.0, math.log(times[a] / times[b]) + 0.05)
    return found


def fit(known: Sequence[Known], rates: Rates, minutes: float, quiet: bool = False) -> Rates:
    """The constants that coordinate descent finds from `rates`, in `minutes` at most."""
    start, until = flat(rates), time.monotonic() + 60 * minutes
    best = loss(known, rates, start)
    for step in STEPS:
        better = True
        while better and time.monotonic() < until:
            better = False
            about = f"steps of {step}, loss {best:.2f}"
            for name in tqdm(start, about, disable=quiet, leave=False):
                for factor in (1 + step, 1 / (1 + step)):
                    tried = moved(rates, name, flat(rates)[name] * factor)
                    if name.startswith(("reach", "dots")) and flat(tried)[name] > max(
                            MOST, start[name]):  # fmt: skip
                        continue
                    if (found := loss(known, tried, start)) < best - 1e-3:
                        best, rates, better = found, tried, True
    return rates


def main(argv: Sequence[str] | None = None) -> int:
    """Print constants and shares."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--minutes", type=float, default=2.0, help="a fit, at most")
    asked = parser.parse_args(argv)
    known = [k for path in asked.files for k in read(path)]
    print("now        ", share(regrets(known, NARROW)))
    held: list[float] = []
    for part in (0, 1):  # both ways of a cell lie side by side
        some = [k for i, k in enumerate(known) if i // 2 % 2 == part]
        rest = [k for i, k in enumerate(known) if i // 2 % 2 != part]
        held += regrets(rest, fit(some, NARROW, asked.minutes))
    print("held out   ", share(held))
    found = fit(known, NARROW, asked.minutes)
    print("fitted     ", share(regrets(known, found)))
    for name, value in flat(found).items():
        if value != flat(NARROW)[name]:
            print(f"{name:20}{flat(NARROW)[name]:8.3g} -> {value:.3g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
