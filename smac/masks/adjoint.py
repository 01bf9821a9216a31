"""The adjoint law, derived: ⟨dL, ∂L/∂θ⟩ by differentiating the entry with respect to its atoms.

An atom is a distinct `At` or `Between` with a floating base, or a `Name` outside of them. Each
gives one `Cotangent`: its weight is ∂entry/∂atom with the atom as a symbol, its pattern follows
from how the atom is indexed. Bases stay whole (delta * A); the chain rule through them belongs to
lowering.

Non-goals: no gradient of integers (ids, positions), no code for gathers.
"""

from __future__ import annotations

from smac.errors import PlanError
from smac.expr import SCAN_FUNCTIONS, ZERO, At, Between, Call, Expr, Name, children, names, walk
from smac.masks.band import Form, form
from smac.masks.base import Cotangent, Mask
from smac.show import show

Atom = At | Between | Name


def parameters(entry: Expr) -> tuple[Expr, ...]:
    """The distinct bases of an entry, in order of appearance."""
    found: dict[Expr, None] = {}
    for atom in _atoms(entry):
        found.setdefault(atom if isinstance(atom, Name) else atom.base)
    return tuple(found)


def adjoint(mask: Mask) -> tuple[Cotangent, ...]:
    """One term for each atom that the entry is not flat in; PlanError where one has no pattern."""
    why = why_no_adjoint(mask)
    if why is not None:
        raise PlanError(f"mask '{mask}' has no adjoint ({why})")
    from smac.derive import diff, simplify

    entry = mask.entry()
    terms = []
    for atom in _atoms(entry):
        weight = ZERO if _flat(atom) else simplify(diff(entry, atom))
        if weight == ZERO:
            continue
        pattern = _pattern(atom)
        assert pattern is not None  # why_no_adjoint asked
        base, index = (atom, ()) if isinstance(atom, Name) else (atom.base, children(atom)[1:])
        terms.append(Cotangent(pattern, base, weight, index))
    return tuple(terms)


def why_no_adjoint(mask: Mask) -> str | None:
    """The atom whose index has no gather pattern, or None."""
    for atom in _atoms(mask.entry()):
        if not _flat(atom) and _pattern(atom) is None:
            return f"no gather pattern for {show(atom)}"
    return None


def _atoms(entry: Expr) -> tuple[Atom, ...]:
    """The distinct atoms, in order of appearance; names inside a base are not atoms."""
    found: dict[Atom, None] = {}

    def visit(e: Expr) -> None:
        if isinstance(e, At | Between | Name):
            found.setdefault(e)
            return
        for c in children(e):
            visit(c)

    visit(entry)
    return tuple(found)


def _flat(atom: Atom) -> bool:
    """Reads no input, or integers made from ids: nothing flows back."""
    if isinstance(atom, Name):
        return False
    scans = any(isinstance(e, Call) and e.fn in SCAN_FUNCTIONS for e in walk(atom.base))
    return scans or not names(atom.base)


def _pattern(atom: Atom) -> str | None:
    """The gather that belongs to how the atom is indexed."""
    match atom:
        case Name():
            return "all"
        case Between(_, low, high):
            ends = {_kind(form(low)), _kind(form(high))}
            return "cut" if ends == {"row", "col"} else None
        case At(_, (one,)):
            return _kind(form(one))
        case At(_, (one, two)):
            ends = {_kind(form(one)), _kind(form(two))}
            return "entry" if ends == {"row", "col"} else None
        case _:
            return None


def _kind(f: Form | None) -> str | None:
    """Row, col or lag, by the coefficients of t and s."""
    if f is None:
        return None
    if (f.t, f.s) in ((1, 0), (0, 1)):
        return None if f.sizes else ("row" if f.t else "col")
    if (f.t, f.s) in ((-1, 0), (0, -1)):  # time backwards
        return ("row" if f.t else "col") if f.sizes == (("T", 1),) else None
    return "lag" if (f.t, f.s) in ((1, -1), (-1, 1)) else None
