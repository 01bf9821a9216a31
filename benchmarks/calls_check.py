"""Calls in a CUDA graph and in torch.compile, held to eager ones bit by bit; torch's own opcheck.

Non-goals: no times (calls.py).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.calls import tapes

#: Spec, options of the op, whether with a last state, whether packed.
CASES: tuple[tuple[str, dict[str, Any], bool, bool], ...] = (
    ("ssd", {}, False, False), ("ssd", {"order": "chunked"}, True, False),
    ("ssd", {"order": "quadratic"}, False, False), ("packed_ssd", {}, True, True),
    ("packed_ssd", {"order": "quadratic"}, False, True), ("linear_attention", {}, True, False),
    ("gla", {}, False, False), ("gla", {"order": "linear"}, True, False),
    ("toeplitz", {}, False, False),
)  # fmt: skip
SIZES = {"B": 2, "T": 150, "H": 4, "G": 2, "N": 16, "P": 16}


@dataclass(frozen=True)
class Sample:
    """An op, inputs of it, and what a call of it and its backward gives."""

    op: Any
    inputs: dict[str, Tensor]
    more: dict[str, Any]

    @staticmethod
    def of(spec: str, options: dict[str, Any], state: bool, packed: bool, device: str) -> Sample:
        """bfloat16 on a GPU (float32 for what does not carry T), float32 on a CPU."""
        import smac
        from smac.testing.inputs import recipe, values

        op = smac.compile(spec, **options)
        kinds, g = recipe(op.spec).kinds, torch.Generator().manual_seed(0)
        sizes = {**SIZES, "W": SIZES["T"], "S": SIZES["T"], **({"B": 1} if packed else {})}
        made = {}
        for i in op.spec.inputs:
            x = values(i, sizes, kinds[i.name], g).to(device)
            if x.is_floating_point():
                wide = device == "cpu" or "T" not in i.axes
                x = x.to(torch.float32 if wide else torch.bfloat16).requires_grad_()
            made[i.name] = x
        more: dict[str, Any] = {"return_state": True} if state else {}
        if packed:
            more["cu_seqlens"] = torch.tensor((0, 60, 60, 61, SIZES["T"]), device=device)
        return Sample(op, made, more)

    def results(self, call: Callable[..., Any]) -> list[Tensor]:
        """Outputs, the last state, and gradients of both."""
        found = call(**self.inputs, **self.more)
        y, state = found if "return_state" in self.more else (found, None)
        outs = [*(y if isinstance(y, tuple) else (y,)), *([] if state is None else [state.S])]
        leaves = [x for x in self.inputs.values() if x.requires_grad]
        return [*outs, *torch.autograd.grad(outs, leaves, [torch.ones_like(x) for x in outs])]

    def change(self) -> None:
        """Other values, in the same memory."""
        with torch.no_grad():
            for x in self.inputs.values():
                if x.is_floating_point():
                    x.mul_(0.875)


def _equal(found: Sequence[Tensor], due: Sequence[Tensor]) -> None:
    for i, (a, b) in enumerate(zip(found, due, strict=True)):
        if a.dtype != b.dtype or not torch.equal(a, b):
            raise AssertionError(f"result {i} has other bits")


def captured(s: Sample) -> None:
    """Forward and backward in a CUDA graph, replayed on other values: the bits of eager calls."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            s.results(s.op)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = s.results(s.op)
    for _ in range(2):
        s.change()
        graph.replay()
        torch.cuda.synchronize()
        _equal(found, s.results(s.op))


def unwaiting(s: Sample) -> None:
    """Nothing in a call waits for the GPU."""
    s.results(s.op)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        s.results(s.op)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def played(s: Sample) -> None:
    """A second call is played from a tape, and has the bits of the functions as written."""
    from smac.runtime.player import Player

    first, second = s.results(s.op), s.results(s.op)
    _equal(second, first)
    found, why = tapes(s.op)
    if len(found) != 2:
        raise AssertionError(f"no tapes: {why or 'the op ran on target torch'}")
    play, Player.__call__ = Player.__call__, lambda self, *x: self.function(*x)  # type: ignore[method-assign]
    try:
        _equal(second, s.results(s.op))
    finally:
        Player.__call__ = play  # type: ignore[method-assign]


def compiled(s: Sample) -> None:
    """torch.compile(fullgraph=True), forward and backward."""
    torch._dynamo.reset()
    due = s.results(s.op)

    def call(**x: Any) -> Any:
        return s.op(**x)

    _equal(s.results(torch.compile(call, fullgraph=True)), due)


def opcheck(s: Sample) -> None:
    """Schema, autograd, fake kernel and tracing of smac::call."""
    args: tuple[Any, ...] = (
        s.op._text, ",".join(s.inputs), list(s.inputs.values()), s.more.get("cu_seqlens"), "", [],
        0, "return_state" in s.more, False)  # fmt: skip
    torch.library.opcheck(torch.ops.smac.call.default, args, test_utils=(
        "test_schema", "test_autograd_registration", "test_faketensor",
        "test_aot_dispatch_static"))  # fmt: skip


def checks(device: str) -> tuple[Callable[[Sample], None], ...]:
    """Those that there are for a device."""
    return (compiled, opcheck) if device == "cpu" else (
        played, unwaiting, captured, compiled, opcheck)  # fmt: skip


def report(device: str) -> int:
    """A line a case; 1 where a check fails."""
    failed = 0
    for spec, options, state, packed in CASES:
        words = []
        for check in checks(device):
            try:
                check(Sample.of(spec, options, state, packed, device))
                words.append(f"{check.__name__} ok")
            except Exception as e:
                failed += 1
                words.append(f"{check.__name__} FAILED ({type(e).__name__}: {e})"[:300])
                traceback.print_exc()
        about = " ".join([spec, *map(str, options.values()), *(["state"] if state else []),
                          *(["packed"] if packed else [])])  # fmt: skip
        print(f"{about:28} {', '.join(words)}", flush=True)
    print(f"{failed} checks failed")
    return int(failed > 0)
