"""`python -m benchmarks.planner`: the planner's choices against the best measured candidates.

Cells are drawn from a seed (regret.py), every legal candidate of each is measured, on this CPU or,
with `--device cuda`, on an NVIDIA GPU in bfloat16, where kernels are compiled first in many
processes. Results lie in `--out`, and a run goes on where the last one ended; `--report` measures
nothing. It prints the share of choices within 10 % of the best, and the worst ones. It never
asserts.

Non-goals: which cells there are and how they are judged (regret.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import crossover, store
from benchmarks.regret import (
    DIRECTIONS,
    NEAR,
    Drawn,
    Outcome,
    Timer,
    cells,
    forced,
    key,
    outcomes,
    plans,
    render_once,
    runs,
    share,
    threads,
    worthwhile,
)

#: Bars: the share of choices that are near the best, the worst regret; the share when tuned.
SHARE, WORST, TUNED = 0.95, 1.5, 0.99


def least(run: Callable[[], object], budget: float) -> float:
    """Least seconds of a run after a first one: at least three, more while `budget` lasts; one
    alone where that takes twice the budget."""
    run()  # plans and renders
    start = time.perf_counter()
    times: list[float] = []
    while len(times) < 3 or (len(times) < 20 and time.perf_counter() - start < budget):
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
        if times[-1] > 2 * budget:
            break
    return min(times)


def timer_on(device: str, budget: float) -> Timer:
    """How a run is timed: the least of several on a CPU, the median of a GPU's own clock."""
    if device == "cpu":
        return lambda run: least(run, budget)
    from benchmarks.clock import measure

    return lambda run: measure([run], budget).median


def summary(found: Sequence[Outcome]) -> str:
    """The bars: share of choices near the best, and the worst, each way and in all."""
    lines = []
    for direction in (*DIRECTIONS, "all"):
        own = [o.ratio for o in found if direction in (o.direction, "all") and o.ratio is not None]
        if not own:
            continue
        text = f"{direction:9}{share(own)}"
        if direction == "all":
            right = sum(r <= NEAR for r in own) >= SHARE * len(own) and max(own) <= WORST
            text += (f"; bars {100 * SHARE:.0f} %, {WORST:g}: {'held' if right else 'MISSED'}")
        lines.append(text)
    tuned = [o.tuned for o in found if o.tuned is not None]
    if tuned:
        near = sum(r <= NEAR for r in tuned)
        lines.append(f"quick tuning, the best of the ways that it tries: {near} of {len(tuned)} "
                     f"({100 * near / len(tuned):.1f} %), worst {max(tuned):.2f}; bar "
                     f"{100 * TUNED:.0f} %: {'held' if near >= TUNED * len(tuned) else 'MISSED'}")
    alone = sum(len(o.predicted) == 1 for o in found)
    skipped = sum(len(o.left_out) for o in found)
    failed = sum(len(o.failed or ()) for o in found)
    lines.append(f"of these {alone} had one candidate alone; {skipped} candidates left out as "
                 f"hopeless by prediction, {failed} failed")  # fmt: skip
    return "\n".join(lines)


def table(found: Sequence[Outcome], most: int = 20) -> str:
    """The worst choices with what was predicted, worst last, then the summary: ≤ 100 columns."""
    lines = [f"{'cell':51}{'way':9}{'ratio':>6}  choice, then best: ms/predicted"]
    judged = sorted((o for o in found if o.ratio is not None), key=lambda o: o.ratio or 0)
    for o in judged[-most:]:
        lines.append(f"{o.cell[:50]:51}{o.direction:9}{o.ratio:6.2f}  {_line(o, o.choice)}")
        if o.best != o.choice:
            lines.append(f"{'':68}{_line(o, o.best)}")
    for o in found:
        for name, why in (o.failed or {}).items():
            lines.append(" ".join(f"failed: {o.cell} {o.direction}, {name}: {why}".split()))
    return "\n".join([*(line[:100] for line in lines), summary(found)])


def _line(o: Outcome, name: str) -> str:
    short = " ".join(w[:6] for w in name.split())
    return f"{short:17}{1e3 * o.measured[name]:.3g}/{1e3 * o.predicted[name]:.3g}"


# ---- compiling ahead ------------------------------------------------------------------------


def compile_share(share: int, of: int, drawn: Sequence[Drawn]) -> None:
    """One process: every candidate of every cell both ways, on its share of the kernels."""
    from benchmarks.warm import dry

    dry(share, lambda: of)
    render_once()
    walked: set[tuple[Any, ...]] = set()
    for cell in drawn:
        both = plans(cell, "cuda")
        kind = cell.spec, cell.sizes["N"], cell.sizes["P"], cell.sizes["T"] % 64
        wanted = {key(c) for p in both for c in worthwhile(p, "cuda")[0]}
        for k in sorted(k for k in wanted if (*kind, k) not in walked):
            walked.add((*kind, k))
            try:
                for _, run in runs(forced(cell.spec, k, "cuda"), _blank(cell)):
                    run()
            except Exception as error:  # it is seen again, and said, when it is measured
                print(f"{cell} {k}: {error}", file=sys.stderr)
        torch.cuda.empty_cache()


def _blank(cell: Drawn) -> dict[str, Any]:
    """Inputs of a cell's shapes and types, whatever they hold; ids as integers."""
    import smac
    from smac.testing.cells import complete

    spec = smac.load(cell.spec)
    sizes = dict(complete(spec, dict(cell.sizes)))
    sizes["S"] = sizes["T"]
    made: dict[str, Any] = {}
    for i in spec.inputs:
        low = torch.float32 if "T" not in i.axes and "W" not in i.axes else torch.bfloat16
        made[i.name] = None if i.name in cell.absent else torch.empty(
            [sizes[a] for a in i.axes], dtype=low, device="cuda", requires_grad=True)  # fmt: skip
    return made


