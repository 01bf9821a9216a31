"""Cases of the GPU benchmark: which op, at which sizes, beside which peers; and their inputs.

Values are drawn as a fresh layer has them, in bfloat16 where they carry T (decays of simple GLA in
float32, as its layer computes them), in float32 where they do not.

Non-goals: no clocks (clock.py), no calls of peers (peers.py), no tables (gpu.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from benchmarks.cases import Shape
from benchmarks.floor import CHUNK, Traffic

_QKV = 'q = "B T H N"\nk = "B T H N"\nv = "B T H P"\n'
_TEXT = """\
smac = 1
name = "{name}"
[inputs]
{inputs}
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q / sqrt(size(N))"
K = "k"
V = "v"
L = "{mask}"
[output]
y = "Y"
"""
#: What SMAC compiles for a kind of case: a shipped spec, or text.
SPECS = {
    "ssd": "ssd", "step": "ssd", "retention": "retnet", "gla": "gla", "toeplitz": "toeplitz",
    "causal": _TEXT.format(name="causal", inputs=_QKV, mask="causal()"),
    "simple_gla": _TEXT.format(name="simple_gla", inputs=_QKV + 'g = "B T H"\n',
                               mask="semiseparable(log_decay = g)"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Field:
    """One input: its axes, its dtype, whether it gets a gradient."""

    name: str
    axes: str
    low: bool = True
    grad: bool = True

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.low else torch.float32


_THREE = (Field("q", "BTHN"), Field("k", "BTHN"), Field("v", "BTHP"))
_HEADS = tuple(Field(name, "H", low=False) for name in ("D", "dt_bias"))
_SSD = (Field("x", "BTHP"), Field("dt", "BTH"), Field("A", "H", low=False),
        Field("B", "BTGN"), Field("C", "BTGN"), *_HEADS)  # fmt: skip
FIELDS: dict[str, tuple[Field, ...]] = {
    "ssd": _SSD,
    "step": tuple(Field(f.name, f.axes.replace("T", ""), f.low, grad=False) for f in _SSD),
    "causal": _THREE,
    "retention": (*_THREE, Field("gamma", "H", low=False, grad=False)),  # the peers' is fixed
    "simple_gla": (*_THREE, Field("g", "BTH", low=False)),
    "gla": (*_THREE, Field("g", "BTHN")),
    "toeplitz": (*_THREE, Field("h", "HT", low=False)),
}


@dataclass(frozen=True, slots=True)
class GpuCase:
    """An op of some kind at some sizes, and the names of the peers to measure beside it."""

    kind: str
    shape: Shape
    peers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.kind} {self.shape}"

    @property
    def modes(self) -> tuple[str, ...]:
        return ("forward",) if self.kind == "step" else ("forward", "forward+backward")

    @property
    def chunk(self) -> int:
        """The chunk of the floor's flops: T where the mask has no chunked order."""
        return self.shape.T if self.kind == "toeplitz" else CHUNK

    @property
    def traffic(self) -> Traffic:
        """Bytes of inputs, gradients, y and (of one step) state."""
        s = self.shape
        sizes = [(f, _bytes(f, s)) for f in FIELDS[self.kind]]
        state = 4 * s.B * s.H * s.N * s.P if self.kind == "step" else 0
        return Traffic(sum(n for _, n in sizes), sum(n for f, n in sizes if f.grad),
                       2 * s.B * s.T * s.H * s.P, state)  # fmt: skip


def _bytes(field: Field, shape: Shape) -> int:
    return math.prod(_size(field.axes, shape)) * field.dtype.itemsize


def _size(axes: str, shape: Shape) -> list[int]:
    return [shape._asdict()[a] for a in axes]


def _values(name: str, size: list[int], shape: Shape, g: torch.Generator) -> Tensor:
    """Float32 values of one input, by its name."""
    if name in ("A", "dt_bias", "gamma", "D"):  # one number a head
        heads = torch.arange(shape.H, dtype=torch.float32, device=g.device)
        unit = torch.rand(size, generator=g, device=g.device)
        step = torch.exp(-6.9 + 4.6 * unit)
        return {"A": -1 - 15 * unit, "dt_bias": step + torch.log(-torch.expm1(-step)),
                "gamma": 1 - torch.exp2(-5 - heads), "D": torch.ones_like(unit)}[name]  # fmt: skip
    x = torch.randn(size, generator=g, device=g.device)
    if name == "g":
        gates: Tensor = logsigmoid(x) / 16
        return gates
    scale: float = {"B": shape.N**-0.5, "dt": 0.5}.get(name, 1.0)
    return x * scale


