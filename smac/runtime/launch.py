"""One op at fixed shapes, dtypes and device: its plan, its programs, and how tensors reach them.

Non-goals: no checks of the caller's inputs (validate.py), no autograd (autograd.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from smac.errors import LaunchError, PlanError
from smac.ir import Buffer, Program
from smac.levels import levels_of
from smac.plan.digits import few_digits, most_tokens
from smac.runtime.autograd import differentiable
from smac.runtime.device import capturing, interpreted
from smac.runtime.module import load
from smac.runtime.places import free
from smac.runtime.player import player
from smac.runtime.state import BUFFERS, Layout, State
from smac.runtime.views import Place, Routes, Stack, View, given_back, taken
from smac.runtime.warm import compile_for, without_memory

if TYPE_CHECKING:
    from smac.codegen import Source
    from smac.plan.types import Plan

#: State buffers that a program reads; the others it makes.
STATES_IN = (*BUFFERS, "state.dST")
#: Whole numbers up to this are float32's.
WHOLE = 2**24


@dataclass(frozen=True)
class Runnable:
    """A program, its source, the function that the source defines, and how to call it."""

    program: Program
    source: Source
    function: Callable[..., tuple[Tensor, ...]]
    call: Callable[..., tuple[Tensor, ...]]

    @staticmethod
    def of(program: Program, target: str, precision: str) -> Runnable:
        """Render, load, and pick the function named like the program."""
        from smac.codegen import emit

        source = emit(program, target, precision)
        module = load(source.digest, source.text)
        function = getattr(module, program.name)
        return Runnable(program, source, function, player(function))

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
    """What a launcher is made for: `declared` axes of the present inputs by name, in call order.

    `parts`: what programs call the levels of an input along the axis `levels`, from the first on.
    `ids`: inputs of integers.
    """

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
    levels: str | None = None
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ids: frozenset[str] = frozenset()

    @property
    def state_sizes(self) -> Mapping[str, int]:
        """Sizes of states: packed sequences take the place of B."""
        return {**self.sizes, "B": self.sequences} if self.sequences else self.sizes

    def level_dim(self, name: str) -> int:
        """The dimension of a passed tensor that counts levels."""
        axes = [a for a in self.declared[name] if not (self.step and a == "T")]
        return axes.index(self.levels or "")

    def passed(self) -> Iterator[tuple[str, str, tuple[str, ...], tuple[int, int] | None]]:
        """The inputs of programs: the caller's name and theirs, axes, and what is picked of it."""
        for owner, axes in self.declared.items():
            if owner not in self.parts:
                yield owner, owner, axes, None
                continue
            left, dim = tuple(a for a in axes if a != self.levels), self.level_dim(owner)
            for k, n in enumerate(self.parts[owner]):
                yield owner, n, left, (dim, k)

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


@dataclass(frozen=True)
class Backward:
    """A derived backward: its plan, how it runs, where its tensors are, and the most tokens that it
    has digits for (None: any)."""

    plan: Plan
    runnable: Runnable
    routes: Routes
    most: int | None


#: What is done with a program of a launcher before it is run for the first time.
FirstUse: TypeAlias = "Callable[[Launcher, Runnable], None]"


