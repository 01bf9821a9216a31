"""Planted mutations on the GPU: does the property suite see kernels that compute something else?

`python tests/gpu/mutants.py --seed N --count N` draws mutations of rendered Triton sources, spread
over the templates, and plants each in a worker process:

1. In float64, on three sets of sizes and inputs, the mutated op is compared with the sound one.
   What differs by more than 1e-9 of the scale, in an output or a gradient, is *changed*; what
   crashes or hangs there too. What does not compile is *stillborn*; the others are *equal*.
   Neither is counted.
2. The cells of `run.py` for that spec and order, in float32 and bfloat16, with their tolerances,
   run on what is changed. One that fails, crashes or hangs has *caught* the mutant.

Score = caught / changed; the bar is 95 %. Exit code 1 below it. `--minutes M` leaves the rest,
`--keep FILE` goes on where a run with the same sources and the same seed ended.

Non-goals: what a mutation is (`operators.py`), how it is run (`planting.py`).
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import operators  # noqa: E402
import pool  # noqa: E402
import run  # noqa: E402
from planting import CASES, PACKED_SIZES, SIZES, Case, compare, drawable, suite, suite_cells  # noqa: E402  # noqa: E402

BAR = 0.95


@dataclass(frozen=True)
class Mutant:
    """A mutation, the case that it is planted in, and the template that its function came from."""

    case: Case
    template: str
    mutation: operators.Mutation

    def __str__(self) -> str:
        return f"{self.case} [{self.template}] {self.mutation}"


def drawn(seed: int, count: int) -> list[Mutant]:
    """`count` mutants: a template each in turn, then an operator of those that it has a place for,
    then a place."""
    r = random.Random(seed)
    by: dict[str, dict[str, list[Mutant]]] = {}
    for case in CASES:
        sizes = PACKED_SIZES if case.packed else SIZES
        for template, found in drawable(case, sizes[0]).items():
            # Packed sequences are a part of every template: their mutants count by themselves.
            name = f"{template} packed" if case.packed else template
            for m in found:
                by.setdefault(name, {}).setdefault(m.operator, []).append(Mutant(case, name, m))
    chosen: dict[str, Mutant] = {}
    names = sorted(by)
    r.shuffle(names)
    while len(chosen) < count:
        name = names[len(chosen) % len(names)]
        m = r.choice(by[name][r.choice(sorted(by[name]))])
        chosen.setdefault(str(m), m)
    return list(chosen.values())


def verdict(compared: dict[str, Any] | None, tried: dict[str, Any] | None) -> str:
    """left, stillborn, equal, caught, missed, or broken (the machinery's own failure)."""
    for answer in (compared, tried):
        if answer is not None and answer.get("raised"):
            return "broken"
    if compared is None:
        return "left"
    if compared.get("what") in ("stillborn", "equal"):
        return str(compared["what"])
    if tried is None:
        return "left"
    return "caught" if "failed" in tried or tried["caught"] else "missed"


VERDICTS = ("caught", "missed", "equal", "stillborn", "left", "broken")


def table(by: dict[str, list[str]], title: str) -> str:
    """How many of each verdict, a line for each name."""
    lines = [f"{title:28}" + "".join(f"{v:>10}" for v in VERDICTS)]
    lines += [f"{name:28}" + "".join(f"{found.count(v):10}" for v in VERDICTS)
              for name, found in sorted(by.items())]  # fmt: skip
    return "\n".join(lines)


def score(verdicts: list[str]) -> tuple[int, int, float]:
    """Caught, changed, and the part of them that is caught."""
    caught, missed = verdicts.count("caught"), verdicts.count("missed")
    return caught, caught + missed, caught / (caught + missed) if caught + missed else 0.0


def main() -> int:
    """Exit code 1 where the score is below the bar, 2 where sound kernels fail or nothing ran."""
    parser = argparse.ArgumentParser(description="planted mutations on a real GPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=120, help="mutants drawn, stillborn included")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--limit", type=float, default=180.0, help="seconds that a job may take")
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "gpu-mutants.jsonl")
    asked = parser.parse_args()
    # What is to catch mutants is the suite, not the op itself at its first use.
    os.environ["SMAC_SELF_CHECK"] = "0"
    end = time.monotonic() + 60 * asked.minutes

    def go(function: Any, jobs: dict[str, Any], again: bool = False) -> dict[str, dict[str, Any]]:
        minutes = (end - time.monotonic()) / 60
        return pool.resumed(function, jobs, asked.keep, asked.workers, asked.limit, minutes, again)

    mutants = {f"{asked.seed} {m}": m for m in drawn(asked.seed, asked.count)}
    cases = {m.case for m in mutants.values()}
    cells = {case: suite_cells(case) for case in cases}
    assert all(cells.values()), [str(c) for c, found in cells.items() if not found]
    # The sound kernels first: all that mutants share is compiled then, and has to be right.
    sizes = {case: PACKED_SIZES if case.packed else SIZES for case in cases}
    jobs: dict[str, tuple[str, Any]] = {}
    owners: dict[str, set[Case]] = {}
    for c in cases:
        for i, one in enumerate(sizes[c]):
            jobs[f"sound {c} {i}"] = ("compare", (c, None, (one,)))
            owners[f"sound {c} {i}"] = {c}
        for x in cells[c]:
            name = f"sound {run._key(run.name_of(x))}"
            jobs[name] = ("suite", (None, [x]))
            owners.setdefault(name, set()).add(c)
    sound = go(_of_sound, jobs, again=True)
    unfit = set[Case]()
    for n, a in sound.items():
        if "failed" in a or a.get("caught") or a.get("what", "equal") != "equal":
            print(f"SOUND BUT WRONG {n}: {a}"[:500])
            unfit |= owners[n]
    fit = {n: m for n, m in mutants.items() if m.case not in unfit}
    compared = go(compare, {f"compare {n}": (m.case, m.mutation, sizes[m.case])
                            for n, m in fit.items()})  # fmt: skip
    changed = {n: m for n, m in fit.items() if "failed" in (a := compared.get(
        f"compare {n}", {})) or a.get("what") == "changed"}  # fmt: skip
    tried = go(suite, {f"suite {n}": (m.mutation, cells[m.case]) for n, m in changed.items()})
    return max(report(mutants, compared, tried, asked.seed), 2 * bool(unfit))


