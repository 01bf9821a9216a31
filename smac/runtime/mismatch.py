"""A self-check that failed, as a file that shows it: the exported op, and the input that was drawn.

Non-goals: the check (self_check.py). Packed sequences and states are not exported, so the file has
the same kernels without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from smac.cachefile import cache_dir, own, replace
from smac.codegen.env import render
from smac.runtime.draws import kinds
from smac.runtime.export import standalone

if TYPE_CHECKING:
    from pathlib import Path

    from smac.plan.types import Plan
    from smac.runtime.job import Case

_MAIN = '\n\nif __name__ == "__main__":\n    self_test()\n'


def write(name: str, text: str) -> Path:
    """Put the file into the user's cache; where it lies."""
    path = own(cache_dir() / "mismatch") / f"{name}.py"
    replace(path, text.encode())
    return path


def reproducer(made: Case, plans: tuple[Plan, Plan], found: str, tolerance: float) -> str:
    """The file's text. `plans`: forward and backward, without states; `found`: what was wrong."""
    spec, r = made.spec, plans[0].request
    text = standalone(spec, *plans, made.options.precision).removesuffix(_MAIN)
    sizes = {**made.job.sizes, "S": made.job.sizes["T"]}
    dtypes = dict(zip((i.name for i in spec.inputs),
                      (None if x is None else str(x.dtype) for x in made.values),
                      strict=True))  # fmt: skip
    parameters = [i.name for i in r.spec.inputs]
    taken = text.count(f"\ndef {spec.name}_op(")
    return render(
        "mismatch.py.jinja", exported=text.rstrip(), found=found, tolerance=tolerance,
        device="cuda" if torch.device(made.job.device).type == "cuda" else "cpu",
        sizes=" ".join(f"{a}={n}" for a, n in made.job.sizes.items() if a != "S"),
        name=f"{spec.name}_op" if taken else spec.name, names=parameters,
        frozen=list(plans[1].frozen),
        draws=[_line(axes, kind, sizes, dtypes[n])
               for n, axes, kind in kinds(r.spec, r.mask, made.way)],
    )  # fmt: skip


def _line(axes: tuple[str, ...], kind: str, sizes: dict[str, int], dtype: str | None) -> str:
    """The expression of one input, as draws.py draws it."""
    shape = ", ".join(str(sizes[a]) for a in axes)
    if kind == "ids":
        along = ", ".join("-1" if a == "T" else "1" for a in axes)
        return (f"(torch.arange({sizes['T']}) // 7).reshape({along}).expand({shape})"
                f".contiguous().to({dtype})")  # fmt: skip
    text = {"signed": f"(values({shape}) * signs({shape}))", "negative": f"(-values({shape}))",
            "positive": f"values({shape})"}[kind]  # fmt: skip
    return f"{text}.to({dtype})"
