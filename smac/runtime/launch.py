"""One op at fixed shapes, dtypes and device: its plan, its programs, and how tensors reach them.

Non-goals: no checks of the caller's inputs (validate.py), no autograd (autograd.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from smac.errors import PlanError
from smac.ir import Buffer, Program
from smac.runtime.autograd import Node
from smac.runtime.device import interpreted
from smac.runtime.module import load
from smac.runtime.state import Layout
from smac.runtime.warm import compile_for, without_memory

if TYPE_CHECKING:
    from smac.codegen import Source
    from smac.plan.types import Plan

#: State buffers that a program reads; the others it makes.
STATES_IN = ("state.S0", "state.last", "state.dST")


@dataclass(frozen=True)
class View:
    """From a caller's layout to a buffer's: a T axis of length 1 put in, then axes permuted."""

    token: int | None
    order: tuple[int, ...]
    inverse: tuple[int, ...]

    @staticmethod
    def between(declared: tuple[str, ...], canonical: tuple[str, ...], step: bool) -> View:
        """The view for an input with axes `declared` whose buffer has axes `canonical`."""
        order = tuple(declared.index(a) for a in canonical)
        inverse = tuple(canonical.index(a) for a in declared)
        token = declared.index("T") if step and "T" in declared else None
        plain = order == tuple(range(len(order)))
        return View(token, () if plain else order, () if plain else inverse)

    @property
    def plain(self) -> bool:
        """The caller's layout is the buffer's."""
        return self.token is None and not self.order

    def to(self, x: Tensor) -> Tensor:
        """The tensor as the buffer has it."""
        if self.token is not None:
            x = x.unsqueeze(self.token)
        return x.permute(self.order) if self.order else x

    def back(self, x: Tensor) -> Tensor:
        """A buffer's tensor as the caller has it."""
        if self.inverse:
            x = x.permute(self.inverse)
        return x if self.token is None else x.squeeze(self.token)


@dataclass(frozen=True)
class Runnable:
    """A program, its source, and the function that the source defines."""

    program: Program
    source: Source
    call: Callable[..., tuple[Tensor, ...]]

    @staticmethod
    def of(program: Program, target: str, precision: str) -> Runnable:
        """Render, load, and pick the function named like the program."""
        from smac.codegen import emit

        source = emit(program, target, precision)
        module = load(source.digest, source.text)
        return Runnable(program, source, getattr(module, program.name))

    def reads(self) -> tuple[str, ...]:
        """Names of the buffers to pass, in order."""
        return tuple(dict.fromkeys(b.name for b in self.program.buffers if _is_read(b)))


def _is_read(b: Buffer) -> bool:
    passed = b.role in ("input", "cotangent", "lengths")
    return passed or (b.role == "state" and b.name in STATES_IN)


def _owner(b: Buffer) -> str:
    """The input or state whose gradient the buffer is; "" for other buffers."""
    return b.of if b.role == "gradient" else "state.S0" if b.name == "state.dS0" else ""


