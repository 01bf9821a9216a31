"""Child processes that try configurations (trial.py), watched: crashes and hangs are results.

Non-goals: what is tried, what results mean (tune.py).
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smac.plan.config import Config
from smac.runtime.job import Job
from smac.runtime.trial import MARK

#: What is run; a test puts something worse here.
COMMAND = (sys.executable, "-m", "smac.runtime.trial")
#: Seconds without a word, before the first configuration and during one, after which a child hangs.
START, EACH = 300.0, 120.0


@dataclass(frozen=True)
class Result:
    """What came out of a configuration: seconds (None when it was compiled alone), or why not."""

    config: Config
    seconds: float | None
    wrong: str = ""


def drive(job: Job, configs: Mapping[int, Config], stage: str,
          notice: Callable[[str], None] = lambda _: None) -> dict[int, Result]:  # fmt: skip
    """The result of every configuration, from as many children as it takes.

    `notice` is called with the name of what is tried next."""
    found: dict[int, Result] = {}
    while left := {i: c for i, c in configs.items() if i not in found}:
        at: int | None = None
        why = "ended early"
        for message in _answers(job, left, stage):
            if "done" in message:
                i = message["done"]
                found[i] = Result(configs[i], message["seconds"], message["wrong"])
                at = None
            elif message.get("at") is not None:
                at = message["at"]
                notice(f"{stage}: {configs[at]}")
            why = message.get("why", why)
        if at is not None:  # the child did not outlive it
            found[at] = Result(configs[at], None, why)
        elif len(found) < len(configs) and not left.keys() & found.keys():
            return found | {i: Result(c, None, f"before it was tried, the child {why}")
                            for i, c in left.items()}  # fmt: skip
    return found


def _answers(job: Job, configs: Mapping[int, Config], stage: str) -> Iterator[dict[str, Any]]:
    """What one child says; last, where it did not come to its end, {"why": what became of it}."""
    sent = {"job": asdict(job), "stage": stage,
            "configs": [[i, c.to_dict()] for i, c in configs.items()]}  # fmt: skip
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    child = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path},
                             errors="replace")  # fmt: skip
    try:
        yield from _watched(child, json.dumps(sent) + "\n")
    finally:
        child.kill()
        child.wait()


def _watched(child: subprocess.Popen[str], request: str) -> Iterator[dict[str, Any]]:
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    errors: list[str] = []
    out, err = child.stdout, child.stderr

    def read() -> None:
        for line in out:
            lines.put(line)
        lines.put(None)

    readers = [threading.Thread(target=read, daemon=True),
               threading.Thread(target=lambda: errors.extend(err), daemon=True)]  # fmt: skip
    for reader in readers:
        reader.start()
    try:
        child.stdin.write(request)
        child.stdin.close()
    except BrokenPipeError:
        pass
    patience = START
    while True:
        try:
            line = lines.get(timeout=patience)
        except queue.Empty:
            yield {"why": f"was silent for {patience:.0f} s and was ended"}
            return
        if line is None:
            code = child.wait()
            readers[1].join(1)
            said = next((e.strip() for e in reversed(errors) if e.strip()), "")
            yield {"why": f"ended with code {code}" + (f": {said[:160]}" if said else "")}
            return
        if line.startswith(MARK):
            message = json.loads(line.removeprefix(MARK))
            if message.get("end"):
                return
            patience = EACH if message.get("at") is not None else START
            yield message
