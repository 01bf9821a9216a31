"""Twenty faults planted in templates, one at a time: check must find each; without them it passes.

A fault is one text replaced once in one template. Triton's run in one interpreted child process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from jinja2 import ChoiceLoader, DictLoader

from smac.codegen.env import environment
from smac.paths import templates_dir
from smac.testing.check import Settings, run_here
from smac.testing.report import Report

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` in templates/`file`; `spec` in `order` exercises that line."""

    about: str
    file: str
    old: str
    new: str
    spec: str
    order: str

    @property
    def target(self) -> str:
        return self.file.split("/")[0]


DV_SUM = ('{{ k.slice("dV", k.v, "s0:s1") }} += torch.einsum('
          "{{ contract(k.weights, k.dy, k.vj) }}, w, dYt)\n    {% if k.gathers %}")  # fmt: skip
FAULTS = (
    Fault("decays to a chunk's end count their own token", "torch/lanes.jinja",
          "r{{ l.i }} = _exp(_suffix(a", "r{{ l.i }} = _exp(_from(a", "ssd", "chunked"),
    Fault("a chunk's first decay is dropped", "torch/lanes.jinja",
          '"_exp(a%d.cumsum(%d))" % (l.i', '"_exp(_before(a%d, %d))" % (l.i', "ssd", "chunked"),
    Fault("segment sums count the column's own decay", "torch/helpers.py.jinja",
          "device=a.device).tril(-1)", "device=a.device).tril()", "ssd", "chunked"),
    Fault("documents run into each other", "torch/helpers.py.jinja",
          "torch.where(reset != 0, RESET, a)", "a", "packed_ssd", "chunked"),
    Fault("the ragged tail is left out", "torch/helpers.py.jinja",
          "return out if whole == length else [*out, (whole, length, length - whole)]",
          "return out", "retnet", "chunked"),
    Fault("adjoint states run forward", "torch/lanes.jinja",
          '{{ k.chunk_dim }}{{ ", reverse=True" if reverse }}{{', "{{ k.chunk_dim }}{{",
          "ssd", "chunked"),
    Fault("a decay's gradient misses its own path", "torch/helpers.py.jinja",
          ".tril()[1:, 1:]", ".tril()[1:, :-1]", "ssd", "chunked"),
    Fault("channel decays from the wrong end", "torch/helpers.py.jinja",
          "k0 * _exp(_suffix(a0, -2))\n        _blocks(S, m)",
          "k0 * _exp(a0.cumsum(-2))\n        _blocks(S, m)", "gla", "chunked"),
    Fault("dV keeps the last tile only", "torch/tiles_grad.py.jinja",
          DV_SUM, DV_SUM.replace("+=", "="), "retnet", "quadratic"),
    Fault("a convolution wraps around", "torch/spectra.jinja", "max(2 * n_T - 1, 1)",
          "max(n_T - 1, 1)", "toeplitz", "linear"),
    Fault("the state is not decayed over a chunk", "triton/sweep.py.jinja",
          "b_all{{ lane.i }} * b_state", "b_state", "retnet", "chunked"),
    Fault("the incoming state is read undecayed", "triton/lanes.py.jinja",
          'b_row{{ lane.i }} = {{ "b_out" if x.reverse else "b_in" }}',
          'b_row{{ lane.i }} = {{ "b_in" if x.reverse else "b_out" }}', "retnet", "chunked"),
    Fault("rows take what comes after them", "triton/functions.py.jinja",
          "tl.where(o_lag >= 0, tl.exp2(o_lag * x), 0.0)", "tl.exp2(o_lag * x)",
          "retnet", "chunked"),
    Fault("a reset does not cut the chunk", "triton/rows.py.jinja",
          "-2200.0 if SUM == tl.float64 else -280.0", "0.0", "packed_ssd", "chunked"),
    Fault("a decay's gradient misses the state that crosses", "triton/lanes.py.jinja",
          "b_inside + b_all{{ i }} * tl.sum(b_cross, 0)", "b_inside", "retnet", "chunked"),
    Fault("heads read another group", "triton/macros.py.jinja",
          "// (n_H // n_{{ group }})", "% n_{{ group }}", "ssd", "chunked"),
    Fault("tokens forget to decay", "triton/recurrent.py.jinja",
          "b_state{{ lane.n }} * b_decay{{ lane.n }}", "b_state{{ lane.n }}", "retnet", "linear"),
    Fault("a decay's gradient counts the undecayed state", "triton/recurrent_grad.py.jinja",
          "b_past = tl.where(m_state, b_S * b_decay, 0.0)", "b_past = b_S", "retnet", "linear"),
    Fault("the last tile of a row is left out", "triton/tiles.py.jinja",
          "i_end = {{ x.end }}", "i_end = {{ x.end }} - 1", "retnet", "quadratic"),
    Fault("the mask's gradient forgets dY", "triton/tiles_grad.py.jinja",
          "b_w = b_qk * b_dyv", "b_w = b_qk", "toeplitz", "quadratic"),
)  # fmt: skip
TRITON = [f for f in FAULTS if f.target == "triton"]
TORCH = [f for f in FAULTS if f.target == "torch"]


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """The environment's templates with the fault in them."""
    text = (templates_dir() / fault.file).read_text("utf-8")
    assert text.count(fault.old) == 1, f"{fault.file} holds {fault.old!r} {text.count(fault.old)} ×"
    env = environment()
    sound = env.loader
    assert sound is not None
    spoilt = DictLoader({fault.file: text.replace(fault.old, fault.new)})
    try:
        env.loader = ChoiceLoader([spoilt, sound])
        if env.cache is not None:
            env.cache.clear()
        yield
    finally:
        env.loader = sound
        if env.cache is not None:
            env.cache.clear()


def run(spec: str, target: str, order: str) -> Report:
    """The fixed cells of one order, in float64."""
    from smac.parse import load

    asked = Settings(targets=(target,), orders=(order,), dtypes=("float64",), quick=True)
    return run_here(load(spec), asked)


def test_there_are_twenty_and_all_differ() -> None:
    assert len(FAULTS) == 20
    assert len({(f.file, f.old, f.new) for f in FAULTS}) == 20


@cache
def sound(spec: str, target: str, order: str) -> Report:
    return run(spec, target, order)


@pytest.mark.parametrize("fault", TORCH, ids=lambda f: f.about)
def test_torch_faults_are_found(fault: Fault) -> None:
    assert sound(fault.spec, "torch", fault.order).ok
    with planted(fault):
        report = run(fault.spec, "torch", fault.order)
    assert not report.ok
    assert report.failures


@pytest.fixture(scope="module")
def child() -> dict[str, list[str]]:
    """What check said of each triton fault, and of none ("sound …"), from one child process."""
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(Path(__file__).resolve())], cwd=ROOT, env=env,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("fault", TRITON, ids=lambda f: f.about)
def test_triton_faults_are_found(fault: Fault, child: dict[str, list[str]]) -> None:
    assert child[f"sound {fault.spec} {fault.order}"] == []
    assert child[fault.about]


def _said(report: Report) -> list[str]:
    return [f"{f.what}: {f.message}" for f in report.failures] or (
        [] if report.ok else ["nothing was run"])  # fmt: skip


def main() -> None:
    """In the child: every triton fault, as JSON."""
    found = {}
    for fault in TRITON:
        found[f"sound {fault.spec} {fault.order}"] = _said(sound(fault.spec, "triton", fault.order))
        with planted(fault):
            found[fault.about] = _said(run(fault.spec, "triton", fault.order))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