def _of_sound(job: tuple[str, Any]) -> dict[str, Any]:
    return compare(job[1]) if job[0] == "compare" else suite(job[1])


def report(mutants: dict[str, Mutant], compared: dict[str, dict[str, Any]],
           tried: dict[str, dict[str, Any]], seed: int) -> int:  # fmt: skip
    """Print what became of each mutant; the exit code."""
    templates: dict[str, list[str]] = {}
    kinds: dict[str, list[str]] = {}
    for n, m in mutants.items():
        one, two = compared.get(f"compare {n}"), tried.get(f"suite {n}")
        found = verdict(one, two)
        templates.setdefault(m.template, []).append(found)
        kinds.setdefault(m.mutation.operator, []).append(found)
        if found in ("missed", "broken"):
            said = [a.get("how", a.get("failed")) for a in (one, two) if a]
            print(f"{found.upper()} {m}"[:400] + f"\n    {'; '.join(map(str, said))}")
    print(table(templates, "template"), table(kinds, "operator"), sep="\n")
    verdicts = [v for found in templates.values() for v in found]
    print(table({"all": verdicts}, f"seed {seed}"))
    caught, changed, part = score(verdicts)
    print(f"score: {caught} of {changed} changed mutants caught: {part:.1%} (bar {BAR:.0%})")
    if "broken" in verdicts or not changed:
        return 2
    return int(part < BAR)


if __name__ == "__main__":
    sys.exit(main())
