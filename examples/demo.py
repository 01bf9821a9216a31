"""`make demo`: Mamba-2's SSD from its spec to a run on a real text, on this machine."""

from __future__ import annotations

import platform
import sys
import time
import warnings
from pathlib import Path

import torch
from mamba2_text import TEXT, layer_inputs, model, tokens

import smac
from smac.paths import shipped_specs

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / ".smac" / "demo"
LAYER = {"B": 8, "T": 2048, "H": 80, "P": 64, "N": 128, "G": 1}  # of the 2.7B model
SMALL = {"hidden": 768, "heads": 24, "state": 128, "groups": 1, "chunk": 256}  # of the 130M model


def title(text: str) -> None:
    print(f"\n── {text} " + "─" * max(0, 74 - len(text)), flush=True)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def main() -> int:
    title(f"1. The spec: {shown(shipped_specs()['ssd'])}")
    op = smac.compile("ssd")
    print(op)

    title("2. The plan for a layer of the 2.7B model on an H100, bfloat16")
    # Planned without z, as transformers calls it: its gate lies behind the norm.
    print(op.plan(**LAYER, dtype="bfloat16", device="h100", absent=("z",)).explain())

    threads = torch.get_num_threads()
    title(f"3. The same layer on this CPU ({platform.machine()}, {threads} threads), float32")
    print(op.plan(**LAYER, dtype="float32", device="cpu", absent=("z",)).explain())

    title("4. A run on real input")
    ids = tokens(1024)
    inputs = layer_inputs(model(**SMALL), ids)
    x, B = inputs["x"], inputs["B"]
    sizes = {"B": x.shape[0], "T": x.shape[1], "H": x.shape[2], "P": x.shape[3],
             "N": B.shape[3], "G": B.shape[2]}  # fmt: skip
    print(f"text   {shown(TEXT)}, {ids.shape[1]} bytes: {bytes(ids[0, :31].tolist()).decode()!r}")
    print("input  what the last layer's scan is given in a Mamba-2 of the 130M model's layer size")
    print("       (transformers, 2 layers, random weights): " + ", ".join(
        f"{name}={size}" for name, size in sizes.items()))  # fmt: skip
    with torch.no_grad():
        y = op(**inputs)  # the first call renders and loads
        start = time.perf_counter()
        y = op(**inputs)
        took = time.perf_counter() - start
        exact = op.reference(**inputs)
    relative = ((y - exact).norm() / exact.norm()).item()
    print(f"order  {op.plan(**sizes, dtype='float32', device='cpu', absent=('z',)).order}")
    print(f"time   {1e3 * took:.1f} ms, forward")
    print(f"error  {relative:.1e} relative rms, {(y - exact).abs().max().item():.1e} at most, "
          f"against the float64 oracle (|y| up to {exact.abs().max().item():.2f})")  # fmt: skip

    title("5. The generated source")
    OUT.mkdir(parents=True, exist_ok=True)
    for target in ("torch", "triton"):
        path = OUT / f"ssd_{target}.py"
        path.write_text(op.source(target=target, absent=("z",), **sizes), encoding="utf-8")
        print(f"{target:6} {shown(path)} ({len(path.read_text('utf-8').splitlines())} lines)")
    ok = relative < 1e-5
    print("\nAll well." if ok else f"\nNOT WELL: the error is {relative:.1e}, expected below 1e-5")
    return 0 if ok else 1


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    sys.exit(main())
