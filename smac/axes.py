"""Which axes an expression carries.

Axes: the batch axes (B and those declared), T (sequence), S (= T, columns of a dense mask),
W (lag), H (heads), groups of H, N (state), P (value), and where one is declared the levels of T.
That is the canonical order.

Non-goals: sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from smac.expr import At, Between, Expr, Index, Name, children
from smac.terms import Axis, Contraction, Input, MaskTerm

#: Axes that every spec has unasked.
KNOWN = ("B", "T", "S", "W", "H", "N", "P")
#: Axes along the sequence: a mask consumes them.
POSITIONS = frozenset({"T", "S", "W"})
#: The axis of states that counts packed sequences, in the place of B.
SEQ = "SEQ"
#: Segments of T that are walked side by side, where programs allow for it.
SEG = "SEG"
#: Tiles of N that programs of one kernel take side by side.
TILE = "TILE"


@dataclass(frozen=True, slots=True)
class Scope:
    """Axes by name (inputs, lets, Y, Z), and the order they are listed in."""

    batch: tuple[str, ...]
    groups: tuple[str, ...]
    of_name: Mapping[str, frozenset[str]]
    levels: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[str, ...]:
        """Every axis that this spec knows, in canonical order."""
        return (*self.batch, "T", "S", "W", "H", *self.groups, "N", "P", *self.levels)

    @property
    def consumed(self) -> frozenset[str]:
        """Axes that a mask has used up: those along the sequence, and its levels."""
        return POSITIONS | set(self.levels)

    def of(self, e: Expr | MaskTerm) -> tuple[str, ...]:
        """Axes of `e` in canonical order; for a mask term, those beside its T and S.

        H takes the place of a group beside it, and of two different groups.
        Raises KeyError for a name that the spec does not have.
        """
        return self.order(self.carried(e))

    def order(self, axes: Iterable[str]) -> tuple[str, ...]:
        """`axes` in canonical order, groups merged into H where needed."""
        found = set(axes)
        groups = found & set(self.groups)
        if "H" in found or len(groups) > 1:
            found = (found - groups) | {"H"}
        return tuple(a for a in self.axes if a in found)

    def carried(self, e: Expr | MaskTerm) -> frozenset[str]:
        """Axes of `e` as a set, groups as they are."""
        match e:
            case Name(id):
                return self.of_name[id]
            case Index(axis):
                return frozenset({axis})
            case At(base, _) | Between(base, _, _):
                return self.carried(base) - self.consumed
            case MaskTerm(_, args):
                parts = [a for a in args if not isinstance(a, str | bool)]
                return union(self.carried(a) for a in parts) - self.consumed
            case _:
                return union(self.carried(c) for c in children(e))


def union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    """The union of any number of sets."""
    return frozenset().union(*sets)


def scope_of(
    axes: tuple[Axis, ...],
    inputs: tuple[Input, ...],
    let: tuple[tuple[str, Expr], ...] = (),
    contraction: Contraction | None = None,
) -> Scope:
    """The scope of a spec's names; `let` in dependency order. With `contraction`, Y and Z too."""
    names = {i.name: frozenset(i.axes) for i in inputs}
    scope = Scope(
        ("B", *(a.name for a in axes if a.kind == "batch")),
        tuple(a.name for a in axes if a.kind == "group"),
        names,
        tuple(a.name for a in axes if a.kind == "levels"),
    )
    for name, e in let:
        names[name] = scope.carried(e)
    if contraction is not None:
        c = contraction
        parts = union(scope.carried(e) for e in (c.Q, c.K, c.V, c.L)) | {"T"}
        names["Y"] = parts - {"N", "S", "W"}
        # Z is the contraction with V = 1: P stays only where the mask carries it.
        without_v = union(scope.carried(e) for e in (c.Q, c.K, c.L)) | {"T"}
        names["Z"] = without_v - {"N", "S", "W"}
    return scope
