"""A mutation planted in what is rendered; what it changes in float64; what the suite says of it.

Non-goals: which mutants there are (`mutants.py`), what a mutation is (`operators.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import operators
import run
import templates_of

#: Beyond this part of the scale a result is another one.
CHANGED = 1e-9


@dataclass(frozen=True)
class Case:
    """What sources are drawn from: spec, order (as run.py names it), with states, schedule of
    packed sequences (None where there are none)."""

    spec: str
    order: str
    state: bool = False
    packed: str | None = None

    def __str__(self) -> str:
        packed = ["packed", self.packed] if self.packed else []
        return " ".join([self.spec, self.order, *packed])


CASES = (
    Case("retnet", "chunked", True), Case("ssd", "chunked", True),
    Case("linear_attention", "chunked", True), Case("multiscale", "chunked", True),
    Case("retnet", "chunks", True), Case("packed_ssd", "chunks", True),
    Case("ssd", "segmented", True), Case("hydra", "chunked"), Case("mamba3", "chunks", True),
    Case("nine_decays", "chunks", True),
    Case("gla", "chunked", True), Case("per_value", "chunked", True),
    Case("grouped_gla", "chunked"),
    Case("ssd", "quadratic"), Case("toeplitz", "quadratic"), Case("packed_ssd", "quadratic"),
    Case("gla", "linear", True), Case("retnet", "linear", True), Case("hydra", "quadratic"),
    Case("ssd", "chunked", True, "sweep"), Case("ssd", "chunked", True, "chunks"),
    Case("gla", "chunked", True, "sweep"), Case("toeplitz", "quadratic", False, "auto"),
    Case("ssd", "linear", True, "tokens"),
)  # fmt: skip
#: Sizes of the float64 comparison: ragged, whole tiles, narrow. Others than those of run.py.
SIZES = (
    {"B": 2, "T": 203, "H": 4, "G": 2, "N": 40, "P": 48},
    {"B": 1, "T": 128, "H": 2, "G": 1, "N": 64, "P": 64},
    {"B": 3, "T": 70, "H": 2, "G": 2, "N": 17, "P": 5},
)
#: Of packed sequences.
PACKED_SIZES = ({"B": 1, "T": 203, "H": 4, "G": 2, "N": 40, "P": 48},)


@contextmanager
def planting(m: operators.Mutation | None) -> Iterator[list[int]]:
    """Every module that is rendered has `m` in it, where it fits; yields how many had."""
    import smac.codegen
    from smac.codegen.source import checked

    real, fitted = smac.codegen.emit, [0]

    def emit(*args: Any, **kw: Any) -> Any:
        source = real(*args, **kw)
        if m is None or not operators.fits(source.text, m):
            return source
        fitted[0] += 1
        return checked(operators.planted(source.text, m), source.target, source.functions)

    smac.codegen.emit = emit
    try:
        yield fitted
    finally:
        smac.codegen.emit = real


def trial_for(case: Case, sizes: dict[str, int], seed: int, dtype: str = "float64") -> Any:
    """A case's op and inputs; with hard decays, where they are inputs, at odd seeds."""
    from measure import trial_of

    return trial_of(run.TEXTS.get(case.spec, case.spec), case.order, dtype, sizes,
                    schedule=case.packed or "auto",
                    chunk=32 if case.packed and case.order != "linear" else None,
                    state=case.state and not case.packed, special=seed % 2 == 1,
                    seed=seed)  # fmt: skip


def results(case: Case, sizes: dict[str, int], seed: int, dtype: str = "float64") -> list[Any]:
    """Outputs, last states and gradients of a case, on the CPU in float64."""
    import torch

    from smac.testing.properties import ours

    trial = trial_for(case, sizes, seed, dtype)
    made = (packed_results(trial, case.state) if case.packed else
            [x for group in ours(trial) for x in group])  # fmt: skip
    return [x.detach().to("cpu", torch.float64) for x in made]


