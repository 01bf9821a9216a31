"""Worker processes that outlive their jobs, and not their crashes: what a GPU run is spread over.

A worker imports torch and opens the GPU once, then takes job after job. One that dies, runs past
its time or is left with a broken GPU context costs the job it had, and another takes its place.

`resumed` keeps answers in a file of JSON lines, and goes on there while sources are the same.

Non-goals: what a job is (`run.py`, `mutants.py`).
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

#: Imported once, by the process that workers are forked from; none of them opens the GPU.
PRELOAD = ["torch", "triton", "smac", "smac.lower", "smac.codegen.triton",
           "smac.testing.properties"]  # fmt: skip
#: Seconds that a worker may take to start.
START_S = 300.0


@dataclass(frozen=True)
class Died:
    """What became of a job that gave no answer; `raised`: an exception, no crash and no hang."""

    why: str
    raised: bool = False


class _Worker:
    """One process, its pipe, and the job that it is at."""

    def __init__(self, context: Any, function: Callable[[Any], Any]) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Any = None
        self.ready, self.since = False, 0.0

    def give(self, job: Any) -> None:
        self.job, self.since = job, time.monotonic()
        self.pipe.send(job)

    def starts(self) -> None:
        self.ready, self.since = True, time.monotonic()

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def each(function: Callable[[Any], Any], jobs: Sequence[Any], workers: int, limit_s: float,
         until: float | None = None) -> Iterator[tuple[Any, Any]]:  # fmt: skip
    """(job, what `function` made of it, or why it `Died`), in the order in which they end.

    `limit_s`: seconds that a job may take. `until`: of time.monotonic(); no job starts after it,
    and those that run then are given up without an answer. An exception of `function` is a Died
    that names it.
    """
    # One thread each: the jobs are what runs in parallel.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    todo = list(reversed(jobs))
    crew: list[_Worker] = []
    try:
        while todo or any(w.job is not None for w in crew):
            if until is not None and time.monotonic() > until:
                return
            busy = [w for w in crew if w.job is not None]
            while todo and len(busy) < workers:
                idle = next((w for w in crew if w.job is None), None)
                if idle is None:
                    crew.append(idle := _Worker(context, function))
                idle.give(todo.pop())
                busy.append(idle)
            wait([w.pipe for w in busy], timeout=1.0)
            for w in busy:
                answer = _answer(w, limit_s)
                if answer is None:
                    continue
                job, w.job = w.job, None
                sound, result = answer
                if not sound:
                    crew.remove(w)
                    w.end()
                yield job, result
    finally:
        for w in crew:
            w.end()


def sources() -> str:
    """A digest of all that an answer depends on: SMAC, its specs, this folder, versions."""
    import torch
    import triton

    paths = [*ROOT.glob("smac/**/*.py"), *ROOT.glob("templates/triton/*"),
             *ROOT.glob("specs/*.toml"), *HERE.glob("*.py")]  # fmt: skip
    made = hashlib.sha256(f"{torch.__version__} {triton.__version__}".encode())
    for p in sorted(paths):
        made.update(str(p.relative_to(ROOT)).encode() + p.read_bytes())
    return made.hexdigest()


def resumed(function: Callable[[Any], dict[str, Any]], jobs: Mapping[str, Any], keep: Path,
            workers: int, limit_s: float, minutes: float | None,
            again: bool = True) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Answers by the names of `jobs`; of one that died {"failed": why, "raised": …}. What `keep`
    holds of an earlier run with the same sources is not run again, nor, unless `again`, what failed
    there; what there was no time for is missing."""
    until = None if minutes is None else time.monotonic() + 60 * minutes
    now, found = sources(), dict[str, dict[str, Any]]()
    for line in keep.read_text(encoding="utf-8").splitlines() if keep.exists() else ():
        kept = json.loads(line)
        if kept["sources"] == now and kept["job"] in jobs and (
                not again or "failed" not in kept["answer"]):  # fmt: skip
            found[kept["job"]] = kept["answer"]
    names = {id(job): name for name, job in jobs.items()}
    todo = [job for name, job in jobs.items() if name not in found]
    keep.parent.mkdir(parents=True, exist_ok=True)
    with keep.open("a", encoding="utf-8") as out:
        for job, answer in each(function, todo, workers, limit_s, until):
            made = answer
            if isinstance(answer, Died):
                made = {"failed": answer.why, "raised": answer.raised}
            name = names[id(job)]
            found[name] = made
            out.write(json.dumps({"job": name, "sources": now, "answer": made}) + "\n")
            out.flush()
            print(f"\r{len(found)} of {len(jobs)} ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def _answer(w: _Worker, limit_s: float) -> tuple[bool, Any] | None:
    """(whether the worker can go on, its answer), or None while it works."""
    try:
        if w.pipe.poll():
            found: tuple[bool, Any] | None = w.pipe.recv()
            if found is None:
                w.starts()
            return found
    except (EOFError, OSError):
        w.process.join(5)
        return False, Died(f"the process died with exit code {w.process.exitcode}")
    limit = limit_s if w.ready else START_S
    took = time.monotonic() - w.since
    return (False, Died(f"ran past {limit:.0f} s")) if took > limit else None


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """In a worker: say that all is imported (None), then answer jobs until the pipe closes."""
    pipe.send(None)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            result = function(job)
        except Exception as e:
            result = Died(f"{type(e).__name__}: {e}"[:600], raised=True)
        sound = _context_is_sound()
        pipe.send((sound, result))
        if not sound:
            return


def _context_is_sound() -> bool:
    """Whether the GPU still answers: after an illegal access every later call of a process fails.
    Its memory goes back, so that many workers share a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except Exception:
        return False
    return True
