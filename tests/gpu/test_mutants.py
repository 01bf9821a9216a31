"""The machinery of planted mutations: operators, planting, verdicts; a few mutants, interpreted."""

from __future__ import annotations

import ast
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import mutants
import operators
import planting
from operators import Mutation

ROOT = Path(__file__).resolve().parents[2]
RETNET = planting.Case("retnet", "chunked", True)
TINY = {"B": 1, "T": 21, "H": 1, "N": 5, "P": 3}
#: Known mutants of retnet's kernels: what becomes of them in float64, and in float32 by the suite.
KNOWN = {
    "decay forgotten": ("drop a factor", "b_all0 * b_state0", "b_state0", "changed", True),
    "initial state lost": ("empty a load", None, "* 0", "changed", True),
    "cast that float64 does not need": ("drop a cast", "b_sum0.to(ACC)", "b_sum0", "equal", False),
}


def kernel(body: str) -> str:
    """A module with one jitted function."""
    return f"import triton\n@triton.jit\ndef forward_x(a, b, n_T):\n    {body}\n"


@pytest.mark.parametrize(
    ("operator", "old", "new"),
    [
        ("flip a comparison", "c = a < b", "c = ((a) <= (b))"),
        ("drop a mask", "c = tl.load(a, mask=b, other=0)",
         "c = (tl.load(a, mask=b == b, other=0))"),
        ("drop a where", "c = tl.where(b, a, 0.0)", "c = (a)"),
        ("drop an exp", "c = tl.exp2(a - b)", "c = (a - b)"),
        ("shift an index", "c = a * C", "c = ((a + 1) * C)"),
        ("drop a cast", "c = a.to(OP)", "c = (a)"),
        ("shorten a loop", "for i in range(a, b): pass", "for i in (range((a) + 1, b)): pass"),
        ("drop a term", "c = a + b", "c = (a)"),
        ("flip a sign", "c = a + b", "c = ((a) - (b))"),
        ("drop a factor", "c = a * b", "c = (a)"),
        ("forget what was there", "a += b", "a = b"),
        ("empty a load", "c = tl.load(a)", "c = (tl.load(a) * 0)"),
        ("swap rows and columns", "c = a[:, None]", "c = (a[None, :])"),
        ("drop a transpose", "c = tl.trans(a)", "c = (a)"),
        ("change a number", "c = a * 0.5", "c = a * (0.25)"),
    ],
)  # fmt: skip
def test_what_each_operator_does(operator: str, old: str, new: str) -> None:
    found = [m for m in operators.mutations(kernel(old)) if m.operator == operator]
    assert operators.planted(kernel(old), found[0]) == kernel(new)
    assert not operators.fits(kernel(new), found[0])


def test_every_operator_is_tested() -> None:
    marks = test_what_each_operator_does.pytestmark  # type: ignore[attr-defined]
    assert {p[0] for p in marks[0].args[1]} == set(operators.OPERATORS)


def test_mutants_are_python_on_the_same_lines() -> None:
    """Of a real module: what is planted parses, differs, and moves no line; nothing else fits."""
    text, _ = planting.rendered(planting.Case("ssd", "chunked"), planting.SIZES[0])
    found = operators.mutations(text)
    assert len(found) == len(set(found)) > 1000
    assert {m.operator for m in found} == set(operators.OPERATORS)
    for m in random.Random(0).sample(found, 12):
        made = operators.planted(text, m)
        ast.parse(made)
        assert made != text
        assert made.count("\n") == text.count("\n")
    other = Mutation("forward_kernel", "flip a sign", "x = a + b", 0, 0, "a + b", "a - b")
    with pytest.raises(ValueError, match="no place for"):
        operators.planted(text, other)


def test_a_seed_draws_the_same_mutants_and_spreads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = (planting.Case("retnet", "chunked"), planting.Case("retnet", "quadratic"))
    monkeypatch.setattr(mutants, "CASES", cases)
    one, same, other = ([str(m) for m in mutants.drawn(seed, 24)] for seed in (0, 0, 1))
    assert one == same
    assert one != other
    assert len(set(one)) == 24
    used = {m.template for m in mutants.drawn(0, 24)}
    assert used >= {"sweep", "lane_grad", "pointwise", "tiles", "functions"}


def test_verdicts_and_the_score() -> None:
    changed, died = {"what": "changed", "how": ""}, {"failed": "ran past 9 s", "raised": False}
    caught, missed = {"caught": True, "how": ""}, {"caught": False, "how": ""}
    for compared, tried, expected in (
        (changed, caught, "caught"), (changed, missed, "missed"), (changed, died, "caught"),
        (died, missed, "missed"), ({"what": "equal"}, None, "equal"), (None, None, "left"),
        ({"what": "stillborn"}, None, "stillborn"), (changed, None, "left"),
        ({"failed": "AssertionError: x", "raised": True}, None, "broken"),
    ):  # fmt: skip
        assert mutants.verdict(compared, tried) == expected
    assert mutants.score(["caught"] * 3 + ["missed"] + ["equal", "stillborn"]) == (3, 4, 0.75)
    assert mutants.score(["equal"]) == (0, 0, 0.0)


def known() -> dict[str, Mutation]:
    """The mutations of KNOWN."""
    found = [m for group in planting.drawable(RETNET, TINY).values() for m in group
             if m.function == "forward_kernel"]  # fmt: skip
    made = {}
    for about, (operator, old, new, _, _) in KNOWN.items():
        fit = [m for m in found if m.operator == operator and m.new.endswith(new) and (
            m.old == old if old else "p_state" in m.statement or "S0" in m.statement)]  # fmt: skip
        made[about] = fit[-1] if old else fit[0]  # what wide types take comes last
    return made


def test_known_mutants_are_changed_and_caught() -> None:
    """Interpreted, in a child: in float64 against the sound op, in float32 by a cell."""
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-W", "ignore", str(Path(__file__).resolve())], env=env,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["sound"] == ["equal", False]
    for about, (*_, what, caught) in KNOWN.items():
        assert found[about] == [what, caught], about


def main() -> None:
    """In the child: each known mutant, and none."""
    cell = ("retnet", "chunked", "float32", TINY, True, None)
    found = {}
    for about, m in {"sound": None, **known()}.items():
        compared = planting.compare((RETNET, m, (TINY,)))
        tried = planting.suite((m, [cell]))
        found[about] = [compared["what"], tried["caught"]]
        print(about, compared, tried, file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
