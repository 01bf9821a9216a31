"""Ops inside torch.compile: one graph, the bits of eager calls, torch's checks of custom ops."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from drawn import COUNTED, LEVELS, SIZES, STATEFUL, draw, floats, token
from torch import Tensor

import smac
from smac.runtime.library import _op, text_of

#: What must hold of a custom op; static shapes, so that each call is traced once.
CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor",
          "test_aot_dispatch_static")  # fmt: skip
ENDS = torch.tensor([0, 4, 4, 9])


def arguments(name: str, kind: str, target: str = "torch", device: str = "cpu",
              dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:  # fmt: skip
    """What smac::call gets for a call of `name`: "plain", with a "last" state, "between" two
    states, one "step", or "packed" sequences between states."""
    op = smac.compile(name, target=target)
    inputs = draw(op.spec, dtype=dtype)
    if kind == "step":
        inputs = token(op.spec, inputs, 0)
    if kind == "packed":
        batched = {i.name for i in op.spec.inputs if "B" in i.axes}
        inputs = {n: x[:1] if n in batched else x for n, x in inputs.items()}
    inputs = {n: x.detach().to(device).requires_grad_(x.is_floating_point())
              for n, x in inputs.items()}  # fmt: skip
    fields, state, pos = "", [], 5 if name in COUNTED and kind in ("between", "step") else 0
    if kind in ("between", "step", "packed"):
        have = {a for i in op.spec.inputs for a in i.axes}
        sizes = {a: n for a, n in SIZES.items() if a in have} | {"B": 3 if kind == "packed" else 2}
        sizes |= {} if op.spec.levels is None else {op.spec.levels: LEVELS}
        parts = [(n, x) for n, x in op.init_state(dtype=dtype, device=device, **sizes)._parts()
                 if isinstance(x, Tensor)]  # fmt: skip
        fields = ",".join(n for n, _ in parts)
        state = [x.requires_grad_(x.is_floating_point()) for _, x in parts]
    ends = ENDS.to(device) if kind == "packed" else None
    return (op._text, ",".join(inputs), list(inputs.values()), ends, fields, state, pos,
            kind != "plain", kind == "step")  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), [
    ("ssd", "plain"), ("toeplitz", "plain"), ("multiscale", "last"), ("linear_attention", "last"),
    ("ssd", "between"), ("packed_ssd", "between"), ("packed_ssd", "step"), ("gla", "step"),
    ("linear_attention", "packed"), ("packed_ssd", "packed"), ("cosformer", "last"),
    ("xpos", "between"), ("log_linear", "step"),
])  # fmt: skip
def test_torch_finds_no_fault(name: str, kind: str) -> None:
    """Schema, autograd, fake kernel (shapes, types, strides) and tracing."""
    torch.library.opcheck(torch.ops.smac.call.default, arguments(name, kind), test_utils=CHECKS)


def test_shapes_may_be_symbols() -> None:
    torch.library.opcheck(torch.ops.smac.call.default, arguments("ssd", "plain"),
                          test_utils="test_aot_dispatch_dynamic")  # fmt: skip


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    torch._dynamo.reset()
    made: Callable[..., Any] = torch.compile(function, fullgraph=True,
                                             **{"backend": "aot_eager", **options})  # fmt: skip
    return made


def same(found: Any, due: Any) -> None:
    """Equal bits, in tensors, tuples and states."""
    if isinstance(due, Tensor):
        assert found.dtype == due.dtype and torch.equal(found, due)  # noqa: PT018
    elif isinstance(due, smac.State):
        for part in ("S", "z", "last", "pos"):
            same(getattr(found, part), getattr(due, part))
    elif isinstance(due, tuple):
        for a, b in zip(found, due, strict=True):
            same(a, b)
    else:
        assert found == due


def gradients(y: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad((y * torch.arange(y.shape[-1])).sum(), leaves)


def test_values_and_gradients_in_one_graph() -> None:
    """By name and in order, an optional input absent; around the op, torch's own functions."""
    op = smac.compile("ssd", target="torch")
    inputs = draw(op.spec, dtype=torch.float32)
    del inputs["D"], inputs["dt_bias"]
    leaves = floats(inputs)
    x, rest = inputs["x"], {n: v for n, v in inputs.items() if n != "x"}

    def layer(x: Tensor, rest: dict[str, Tensor]) -> Any:
        return op(2 * x, **rest) + 1

    y, due = compiled(layer)(x, rest), layer(x, rest)
    same(y, due)
    same(gradients(y, leaves), gradients(due, leaves))


def test_inductor_in_one_graph() -> None:
    op = smac.compile("linear_attention", target="torch")
    inputs = draw(op.spec, dtype=torch.float64)
    function = compiled(lambda **x: op(**x), backend="inductor")
    y, due = function(**inputs), op(**inputs)
    same(y, due)
    leaves = floats(inputs)
    same(gradients(y, leaves), gradients(due, leaves))


