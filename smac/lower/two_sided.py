"""Masks that are nonzero on both sides of the diagonal: a sweep for each side, one result.

What is strictly above a diagonal is a sum of late lanes backward in time (Hwang et al. 2024, Hydra:
quasi-separable masks), so it takes the same sweep over a mirrored walk, rows and columns of its
lanes exchanged. Y below and Y above add up; each side has a backward of its own under one dY.

Non-goals: no state between calls, since the mirrored walk starts at the end; no target whose
kernels sweep both ways (sides.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from smac.expr import Expr, Name, call, transform
from smac.ir import Buffer, Carry, Kernel, Step, Store
from smac.lower.adjoint import (
    Backward,
    input_stores,
    output_stores,
    reversed_walk,
    stores_need_y,
)
from smac.lower.kernels import Order
from smac.lower.sides import READ_Y, raw_output
from smac.lower.values import Parts, cotangent, needs_y

KV = Carry("KV", "K", "V")


@dataclass(frozen=True, slots=True)
class Sides:
    """The orders of the two sides; `below` is None where nothing is on or below the diagonal."""

    below: Order | None
    above: Order

    @property
    def parts(self) -> Parts:
        """Those of the side above, for what both sides share."""
        return self.above.parts

    def each(self) -> tuple[tuple[str, Order], ...]:
        """The sides that there are, by name."""
        return (*((("below", self.below),) if self.below else ()), ("above", self.above))

    def first(self) -> tuple[tuple[Step, ...], tuple[Buffer, ...]]:
        """A kernel for Y (and Z) of the side below, as buffers."""
        if self.below is None:
            return (), ()
        (kernel,), buffers = raw_output(self.below)
        assert isinstance(kernel, Kernel)
        stores = tuple(replace(s, buffer=f"{s.buffer}.below") for s in kernel.stores)
        return ((replace(kernel, name="below", stores=stores),),
                tuple(replace(b, name=f"{b.name}.below") for b in buffers))  # fmt: skip

    def last(self, stores: tuple[Store, ...]) -> Kernel:
        """The kernel of the side above, with `stores` of Y and Z in all."""
        p = self.parts
        kernel = self.above.kernel("above", (p.q, p.k, p.v), (KV,), (READ_Y,))
        return replace(kernel, stores=tuple(replace(s, expr=self.total(s.expr)) for s in stores))

    def total(self, e: Expr) -> Expr:
        """`e` with Y and Z those of both sides."""
        if self.below is None:
            return e
        both = {n: call("add", Name(n), Name(f"{n}.below")) for n in ("Y", "Z")}
        return transform(e, lambda n: both.get(n.id) if isinstance(n, Name) else None)


def forward(s: Sides) -> tuple[tuple[Step, ...], tuple[Buffer, ...]]:
    """Steps that store every output, and their scratch buffers."""
    steps, scratch = s.first()
    return (*steps, s.last(output_stores(s.parts))), scratch


def backward(s: Sides) -> Backward:
    """Steps that store every gradient. Y is computed again only where a derivative reads it."""
    p = s.parts
    outputs = frozenset(f"d.{n}" for n, _ in p.spec.output)
    dy, of_outputs = cotangent(p), input_stores(s.above, only=outputs)
    steps: tuple[Step, ...] = ()
    scratch: tuple[Buffer, ...] = ()
    if needs_y(dy) or stores_need_y(p):
        steps, scratch = s.first()
        made = [Buffer("d.Y", p.y_axes, "acc", "scratch")]
        stores = [Store("d.Y", dy.expr, dy.axes)]
        if dy.tail is not None:
            axes = tuple(a for a in p.y_axes if a != "P")
            made.append(Buffer("d.Z", axes, "acc", "scratch"))
            stores.append(Store("d.Z", dy.tail, dy.axes))
        steps = (*steps, s.last((*stores, *of_outputs)))
        scratch, of_outputs = (*scratch, *made), ()
        dy = replace(dy, expr=Name("d.Y"), tail=None if dy.tail is None else Name("d.Z"))
    for side, order in s.each():
        stores_here = (*input_stores(order, without=outputs), *of_outputs)
        found = reversed_walk(order, dy, (), stores_here, side)
        steps, scratch, of_outputs = (*steps, *found.steps), (*scratch, *found.scratch), ()
    return Backward(steps, scratch)
