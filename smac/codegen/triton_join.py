"""Context of the kernel that makes, of what segments add to a state, the states that enter them.

Non-goals: the sweeps before and behind it (triton_sweeps.py).
"""

from __future__ import annotations

from smac.codegen.triton_kernel import Draft, Launch, Layout, owned_grid
from smac.codegen.triton_tiles import Frame, Ix, Scope, Tensor
from smac.ir import SEG, Join

#: Numbers of a state that a program owns.
_BLOCK = "512"


def join(j: Join, name: str, layout: Layout, known: dict[str, Tensor], lanes: int) -> Launch:
    """The kernel of `j`; states are owned by batch entry, head and lane, and cut in blocks."""
    owned = ["H", *(a for a in reversed(layout.batch) if a in known[j.states].axes)]
    fixed = {a: Ix(f"at_{a}", fixed=True) for a in ("R", *owned)}
    n_p = "(n_P + 1)" if j.tail else "n_P"
    block = ("i_block", f"tl.cdiv(n_N * {n_p}, BLOCK)", f"triton.cdiv(n_N * {n_p}, {_BLOCK})")
    lane = ("at_R", str(lanes), str(lanes))
    d = Draft(name, "States that enter the segments.", Scope(fixed, layout.groups, known), {},
              [block, lane, *owned_grid(owned)],
              {"BLOCK": _BLOCK, "SPAN": str(j.segment), "ACC": "TYPES[acc]"})  # fmt: skip
    state: Frame = {"N": Ix("o_n", 0), "P": Ix("o_p", 0)}
    at: Frame = {SEG: Ix("i_segment")}

    def pointer(tensor: str | None, frame: Frame) -> str | None:
        return None if tensor is None else d.scope.address(tensor, frame, 1)[0]

    return d.finish("join", {
        "states": pointer(j.states, {**state, **at}), "span": pointer(j.spans, at), "n_p": n_p,
        "initial": pointer(j.initial, state), "final": pointer(j.final, state),
        "reverse": j.reverse,
    })  # fmt: skip
