"""Packed sequences by cu_seqlens: as if each ran alone, in every order; misfits are named."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import smac
from smac.reference import recurrence, reference
from smac.runtime.state import State
from tests.drawn import SPECS, STATEFUL, close, draw, floats, span

ENDS = (0, 3, 3, 4, 41, 41, 60)
#: What shipped specs do not have: positions of both kinds, transposes, a mask per channel, Z, E.
MASKS = {
    "shifts": ('shift(semiseparable(log_decay = g), "t") + diagonal(u)', "TS"),
    "shifted columns": ('shift(col(u) * semiseparable(log_decay = g), "s")', "TS"),
    "transposed toeplitz": ("transpose(toeplitz(h)) * document(ids)", "TS"),
    "dense": ("dense(M)", "TS"),
    "fourier": ('fourier("cos")', "TS"),
    "window": ("window(size(T) / 2) * decay(exp(w))", "TS"),
    "formula": ('entry("where(t >= s, cos(t * s), 0.5 * t)")', "TS"),
    "both ways": ("semiseparable(log_decay = g) + strict(transpose(decay(exp(w))))", "TS"),
    "sum": ("row(u) * semiseparable(log_decay = g) * document(ids) + decay(exp(w))", "TS"),
    "per channel": ("semiseparable(log_decay = gn)", "TSN"),
    "per value": ("semiseparable(log_decay = gp)", "TSP"),
}
AXES = {"g": "B T H", "u": "B T H", "h": "H W", "M": "H T S", "ids": "B T", "w": "H",
        "gn": "B T H N", "gp": "B T H P"}  # fmt: skip


def spec_of(mask: str, letters: str = "TS", q: str = "B T H N", y: str = "Y",
            head: str = "") -> smac.Spec:  # fmt: skip
    """A spec with inputs q, k, v and those that `mask` names."""
    words = set("".join(c if c.isalnum() else " " for c in mask).split())
    inputs = "".join(f'{n} = "{a}"\n' for n, a in AXES.items() if n in words)
    quoted = mask.replace('"', '\\"')
    return smac.load(
        f'smac = 1\nname = "m"\n{head}[inputs]\nq = "{q}"\nk = "B T H N"\nv = "B T H P"\n{inputs}'
        f'[contraction]\nequation = "TN,SN,SP,{letters}->TP"\nQ = "q"\nK = "k"\nV = "v"\n'
        f'L = "{quoted}"\n[output]\ny = "{y}"\n'
    )


def packed_inputs(spec: smac.Spec, ends: tuple[int, ...], seed: int = 0,
                  **sizes: int) -> dict[str, Tensor]:  # fmt: skip
    """Inputs at B = 1; decays of the specs above shrink."""
    found = draw(spec, seed=seed, B=1, T=ends[-1], **sizes)
    if spec.name == "m":
        with torch.no_grad():
            for n in found.keys() & {"g", "gn", "gp", "w"}:
                found[n].copy_(-found[n].abs())
    return found


def parts_of(result: Any) -> list[Tensor]:
    """Outputs, then the state's floats."""
    if not isinstance(result, tuple):
        return [result]
    y, s = result
    return [y, s.S, *([] if s.z is None else [s.z])]


def agree(op: smac.Op, x: dict[str, Tensor], ends: tuple[int, ...], state: bool) -> None:
    """Outputs, last states and all gradients are the oracle's."""
    more: dict[str, Any] = {"cu_seqlens": torch.tensor(ends, dtype=torch.int32)}
    leaves = floats(x)
    if state:
        _, s = reference(op.spec, x, return_state=True, **more)
        s = State(*(p if p is None or not p.is_floating_point() else p.detach().cos()
                    for p in (s.S, s.z, s.last)))  # fmt: skip
        leaves += [p.requires_grad_() for p in (s.S, s.z) if p is not None]
        more |= {"initial_state": s, "return_state": True}
    got, due = parts_of(op(**x, **more)), parts_of(reference(op.spec, x, **more))
    g = torch.Generator().manual_seed(1)
    weights = [torch.randn(y.shape, generator=g, dtype=y.dtype) for y in due]
    for a, b in zip(got, due, strict=True):
        close(a, b)
    for a, b, leaf in zip(torch.autograd.grad(got, leaves, weights, allow_unused=True),
                          torch.autograd.grad(due, leaves, weights, allow_unused=True),
                          leaves, strict=True):  # fmt: skip
        close(*(torch.zeros_like(leaf) if p is None else p for p in (a, b)))


#: Those whose masks tell one sequence from the next: they read no positions, nor T.
PACKED = tuple(n for n in SPECS if n not in ("cosformer", "gamma_memory", "global_filter",
                                             "log_linear", "prefix_lm", "xpos"))
