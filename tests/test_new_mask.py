"""A mask registered outside `smac/` runs in every order on both targets; the oracle learns it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAM = HERE / "outside.py"


def run(*command: str, **env: str) -> str:
    """What a process of its own prints: its registrations end with it."""
    given = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{HERE}", **env}
    done = subprocess.run([sys.executable, "-W", "ignore", *command], text=True, check=False,
                          capture_output=True, cwd=HERE.parent, env=given)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(("target", "interpret"), [("torch", "0"), ("triton", "1")])
def test_both_targets_run_it_in_every_order(target: str, interpret: str) -> None:
    errors = json.loads(run(str(PROGRAM), target, TRITON_INTERPRET=interpret))
    assert set(errors) == {"quadratic", "chunked", "linear"}
    assert max(errors.values()) <= 1e-10, errors


def test_without_a_definition_the_oracle_says_what_to_do() -> None:
    said = run("-c", """
import torch, outside, smac
try:
    smac.compile(outside.SPEC).reference(*map(torch.ones, [(1, 4, 1, 2)] * 3 + [(1,)]))
except smac.SmacError as e:
    print(e)
""")
    assert said == ("the oracle does not know the mask 'aging'; teach it with smac.reference."
                    "define_mask('aging', lambda t, s, *parameters: …), or compare with a matrix "
                    "of your own\n")  # fmt: skip


def test_check_takes_it_and_finds_a_wrong_definition() -> None:
    said = run("-c", """
import outside, smac
from smac.reference import define_mask
define_mask("aging", lambda t, s, rate: outside.aging(t, s, 1.01 * rate))
report = smac.check(outside.SPEC, targets=["torch"], dtypes=["float64"], quick=True,
                    draw={"rate": (0, 1)}, progress=False)
print(report.ok, {f.what for f in report.failures})
""")
    assert said == "False {'values'}\n"
    said = run("-c", """
import outside, smac
from smac.reference import define_mask
define_mask("aging", outside.aging)
print(smac.check(outside.SPEC, targets=["torch"], quick=True, draw={"rate": (0, 1)},
                 progress=False).ok)
""")
    assert said == "True\n"


def test_a_state_of_it_is_carried_on() -> None:
    """Its lane reads the position, which goes on where the state's tokens ended."""
    said = run("-c", """
import torch, outside, smac
op = smac.compile(outside.SPEC, order="chunked")
g = torch.Generator().manual_seed(0)
x = [torch.rand(s, generator=g).double() for s in ((1, 9, 1, 2), (1, 9, 1, 2), (1, 9, 1, 2), (1,))]
y, state = op(*(z[:, :6] if z.dim() > 1 else z for z in x), return_state=True)
rest, end = op(*(z[:, 6:] if z.dim() > 1 else z for z in x), initial_state=state, return_state=True)
print(state.pos, end.pos, ((torch.cat([y, rest], 1) - op(*x)).abs().max() < 1e-12).item())
""")
    assert said == "6 9 True\n"


def test_the_oracle_keeps_its_own_masks() -> None:
    from smac.reference import define_mask

    with pytest.raises(ValueError, match="the oracle already has a mask 'decay'"):
        define_mask("decay", lambda t, s: t)
