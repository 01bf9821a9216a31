"""`make docs`: docs/coverage.md, what target triton takes of every shipped spec.

A cell is a spec in one order and schedule at its own sizes, forward and backward, in four types,
as the planner answers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import smac
from smac.errors import PlanError
from smac.paths import shipped_specs
from smac.plan.choose import make
from smac.spec import Spec

PAGE = Path(__file__).resolve().parent / "coverage.md"
#: Column, order, schedule.
WAYS = (
    ("quadratic", "quadratic", "tiles"), ("chunked: sweep", "chunked", "sweep"),
    ("chunks", "chunked", "chunks"), ("segmented", "chunked", "segmented"),
    ("linear: tokens", "linear", "tokens"), ("fft", "linear", "fft"),
)  # fmt: skip
TYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32", "float64": "f64"}
#: Sizes that a spec of the first table is asked for beside its own.
WIDE = (
    ("ssd", {"N": 512, "P": 512}), ("ssd", {"N": 256, "P": 128}), ("gla", {"N": 512, "P": 64}),
    ("gla", {"N": 256, "P": 512}), ("linear_attention", {"N": 512, "P": 512}),
)  # fmt: skip
HEAD = """\
# What target triton takes

Asked of the planner, by `docs/coverage.py`: each spec at its own sizes, in every order and
schedule, forward and backward. *all* is bfloat16, float16, float32 and float64, with gradients;
types stand alone where others are refused; a number is the reason, below: the text of the
`PlanError`, less what it found. Everything else of a spec (any strides, lengths from 0, heads in
groups, states, packed sequences) is the same in all cells, but where the planner says so.

"""


def refusal(spec: Spec, order: str, schedule: str, dtype: str, backward: bool,
            sizes: Mapping[str, int]) -> str | None:  # fmt: skip
    """Why the planner does not take it; None where it does."""
    try:
        make(spec, sizes=sizes, dtype=dtype, device="h100", target="triton", order=order,
             schedule=schedule, backward=backward)  # fmt: skip
    except PlanError as e:
        why = str(e).removeprefix(f"{spec.name}: ").removeprefix(f"order='{order}' ")
        why = re.sub(r"mask '.*' has none", "the mask has none", why)
        return re.sub(r",? found (N = \d+, P = \d+|rank \d+|\d+)", "", why)
    return None


def cell(spec: Spec, order: str, schedule: str, sizes: Mapping[str, int],
         reasons: dict[str, int]) -> str:  # fmt: skip
    """What one cell says; `reasons` numbers those that came up."""
    taken: dict[str, str] = {}
    whys: dict[str, None] = {}
    for dtype, short in TYPES.items():
        found = [refusal(spec, order, schedule, dtype, b, sizes) for b in (False, True)]
        whys |= {w: None for w in found if w is not None}
        if found[0] is None:
            taken[short] = short if found[1] is None else f"{short} forward"
    numbers = ", ".join(str(reasons.setdefault(w, len(reasons) + 1)) for w in whys)
    if not whys:
        return "all"
    if not taken:
        return f"– ({numbers})"
    return f"{' '.join(taken.values())} ({numbers})"


def page() -> str:
    """The document."""
    reasons: dict[str, int] = {}
    rows = [(n, {}) for n in sorted(shipped_specs())] + [(n, dict(s)) for n, s in WIDE]
    lines = [HEAD.rstrip("\n"), "", f"| spec | {' | '.join(w for w, _, _ in WAYS)} |",
             "|---" * (len(WAYS) + 1) + "|"]  # fmt: skip
    for name, sizes in rows:
        spec = smac.load(name)
        at = "".join(f" {a} = {n}" for a, n in sizes.items())
        cells = [cell(spec, order, schedule, sizes, reasons) for _, order, schedule in WAYS]
        lines.append(f"| {name}{at} | {' | '.join(cells)} |")
    lines += ["", "## Why not", ""]
    lines += [f"{i}. {why}" for why, i in reasons.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