def draw(case: GpuCase, device: str, seed: int = 0) -> dict[str, Tensor]:
    """The inputs of a case; those that get a gradient are leaves of a graph."""
    g = torch.Generator(device).manual_seed(seed)
    made = {}
    for f in FIELDS[case.kind]:
        x = _values(f.name, _size(f.axes, case.shape), case.shape, g).to(f.dtype)
        made[f.name] = x.requires_grad_(f.grad)
    return made


def blank(case: GpuCase, device: str) -> dict[str, Tensor]:
    """As `draw`, with whatever lies in memory: enough to compile for."""
    return {f.name: torch.empty(_size(f.axes, case.shape), dtype=f.dtype, device=device,
                                requires_grad=f.grad)
            for f in FIELDS[case.kind]}  # fmt: skip


@cache
def op_of(kind: str) -> Any:
    """SMAC's op for a kind of case, with nothing overridden."""
    import smac

    return smac.compile(SPECS[kind])


SSD, SCAN, STEP = "mamba_ssm ssd", "mamba-1 scan", "mamba_ssm step"
CHUNKED, FUSED, PARALLEL = "fla chunk", "fla fused", "fla parallel"
FLASH, CUDNN, FFT, INDUCTOR = "FlashAttention-2", "cuDNN attention", "torch fft", "inductor"
ATTENTION = (FLASH, CUDNN)
FLA = {"causal": (CHUNKED, FUSED), "retention": (CHUNKED, FUSED, PARALLEL),
       "simple_gla": (CHUNKED, FUSED, PARALLEL), "gla": (CHUNKED,)}  # fmt: skip

#: Time against T at constant tokens × heads; against N; to a million tokens at batch 1.
T_SWEEP = (*(Shape(2**15 // t, t, 32, 64, 64, 1) for t in (2**e for e in range(7, 16))),
           Shape(1, 2**16, 16, 64, 64, 1), Shape(1, 2**17, 8, 64, 64, 1))  # fmt: skip
N_SWEEP = tuple(Shape(8, 4096, 32, 64, n, 1) for n in (16, 32, 64, 128, 256, 512))
SCALING = tuple(Shape(1, 2**e, 16, 64, 64, 1) for e in range(12, 21))
WIDE, LONG = Shape(4, 4096, 16, 128, 128, 16), Shape(1, 2**16, 16, 128, 128, 16)
#: Layers: Mamba-2 2.7B, 130M, one long sequence.
LAYERS = (Shape(8, 2048, 80, 64, 128, 1), Shape(16, 2048, 24, 64, 128, 1),
          Shape(1, 2**15, 64, 64, 128, 1))  # fmt: skip
TOEPLITZ = (Shape(8, 2048, 32, 64, 64, 32), Shape(1, 2048, 8, 64, 64, 8))
DECODING = Shape(128, 1, 80, 64, 128, 1)
_OTHERS = (
    *(Shape(8, 4096, 2048 // p, p, 64, 1) for p in (32, 128, 256)),
    *(Shape(8, 4096, h, 64, 64, 1) for h in (4, 16, 64)),
    *(Shape(8, 4096, 32, 64, 64, g) for g in (4, 32)), Shape(8, 2048, 32, 64, 64, 32),
    *(Shape(1, t, 32, 64, 128, 1) for t in (512, 2048, 8192)), WIDE,
)  # fmt: skip


def cases() -> tuple[GpuCase, ...]:
    """Every case once, those that bars are about first (bars.py), in the order of their weight."""
    sides: dict[tuple[str, Shape], list[str]] = {}

    def add(kind: str, shapes: Sequence[Shape], *peers: str) -> None:
        for s in shapes:
            known = sides.setdefault((kind, s), [])
            known += [p for p in peers if p not in known]

    add("ssd", LAYERS, SSD)
    add("ssd", [s for s in N_SWEEP if s.N in (64, 256)], SSD, SCAN)
    for kind, peers in FLA.items():
        add(kind, [WIDE], *peers, *(ATTENTION if kind == "causal" else ()))
    add("ssd", T_SWEEP, SSD, *ATTENTION)
    add("toeplitz", TOEPLITZ[:1], INDUCTOR, *ATTENTION)
    add("toeplitz", TOEPLITZ[1:], FFT, INDUCTOR, *ATTENTION)
    add("step", [DECODING], STEP)
    for kind, peers in FLA.items():
        if kind != "gla":
            add(kind, [LONG], *peers)
    add("ssd", N_SWEEP, SSD, SCAN)
    add("ssd", SCALING, SSD)
    add("ssd", _OTHERS, SSD)
    return tuple(GpuCase(kind, s, tuple(peers)) for (kind, s), peers in sides.items())
