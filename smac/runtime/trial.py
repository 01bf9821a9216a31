"""A process that tries configurations: it may crash or hang, and its parent goes on.

Run as `python -m smac.runtime.trial`. A request comes as one line of JSON on stdin: a job,
configurations by number, and the stage, "compile" (kernels into Triton's cache, nothing runs) or
"time" (results are checked, then timed). Answers are lines of JSON on stdout behind `MARK`: what is
being tried, what came out.

Non-goals: which configurations, what is done with the answers (tune.py).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from smac.errors import SmacError
from smac.plan.config import Config
from smac.runtime.job import Case, Job, case, in_config, misfit, truth
from smac.runtime.warm import compiling

MARK = "smac-trial "
#: Seconds that one configuration is timed for at most, and repetitions.
BUDGET, REPEATS = 1.0, 20


def say(**message: Any) -> None:
    """One line to the parent."""
    print(MARK + json.dumps(message), flush=True)


def compiled(made: Case, config: Config) -> None:
    """Compile what `config` would launch."""
    launcher = made.launcher(in_config(config, made.job.backward))
    tensors = made.tensors(launcher)
    with compiling():
        launcher.compile(made.runnable(launcher, tensors), tensors)


def tried(made: Case, exact: Any, config: Config) -> tuple[str, float | None]:
    """What is wrong with `config`, or "" and the seconds that it takes."""
    launcher = made.launcher(in_config(config, made.job.backward))
    wrong = misfit(made, launcher, exact)
    return (wrong, None) if wrong else ("", seconds(made.run(launcher), launcher.cell.device))


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Of a run, behind one that warms up: on a GPU the median, by its own clock; on a CPU the
    least of some, for others run there too."""
    on_gpu = device.type == "cuda"
    clock, kept = (_gpu_seconds, statistics.median) if on_gpu else (_cpu_seconds, min)
    run()
    found: list[float] = []
    while len(found) < REPEATS and sum(found) < BUDGET:
        found.append(clock(run))
    return float(kept(found))


def _cpu_seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _gpu_seconds(run: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def main() -> None:
    """Answer one request."""
    sent = json.loads(sys.stdin.readline())
    job = Job(**sent["job"])
    configs = [(i, Config.from_dict(c)) for i, c in sent["configs"]]
    if job.device.startswith("cuda"):
        torch.cuda.set_device(torch.device(job.device))
    timing = sent["stage"] == "time"
    say(at=None)
    made, exact = truth(job) if timing else (case(job), [])
    for i, config in configs:
        assert config is not None
        say(at=i)
        wrong, took = "", None
        try:
            if timing:
                wrong, took = tried(made, exact, config)
            else:
                compiled(made, config)
        except (SmacError, RuntimeError, ValueError, TypeError) as e:
            wrong = f"{type(e).__name__}: {e}"
        say(done=i, wrong=" ".join(wrong.split())[:200], seconds=took)
    say(end=True)


if __name__ == "__main__":
    main()
