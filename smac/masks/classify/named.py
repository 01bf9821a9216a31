"""Names of structures: of masks that were found, and of kernels that the algebra has no mask for.

Non-goals: finding them (separate.py), realising them.
"""

from __future__ import annotations

from smac.expr import S_POS, T_POS, At, Call, Expr, Size, walk
from smac.terms import MaskTerm


def structure(term: MaskTerm, rank: int | None, full: bool = False) -> str:
    """A few words for a mask that was found; `full`: the diagonal does not part it."""
    used = _functions(term)
    words = []
    if "toeplitz" in used:
        words.append("Toeplitz" if rank is not None else "Toeplitz, no finite rank")
    if "circulant" in used:
        words.append("circulant, no finite rank")
    if "level" in used:
        words.append("Fenwick levels")
    if "fourier" in used:
        words.append("Fourier")
    if "dense" in used:
        words.append("dense")
    if "window" in used or ("shift" in used and "semiseparable" not in used):
        words.append("banded")
    if "document" in used:
        words.append("documents")
    if rank is not None and full:
        words.append(f"low-rank, rank {rank}")
    elif rank is not None:
        words.append("diagonal" if used == {"diagonal"} else f"semiseparable, rank {rank}")
    return "; ".join(words) or "masked"


def _functions(term: MaskTerm) -> set[str]:
    inner = [a for a in term.args if isinstance(a, MaskTerm)]
    return {term.fn}.union(*(_functions(a) for a in inner))


def name(formula: Expr) -> str:
    """The name of a kernel that is known but has no mask here, or "unknown"."""
    for e in walk(formula):
        match e:
            case Call("bit_length", (Call("xor", (a, b)),)) if {a, b} == {T_POS, S_POS}:
                return "Fenwick (levels of a binary counter; rank ceil(log2 T) + 1)"
            case At(_, (Call("mod", (_, Size("T"))),)):
                return "circulant (T log T by FFT; no finite rank)"
    return "unknown"