def packed_results(trial: Any, state: bool) -> list[Any]:
    """Outputs, last states and gradients of four sequences, an empty one and one of a token."""
    import torch

    T = trial.cell.size("T")
    ends = torch.tensor([0, T // 3, T // 3, T // 3 + 1, T], device=trial.device)
    made = trial.op(**trial.inputs, cu_seqlens=ends, return_state=state)
    outputs = [made[0], made[1].S] if state else [made]
    leaves = [x for x in trial.inputs.values() if x is not None and x.requires_grad]
    weights = [torch.linspace(-1, 1, y.numel(), device=y.device, dtype=y.dtype).view(y.shape).cos()
               for y in outputs]  # fmt: skip
    found = torch.autograd.grad(outputs, leaves, weights, allow_unused=True)
    return [*outputs, *(x for x in found if x is not None)]


def difference(one: list[Any], other: list[Any]) -> float:
    """The largest difference, relative to the scale of its tensor; infinite beside a NaN."""
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        if not a.numel():
            continue
        off = (a - b).abs().max().item() / max(1e-30, a.abs().max().item())
        worst = max(worst, off if off == off else float("inf"))
    return worst


def compare(
    job: tuple[Case, operators.Mutation | None, tuple[dict[str, int], ...]],
) -> dict[str, Any]:
    """The float64 comparison of one mutant (None: of the sound op with itself)."""
    case, m, all_sizes = job
    worst, fitted = 0.0, 0
    for seed, sizes in enumerate(all_sizes):
        sound = results(case, sizes, seed)
        try:
            with planting(m) as count:
                made = results(case, sizes, seed)
        except Exception as e:
            what = "stillborn" if _does_not_compile(e) else "changed"
            return {"what": what, "how": f"{type(e).__name__}: {e}"[:200]}
        fitted += count[0]
        worst = max(worst, difference(sound, made))
        if worst > CHANGED:
            break
    if m is not None and not fitted:
        raise AssertionError(f"never planted: {m}")
    return {"what": "changed" if worst > CHANGED else "equal", "how": f"by {worst:.1e}"}


def _does_not_compile(e: BaseException) -> bool:
    """What Triton's compiler says, itself or by its assembler, or of resources that a GPU lacks."""
    names = {t.__name__ for t in type(e).__mro__}
    return bool(names & {"CompilationError", "PTXASError", "OutOfResources", "MLIRError",
                         "UnsupportedLanguageConstruct"}) or "PassManager" in str(e)  # fmt: skip


def suite(job: tuple[operators.Mutation | None, list[run.Cell]]) -> dict[str, Any]:
    """What cells of run.py say of one mutant: the first that fails."""
    m, cells = job
    for cell in cells:
        with planting(m):
            try:
                run.measured(cell)
            except Exception as e:
                how = f"{cell[2]} T={cell[3]['T']}: {type(e).__name__}: {e}"
                return {"caught": True, "how": how[:200]}
    return {"caught": False, "how": f"{len(cells)} cells passed"}


def suite_cells(case: Case) -> list[run.Cell]:
    """The matrix's cells of a case in float32 and bfloat16, small ones first."""
    found = [c for c in run.cells(case.spec) if (c[1], c[5]) == (case.order, case.packed)
             and c[2] in ("float32", "bfloat16")]  # fmt: skip
    return sorted(found, key=lambda c: (c[3]["T"] * c[3]["H"], c[2] != "float32"))


def rendered(case: Case, sizes: dict[str, int]) -> tuple[str, dict[str, str]]:
    """A case's source, and the template that each kernel of it came from."""
    trial = trial_for(case, sizes, 0)
    how = {"sequences": 4} if case.packed else {}
    given = {a: n for a, n in trial.cell.sizes if a != "S"}
    with templates_of.recorded() as kernels:
        text = trial.op.source("triton", dtype="float64", device="h100", state=case.state, **how,
                               **given)  # fmt: skip
    return text, kernels


def drawable(case: Case, sizes: dict[str, int]) -> dict[str, list[operators.Mutation]]:
    """All mutations of a case's sources, by the template that their function came from."""
    text, kernels = rendered(case, sizes)
    found: dict[str, list[operators.Mutation]] = {}
    for m in operators.mutations(text):
        found.setdefault(kernels.get(m.function, "functions"), []).append(m)
    return found
