"""`python -m benchmarks.calls`: what a call costs the host, where the GPU has little to do.

Beside each op, measured in the same run: its own compiled kernels, launched bare; and an autograd
Function that does nothing but launch as many empty kernels. `--check` holds captured and compiled
calls to eager ones instead (calls_check.py). On a CPU, target torch is measured: no launches there.
It never asserts on time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Shape
from benchmarks.cases_gpu import GpuCase, draw, op_of
from benchmarks.empty import Empty, launcher
from smac.runtime.direct import STREAM
from smac.runtime.player import Player
from smac.runtime.tape import Called, Launched, Tape

SHAPES = (Shape(1, 64, 2, 16, 16, 1), Shape(1, 128, 2, 16, 16, 1))
CASES = tuple(GpuCase(kind, s if kind == "ssd" else s._replace(G=2)) for s in SHAPES
              for kind in ("ssd", "simple_gla", "causal"))  # fmt: skip
#: Calls between two waits for the GPU, whose queue of launches must not fill; samples.
CALLS, SAMPLES = 20, 60
#: Functions of torch that launch nothing.
FREE = (torch.empty_strided, torch.as_strided)


@dataclass(frozen=True)
class Cost:
    """Host µs a call. `bare`: its kernels alone; `empty`: the Function with `launches` kernels,
    forward and backward; `kernels` of them are SMAC's own, the others sums and casts of torch."""

    case: str
    forward: float
    bare: float | None
    both: float
    empty: float
    kernels: tuple[int, int]
    launches: tuple[int, int]
    note: str = ""

    @property
    def beyond(self) -> float | None:
        """µs of a forward beyond its launches."""
        return None if self.bare is None else self.forward - self.bare


def host(run: Callable[[], object], wait: Callable[[], None], samples: int = SAMPLES) -> float:
    """Host µs a call: the median over samples."""
    for _ in range(5):
        run()
    taken = []
    for _ in range(samples):
        wait()
        began = time.perf_counter()
        for _ in range(CALLS):
            run()
        taken.append((time.perf_counter() - began) / CALLS)
    wait()
    return statistics.median(taken) * 1e6


def tapes(op: Any) -> tuple[list[Tape], str]:
    """The tapes of an op that was called for one shape, forward then backward; why there are none.

    Empty on target torch."""
    *_, made = op._launchers.values()
    players = [r.call for r in (made.runnable, made.backward_of().runnable)]
    found = [t for p in players if isinstance(p, Player) for t in list(p._tapes.values())[-1:]]
    return ([t for t in found if isinstance(t, Tape)],
            "; ".join(t for t in found if isinstance(t, str)))  # fmt: skip


def bare(tape: Tape, tensors: Sequence[Tensor]) -> tuple[Callable[[], None], object]:
    """The launches of a tape and nothing else; and the memory that they need to be kept."""
    held: list[Any] = [*tensors, *(None,) * tape.made]
    pointers = [*(x.data_ptr() for x in tensors), *(0,) * tape.made]
    block = torch.empty(max(tape.scratch, 1), dtype=torch.uint8, device=tape.device)
    for slot, offset in tape.offsets:
        pointers[slot] = block.data_ptr() + offset
    stream = torch.cuda.current_stream().cuda_stream
    calls: list[tuple[Callable[..., object], list[Any]]] = []
    for step in tape.steps:
        step = replace(step, spent=())
        if isinstance(step, Launched):
            values = step.values.copy()
            values[STREAM] = stream
            for place, slot in step.places:
                values[place] = pointers[slot]
            calls.append((step.launch, values))
        else:
            step.again(held, pointers, stream)

    def run() -> None:
        for launch, values in calls:
            launch(*values)

    return run, (held, block)


def counts(found: Sequence[Tape]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(SMAC's kernels, all launches), each forward and backward."""
    own = [sum(isinstance(s, Launched) for s in t.steps) for t in found]
    torchs = [sum(isinstance(s, Called) and s.function not in FREE for s in t.steps) for t in found]
    if len(found) < 2:
        return (0, 0), (0, 0)
    return (own[0], own[1]), (own[0] + torchs[0], own[1] + torchs[1])


def measure(case: GpuCase, device: str, samples: int = SAMPLES) -> Cost:
    """All that is measured of one case."""
    op, inputs = op_of(case.kind), draw(case, device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    plain = {n: x.detach() for n, x in inputs.items()}
    leaves = [x for x in inputs.values() if x.requires_grad]
    y = op(**plain)
    dy = torch.randn_like(y)

    def both() -> None:
        torch.autograd.grad(op(**inputs), leaves, dy)

    both()
    found, note = tapes(op)
    own, every = counts(found)
    launch = launcher(device)
    with torch.no_grad():
        forward = host(lambda: op(**plain), wait, samples)
        alone = None
        if found:
            # Tapes take what programs read, in their order: the inputs are those of the spec.
            *_, made = op._launchers.values()
            run, kept = bare(found[0], [list(plain.values())[i] for i, _ in made._arguments])
            alone = host(run, wait, samples)
            del kept
    empty = host(lambda: torch.autograd.grad(
        Empty.apply(launch, every, y, *leaves), leaves, dy), wait, samples)  # fmt: skip
    return Cost(case.name, forward, alone, host(both, wait, samples), empty, own, every, note)


def table(costs: Sequence[Cost]) -> str:
    """A line a case."""
    lines = [f"{'case B,T,H,P,N,G':30}{'forward':>9}{'bare':>7}{'beyond':>8}{'f+b':>8}{'empty':>8}"
             f"{'ratio':>7}  launches"]  # fmt: skip
    for c in costs:
        alone, beyond = ("–" if x is None else f"{x:.1f}" for x in (c.bare, c.beyond))
        (all_forward, all_backward), (own_forward, own_backward) = c.launches, c.kernels
        lines.append(
            f"{c.case:30}{c.forward:9.1f}{alone:>7}{beyond:>8}{c.both:8.1f}{c.empty:8.1f}"
            f"{c.both / c.empty:7.2f}  {all_forward} + {all_backward}, SMAC's own {own_forward} + "
            f"{own_backward} {c.note}".rstrip())  # fmt: skip
    return "\n".join(lines)


def machine(device: str) -> str:
    """What was measured on."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    return f"{name}, torch {torch.__version__}, Python {platform.python_version()}, host µs a call"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or check; exit code 1 where a check fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calls", description=__doc__)
    parser.add_argument("--check", action="store_true", help="captured and compiled calls")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    asked = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if asked.check:
        from benchmarks.calls_check import report

        return report(device)
    costs = [measure(case, device, asked.samples) for case in CASES]
    print(machine(device))
    print(table(costs))
    if asked.json:
        made = {"machine": machine(device), "costs": [asdict(c) for c in costs]}
        asked.json.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
