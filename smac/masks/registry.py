"""Masks by name: `register` gives a family its place in the mask language, `build` makes masks.

Non-goals: no parsing (syntax.py), no check of argument axes (axes.py does, by signature).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TypeVar

from smac.axes import Scope
from smac.errors import SpecError
from smac.masks.base import Mask
from smac.signatures import SIGNATURES, Param, register_signature
from smac.terms import MaskTerm

_FACTORIES: dict[str, Callable[..., Mask]] = {}
F = TypeVar("F", bound=Callable[..., Mask])


def register(name: str, params: tuple[Param, ...] | None = None) -> Callable[[F], F]:
    """Decorate a `Mask` class, or a function that answers masks, to make it `name(…)` in specs.

    `params` is its signature in the mask language, in the order of the class' fields; None where
    `smac.signatures` has it already. A mask argument arrives built. Registering a name again
    replaces what it makes (so that a module can be reloaded), never its signature.
    Raises ValueError when the name cannot be used or has another signature.
    """
    if params is not None:
        register_signature(name, params)
    elif name not in SIGNATURES and name not in _OPERATORS:
        raise ValueError(f"mask {name!r} has no signature yet: pass its params")

    def place(factory: F) -> F:
        if isinstance(factory, type) and issubclass(factory, Mask):
            factory.name = name
        _FACTORIES[name] = factory
        return factory

    return place


#: Terms that the parser makes of operators; they have no signature.
_OPERATORS = ("add", "mul", "scale")


def build(term: MaskTerm, spec: object = None) -> Mask:
    """The mask that a term of the mask language means, with its laws.

    `spec` is the `Spec` that the term belongs to: it is named in errors, and with its axes a
    formula is classified (classify/), so that entry("…") becomes the mask that it is.
    Raises SpecError for a function nobody registered and for a `given` not yet specialised.
    """
    scope = getattr(spec, "scope", None)
    if term.fn == "entry" and scope is not None:
        return _classified(term, spec, scope)
    factory = _FACTORIES.get(term.fn)
    if factory is None:
        raise SpecError(_unknown(term.fn, spec))
    return factory(*(build(a, spec) if isinstance(a, MaskTerm) else a for a in term.args))


def _classified(term: MaskTerm, spec: object, scope: Scope) -> Mask:
    """A formula as the mask that was found for it, or as itself with the reason."""
    from smac.masks.classify import classify
    from smac.masks.formula import Formula

    (formula,) = term.args
    assert not isinstance(formula, MaskTerm | str | bool)
    found = classify(formula, scope)
    if found.term is None:
        return Formula(formula, f"{found.structure}: {'; '.join(found.lines)}")
    return build(found.term, spec)


def _unknown(fn: str, spec: object) -> str:
    """What is wrong with a term that has no factory."""
    where = f"{name}: " if (name := getattr(spec, "name", "")) else ""
    if fn == "given":
        return f"{where}contraction.L: given(…) must be specialised before masks are built"
    near = difflib.get_close_matches(fn, _FACTORIES, 1)
    expected = ", ".join(sorted(_FACTORIES.keys() - set(_OPERATORS)))
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{where}contraction.L: unknown mask '{fn}'; expected one of {expected}{hint}"
