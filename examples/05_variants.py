"""Masks that nobody wrote kernels for: four specs under variants/, each checked and planned.

    python examples/05_variants.py            # float64 on the torch target, seconds a spec
    smac check examples/variants/NAME.toml    # every dtype and both targets, minutes

Each line of a plan is what an H100 would do at the spec's [sizes].
"""

from __future__ import annotations

from pathlib import Path

import smac

VARIANTS = sorted((Path(__file__).resolve().parent / "variants").glob("*.toml"))


def show(path: Path) -> None:
    """Check one spec against its einsum, then print what its plan says."""
    spec = smac.load(path)
    report = smac.check(spec, quick=True, targets=("torch",), dtypes=("float64",), progress=False)
    assert report.ok, str(report)
    plan = smac.compile(spec).plan(device="h100", dtype="bfloat16")
    text = plan.explain(width=88).splitlines()
    print(f"{spec.name}: {spec.about}")
    print("\n".join(f"    {line}" for line in text[: text.index("")]))
    cells = sum(row.cells for row in report.rows)
    print(f"    checked {cells} cells in float64: worst relative error "
          f"{max(row.value for row in report.rows):.1e}\n")  # fmt: skip


def main() -> None:
    for path in VARIANTS:
        show(path)
    print(f"{len(VARIANTS)} variants, all checked")


if __name__ == "__main__":
    main()
