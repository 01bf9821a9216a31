"""Contexts of a lane's gradients: of its log decay, its read and its write factor.

The kernel holds both carries: KV (left K, right V) whose saved states enter each piece of the walk,
and QG in reverse (left Q, right dY) whose saved adjoints leave it. Above the diagonal it is the
other way round: Q ⊗ dY is what enters a piece, and K ⊗ V comes from behind it.

Non-goals: no chain to inputs, no sums over batch or tokens (the wrapper's).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from smac.codegen.print_triton import Text
from smac.codegen.triton_factors import carries
from smac.codegen.triton_kernel import Draft, Launch, Layout, identifier, value
from smac.codegen.triton_rows import Row
from smac.codegen.triton_sweeps import (
    DOT,
    draft_of,
    factor_texts,
    lane_sums,
    lane_texts,
    length,
    live,
)
from smac.codegen.triton_tiles import Frame, Ix, Tensor
from smac.errors import CodegenError
from smac.expr import Name
from smac.ir import TILE, Carry, Kernel, LaneGrad, LaneIR
from smac.plan.tokens import COLUMNS, SEGMENT


def both_carries(k: Kernel) -> tuple[Carry, Carry]:
    """What enters and what leaves a chunk (KV and QG); CodegenError where the kernel lacks one."""
    forward = [c for c in k.carries if not c.reverse]
    reverse = [c for c in k.carries if c.reverse]
    if len(forward) != 1 or len(reverse) != 1:
        raise CodegenError(f"triton: kernel '{k.name}' takes gradients of its mask; expected one "
                           "carry forward (K ⊗ V) and one in reverse (Q ⊗ dY)")  # fmt: skip
    return forward[0], reverse[0]


def saved_state(d: Draft, carry: Carry, frame: Frame, lane: int) -> str:
    """The pointer to the states that a carry restores."""
    if carry.restores is None:
        raise CodegenError(f"triton: carry '{carry.name}' restores no states; expected those that "
                           f"the kernel of its read saved, for '{d.name}'")  # fmt: skip
    at = {**frame, "R": Ix(str(lane))} if lane else frame
    return d.scope.address(carry.restores, at, 2)[0]


def restored(d: Draft, k: Kernel, lane: LaneIR, at: Frame) -> dict[str, object]:
    """Pointers to what a lane restores in a chunk's kernel, `at` its place along R: states,
    adjoints, and ⟨S, G⟩ by columns."""
    state: Frame = {"N": Ix("o_n", 0), "P": Ix("o_p", 1), "C": Ix("i_chunk"), **at}
    column: Frame = {"P": Ix("o_p", 0, "m_p", 0), "C": Ix("i_chunk"), **at}
    carries: dict[tuple[str, bool], Carry] = {(c.name, c.upper): c for c in k.carries}
    forward, reverse = (carries.get((n, lane.upper)) for n in ("KV", "QG"))
    text: dict[str, object] = {"states": None, "adjoints": None, "met": None, "meets": False}
    if forward is not None and lane.carried:
        text["states"] = saved_state(d, forward, state, 0)
        text["states_live"] = live(forward, forward.reverse)
    if reverse is not None and lane.carried:
        text["adjoints"] = saved_state(d, reverse, state, 0)
        text["adjoints_live"] = live(reverse, reverse.reverse)
        if reverse.met is not None:
            text["meets"] = meets = reverse.against is not None
            own = "i_n" if any(i == "i_n" for i, _, _ in d.grid) else "0"
            tile = {TILE: Ix(own if meets else "0" if k.in_turn else "i_tile")}
            text["met"] = d.scope.address(reverse.met, {**column, **tile}, 1)[0]
    return text


def _some(out: str | None) -> list[str]:
    """None or one of a gradient's name, for the template to go over."""
    return [] if out is None else [identifier(out)]


