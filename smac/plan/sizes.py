"""Completing the sizes of a request: what the caller gave, then [sizes], then what follows.

Non-goals: no tensors (the op reads their shapes), no mask laws beyond the symbol's lag axis.
"""

from __future__ import annotations

from collections.abc import Mapping

from smac.errors import PlanError
from smac.levels import expand, planned_levels
from smac.masks import build
from smac.masks.base import MIDDLE, Mask
from smac.spec import Spec

LARGEST = 2**40


def at_sizes(
    spec: Spec, given: Mapping[str, int]
) -> tuple[Spec, Mask, tuple[tuple[str, int], ...]]:
    """`spec` (specialised) expanded for as many levels as T has, its mask, and every axis' length.

    Raises PlanError as `complete_sizes`."""
    T = given.get("T", dict(spec.sizes).get("T", 0))
    known = spec.levels is not None and isinstance(T, int) and 0 <= T <= LARGEST
    special = expand(spec, planned_levels(spec, given, T) if known else 1).spec
    mask = build(special.contraction.L, special)
    return special, mask, complete_sizes(spec, special, mask, given)


def at_levels(spec: Spec, names: frozenset[str], sizes: Mapping[str, int]) -> frozenset[str]:
    """Inputs of `spec` (specialised) and, of those with an axis of levels, what they become once
    it is expanded."""
    if spec.levels is None:
        return names
    parts = expand(spec, planned_levels(spec, sizes, sizes["T"])).parts
    return names | frozenset(part for n in names for part in parts.get(n, ()))


def complete_sizes(
    spec: Spec, special: Spec, mask: Mask, given: Mapping[str, int]
) -> tuple[tuple[str, int], ...]:
    """Every axis of `spec` with its length, in canonical order; `special` and `mask` are what it is
    without an axis of levels.

    Batch and group axes default to 1, H, N and P to 1 where no input carries them, S to T, W to the
    lags of T, an axis of levels to those of T. Raises PlanError for unknown axes, impossible
    lengths, and sizes that are missing.
    """
    groups, batch = spec.groups, spec.batch
    order = spec.scope.axes
    for axis, n in given.items():
        _check(spec, axis, n, order, least=0 if axis in ("T", "S", "W", *batch) else 1)
    sizes = {**dict(spec.sizes), **given}
    carried = {axis for i in spec.inputs for axis in i.axes}
    if carried & set(groups):
        carried.add("H")
    for axis in (*batch, *groups, *({"H", "N", "P"} - carried)):
        sizes.setdefault(axis, 1)
    needed = [a for a in ("T", "H", "N", "P") if a not in sizes]
    if needed:
        raise PlanError(f"{spec.name}: sizes are missing: {', '.join(needed)}; "
                        f"give them, as in {needed[0]}=64, or in the spec's [sizes]")  # fmt: skip
    _positions(special, mask, sizes, given)
    if spec.levels is not None:
        sizes[spec.levels] = planned_levels(spec, sizes, sizes["T"])
    for g in groups:
        if sizes["H"] % sizes[g]:
            found = f"found H = {sizes['H']} and {g} = {sizes[g]}"
            raise PlanError(f"{spec.name}: {found}; expected a multiple of {sizes[g]} heads, "
                            f"since {g} groups H")  # fmt: skip
    return tuple((a, sizes[a]) for a in order if a in sizes)


def _check(spec: Spec, axis: str, n: object, known: tuple[str, ...], least: int) -> None:
    if axis not in known:
        raise PlanError(f"{spec.name}: found a size for '{axis}'; expected axes among "
                        f"{', '.join(known)}")  # fmt: skip
    if isinstance(n, bool) or not isinstance(n, int) or not least <= n <= LARGEST:
        raise PlanError(f"{spec.name}: found {axis} = {n!r}; "
                        f"expected a whole number from {least} to 2**40")  # fmt: skip


def _positions(spec: Spec, mask: Mask, sizes: dict[str, int], given: Mapping[str, int]) -> None:
    """Set S and W, which follow from T unless the caller gave them."""
    T = sizes["T"]
    if sizes.setdefault("S", T) != T:
        if "S" in given:
            raise PlanError(f"{spec.name}: found S = {sizes['S']}, T = {T}; "
                            "expected S = T (version 1 has no cross-attention)")  # fmt: skip
        sizes["S"] = T
    lags = [i.axes for i in spec.inputs] + [spec.scope.carried(e) for e in mask.parameters()]
    if not any("W" in axes for axes in lags):
        sizes.pop("W", None)
        return
    symbol = mask.symbol()
    bidirectional = symbol is not None and symbol[1] == MIDDLE
    due = max(2 * T - 1, 0) if bidirectional else T
    if "W" not in given:
        sizes["W"] = due
    elif sizes["W"] < due or (bidirectional and sizes["W"] != due):
        raise PlanError(f"{spec.name}: found W = {sizes['W']} at T = {T}; expected "
                        f"{'2T - 1 =' if bidirectional else 'at least'} {due} lags")  # fmt: skip