KEEPS = tuple(n for n in PACKED if n in STATEFUL)
CELLS = [(n, o) for n in PACKED for o in ("quadratic", "chunked", "linear")
         if n in KEEPS or o == "quadratic"]  # fmt: skip


@pytest.mark.parametrize(("name", "order"), CELLS)
def test_every_order_is_the_oracle_with_gradients_and_states(name: str, order: str) -> None:
    op = smac.compile(name, target="torch", order=order, chunk=None if order == "linear" else 16)
    x = packed_inputs(op.spec, ENDS)
    agree(op, x, ENDS, state=False)
    if order != "quadratic":
        agree(op, x, ENDS, state=True)


@pytest.mark.parametrize("name", MASKS)
def test_masks_count_from_where_a_sequence_starts(name: str) -> None:
    spec = spec_of(*MASKS[name])
    x = packed_inputs(spec, ENDS)
    agree(smac.compile(spec, target="torch", order="quadratic", chunk=16), x, ENDS, state=False)
    if name in ("sum", "per channel", "per value"):
        agree(smac.compile(spec, target="torch", order="chunked", chunk=16), x, ENDS, state=True)


@pytest.mark.parametrize(("q", "ids", "y", "head"), [
    ("B E T H N", "B E T", "Y", '[axes]\nE = "batch"\n'), ("B T H N", "T", "Y", ""),
    ("B T H N", "B T", "Y / (1 + Z * Z)", ""),
])  # fmt: skip
def test_states_beside_other_batch_axes_and_normalisers(q: str, ids: str, y: str, head: str,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AXES, "ids", ids)
    spec = spec_of("semiseparable(log_decay = g) * document(ids)", q=q, y=y, head=head)
    op = smac.compile(spec, target="torch", order="chunked", chunk=4)
    agree(op, packed_inputs(spec, (0, 0, 6, 7, 19), E=2), (0, 0, 6, 7, 19), state=True)


def test_sequences_are_states_first_axis_even_where_no_input_has_b() -> None:
    text = str(spec_of("semiseparable(log_decay = g) * document(ids)")).replace("B T", "T")
    spec = smac.load(text)
    agree(smac.compile(spec, target="torch", order="chunked", chunk=4),
          packed_inputs(spec, ENDS), ENDS, state=True)  # fmt: skip
    _, s = smac.compile(spec, target="torch")(
        **packed_inputs(spec, ENDS), cu_seqlens=torch.tensor(ENDS), return_state=True)  # fmt: skip
    assert s.S.shape == (6, 4, 3, 2)
    assert s.last is not None
    assert s.last.shape == (6,)


@settings(max_examples=25, deadline=None, database=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(any),
       st.sampled_from(KEEPS), st.sampled_from(["chunked", "linear"]),
       st.sampled_from([2, 8, 16]), st.integers(0, 99))  # fmt: skip
def test_packed_is_each_sequence_alone(lengths: list[int], name: str, order: str, chunk: int,
                                       seed: int) -> None:
    ends = tuple(sum(lengths[:i]) for i in range(len(lengths) + 1))
    op = smac.compile(name, target="torch", order=order, chunk=None if order == "linear" else chunk)
    x = packed_inputs(op.spec, ends, seed)
    with torch.no_grad():
        y, s = op(**x, cu_seqlens=torch.tensor(ends), return_state=True)
        for i, (a, b) in enumerate(pairwise(ends)):
            alone, end = op(**span(op.spec, x, a, b), return_state=True)
            close(y[:, a:b], alone)
            close(s.S[i : i + 1], end.S)


@pytest.mark.parametrize("name", KEEPS)
def test_the_same_bits_as_alone_where_tiles_align(name: str) -> None:
    ends = (0, 16, 16, 48, 64)
    op = smac.compile(name, target="torch", order="chunked", chunk=16)
    x = packed_inputs(op.spec, ends)
    y, s = op(**x, cu_seqlens=torch.tensor(ends), return_state=True)
    for i, (a, b) in enumerate(pairwise(ends)):
        alone, end = op(**span(op.spec, x, a, b), return_state=True)
        assert torch.equal(y[:, a:b], alone)
        assert torch.equal(s.S[i : i + 1], end.S)


