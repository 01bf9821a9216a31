"""Every Triton template compiles ahead of time, on two versions of Triton, within shared memory.

No GPU is needed. The second version is that of the GPU machines; it is installed beside the pinned
one, into `.aot36` of the checkout, when it is not there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import templates_of
from jobs import CASES, CORE, SIZES, job, kernels_for
from real_triton import hold

ROOT = Path(__file__).resolve().parents[2]
OTHER = ROOT / ".aot36"
#: Bytes of shared memory that one program may have, by architecture.
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
#: Data type, and the architectures that it is compiled for.
TYPES = (("bfloat16", (80, 90, 100)), ("float16", (90,)), ("float32", (90,)),
         ("float64", (90,)))  # fmt: skip
VERSIONS = ("pinned", "3.6.0")
#: What the table below is written to; tests/conftest.py prints it at the end.
TABLE = ROOT / "build" / "aot.txt"
#: Why registers spill (255 a thread do not do), by case and kernel, in any type on any
#: architecture. Other tiles were measured and are slower: benchmarks/LOG.md.
_STATE = "the state [128, 64] in float32 beside a chunk's operands and its output"
_BOTH = "scores and their gradient [64, 64] in float32 beside both states of a chunk"
_SCORES = "scores, masked scores and their gradient [64, 64] in float32 beside two operands"
_SUMS = "sums of decays in float64 beside scores [128, 64] and an output in float32"
_WIDE = "float64 alone: twice the registers a number"
SPILLS: dict[tuple[str, str], str] = {
    ("linear_attention_chunked", "forward_output"): _STATE + ", and that of the normaliser",
    ("linear_attention_chunked", "backward_grad_q"): _STATE,
    ("packed_ssd_chunkedsweep", "backward_grad_v"): _STATE,
    ("ssd_chunkedsweep", "forward_kernel"): _STATE,
    ("sequences_ssd_chunkedsweep", "forward_kernel"): _STATE,
    ("ssd_chunkedsweep", "backward_grad_mask_lane"): _BOTH,
    ("sequences_ssd_chunkedsweep", "backward_grad_mask_lane"): _BOTH,
    ("ssd_chunkedchunks", "backward_grad_v"): _SCORES,
    ("sequences_ssd_chunkedchunks", "backward_grad_v"): _SCORES,
    ("many_ssd_chunkedchunks", "backward_grad_v"): _SCORES,
    ("many_ssd_chunkedchunks", "backward_grad_qk"):
        "56 bytes at N = 64: two gradients, the sum of weights and ⟨S, G⟩ in float32",
    ("many_mamba3_chunkedchunks", "backward_grad_qk"):
        "72 bytes: two gradients [64, 128] and the sum of weights in float32, states of two lanes",
    ("ssd_chunkedsweep", "backward_grad_k"): _STATE + "; by 3.9 alone",
    ("hydra_chunkedchunks", "forward_kernel"): "both states and the scores; by 3.6 alone",
    ("log_linear_chunkedchunks", "forward_kernel"):
        "wide types alone: products without tensor cores beside the mask of all lanes",
    ("log_linear_chunkedchunks", "backward_grad_v"): _SCORES + "; 16 bytes by 3.9",
    ("gla_chunked", "forward_kernel"): "the state [128, 64]; wide types and sm_80 alone",
    ("gla_chunked", "forward_scores"): "levels of a chunk in float32",
    ("sequences_gla_chunked", "forward_scores"): "levels of a chunk in float32",
    ("gla_chunked", "backward_chunks"):
        "pairs by levels or in the middle of a chunk: on sm_80, and on sm_90 by 3.9; 16 in float32",
    ("sequences_gla_chunked", "backward_chunks"): "pairs by levels or in the middle; by 3.9 alone",
    ("ssd_chunkedsweep", "backward_grad_inputs_0"): _WIDE,
    ("toeplitz_quadratic", "backward_grad_mask_lag_0"): _WIDE,
    ("ssd_quadratic", "forward_kernel"): _WIDE,
    ("packed_ssd_quadratic", "forward_kernel"): _SUMS,
    ("sequences_toeplitz_quadratic", "backward_grad_mask_lag_0"):
        "48 bytes: two tiles of scores [128, 64] in float32, eight warps, sequences in a loop",
    ("narrow_ssd_quadratic", "backward_grad_kv"):
        "56 bytes: sums of decays in float64 beside scores [64, 64] and both gradients in float32",
    ("ssd_quadratic", "backward_grad_mask_cut_0"): "two scores beside float64 sums",
    ("wide_ssd_quadratic", "backward_grad_mask_cut_0"): "rows of 512, four of them whole",
}  # fmt: skip
Compiled = dict[str, list[dict[str, object]]]


def case_of(x: dict[str, object]) -> tuple[str, str]:
    """A compiled kernel's case, without its type, and name."""
    return str(x["job"]).rpartition("_")[0], str(x["kernel"])


