"""Contexts of the kernels that carry a state: sweeps over chunks and walks over tokens.

A read contracts one side of the state and keeps the other, so the templates speak of a contracted
and a kept axis; which of N and P is which is said here.

Non-goals: no lane gradients (triton_lanes.py), no tiles of L (triton_masks.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from smac.codegen.print_triton import Text
from smac.codegen.triton_factors import carries
from smac.codegen.triton_kernel import (
    FAR,
    Draft,
    Launch,
    Layout,
    StoreText,
    atom,
    carried_axes,
    fixed_frame,
    heads_and_batch,
    identifier,
    owned_grid,
    value,
)
from smac.codegen.triton_rows import Row, lane_sum
from smac.codegen.triton_tiles import Frame, Ix, Scope, Tensor
from smac.errors import CodegenError
from smac.expr import Expr, Name
from smac.ir import SEG, TILE, Carry, Kernel, LaneIR, Read
from smac.plan.tokens import SEGMENT

DOT = {"ACC": "TYPES[acc]", "OP": "TYPES[op]", "PRECISION": "PRECISION"}
#: Warps of a program that holds states [N, P] and few rows beside them: a wide one's registers.
WIDE_WARPS = "8 if op.itemsize == 2 and n_N > 128 else 4"
#: A store that a read's kernel does itself: the tensor, and the expression stored.
Target = tuple[str, Expr]


@dataclass(frozen=True, slots=True)
class Turn:
    """Lanes that a sweep has a program for each: where along an axis the `first` of them is, and
    their `count`; `texts` answers the one lane that the template sees (triton_turns.py), backward
    in time or not."""

    first: Mapping[str, int]
    count: int
    texts: Callable[[Draft, bool], dict[str, object]]


def lane_of(k: Kernel) -> LaneIR:
    """The one lane; CodegenError where the rank is higher."""
    if len(k.lanes) != 1:
        raise CodegenError(
            f"triton: kernel '{k.name}' carries {len(k.lanes)} lanes; expected 1: "
            "plan the quadratic order for masks of higher rank"
        )
    return k.lanes[0]


def draft_of(k: Kernel, name: str, layout: Layout, known: dict[str, Tensor],
             grid: list[tuple[str, str, str]]) -> Draft:  # fmt: skip
    """A draft whose programs own heads and batch entries, behind what `grid` lists."""
    owned = heads_and_batch(layout, carried_axes(k))
    scope = Scope(fixed_frame(layout, owned), layout.groups, known, layout.packed)
    return Draft(name, "", scope, {v.name: v for v in k.values}, [*grid, *owned_grid(owned)], {})


def sides(over: str, carry: Carry) -> tuple[str, str, str, str]:
    """(contracted axis, kept axis, contracted value, kept value)."""
    if over == "N":
        return "N", "P", carry.left, carry.right
    return "P", "N", carry.right, carry.left


def read_of(k: Kernel) -> tuple[Read, Carry]:
    """The one read of a kernel and the carry it reads."""
    if len(k.reads) != 1 or len(k.carries) != 1:
        raise CodegenError(f"triton: kernel '{k.name}' has {len(k.reads)} reads of "
                           f"{len(k.carries)} carries; expected one of one")  # fmt: skip
    return k.reads[0], k.carries[0]


def length(axis: str, tail: bool) -> str:
    """The length of a side of the state: along P the tail is one more."""
    return f"n_{axis} + 1" if tail and axis == "P" else f"n_{axis}"


def columns_grid(n_kept: str) -> list[tuple[str, str, str]]:
    """The grid entry of the kept axis, split in blocks."""
    return [("i_k", f"tl.cdiv({n_kept}, BK)", f"triton.cdiv({n_kept}, columns({n_kept}, op))")]


def sweep(k: Kernel, name: str, layout: Layout, known: dict[str, Tensor],
          targets: list[Target], rows: Mapping[Row, str], turn: Turn | None = None,
          ) -> Launch:  # fmt: skip
    """The read of `k` chunk by chunk; without a read, the states that it saves: of all lanes, or
    of those of a turn, a program each."""
    (carry,) = k.carries
    read = k.reads[0] if k.reads else None
    over = "N" if read is None or read.over == "N" else "P"
    contracted, kept, c_name, k_name = sides(over, carry)
    tail = value(k, carry.right).tail is not None
    n_contracted, n_kept = length(contracted, tail), length(kept, tail)
    grid = columns_grid(n_kept)
    if k.walk.split:
        grid.append(("i_segment", "tl.cdiv(n_T, SPAN)", f"triton.cdiv(n_T, {k.walk.segment})"))
    if turn is not None:
        grid.append(("i_lane", str(turn.count), str(turn.count)))
    d = draft_of(k, name, layout, known, grid)
    if turn is not None:
        for axis, first in turn.first.items():
            d.scope.fixed[axis] = Ix(f"({first} + i_lane)" if first else "i_lane", fixed=True)
    d.rows = rows
    d.about = about(read, carry)
    d.constants = {"C": f"rows({k.walk.chunk}, op)", "DC": f"width({n_contracted}, op)",
                   "BK": f"columns({n_kept}, op)", **DOT}  # fmt: skip
    d.constants["TURNED"] = "False" if read is None else f"columns_first({k.walk.chunk}, op)"
    if k.walk.split:
        d.constants["SPAN"] = str(k.walk.segment)
    t = Ix("o_i", 0, "m_t", 1, "C", start="i_first")
    side_c: Frame = {"T": t, contracted: Ix("o_c", 1, "m_c", 0, "DC")}
    side_k: Frame = {"T": t, kept: Ix("o_k", 1, "m_k", 0, "BK")}
    lanes = (lanes_texts(d, k, carry, contracted, {"T": t}) if turn is None else
             [state_texts(d, carry, contracted, 0) | turn.texts(d, carry.reverse)])  # fmt: skip
    x = {**sides_texts(contracted, kept, tail, carry.reverse), "lanes": lanes, "rounded": False,
         "read": None, "split": k.walk.split}  # fmt: skip
    x["saves"] = carry.saves is not None
    # An empty sequence among packed ones has no last chunk.
    x["saving"] = x["saves"] and not (k.reads or carry.final or carry.leaves or d.scope.packed)
    x["live"] = live(carry, not carry.reverse)  # of what the other carry saved on its way
    x["idle"] = _idle(carry)
    x["touches"] = any((carry.initial, carry.final, carry.saves, carry.leaves, carry.enters))
    x["left"], x["right"] = d.core(c_name, side_c), d.core(k_name, side_k)
    x["col"], col_scale = d.weights((c_name, k_name), t)
    x["decays"] = any(n["keeps"] and (n["constant"] or n["sum"]) for n in lanes)
    row, row_scale = (None, None) if read is None else d.weights((read.operand,), t)
    if carry.closed or not x["touches"]:
        # A number that columns have waits until rows read the state: what goes in is raw then.
        row_scale, col_scale = " * ".join(filter(None, (row_scale, col_scale))) or None, None
    x["row"], x["row_scale"], x["col_scale"] = row, row_scale, col_scale
    if read is not None:
        x["operand"] = d.core(read.operand, side_c)
        x["read"] = identifier(read.out)
        x["stores"] = read_stores(d, read, targets, side_k, kept, 2)
    walked = {contracted: "DC", kept: "BK"}
    evenness(d, walked, tail)
    launch = d.finish("sweep", x, warps=WIDE_WARPS if read is None else 4)
    # A column of Z pads the others to twice their number, which takes the room of a load.
    return replace(launch, deep=read is not None and k.walk.chunk >= 64 and not tail)


def live(c: Carry, reverse: bool) -> str | None:
    """Whether the state that enters a chunk on a way through time may be other than 0, as text;
    None where any may."""
    if not c.blank:
        return None
    return "i_chunk + 1 < tl.cdiv(n_T, C)" if reverse else "i_chunk > 0"


def _idle(carry: Carry) -> str | None:
    """The segment that nobody follows, where segments are swept for what they leave behind."""
    if carry.leaves is None or carry.final is not None:
        return None
    return "0" if carry.reverse else "tl.cdiv(n_T, SPAN) - 1"


def evenness(d: Draft, walked: Mapping[str, str], tail: bool) -> None:
    """Constants that say whether all tiles are whole, and whether offsets need 64 bits in a tile.

    `walked`: the block along N and along P, as constants of the kernel."""
    whole = [f"n_T % {d.constants['C']} == 0"]
    whole += [f"n_{a} % ({d.constants[b]}) == 0" for a, b in walked.items()]
    # The column behind the last of P is told from the others by their mask.
    d.constants["EVEN"] = "False" if tail or d.scope.packed else " and ".join(whole)
    d.constants["FAR"] = FAR


def lanes_texts(d: Draft, k: Kernel, carry: Carry, contracted: str,
                frame: Frame) -> list[dict[str, object]]:  # fmt: skip
    """For each lane of the carry's side: its sums of decays, factors of rows and columns, pointers
    to its states."""
    made: list[dict[str, object]] = []
    bare = Carry(carry.name, carry.left, carry.right)
    for i, lane in enumerate(k.lanes):
        if lane.upper != carry.upper:
            continue
        state = state_texts(d, carry if lane.keeps else bare, contracted, i)
        factors = factor_texts(d, lane, frame, carry.reverse)
        made.append(state | factors | lane_sums(d, k, i))
    return made


def lane_sums(d: Draft, k: Kernel, i: int) -> dict[str, object]:
    """Lane `i` and its sums of decays through each row of a chunk, through the row before (`past`,
    of a late lane), and over the chunk."""
    lane = k.lanes[i]
    found: dict[str, object] = {"i": i, "sum": None, "end": None, "constant": None, "past": None,
                                "late": lane.late, "keeps": lane.keeps}  # fmt: skip
    total = lane_sum(lane, k, d.scope.known)
    if total is not None:
        found |= sum_texts(d, d.rows[total], d.row, lane.late)
    elif lane.decay is not None:
        found["constant"] = d.number(lane.decay, {}, 0)
    return found


def sum_texts(d: Draft, tensor: str, at: Frame, late: bool) -> dict[str, object]:
    """Sums of a lane's decays in the rows of a chunk `at`."""
    row = at["I"]
    found: dict[str, object] = {"sum": d.scope.load(tensor, at, 1, raw=True).text}
    last: Frame = {**at, "I": Ix("(C - 1)", section=row.section)}
    found["end"] = d.scope.load(tensor, last, 0, raw=True).text
    if late:
        before: Frame = {**at, "I": replace(row, var="(o_i - 1)", mask="(o_i > 0)")}
        found["past"] = d.scope.load(tensor, before, 1, raw=True).text
    return found


