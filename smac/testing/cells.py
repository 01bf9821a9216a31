"""Cells: what one run of a property test fixes, and the strategies that draw them.

Non-goals: no tensors (`inputs.py`), no properties (`properties.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from smac.levels import levels_of
from smac.masks.classify import resolve
from smac.spec import Spec
from smac.terms import MaskTerm

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

LAYOUTS = ("contiguous", "strided", "permuted", "expanded")
#: Tokens that an initial state has seen.
BEFORE = 3
#: Properties beside values and gradients; "all" runs every one.
EXTRAS = ("none", "repeat", "causal", "linear", "split", "step", "packed", "all")


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: where, on what sizes, with which inputs, laid out how.

    `state`: an initial state is passed and the final one compared. `special`: log decays hold −inf,
    −50, 0 and values above 0. `mixed`: inputs without T are float32 beside a 16-bit operand type.
    `frozen`: inputs that take no gradient.
    """

    target: str
    order: str
    dtype: str
    sizes: tuple[tuple[str, int], ...]
    absent: tuple[str, ...] = ()
    layout: str = "contiguous"
    chunk: int | None = None
    state: bool = False
    special: bool = False
    mixed: bool = True
    extra: str = "none"
    seed: int = 0
    frozen: tuple[str, ...] = ()

    def size(self, axis: str) -> int:
        """The length of `axis`."""
        return dict(self.sizes)[axis]

    def __str__(self) -> str:
        """Only what differs from the defaults, on one line."""
        sizes = " ".join(f"{a}={n}" for a, n in self.sizes)
        tail = [f"{f.name}={getattr(self, f.name)}" for f in fields(self)[4:]
                if getattr(self, f.name) != f.default]  # fmt: skip
        return " ".join([self.target, self.order, self.dtype, sizes, *tail])

    def literal(self) -> str:
        """Python that builds this cell again."""
        parts = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self)]
        return f"Cell({', '.join(parts)})"


def axes_needed(spec: Spec) -> tuple[str, ...]:
    """Axes whose sizes a call fixes; W, S and levels are left out: they follow from T."""
    found = {a for i in spec.inputs for a in i.axes} - {"W", "S", spec.levels}
    if found & set(spec.groups):
        found.add("H")
    return tuple(sorted(found))


def complete(spec: Spec, sizes: dict[str, int]) -> tuple[tuple[str, int], ...]:
    """`sizes` with W: T for a causal lag axis, 2T − 1 for one with lag 0 in the middle; and with as
    many levels as T tokens have behind an initial state's."""
    if spec.levels is not None:
        sizes = {**sizes, spec.levels: levels_of(BEFORE + sizes["T"])}
    if any("W" in i.axes for i in spec.inputs):
        T = sizes["T"]
        both = _bidirectional(resolve(spec).contraction.L)
        sizes = {**sizes, "W": max(2 * T - 1, 0) if both else T}
    return tuple(sorted(sizes.items()))


def _bidirectional(term: MaskTerm) -> bool:
    if term.fn == "toeplitz":
        return bool(term.args[1])
    return any(_bidirectional(a) for a in term.args if isinstance(a, MaskTerm))


def ragged(chunk: int) -> int:
    """A T that crosses two chunk boundaries and leaves a tail."""
    return 2 * chunk + chunk // 2 + 1


def optional_inputs(spec: Spec) -> tuple[str, ...]:
    """Inputs that a call may leave out."""
    return tuple(i.name for i in spec.inputs if i.may_be_absent)


def first_cells(spec: Spec, target: str, order: str, dtype: str, chunk: int,
                state: bool, slow: bool = False) -> list[Cell]:  # fmt: skip
    """The cells that every run has: two boundaries and a tail, all inputs there and all away.

    `slow` (interpreted kernels): a batch of one, two heads, and two further properties, a split at
    a state and packed sequences (not where kernels go token by token).
    """
    usual = {"T": ragged(chunk), "N": 5, "P": 3, "B": 1 if slow else 2,
             "H": 2 if slow and not spec.groups else 4}  # fmt: skip
    small = {a: usual.get(a, 2) for a in axes_needed(spec)}
    made = [Cell(target, order, dtype, complete(spec, small), (), "strided", chunk, False, False,
                 True, ("split" if state else "packed") if slow else "all", 1)]  # fmt: skip
    if optional_inputs(spec) or state:
        made.append(Cell(target, order, dtype, complete(spec, {**small, "N": 17}),
                         optional_inputs(spec), "contiguous", chunk, state, True,
                         True, "packed" if slow and order != "linear" else "none", 2))  # fmt: skip
    empty = {**small, "T": 0}
    made.append(Cell(target, order, dtype, complete(spec, empty), (), "contiguous", chunk, state))
    return made


def cells(spec: Spec, target: str, order: str, dtype: str, chunk: int, state: bool,
          slow: bool = False) -> SearchStrategy[Cell]:  # fmt: skip
    """Cells of one (target, order, dtype); they shrink towards short, small and contiguous."""
    from hypothesis import strategies as st

    lengths = sorted({0, 1, 2, 3, 7, 13, chunk - 1, chunk, chunk + 1, 37, ragged(chunk),
                      3 * chunk - 1} if not slow else {1, 3, chunk - 1, chunk, chunk + 1,
                                                       ragged(chunk)})  # fmt: skip
    widths = (1, 2, 3, 5, 8, 16, 17)

    @st.composite
    def draw(pick: st.DrawFn) -> Cell:
        sizes: dict[str, int] = {}
        for axis in axes_needed(spec):
            if axis == "T":
                sizes[axis] = pick(st.sampled_from(lengths))
            elif axis in ("N", "P"):
                sizes[axis] = pick(st.sampled_from(widths[: 5 if slow else None]))
            elif axis not in ("H", *spec.groups):
                sizes[axis] = pick(st.integers(1, 2))
        for group in spec.groups:
            sizes[group] = pick(st.integers(1, 2))
        if "H" in axes_needed(spec):
            shared = 2 if any(sizes.get(g) == 2 for g in spec.groups) else 1
            sizes["H"] = shared * pick(st.integers(1, 2))
        absent = tuple(n for n in optional_inputs(spec) if pick(st.booleans()))
        names = [i.name for i in spec.inputs]
        frozen = tuple(n for n in names if pick(st.sampled_from((False, False, False, True))))
        return Cell(target, order, dtype, complete(spec, sizes), absent,
                    pick(st.sampled_from(LAYOUTS)), chunk, state and pick(st.booleans()),
                    pick(st.booleans()), pick(st.booleans()),
                    pick(st.sampled_from(EXTRAS[:-1])), pick(st.integers(0, 99)),
                    frozen if len(frozen) < len(names) else ())  # fmt: skip

    return draw()
