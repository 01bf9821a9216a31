"""torch.compile on top of the torch target: the generated forward of ssd, as it is and compiled.

What is compiled is the function that SMAC prints, so that Inductor may fuse across its operations.

Non-goals: the backward; a call of the op itself (its host side is Python that Dynamo breaks on).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import sha256

import torch

from benchmarks.cases import Shape, case


@dataclass(frozen=True)
class Compiled:
    """Seconds of the generated forward, of it compiled, and of compiling it; rms difference."""

    shape: str
    plain: float
    compiled: float
    compiling: float
    difference: float

    def __str__(self) -> str:
        return (f"{self.shape:22}torch.compile on the generated forward: {1e3 * self.plain:.1f} → "
                f"{1e3 * self.compiled:.1f} ms ({self.plain / self.compiled:.2f} ×), compiled in "
                f"{self.compiling:.0f} s")  # fmt: skip


def measure(shape: Shape, repeats: int) -> Compiled:
    """Both take turns; compiling is the first call."""
    import smac
    from benchmarks.cpu import medians
    from smac.runtime.module import load

    c = case(shape)
    source = smac.compile("ssd", target="torch").source(absent=("z",), **shape._asdict())
    forward = load(sha256(source.encode()).hexdigest(), source).forward
    faster = torch.compile(forward, dynamic=False)
    tensors = [x.detach() for x in c.leaves]
    with torch.no_grad():
        due = forward(*tensors)[0]
        began = time.perf_counter()
        got = faster(*tensors)[0]
        compiling = time.perf_counter() - began
        times = medians({"plain": lambda: forward(*tensors), "compiled": lambda: faster(*tensors)},
                        repeats)  # fmt: skip
    apart = float((got - due).norm() / due.norm())
    return Compiled(str(shape), times["plain"], times["compiled"], compiling, apart)