# ---- results --------------------------------------------------------------------------------


def load(path: Path, about: dict[str, Any] | None) -> tuple[dict[str, Any], list[Outcome],
                                                            list[Outcome]]:  # fmt: skip
    """(machine, outcomes, those of the crossovers) in a file; none where sources or device of it
    differ from those in `about`."""
    if not path.is_file():
        return about or {}, [], []
    file = json.loads(path.read_text(encoding="utf-8"))
    if about and any(file["machine"].get(k) != about[k] for k in ("sources", "device")):
        print(f"{path}: of other sources or another device: begun anew", file=sys.stderr)
        return about, [], []
    return (about or file["machine"], [Outcome(**o) for o in file["outcomes"]],
            [Outcome(**o) for o in file["crossovers"]])  # fmt: skip


def save(path: Path, about: dict[str, Any], found: Sequence[Outcome],
         crossed: Sequence[Outcome]) -> None:  # fmt: skip
    """Writes the file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [f'"{name}": [\n' + ",\n".join(f" {json.dumps(asdict(o))}" for o in own) + "\n]"
             for name, own in (("outcomes", found), ("crossovers", crossed))]  # fmt: skip
    temporary = path.with_suffix(".tmp")
    temporary.write_text(f'{{"machine": {json.dumps(about)},\n' + ",\n".join(parts) + "}\n",
                         encoding="utf-8")  # fmt: skip
    temporary.replace(path)


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    from smac.runtime.device import machine as name
    from smac.runtime.device import row

    where = torch.device(device)
    return {"device": name(where), "row": row(where), "sources": store.sources(),
            "torch": torch.__version__}  # fmt: skip


def measured(options: argparse.Namespace, path: Path) -> None:
    """Measures what is missing, until --minutes are over."""
    device, began = options.device, time.monotonic()
    about, found, crossed = load(path, machine(device))
    done = {o.cell for o in (*found, *crossed)}
    todo = [c for c in cells(options.cells, options.seed, device, options.longest)
            if str(c) not in done]  # fmt: skip
    more = [c for c in crossover.sweep(device) if options.crossovers and str(c) not in done]
    if device == "cuda" and options.workers and (todo or more):
        from benchmarks.warm import spread

        text = json.dumps([[c.spec, dict(c.sizes)] for c in (*more, *todo)])
        took = spread("benchmarks.planner", text, options.workers, 60 * options.minutes * 0.55)
        print(f"compiled ahead in {took:.0f} s", file=sys.stderr, flush=True)
    timer = timer_on(device, options.budget)
    for kept, drawn in ((crossed, more), (found, todo)):
        for cell in tqdm(drawn, file=sys.stderr, mininterval=5):
            if time.monotonic() - began > 60 * options.minutes:
                print("stopped: --minutes are over; run again to go on", file=sys.stderr)
                break
            kept += outcomes(cell, device, timer)
            save(path, about, found, crossed)
            if device == "cuda":
                torch.cuda.empty_cache()
    save(path, about, found, crossed)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--cells", type=int, help="cells to draw (default 30; cuda: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the cells (default 0)")
    parser.add_argument("--longest", type=int, help="largest T (default 8192; cuda: 32768)")
    parser.add_argument("--budget", type=float,
                        help="seconds for the runs of a candidate (default 0.4; cuda: 0.04)")
    parser.add_argument("--minutes", type=float, default=9.0, help="start no cell after (9)")
    parser.add_argument("--workers", type=int, default=max((os.cpu_count() or 2) - 1, 1),
                        help="processes that compile ahead for a GPU (0: none)")
    parser.add_argument("--crossovers", action="store_true", help="the sweeps over T too")
    parser.add_argument("--out", type=Path, default=store.RESULTS, metavar="DIR",
                        help="results (default benchmarks/results)")  # fmt: skip
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args(argv)
    on_gpu = options.device == "cuda"
    options.cells = options.cells or (200 if on_gpu else 30)
    options.budget = options.budget or (0.04 if on_gpu else 0.4)
    path = options.out / f"planner_{options.device}.json"
    if not options.report:
        if on_gpu and not torch.cuda.is_available():
            print("benchmarks.planner: found no CUDA device; expected an NVIDIA GPU",
                  file=sys.stderr)  # fmt: skip
            return 1
        if on_gpu:
            render_once()
        with threads(1):
            measured(options, path)
    about, found, crossed = load(path, None)
    if not found and not crossed:
        print(f"benchmarks.planner: {path}: no results", file=sys.stderr)
        return 1
    text = "\n".join([", ".join(f"{k} {v}" for k, v in about.items()), table(found),
                      *([crossover.said(crossed)] if crossed else [])])  # fmt: skip
    print(text)
    path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    try:
        title = f"{about['device']}, {'bfloat16' if on_gpu else 'float32'}"
        drawn = [crossover.scatter([*found, *crossed], path.with_suffix(".png"), title)]
        if crossed:
            drawn.append(crossover.plot(crossed, options.out / f"crossover_{options.device}.png",
                                        title))  # fmt: skip
        for picture in drawn:
            print(f"wrote {picture}")
    except ImportError as error:
        print(f"no plot: {error.name or error} is not installed")
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1].isdigit():  # a process that compiles its share
        compile_share(int(sys.argv[1]), int(sys.argv[2]),
                      [Drawn(spec, sizes) for spec, sizes in json.load(sys.stdin)])
    else:
        os.environ.setdefault("SMAC_SELF_CHECK", "0")  # hundreds of tiny cases, of no use to times
        sys.exit(main())
