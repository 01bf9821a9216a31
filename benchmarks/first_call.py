"""`python -m benchmarks.first_call`: seconds of the first call of an op, in fresh processes.

Cold: no kernel of it compiled before, in folders of caches made for the purpose; warm: the next
process, with what the first has left there. Imports (of sympy and jinja2 too) and the GPU's own
start are aside. `--off` leaves the check at first use out; `--tune quick` searches first, and
prints what it finds. Bars on a GPU: 5 s forward and 10 s with the backward when cold, 0.5 s when
warm. Without a GPU the torch target is measured, at a short T, for no bar.

Non-goals: the speed of later calls (gpu.py).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: Spec and sizes: the layer of Mamba-2 2.7B, GLA per channel, causal linear attention, retention.
CASES: dict[str, dict[str, int]] = {
    "ssd": {"B": 8, "T": 2048, "H": 80, "P": 64, "N": 128, "G": 1},
    "gla": {"B": 4, "T": 4096, "H": 16, "P": 128, "N": 128},
    "linear_attention": {"B": 4, "T": 4096, "H": 16, "P": 128, "N": 128},
    "retnet": {"B": 4, "T": 4096, "H": 16, "P": 128, "N": 128},
}
#: Where there is no GPU.
SHORT = {"B": 1, "T": 256}
BARS = {("cold", "forward"): 5.0, ("cold", "both"): 10.0, ("warm", "forward"): 0.5,
        ("warm", "both"): 0.5}  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]


def measure(name: str, tune: str) -> dict[str, float | str]:
    """In a fresh process: seconds of the first forward, and of the first backward after it."""
    start = time.perf_counter()
    import jinja2  # noqa: F401
    import opt_einsum  # noqa: F401
    import sympy  # noqa: F401
    import torch

    import smac
    import smac.runtime.op
    from smac.testing.cells import Cell, complete
    from smac.testing.inputs import as_tuple, draw, recipe

    gpu = torch.cuda.is_available()
    if gpu:
        import triton  # noqa: F401

        (torch.ones(64, 64, device="cuda") @ torch.ones(64, 64, device="cuda")).sum().item()
    imported = time.perf_counter() - start
    dtype, device = ("bfloat16", "cuda") if gpu else ("float32", "cpu")
    spec = smac.load(name)
    sizes = CASES[name] if gpu else {**CASES[name], **SHORT}
    cell = Cell("auto", "auto", dtype, complete(spec, sizes))
    # Drawn by a spec's oracle, which is no part of an op.
    inputs: dict[str, Any] = draw(spec, cell, recipe(spec), device)
    leaves = [x for x in inputs.values() if x is not None and x.requires_grad]
    start = time.perf_counter()
    op = smac.compile(name, tune=tune)
    with torch.no_grad():
        _wait(op(**inputs), gpu)
    forward = time.perf_counter() - start
    start = time.perf_counter()
    y = as_tuple(op(**inputs))
    _wait(torch.autograd.grad(y, leaves, [torch.ones_like(x) for x in y], allow_unused=True), gpu)
    device_name = torch.cuda.get_device_name() if gpu else "cpu"
    return {"imports": imported, "forward": forward, "backward": time.perf_counter() - start,
            "device": device_name, "torch": torch.__version__}  # fmt: skip


def _wait(_: Any, gpu: bool) -> None:
    import torch

    if gpu:
        torch.cuda.synchronize()


def child(name: str, tune: str, folder: Path, off: bool) -> dict[str, Any]:
    """`measure` in a process of its own, with caches in `folder`."""
    env = {**os.environ, "TRITON_CACHE_DIR": str(folder / "triton"), "XDG_CACHE_HOME": str(folder),
           "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
           **({"SMAC_SELF_CHECK": "0"} if off else {})}  # fmt: skip
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its modules' bytecode
    done = subprocess.run([sys.executable, "-m", "benchmarks.first_call", "--child", name,
                           "--tune", tune], env=env, stdout=subprocess.PIPE, text=True,
                          check=False)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name}: the process ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def line(name: str, when: str, found: dict[str, Any]) -> str:
    """One row: forward, forward and backward, and whether the bars hold."""
    both = found["forward"] + found["backward"]
    missed = [f"{what} {BARS[when, what]:g} s" for what, t in
              (("forward", found["forward"]), ("both", both)) if t > BARS[when, what]]
    held = "no bar" if found["device"] == "cpu" else "missed: " + ", ".join(missed)
    held = "held" if held == "missed: " else held
    return (f"{name:18}{when:6}{found['imports']:9.2f}{found['forward']:9.2f}"
            f"{found['backward']:10.2f}{both:9.2f}  {held}")  # fmt: skip


def main() -> None:
    """Measure the cases that were asked for and print the table."""
    parser = argparse.ArgumentParser(description="SMAC's first call, cold and warm")
    parser.add_argument("--only", choices=sorted(CASES), help="one case")
    parser.add_argument("--off", action="store_true", help="without the check at first use")
    parser.add_argument("--tune", choices=("off", "quick", "full"), default="off")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--child", choices=sorted(CASES), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(measure(asked.child, asked.tune)))
        return
    print(f"{'seconds':18}{'':6}{'imports':>9}{'forward':>9}{'backward':>10}{'both':>9}  bars")
    rows = []
    for name in [asked.only] if asked.only else CASES:
        with tempfile.TemporaryDirectory() as folder:
            for when in ("cold", "warm"):
                found = child(name, asked.tune, Path(folder), asked.off)
                rows.append({"case": name, "when": when, **found})
                print(line(name, when, found), flush=True)
    print(f"{rows[0]['device']}, torch {rows[0]['torch']}"
          f"{', without the check at first use' if asked.off else ''}")  # fmt: skip
    if asked.json:
        Path(asked.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
