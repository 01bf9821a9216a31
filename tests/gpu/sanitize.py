"""compute-sanitizer over one small case per template: memory errors, and races in shared memory.

`python tests/gpu/sanitize.py` runs each case once to compile it, then under each tool in a process
of its own, and prints the tools' summary lines as a table. Exit code 1 where one found something or
did not run, 2 where compute-sanitizer is missing. `--tools memcheck,racecheck,synccheck,initcheck`;
`--case NAME` is one case, here, for the tools to run: forward and backward, states and all.

Tensors are allocations of their own, so that an access beside one is seen.

Non-goals: whether results are right (`run.py`).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

from planting import CASES, results  # noqa: E402

WANTED = (
    "ssd chunked", "linear_attention chunked", "retnet chunks", "gla chunked", "per_value chunked",
    "ssd segmented", "hydra chunked", "nine_decays chunks", "ssd quadratic",
    "toeplitz quadratic", "retnet linear", "ssd chunked packed sweep",
    "ssd chunked packed chunks", "gla chunked packed sweep", "toeplitz quadratic packed auto",
)  # fmt: skip
SANITIZED = {str(c): c for c in CASES if str(c) in WANTED}
#: Ragged: two chunks and a tail, sides that are no powers of two.
SIZES = {"B": 1, "T": 145, "H": 2, "G": 1, "N": 24, "P": 20}
SUMMARY = re.compile(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard")
MISSING = """compute-sanitizer was not found on PATH, in CUDA_HOME/bin or /usr/local/cuda/bin.
It is part of the CUDA toolkit; without root: conda install -c nvidia cuda-sanitizer-api"""


def tool() -> str | None:
    """Where compute-sanitizer is."""
    homes = [os.environ.get(n, "") for n in ("CUDA_HOME", "CUDA_PATH")] + ["/usr/local/cuda"]
    path = os.pathsep.join([os.environ.get("PATH", ""), *(f"{h}/bin" for h in homes if h),
                            *(f"{h}/compute-sanitizer" for h in homes if h)])  # fmt: skip
    return shutil.which("compute-sanitizer", path=path)


def run_case(name: str, dtype: str) -> None:
    """Forward and backward of one case, whatever it computes."""
    import torch

    results(SANITIZED[name], SIZES, 0, dtype)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    print(f"ran {name}")


def summary(said: str) -> tuple[str, bool]:
    """The tool's own last word, and whether it is that nothing was found."""
    found = [(m.group(0), int(m.group(1) or m.group(2) or 0)) for m in SUMMARY.finditer(said)]
    if not found:
        return "no summary: " + " ".join(said.split())[-200:], False
    line = next(x for x in reversed(said.splitlines()) if SUMMARY.search(x))
    ran = "ran " in said
    return line.strip("= \n") + ("" if ran else ", but the case did not end"), (
        ran and all(n == 0 for _, n in found))  # fmt: skip


def sanitized(command: list[str], limit_s: float) -> tuple[str, bool]:
    """A command's summary, or that it ran past its time."""
    env = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=env, cwd=ROOT, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=limit_s, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"ran past {limit_s:.0f} s", False
    if "compute-sanitizer" not in command[0]:
        return done.stdout[-300:], done.returncode == 0
    said, clean = summary(done.stdout)
    if not clean:
        print(done.stdout[:4000], file=sys.stderr)
    return said, clean


def main() -> int:
    """See the file's first lines."""
    parser = argparse.ArgumentParser(description="compute-sanitizer over every template")
    parser.add_argument("--case", choices=sorted(SANITIZED))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tools", default="memcheck,racecheck")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--limit", type=float, default=200.0, help="seconds that a run may take")
    asked = parser.parse_args()
    if asked.case:
        run_case(asked.case, asked.dtype)
        return 0
    found = tool()
    if found is None:
        print(MISSING, file=sys.stderr)
        return 2
    cases = {n: [sys.executable, str(HERE / "sanitize.py"), "--case", n, "--dtype", asked.dtype]
             for n in SANITIZED}  # fmt: skip
    jobs = {(n, t): [found, "--tool", t, "--target-processes", "application-only", *c]
            for t in asked.tools.split(",") for n, c in cases.items()}  # fmt: skip
    with ThreadPoolExecutor(asked.workers) as pool:
        compiled = list(pool.map(lambda c: sanitized(c, asked.limit), cases.values()))
        made = list(pool.map(lambda c: sanitized(c, asked.limit), jobs.values()))
    wrong = 0
    for name, (said, fine) in zip(cases, compiled, strict=True):
        if not fine:
            print(f"{name:32}does not run by itself: {said}")
            wrong += 1
    print(f"{'case':32}{'tool':11}summary ({asked.dtype})")
    for (name, which), (said, clean) in zip(jobs, made, strict=True):
        print(f"{name:32}{which:11}{said}")
        wrong += not clean
    print(f"{len(jobs)} runs, {wrong} with errors")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