def test_states_go_in_and_out_of_empty_sequences_unchanged() -> None:
    op = smac.compile("ssd", target="torch")
    ends = (0, 0, 5, 5)
    x = packed_inputs(op.spec, ends)
    start = torch.randn(3, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    _, s = op(**x, cu_seqlens=torch.tensor(ends), initial_state=start, return_state=True)
    assert torch.equal(s.S[[0, 2]], start[[0, 2]])
    (slope,) = torch.autograd.grad(s.S[0].sum() + 2 * s.S[2].sum(), start)
    assert torch.equal(slope[0], torch.ones_like(slope[0]))
    assert (slope[1] == 0).all()
    assert torch.equal(slope[2], torch.full_like(slope[2], 2))


def test_no_tokens_give_the_initial_states() -> None:
    op = smac.compile("ssd", target="torch")
    x = packed_inputs(op.spec, (0, 0))
    start = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    y, s = op(**x, cu_seqlens=torch.tensor([0, 0, 0]), initial_state=start, return_state=True)
    assert y.shape[1] == 0
    assert torch.equal(s.S, start)
    (slope,) = torch.autograd.grad(s.S.sum(), start)
    assert torch.equal(slope, torch.ones_like(start))


@pytest.mark.parametrize("order", ["quadratic", "chunked"])
def test_gradcheck_once_and_twice(order: str) -> None:
    op = smac.compile("ssd", target="torch", order=order, chunk=2)
    x = packed_inputs(op.spec, (0, 3, 3, 4), H=1, G=1, N=2, P=1)
    cu, leaves = torch.tensor([0, 3, 3, 4]), tuple(floats(x))
    start = torch.randn(3, 1, 2, 1, dtype=torch.float64, requires_grad=True)

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        if order == "quadratic":
            return (op(*inputs, cu_seqlens=cu),)
        y, s = op(*inputs[:-1], cu_seqlens=cu, initial_state=inputs[-1], return_state=True)
        return y, s.S

    inputs = leaves if order == "quadratic" else (*leaves, start)
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_types_keep_theirs(dtype: torch.dtype) -> None:
    op = smac.compile("ssd", target="torch", order="chunked", chunk=16)
    x = {n: v.detach() for n, v in packed_inputs(op.spec, ENDS).items()}
    x = {n: v.to(dtype).requires_grad_() for n, v in x.items()}
    cu = torch.tensor(ENDS)
    y, s = op(**x, cu_seqlens=cu, return_state=True)
    due = reference(op.spec, x, cu_seqlens=cu)
    assert y.dtype == dtype
    assert s.S.dtype == torch.float32
    close(y.double(), due, 4 * torch.finfo(dtype).eps)
    grads = torch.autograd.grad(y.sum(), list(x.values()))
    assert all(g.dtype == dtype for g in grads)


def test_the_oracle_by_steps_agrees_on_packed_sequences() -> None:
    spec = spec_of(MASKS["sum"][0])
    x, cu = packed_inputs(spec, ENDS), torch.tensor(ENDS)
    y, s = reference(spec, x, return_state=True, cu_seqlens=cu)
    z, t = recurrence(spec, x, cu_seqlens=cu)
    close(y, z)
    close(s.S, t.S)
    assert torch.equal(s.last, t.last)


def test_op_reference_takes_cu_seqlens() -> None:
    op = smac.compile("packed_ssd", target="torch")
    x, cu = packed_inputs(op.spec, ENDS), torch.tensor(ENDS)
    y, s = op.reference(**x, cu_seqlens=cu, return_state=True)
    got, state = op(**x, cu_seqlens=cu, return_state=True)
    close(got, y)
    close(state.S, s.S)
    assert torch.equal(state.last, s.last)


def test_plans_and_sources_of_packed_sequences() -> None:
    op = smac.compile("ssd", target="torch")
    plan = op.plan(B=1, T=4096, sequences=8)
    assert "8 packed sequences" in plan.explain()
    alone = op.plan(B=8, T=512)
    assert (plan.order, plan.chunk, plan.chosen.time) == (
        alone.order, alone.chunk, alone.chosen.time)  # fmt: skip
    text = op.source("torch", T=64, sequences=3, state=True)
    assert "cu_seqlens" in text
    assert "tolist" not in text.split("def forward")[1]
    assert "cu_seqlens" not in op.source("torch", T=64)


X = ("ssd: cu_seqlens: expected n + 1 integers, where each of n sequences starts along T, and T; "
     "got ")  # fmt: skip


@pytest.mark.parametrize(("cu", "message"), [
    ([0, 9], "ssd: cu_seqlens: expected a tensor of n + 1 integers, where each of n sequences "
             "starts along T, and T; got list"),
    (torch.tensor([0.0, 9.0]), "ssd: cu_seqlens: expected int32 or int64, got torch.float32"),
    (torch.tensor([[0, 9]]), f"{X}shape (1, 2)"),
    (torch.tensor([0]), f"{X}shape (1,)"),
    (torch.tensor([0, 9], device="meta"),
     "ssd: cu_seqlens: expected device cpu (as the inputs), got meta"),
    (torch.tensor([0, 8]),
     "ssd: cu_seqlens: expected to start with 0 and end with T = 9, got 0 and 8"),
    (torch.tensor([1, 9]),
     "ssd: cu_seqlens: expected to start with 0 and end with T = 9, got 1 and 9"),
    (torch.tensor([0, 5, 4, 9]),
     "ssd: cu_seqlens: expected entries that do not decrease, got 5 then 4 at 1"),
])  # fmt: skip
def test_what_does_not_fit_is_named(cu: Any, message: str) -> None:
    op = smac.compile("ssd", target="torch")
    with pytest.raises(smac.LaunchError) as e:
        op(**draw(op.spec, B=1), cu_seqlens=cu)
    assert str(e.value) == message


def test_a_batch_beside_packed_sequences_is_refused() -> None:
    op = smac.compile("ssd", target="torch")
    with pytest.raises(smac.LaunchError) as e:
        op(**draw(op.spec), cu_seqlens=torch.tensor([0, 9]))
    assert str(e.value) == ("ssd: cu_seqlens: expected B = 1, for sequences that lie behind one "
                            "another along T; got B = 2")  # fmt: skip


def test_a_state_has_one_entry_a_sequence() -> None:
    op = smac.compile("ssd", target="torch")
    with pytest.raises(smac.LaunchError) as e:
        op(**draw(op.spec, B=1), cu_seqlens=torch.tensor([0, 4, 9]),
           initial_state=torch.zeros(1, 4, 3, 2, dtype=torch.float64))  # fmt: skip
    assert str(e.value) == ("initial_state.S has axes B H N P: expected shape (2, 4, 3, 2), got "
                            "(1, 4, 3, 2)")  # fmt: skip


REFUSED = {
    "cos(index(T)) * q": "the spec reads index(T), which would run on from one sequence to the "
                         "next; pass positions as an input with axis T instead",
    "q / size(T)": "the spec reads size(T), which every sequence has its own of; pass it as an "
                   "input with axis T instead",
}  # fmt: skip


@pytest.mark.parametrize("q", REFUSED)
def test_positions_in_expressions_are_refused(q: str) -> None:
    spec = smac.load(str(spec_of("causal()")).replace('Q = "q"', f'Q = "{q}"'))
    with pytest.raises(smac.PlanError) as e:
        smac.compile(spec, target="torch")(**packed_inputs(spec, ENDS),
                                           cu_seqlens=torch.tensor(ENDS))  # fmt: skip
    assert str(e.value) == f"m: packed sequences (cu_seqlens): {REFUSED[q]}"


def test_orders_that_keep_no_sequences_apart_are_refused() -> None:
    spec = spec_of("toeplitz(h, bidirectional = true)")
    with pytest.raises(smac.PlanError) as e:
        smac.compile(spec, target="torch")(**packed_inputs(spec, ENDS, W=119),
                                           cu_seqlens=torch.tensor(ENDS))  # fmt: skip
    assert str(e.value) == (
        "m: packed sequences (cu_seqlens): mask 'toeplitz(h, bidirectional = true)' reads from the "
        "middle or the end of T, and every sequence has a T of its own; for lags on both sides add "
        "two causal masks instead, one of them transposed")  # fmt: skip
    op = smac.compile("toeplitz", target="torch", order="linear", schedule="fft")
    with pytest.raises(smac.PlanError) as e:
        op(**packed_inputs(op.spec, ENDS), cu_seqlens=torch.tensor(ENDS))
    assert str(e.value) == ("toeplitz: order='linear' FFT convolves along all of T and keeps no "
                            "packed sequences apart")  # fmt: skip


@pytest.mark.parametrize(("name", "order"), [
    ("packed_ssd", "chunked"), ("retnet", "linear"), ("ssd", "quadratic"),
    ("toeplitz", "quadratic"), ("gla", "chunked"),
])  # fmt: skip
def test_nothing_waits_for_values_off_the_cpu(name: str, order: str,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without values have none to read: both programs run on them from end to end."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # knows no meta
    state = order != "quadratic"
    op = smac.compile(name, target="torch", order=order)
    x = {n: v.detach().to("meta").requires_grad_(v.is_floating_point())
         for n, v in packed_inputs(op.spec, (0, 60)).items()}  # fmt: skip
    ends = torch.zeros(5, dtype=torch.int32, device="meta")
    made = op(**x, cu_seqlens=ends, return_state=state)
    outs = [made[0], made[1].S] if state else [made]
    assert outs[0].shape == (1, 60, 4, 2)
    grads = torch.autograd.grad(outs, floats(x), [torch.zeros_like(y) for y in outs])
    assert [g.shape for g in grads] == [v.shape for v in floats(x)]
    with pytest.raises(RuntimeError, match="meta"):
        ends.tolist()  # what would have happened