def lane_grad(k: Kernel, grad: LaneGrad, name: str, layout: Layout, known: dict[str, Tensor],
              outs: dict[str, str], rows: Mapping[Row, str]) -> Launch:  # fmt: skip
    """All chunks in parallel; `outs` names the tensor (batch…, T, H) that each gradient goes to."""
    kv, qg = both_carries(k)
    n_p = length("P", value(k, kv.right).tail is not None)
    chunk = f"rows({k.walk.chunk}, op)"
    d = draft_of(k, name, layout, known,
                 [("i_chunk", "tl.cdiv(n_T, C)", f"triton.cdiv(n_T, {chunk})")])  # fmt: skip
    d.about = "Gradients of the lane's log decay and factors, chunks in parallel."
    d.rows, d.row = rows, {"C": Ix("i_chunk"), "I": Ix("o_i", 0, extent="C")}
    d.constants = {"C": chunk, "BN": "columns(n_N, op)", "BP": f"columns({n_p}, op)", **DOT}
    t = Ix("o_i", 0, "m_t", 0, "C", start="i_first")
    n: Frame = {"T": t, "N": Ix("o_n", 1, "m_n", 1, "BN")}
    p: Frame = {"T": t, "P": Ix("o_p", 1, "m_p", 2, "BP")}
    state: Frame = {"N": Ix("o_n", 0, None, 1), "P": Ix("o_p", 1, None, 2), "C": Ix("i_chunk")}
    of_lane = k.lanes[grad.lane]
    factors = factor_texts(d, of_lane, {"T": t}, False)
    lane = factors | lane_sums(d, replace(k, lanes=(of_lane,)), 0)
    x: dict[str, object] = {"lanes": [lane], "reverse": False, "read": True, "n_p": n_p}
    x["row"], x["row_scale"] = d.weights((qg.left, qg.right), t)
    x["col"], x["col_scale"] = d.weights((kv.left, kv.right), t)
    x |= {
        "q": d.core(qg.left, n), "k": d.core(kv.left, n),
        "v": d.core(kv.right, p), "dy": d.core(qg.right, p),
        "states": saved_state(d, kv, state, grad.lane) if of_lane.keeps else None,
        "adjoints": saved_state(d, qg, state, grad.lane) if of_lane.keeps else None,
        "decays": _some(grad.decay), "reads": _some(grad.read), "writes": _some(grad.write),
    }  # fmt: skip
    if of_lane.late:  # paths are added up one by one where digits allow no differences
        d.constants["EXACT"] = "op.itemsize >= 4"
    x["log"], x["reset"] = log_decay(d, of_lane, t), d.integer(of_lane.reset, {"T": t}, 1)
    d.extra = {o: Text(f"b_{identifier(o)}") for o in outs}
    x["stores"] = [d.store(tensor, Name(o), {"T": t}, 1) for o, tensor in outs.items()]
    return d.finish("lane_grad", x)


def log_decay(d: Draft, lane: LaneIR, t: Ix) -> str | None:
    """A lane's log decay over the rows of a chunk; None: 0."""
    if lane.decay is None:
        return None
    text = d.number(lane.decay, {"T": t}, 1)
    if carries(d.values[lane.decay].expr, "T", d.scope.known):
        return text
    return f"({text} + tl.zeros([C], ACC))"


def recurrent_grad(k: Kernel, grad: LaneGrad, name: str, layout: Layout,
                   known: dict[str, Tensor], outs: dict[str, str],
                   scratch: str, at_once: str) -> Launch:  # fmt: skip
    """Token by token; each program has its part of the sum over P (axis "_k" of the outs), and of
    `at_once` programs each its part of `scratch`."""
    kv, qg = both_carries(k)
    lane = k.lanes[grad.lane]
    n_p = length("P", value(k, kv.right).tail is not None)
    d = draft_of(k, name, layout, known,
                 [("i_k", f"tl.cdiv({n_p}, BK)", f"triton.cdiv({n_p}, {COLUMNS})")])  # fmt: skip
    d.about = "Gradients of the lane's log decay and factors, token by token."
    d.at_once = at_once
    d.constants = {"DC": "pad(n_N)", "BK": str(COLUMNS), "SEGMENT": str(SEGMENT),
                   "ACC": "TYPES[acc]"}  # fmt: skip
    d.scope.fixed["_k"] = Ix("i_k", fixed=True)
    t = Ix("i_t", None, None, 1)
    late = Ix("i_t", None, None, 2)
    n, p = Ix("o_c", 0, "m_c", 0, "DC"), Ix("o_k", 1, "m_k", 0, "BK")
    state: Frame = {"N": Ix("o_c", 0), "P": Ix("o_k", 1), "C": Ix("i_chunk", section=1)}
    x = lane_texts(d, lane, {"T": t, "N": n, "P": p}, 2, False)
    x |= {
        "n_p": n_p, "k": d.operand(kv.left, {"T": t, "N": n}, cast=False),
        "v": d.operand(kv.right, {"T": t, "P": p}, cast=False),
        "q": d.operand(qg.left, {"T": late, "N": n}, cast=False),
        "dy": d.operand(qg.right, {"T": late, "P": p}, cast=False),
        "states": saved_state(d, kv, state, grad.lane) if lane.keeps else None,
        "adjoints": saved_state(d, qg, state, grad.lane) if lane.keeps else None,
        "late": lane.late, "keeps": lane.keeps,
    }  # fmt: skip
    x["scratch"] = d.scope.use(scratch).id
    write = f" * {x['col_factor']}" if x["col_factor"] else ""
    reads = f"b_k * b_v{write}" if not lane.keeps else "b_S" if lane.late else \
        f"(b_past + b_k * b_v{write})"
    tiles = {grad.decay: "b_past * b_R", grad.read: f"{reads} * b_read_by",
             grad.write: "b_k * b_v * b_R"}  # fmt: skip
    sums = {None: "tl.sum(tl.sum({}, 1), 0)", "N": "tl.sum({}, 1)", "P": "tl.sum({}, 0)"}
    x["outs"] = [(identifier(o), sums[k.channel].format(tile))
                 for o, tile in tiles.items() if o in outs]  # fmt: skip
    d.extra = {o: Text(f"b_{identifier(o)}") for o in outs}
    out: Frame = {"T": t, "N": Ix("o_c", 0, "m_c"), "P": Ix("o_k", 0, "m_k")}
    x["stores"] = [d.store(tensor, Name(o), out, 1) for o, tensor in outs.items()]
    return d.finish("recurrent_grad", x)