@dataclass(frozen=True)
class Cell:
    """What a launcher is made for: `declared` axes of the present inputs by name, in call order."""

    name: str
    declared: Mapping[str, tuple[str, ...]]
    sizes: Mapping[str, int]
    dtype: torch.dtype
    device: torch.device
    batch: tuple[str, ...]
    layout: Layout | None
    continues: str | None
    step: bool
    sequences: int = 0

    @property
    def state_sizes(self) -> Mapping[str, int]:
        """Sizes of states: packed sequences take the place of B."""
        return {**self.sizes, "B": self.sequences} if self.sequences else self.sizes

    @property
    def first_state(self) -> int:
        """The place of S0 among a run's tensors, behind the inputs and cu_seqlens."""
        return len(self.declared) + (self.sequences > 0)

    @property
    def acc(self) -> torch.dtype:
        """The accumulator's type."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def empty(self) -> bool:
        """No output has an element, so nothing is launched."""
        return any(self.sizes[a] == 0 for a in ("T", "H", *self.batch) if a in self.sizes)


#: What is done with a program of a launcher before it is run for the first time.
FirstUse: TypeAlias = "Callable[[Launcher, Runnable], None]"


class Launcher:
    """Runs tensors that were checked to fit `cell`. Thread-safe: the backward is made once."""

    def __init__(self, cell: Cell, plan: Plan, plan_backward: Callable[[], Plan],
                 precision: str) -> None:  # fmt: skip
        from smac.lower import forward

        self.cell, self.plan, self.name = cell, plan, cell.name
        self.target: str = plan.request.target
        self._plan_backward, self._precision = plan_backward, precision
        self.runnable = Runnable.of(forward(plan), self.target, precision)
        buffers = {b.name: b for b in self.runnable.program.buffers if b.role == "input"}
        self._views = {n: View.between(axes, buffers[n].axes if n in buffers else axes, cell.step)
                       for n, axes in cell.declared.items()}  # fmt: skip
        self._outputs = tuple(b for b in self.runnable.program.buffers if b.role == "output")
        lengths = ("cu_seqlens",) if cell.sequences else ()
        places = {n: i for i, n in enumerate((*cell.declared, *lengths, *STATES_IN))}
        moved = {n: v for n, v in self._views.items() if not v.plain}
        self._arguments = tuple((places[n], moved.get(n)) for n in self.runnable.reads())
        self._guard = cell.device if cell.device.type == "cuda" else None
        self.backward_plan: Plan | None = None
        self._backward: Runnable | None = None
        self._first_use: FirstUse | None = None
        self._lock = threading.Lock()

    def run(self, tensors: list[Tensor], given: object, want: bool) -> Any:
        """Outputs (a tensor, or a tuple), paired with a State when `want`.

        `tensors`: the inputs, then cu_seqlens where there are packed sequences."""
        cell, layout, pos = self.cell, self.cell.layout, 0
        if layout is not None:
            if given is None:
                state_in = layout.zeros(cell.state_sizes, cell.acc, cell.device)
            else:
                state = layout.checked(given, cell.state_sizes, cell.acc, cell.device,
                                       "state" if cell.step else "initial_state")  # fmt: skip
                pos = state.pos or 0
                if cell.continues is not None:
                    raise PlanError(f"{self.name}: a sequence cannot be continued from a state: "
                                    f"{cell.continues}")  # fmt: skip
                state_in = layout.join(state)
            tensors = [*tensors, *state_in]
        if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
            self.backward_program()
            made: tuple[Tensor, ...] = Node.apply(self, *tensors)
        else:
            made = self.forward(tensors)
        n = len(self._outputs)
        y = made[0] if n == 1 else made[:n]
        if not want or layout is None:
            return y
        return y, layout.split(made[n:], pos + cell.sizes["T"])

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The forward program on present inputs and state buffers, in the caller's layout."""
        cell = self.cell
        if cell.empty:
            states = tensors[cell.first_state :]
            return (*(self._nothing(b) for b in self._outputs), *(x.clone() for x in states))
        made = self._call(self.runnable, self._forward_arguments(tensors))
        n = len(self._outputs)
        outputs = made[:n]
        if cell.step:
            outputs = tuple(y.squeeze(b.axes.index("T")) if "T" in b.axes else y
                            for y, b in zip(outputs, self._outputs, strict=True))  # fmt: skip
        if cell.layout is None:
            return outputs
        # The last ids are a view of the caller's, who may write there.
        return (*outputs, made[n], *(x.clone() for x in made[n + 1 :]))

    def backward(self, tensors: Sequence[Tensor], cotangents: Sequence[Tensor],
                 needs: Sequence[bool]) -> tuple[Tensor | None, ...]:  # fmt: skip
        """Gradients of `tensors` (None where not needed) from those of outputs and states."""
        cell, n = self.cell, len(self._outputs)
        if cell.empty:
            first = cell.first_state  # S0, which passed through unchanged
            zeros = [torch.zeros_like(x) if need else None
                     for x, need in zip(tensors, needs, strict=True)]  # fmt: skip
            if first < len(tensors) and needs[first]:
                zeros[first] = cotangents[n]
            return tuple(zeros)
        runnable = self.backward_program()
        made = self._call(runnable, self._backward_arguments(runnable, tensors, cotangents))
        owners = [_owner(b) for b in runnable.program.buffers if _owner(b)]
        found = {n: self._views[n].back(g) if n in self._views else g
                 for n, g in zip(owners, made, strict=True)}  # fmt: skip
        lengths = ("cu_seqlens",) if cell.sequences else ()
        names = (*cell.declared, *lengths, "state.S0", "state.last")[: len(tensors)]
        return tuple(found.get(name) if need else None
                     for name, need in zip(names, needs, strict=True))  # fmt: skip

    def compile(self, runnable: Runnable, tensors: Sequence[Tensor]) -> None:
        """Compile the kernels that `runnable`, a program of this launcher, will launch for tensors
        like these (as `run` has them, then states); inside of warm.compiling()."""
        if self.target != "triton" or self.cell.empty:
            return
        given = [without_memory(x) for x in tensors]
        if runnable is not self.runnable:
            ys = [self._nothing(b, "meta") for b in self._outputs]
            states = given[self.cell.first_state :][:1]  # the last state is like the first
            arguments = self._backward_arguments(runnable, given, [*ys, *states])
        else:
            arguments = self._forward_arguments(given)
        compile_for(runnable, arguments, self.cell.device)

    @property
    def compiled(self) -> bool:
        """Whether a compiler makes its kernels, for a real GPU."""
        return (self.target == "triton" and self.cell.device.type == "cuda" and not self.cell.empty
                and not interpreted())  # fmt: skip

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of the outputs, in order."""
        return tuple(b.name for b in self._outputs)

    def _forward_arguments(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the forward function takes."""
        return [tensors[i] if view is None else view.to(tensors[i]) for i, view in self._arguments]

    def _backward_arguments(self, runnable: Runnable, tensors: Sequence[Tensor],
                            cotangents: Sequence[Tensor]) -> list[Tensor]:  # fmt: skip
        """What the backward function takes."""
        held, n = self._hold(tensors), len(self._outputs)
        due = [b for b in runnable.program.buffers if b.role == "cotangent"]
        for b, y, dy in zip(due, self._outputs, cotangents[:n], strict=True):
            step = self.cell.step and "T" in y.axes
            held[b.name] = dy.unsqueeze(y.axes.index("T")) if step else dy
        if self.cell.layout is not None:
            held["state.dST"] = cotangents[n]
        return [held[name] for name in runnable.reads()]

    def backward_program(self) -> Runnable:
        """The derived backward, made when it is first asked for."""
        if self._backward is None:
            with self._lock:
                if self._backward is None:
                    from smac.lower import backward

                    self.backward_plan = self._plan_backward()
                    program = backward(self.backward_plan)
                    made = Runnable.of(program, self.target, self._precision)
                    if self._first_use is not None:
                        self._first_use(self, made)
                    self._backward = made
        return self._backward

    def before_use(self, act: FirstUse) -> None:
        """Call `act` on the forward program now, and on the backward's when that is made."""
        act(self, self.runnable)
        self._first_use = act

    def _hold(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Tensors by the name of their buffer, in its layout."""
        held = {name: view.to(x) for (name, view), x in zip(self._views.items(), tensors,
                                                             strict=False)}  # fmt: skip
        if self.cell.sequences:
            held["cu_seqlens"] = tensors[len(self._views)]
        if self.cell.layout is not None:
            held.update(zip(("state.S0", "state.last"), tensors[self.cell.first_state :],
                            strict=False))  # fmt: skip
        return held

    def _nothing(self, b: Buffer, device: torch.device | str = "") -> Tensor:
        shape = [self.cell.sizes[a] for a in b.axes if not (self.cell.step and a == "T")]
        return torch.empty(shape, dtype=self.cell.dtype, device=device or self.cell.device)

    def _call(self, runnable: Runnable, args: list[Tensor]) -> tuple[Tensor, ...]:
        """Run with autocast off (the program says its types) and the tensors' GPU current."""
        kind = self.cell.device.type
        if self._guard is None and not torch.is_autocast_enabled(kind):
            return runnable.call(*args)
        with torch.autocast(kind, enabled=False):
            if self._guard is None:
                return runnable.call(*args)
            with torch.cuda.device(self._guard):
                return runnable.call(*args)
