"""Each invariant of a Program, broken alone, is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

import smac
from smac.errors import CodegenError
from smac.expr import Name
from smac.ir import (
    Buffer,
    Carry,
    Gather,
    Join,
    Kernel,
    LaneGrad,
    LaneIR,
    Program,
    Read,
    Scan,
    Store,
    Walk,
)
from smac.lower import backward, forward
from smac.verify import verify

PLAN = smac.compile("packed_ssd", target="torch", order="chunked").plan(device="cpu")
SOUND = forward(PLAN)
KERNEL = SOUND.steps[-1]
assert isinstance(KERNEL, Kernel)


def with_kernel(**changes: object) -> Program:
    """The program with its kernel changed."""
    return replace(SOUND, steps=(*SOUND.steps[:-1], replace(KERNEL, **changes)))  # type: ignore[arg-type]


def with_buffers(*more: Buffer) -> Program:
    return replace(SOUND, buffers=(*SOUND.buffers, *more))


K = "kernel 'forward': "
BROKEN: dict[str, Callable[[], Program]] = {
    "buffer 'x' is declared 2 times": lambda: with_buffers(SOUND.buffer("x")),
    "buffer 'u' has dtype 'half'": lambda: with_buffers(Buffer("u", (), "half", "scratch")),
    "buffer 'u' has role 'temp'": lambda: with_buffers(Buffer("u", (), "acc", "temp")),
    "scan of unknown 'who'": lambda: replace(
        SOUND, steps=(Scan("starts.ids", "starts", "who"), *SOUND.steps[1:])),
    K + "kind 'wavy'": lambda: with_kernel(kind="wavy"),
    K + "walk Walk(chunk=0, segment=1, reverse=False, mirrored=False, split=False)":
        lambda: with_kernel(walk=Walk(0, 1)),
    K + "segments of 24 tokens cut chunks of 16": lambda: with_kernel(
        walk=Walk(16, 24, split=True)),
    "join 'join_KV' of unknown 'enters.KV'": lambda: replace(
        SOUND, steps=(*SOUND.steps, Join("join_KV", "enters.KV", "spans.KV", 64))),
    K + "tiles without an entry": lambda: with_kernel(kind="tiles"),
    K + "value 'Q' reads unknown ['w']": lambda: with_kernel(
        values=(replace(KERNEL.values[0], expr=Name("w")), *KERNEL.values[1:])),
    K + "value 'Q' reads unknown ['u']": lambda: with_kernel(
        values=(replace(KERNEL.values[0], tail=Name("u")), *KERNEL.values[1:])),
    K + "carry 'KV' of unknown values": lambda: with_kernel(carries=(Carry("KV", "K", "W"),)),
    K + "carry 'KV' names state 'state.S0'": lambda: with_kernel(
        carries=(Carry("KV", "K", "V", initial="state.S0"),)),
    K + "read 'Y' of unknown carry 'QG'": lambda: with_kernel(reads=(Read("Y", "QG", "Q", "N"),)),
    K + "read 'Y' by unknown 'R'": lambda: with_kernel(reads=(Read("Y", "KV", "R", "N"),)),
    K + "read 'Y' over 'T'": lambda: with_kernel(reads=(Read("Y", "KV", "Q", "T"),)),
    K + "2 reads of carry 'KV' over 'N'": lambda: with_kernel(
        kind="tiles", entry=Name("a0"), reads=(KERNEL.reads[0], Read("d.V", "KV", "Q", "N"))),
    K + "lane of unknown value 'a9'": lambda: with_kernel(lanes=(LaneIR("a9"),)),
    K + "gradient of lane 3": lambda: with_kernel(lane_grads=(LaneGrad(3, "d.a0"),)),
    K + "store to unknown buffer 'q'": lambda: with_kernel(
        stores=(*KERNEL.stores, Store("q", Name("Y"), ()))),
    K + "store to 'y' reads ['d.Q']": lambda: with_kernel(stores=(Store("y", Name("d.Q"), ()),)),
    "output 'y' is never stored": lambda: with_kernel(stores=()),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_invariant_is_named(what: str) -> None:
    with pytest.raises(CodegenError) as e:
        verify(BROKEN[what]())
    assert str(e.value) == f"program 'forward' is not well formed: {what}"


def test_a_sound_program_comes_back() -> None:
    assert verify(SOUND) is SOUND
    back = backward(PLAN)
    assert verify(back) is back


def test_what_a_kernel_reads_out_may_be_stored() -> None:
    more = with_kernel(
        stores=(*KERNEL.stores, Store("x", Name("d.m0.0"), ())),
        gathers=(Gather("d.m0.0", "row", "a0", Name("a0")),),
    )
    assert verify(more) is more
