"""Job: a call as a value that goes to another process as JSON, and what runs there of it.

Non-goals: no processes (tune.py starts them, trial.py is one), no choice of configurations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smac.plan.config import Config
from smac.plan.space import replanned
from smac.reference import baseline, reference
from smac.runtime.build import launcher_for, prepared
from smac.runtime.draws import WAYS, draw
from smac.runtime.held import relative, tolerance, worst
from smac.runtime.launch import Launcher, Runnable
from smac.runtime.options import Options
from smac.runtime.validate import Signature
from smac.spec import Spec, specialise

if TYPE_CHECKING:
    from smac.plan.types import Plan


#: Outputs beyond this are of a spec that does not like its inputs (and float16 ends at 65504).
CALM = 1e4
#: Tokens before those of a case with states, for what reads positions.
POSITION = 5


@dataclass(frozen=True)
class Job:
    """A spec (TOML), options by name, sizes, the dtype of every present input, where the tensors
    live, whether states, packed sequences and the backward are asked for, and which inputs take no
    gradient there."""

    spec: str
    options: dict[str, Any]
    sizes: dict[str, int]
    dtypes: dict[str, str]
    device: str
    state: bool = False
    sequences: int = 0
    backward: bool = False
    frozen: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """For `Job(**json.loads(…))`."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Case:
    """A job's tensors: the inputs (with cu_seqlens and state behind them), and cotangents."""

    spec: Spec
    options: Options
    values: tuple[Tensor | None, ...]
    lengths: Tensor | None
    job: Job
    way: int

    def launcher(self, choose: Callable[[Plan], Plan] | None = None, exact: bool = False,
                 ) -> Launcher:  # fmt: skip
        """A launcher for them; `exact`: the torch target's for the same values in float64."""
        options, values = self.options, self.values
        if exact:
            options, values = Options(target="torch"), tuple(map(_widened, values))
        return launcher_for(self.spec, options, Signature.of(self.spec), values, self.job.state,
                            False, self.lengths, choose, whole=True)  # fmt: skip

    def run(self, launcher: Launcher, exact: bool = False) -> Callable[[], list[Tensor | None]]:
        """What makes the results of `launcher`: outputs, or gradients (None of frozen inputs)."""
        tensors = self.tensors(launcher, exact)
        if not self.job.backward:
            return lambda: list(launcher.forward(tensors))
        g = torch.Generator().manual_seed(1)  # what bfloat16 holds, every type does
        cotangents = [torch.randn(y.shape, generator=g).bfloat16().to(y.device, y.dtype)
                      if y.dtype.is_floating_point else None
                      for y in launcher.forward(tensors)]  # fmt: skip
        needs = self.needs(launcher, tensors)
        return lambda: list(launcher.backward(tensors, cotangents, needs))  # type: ignore[arg-type]

    def runnable(self, launcher: Launcher, tensors: Sequence[Tensor]) -> Runnable:
        """The program of `launcher` that `run` is of."""
        if not self.job.backward:
            return launcher.runnable
        return launcher.backward_of(self.needs(launcher, tensors)).runnable

    def needs(self, launcher: Launcher, tensors: Sequence[Tensor]) -> tuple[bool, ...]:
        """Which of `tensors` take a gradient."""
        frozen = [n in self.job.frozen for n in launcher.cell.declared]
        frozen += [False] * (len(tensors) - len(frozen))
        return tuple(x.dtype.is_floating_point and not f
                     for x, f in zip(tensors, frozen, strict=True))  # fmt: skip

    def tensors(self, launcher: Launcher, exact: bool = False) -> list[Tensor]:
        """What `launcher` takes."""
        values = tuple(map(_widened, self.values)) if exact else self.values
        found = [x for x in values if x is not None]
        found += [] if self.lengths is None else [self.lengths]
        cell = launcher.cell
        if cell.layout is not None:
            found += cell.layout.zeros(cell.state_sizes, cell.acc, cell.device)
            if cell.layout.position:
                found[-1] += POSITION
        return found


def case(job: Job, way: int = 0) -> Case:
    """The tensors of a job, drawn in a way of draws.WAYS: the same in every process."""
    from smac.masks import build
    from smac.parse import parse

    spec, device = parse(job.spec, "<spec>"), torch.device(job.device)
    absent = frozenset(i.name for i in spec.inputs if i.name not in job.dtypes)
    special, expanded = specialise(spec, absent), prepared(spec, absent, job.sizes).spec
    dtypes = {n: getattr(torch, d) for n, d in job.dtypes.items()}
    mask = build(expanded.contraction.L, expanded)
    made = draw(special, mask, job.sizes, dtypes, device, way)
    lengths = None
    if job.sequences:
        ends = torch.linspace(0, job.sizes["T"], job.sequences + 1)
        lengths = ends.round().to(device, torch.int32)
    return Case(spec, Options(**job.options), tuple(made.get(i.name) for i in spec.inputs),
                lengths, job, way)  # fmt: skip


