"""Contexts of pointwise kernels: expressions over tensors, stored, or summed over a tile's columns.

Non-goals: no other sums (the wrapper's), no masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from smac.codegen.print_triton import real
from smac.codegen.triton_kernel import Draft, Launch, Layout, StoreText
from smac.codegen.triton_tiles import Frame, Ix, Scope, Tensor
from smac.expr import Expr
from smac.ir import Value

ROWS = 32


@dataclass(frozen=True, slots=True)
class PointStore:
    """`expr` into `tensor`, which has the kernel's axes, or lacks its columns: then their sum."""

    tensor: str
    expr: Expr


def row_and_column(axes: tuple[str, ...]) -> tuple[str | None, str | None]:
    """The axes that a tile's rows and columns run along; the others are one a program."""
    row = next((a for a in ("T", "W") if a in axes), None)
    return row, next((a for a in ("P", "N") if a in axes), None)


def pointwise(name: str, layout: Layout, known: dict[str, Tensor], values: Mapping[str, Value],
              axes: tuple[str, ...], stores: list[PointStore]) -> Launch:  # fmt: skip
    """One kernel for `stores`, all over `axes`."""
    row, col = row_and_column(axes)
    owned = [a for a in reversed(axes) if a not in (row, col)]
    fixed = {a: Ix(f"at_{a}", fixed=True) for a in owned}
    if "H" in owned:
        fixed |= {g: Ix(f"at_{g}", fixed=True) for g in layout.groups}
    grid = [("i_r", f"tl.cdiv(n_{row}, BR)", f"triton.cdiv(n_{row}, {ROWS})")] if row else []
    grid += [(f"at_{a}", _count(a), _count(a)) for a in owned]
    scope = Scope(fixed, layout.groups, known)
    d = Draft(name, "Pointwise.", scope, values, grid, {})
    d.constants = {"BR": str(ROWS)} if row else {}
    d.constants |= {"DC": f"pad(n_{col})"} if col else {}
    d.constants["ACC"] = "TYPES[acc]"
    rank = (row is not None) + (col is not None)
    frame: Frame = {}
    if row:
        frame = {row: Ix("o_r", 0, "m_r", 0, "BR")}
    if col:
        frame = {**frame, col: Ix("o_c", rank - 1, "m_c", 0, "DC")}
    texts = [_store(d, s, frame, rank, row, col) for s in stores]
    return d.finish("pointwise", {"row": row, "col": col, "stores": texts})


def _count(axis: str) -> str:
    return "n_T" if axis == "S" else f"n_{axis}"


def _store(d: Draft, s: PointStore, frame: Frame, rank: int, row: str | None,
           col: str | None) -> StoreText:  # fmt: skip
    if col is None or col in d.scope.known[s.tensor].axes:
        return d.store(s.tensor, s.expr, frame, rank)
    value = real(d.show(s.expr, frame, rank))
    mask = "m_r[:, None] & m_c[None, :]" if row else "m_c"
    total = f"tl.sum(tl.where({mask}, {value}, 0.0), {rank - 1})"
    pointer, where = d.scope.address(s.tensor, {a: x for a, x in frame.items() if a != col}, 1)
    return StoreText(pointer, total, where)
