"""All that is to be run on a GPU before a release: one command, one table.

`python tests/gpu/all.py [step …]` runs the steps in turn; commands of a step run side by side, for
they wait for compilers more than for the GPU. Each leaves its output in `--out` (build/gpu). A line
a step says how long it took and what it printed last. Nothing starts after `--minutes`, and what
runs then is stopped. Exit code 1 where a command failed, was stopped or was left.

Non-goals: what the steps find (the scripts themselves say it), peers and plots (benchmarks).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
Command = tuple[str, ...]


def contracts(*promises: str) -> tuple[Command, ...]:
    """These promises, a process for each way and type."""
    return tuple(("tests/gpu/contracts.py", *promises, "--way", way, "--dtype", dtype)
                 for way in ("sweep", "chunks", "quadratic", "tokens")
                 for dtype in ("bfloat16", "float32", "float64"))  # fmt: skip


#: What is measured in time runs alone.
STEPS: Mapping[str, tuple[Command, ...]] = {
    "matrix": (("tests/gpu/run.py",),),
    "contracts": (*contracts("heads", "widths", "decays", "views", "decoding"),
                  ("tests/gpu/contracts.py", "empty", "programs", "tf32")),
    "large": (("tests/gpu/contracts.py", "large"),),
    "sanitizer": (("tests/gpu/sanitize.py",),),
    "mutants": (("tests/gpu/mutants.py",),),
    "calls": (("-m", "benchmarks.calls", "--check"),),
    "host": (("-m", "benchmarks.calls"),),
    "first call": (("-m", "benchmarks.first_call", "--only", "ssd"),),
    "tuning": (("-m", "smac", "bench", "ssd", "--tune", "quick"),),
    "tuned": (("-m", "smac", "bench", "ssd", "--tune", "quick"),),
}  # fmt: skip


def run(name: str, commands: Sequence[Command], out: Path, until: float) -> bool:
    """One step; whether all of it went well. Prints its line."""
    start = time.monotonic()
    logs = [out / f"{name.replace(' ', '_')}{f'_{i}' if i else ''}.log"
            for i in range(len(commands))]  # fmt: skip
    running = [_started(c, log) for c, log in zip(commands, logs, strict=True)]
    codes = [_ended(child, until) for child in running]
    took = time.monotonic() - start
    bad = [(code, log) for code, log in zip(codes, logs, strict=True) if code != 0]
    verdict = "ok" if not bad else "STOPPED" if any(c is None for c, _ in bad) else "FAILED"
    code_log = bad[0][1] if bad else logs[-1]
    of = f"{len(commands) - len(bad)} of {len(commands)}"
    print(f"{name:12}{verdict:8}{of:>9}{took:7.0f} s  {_last_line(code_log)[:100]}", flush=True)
    return not bad


def _started(command: Command, log: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(
        [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}  # fmt: skip
    with log.open("wb") as f:
        return subprocess.Popen([sys.executable, "-W", "ignore", *command], cwd=ROOT, env=env,
                                stdout=f, stderr=subprocess.STDOUT,
                                start_new_session=True)  # fmt: skip


def _ended(child: subprocess.Popen[bytes], until: float) -> int | None:
    """The exit code, or None of what had to be stopped, with all that it had started."""
    try:
        return child.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        child.wait()
        return None


def _last_line(log: Path) -> str:
    lines = [x.strip() for x in log.read_text("utf-8", "replace").splitlines() if x.strip()]
    return lines[-1] if lines else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the steps that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", metavar="step", help=", ".join(STEPS))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu")
    asked = parser.parse_args(argv)
    if not STEPS.keys() >= set(asked.steps):
        parser.error(f"found {', '.join(asked.steps)}; expected some of {', '.join(STEPS)}")
    asked.out.mkdir(parents=True, exist_ok=True)
    until, well = time.monotonic() + 60 * asked.minutes, True
    for name in asked.steps or STEPS:
        if time.monotonic() >= until:
            print(f"{name:12}LEFT")
            well = False
            continue
        well &= run(name, STEPS[name], asked.out, until)
    return int(not well)


if __name__ == "__main__":
    sys.exit(main())