def factor_texts(d: Draft, lane: LaneIR, frame: Frame, reverse: bool) -> dict[str, object]:
    """A lane's factors of rows and columns: read and write, exchanged in reverse. With T, they are
    vectors over the rows; without, numbers."""

    def factor(name: str | None) -> str | None:
        if name is None:
            return None
        text = atom(d.number(name, frame, 1))
        if carries(d.values[name].expr, "T", d.scope.known):
            return text
        return f"tl.full([C], 1.0, ACC) * {text}"

    read, write = factor(lane.read), factor(lane.write)
    return {"row": write, "col": read} if reverse else {"row": read, "col": write}


def recurrent(k: Kernel, name: str, layout: Layout, known: dict[str, Tensor],
              targets: list[Target]) -> Launch:  # fmt: skip
    """The read of `k`, token by token."""
    read, carry = read_of(k)
    contracted, kept, c_name, k_name = sides(read.over, carry)
    tail = value(k, carry.right).tail is not None
    n_contracted, n_kept = length(contracted, tail), length(kept, tail)
    d = draft_of(k, name, layout, known, columns_grid(n_kept))
    d.about = about(read, carry)
    d.constants = {"DC": f"pad({n_contracted})", "BK": f"columns({n_kept}, op)",
                   "ACC": "TYPES[acc]"}  # fmt: skip
    if carry.saves is not None:  # saved states are indexed by segments
        d.constants["SEGMENT"] = str(SEGMENT)
    t = Ix("i_t", None, None, 1)
    side_c: Frame = {"T": t, contracted: Ix("o_c", 0, "m_c", 0, "DC")}
    side_k: Frame = {"T": t, kept: Ix("o_k", 1, "m_k", 0, "BK")}
    out: Frame = {"T": t, kept: Ix("o_k", 0, "m_k", 0, "BK")}
    x = sides_texts(contracted, kept, tail, carry.reverse)
    x["in_place"] = carry.initial is not None and carry.final is not None
    bare = Carry(carry.name, carry.left, carry.right)
    x["lanes"] = [
        {"n": str(i or ""), "late": lane.late, "keeps": lane.keeps,
         **state_texts(d, carry if lane.keeps else bare, contracted, i),
         **lane_texts(d, lane, {**side_c, **side_k}, 2, carry.reverse)}
        for i, lane in enumerate(k.lanes) if lane.upper == carry.upper
    ]  # fmt: skip
    x |= {
        "read": identifier(read.out), "operand": d.operand(read.operand, side_c, cast=False),
        "left": d.operand(c_name, side_c, cast=False),
        "right": d.operand(k_name, side_k, cast=False),
        "stores": read_stores(d, read, targets, out, kept, 1),
    }  # fmt: skip
    # Threads that share a sum over rows each add the others' products to their own. Fused with it,
    # the own one is not rounded as the others have it, and their copies of the sum differ.
    return replace(d.finish("recurrent", x), fused=False)


