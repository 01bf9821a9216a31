"""`make docs`: docs/approximations.md, what approx(…) makes of well-known lag functions.

Every row is a spec that is planned; its error is measured at every lag, and rounded up.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import smac
from smac.errors import PlanError

PAGE = Path(__file__).resolve().parent / "approximations.md"
#: (name, h as the mask language says it, for n = t − s ≥ 0), and what is asked of it: (T, tol).
POWER = "(1 + t - s) ** -0.5"
GAUSS = "exp(-((t - s) / 64) ** 2)"
ROWS = (
    ("power law (KERPLE)", POWER, ((2048, "1e-2"), (2048, "1e-4"), (2048, "3e-6"),
                                   (131072, "1e-4"))),
    ("harmonic", "1 / (1 + t - s)", ((2048, "1e-4"), (2048, "1e-6"))),
    ("logarithmic (KERPLE)", "1 / (1 + 0.5 * log(1 + t - s))",
     ((2048, "1e-4"), (131072, "1e-3"))),
    ("Gaussian", GAUSS, ((2048, "1e-4"), (2048, "1e-6"), (131072, "1e-6"))),
    ("stretched exponential", "exp(-sqrt((t - s) / 16))", ((2048, "1e-4"), (2048, "1e-6"))),
    ("Bessel-like wave", "cos(0.2 * (t - s) - 0.8) / sqrt(1 + 0.3 * (t - s))",
     ((2048, "1e-3"), (2048, "1e-5"))),
    ("polynomial × decay", "(t - s) ** 2 * 0.9 ** (t - s)", ((2048, "1e-2"), (2048, "1e-6"))),
    ("ramp", "maximum(0, 1 - (t - s) / 512)", ((2048, "1e-2"),)),
    ("window", "(t - s) < 64", ((2048, "1e-2"),)),
)  # fmt: skip
SPEC = """
smac = 1
name = "lag"
inputs = {{q = "B T H N", k = "B T H N", v = "B T H P"}}
output = {{y = "Y"}}
sizes = {{T = {T}, H = 16, N = 64, P = 64}}
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q"
K = "k"
V = "v"
L = 'approx(entry("where(t >= s, {h}, 0)"), tol = {tol})'
"""
HEAD = """\
# Certified approximation

A mask that is a function of the distance t − s but has no finite state, such as the power law
(1 + n)^-½, runs quadratically: `toeplitz`, or `entry("…")`. Asked to, SMAC fits exponentials to it:

```toml
L = 'approx(entry("where(t >= s, (1 + t - s) ** -0.5, 0)"), tol = 1e-4) * document(ids)'
```

The fit is a mask of finite rank: every order takes it, backward included. It is made when a call
is planned, for T rounded up to a power of two, from the poles of a sampled Hankel matrix (Ho and
Kalman 1966): a real pole is a decay, a pair of complex ones two lanes of a decay that turns.
Nothing about it is believed: |L − fit| is measured at every lag below that T, in float64, on the
very numbers that the kernels get, and must be at most `tol`, which is absolute. Then, by Cauchy and
Schwarz,

    ‖Y − exact Y‖ ≤ max |L − fit| · ‖Q‖ ‖K‖ ‖V‖        Frobenius norms of one head

times the largest |entry| of whatever else multiplies the fit in L. `plan.explain()` prints both.
Where no rank up to `max_rank` does, the plan is an error that says which rank would have.

- It is never applied unasked.
- `op.reference` stays exact: it answers with the L that was asked for, so that `op(…)` differs from
  it by the approximation, within the bound. `smac check` holds kernels to the fit at 1e-10, and the
  fit to its bound.
- What the mask reads must be known when planning: numbers. A learnt h, in `approx(toeplitz(h))`,
  is fitted by `fitted = op.refit(h=h)`, one fit a head, and again after every change of h: the
  fitted op refuses an h that is another tensor or was written to since.
- The coefficients are constants: no gradient flows through a fit, and an h that requires one is
  refused. Train h without `approx`, fit it for inference.
- `op.refit(T=…)` also fixes a fit of numbers for sequences of up to T tokens: the fitted op has
  states (`step`, `initial_state`); beyond T tokens the bound is not measured.
- A fit that turns reads positions. A state carries them on, in `pos`; `cu_seqlens` does not restart
  them, so that packed sequences of such a fit go by `document(ids)`.
- Float32 rounding comes on top of the bound; `explain` estimates it from the sum of |coefficients|.
- Below the T at which `smac plan` says that the quadratic order wins, the exact mask is the faster.

| h[n], n = t − s | T | tol | rank | of it, decays + damped waves | max \\|L − fit\\|, at most |
|---|---|---|---|---|---|
"""


def row(name: str, h: str, T: int, tol: str) -> str:
    """A line of the table: a fit, or why there is none."""
    op = smac.compile(SPEC.format(T=T, h=h, tol=tol))
    formula = h.replace("(t - s)", "n").replace("t - s", "n")
    head = f"| {name}: `{formula}` | {T} | {tol} |"
    try:
        (fit,) = op.plan(device="h100").fits
    except PlanError as e:
        return f"{head} refused | | {refusal(str(e))} |"
    waves = sum(1 for m in fit.modes if m.angle)
    return f"{head} {fit.rank} | {len(fit.modes) - waves} + {waves} | {up(fit.error)} |"


def refusal(message: str) -> str:
    """The end of the error: what rank would be needed."""
    return message.rpartition("; ")[2]


def up(x: float) -> str:
    """x in two digits, rounded up."""
    power = math.floor(math.log10(x)) - 1
    return f"{math.ceil(x / 10.0**power - 1e-9) * 10.0**power:.1e}"


def lines(longest: int | None = None) -> Iterator[str]:
    """The table's lines, as one BLAS thread makes them; of sequences of at most `longest` tokens.

    How a BLAS splits its sums decides over the last digit of an error, and over more of it where
    poles coincide: where there may be several threads, a child makes the lines."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        code = ("from docs import approximations as a\n"
                f"print(*a.lines({longest}), sep='\\n')")  # fmt: skip
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PAGE.parents[1])}
        done = subprocess.run([sys.executable, "-c", code], env=env, text=True, check=True,
                              stdout=subprocess.PIPE)  # fmt: skip
        yield from done.stdout.splitlines()
        return
    for name, h, asked in ROWS:
        yield from (row(name, h, T, tol) for T, tol in asked if longest is None or longest >= T)


def page() -> str:
    """The whole text."""
    return HEAD + "".join(f"{line}\n" for line in lines())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
