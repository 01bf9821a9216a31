"""check(): a spec's generated kernels held to the float64 oracle, cell by cell.

For every target, order and dtype: a few fixed cells (two chunk boundaries and a ragged tail,
nothing optional, T = 0), then cells that hypothesis draws and shrinks. Without a GPU, triton
runs interpreted in a child process (TRITON_INTERPRET is read when triton is imported).

Non-goals: speed, the planner's choice.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from smac.certified.resolve import approximations, fit_of, resolve, terms
from smac.errors import PlanError, SmacError
from smac.parse import load
from smac.show import show
from smac.spec import Spec
from smac.testing.cells import Cell, cells, first_cells
from smac.testing.child import device_of, interpreted, run_child, runs_here
from smac.testing.errors import Broken, Error
from smac.testing.report import Failure, Report, Row, Skip

if TYPE_CHECKING:
    from smac.testing.inputs import Recipe

__all__ = ["Report", "check", "replay"]

ORDERS = ("quadratic", "chunked", "linear")
DTYPES = {"torch": ("float64", "float32", "bfloat16"), "triton": ("float64", "float32")}
GPU_DTYPES = ("float32", "bfloat16", "float16")
CHUNK = 16
#: Longer than any drawn cell: what an approx(…) is fitted for.
HORIZON = 256


@dataclass(frozen=True)
class Settings:
    """What `check` was asked, beside the spec; plain enough to be sent to a child as JSON."""

    seed: int = 0
    examples: int = 10
    targets: tuple[str, ...] = ("torch", "triton")
    orders: tuple[str, ...] = ORDERS
    dtypes: tuple[str, ...] | None = None
    quick: bool = False
    draw: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    progress: bool = False


def check(op_or_spec: Any, *, seed: int = 0, examples: int = 10,
          targets: Sequence[str] = ("torch", "triton"), orders: Sequence[str] | None = None,
          dtypes: Sequence[str] | None = None, quick: bool = False,
          draw: Mapping[str, tuple[float, float]] | None = None,
          progress: bool | None = None) -> Report:  # fmt: skip
    """Property-test an op, a `Spec`, or anything that `smac.load` takes.

    `examples`: drawn cells for each (target, order, dtype) beside the fixed ones; interpreted
    triton takes a tenth. `quick`: the fixed cells alone. `draw`: (low, high) of an input, where
    check cannot find values that suit it. `progress`: a bar on stderr (default: on a terminal).
    Raises SpecError, or SmacError when no inputs suit the spec or hypothesis is not installed.
    """
    spec = op_or_spec.spec if hasattr(op_or_spec, "spec") else op_or_spec
    spec = spec if isinstance(spec, Spec) else load(spec)
    for given, known in ((targets, DTYPES), (orders or (), ORDERS)):
        for name in given:
            if name not in known:
                raise SmacError(f"check: found {name!r}; expected one of {', '.join(known)}")
    shown = sys.stderr.isatty() if progress is None else progress
    asked = Settings(seed, examples, tuple(targets), tuple(orders or ORDERS),
                     None if dtypes is None else tuple(dtypes), quick, dict(draw or {}), shown)
    report = Report(spec.name)
    for target in asked.targets:
        one = replace(asked, targets=(target,))
        report += run_here(spec, one) if runs_here(target) else run_child(spec, one)
    return report


def run_here(spec: Spec, asked: Settings) -> Report:
    """`check` in this process, for targets that run here."""
    try:
        import hypothesis  # noqa: F401
    except ImportError:
        raise SmacError("check needs hypothesis: pip install 'smac-kernels[test]'") from None
    from smac.progress import Progress
    from smac.testing.inputs import recipe

    start = time.perf_counter()
    # Kernels are held to the fit of an approx(…) at 1e-10, the fit to what it stands for by its
    # own bound, which the oracle measures again.
    report = _fits_hold(spec)
    spec, _ = resolve(spec, HORIZON)
    made = recipe(spec, asked.draw)
    groups = [(t, o, d) for t in asked.targets for o in asked.orders for d in _dtypes(asked, t)]
    with Progress(len(groups), asked.progress) as bar:
        for target, order, dtype in groups:
            bar.at(f"{spec.name}: {target} {order} {dtype}")
            report += _Group(spec, made, asked, target, order, dtype).run()
    return replace(report, seconds=time.perf_counter() - start, skipped=_joined(report.skipped))


def _fits_hold(spec: Spec) -> Report:
    """A report with a failure for each fit that breaks its bound: L̂ and L by the oracle."""
    import torch

    from smac.reference.dense import mask_matrix
    from smac.reference.values import Scope

    lengths = {"T": HORIZON, "S": HORIZON}
    scope = Scope({}, lengths, frozenset(), {}, torch.float64, torch.device("cpu"))
    failures = []
    for term in approximations(spec.contraction.L):
        made = fit_of(term, spec, HORIZON)
        exact, fitted = (mask_matrix(x, scope).to(("T", "S"))
                         for x in (term, terms(made.modes, HORIZON)))  # fmt: skip
        off = float((exact - fitted).abs().max())
        if not off <= made.error * (1 + 1e-6) + 1e-12:
            said = f"|L - fit| is {off:.3g}, the fit says {made.error:.3g}"
            failures.append(Failure("approximation", said, show(term), ""))
    return Report(spec.name, failures=tuple(failures))


def _dtypes(asked: Settings, target: str) -> tuple[str, ...]:
    on_gpu = device_of(target) == "cuda"
    known = GPU_DTYPES if on_gpu else DTYPES[target]
    return known if asked.dtypes is None else tuple(d for d in asked.dtypes if d in known)


def _joined(skips: tuple[Skip, ...]) -> tuple[Skip, ...]:
    """Equal reasons together."""
    found: dict[tuple[str, str], int] = {}
    for s in skips:
        found[s.what, s.why] = found.get((s.what, s.why), 0) + s.cells
    return tuple(Skip(what, why, n) for (what, why), n in found.items())


class _Group:
    """The cells of one (target, order, dtype)."""

    def __init__(self, spec: Spec, made: Recipe, asked: Settings, target: str, order: str,
                 dtype: str) -> None:  # fmt: skip
        from smac.runtime.op import compile

        self.spec, self.made, self.asked = spec, made, asked
        self.key = (target, order, dtype)
        self.device = device_of(target)
        self.slow = target == "triton" and interpreted()
        self.op = compile(spec, target=target, order=order,
                          chunk=None if order == "linear" else CHUNK)  # fmt: skip
        self.ran = 0
        self.skips: Counter[str] = Counter()
        self.stateful, self.packs = self._stateful(), self._packs()
        self.value, self.gradient = Error(), Error()

    def _stateful(self) -> bool:
        """Whether this order carries states on: two runs of no tokens tell."""

        def two(inputs: Any) -> None:
            op: Any = self.op
            _, state = op(**inputs, return_state=True)
            op(**inputs, initial_state=state)

        return self._can("initial and final states", two)

    def _packs(self) -> bool:
        """Whether this order takes packed sequences: an empty one tells."""
        import torch

        ends = torch.zeros(2, dtype=torch.int32, device=self.device)
        return self._can("packed sequences", lambda x: self.op(**x, cu_seqlens=ends))

    def _can(self, what: str, run: Callable[[Any], object]) -> bool:
        """Whether `run` on inputs of no tokens can be planned; a reason why not is noted."""
        from smac.testing.inputs import draw

        cell = first_cells(self.spec, *self.key, CHUNK, False)[-1]
        sizes = tuple((a, 1 if a == "B" else n) for a, n in cell.sizes)
        try:
            run(draw(self.spec, replace(cell, sizes=sizes), self.made, self.device))
        except PlanError as e:
            self.skips[f"{what}: {e}"] = 0
            return False
        except Exception:  # the cells will say
            return False
        return True

    def run(self) -> Report:
        """The fixed cells, then drawn ones until one breaks."""
        what = f"{self.key[0]} {self.key[1]}"
        failure = None
        for cell in first_cells(self.spec, *self.key, CHUNK, self.stateful, self.slow):
            failure = failure or self._fixed(cell)
        count = 0 if self.asked.quick else self.asked.examples
        count = -(-count // 10) if self.slow else count
        if failure is None and count and self.ran:
            failure = self._drawn(count)
        row = Row(*self.key, self.ran, self.value.relative, self.gradient.relative,
                  max(self.value.ratio, self.gradient.ratio))  # fmt: skip
        skips = tuple(Skip(what, why, n) for why, n in self.skips.items())
        return Report(self.spec.name, (row,) if self.ran or failure else (), skips,
                      (failure,) if failure else ())  # fmt: skip

    def _fixed(self, cell: Cell) -> Failure | None:
        try:
            self._one(cell)
        except Exception as e:
            return self._failure(cell, e)
        return None

    def _one(self, cell: Cell) -> None:
        """Run a cell; what cannot be planned is skipped and counted."""
        from smac.testing.properties import Trial, run_trial

        try:
            errors = run_trial(Trial(self.op, cell, self.made, self.device), self.stateful,
                               self.packs)  # fmt: skip
        except PlanError as e:
            self.skips[str(e)] += 1
            return
        self.ran += 1
        self.value, self.gradient = self.value | errors[0], self.gradient | errors[1]

    def _drawn(self, count: int) -> Failure | None:
        """Cells from hypothesis; the failure of the smallest that breaks."""
        import hypothesis
        from hypothesis import HealthCheck, Phase

        last: list[tuple[Cell, Exception]] = []
        phases = (Phase.generate,) if self.slow else (Phase.generate, Phase.shrink)

        @hypothesis.seed(self.asked.seed)
        @hypothesis.settings(max_examples=count, database=None, deadline=None, phases=phases,
                             suppress_health_check=list(HealthCheck), print_blob=False,
                             report_multiple_bugs=False)
        @hypothesis.given(cells(self.spec, *self.key, CHUNK, self.stateful, self.slow))
        def every(cell: Cell) -> None:
            try:
                self._one(cell)
            except Exception as e:
                last.append((cell, e))
                raise

        try:
            every()
        except Exception as e:
            return self._failure(*last[-1]) if last else self._failure(None, e)
        return None

    def _failure(self, cell: Cell | None, e: Exception) -> Failure:
        what = e.what if isinstance(e, Broken) else f"{' '.join(self.key)} {type(e).__name__}"
        message = e.message if isinstance(e, Broken) else str(e)
        again = "" if cell is None else _again(self.spec, cell)
        return Failure(what, message[:2000], str(cell or self.key), again)


def _again(spec: Spec, cell: Cell) -> str:
    """Python that runs the cell once more."""
    from smac.paths import shipped_specs

    shipped = spec.name in shipped_specs() and load(spec.name).digest == spec.digest
    source = repr(spec.name) if shipped else f"'''{spec}'''"
    return f"from smac.testing.check import Cell, replay\nreplay({source},\n{_folded(cell)})"


def _folded(cell: Cell) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(cell.literal(), 72, initial_indent="  ",
                                   subsequent_indent="    ", break_long_words=False))  # fmt: skip


def replay(spec: Any, cell: Cell, draw: Mapping[str, tuple[float, float]] | None = None) -> None:
    """Run one cell of a report again, here. Raises what broke; interpreted triton needs
    TRITON_INTERPRET=1 in the environment."""
    spec = spec if isinstance(spec, Spec) else load(spec)
    from smac.testing.inputs import recipe

    asked = Settings(draw=dict(draw or {}))
    spec, _ = resolve(spec, HORIZON)
    group = _Group(spec, recipe(spec, asked.draw), asked, cell.target, cell.order, cell.dtype)
    group._one(cell)
