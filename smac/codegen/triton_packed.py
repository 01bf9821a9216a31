"""Packed sequences on Triton: a program finds its sequence in cu_seqlens and calls its length n_T.

Programs that sweep own a sequence where others own a batch entry. Programs that own a piece of T (a
chunk, a row of tiles) own a slot: sequence i has its pieces from slot start // C + i on, one slot
behind them may stay empty, and T // C + n slots are enough for any lengths. Tensors over chunks
are indexed by slots, so that the host needs to know no length.

Non-goals: pointwise kernels (they know no sequences), checks of cu_seqlens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from smac.ir import SEQ

#: The tensor of starts and ends, and its one axis.
LENGTHS, ENDS = "cu_seqlens", "ENDS"
#: What grids call the piece of T that a program owns.
PIECES = ("i_chunk", "i_rows", "i_row", "i_own")

Grid = list[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Packed:
    """How a kernel finds its sequence: `piece` is the index of what it owns of it (None: all of
    it), of `tokens` tokens; `unit` the constant that holds a slot's tokens, where slots are spoken
    of; `inside`: the kernel goes over all sequences in a loop of its own."""

    piece: str | None
    unit: str | None
    inside: bool = False
    tokens: str | None = None


def packed_grid(grid: Grid, constants: Mapping[str, str],
                inside: bool) -> tuple[Grid, Packed, dict[str, str]]:  # fmt: skip
    """The grid over sequences or slots, how a program finds its own, and scalars for that."""
    unit = next((u for u in ("R", "C", "SEGMENT") if u in constants), None)
    if inside:
        return grid, Packed(None, None, True), {}
    piece = next((i for i, _, _ in grid if i in PIECES), None)
    if piece is None:
        return [*grid, (f"at_{SEQ}", f"n_{SEQ}", f"n_{SEQ}")], Packed(None, unit), {}
    tokens = "ROWS" if "ROWS" in constants else unit
    assert tokens is not None
    slots = slots_of(constants[tokens])
    made = [("i_slot", "slots", slots) if i == piece else (i, a, b) for i, a, b in grid]
    return made, Packed(piece, unit, tokens=tokens), {"slots": slots}


def slots_of(rows: str) -> str:
    """How many slots hold the pieces of `rows` tokens of all sequences, as the wrapper's text."""
    return f"(n_T // {rows} + n_{SEQ})"


def offsets(axes: tuple[str, ...], tensor: str) -> list[str]:
    """What moves a tensor's pointer to a sequence: its first token, its first slot."""
    return [f"{start} * s_{tensor}_{a}" for a in axes
            for start in [{"T": "first_token", "S": "first_token", "C": "first_slot"}.get(a)]
            if start is not None]  # fmt: skip
