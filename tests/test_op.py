"""The op itself: options, calls, types, layouts, empty sizes, threads, pickling, rendered files."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import threading
from pathlib import Path

import pytest
import torch
from drawn import SPECS, close, draw, floats

import smac
from smac.runtime import device as devices
from smac.runtime import module

SSD = smac.compile("ssd")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target": "cuda"}, "target: found 'cuda'; expected one of auto, torch, triton"),
        ({"order": "fast"},
         "order: found 'fast'; expected one of auto, linear, quadratic, chunked"),
        ({"tune": "on"}, "tune: found 'on'; expected one of off, quick, full"),
        ({"precision": "tf16"}, "precision: found 'tf16'; expected one of ieee, tf32"),
        ({"chunk": 0}, "chunk: found 0; expected a whole number, at least 1"),
        ({"chunk": True}, "chunk: found True; expected a whole number, at least 1"),
        ({"chunk": 2.0}, "chunk: found 2.0; expected a whole number, at least 1"),
    ],
)  # fmt: skip
def test_options_are_checked(options: dict, text: str) -> None:
    with pytest.raises(smac.PlanError) as e:
        smac.compile("ssd", **options)
    assert str(e.value) == text


@pytest.mark.parametrize("name", SPECS)
def test_outputs_and_gradients_are_the_oracles(name: str) -> None:
    op = smac.compile(name)
    inputs = draw(op.spec, T=21)
    y, exact = op(**inputs), op.reference(**inputs)
    close(y, exact)
    dy = torch.randn_like(exact)
    found, due = (torch.autograd.grad(out, floats(inputs), dy, materialize_grads=True)
                  for out in (y, exact))  # fmt: skip
    for a, b in zip(found, due, strict=True):
        close(a, b)


def test_one_autograd_node() -> None:
    y = SSD(**draw(SSD.spec))
    assert type(y.grad_fn).__name__ == "NodeBackward"
    names = {type(f).__name__ for f, _ in y.grad_fn.next_functions if f is not None}
    assert names == {"AccumulateGrad"}


def test_by_name_by_position_and_absent() -> None:
    inputs = draw(SSD.spec, grad=False)
    y = SSD(**inputs)
    assert torch.equal(SSD(*inputs.values()), y)
    assert torch.equal(SSD(*list(inputs.values())[:3], **dict(list(inputs.items())[3:])), y)
    short = {n: x for n, x in inputs.items() if n not in ("D", "z", "dt_bias")}
    plain = SSD(**short)
    assert torch.equal(SSD(**short, D=None, z=None, dt_bias=None), plain)
    close(plain, SSD.reference(**short))
    zeros = {n: torch.zeros_like(inputs[n]) for n in ("D", "dt_bias")}
    close(SSD(**short, **zeros), plain)


def test_only_what_is_asked_for_has_a_gradient() -> None:
    inputs = draw(SSD.spec, grad=False)
    inputs["x"].requires_grad_()
    y = SSD(**inputs)
    y.sum().backward()
    assert inputs["x"].grad is not None
    assert all(x.grad is None for n, x in inputs.items() if n != "x")
    with torch.no_grad():
        assert SSD(**inputs).grad_fn is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_result_has_the_operands_type_and_a_gradient_its_inputs(dtype: torch.dtype) -> None:
    inputs = draw(SSD.spec, dtype=dtype)
    if dtype.itemsize < 4:
        inputs |= {n: inputs[n].detach().float().requires_grad_() for n in ("A", "D", "dt_bias")}
    y = SSD(**inputs)
    assert y.dtype == dtype
    y.sum().backward()
    assert {n: x.grad.dtype for n, x in inputs.items()} == {n: x.dtype for n, x in inputs.items()}


def test_operands_promote() -> None:
    inputs = draw(SSD.spec, dtype=torch.bfloat16, grad=False)
    assert SSD(**{**inputs, "dt": inputs["dt"].float()}).dtype == torch.float32
    assert SSD(**{**inputs, "z": inputs["z"].float()}).dtype == torch.bfloat16


def test_autocast_changes_nothing() -> None:
    inputs = draw(SSD.spec, dtype=torch.float32)
    y = SSD(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = SSD(**inputs)
        assert torch.equal(again, y)
        found = torch.autograd.grad(again.sum(), floats(inputs))
    due = torch.autograd.grad(y.sum(), floats(inputs))
    assert all(torch.equal(a, b) for a, b in zip(found, due, strict=True))


HEADS_FIRST = """
smac = 1
name = "heads_first"
[inputs]
q = "B H T N"
k = "N B H T"
v = "B H T P"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q"
K = "k"
V = "v"
L = "causal()"
[output]
y = "Y"
twice = "2 * Y"
"""


def test_any_declared_layout_and_several_outputs() -> None:
    op = smac.compile(HEADS_FIRST)
    inputs = draw(op.spec)
    found, due = op(**inputs), op.reference(**inputs)
    assert isinstance(found, tuple)
    for a, b in zip(found, due, strict=True):
        close(a, b)
    weights = [torch.randn_like(y) for y in due]
    grads = torch.autograd.grad(found, floats(inputs), weights)
    for a, b, x in zip(grads, torch.autograd.grad(due, floats(inputs), weights),
                       floats(inputs), strict=True):  # fmt: skip
        assert a.shape == x.shape
        close(a, b)


@pytest.mark.parametrize("sizes", [{"T": 0}, {"B": 0}, {"T": 0, "B": 0}])
@pytest.mark.parametrize("name", SPECS)
def test_nothing_in_nothing_out(name: str, sizes: dict[str, int]) -> None:
    op = smac.compile(name)
    inputs = draw(op.spec, **sizes)
    y = op(**inputs)
    assert y.shape == (sizes.get("B", 2), sizes.get("T", 9), 4, 2)
    grads = torch.autograd.grad(y.sum(), floats(inputs))
    assert all(torch.equal(g, torch.zeros_like(x))
               for g, x in zip(grads, floats(inputs), strict=True))  # fmt: skip


def test_repr_shows_inputs_with_axes() -> None:
    assert repr(smac.compile("packed_ssd", order="linear")) == """\
