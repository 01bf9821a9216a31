"""What the chunked order takes on triton under a mask per channel: products, passes, kernels.

Counts what templates/triton/channel_*.py.jinja do, tile by tile: a chunk of C tokens has log2 C
levels, each with a product of C × C over the channel, or one place where all its pairs meet.
`heads` are those of the operands that carry the channel, together with the mask; all else is for
every head of the result.

Non-goals: no times (cost.py), no other order.
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.plan.rates import rates
from smac.plan.shape import Shape
from smac.plan.types import Dot

#: Operations on an element of the channel at a level (scores; reads; reads and gradients), and
#: beside the levels.
_LEVEL, _ENDS = {"scores": 8, "read": 12, "gradients": 16}, 16


@dataclass(frozen=True, slots=True)
class ChannelWork:
    """What a program does. `chunked` programs take a chunk each, `swept` ones a whole sequence in
    `steps` that wait for each other; `space` is what passes through memory between kernels."""

    dots: tuple[Dot, ...]
    scalar: int
    traffic: tuple[tuple[str, int], ...]
    kernels: int
    space: int
    chunked: int
    swept: int
    steps: float


def channel_work(x: Shape, back: bool, C: int) -> ChannelWork:
    """The work of a forward, or of a backward, in chunks of C tokens."""
    return _Count(x, C).made(back)


class _Count:
    """Adds up kernels; lengths are those of the channel and of the other axis of the state."""

    def __init__(self, x: Shape, C: int) -> None:
        self.x, self.C = x, C
        self.per_n = x.channel == "N"
        self.channel, self.other = (x.N, x.p) if self.per_n else (x.P, x.n("QK"))
        # In bfloat16 the pairs of a chunk meet in its middle, unless decays are fast.
        self.near = x.item == x.kept == 2
        self.levels = 1 if self.near else C.bit_length() - 1
        self.pieces = max(1, -(-x.T // C))
        self.tokens = x.batch * self.pieces * C
        self.block = 64 if x.item == 2 else 32
        self.columns = -(-self.other // self.block)
        self.dots: dict[str, int] = {}
        self.scalar, self.kernels, self.steps = 0, 1, 0.0
        self.bytes = {"decays": self._sums(), "operands and scores": 0, "states": 0}

    def made(self, back: bool) -> ChannelWork:
        if not back:
            self.forward()
        else:
            self.backward()
        x = self.x
        space = sum(self.bytes.values())
        traffic = tuple((n, 2 * b) for n, b in self.bytes.items() if b)
        return ChannelWork(
            tuple(Dot(n, f) for n, f in self.dots.items()), self.scalar, traffic, self.kernels,
            space, x.batch * x.all_heads * self.pieces,
            x.batch * x.all_heads * self.columns, self.steps,
        )  # fmt: skip

    def forward(self) -> None:
        """Y: by a sweep where it contracts the channel, else from states."""
        if self.per_n:
            self.scores("QKL")
            self.sweep("state", "read", "intra")
        else:
            self.scaled("VL")
            self.sweep("state")
            self.keep("scores", ("read",), "intra", "read")

    def backward(self) -> None:
        """Sweeps of the reads that contract the channel, then all the others and the decays."""
        x = self.x
        if self.per_n:
            self.scores("QKL")
            self.sweep("state", *(("read", "intra") if x.again else ()))
            self.sweep("QdY state", "dV read", "dV intra")
        else:
            if x.again:
                self.scaled("VL")
                self.sweep("state")
                self.keep("scores", ("read",), "intra", "read")
            self.scores("QKVL")
            self.sweep("state", "dQ read", "dQ intra")
            self.sweep("QdY state", "dK read", "dK intra")
        self.kernels += x.again
        reads = ("dQ read", "dK read") if self.per_n else ("Y read", "dV read")
        self.keep("dscores", reads, "inside", "gradients")

    def scores(self, operands: str) -> None:
        """Both operands times their decays, and scores, for the heads of `operands`."""
        heads = self.x.heads(operands)
        self._dot("level scores", heads * self.levels * self.C * self.channel)
        self._pass("scores", heads)
        x, tokens = self.x, self.tokens * heads
        self.bytes["operands and scores"] += tokens * x.item * (2 * self.channel + self.C)
        self.kernels += 1

    def scaled(self, operands: str) -> None:
        """One operand times its decays, for states alone."""
        heads = self.x.heads(operands)
        self.scalar += self.tokens * heads * self.channel * _ENDS
        self.bytes["operands and scores"] += self.tokens * heads * self.x.item * self.channel
        self.kernels += 1

    def sweep(self, state: str, read: str | None = None, inside: str | None = None) -> None:
        """A state carried along; with a read, products with it and of scores with the columns."""
        heads = self.x.all_heads
        self._dot(state, heads * self.channel * self.other)
        if read is not None and inside is not None:
            self._dot(read, heads * self.channel * self.other)
            self._dot(inside, heads * self.C * self.other)
        self.kernels += 1
        self.steps += self.pieces * (rates(self.x.item).state_step if read is None else 1.0)

    def keep(self, tile: str, reads: tuple[str, ...], inside: str, kind: str) -> None:
        """Reads that keep the channel, `reads` of them, from the states that sweeps saved.

        One product a level serves rows and columns, two those that meet in the middle; in float16
        a state takes two, for its rounded part and for what rounding takes."""
        x = self.x
        products = len(reads) if self.near else self.levels
        blocks = -(-self.channel // self.block)
        self._dot(tile, x.all_heads * blocks * self.C * self.other)
        for read in reads:
            self._dot(read, x.all_heads * (2 if x.kept > x.item else 1) * self.channel * self.other)
        self._dot(inside, x.all_heads * products * self.C * self.channel)
        if kind == "gradients" and x.item > 2:  # paths over each token, added up by themselves
            self._dot("decays", x.all_heads * self.levels * self.C * self.channel)
        self._pass(kind, x.all_heads)
        states = x.batch * x.all_heads * self.pieces * self.channel * self.other
        self.bytes["states"] += len(reads) * states * x.kept
        self.kernels += 1

    def _sums(self) -> int:
        """Bytes of the decays, summed along chunks: in float64 beside wide operands."""
        x = self.x
        return self.tokens * x.heads("L") * self.channel * (4 if x.item == 2 else 8)

    def _pass(self, kind: str, heads: int) -> None:
        work = self.levels * _LEVEL[kind] + _ENDS
        self.scalar += self.tokens * heads * self.channel * work

    def _dot(self, name: str, multiplications: int) -> None:
        flops = 2 * self.tokens * multiplications
        self.dots[name] = self.dots.get(name, 0) + flops
