"""Op: a spec compiled, called like a function. `compile` makes one.

Non-goals: no planning, lowering or rendering of its own; each call only finds its launcher.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smac.parse import load
from smac.plan.devices import device_row
from smac.runtime import device as devices
from smac.runtime import module
from smac.runtime.build import launcher_for, layout_for, planned, prepared, sizes_for
from smac.runtime.first_use import FirstUse
from smac.runtime.launch import Launcher
from smac.runtime.library import text_of, traced
from smac.runtime.options import Options
from smac.runtime.packed import check_values
from smac.runtime.state import State, write
from smac.runtime.validate import Signature, check_levels, shown
from smac.spec import Spec

if TYPE_CHECKING:
    from smac.codegen import Source
    from smac.plan.types import Plan

#: Launchers that an op keeps; the oldest gives way.
CACHED = 1024


def compile(spec: str | Path | Spec, *, target: str = "auto", order: str = "auto",
            chunk: int | None = None, schedule: str = "auto", tune: str = "off",
            precision: str = "ieee") -> Op:  # fmt: skip
    """An op from a spec: the name of a shipped one, a path to a .toml, TOML text, or a `Spec`.

    `target`: "triton" or "torch"; "auto" goes by the tensors' device. `order`, `chunk` and
    `schedule` override the planner. `precision`: "ieee" or "tf32" for float32 products.
    `tune`: "quick" tries a handful of configurations, "full" some dozens, in a child process when
    a call has new sizes; what is found is remembered in the user's cache, and reported on stderr.
    Raises SpecError (the spec), PlanError (an option).
    """
    options = Options(target, order, chunk, schedule, tune, precision)
    return Op(spec if isinstance(spec, Spec) else load(spec), options)


class Op:
    """A compiled structured masked attention: differentiable, thread-safe, picklable.

    Calls go into a CUDA graph once one of the same kind was made outside, and into torch.compile
    as one custom op (library.py)."""

    def __init__(self, spec: Spec, options: Options) -> None:
        self.spec, self.options = spec, options
        self._signature = Signature.of(spec)
        self._names = self._signature.names
        self._known = frozenset(self._names)
        self._text = text_of(spec, options)
        self._launchers: dict[tuple[Any, ...], Launcher] = {}
        self._lock = threading.RLock()

    def __call__(self, *args: Any, initial_state: Any = None, return_state: bool = False,
                 cu_seqlens: Tensor | None = None, **inputs: Any) -> Any:  # fmt: skip
        """Outputs for inputs by name or in order (None = absent): a tensor, or a tuple of tensors.

        `initial_state`: a `State`, or a tensor S where that is all; `return_state` adds the last.
        Where the spec or its mask reads `index(T)`, a state's `pos` says where the call starts.
        `cu_seqlens`: int32 or int64 [n + 1], n sequences packed along T at B = 1: sequence i is at
        tokens cu_seqlens[i] … cu_seqlens[i + 1] − 1 and runs as if it were alone; states have n
        in the place of B. It starts with 0, ends with T and does not decrease, which is checked on
        the CPU alone: on a GPU nothing waits for its values.
        Raises LaunchError where an input does not fit, PlanError where the plan cannot be had.
        """
        if torch.compiler.is_compiling():
            return traced(self, self._signature.bind(args, inputs), initial_state, return_state,
                          cu_seqlens, False)  # fmt: skip
        return self._run(self._bind(args, inputs), initial_state, return_state, cu_seqlens, False)

    def step(self, state: Any, *args: Any, out_state: Any = None, **inputs: Any) -> Any:
        """One token: outputs without T, and the next state.

        `state`: from `init_state`, `return_state` or a step before. Inputs come without their T
        axis. `out_state`: a state that is overwritten (its tensors where they are, its `pos` too)
        and returned; may be `state`. On triton the kernels write there, without a copy, where no
        gradients are recorded and it lies as they can: apart from all inputs, and from `state` or
        exactly where that is. A CUDA graph of a step counts on where `pos` is a tensor.
        """
        if torch.compiler.is_compiling():
            y, new = traced(self, self._signature.bind(args, inputs), state, True, None, True)
        else:
            y, new = self._run(self._bind(args, inputs), state, True, None, True, out_state)
        return y, new if out_state is None else write(out_state, new)

    def init_state(self, *, dtype: str | torch.dtype = "float32",
                   device: str | torch.device = "cpu", **sizes: int) -> State:  # fmt: skip
        """The state before the first token: zeros. `dtype` float64 is for float64 inputs."""
        found = sizes_for(self.spec, sizes)
        name = devices.dtype_named(dtype)
        acc = torch.float64 if name == "float64" else torch.float32
        layout = layout_for(prepared(self.spec, frozenset(), found).spec)
        return layout.split(layout.zeros(found, acc, torch.device(device)), 0)

    def reference(self, *args: Any, initial_state: Any = None, return_state: bool = False,
                  cu_seqlens: Tensor | None = None, **inputs: Any) -> Any:  # fmt: skip
        """The same call answered by the float64 oracle: a dense einsum, quadratic in T."""
        from smac.masks.classify import resolve
        from smac.reference import reference

        values = dict(zip(self._names, self._signature.bind(args, inputs), strict=True))
        sizes = self._signature.check(tuple(values.values()))
        if cu_seqlens is None:
            check_levels(self.spec, sizes)
        stateful = initial_state is not None or return_state
        spec = resolve(self.spec) if stateful else self.spec  # no formula has a state by itself
        found = reference(spec, values, initial_state=initial_state, return_state=return_state,
                          cu_seqlens=cu_seqlens)  # fmt: skip
        if not return_state:
            return found
        y, s = found
        assert not isinstance(s, Tensor)
        return y, State(s.S, s.z, s.last, None, s.pos)

    def plan(self, *, dtype: str | torch.dtype | None = None,
             device: str | torch.device | None = None, backward: bool = False,
             state: bool = False, sequences: int = 0, absent: tuple[str, ...] = (),
             frozen: tuple[str, ...] = (), **sizes: int) -> Plan:  # fmt: skip
        """What would run at `sizes`; those left out come from the spec's [sizes], B is 1.

        `sequences`: how many lie packed along T (a call with cu_seqlens); 0 for none. `frozen`:
        inputs that a backward makes no gradient of (in a call: those that do not require one).
        `device`: a row of the device table ("h100", "cpu", …), or "cuda" for this machine's; by
        default the target's own device. `dtype` of the operands: by default float32 on the CPU,
        bfloat16 elsewhere. No GPU is needed.
        """
        return self._plan(sizes, dtype, device, backward, state, absent, sequences, frozen)

    def _plan(self, sizes: Mapping[str, int], dtype: str | torch.dtype | None,
              device: str | torch.device | None, backward: bool, state: bool,
              absent: tuple[str, ...], sequences: int = 0,
              frozen: tuple[str, ...] = ()) -> Plan:  # fmt: skip
        if device is None and self.options.target != "auto":
            device = "cpu" if self.options.target == "torch" else "cuda"
        row = devices.named(device)
        target = devices.target_on(row, self.options.target)
        usual = "float32" if device_row(row).kind == "cpu" else "bfloat16"
        name = devices.dtype_named(dtype or usual)
        plan = planned(self.spec, self.options, sizes, name, row, target,
                       backward=backward, state=state, absent=frozenset(absent),
                       sequences=sequences, frozen=frozenset(frozen))  # fmt: skip
        here = torch.device("cpu" if device_row(row).kind == "cpu" else "cuda")
        if self.options.tune == "off" or row != devices.row(here):
            return plan
        from smac.runtime.tune import recalled

        return recalled(plan, self.options, here) or plan

    def source(self, target: str | None = None, *, absent: tuple[str, ...] = (),
               frozen: tuple[str, ...] = (), state: bool = False, sequences: int = 0,
               dtype: str | torch.dtype | None = None,
               device: str | torch.device | None = None, **sizes: int) -> str:  # fmt: skip
        """The generated source as text: the forward program, then the backward one."""
        return self._source(target, sizes, dtype, device, state, absent, sequences, frozen).text

    def source_path(self, target: str | None = None, *, absent: tuple[str, ...] = (),
                    state: bool = False, dtype: str | torch.dtype | None = None,
                    device: str | torch.device | None = None, **sizes: int) -> Path:  # fmt: skip
        """A file in the user's cache that holds `source(…)`."""
        found = self._source(target, sizes, dtype, device, state, absent)
        return module.write(found.digest, found.text)

    def _source(self, target: str | None, sizes: Mapping[str, int],
                dtype: str | torch.dtype | None, device: str | torch.device | None, state: bool,
                absent: tuple[str, ...], sequences: int = 0,
                frozen: tuple[str, ...] = ()) -> Source:  # fmt: skip
        from smac.runtime.export import source

        op = self._retargeted(target)
        plans = [op._plan(sizes, dtype, device, b, state, absent, sequences, frozen)
                 for b in (False, True)]  # fmt: skip
        precision = self.options.precision_in(plans[0].request.dtype)
        return source(plans[0], plans[1], precision)

    def export(self, path: str | Path, *, target: str | None = None, absent: tuple[str, ...] = (),
               dtype: str | torch.dtype | None = None,
               device: str | torch.device | None = None, **sizes: int) -> Path:  # fmt: skip
        """Write one file that runs without smac: `name(*inputs)`, differentiable, self-tested.

        Planned for `sizes`; right for any. Inputs in `absent` are no parameters of it.
        """
        from smac.runtime.export import standalone

        op = self._retargeted(target)
        plans = [op._plan(sizes, dtype, device, b, False, absent) for b in (False, True)]
        precision = self.options.precision_in(plans[0].request.dtype)
        text = standalone(self.spec, plans[0], plans[1], precision)
        out = Path(path)
        out.write_text(text, encoding="utf-8")
        return out

    def refit(self, *, T: int | None = None, **inputs: Tensor) -> Op:
        """This op with each approx(…) of its mask fitted once, for sequences of up to T tokens.

        `inputs`: the tensors that the approximated masks read (h of `approx(toeplitz(h))`), one fit
        a head; no gradient reaches them, and after a change they must be fitted again. T: by
        default the lags of those, else the spec's [sizes]. The fitted op has states: `step` goes
        on by the fit, whose error is measured for T tokens alone.
        Raises PlanError where no fit is within tol, or an input is not what a fit depends on.
        """
        from smac.runtime.refit import refitted

        return refitted(self, T, inputs)

    def __repr__(self) -> str:
        spec = self.spec
        head = f"Op '{spec.name}'" + (f": {spec.about}" if spec.about else "")
        width = max(len(n) for n in (*self._names, *(n for n, _ in spec.output)))
        lines = [head]
        for i in spec.inputs:
            default = "" if i.default is None else f"default {i.default:g}"
            note = "optional" if i.optional else default
            if i.name in self._signature.ids:
                note = "integers" + (f", {note}" if note else "")
            lines.append(f"  {i.name:{width}}  {shown(i.axes):12} {note}".rstrip())
        lines += [f"→ {n:{width}}  {shown(spec.axes_of(e))}" for n, e in spec.output]
        return "\n".join(lines) + (f"\n  options{self.options}" if str(self.options) else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (str(self.spec), self.options)

    def _bind(self, args: tuple[Any, ...], inputs: Mapping[str, Any]) -> tuple[Any, ...]:
        if not args and inputs.keys() <= self._known:
            return tuple(map(inputs.get, self._names))
        return self._signature.bind(args, inputs)

    def _run(self, values: tuple[Any, ...], given: Any, want: bool, cu_seqlens: Any,
             step: bool, out: Any = None) -> Any:  # fmt: skip
        """The call, by its launcher."""
        launcher = self._find(values, want or given is not None, step, cu_seqlens)
        tensors = [x for x in values if x is not None]
        if cu_seqlens is not None:
            check_values(self.spec.name, cu_seqlens, launcher.cell.sizes["T"])
            tensors.append(cu_seqlens)
        return launcher.run(tensors, given, want, out)

    def _find(self, values: tuple[Any, ...], state: bool, step: bool,
              cu_seqlens: Any = None) -> Launcher:  # fmt: skip
        """The launcher for these shapes, dtypes and device; made when it is first asked for."""
        try:
            key = (state, step, *[None if x is None else (x.shape, x.dtype, x.device)
                                  for x in (*values, cu_seqlens)])  # fmt: skip
            found = self._launchers.get(key)
        except (AttributeError, TypeError):  # not tensors: the checks below say which
            key, found = (), None
        if found is not None:
            return found
        with self._lock:
            made = launcher_for(self.spec, self.options, self._signature, values, state, step,
                                cu_seqlens, None if step else self._tuner(values))  # fmt: skip
            if made.compiled:
                made.before_use(FirstUse.of(self.spec, self.options, values))
            while len(self._launchers) >= CACHED:
                self._launchers.pop(next(iter(self._launchers)))
            return self._launchers.setdefault(key, made)

    def _tuner(self, values: tuple[Any, ...]) -> Callable[[Plan], Plan] | None:
        """What puts tuned plans in the place of the planner's; None with tune="off"."""
        if self.options.tune == "off":
            return None
        from smac.runtime.tune import Tuner

        present = {n: x for n, x in zip(self._names, values, strict=True) if x is not None}
        self._signature.check(values)
        device = next(iter(present.values())).device
        return Tuner(self.spec, self.options, {n: x.dtype for n, x in present.items()}, device)

    def _retargeted(self, target: str | None) -> Op:
        if target in (None, self.options.target):
            return self
        o = self.options
        return Op(self.spec, Options(str(target), o.order, o.chunk, o.schedule, o.tune,
                                     o.precision))  # fmt: skip


def _restore(spec: str, options: Options) -> Op:
    return Op(load(spec), options)