Op 'packed_ssd': SSD over documents packed into one sequence: no state passes from one to the next
  x        B T H P
  dt       B T H
  A        H
  B        B T G N
  C        B T G N
  ids      B T          integers
  D        H            default 0
  z        B T H P      optional
  dt_bias  H            default 0
→ y        B T H P
  options, order='linear'"""


@pytest.mark.parametrize("again", [lambda op: pickle.loads(pickle.dumps(op)), copy.deepcopy])
def test_travels_as_spec_and_options(again: object) -> None:
    op = smac.compile("ssd", order="chunked", chunk=4)
    inputs = draw(op.spec, grad=False)
    y = op(**inputs)
    other = again(op)  # type: ignore[operator]
    assert other.spec == op.spec
    assert other.options == op.options
    assert not other._launchers
    assert torch.equal(other(**inputs), y)


def test_a_launcher_serves_equal_shapes() -> None:
    op = smac.compile("retnet")
    first = draw(op.spec, seed=1)
    op(**first)
    (launcher,) = op._launchers.values()
    op(**draw(op.spec, seed=2))
    assert list(op._launchers.values()) == [launcher]
    op(**draw(op.spec, T=10))
    assert len(op._launchers) == 2


def test_launchers_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smac.runtime.op.CACHED", 2)
    op = smac.compile("retnet")
    for T in (1, 2, 3, 4):
        op(**draw(op.spec, T=T, grad=False))
    assert [key[2][0][1] for key in op._launchers] == [3, 4]


def test_threads_share_an_op() -> None:
    op = smac.compile("ssd")
    inputs = [draw(op.spec, T=1 + n % 3, seed=n, grad=False) for n in range(6)]
    due = [op.reference(**x) for x in inputs]
    found: dict[int, torch.Tensor] = {}
    start = threading.Barrier(len(inputs))

    def work(n: int) -> None:
        start.wait()
        found[n] = op(**inputs[n])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(inputs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(op._launchers) == 3
    for n, exact in enumerate(due):
        close(found[n], exact)


def test_plan_needs_no_tensors() -> None:
    assert SSD.plan(T=32, device="h100", dtype="bfloat16").order == "quadratic"
    assert SSD.plan(T=8192, device="h100", dtype="bfloat16").order == "chunked"
    with pytest.raises(smac.PlanError, match="found a size for 'Q'"):
        SSD.plan(Q=3)
    with pytest.raises(smac.PlanError) as e:
        SSD.plan(dtype="int8")
    assert str(e.value) == (
        "dtype: found 'int8'; expected one of float16, bfloat16, float32, float64")


def test_an_order_that_the_mask_cannot_do() -> None:
    op = smac.compile("toeplitz", order="chunked")
    with pytest.raises(smac.PlanError, match="generators"):
        op(**draw(op.spec))


def test_source_is_both_programs() -> None:
    text, without = (SSD.source(target="torch", absent=absent) for absent in ((), ("z",)))
    assert text.index("\ndef forward(") < text.index("\ndef backward(")
    heads = [t.split("def forward(")[1].split(")")[0] for t in (text, without)]
    assert len(heads[0].split(",")) == len(heads[1].split(",")) + 1


def test_target_follows_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    monkeypatch.setattr(devices, "_has_triton", lambda: True)
    assert [devices.target_for(d, "auto") for d in (cpu, cuda)] == ["torch", "triton"]
    assert devices.target_for(cuda, "torch") == "torch"
    monkeypatch.setattr(devices, "_has_triton", lambda: False)
    with pytest.raises(smac.LaunchError) as e:
        devices.target_for(cuda, "auto")
    assert str(e.value) == (
        "tensors on cuda:0: target 'triton' is due, but triton is not installed; "
        "install triton, or compile with target='torch'")


def test_triton_does_not_take_cpu_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    op = smac.compile("ssd", target="triton")
    with pytest.raises(smac.LaunchError) as e:
        op(**draw(op.spec))
    assert str(e.value) == (
        "tensors on cpu: target 'triton' runs on CUDA tensors; move them, compile with "
        "target='torch', or set TRITON_INTERPRET=1 before triton is imported")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "smac" / "src"


def test_rendered_files_are_private_and_never_trusted(cache: Path) -> None:
    text = "def forward():\n    return 1\n"
    assert module.load("aa1", text).forward() == 1
    path = cache / "smac_aa1.py"
    assert path.read_text("utf-8") == text
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.write_text("def forward():\n    return 2\n", "utf-8")
    module._modules.pop("aa1")
    assert module.load("aa1", text).forward() == 1
    assert path.read_text("utf-8") == text
    assert [p.name for p in cache.iterdir()] == ["smac_aa1.py"]  # no bytecode, no leftovers


def test_the_text_runs_even_when_the_file_changes_underneath(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = module.write

    def overtaken(digest: str, text: str) -> Path:
        path = written(digest, text)
        path.write_text("raise SystemExit('planted')\n", "utf-8")
        return path

    monkeypatch.setattr(module, "write", overtaken)
    assert module.load("aa2", "def forward():\n    return 3\n").forward() == 3


def test_a_cache_that_cannot_be_written_is_replaced(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.parent.mkdir(exist_ok=True)
    cache.parent.write_text("a file where the folder should be", "utf-8")
    loaded = module.load("aa3", "def forward():\n    return 4\n")
    assert loaded.forward() == 4
    assert not Path(loaded.__file__ or "").is_relative_to(cache.parent)
    assert os.path.exists(loaded.__file__ or "")


def test_source_path_holds_the_source(cache: Path) -> None:
    path = SSD.source_path(target="triton", T=64)
    assert path.parent == cache
    assert path.read_text("utf-8") == SSD.source(target="triton", T=64)


def test_a_digest_is_no_path() -> None:
    with pytest.raises(smac.CodegenError, match="expected letters and digits"):
        module.write("../evil", "")


def test_the_surface_is_all_there() -> None:
    assert all(hasattr(smac, name) for name in smac.__all__)
    assert set(smac.__all__) <= set(dir(smac))
    with pytest.raises(AttributeError, match="module 'smac' has no attribute 'nothing'"):
        _ = smac.nothing  # type: ignore[attr-defined]