def truth(job: Job, on: str = "") -> tuple[Case, list[Tensor | None]]:
    """A case whose outputs are calm, and its results in float64 by the torch target, computed on
    the device `on` (the job's own by default)."""
    for way in range(len(WAYS)):
        made = case(replace(job, device=on or job.device), way)
        launcher = made.launcher(exact=True)
        outputs = launcher.forward(made.tensors(launcher, exact=True))
        if all(x.abs().max() < CALM for x in outputs if x.dtype.is_floating_point):
            break
    exact: list[Tensor | None] = [*outputs]
    if job.backward:
        exact = made.run(launcher, exact=True)()
    return (case(job, way) if on else made), exact


def lost(made: Case) -> dict[str, float]:
    """Relative errors of the same-precision baseline on the inputs of `made`, by the names of
    results: the digits that the sums of this case cost by any kernel. Quadratic in T, on the CPU,
    without states and packed sequences."""
    inputs = {i.name: x if x is None else x.detach().cpu()
              for i, x in zip(made.spec.inputs, made.values, strict=True)}  # fmt: skip
    low, exact = ({n: x if x is None or not x.is_floating_point() else
                   to(x).requires_grad_(made.job.backward) for n, x in inputs.items()}
                  for to in (torch.clone, torch.Tensor.double))  # fmt: skip
    with torch.enable_grad():
        made_low, made_exact = baseline(made.spec, low), reference(made.spec, exact)
    outputs = [(made_low, made_exact)] if torch.is_tensor(made_low) else list(
        zip(made_low, made_exact, strict=True))  # fmt: skip
    names = [n for n, _ in made.spec.output]
    if not made.job.backward:
        return {n: relative(a, b) for n, (a, b) in zip(names, outputs, strict=True)}
    g = torch.Generator().manual_seed(1)
    for a, b in outputs:
        cotangent = torch.randn(b.shape, generator=g).bfloat16()
        a.backward(cotangent.to(a.dtype), retain_graph=True)
        b.backward(cotangent.double(), retain_graph=True)
    return {f"the gradient of {n}": relative(x.grad, y.grad) for n, x in low.items()
            if x is not None and (y := exact[n]) is not None
            and x.grad is not None and y.grad is not None}  # fmt: skip


def misfit(made: Case, launcher: Launcher, exact: Sequence[Tensor | None],
           losses: Mapping[str, float] | None = None) -> str | None:  # fmt: skip
    """What is wrong with the results of `launcher`, in words; None where nothing is.

    What its kernels fail to write is NaN; two runs must give the same bits. `losses`: relative
    errors, by the names of results, that any computation in these types makes."""
    plan = launcher.plan
    limit = tolerance(plan.request.dtype, made.options.precision, made.job.backward)
    run = made.run(launcher)
    with _Poison():
        first, second = run(), run()
    names = result_names(launcher, made.job.backward)
    wrong = worst(names, first, exact, limit, losses)
    if wrong is not None:
        return f"{wrong[0]} is off by {wrong[1]:.1e} (rms, relative), more than {limit:.0e}"
    for name, a, b in zip(names, first, second, strict=True):
        if a is not None and b is not None and not torch.equal(a, b):
            return f"{name} has other bits in a second run"
    return None


def result_names(launcher: Launcher, backward: bool) -> list[str]:
    """Names of the results, for messages."""
    cell = launcher.cell
    states = [] if cell.layout is None else [n.replace("S0", "S") for n in cell.layout.buffers]
    lengths = ["cu_seqlens"] if cell.sequences else []
    if backward:
        return [f"the gradient of {n}" for n in (*cell.declared, *lengths, *states)]
    return [*launcher.output_names, *(n for n in states if n != "state.pos")]


def in_config(config: Config, backward: bool) -> Callable[[Plan], Plan]:
    """A choice for `launcher_for`: `config` in one direction, the planner's in the other."""
    return lambda p: replanned(p, config) if p.request.backward == backward else p


def _widened(x: Tensor | None) -> Tensor | None:
    return x.double() if x is not None and x.dtype.is_floating_point else x


class _Poison:
    """Memory that nothing was written to is NaN inside."""

    memory: Any = torch.utils.deterministic  # type: ignore[attr-defined,unused-ignore]

    def __enter__(self) -> None:
        self.before = (torch.are_deterministic_algorithms_enabled(),
                       torch.is_deterministic_algorithms_warn_only_enabled(),
                       self.memory.fill_uninitialized_memory)  # fmt: skip
        torch.use_deterministic_algorithms(True, warn_only=True)
        self.memory.fill_uninitialized_memory = True

    def __exit__(self, *_: object) -> None:
        on, warn, fill = self.before
        torch.use_deterministic_algorithms(on, warn_only=warn)
        self.memory.fill_uninitialized_memory = fill
