"""Context of the kernel that makes prefix sums of a log decay, for sums over ranges of tokens.

Non-goals: sums that start again with each chunk (triton_rows.py).
"""

from __future__ import annotations

from smac.codegen.print_triton import real
from smac.codegen.triton_kernel import Draft, Launch, Layout, owned_grid
from smac.codegen.triton_pointwise import row_and_column
from smac.codegen.triton_tiles import Frame, Ix, Scope, Tensor
from smac.expr import Expr

#: Tokens of a block: along T alone, and beside channels.
ROWS, ROWS_OF_CHANNELS = 256, 32


def prefix(name: str, layout: Layout, known: dict[str, Tensor], log_decay: Expr,
           axes: tuple[str, ...], sums: str, counts: str) -> Launch:  # fmt: skip
    """The kernel for `log_decay` over `axes` (T among them): `sums` and `counts` of all tokens
    before i = 0 … T."""
    _, col = row_and_column(axes)
    owned = [a for a in reversed(axes) if a not in ("T", col)]
    fixed = {a: Ix(f"at_{a}", fixed=True) for a in owned}
    if "H" in owned:
        fixed |= {g: Ix(f"at_{g}", fixed=True) for g in layout.groups}
    d = Draft(name, "Prefix sums of a log decay.", Scope(fixed, layout.groups, known), {},
              owned_grid(owned),
              {"BR": str(ROWS_OF_CHANNELS if col else ROWS)})  # fmt: skip
    d.constants |= {"DC": f"pad(n_{col})"} if col else {}
    d.constants["ACC"] = "TYPES[acc]"
    rank = 2 if col else 1
    channel: Frame = {col: Ix("o_c", rank - 1, "m_c", 0, "DC")} if col else {}
    log = d.scope.text(log_decay, {**channel, "T": Ix("o_r", 0, "m_r", 1, "BR")}, rank, {})

    def at(tensor: str, t: Ix) -> str:
        return d.scope.address(tensor, {**channel, "T": t}, rank if t.dim == 0 else 1)[0]

    first, behind = Ix("0"), Ix("(o_r + 1)", 0)
    return d.finish("prefix", {
        "col": col, "log": real(log), "mask": "m_r[:, None] & m_c[None, :]" if col else "m_r",
        "first_sum": at(sums, first), "first_count": at(counts, first),
        "sums": at(sums, behind), "counts": at(counts, behind),
    })  # fmt: skip
