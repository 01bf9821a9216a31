"""SMAC and its peers on the same numbers: each a call, the tensors it differentiates, its layout.

A peer is imported when it is first built: ImportError means that it is not installed here. Layouts
are changed before the clock starts. Attention has no such mask: it gets q, k, v of its own, of the
case's sizes, and is compared by time alone.

Non-goals: no clocks, no judgement. Only public functions of other packages are called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases_gpu import (
    CHUNKED,
    CUDNN,
    FFT,
    FLASH,
    FUSED,
    INDUCTOR,
    PARALLEL,
    SCAN,
    SSD,
    STEP,
    GpuCase,
    op_of,
)

Inputs = dict[str, Tensor]


def _same(y: Tensor) -> Tensor:
    return y


@dataclass(frozen=True)
class Side:
    """`call` gives y; `view` brings y to [B, T, H, P]; `same`: whether it computes the case's y."""

    call: Callable[[], Tensor]
    leaves: tuple[Tensor, ...]
    view: Callable[[Tensor], Tensor] = _same
    same: bool = True


def runner(side: Side, mode: str) -> Callable[[], object]:
    """One call as `mode` says: y without a graph, or y and every leaf's gradient."""

    def forward() -> Tensor:
        with torch.no_grad():
            return side.call()

    if mode == "forward":
        return forward
    dy = torch.randn_like(forward())

    def both() -> tuple[Tensor, ...]:
        y = side.call()
        return (y.detach(), *torch.autograd.grad(y, side.leaves, dy))

    return both


def build(name: str, case: GpuCase, inputs: Inputs) -> Side:
    """A side by name: "smac" or a peer. ImportError when the peer is not installed."""
    return _BUILDERS[name](case, inputs)


def _leaves(inputs: Inputs) -> tuple[Tensor, ...]:
    return tuple(x for x in inputs.values() if x.requires_grad)


def _own(x: Tensor) -> Tensor:
    """A contiguous copy that is a leaf of its own."""
    return x.detach().clone(memory_format=torch.contiguous_format).requires_grad_()


def _smac(case: GpuCase, inputs: Inputs) -> Side:
    op = op_of(case.kind)
    if case.kind != "step":
        return Side(lambda: op(**inputs), _leaves(inputs))
    s = case.shape
    state = op.init_state(B=s.B, H=s.H, N=s.N, P=s.P, G=s.G, device=inputs["x"].device)
    return Side(lambda: op.step(state, **inputs, out_state=state)[0], ())


