"""An exported file runs alone (`python -I`: no smac, no environment) and tests itself."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from drawn import CHUNKED, SPECS, close, draw, floats

import smac

#: A spec whose chunked order has short chunks, so that its own test is quick.
SHORT = {"order": "chunked", "chunk": 16}


def alone(path: Path) -> subprocess.CompletedProcess[str]:
    """The file, run where nothing of this checkout can be imported."""
    return subprocess.run([sys.executable, "-I", str(path)], cwd=path.parent, text=True,
                          timeout=300, capture_output=True, check=False)  # fmt: skip


def imported(path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def imports(text: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(text)))
    return {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names} | {
        str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)}  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_the_file_tests_itself_and_is_the_op(name: str, tmp_path: Path) -> None:
    chunks = SHORT if name in CHUNKED and name != "gamma_memory" else {}
    op = smac.compile(name, target="torch", **chunks)
    path = op.export(tmp_path / f"{name}_alone.py", T=64)
    assert imports(path.read_text("utf-8")) == {"math", "torch"}
    module = imported(path)
    module.self_test(T=37)
    inputs = draw(op.spec)
    y, exact = getattr(module, name)(*inputs.values()), op.reference(**inputs)
    close(y, exact)
    found, due = (torch.autograd.grad(out.square().sum(), floats(inputs), materialize_grads=True)
                  for out in (y, exact))  # fmt: skip
    for a, b in zip(found, due, strict=True):
        close(a, b)


def test_it_runs_isolated(tmp_path: Path) -> None:
    path = smac.compile("ssd", **SHORT).export(tmp_path / "ssd.py", target="torch", absent=("z",))
    done = alone(path)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[-1] == "ssd: passed at T = 37 on cpu in torch.float64"
    assert [line.split(" largest")[0].strip() for line in lines[:-1]] == [
        "output 0", *(f"gradient of {n}" for n in ("x", "dt", "A", "B", "C", "D", "dt_bias"))]


@pytest.mark.parametrize("program", ["forward", "backward"])
def test_its_own_test_can_fail(program: str, tmp_path: Path) -> None:
    path = smac.compile("retnet", **SHORT).export(tmp_path / "bad.py", target="torch")
    text = path.read_text("utf-8")
    call = f"{program}(*_canonical("
    assert text.count(call) == 1
    line = next(x for x in text.splitlines() if call in x)
    fault = line.replace(f"{program}(", f"_scaled({program}(") + ")"
    scaled = "\n\ndef _scaled(xs):\n    return tuple(1.001 * x for x in xs)\n"
    path.write_text(text.replace(line, fault).replace("\n\nclass _Op", f"{scaled}\n\nclass _Op"),
                    encoding="utf-8")  # fmt: skip
    done = alone(path)
    assert done.returncode != 0
    what = "output 0" if program == "forward" else "gradient of q"
    assert f"AssertionError: {what}" in done.stderr


HOSTILE = '''
smac = 1
name = "forward"
about = """a "quoted" \\\\ text\"""
[inputs]
torch = "B H T N"
v = "B T H P"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "torch"
K = "torch"
V = "v"
L = "causal()"
[output]
y = "Y"
other = "v - Y"
'''


def test_names_and_prose_do_not_break_the_file(tmp_path: Path) -> None:
    op = smac.compile(HOSTILE, target="torch", **SHORT)
    module = imported(op.export(tmp_path / "odd.py", B=1, T=64, H=2, N=4, P=4))
    module.self_test(T=20)
    inputs = draw(op.spec)
    for a, b in zip(module.forward_op(*inputs.values()), op.reference(**inputs), strict=True):
        close(a, b)


def test_a_triton_file_imports_triton_and_nothing_else_of_ours(tmp_path: Path) -> None:
    path = smac.compile("ssd").export(tmp_path / "ssd.py", target="triton", device="h100")
    found = imports(path.read_text("utf-8"))
    assert found <= {"math", "torch", "triton", "triton.language", "__future__"}
    assert "triton" in found