def about(read: Read | None, carry: Carry) -> str:
    """What a kernel computes, for its docstring."""
    way = "backward" if carry.reverse else "forward"
    if read is None:
        return f"States of {carry.name}, {way} in time."
    return f"{read.out}: {read.operand} with {carry.name} over {read.over}, {way} in time."


def read_stores(d: Draft, read: Read, targets: list[Target], frame: Frame, kept: str,
                rank: int) -> list[StoreText]:  # fmt: skip
    """Stores of a read's tile."""
    d.extra = {read.out: Text(f"b_{identifier(read.out)}")}
    return tile_stores(d, targets, frame, kept, rank)


def tile_stores(d: Draft, targets: list[Target], frame: Frame, kept: str,
                rank: int) -> list[StoreText]:  # fmt: skip
    """Stores of what is in registers; what lacks the kept axis is one column: n_P for Z, else 0."""
    stores = []
    for tensor, e in targets:
        tail = e == Name("Z") and "Y" in d.extra
        if not tail and kept in d.scope.known[tensor].axes:
            stores.append(d.store(tensor, e, frame, rank))
            continue
        column = "o_k[None, :]" if rank == 2 else "o_k"
        column = column.replace("o_k", frame[kept].var)
        if tail:
            d.extra["Z"] = d.extra["Y"]
        at = f"({column} == n_P)" if tail else f"({column} == 0)"
        one = d.store(tensor, e, {a: f for a, f in frame.items() if a != kept}, rank, at)
        stores.append(StoreText(f"{one.pointer} + {column} * 0", one.value, one.mask))
    return stores