def _ssd(case: GpuCase, i: Inputs) -> Side:
    scan = import_module("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined
    return Side(lambda: scan(i["x"], i["dt"], i["A"], i["B"], i["C"], chunk_size=256, D=i["D"],
                             dt_bias=i["dt_bias"], dt_softplus=True), _leaves(i))  # fmt: skip


def _step(case: GpuCase, i: Inputs) -> Side:
    """One token: the decays of a head are the same for its P × N numbers, given by stride 0."""
    name = "mamba_ssm.ops.triton.selective_state_update"
    update = import_module(name).selective_state_update
    s = case.shape
    state = i["x"].new_zeros(s.B, s.H, s.P, s.N, dtype=torch.float32)
    dt = i["dt"][..., None].expand(s.B, s.H, s.P)
    a = i["A"][:, None, None].expand(s.H, s.P, s.N)
    d, bias = (i[name][:, None].expand(s.H, s.P) for name in ("D", "dt_bias"))
    return Side(lambda: update(state, i["x"], dt, a, i["B"], i["C"], d, dt_bias=bias,
                               dt_softplus=True), ())  # fmt: skip


def _scan(case: GpuCase, i: Inputs) -> Side:
    """Mamba-1 takes channels before tokens and one decay a channel: H × P channels of N states."""
    module = import_module("mamba_ssm.ops.selective_scan_interface")
    if getattr(module, "selective_scan_cuda", True) is None:  # Python parts alone are installed
        import_module("selective_scan_cuda")
        raise ImportError("selective_scan_cuda")
    scan = module.selective_scan_fn
    s = case.shape
    with torch.no_grad():
        u = _own(i["x"].permute(0, 2, 3, 1).flatten(1, 2))
        dt = _own(i["dt"].permute(0, 2, 1).repeat_interleave(s.P, 1))
        a = _own(i["A"].repeat_interleave(s.P)[:, None].expand(-1, s.N))
        b, c = (_own(i[name].permute(0, 2, 3, 1)) for name in ("B", "C"))
        d, bias = (_own(i[name].repeat_interleave(s.P)) for name in ("D", "dt_bias"))

    def view(y: Tensor) -> Tensor:
        return y.reshape(s.B, s.H, s.P, s.T).permute(0, 3, 1, 2)

    return Side(lambda: scan(u, dt, a, b, c, d, delta_bias=bias, delta_softplus=True),
                (u, dt, a, b, c, d, bias), view)  # fmt: skip


#: fla's functions by (kind, side): module, name, the input that g is, options.
_FLA: dict[tuple[str, str], tuple[str, str]] = {
    ("causal", CHUNKED): ("linear_attn", "chunk_linear_attn"),
    ("causal", FUSED): ("linear_attn", "fused_chunk_linear_attn"),
    ("retention", CHUNKED): ("retention", "chunk_retention"),
    ("retention", FUSED): ("retention", "fused_chunk_retention"),
    ("retention", PARALLEL): ("retention", "parallel_retention"),
    ("simple_gla", CHUNKED): ("simple_gla", "chunk_simple_gla"),
    ("simple_gla", FUSED): ("simple_gla", "fused_chunk_simple_gla"),
    ("simple_gla", PARALLEL): ("simple_gla", "parallel_simple_gla"),
    ("gla", CHUNKED): ("gla", "chunk_gla"),
}


def _fla(side: str) -> Callable[[GpuCase, Inputs], Side]:
    def built(case: GpuCase, i: Inputs) -> Side:
        module, name = _FLA[case.kind, side]
        call: Any = getattr(import_module(f"fla.ops.{module}"), name)
        options: dict[str, Any] = {"g": i["g"]} if "g" in i else {}
        if case.kind == "causal":
            options["normalize"] = False
        return Side(lambda: call(i["q"], i["k"], i["v"], **options)[0], _leaves(i))

    return built


def _attention(backend: str) -> Callable[[GpuCase, Inputs], Side]:
    """Causal softmax attention of torch, held to one backend."""

    def built(case: GpuCase, i: Inputs) -> Side:
        attention = import_module("torch.nn.attention")
        chosen = getattr(attention.SDPBackend, backend)
        s = case.shape
        like = next(iter(i.values()))
        q, k, v = (torch.randn(s.B, s.T, s.H, d, device=like.device, dtype=torch.bfloat16)
                   .requires_grad_() for d in (s.N, s.N, s.P))  # fmt: skip

        def call() -> Tensor:
            with attention.sdpa_kernel(chosen):
                return torch.nn.functional.scaled_dot_product_attention(
                    q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)

        return Side(call, (q, k, v), lambda y: y.transpose(1, 2), same=False)

    return built


def toeplitz_quadratic(q: Tensor, k: Tensor, v: Tensor, h: Tensor) -> Tensor:
    """((q kᵀ) ∘ L) v with L[t, s] = h[t − s]; q, k [B, T, H, N], v [B, T, H, P], h [H, T]."""
    t = torch.arange(q.shape[1], device=q.device)
    lag = t[:, None] - t[None, :]
    mask = torch.where(lag >= 0, h[:, lag.clamp_min(0)], 0.0)
    scores = torch.einsum("bthn,bshn->bhts", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bhts,bshp->bthp", (scores * mask).to(v.dtype), v)


def toeplitz_fft(q: Tensor, k: Tensor, v: Tensor, h: Tensor) -> Tensor:
    """The same through the spectrum of every channel of k ⊗ v; float32, as FFTs have no bf16."""
    t = q.shape[1]
    outer = torch.einsum("bthn,bthp->bhtnp", k.float(), v.float())
    spectrum = torch.fft.rfft(outer, 2 * t, dim=2)
    weights = torch.fft.rfft(h.float(), 2 * t, dim=1)
    mixed = torch.fft.irfft(spectrum * weights[:, :, None, None], 2 * t, dim=2)[:, :, :t]
    y = torch.einsum("bthn,bhtnp->bthp", q.float() * q.shape[-1] ** -0.5, mixed)
    return y.to(v.dtype)


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(toeplitz_quadratic, dynamic=False)


def _inductor(case: GpuCase, i: Inputs) -> Side:
    call = _compiled()
    return Side(lambda: call(i["q"], i["k"], i["v"], i["h"]), _leaves(i))


def _fft(case: GpuCase, i: Inputs) -> Side:
    return Side(lambda: toeplitz_fft(i["q"], i["k"], i["v"], i["h"]), _leaves(i))


_BUILDERS: dict[str, Callable[[GpuCase, Inputs], Side]] = {
    "smac": _smac, SSD: _ssd, STEP: _step, SCAN: _scan,
    CHUNKED: _fla(CHUNKED), FUSED: _fla(FUSED), PARALLEL: _fla(PARALLEL),
    FLASH: _attention("FLASH_ATTENTION"), CUDNN: _attention("CUDNN_ATTENTION"),
    FFT: _fft, INDUCTOR: _inductor,
}  # fmt: skip
