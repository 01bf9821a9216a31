"""Compiles kernels of one rendered module ahead of time, without a GPU; run as a child process.

`python compile_one.py job.json …` prints one JSON line a kernel and architecture: shared memory and
stack (what registers spill to) in bytes, registers, whether its PTX has wgmma, seconds. The
module's wrappers run on CPU tensors with every kernel replaced by a recorder, so what is compiled
is what would be launched.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TYPES = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32",
         torch.float64: "*fp64", torch.int32: "*i32", torch.int64: "*i64"}  # fmt: skip


class Recorder:
    """Stands where a kernel stood; keeps what it is launched with."""

    def __init__(self, fn: Any, launches: dict[str, tuple[Any, ...]]) -> None:
        self.fn, self.launches = fn, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*args: Any, **options: Any) -> None:
            self.launches[self.fn.__name__] = (self.fn, args, options)

        return launch


def recorded(module: ModuleType, calls: list[Any], dtype: torch.dtype) -> dict[str, Any]:
    """Every kernel that `calls` (function, [(shape, kind)]) launch, with its arguments."""
    launches: dict[str, tuple[Any, ...]] = {}
    kernels = {n: f for n, f in vars(module).items() if isinstance(f, triton.JITFunction)
               and n.startswith(("forward_", "backward_"))}  # fmt: skip
    for name, fn in kernels.items():
        setattr(module, name, Recorder(fn, launches))
    for function, tensors in calls:
        kinds = {"float": dtype, "int": torch.int64,
                 "acc": torch.float64 if dtype == torch.float64 else torch.float32}  # fmt: skip
        getattr(module, function)(*(torch.zeros(s, dtype=kinds[k]) for s, k in tensors))
    return launches


def source(fn: Any, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What the compiler takes: types of arguments, constants, and multiples of 16."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int], list[list[Any]]] = {}
    known = ("num_warps", "num_stages", "enable_fp_fusion", "maxnreg")
    settings = {k: options[k] for k in known if options.get(k) is not None}
    values = dict(zip(fn.arg_names, args, strict=False)) | {
        k: v for k, v in options.items() if k not in known
    }
    for i, name in enumerate(fn.arg_names):
        value = values[name]
        if isinstance(value, torch.Tensor):
            signature[name] = TYPES[value.dtype]
            attributes[(i,)] = [["tt.divisibility", 16]]
        elif type(value) is int and not name.isupper() and value != 1:
            signature[name] = "i32" if abs(value) < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "constexpr"
            constants[name] = value
    return ASTSource(fn, signature, constants, attributes), settings


def usage(cubin: bytes) -> dict[str, int]:
    """Registers a thread, and bytes of its stack: where what registers cannot hold is spilt to."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as f:
        f.write(cubin)
        f.flush()
        done = subprocess.run([str(tool), "--dump-resource-usage", f.name], text=True,
                              capture_output=True, check=True)  # fmt: skip
    found = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout)
    assert found is not None, done.stdout
    return {"registers": int(found.group(1)), "stack": int(found.group(2))}


def run(path: str) -> None:
    """Compile what a job asks for."""
    with open(path, encoding="utf-8") as f:
        job = json.load(f)
    spec = importlib.util.spec_from_file_location("rendered", job["path"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    launches = recorded(module, job["calls"], getattr(torch, job["dtype"]))
    for arch, kernels in job["kernels"].items():
        for name in kernels:
            src, settings = source(*launches[name])
            start = time.time()
            made = triton.compile(src, target=GPUTarget("cuda", int(arch), 32),
                                  options={**settings, "enable_fp_fusion": True})  # fmt: skip
            found = {"job": job["name"], "kernel": name, "arch": int(arch),
                     "shared": made.metadata.shared, **usage(made.asm["cubin"]),
                     "wgmma": "wgmma" in made.asm["ptx"], "triton": triton.__version__,
                     "seconds": round(time.time() - start, 1)}  # fmt: skip
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        run(path)