class Launcher:
    """Runs tensors that were checked to fit `cell`. Thread-safe: a backward is made once for each
    choice of inputs that take gradients."""

    def __init__(self, cell: Cell, plan: Plan, plan_backward: Callable[[frozenset[str]], Plan],
                 precision: str) -> None:  # fmt: skip
        from smac.codegen.triton_wrapper import places
        from smac.lower import forward

        self.cell, self.plan, self.name = cell, plan, cell.name
        self.target: str = plan.request.target
        self._plan_backward, self._precision = plan_backward, precision
        self.runnable = Runnable.of(forward(plan), self.target, precision)
        buffers = {b.name: b for b in self.runnable.program.buffers if b.role == "input"}
        views = {n: View.between(axes, buffers[n].axes if n in buffers else axes, cell.step, picked)
                 for _, n, axes, picked in cell.passed()}  # fmt: skip
        self._outputs = tuple(b for b in self.runnable.program.buffers if b.role == "output")
        lengths = ("cu_seqlens",) if cell.sequences else ()
        states = () if cell.layout is None else cell.layout.buffers
        at = {n: i for i, n in enumerate((*cell.declared, *lengths, *states))}
        at |= {n: at[owner] for owner, n, _, _ in cell.passed()}
        self._moved = {n: v for n, v in views.items() if not v.plain}
        self._arguments = tuple((at[n], self._moved.get(n)) for n in self.runnable.reads())
        self._index = cell.device.index if cell.device.type == "cuda" else None
        self._most = most_tokens(plan.request) if cell.layout is not None else None
        self._places = self.target == "triton" and bool(places(self.runnable.program))
        self._in_place = self.runnable.program.in_place
        self._backwards: dict[frozenset[str], Backward] = {}  # by what is frozen
        self._known: dict[tuple[bool, ...], Backward] = {}  # by which tensors need a gradient
        self._first_use: FirstUse | None = None
        self._lock = threading.Lock()

    def run(self, tensors: list[Tensor], given: object, want: bool, out: object = None) -> Any:
        """Outputs (a tensor, or a tuple), paired with a State when `want`.

        `tensors`: the inputs, then cu_seqlens where there are packed sequences. `out`: a State (or
        S) that the caller has for the last one; where that is written to, S and z are its own."""
        cell, layout = self.cell, self.cell.layout
        pos: int | Tensor = 0
        if layout is not None:
            entering, pos = self.entering(given)
            tensors = [*tensors, *entering]
            self.reach(pos)
        target, place = State(out) if isinstance(out, Tensor) else out, None
        needs = tuple([x.requires_grad for x in tensors]) if torch.is_grad_enabled() else ()
        if True in needs:
            self.reach(pos, self.backward_of(needs))
            made = differentiable(self, needs, tensors)
        else:
            place = self._place(target, tensors) if isinstance(target, State) else None
            made = self.forward(tensors, place)
        n = len(self._outputs)
        y = made[0] if n == 1 else made[:n]
        if not want or layout is None:
            return y
        last = layout.split(made[n:], pos + cell.sizes["T"])
        if place is not None and isinstance(target, State):
            last = replace(last, S=target.S, z=target.z if layout.normalised else None)
        return y, last

    def _place(self, target: State, tensors: Sequence[Tensor]) -> Tensor | None:
        """Where the program may leave the last state, so that S and z of `target` are it."""
        cell, layout = self.cell, self.cell.layout
        if not self._places or layout is None or cell.empty:
            return None
        found = layout.place(target, cell.state_sizes, cell.acc, cell.device)
        if found is None or found.requires_grad or (
                not free(found, tensors, cell.first_state, self._in_place)):  # fmt: skip
            return None
        torch.autograd.graph.increment_version(found)  # who keeps it for a backward is told so
        return found

    def entering(self, given: object) -> tuple[tuple[Tensor, ...], int | Tensor]:
        """State buffers for what the caller gave (None: zeros), and the tokens before it.

        LaunchError where it does not fit, PlanError where the spec cannot be continued."""
        cell, layout = self.cell, self.cell.layout
        assert layout is not None
        if given is None:
            return layout.zeros(cell.state_sizes, cell.acc, cell.device), 0
        state = layout.checked(given, cell.state_sizes, cell.acc, cell.device,
                               "state" if cell.step else "initial_state")  # fmt: skip
        if cell.continues is not None:
            raise PlanError(f"{self.name}: a sequence cannot be continued from a state: "
                            f"{cell.continues}")  # fmt: skip
        pos = state.pos if isinstance(state.pos, Tensor) else state.pos or 0
        end = pos + cell.sizes["T"]
        if layout.position and self.target == "torch" and isinstance(end, int) and end > WHOLE and (
                cell.acc == torch.float32):  # fmt: skip
            raise PlanError(f"{self.name}: a sequence cannot be continued to {end} tokens: they "
                            f"are counted in float32 on target torch, which has whole numbers up "
                            f"to {WHOLE}; pass float64 inputs")  # fmt: skip
        n = cell.sizes.get(cell.levels or "")
        if n is not None and isinstance(end, int) and levels_of(end) > n:
            raise LaunchError(f"{self.name}: expected {cell.levels} ≥ {levels_of(end)}, the levels "
                              f"of {end} tokens, {pos} of them before this call; got {n}")
        if layout.position and isinstance(pos, int) and capturing():
            raise LaunchError(f"{self.name}: found a state at token {pos} in a CUDA graph, whose "
                              "replays would all start there; expected its pos as a tensor: smac."
                              "State(state.S, …, pos=torch.tensor(state.pos, device='cuda'))")
        return layout.join(state), pos

    def reach(self, pos: int | Tensor, back: Backward | None = None) -> None:
        """PlanError where a call that starts at `pos` goes further than its numbers have digits:
        those of the forward program or of the backward `back`."""
        plan, most = (self.plan, self._most) if back is None else (back.plan, back.most)
        if most is None or (isinstance(pos, int) and pos == 0):  # there the planner has looked
            return
        if isinstance(pos, Tensor):
            raise PlanError(f"{self.name}: found state.pos as a tensor, which nobody looks at; "
                            f"expected a number: the {plan.order} order has digits for {most} "
                            "tokens alone")  # fmt: skip
        end = pos + self.cell.sizes["T"]
        if end > most:
            raise PlanError(f"{self.name}: a sequence cannot be continued to {end} tokens: the "
                            f"{plan.order} order {few_digits(plan.request, end)}")  # fmt: skip

    def forward(self, tensors: Sequence[Tensor], place: Tensor | None = None) -> tuple[Tensor, ...]:
        """The forward program on present inputs and state buffers, in the caller's layout; the last
        state goes to the buffer `place` if there is one."""
        cell = self.cell
        if cell.empty:
            states = tensors[cell.first_state :]
            return (*(self._nothing(b) for b in self._outputs), *(x.clone() for x in states))
        args = taken(self._arguments, tensors)
        made = self._call(self.runnable, args if place is None else [*args, place])
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
                 needs: Sequence[bool], recorded: tuple[bool, ...] | None = None,
                 ) -> tuple[Tensor | None, ...]:  # fmt: skip
        """Gradients of `tensors` (None where not needed) from those of outputs and states, by the
        program for those that were `recorded` to need one (by default: for `needs`)."""
        cell, n = self.cell, len(self._outputs)
        if cell.empty:
            first = cell.first_state  # S0, which passed through unchanged
            zeros = [torch.zeros_like(x) if need else None
                     for x, need in zip(tensors, needs, strict=True)]  # fmt: skip
            if first < len(tensors) and needs[first]:
                zeros[first] = cotangents[n]
            return tuple(zeros)
        back = self.backward_of(tuple(needs) if recorded is None else recorded)
        made = self._call(back.runnable, taken(back.routes.arguments, (*tensors, *cotangents)))
        return given_back(back.routes, made, needs)

    def compile(self, runnable: Runnable, tensors: Sequence[Tensor]) -> None:
        """Compile the kernels that `runnable`, a program of this launcher, will launch for tensors
        like these (as `run` has them, then states); inside of warm.compiling()."""
        if self.target != "triton" or self.cell.empty:
            return
        given, places = [without_memory(x) for x in tensors], self._arguments
        if runnable is not self.runnable:
            ys = [self._nothing(b, "meta") for b in self._outputs]
            states = given[self.cell.first_state :][:1]  # the last state is like the first
            given, places = [*given, *ys, *states], self.owner_of(runnable).routes.arguments
        compile_for(runnable, taken(places, given), self.cell.device)

    @property
    def compiled(self) -> bool:
        """Whether a compiler makes its kernels, for a real GPU."""
        return (self.target == "triton" and self.cell.device.type == "cuda" and not self.cell.empty
                and not interpreted())  # fmt: skip

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of the outputs, in order."""
        return tuple(b.name for b in self._outputs)

    def backward_of(self, needs: tuple[bool, ...] | None = None) -> Backward:
        """The derived backward for the tensors of a run that need a gradient (by default: all that
        can), made when it is first asked for."""
        needs = (True,) * len(self.cell.declared) if needs is None else needs
        found = self._known.get(needs)
        if found is None:
            inputs = zip(self.cell.declared, needs, strict=False)  # then lengths and states
            frozen = frozenset(n for n, need in inputs if not need) - self.cell.ids
            with self._lock:
                found = self._backwards.get(frozen) or self._made(frozen)
                self._known[needs] = found
        return found

    def _made(self, frozen: frozenset[str]) -> Backward:
        from smac.lower import backward

        plan = self._plan_backward(frozen)
        runnable = Runnable.of(backward(plan), self.target, self._precision)
        made = Backward(plan, runnable, self._routed(runnable), most_tokens(plan.request))
        self._backwards[frozen] = made
        try:
            if self._first_use is not None:
                self._first_use(self, runnable)
        except BaseException:
            del self._backwards[frozen]
            raise
        return made

    def owner_of(self, runnable: Runnable) -> Backward:
        """The backward that runs `runnable`."""
        return next(b for b in self._backwards.values() if b.runnable is runnable)

    def plan_of(self, runnable: Runnable) -> Plan:
        """The plan of a program of this launcher."""
        return self.plan if runnable is self.runnable else self.owner_of(runnable).plan

    def before_use(self, act: FirstUse) -> None:
        """Call `act` on the forward program now, and on a backward's when that is made."""
        act(self, self.runnable)
        self._first_use = act

    def _routed(self, runnable: Runnable) -> Routes:
        """Where a backward finds its arguments, and where its gradients go."""
        cell, buffers = self.cell, runnable.program.buffers
        lengths = ("cu_seqlens",) if cell.sequences else ()
        states = () if cell.layout is None else cell.layout.buffers
        names = (*cell.declared, *lengths, *states)
        places = {n: (i, self._moved.get(n)) for i, n in enumerate(names)}
        places |= {n: (places[owner][0], self._moved.get(n)) for owner, n, _, _ in cell.passed()}
        due = [b for b in buffers if b.role == "cotangent"]
        for i, (b, y) in enumerate(zip(due, self._outputs, strict=True), len(names)):
            step = cell.step and "T" in y.axes
            places[b.name] = (i, View(y.axes.index("T"), (), ()) if step else None)
        places["state.dST"] = (len(names) + len(due), None)
        owners = [_owner(b) for b in buffers if _owner(b)]
        gradients: dict[str, Place | Stack]
        gradients = {n: (i, self._moved.get(n)) for i, n in enumerate(owners)}
        for owner, parts in cell.parts.items():
            found = tuple(p for n in parts if isinstance(p := gradients.get(n), tuple))
            if found:
                length = cell.sizes[cell.levels or ""]
                gradients[owner] = Stack(found, cell.level_dim(owner), length)
        return Routes(tuple(places[n] for n in runnable.reads()),
                      tuple(gradients.get(n) for n in names))  # fmt: skip

    def _nothing(self, b: Buffer, device: torch.device | str = "") -> Tensor:
        shape = [self.cell.sizes[a] for a in b.axes if not (self.cell.step and a == "T")]
        return torch.empty(shape, dtype=self.cell.dtype, device=device or self.cell.device)

    def _call(self, runnable: Runnable, args: list[Tensor]) -> tuple[Tensor, ...]:
        """Run with autocast off (the program says its types) and the tensors' GPU current."""
        kind, index = self.cell.device.type, self._index
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self._call(runnable, args)
        if index is None or index == torch.cuda.current_device():
            return runnable.call(*args)
        with torch.cuda.device(index):
            return runnable.call(*args)
