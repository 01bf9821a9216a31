"""An op whose approx(…) masks were fitted once: to a length, and to the values of tensors.

Gradients do not reach a fitted tensor, and a tensor that changed must be fitted again: both are
errors in words, for a stale fit would be a wrong number.

Non-goals: the fit (smac/certified).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smac.certified.refit import Fitted, needs, refit
from smac.errors import LaunchError, PlanError
from smac.runtime.launch import Launcher
from smac.runtime.op import Op
from smac.spec import specialise

if TYPE_CHECKING:
    from pathlib import Path

    from smac.plan.types import Plan


def refitted(op: Op, T: int | None, inputs: Mapping[str, Any]) -> Refitted:
    """`op` fitted to `inputs`, for up to T tokens (default: the lags given, else [sizes])."""
    name, due = op.spec.name, needs(op.spec)
    axes = {i.name: i.axes for i in op.spec.inputs}
    for n in inputs:
        if n not in due:
            raise PlanError(f"{name}: refit: no fit depends on '{n}'; expected "
                            f"{', '.join(due) or 'T alone'}")  # fmt: skip
    for n in due:
        x = inputs.get(n)
        if not isinstance(x, Tensor) or x.dim() != len(axes[n]):
            raise PlanError(f"{name}: refit: '{n}': expected a tensor with axes "
                            f"{' '.join(axes[n])}, found {_shown(x)}")  # fmt: skip
    held: dict[str, Tensor] = {n: inputs[n] for n in due}
    if T is None:
        lags = [x.shape[axes[n].index("W")] for n, x in held.items() if "W" in axes[n]]
        T = min(lags) if lags else dict(op.spec.sizes).get("T")
    if not isinstance(T, int) or isinstance(T, bool) or not 1 <= T <= 2**20:
        raise PlanError(f"{name}: refit: T: found {T!r}; expected a whole number from 1 to 2**20, "
                        "the longest sequence to fit for")  # fmt: skip
    arrays = {n: x.detach().double().cpu().numpy() for n, x in held.items()}
    return Refitted(op, refit(op.spec, T, arrays), held)


def _shown(x: object) -> str:
    return f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__


class Refitted(Op):
    """`outer` with its fits made: called with the same inputs; fitted ones may be left out."""

    def __init__(self, outer: Op, made: Fitted, held: Mapping[str, Tensor]) -> None:
        super().__init__(made.spec, outer.options)
        self.outer, self.made = outer, made
        self.held = dict(held)
        self._versions = {n: x._version for n, x in held.items()}
        self._bound: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}

    def _bind(self, args: tuple[Any, ...], inputs: Mapping[str, Any]) -> tuple[Any, ...]:
        outer = self.outer
        given = dict(zip(outer._names, outer._signature.bind(args, inputs), strict=True))
        for n in self.held:
            self._same(n, given[n])
        ours = self._tensors(given)
        return tuple(ours[n] if n in ours else given[n] for n in self._names)

    def _same(self, name: str, x: object) -> None:
        """The tensor is the one fitted, unchanged; LaunchError otherwise."""
        was, again = self.held[name], f"call op.refit({name}=…) on the original op again"
        if isinstance(x, Tensor) and x.requires_grad:
            raise LaunchError(f"{self.spec.name}: {name}: no gradient reaches it through "
                              f"approx(…), whose coefficients are constants; pass "
                              f"{name}.detach(), or train it without approx(…)")  # fmt: skip
        same = isinstance(x, Tensor) and x.shape == was.shape and x.stride() == was.stride() and (
            x.data_ptr() == was.data_ptr())  # fmt: skip
        if x is not None and not same:
            raise LaunchError(f"{self.spec.name}: {name}: found another tensor than the one that "
                              f"was fitted; {again}, or leave it out")  # fmt: skip
        if was._version != self._versions[name]:
            raise LaunchError(f"{self.spec.name}: {name}: found other values than those that were "
                              f"fitted; {again}")  # fmt: skip

    def _tensors(self, given: Mapping[str, Any]) -> dict[str, Tensor]:
        """The fit's numbers where the inputs are, in float64 beside float64 and float32 else."""
        floats = [x for x in given.values() if isinstance(x, Tensor) and x.is_floating_point()]
        if not floats:
            return {n: torch.from_numpy(a) for n, a in self.made.tensors.items()}
        x = next((x for x in floats if x.dtype == torch.float64), floats[0])
        key = x.device, torch.float64 if x.dtype == torch.float64 else torch.float32
        if key not in self._bound:
            self._bound[key] = {n: torch.from_numpy(a).to(*key)
                                for n, a in self.made.tensors.items()}  # fmt: skip
        return self._bound[key]

    def _find(self, values: tuple[Any, ...], state: bool, step: bool,
              cu_seqlens: Any = None) -> Launcher:  # fmt: skip
        found = super()._find(values, state, step, cu_seqlens)
        self._fits(found.cell.sizes.get("T", 0))
        return found

    def _fits(self, T: int) -> None:
        if not (most := self.made.horizon) >= T:
            raise PlanError(f"{self.spec.name}: found T = {T}; this op was fitted for at most "
                            f"{most} tokens; call refit(T=…) on the original "
                            "op")  # fmt: skip

    def _plan(self, sizes: Mapping[str, int], dtype: str | torch.dtype | None,
              device: str | torch.device | None, backward: bool, state: bool,
              absent: tuple[str, ...], sequences: int = 0,
              frozen: tuple[str, ...] = ()) -> Plan:  # fmt: skip
        own = {a: n for a, n in sizes.items() if a != "W"}
        if "T" not in own:
            own["T"] = min(dict(self.spec.sizes).get("T", self.made.horizon), self.made.horizon)
        self._fits(own["T"])
        plan = super()._plan(own, dtype, device, backward, state, absent, sequences, frozen)
        return replace(plan, fits=self.made.fits,
                       asked=specialise(self.outer.spec, frozenset(absent)))  # fmt: skip

    def reference(self, *args: Any, **options: Any) -> Any:
        """The oracle's answer with the exact mask of the tensors that were fitted."""
        names, values = self.outer._names, dict(zip(self.outer._names, args, strict=False))
        given = {**values, **options}
        double = any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in given.values())
        missing = {n: x if double else x.float() for n, x in self.held.items()
                   if n in names and given.get(n) is None}  # fmt: skip
        return self.outer.reference(**{**values, **options, **missing})

    def export(self, path: str | Path, **options: Any) -> Path:
        """As `Op.export`; PlanError where the fit's numbers are tensors."""
        if self.made.tensors:
            raise PlanError(f"{self.spec.name}: export: its fit is by head, and a file holds no "
                            "tensors; export the original op in the quadratic order")  # fmt: skip
        return super().export(path, **options)

    def refit(self, *, T: int | None = None, **inputs: Any) -> Op:
        """The original op, fitted anew."""
        return self.outer.refit(T=T, **inputs)

    def __repr__(self) -> str:
        head, *rest = repr(self.outer).splitlines()
        return "\n".join([f"{head} (fitted for T ≤ {self.made.horizon})", *rest])

    def __reduce__(self) -> tuple[Any, ...]:
        return refitted, (self.outer, self.made.horizon, self.held)
