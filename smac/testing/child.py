"""Interpreted triton in a process of its own: a spec goes in as TOML, a report comes out as JSON.

TRITON_INTERPRET is read when triton is imported, so a process that has it cannot also compile.
Run as `python -m smac.testing.child`. Non-goals: what is checked (`check.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import smac
from smac.parse import parse
from smac.spec import Spec
from smac.testing.report import Failure, Report, Skip

if TYPE_CHECKING:
    from smac.testing.check import Settings


def interpreted() -> bool:
    """Whether triton is interpreted in this process."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def device_of(target: str) -> str:
    """Where a target's tensors live in this process."""
    import torch

    gpu = target == "triton" and not interpreted() and torch.cuda.is_available()
    return "cuda" if gpu else "cpu"


def runs_here(target: str) -> bool:
    """Whether this process can run the target: torch always, triton on a GPU or interpreted."""
    return target != "triton" or interpreted() or device_of(target) == "cuda"


def run_child(spec: Spec, asked: Settings) -> Report:
    """`check` in a child process that interprets triton; what the child dies of is a failure."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return Report(spec.name, skipped=(Skip("triton", "triton is not installed"),))
    root = str(Path(smac.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    sent = json.dumps({"spec": str(spec), "settings": asdict(asked)})
    done = subprocess.run([sys.executable, "-m", "smac.testing.child"], input=sent, env=env,
                          stdout=subprocess.PIPE, stderr=None if asked.progress else
                          subprocess.PIPE, text=True, check=False)  # fmt: skip
    try:
        return Report.from_json(json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, KeyError, TypeError):
        said = (done.stderr or "").strip().splitlines()
        message = f"the child process ended with {done.returncode}: {said[-1] if said else ''}"
        return Report(spec.name, failures=(Failure("triton", message, "interpreted triton", ""),))


def main() -> None:
    """Read {"spec", "settings"} from stdin, run it here, write the report to stdout."""
    from smac.testing.check import Settings, run_here

    sent = json.loads(sys.stdin.read())
    given = sent["settings"]
    lists = ("targets", "orders", "dtypes")
    given |= {k: None if given[k] is None else tuple(given[k]) for k in lists}
    given["draw"] = {n: (float(r[0]), float(r[1])) for n, r in given["draw"].items()}
    report = run_here(parse(sent["spec"], "<spec>"), Settings(**given))
    print(json.dumps(report.to_json()))


if __name__ == "__main__":
    main()
