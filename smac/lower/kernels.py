"""Kernels of one order: how a read, or the whole backward, walks along T.

`Order` is what the three orders differ in; quadratic.py, chunked.py and linear.py each make one.

Non-goals: no derivatives (adjoint.py), no choice of order (plan/).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from smac.ir import Carry, Gather, Kernel, LaneGrad, Read, Value, Walk
from smac.lower.values import Parts


@dataclass(frozen=True, slots=True)
class Order:
    """An order of contraction, ready to make kernels of `parts`.

    `mask` are the values that its kernels evaluate for L; `stateful` orders carry states through
    their walk, so that the mask's gradient needs them saved and restored; `in_turn` as in Kernel;
    `paired`: dK and dV, which read the same product, do so in one kernel.
    """

    parts: Parts
    kind: str
    walk: Walk
    mask: tuple[Value, ...]
    stateful: bool
    lane_grads: tuple[LaneGrad, ...] = ()
    gathers: tuple[Gather, ...] = ()
    finish: Callable[[Kernel], Kernel] = lambda k: k
    in_turn: bool = False
    paired: bool = False

    def kernel(
        self, name: str, operands: tuple[Value, ...], carries: tuple[Carry, ...],
        reads: tuple[Read, ...] = (), *, mask_grads: bool = False, reverse: bool = False,
    ) -> Kernel:  # fmt: skip
        """A kernel of this order over `operands`; its stores are the caller's to add."""
        k = Kernel(
            name, self.kind, replace(self.walk, reverse=reverse), (*operands, *self.mask), carries,
            reads, channel=self.parts.channel, group=self.parts.group, in_turn=self.in_turn,
        )  # fmt: skip
        if mask_grads:
            k = replace(k, lane_grads=self.lane_grads, gathers=self.gathers)
        return self.finish(k)

    def mask_uses(self) -> tuple[tuple[str, Value], ...]:
        """(name of the gradient, the value it belongs to), for every gradient of the mask."""
        by_name = {v.name: v for v in self.mask}
        uses: list[tuple[str, Value]] = [(g.out, by_name[g.base]) for g in self.gathers]
        for g in self.lane_grads:
            lane = self.parts.lanes[g.lane]
            for grad, value in ((g.decay, lane.decay), (g.read, lane.read), (g.write, lane.write)):
                if grad is not None and value is not None:
                    uses.append((grad, by_name[value]))
        return tuple(uses)


def lane_gradients(p: Parts) -> tuple[LaneGrad, ...]:
    """A gradient for every lane value that depends on what takes one."""
    learned = {v.name for v in p.lane_values if p.learned(v)}
    found = []
    for i, lane in enumerate(p.lanes):
        outs = [f"d.{n}" if n in learned else None for n in (lane.decay, lane.read, lane.write)]
        if any(outs):
            found.append(LaneGrad(i, *outs))
    return tuple(found)
