"""Kernels compiled at once, and held once to the torch target, on a tiny case.

Compilers have miscompiled single patterns in silence. So kernels that this machine has not run
before run on a tiny random case of the caller's kind, of the same classes of sizes (so that it
takes few kernels of its own), and are held to PyTorch code in float64. What is wrong is a
CodegenError, with a file that shows it. SMAC_SELF_CHECK=0 turns the check off.

Non-goals: what is known to be right (first_use.py), precision (smac.check), other shapes than the
caller's kind, the torch target.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smac.errors import CodegenError, PlanError
from smac.plan.space import replanned
from smac.runtime.build import planned
from smac.runtime.device import device_name, versions
from smac.runtime.held import tolerance
from smac.runtime.job import Case, Job, case, lost, misfit, truth
from smac.runtime.mismatch import reproducer, write
from smac.runtime.options import Options
from smac.runtime.warm import compiling
from smac.spec import Spec

if TYPE_CHECKING:
    from smac.plan.types import Plan
    from smac.runtime.launch import Launcher, Runnable

log = logging.getLogger("smac")
VARIABLE = "SMAC_SELF_CHECK"
#: Rows of a chunk at least, for the tiny case: of one token too.
ROWS = 64


@dataclass(frozen=True)
class Tiny:
    """A tiny case, the launcher that is to be right on it, and what is right."""

    launcher: Launcher
    case: Case
    exact: list[Tensor | None]


@dataclass(frozen=True)
class Check:
    """For launchers of `spec`: `given`, the call's inputs by name, without their memory."""

    spec: Spec
    options: Options
    given: Mapping[str, Tensor]

    def __call__(self, launcher: Launcher, runnable: Runnable) -> bool:
        """Compile `runnable`, a program of `launcher`, and check it; whether it could be checked.

        Raises CodegenError where its results are wrong."""
        wanted, tiny = os.environ.get(VARIABLE, "1") != "0", None
        with compiling(quiet=True) if launcher.compiled else nullcontext():
            launcher.compile(runnable, self._tensors(launcher))
            if wanted:
                tiny = self.tiny(launcher, runnable)
        if tiny is None:
            return False
        self.judge(launcher, runnable, tiny)
        return True

    def judge(self, launcher: Launcher, runnable: Runnable, tiny: Tiny) -> None:
        """Hold the tiny case to the torch target; CodegenError where it is off, and by more than a
        plain computation in its types would be."""
        with _undisturbed():
            wrong = misfit(tiny.case, tiny.launcher, tiny.exact)
            if wrong is not None:
                wrong = misfit(tiny.case, tiny.launcher, tiny.exact, lost(tiny.case))
        if wrong is not None:
            raise self._refusal(launcher, runnable, tiny.case, wrong)

    def tiny(self, launcher: Launcher, runnable: Runnable) -> Tiny | None:
        """A tiny case for `runnable`, its kernels asked for; None where there is none (logged)."""
        try:
            with _undisturbed():
                return self._tiny(launcher, runnable)
        except PlanError as e:  # of these sizes, or of the torch target
            log.warning("%s: its kernels are used unchecked: %s", self.spec.name, e)
            return None

    def _tiny(self, launcher: Launcher, runnable: Runnable) -> Tiny:
        backward = runnable is not launcher.runnable
        plan = launcher.plan_of(runnable)
        r = plan.request
        options = {**asdict(self.options), "tune": "off", "target": launcher.target}
        dtypes = {n: str(x.dtype).removeprefix("torch.") for n, x in self.given.items()}
        tiny = tiny_sizes(dict(r.sizes), plan.chunk, r.spec.groups, self.spec.levels)
        job = Job(str(self.spec), options, tiny, dtypes, str(launcher.cell.device), r.state,
                  min(r.sequences, 2), backward, list(plan.frozen))  # fmt: skip
        first = case(job)  # compiled while the truth is found
        small = first.launcher(_like(plan))
        tensors = first.tensors(small)
        small.compile(first.runnable(small, tensors), tensors)
        # The truth on the CPU: no library of the GPU is loaded for a tiny product.
        return Tiny(small, *truth(job, on="cpu"))

    def _tensors(self, launcher: Launcher) -> list[Tensor]:
        """The call's tensors as a launcher takes them, without their memory."""
        cell, meta = launcher.cell, torch.device("meta")
        found = list(self.given.values())
        if cell.sequences:
            found.append(torch.empty(cell.sequences + 1, dtype=torch.int32, device=meta))
        return found + ([] if cell.layout is None else
                        list(cell.layout.zeros(cell.state_sizes, cell.acc, meta)))  # fmt: skip

    def _refusal(self, launcher: Launcher, runnable: Runnable, made: Case,
                 wrong: str) -> CodegenError:  # fmt: skip
        """The error that says what was found, where, and what to do."""
        name, program = self.spec.name, runnable.program.name
        device = device_name(launcher.cell.device)
        with_versions = ", ".join(f"{n} {v}" for n, v in versions().items() if v)
        sizes = " ".join(f"{a}={n}" for a, n in made.job.sizes.items() if a != "S")
        found = (f"{name}: the kernels of its {program} are wrong on {device} ({with_versions}): "
                 f"{wrong}, on random input at {sizes}")  # fmt: skip
        limit = tolerance(launcher.plan.request.dtype, self.options.precision, made.job.backward)
        text = reproducer(made, self._plain_plans(launcher, runnable, made), f"{found}.", limit)
        path = write(f"{name}_{program}_{runnable.source.digest[:12]}", text)
        return CodegenError(f"{found}. This is a bug of the compiler or of SMAC: please report it "
                            f"with {path}, which shows it. Until then compile with target='torch' "
                            f"or another order; {VARIABLE}=0 runs the kernels as they are")

    def _plain_plans(self, launcher: Launcher, runnable: Runnable,
                     made: Case) -> tuple[Plan, Plan]:  # fmt: skip
        """Forward and backward plans of the tiny case without states, as they were chosen."""
        r = launcher.plan.request
        absent = frozenset(i.name for i in self.spec.inputs if i.name not in self.given)

        def plan(backward: bool) -> Plan:
            own = planned(self.spec, replace(self.options, tune="off"), made.job.sizes, r.dtype,
                          r.device, r.target, backward=backward, state=False,
                          absent=absent, frozen=frozenset(made.job.frozen))  # fmt: skip
            of_backward = runnable is not launcher.runnable
            if backward and not of_backward:
                return own
            chosen = launcher.plan_of(runnable) if backward else launcher.plan
            return replanned(own, chosen.config)

        return plan(False), plan(True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No gradients are recorded, and waiting for the GPU is no error, whatever the caller set."""
    mode = torch.cuda.get_sync_debug_mode() if torch.cuda.is_available() else 0
    if mode:
        torch.cuda.set_sync_debug_mode(0)
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        if mode:
            torch.cuda.set_sync_debug_mode(mode)


def _like(plan: Plan) -> Callable[[Plan], Plan]:
    """A choice for `launcher_for`: what `plan` is, lengths of segments and all, for they are
    printed; in the other direction the planner's."""

    def choose(p: Plan) -> Plan:
        if p.request.backward != plan.request.backward:
            return p
        found = replanned(p, plan.config)
        return replace(found, chosen=replace(found.chosen, segment=plan.chosen.segment))

    return choose


def tiny_sizes(sizes: Mapping[str, int], chunk: int, groups: tuple[str, ...],
               levels: str | None = None) -> dict[str, int]:  # fmt: skip
    """Small sizes of the same kind: N, P, levels as they are; T of two chunks, with the same rest;
    others 1, a multiple of 16 or neither, as they were, for compilers tell these apart."""
    T, rows = sizes["T"], max(chunk, ROWS)
    short = T if 3 * rows > T else 2 * rows + T % rows
    made = {a: n if a in ("N", "P", levels) else _kind(n) for a, n in sizes.items()}
    lags = {"S": short, "W": 2 * short - 1 if sizes.get("W") == 2 * T - 1 else short}
    heads = _kind(sizes["H"])
    shared = [g for g in groups if 1 < sizes[g] < sizes["H"]]
    if shared:
        heads = 32 if any(sizes[g] % 16 == 0 for g in shared) else 16 if heads == 16 else 6
    own = {g: heads if sizes[g] == sizes["H"] else made[g] for g in groups}
    return {**made, "T": short, "H": heads, **{a: n for a, n in lags.items() if a in sizes}, **own}


def _kind(n: int) -> int:
    return 1 if n == 1 else 16 if n % 16 == 0 else 2