def sides_texts(contracted: str, kept: str, tail: bool, reverse: bool) -> dict[str, object]:
    """The names and lengths of a state's sides, for a template."""
    return {
        "contracted": contracted, "kept": kept, "reverse": reverse,
        "n_contracted": length(contracted, tail), "n_kept": length(kept, tail),
    }  # fmt: skip


def state_texts(d: Draft, carry: Carry, contracted: str, lane: int) -> dict[str, str | None]:
    """Pointers to the states of `lane` that a walk starts from, ends with and saves."""
    kept = "P" if contracted == "N" else "N"
    over = {contracted: Ix("o_c", 0), kept: Ix("o_k", 1)}
    lanes = {"R": Ix(str(lane))} if lane else {}
    frame = {**over, "C": Ix("i_chunk", section=1), SEG: Ix("i_segment")} | lanes

    def pointer(name: str | None) -> str | None:
        return None if name is None else d.scope.address(name, frame, 2)[0]

    met = None
    if carry.against is not None and carry.met is not None:
        column = {a: x for a, x in frame.items() if a != contracted}
        column |= {kept: Ix("o_k", 0, "m_k", 0), TILE: Ix("0")}
        met = d.scope.address(carry.met, column, 1)[0]
    span = None
    if carry.spans is not None:
        span = d.scope.address(carry.spans, {SEG: frame[SEG]} | lanes, 0)[0]
    return {"initial": pointer(carry.initial or carry.enters),
            "final": pointer(carry.leaves or carry.final), "span": span,
            "saves": pointer(carry.saves), "against": pointer(carry.against),
            "met": met}  # fmt: skip


def lane_texts(d: Draft, lane: LaneIR, frame: Frame, rank: int, reverse: bool) -> dict[str, object]:
    """Decay, reset, and the factors of rows and columns: read and write, exchanged in reverse."""

    def factor(name: str | None) -> str | None:
        return None if name is None else atom(d.number(name, frame, rank))

    read, write = factor(lane.read), factor(lane.write)
    return {
        "log_decay": "tl.full((), 0.0, ACC)" if lane.decay is None
        else d.number(lane.decay, frame, rank),
        "reset": d.integer(lane.reset, frame, rank),
        "row_factor": write if reverse else read, "col_factor": read if reverse else write,
    }  # fmt: skip
