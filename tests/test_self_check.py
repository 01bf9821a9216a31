"""The check at first use: tiny cases of a call's kind, what is remembered, what a mismatch says.

The torch target stands in for kernels from a compiler: the check itself does not ask which it is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import smac
from smac import cachefile, codegen
from smac.masks import build
from smac.runtime import first_use as first_uses
from smac.runtime import self_check
from smac.runtime.build import launcher_for
from smac.runtime.draws import kinds
from smac.runtime.first_use import RESULTS, FirstUse
from smac.runtime.held import worst
from smac.runtime.job import Job, case, lost
from smac.runtime.launch import Launcher
from smac.runtime.self_check import Check, tiny_sizes

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cachefile._miss.cache_clear()
    return tmp_path / "smac"


def first_use(name: str, **more: Any) -> tuple[Launcher, FirstUse]:
    """The launcher of a small call, and what is done at its first use."""
    op = smac.compile(name, **{k: v for k, v in more.items() if k in ("order", "chunk")})
    spec, x = op.spec, torch.randn
    lengths = {"B": 1, "T": 40, "H": 2, "N": 8, "P": 4, "W": 40, "E": 8}
    values = tuple(None if i.may_be_absent else x([lengths.get(a, 1) for a in i.axes])
                   for i in spec.inputs)  # fmt: skip
    ends = torch.tensor([0, 13, 40]) if more.get("packed") else None
    made = launcher_for(spec, op.options, op._signature, values, bool(more.get("state")), False,
                        ends)  # fmt: skip
    return made, FirstUse.of(spec, op.options, values)


def check_of(use: FirstUse) -> Check:
    return Check(use.spec, use.options, use.given)


@pytest.mark.parametrize(("name", "more"), [
    ("ssd", {"state": True}), ("retnet", {"packed": True, "state": True}), ("toeplitz", {}),
    ("linear_attention", {}), ("rwkv6", {}), ("log_linear", {}),
])  # fmt: skip
def test_right_programs_pass_both_ways(cache: Path, name: str, more: dict[str, Any]) -> None:
    launcher, use = first_use(name, **more)
    check = check_of(use)
    for program in (launcher.runnable, launcher.backward_of().runnable):
        tiny = check.tiny(launcher, program)
        assert tiny is not None
        check.judge(launcher, program, tiny)
    assert not (cache / "mismatch").exists()


sizes = st.fixed_dictionaries({"B": st.integers(1, 64), "T": st.integers(1, 5000),
                               "G": st.sampled_from((1, 2, 3, 16)), "each": st.integers(1, 20),
                               "N": st.integers(1, 256), "P": st.integers(1, 256)})  # fmt: skip


@given(sizes, st.sampled_from((1, 16, 32, 64)), st.booleans())
@settings(max_examples=200)
def test_a_tiny_case_is_of_the_same_kind(given: dict[str, int], chunk: int, both: bool) -> None:
    T, H = given["T"], given["G"] * given.pop("each")
    whole = {**given, "H": H, "S": T, "W": 2 * T - 1 if both else T}
    tiny = tiny_sizes(whole, chunk, ("G",))
    assert tiny.keys() == whole.keys()
    assert (tiny["N"], tiny["P"], tiny["S"]) == (whole["N"], whole["P"], tiny["T"])
    assert tiny["W"] == (2 * tiny["T"] - 1 if both or T == 1 else tiny["T"])
    assert tiny["H"] % tiny["G"] == 0
    assert tiny["T"] == T or tiny["T"] >= 2 * chunk
    assert tiny["T"] % chunk == T % chunk
    for a in ("B", "H", "T"):
        assert tiny[a] <= max(whole[a], 32)
        assert (tiny[a] == 1, tiny[a] % 16 == 0) == (whole[a] == 1, whole[a] % 16 == 0) or a == "H"
    same = (whole["G"] == 1, whole["G"] == H)
    assert (tiny["G"] == 1, tiny["G"] == tiny["H"]) == same


def test_what_was_right_is_not_run_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher, check = first_use("retnet")
    runs: list[str] = []
    monkeypatch.setattr(Check, "judge", lambda self, made, r, _: runs.append(r.program.name))
    for _ in range(2):  # the same program on this machine, by these versions
        check(launcher, launcher.runnable)
    assert runs == ["forward"]
    check(launcher, launcher.backward_of().runnable)
    assert runs == ["forward", "backward"]
    assert RESULTS.count() == 2
    monkeypatch.setattr(first_uses, "versions", lambda: {"triton": "another"})
    check(launcher, launcher.runnable)
    assert runs == ["forward", "backward", "forward"]


def test_what_is_known_to_be_right_loads_no_check(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher, check = first_use("retnet")
    monkeypatch.setattr(Check, "judge", lambda *_: None)
    check(launcher, launcher.runnable)
    monkeypatch.delitem(sys.modules, "smac.runtime.self_check")
    check(launcher, launcher.runnable)
    assert "smac.runtime.self_check" not in sys.modules


def test_it_can_be_turned_off(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher, check = first_use("retnet")
    monkeypatch.setenv("SMAC_SELF_CHECK", "0")
    monkeypatch.setattr(Check, "judge", lambda *_: pytest.fail("checked"))
    check(launcher, launcher.runnable)
    assert RESULTS.count() == 0, "what was not checked is not known to be right"


def test_nothing_is_checked_while_a_graph_is_captured(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher, check = first_use("retnet")
    monkeypatch.setattr(first_uses, "capturing", lambda: True)
    monkeypatch.setattr(Check, "judge", lambda *_: pytest.fail("checked"))
    check(launcher, launcher.runnable)


def test_the_backward_is_checked_when_it_is_first_made(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher, _ = first_use("retnet")
    runs: list[str] = []
    launcher.before_use(lambda made, r: runs.append(r.program.name))
    assert runs == ["forward"]
    launcher.backward_of()
    launcher.backward_of()
    assert runs == ["forward", "backward"]


def test_an_op_on_the_cpu_checks_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FirstUse, "__call__", lambda *_: pytest.fail("checked"))
    smac.compile("retnet")(*torch.randn(3, 1, 40, 2, 8), torch.full((2,), 0.9))


def test_a_mismatch_is_loud_and_leaves_a_file_that_shows_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher, check = first_use("retnet", order="linear")
    monkeypatch.setattr(self_check, "versions", lambda: {"torch": "2.11.0", "triton": "3.6.0"})
    monkeypatch.setattr(self_check, "device_name", lambda _: "NVIDIA H100")
    right = codegen.emit

    def wrong(programs: Any, target: str, precision: str = "ieee") -> Any:
        """The forward of the linear order comes out half too large."""
        source = right(programs, target, precision)
        first = programs[0] if isinstance(programs, tuple) else programs
        if first.name == "forward" and any(getattr(s, "kind", "") == "chunked"
                                           for s in first.steps):  # fmt: skip
            text = source.text.replace("    return (out_y,)", "    return (1.5 * out_y,)", 1)
            assert text != source.text
            return replace(source, text=text)
        return source

    monkeypatch.setattr(codegen, "emit", wrong)
    with pytest.raises(smac.CodegenError) as e:
        check(launcher, launcher.runnable)
    (path,) = (cache / "mismatch").iterdir()
    assert path.name == f"retnet_forward_{launcher.runnable.source.digest[:12]}.py"
    assert str(e.value) == (
        "retnet: the kernels of its forward are wrong on NVIDIA H100 (torch 2.11.0, triton 3.6.0): "
        "y is off by 5.0e-01 (rms, relative), more than 1e-03, on random input at B=1 T=40 H=2 N=8 "
        f"P=4. This is a bug of the compiler or of SMAC: please report it with {path}, which shows "
        "it. Until then compile with target='torch' or another order; SMAC_SELF_CHECK=0 runs the "
        "kernels as they are")  # fmt: skip
    assert RESULTS.count() == 0
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert re.search(r"^output 0 +rms error 5.0e-01 of its size  WRONG$", done.stdout, re.M)
    assert done.stdout.count("WRONG") == 1
    text = path.read_text()
    assert "import smac" not in text
    path.write_text(text.replace("return (1.5 * out_y,)", "return (out_y,)"))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_file_makes_no_gradient_of_what_is_frozen(cache: Path) -> None:
    from smac.runtime.job import Job, case
    from smac.runtime.mismatch import reproducer

    launcher, use = first_use("retnet")
    found = launcher.backward_of((True, True, True, False))
    check = check_of(use)
    job = Job(str(check.spec), {}, {"B": 2, "T": 40, "H": 2, "N": 8, "P": 4},
              dict.fromkeys(check.given, "float32"), "cpu", frozen=["gamma"])  # fmt: skip
    made = case(job)
    text = reproducer(made, check._plain_plans(launcher, found.runnable, made), "found.", 0.1)
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / "frozen.py"
    path.write_text(text)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gradient of v" in done.stdout
    assert "gradient of gamma" not in done.stdout


def test_the_file_draws_what_the_check_drew(cache: Path) -> None:
    from smac.runtime.job import Job, case
    from smac.runtime.mismatch import reproducer

    launcher, use = first_use("ssd")
    check = check_of(use)
    job = Job(str(check.spec), {}, {"B": 2, "T": 40, "H": 2, "G": 1, "N": 8, "P": 4},
              dict.fromkeys(check.given, "bfloat16"), "cpu")  # fmt: skip
    made = case(job)
    text = reproducer(made, check._plain_plans(launcher, launcher.runnable, made), "found.", 0.1)
    found: dict[str, Any] = {"__name__": "file"}
    exec(compile(text, "file", "exec"), found)
    drawn = [x for x in made.values if x is not None]
    assert len(drawn) == 5
    assert all(torch.equal(a, b) for a, b in zip(found["drawn"](), drawn, strict=True))


def test_values_of_a_mean_have_any_sign() -> None:
    """A mean of numbers of one sign hardly varies, and its gradients would be roundings."""
    op = smac.compile("linear_attention")
    found = {n: kind for n, _, kind in kinds(op.spec, build(op.spec.contraction.L, op.spec), 0)}
    assert found == {"q": "positive", "k": "positive", "v": "signed"}
    op = smac.compile("retnet")
    found = {n: kind for n, _, kind in kinds(op.spec, build(op.spec.contraction.L, op.spec), 0)}
    assert (found["q"], found["k"], found["v"]) == ("signed", "signed", "signed")


def test_digits_that_any_computation_loses_are_let_pass() -> None:
    """V of one sign: bfloat16 costs the gradient of q a third of itself, by the plainest code; that
    is no fault of a kernel. Zeros are one, whatever is lost."""
    op = smac.compile("linear_attention", target="torch")
    sizes = {"B": 1, "T": 172, "S": 172, "H": 2, "N": 48, "P": 40}
    job = Job(str(op.spec), {"target": "torch"}, sizes, dict.fromkeys("qkv", "bfloat16"), "cpu",
              backward=True)  # fmt: skip
    made = case(job)
    made = replace(made, values=(*made.values[:2], abs(made.values[2])))
    losses = lost(made)
    assert losses.keys() == {f"the gradient of {n}" for n in "qkv"}
    assert losses["the gradient of q"] > 0.1 > losses["the gradient of v"]
    exact = made.run(made.launcher(exact=True), exact=True)()
    noise = torch.randn(exact[0].shape, generator=torch.Generator().manual_seed(0))
    size = exact[0].square().mean().sqrt() * losses["the gradient of q"]
    names, got = [f"the gradient of {n}" for n in "qkv"], [exact[0] + size * noise, *exact[1:]]
    refused = worst(names, got, exact, 0.1)
    assert refused is not None
    assert refused[0] == "the gradient of q"
    assert worst(names, got, exact, 0.1, losses) is None
    got[2] = torch.zeros_like(got[2])
    assert worst(names, got, exact, 0.1, losses) == ("the gradient of v", 1.0)


def test_what_is_lost_is_asked_for_where_a_check_fails(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways, and outputs that are several; a launcher that is wrong stays wrong."""
    launcher, use = first_use("ssd")
    check = check_of(use)
    tiny = check.tiny(launcher, launcher.runnable)
    assert tiny is not None
    assert lost(tiny.case).keys() == {"y"}
    asked: list[object] = []
    monkeypatch.setattr(self_check, "lost", lambda made: asked.append(made) or {"y": 1e-3})
    check.judge(launcher, launcher.runnable, tiny)
    assert not asked
    monkeypatch.setattr(Launcher, "forward", lambda self, x: [torch.ones_like(tiny.exact[0])])
    with pytest.raises(smac.CodegenError, match="y is off by"):
        check.judge(launcher, launcher.runnable, tiny)
    assert asked == [tiny.case]
