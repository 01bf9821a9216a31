"""A read as kernels: one for each side of the diagonal that the mask has lanes on.

What is below the diagonal is swept from the start and what is above it from the end, by lanes that
the mask holds transposed: K ⊗ V then goes backward in time, Q ⊗ dY forward. What the first of two
kernels reads waits in a buffer, and the second adds to it before it stores, always in this order.

Non-goals: no derivatives (adjoint.py), no target that sees time mirrored (two_sided.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from smac.expr import Expr, Name, call, transform
from smac.ir import Buffer, Carry, Kernel, Read, Step, Store, Value
from smac.lower.kernels import Order
from smac.lower.mask_values import canonical
from smac.lower.values import Parts

READ_Y = Read("Y", "KV", "Q", "N")
READ_DQ = Read("d.Q", "KV", "dY", "P")
READ_DK = Read("d.K", "QG", "V", "P")
READ_DV = Read("d.V", "QG", "K", "N")


def carries_of(p: Parts) -> tuple[Carry, Carry]:
    """K ⊗ V, and Q ⊗ dY in reverse, with the op's states where they were asked for."""
    if not p.state:
        return Carry("KV", "K", "V"), Carry("QG", "Q", "dY", reverse=True)
    return (
        Carry("KV", "K", "V", initial="state.S0"),
        Carry("QG", "Q", "dY", reverse=True, initial="state.dST", final="state.dS0"),
    )


def sides_of(order: Order) -> tuple[tuple[Carry, Carry], ...]:
    """K ⊗ V and Q ⊗ dY for each side of the diagonal that has lanes: below first."""
    p = order.parts
    above = order.stateful and any(x.upper for x in p.lanes)
    below = not above or not all(x.upper for x in p.lanes)
    sides = [carries_of(p)] if below else []
    if above:
        sides.append((Carry("KV", "K", "V", reverse=True, upper=True),
                      Carry("QG", "Q", "dY", upper=True)))  # fmt: skip
    return tuple(sides)


def named(carry: Carry) -> str:
    """What the side of a carry adds to a kernel's name."""
    return "_above" if carry.upper else ""


def reading(
    order: Order, name: str, operands: tuple[Value, ...], read: Read, stores: tuple[Store, ...],
    *, final: str | None = None, saves: str | None = None,
) -> tuple[tuple[Step, ...], tuple[Buffer, ...]]:  # fmt: skip
    """Kernels that make `read` and do `stores`, and the buffers between them. `final` and `saves`
    are the carry's."""
    of_read = [kv if read.carry == "KV" else qg for kv, qg in sides_of(order)]
    carries = [replace(c, final=None if c.upper else final, saves=saves) for c in of_read]
    *first, last = (order.kernel(name, operands, (c,), (read,), reverse=c.reverse)
                    for c in carries)  # fmt: skip
    steps: list[Kernel] = []
    scratch: list[Buffer] = []
    for k in first:
        waiting = _raw(order.parts, read)
        scratch += waiting
        own = tuple(Store(b.name, Name(b.name.removesuffix(_WAITS)), b.axes) for b in waiting)
        steps.append(replace(k, name=f"{name}{_WAITS.replace('.', '_')}", stores=own))
        stores = tuple(replace(s, expr=_total(s.expr, waiting)) for s in stores)
    return (*steps, replace(last, stores=stores)), tuple(scratch)


#: What the names of buffers end with that hold the side below the diagonal alone.
_WAITS = ".below"


def _raw(p: Parts, read: Read) -> list[Buffer]:
    """Buffers for what a side reads, in the accumulator's type."""
    if read.out != "Y":
        like = {"d.Q": p.q, "d.K": p.k, "d.V": p.v}[read.out]
        return [Buffer(read.out + _WAITS, per_head(p, like), "acc", "scratch")]
    return [replace(b, name=b.name + _WAITS) for b in _outputs(p)]


def _total(e: Expr, waiting: list[Buffer]) -> Expr:
    """`e` with what waits added to what is read."""
    both = {n: call("add", Name(n), Name(b.name))
            for b in waiting for n in [b.name.removesuffix(_WAITS)]}  # fmt: skip
    return transform(e, lambda n: both.get(n.id) if isinstance(n, Name) else None)


def raw_output(
    order: Order, restored: Sequence[Carry] = (), final: str | None = None
) -> tuple[tuple[Step, ...], tuple[Buffer, ...]]:
    """Y (and Z) as scratch buffers, for whatever cannot be fused behind the read: by sweeps, or
    chunk by chunk from states that are `restored`."""
    p = order.parts
    buffers = _outputs(p)
    stores = tuple(Store(b.name, Name(b.name), b.axes) for b in buffers)
    if restored:
        kernel = order.kernel("output", (p.q, p.k, p.v), tuple(restored), (READ_Y,))
        return (replace(kernel, stores=stores),), buffers
    steps, scratch = reading(order, "output", (p.q, p.k, p.v), READ_Y, stores, final=final)
    return steps, (*buffers, *scratch)


def _outputs(p: Parts) -> tuple[Buffer, ...]:
    y = Buffer("Y", p.y_axes, "acc", "scratch")
    return (y, Buffer("Z", without_p(p.y_axes), "acc", "scratch")) if p.reads_z else (y,)


def per_head(p: Parts, v: Value) -> tuple[str, ...]:
    """Axes of an operand's raw gradient: every batch axis, token and head of Y, its own N or P."""
    last = "P" if v.name == "V" else "N"
    own = {last} & {*v.axes, "P" if v is p.v else last}
    return canonical(p.spec, ({*p.y_axes, "T"} - {"P"}) | own)


def without_p(axes: tuple[str, ...]) -> tuple[str, ...]:
    """`axes` of Y as those of Z."""
    return tuple(a for a in axes if a != "P")
