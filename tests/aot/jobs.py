"""What is compiled ahead of time: which kernels of which specs, so that every template is there."""

from __future__ import annotations

import json
from pathlib import Path

import smac
from smac.codegen.triton_wrapper import arguments
from smac.ir import Program
from smac.lower.program import backward, forward

SIZES = {"B": 2, "T": 1024, "H": 4, "N": 128, "P": 64, "G": 2}
#: Packed sequences in a case that has some.
SEQUENCES = 3
#: Sizes that a word in front of a spec asks for: so many heads that programs take several in turn,
#: the widest N and P, those of which one program holds all columns.
SPECIAL = {"many": {"H": 128}, "wide": {"N": 512, "P": 512}, "narrow": {"N": 64, "P": 64}}
#: Spec, order (and schedule), kernels; "packed" in front of those with cu_seqlens and states, and
#: a word of SPECIAL in front of those with its sizes. Those named in CORE are one of
#: each template, compiled for every architecture and type; the others for sm_90 in bfloat16.
CASES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("ssd", "chunked sweep", ("forward_rows", "forward_kernel", "backward_grad_k",
                              "backward_grad_mask_lane", "backward_grad_inputs_0")),
    ("ssd", "chunked chunks", ("backward_adjoints", "backward_grad_v", "backward_grad_qk")),
    ("many ssd", "chunked chunks", ("backward_adjoints", "backward_grad_v", "backward_grad_qk")),
    ("many mamba3", "chunked chunks", ("backward_grad_qk",)),
    ("ssd", "chunked segmented", ("forward_segments_KV", "forward_join_KV")),
    ("log_linear", "chunked chunks", ("forward_lanes", "forward_states", "forward_kernel",
                                      "backward_grad_v", "backward_grad_qk")),
    ("packed_ssd", "chunked sweep", ("backward_grad_v",)),
    ("hydra", "chunked chunks", ("forward_kernel",)),
    ("packed_ssd", "quadratic", ("forward_kernel",)),
    ("linear_attention", "chunked", ("forward_output", "backward_grad_q")),
    ("ssd", "quadratic", ("forward_kernel_prefix_m0", "forward_kernel",
                          "backward_grad_mask_cut_0")),
    ("wide ssd", "quadratic", ("backward_grad_mask_cut_0",)),
    ("toeplitz", "quadratic", ("backward_grad_mask_lag_0",)),
    ("narrow toeplitz", "quadratic", ("forward_kernel", "backward_grad_q", "backward_grad_kv",
                                      "backward_grad_mask_lag_0")),
    ("narrow ssd", "quadratic", ("backward_grad_kv",)),
    ("gla", "linear", ("forward_kernel", "backward_grad_mask_lane")),
    ("gla", "chunked", ("forward_sums", "forward_scores", "forward_kernel", "backward_states",
                        "backward_grad_v", "backward_chunks")),
    ("packed ssd", "chunked sweep", ("forward_kernel", "backward_grad_mask_lane")),
    ("packed ssd", "chunked chunks", ("backward_grad_v",)),
    ("packed toeplitz", "quadratic", ("forward_kernel", "backward_grad_mask_lag_0")),
    ("packed gla", "linear", ("backward_grad_mask_lane",)),
    ("packed gla", "chunked", ("forward_scores", "backward_chunks")),
)  # fmt: skip
CORE: dict[tuple[str, str], tuple[str, ...]] = {
    ("ssd", "chunked sweep"): ("forward_rows", "forward_kernel", "backward_grad_mask_lane",
                               "backward_grad_inputs_0"),
    ("ssd", "chunked chunks"): ("backward_grad_v",),
    ("ssd", "chunked segmented"): ("forward_segments_KV", "forward_join_KV"),
    ("log_linear", "chunked chunks"): ("forward_kernel",),
    ("ssd", "quadratic"): ("forward_kernel_prefix_m0", "forward_kernel"),
    ("wide ssd", "quadratic"): ("backward_grad_mask_cut_0",),
    ("toeplitz", "quadratic"): ("backward_grad_mask_lag_0",),
    ("gla", "linear"): ("forward_kernel", "backward_grad_mask_lane"),
    ("gla", "chunked"): ("forward_sums", "forward_scores", "forward_kernel", "backward_chunks"),
}  # fmt: skip
#: What has code of its own in float16: states wider than operands.
FLOAT16: dict[tuple[str, str], tuple[str, ...]] = {("gla", "chunked"): ("backward_chunks",)}


def kernels_for(spec: str, order: str, dtype: str, arch: int) -> tuple[str, ...]:
    """Which kernels of a case are compiled for a type and an architecture."""
    everything = next(k for s, o, k in CASES if (s, o) == (spec, order))
    if dtype == "float16":
        return FLOAT16.get((spec, order), ())
    return everything if (dtype, arch) == ("bfloat16", 90) else CORE.get((spec, order), ())


def job(spec: str, order: str, dtype: str, archs: tuple[int, ...], folder: Path,
        sizes: dict[str, int] = SIZES) -> Path | None:  # fmt: skip
    """Render a spec in `order` and write what compile_one.py needs; the job's path, None where
    there is nothing to compile."""
    kernels = {a: k for a in archs if (k := kernels_for(spec, order, dtype, a))}
    if not kernels:
        return None
    word, _, spec = spec.rpartition(" ")
    packed, special = word == "packed", SPECIAL.get(word, {})
    how = {"sequences": SEQUENCES, "state": order != "quadratic"} if packed else {}
    order, _, schedule = order.partition(" ")
    sizes = {**sizes, "B": 1} if packed else sizes
    # Wide types take no more than 64 in chunks.
    narrow = not special and (packed or schedule in ("chunks", "segmented"))
    sizes = {**sizes, "N": 64} if narrow else {**sizes, **special}
    op = smac.compile(spec, target="triton", order=order, schedule=schedule or "auto")
    have = {a for i in op.spec.inputs for a in i.axes}
    given = {a: n for a, n in sizes.items() if a in have}
    text = op.source("triton", dtype=dtype, device="h100", **how, **given)
    plans = [op.plan(dtype=dtype, device="h100", backward=b, **how, **given)
             for b in (False, True)]  # fmt: skip
    front = {"": "", "packed": "sequences_"}.get(word, f"{word}_")
    name = f"{front}{spec}_{order}{schedule}_{dtype}"
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    calls = [_call(forward(plans[0]), sizes), _call(backward(plans[1]), sizes)]
    out = folder / f"{name}.json"
    out.write_text(json.dumps({"name": name, "path": str(path), "calls": calls, "dtype": dtype,
                               "kernels": kernels}), encoding="utf-8")  # fmt: skip
    return out


def _call(p: Program, sizes: dict[str, int]) -> tuple[str, list[tuple[list[int], str]]]:
    """A function's name, and shape and kind of each argument."""
    ids = {s.source for s in p.steps if hasattr(s, "source")}
    size = {**sizes, "W": sizes["T"], "S": sizes["T"], "R": 1,
            "SEQ": SEQUENCES, "ENDS": SEQUENCES + 1}  # fmt: skip
    return p.name, [
        ([size[a] for a in b.axes], "int" if b.name in ids or b.dtype == "int" else
         "acc" if b.role == "state" else "float")
        for b in arguments(p)
    ]  # fmt: skip
