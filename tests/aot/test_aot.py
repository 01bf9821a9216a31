"""Every Triton template compiles ahead of time, on two versions of Triton, within shared memory.

No GPU is needed. The second version is that of the GPU machines; it is installed beside the pinned
one, into `.aot36` of the checkout, when it is not there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from jobs import CASES, job

ROOT = Path(__file__).resolve().parents[2]
OTHER = ROOT / ".aot36"
#: Bytes of shared memory that one program may have, by architecture.
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
#: Data type, and the architectures that it is compiled for.
TYPES = (("bfloat16", (80, 90, 100)), ("float32", (90,)), ("float64", (90,)))
VERSIONS = ("pinned", "3.6.0")
Compiled = dict[str, list[dict[str, object]]]


def other_triton() -> Path:
    """Triton 3.6.0 in a folder of its own."""
    if not (OTHER / "triton-3.6.0.dist-info").is_dir():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade",
                        "--target", str(OTHER), "triton==3.6.0"], check=True)  # fmt: skip
    return OTHER


def compile_jobs(which: str, paths: list[Path], cache: Path) -> list[dict[str, object]]:
    """What a child process found out about the jobs' kernels under one version of Triton."""
    front = [str(other_triton())] if which == "3.6.0" else []
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*front, str(ROOT)]),
           "TRITON_CACHE_DIR": str(cache / which)}  # fmt: skip
    env.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, "-W", "ignore", str(ROOT / "tests/aot/compile_one.py"),
                           *map(str, paths)], env=env, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, f"Triton {which}: {done.stderr[-2000:]}"
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiled]:
    """All kernels, compiled: by "version dtype"."""
    folder = tmp_path_factory.mktemp("aot")
    jobs = {t: [job(s, o, k, t, archs, folder) for s, o, k in CASES] for t, archs in TYPES}
    other_triton()
    cells = [(v, t) for v in VERSIONS for t in jobs]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda c: compile_jobs(c[0], jobs[c[1]], folder / "cache"), cells)
        yield {f"{v} {t}": x for (v, t), x in zip(cells, found, strict=True)}


@pytest.mark.parametrize("dtype", [t for t, _ in TYPES])
@pytest.mark.parametrize("which", VERSIONS)
def test_every_kernel_compiles_and_fits(
    compiled: Compiled, which: str, dtype: str
) -> None:
    """All that was asked for is there, by the version asked for, within shared memory."""
    found = compiled[f"{which} {dtype}"]
    archs = dict(TYPES)[dtype]
    assert len(found) == sum(len(k) for _, _, k in CASES) * len(archs)
    assert {x["triton"] for x in found} == {version("triton") if which == "pinned" else which}
    for x in found:
        arch = int(str(x["arch"]))
        assert int(str(x["shared"])) <= SHARED[arch], f"{x} of at most {SHARED[arch]} bytes"


@pytest.mark.parametrize("which", VERSIONS)
def test_sweeps_use_tensor_cores_of_hopper(
    compiled: Compiled, which: str
) -> None:
    """wgmma is in the sm_90 code of sweeps in bfloat16, forward and in reverse, and of chunks."""
    wanted = {"ssd_chunkedsweep_bfloat16": ("forward_kernel", "backward_grad_k"),
              "ssd_chunkedchunks_bfloat16": ("backward_grad_v", "backward_grad_qk"),
              "gla_chunked_bfloat16": ("forward_scores", "forward_kernel", "backward_grad_v",
                                       "backward_chunks")}  # fmt: skip
    sweeps = [x for x in compiled[f"{which} bfloat16"]
              if x["arch"] == 90 and x["kernel"] in wanted.get(str(x["job"]), ())]
    assert len(sweeps) == 8
    assert all(x["wgmma"] for x in sweeps), sweeps