@pytest.mark.parametrize("name", ["ssd", "packed_ssd", "linear_attention", "cosformer", "xpos"])
def test_states_in_one_graph(name: str) -> None:
    """A last state, with all of its parts; from a state, where the spec can go on; steps."""
    op = smac.compile(name, target="torch")
    inputs = draw(op.spec)

    def last(**x: Tensor) -> Any:
        return op(**x, return_state=True)

    y, state = last(**inputs)
    same(compiled(last)(**inputs), (y, state))
    if name == "cosformer":  # reads size(T)
        return

    def go_on(state: smac.State, **x: Tensor) -> Any:
        return op(**x, initial_state=state, return_state=True)

    state = state.detach()
    leaves = [*floats(inputs), state.S.requires_grad_()]
    found, due = compiled(go_on)(state, **inputs), go_on(state, **inputs)
    same(found, due)
    same(*(gradients(y, leaves) for y, _ in (found, due)))

    state = state.detach()
    one = {n: x.detach() for n, x in token(op.spec, inputs, 1).items()}
    due = op.step(state, **one)
    same(compiled(lambda state, **x: op.step(state, **x))(state, **one), due)
    y, written = compiled(lambda state, **x: op.step(state, **x, out_state=state))(state, **one)
    same((y, written), due)
    assert torch.equal(state.S, due[1].S)


def test_packed_sequences_in_one_graph() -> None:
    op = smac.compile("packed_ssd", target="torch")
    inputs = {n: x[:1] if x.dim() > 1 else x for n, x in draw(op.spec).items()}

    def packed(ends: Tensor, **x: Tensor) -> Any:
        return op(**x, cu_seqlens=ends, return_state=True)

    same(compiled(packed)(ENDS, **inputs), packed(ENDS, **inputs))


def test_another_length_is_the_same_graph() -> None:
    """Where lengths are dynamic, T is a symbol of the graph."""
    op = smac.compile("linear_attention", target="torch")
    function = compiled(lambda **x: op(**x), dynamic=True)
    for T in (9, 12, 31):
        x = {n: torch.randn(2, T, 2, 3) for n in ("q", "k", "v")}
        with torch.compiler.set_stance("default" if T == 9 else "fail_on_recompile"):
            same(function(**x), op(**x))


@pytest.mark.parametrize("in_a_tensor", [False, True])
def test_another_position_is_the_same_graph(in_a_tensor: bool) -> None:
    """A number is a symbol of the graph from the second on; a tensor is always an input."""
    op = smac.compile("xpos", target="torch")
    inputs = {n: x.detach() for n, x in draw(op.spec).items()}
    y = op(**inputs)
    function = compiled(lambda state, **x: op.step(state, **x))
    state = op.init_state(B=2, H=4, N=3, P=2, dtype="float64")
    if in_a_tensor:
        state = replace(state, pos=torch.tensor(0))
    for t in range(9):
        with torch.compiler.set_stance("default" if t < 2 else "fail_on_recompile"):
            row, state = function(state, **token(op.spec, inputs, t))
        assert torch.allclose(row, y[:, t], rtol=0, atol=1e-12)
        assert state.pos == t + 1


def test_an_op_is_its_text() -> None:
    op = smac.compile("ssd", target="torch", chunk=16, precision="tf32")
    again = _op(text_of(op.spec, op.options))
    assert (again.spec, again.options) == (op.spec, op.options)
    assert _op(op._text) is again


def test_misfits_are_said_while_tracing() -> None:
    op = smac.compile("linear_attention", target="torch")
    x = draw(op.spec)
    x["v"] = x["v"][:, 1:]
    with pytest.raises(Exception, match=r"v has axes B T H P: expected T = 9 \(as q\), got 8"):
        compiled(lambda **x: op(**x))(**x)


def test_no_double_backward() -> None:
    args = arguments("linear_attention", "plain")
    y = torch.ops.smac.call(*args)[0]
    (g,) = torch.autograd.grad((y * y).sum(), args[2][:1], create_graph=True)
    with pytest.raises(RuntimeError, match=r"call_backward.* no autograd formula was registered"):
        g.sum().backward()


def test_ops_of_any_spec_need_no_compiler() -> None:
    """torch._dynamo, which takes seconds to import, stays out until someone compiles."""
    code = "import sys, smac.runtime.op; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_stateful_spec_has_a_fake_kernel_of_its_shapes() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    for name in STATEFUL:
        args = arguments(name, "last")
        real = torch.ops.smac.call(*args)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = torch.ops.smac.call(*args[:2], [mode.from_tensor(x) for x in args[2]], *args[3:])
        assert [(x.shape, x.dtype, x.stride()) for x in real] == [
            (x.shape, x.dtype, x.stride()) for x in fake], name  # fmt: skip
