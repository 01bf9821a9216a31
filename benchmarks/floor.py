"""The least time that a case can take on a device: its bytes once, or its flops, at full rate.

forward            inputs read, y written;     matrix flops of the chunked order at chunk 256
forward+backward   the forward's bytes, then inputs and dY read and gradients written (about 2.5 ×);
                   3.5 × the flops (recomputing the scores, each product's two gradients)

Only the lower triangle of a chunk counts, and no state before the first chunk nor after the last.

Non-goals: no measuring (clock.py has the ceilings), no prediction of any real schedule.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cases import Shape

CHUNK = 256
#: Flops of forward and backward over those of the forward.
BOTH = 3.5


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the device reaches: bytes a second (a copy), bf16 flops a second (8192³ matmul)."""

    bandwidth: float
    dots: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of a case: its inputs, those of them that get a gradient, y; `state`: read, written."""

    inputs: int
    leaves: int
    out: int
    state: int = 0


@dataclass(frozen=True, slots=True)
class Floor:
    """The two terms, in seconds; the greater one is the floor."""

    memory: float
    dots: float

    @property
    def seconds(self) -> float:
        return max(self.memory, self.dots)


def moved(traffic: Traffic, mode: str) -> int:
    """Bytes that cross the memory bus at least once in `mode`."""
    forward = traffic.inputs + traffic.out + 2 * traffic.state
    if mode == "forward":
        return forward
    return forward + traffic.inputs + traffic.out + traffic.leaves


def flops(shape: Shape, mode: str, chunk: int = CHUNK) -> float:
    """Matrix flops of the chunked order; quadratic where one chunk covers T."""
    b, t, h, p, n, groups = shape
    piece = min(chunk, t)
    pairs = b * t * (piece + 1) / 2
    inside = 2 * pairs * (n * groups + p * h)
    between = 4 * b * (t - piece) * h * n * p
    return (inside + between) * (1.0 if mode == "forward" else BOTH)


def floor(shape: Shape, traffic: Traffic, mode: str, ceilings: Ceilings,
          chunk: int = CHUNK) -> Floor:  # fmt: skip
    """The floor of a case in `mode`; `chunk` = T for masks that have no chunked order."""
    return Floor(moved(traffic, mode) / ceilings.bandwidth,
                 flops(shape, mode, chunk) / ceilings.dots)  # fmt: skip
