"""Which specs know how far from the start of its sequence a token is, and where a call starts.

Non-goals: the positions themselves (`Scope.index`), packed sequences (each starts at 0).
"""

from __future__ import annotations

from smac.errors import LaunchError
from smac.expr import Given, Index, Name, Num, children
from smac.reference.dense import Arg
from smac.reference.oracle import Inputs, needs_z
from smac.reference.states import State, document_ids
from smac.spec import Spec
from smac.terms import MaskTerm


def reads_position(spec: Spec, present: frozenset[str]) -> bool:
    """Whether an operand, an output or a lane of the mask reads `index(T)`."""
    c, lets = spec.contraction, dict(spec.let)

    def reads(arg: Arg) -> bool:
        match arg:
            case MaskTerm("wave" | "level", (Num(0), *_)) | str() | int() | float():
                return False
            case MaskTerm("wave" | "level" | "fenwick" | "lag", _):
                return True
            case MaskTerm("given", (name, yes, no)) | Given(name, yes, no):
                return reads(yes if name in present else no)
            case MaskTerm(_, args):
                return any(map(reads, args))
            case Index(axis):
                return axis == "T"
            case Name(name):
                return name in lets and reads(lets[name])
        return any(map(reads, children(arg)))

    return any(map(reads, (c.Q, c.K, c.V, c.L, *(e for _, e in spec.output))))


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