def table(made: Compiled) -> str:
    """Registers, bytes spilt and bytes of shared memory of all that was compiled; why what spills
    does."""
    lines = [f"{'case':26}{'kernel':26}{'type':10}{'sm':>4} {'triton':8}{'registers':>10}"
             f"{'spilt':>7}{'shared':>9}{'s':>6}"]  # fmt: skip
    rows = [(*case_of(x), str(x["job"]).rpartition("_")[2], x["arch"], x["triton"], x)
            for found in made.values() for x in found]  # fmt: skip
    for case, kernel, dtype, arch, triton, x in sorted(rows, key=lambda r: tuple(map(str, r[:5]))):
        why = SPILLS.get((case, kernel), "not known") if x["stack"] else ""
        lines.append(f"{case:26}{kernel:26}{dtype:10}{arch:>4} {triton:8}{x['registers']:>10}"
                     f"{x['stack']:>7}{x['shared']:>9}{x['seconds']:>6}  {why}".rstrip())
    return "\n".join(lines)


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
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """All kernels, compiled: by "version dtype"."""
    folder = tmp_path_factory.mktemp("aot")
    jobs = {t: [p for s, o, _ in CASES if (p := job(s, o, t, archs, folder))] for t, archs in TYPES}
    other_triton()
    cells = [(v, t) for v in VERSIONS for t in jobs]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda c: compile_jobs(c[0], jobs[c[1]], folder / "cache"), cells)
        made = {f"{v} {t}": x for (v, t), x in zip(cells, found, strict=True)}
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table(made) + "\n", encoding="utf-8")
    return made


@pytest.mark.parametrize("dtype", [t for t, _ in TYPES])
@pytest.mark.parametrize("which", VERSIONS)
def test_every_kernel_compiles_and_fits(
    compiled: Compiled, which: str, dtype: str
) -> None:
    """All that was asked for is there, by the version asked for, within shared memory."""
    found = compiled[f"{which} {dtype}"]
    archs = dict(TYPES)[dtype]
    assert len(found) == sum(len(kernels_for(s, o, dtype, a)) for s, o, _ in CASES for a in archs)
    assert {x["triton"] for x in found} == {version("triton") if which == "pinned" else which}
    for x in found:
        arch = int(str(x["arch"]))
        assert int(str(x["shared"])) <= SHARED[arch], f"{x} of at most {SHARED[arch]} bytes"


def test_what_spills_is_known(compiled: Compiled) -> None:
    """0 bytes, or a reason beside them in the table; and no reason for what does not spill."""
    spilt = {case_of(x) for found in compiled.values() for x in found if x["stack"]}
    assert spilt <= set(SPILLS), f"spills, and it is not said why: {spilt - set(SPILLS)}"
    assert set(SPILLS) <= {case_of(x) for found in compiled.values() for x in found}


@pytest.mark.parametrize("which", VERSIONS)
def test_sweeps_use_tensor_cores_of_hopper(
    compiled: Compiled, which: str
) -> None:
    """wgmma is in the sm_90 code of sweeps in bfloat16, forward and in reverse, and of chunks."""
    wanted = {"ssd_chunkedsweep_bfloat16": ("forward_kernel", "backward_grad_k"),
              "ssd_chunkedchunks_bfloat16": ("backward_grad_v", "backward_grad_qk"),
              "log_linear_chunkedchunks_bfloat16": ("forward_states", "forward_kernel",
                                                    "backward_grad_v", "backward_grad_qk"),
              "gla_chunked_bfloat16": ("forward_scores", "forward_kernel", "backward_grad_v",
                                       "backward_chunks")}  # fmt: skip
    sweeps = [x for x in compiled[f"{which} bfloat16"]
              if x["arch"] == 90 and x["kernel"] in wanted.get(str(x["job"]), ())]
    assert len(sweeps) == 12
    assert all(x["wgmma"] for x in sweeps), sweeps


def test_every_template_is_compiled_for_every_target() -> None:
    """CORE holds a kernel of each template; CASES all of CORE."""
    import smac

    found = set()
    for (spec, order), kernels in CORE.items():
        assert set(kernels) <= set(kernels_for(spec, order, "bfloat16", 90))
        order, _, schedule = order.partition(" ")
        op = smac.compile(spec.rpartition(" ")[2], target="triton", order=order,
                          schedule=schedule or "auto")  # fmt: skip
        with templates_of.recorded() as template:
            op.source("triton", dtype="bfloat16", device="h100", T=SIZES["T"])
        found |= {template[k] for k in kernels}
    assert found == templates_of.with_kernels()


def test_the_digest_of_the_other_triton_is_remembered(tmp_path: Path) -> None:
    """The installed one: tests/test_triton_key.py."""
    assert hold([str(other_triton())], tmp_path) == "3.6.0"
