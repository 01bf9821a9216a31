"""Which specs know how far from the start of its sequence a token is, and where a call starts.

Non-goals: the positions themselves (`Scope.index`), packed sequences (each starts at 0).
"""

from __future__ import annotations

from smac.errors import LaunchError
from smac.expr import Index, Num, walk
from smac.reference.dense import Arg
from smac.reference.oracle import Inputs, needs_z
from smac.reference.states import State, document_ids
from smac.spec import Spec
from smac.terms import MaskTerm


def reads_position(spec: Spec, present: frozenset[str]) -> bool:
    """Whether an operand, an output or a lane of the mask reads `index(T)`."""
    c = spec.contraction
    exprs = [c.Q, c.K, c.V, *(e for _, e in spec.output), *(e for _, e in spec.let)]
    return any(_of(e, present) for e in (*exprs, c.L))


def _of(arg: Arg, present: frozenset[str]) -> bool:
    if isinstance(arg, str | bool | int | float):
        return False
    if not isinstance(arg, MaskTerm):
        return any(isinstance(e, Index) and e.axis == "T" for e in walk(arg))
    match arg.fn:
        case "wave" | "lag":
            return True
        case "level":
            return arg.args[0] != Num(0)
        case "given":
            return _of(arg.args[1] if arg.args[0] in present else arg.args[2], present)
    return any(_of(a, present) for a in arg.args)


def first_position(spec: Spec, inputs: Inputs, given: State | None) -> int:
    """Tokens before the first of a call. LaunchError where a state that must say so does not."""
    if given is None:
        return 0
    if given.pos is not None:
        return int(given.pos)
    present = frozenset(n for n, x in inputs.items() if x is not None)
    if not reads_position(spec, present):
        return 0
    due = ("S", *(["z"] if needs_z(spec) else []),
           *(["last"] if document_ids(spec.contraction.L) is not None else []), "pos")  # fmt: skip
    raise LaunchError(f"initial_state.pos is missing; this spec needs {', '.join(due)}")
