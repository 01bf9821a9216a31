"""What a sweep knows of a row before it multiplies: decays summed along the chunk, and factors.

One kernel at the head of a program writes, chunk by chunk, the sums of log decays and those factors
of operands (triton_factors.py) that cost more than a load, so that the kernels behind it read
vectors of numbers.

Sums are of log2 decays from the chunk's start through each token. A reset (a log decay ≤ −256, or
one that the mask states) adds a number so far below zero that nothing passes it: 2 to that power is
0 in the accumulator's type even after any growth that the type can hold.

Non-goals: no sums over more than a chunk; those of masks by entry are the wrapper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smac.codegen.print_triton import SUM, real
from smac.codegen.triton_factors import carries, factors_of
from smac.codegen.triton_kernel import Draft, Launch, Layout, StoreText, owned_grid
from smac.codegen.triton_tiles import Frame, Ix, Scope, Tensor
from smac.codegen.triton_wrapper import Host
from smac.expr import Expr, Name, names
from smac.ir import SEQ, Kernel, LaneIR

#: The axis of tensors that hold something for each lane of a kernel.
LANE = "LANE"
#: The type of sums, as the wrapper's text.
SUMS = "torch.float64 if op.itemsize >= 4 else acc"


@dataclass(frozen=True, slots=True)
class Sum:
    """Log2 decays of a lane summed along each chunk: its decay (None: 0) and reset (None: no)."""

    decay: Expr | None
    reset: Expr | None


Row = Sum | Expr


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row goes: a tensor, of lanes' tensors at `lane`; `passes` has 1 in each row of a sum
    that nothing cuts, else 0."""

    row: Row
    tensor: str
    lane: int | None = None
    passes: str | None = None


def lane_sum(lane: LaneIR, k: Kernel, known: Mapping[str, Tensor]) -> Sum | None:
    """What is summed for a lane; None where its decay is one number for all tokens."""
    found = sum_of(lane, k)
    if found.reset is None and (found.decay is None or not carries(found.decay, "T", known)):
        return None
    return found


def sum_of(lane: LaneIR, k: Kernel) -> Sum:
    """The decays of a lane, whatever they are."""
    exprs = {v.name: v.expr for v in k.values}
    return Sum(None if lane.decay is None else exprs[lane.decay],
               None if lane.reset is None else exprs[lane.reset])  # fmt: skip


def prepare(host: Host, k: Kernel) -> dict[Row, str]:
    """Tensors of every lane's sums and of those factors that are worth one, by what they hold.

    Launches a kernel for those that an earlier kernel of the program did not ask for."""
    each = () if k.in_turn else k.lanes  # those have tensors of their own (triton_turns.py)
    wanted: list[Row] = [s for s in (lane_sum(x, k, host.known) for x in each) if s is not None]
    operands = {n for c in k.carries for n in (c.left, c.right)} | {r.operand for r in k.reads}
    vectors = [factors_of(v, host.known).vector for v in k.values if v.name in operands]
    wanted += [v for v in vectors if _costly(v, host.known)]
    fresh = [w for w in dict.fromkeys(wanted) if (k.walk.chunk, w) not in host.rows]
    for axes in dict.fromkeys(row_axes(host, w) for w in fresh):
        group = [w for w in fresh if row_axes(host, w) == axes]
        made = {w: host.fresh("rows", (*axes, "C", "I")) for w in group}
        rows = f"rows({k.walk.chunk}, op)"
        for w, name in made.items():
            dtype = SUMS if isinstance(w, Sum) else "acc"
            host.allocate(name, dtype, [*(host.size(a) for a in (*axes, "C")), rows])
            host.rows[k.walk.chunk, w] = name
        name = f"{host.program.name}_rows" + (f"_{len(host.rows)}" if len(host.rows) > len(made)
                                              else "")  # fmt: skip
        places = [Place(w, n) for w, n in made.items()]
        host.launch(row_kernel(name, host.layout, host.known, axes, places, rows))
    return {w: host.rows[k.walk.chunk, w] for w in dict.fromkeys(wanted)}


def _costly(e: Expr, known: Mapping[str, Tensor]) -> bool:
    """Along T and more than a load."""
    return not isinstance(e, Name) and carries(e, "T", known)


def row_axes(host: Host, *rows: Row) -> tuple[str, ...]:
    """Batch and head axes of what row vectors read."""
    exprs = [e for w in rows for e in ([w.decay, w.reset] if isinstance(w, Sum) else [w])]
    found = {a for e in exprs if e is not None for n in names(e) for a in host.known[n].axes}
    return host.canonical(found - {"T"})


def row_kernel(name: str, layout: Layout, known: dict[str, Tensor], axes: tuple[str, ...],
               places: Sequence[Place], rows: str) -> Launch:  # fmt: skip
    """The kernel that writes rows to their places, tensors over `axes`, chunks and their rows."""
    owned = list(reversed(axes))
    fixed = {a: Ix(f"at_{a}", fixed=True) for a in owned}
    if "H" in owned:
        fixed |= {g: Ix(f"at_{g}", fixed=True) for g in layout.groups}
    fixed |= {SEQ: Ix(f"at_{SEQ}", fixed=True)} if layout.packed else {}
    scope = Scope(fixed, layout.groups, known, layout.packed)
    chunks = ("i_chunk", "tl.cdiv(n_T, C)", f"triton.cdiv(n_T, {rows})")
    d = Draft(name, "Log2 decays summed along each chunk, and factors of rows.", scope, {},
              [chunks, *owned_grid(owned)], {"C": rows, "ACC": "TYPES[acc]"})  # fmt: skip
    t: Frame = {"T": Ix("o_t", 0, "m_t", 0, "C")}
    at: Frame = {"C": Ix("i_chunk"), "I": Ix("o_i", 0)}
    sums, factors = [], []
    for place in places:
        w = place.row
        here = at if place.lane is None else {**at, LANE: Ix(str(place.lane))}
        pointer, _ = d.scope.address(place.tensor, here, 1)
        if isinstance(w, Sum):
            log = "tl.zeros([C], ACC)" if w.decay is None else real(d.scope.text(w.decay, t, 1, {}))
            reset = None if w.reset is None else d.scope.text(w.reset, t, 1, {}).at(SUM)
            wide = w.decay is None or carries(w.decay, "T", known)
            passes = place.passes and d.scope.address(place.passes, here, 1)[0]
            sums.append({"log": log, "wide": wide, "reset": reset, "pointer": pointer,
                         "passes": passes})  # fmt: skip
        else:
            factors.append(StoreText(pointer, real(d.scope.text(w, t, 1, {})), None))
    if sums:
        d.constants["SUM"] = "tl.float64 if op.itemsize >= 4 else tl.float32"
    return d.finish("rows", {"sums": sums, "factors": factors})
