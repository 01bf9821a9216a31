"""Cells of the Triton target, run interpreted: a child process, for the switch is read at import.

`python cells_triton.py name …` prints one JSON line a cell: its worst relative error, over outputs,
final state and all gradients, against the float64 oracle.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import torch  # noqa: E402
from specs_triton import SPECS  # noqa: E402
from torch import Tensor  # noqa: E402

import smac  # noqa: E402
from smac.levels import levels_of  # noqa: E402
from smac.testing.errors import FEW  # noqa: E402

SHIPPED = {
    "ssd": ("chunked", "linear", "quadratic"), "packed_ssd": ("chunked", "quadratic"),
    "linear_attention": ("chunked", "linear", "quadratic"),
    "retnet": ("chunked", "quadratic"), "toeplitz": ("quadratic", "fft"),
    "multiscale": ("chunked", "quadratic"), "gla": ("chunked", "linear", "quadratic"),
    "xpos": ("chunked", "quadratic"),
    "hydra": ("chunked",), "lion": ("chunked",), "prefix_lm": ("chunked",), "mamba3": ("chunked",),
}  # fmt: skip
#: Specs that the schedule of parallel chunks takes: no normaliser, no mask per channel.
PARALLEL = ("ssd", "packed_ssd", "retnet", "multiscale", "document_causal", "factors", "scaled",
            "three_lanes", "hostile_names", "groups_everywhere", "xpos", "hydra", "mamba3",
            "low_rank", "quasi", "mamba3_by_shift", "backwards", "gated_both_ways", "diagonals",
            "groups_both_ways")  # fmt: skip
#: Schedules that cells ask for by name, and their orders.
SCHEDULES = {"chunks": "chunked", "segmented": "chunked", "fft": "linear"}
#: Two chunk boundaries of 16 and a ragged tail; N and P are no powers of two; groups of two heads.
SIZES = {"B": 1, "T": 37, "H": 2, "N": 5, "P": 6, "G": 1, "F": 1, "K": 1, "chunk": 2}
#: Tokens before the state of a cell, where positions count; where there is a lane for each level of
#: T, which chunks take eight of.
BEFORE, LEVELLED = 1003, 61
#: Batch entries and groups beside each other, for a cell of each kind of kernel.
MANY = {"B": 2, "H": 4, "G": 2, "F": 2, "K": 2}
CROWDED = (("ssd", "chunked"), ("ssd", "quadratic"), ("groups_everywhere", "chunked"),
           ("groups_everywhere", "quadratic"), ("hostile_names", "chunked"),
           ("channel_groups", "chunked"), ("channel_shared", "chunked"),
           ("channel_of_groups", "chunked"), ("lags_normalised", "fft"),
           ("groups_both_ways", "chunked"))  # fmt: skip


def draw(op: smac.Op, sizes: dict[str, int], special: bool) -> dict[str, Tensor]:
    """Inputs in float64: log decays of at most 0 (`special`: with resets
    and growth), rates in (0, 1)."""
    g = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}
    for i in op.spec.inputs:
        shape = [sizes["T" if a == "S" else a] for a in i.axes]
        x = torch.randn(shape, generator=g, dtype=torch.float64)
        if i.name == "ids":
            found[i.name] = (torch.rand(shape, generator=g) < 0.15).long().cumsum(-1)
            continue
        if i.name in ("A", "a", "g", "f", "decay_", "w"):
            x = -x.abs()
        if special and i.name in ("a", "g", "f", "decay_"):
            for start, value in enumerate((-math.inf, 0.3, 0.0, -50.0, -256.0)):
                x.view(-1)[start::23] = value
        if i.name in ("gamma", "fast", "slow"):
            x = torch.sigmoid(x)
            if special and i.name == "gamma":
                x.view(-1)[0] = 0.0
        found[i.name] = x
    return found


def leaves(inputs: dict[str, Tensor], dtype: torch.dtype, strided: bool) -> dict[str, Tensor]:
    """The inputs in `dtype`, to differentiate; `strided`: heads before tokens in memory."""
    out = {}
    for name, x in inputs.items():
        y = x.to(dtype) if x.is_floating_point() else x
        if strided and y.dim() >= 3:
            y = y.transpose(1, 2).contiguous().transpose(1, 2)
        y = y.clone(memory_format=torch.preserve_format)
        out[name] = y.requires_grad_() if x.is_floating_point() else y
    return out


def worst(got: list[Tensor | None], exact: list[Tensor | None]) -> float:
    """The worst error, relative to the largest value of its tensor; NaN counts as infinite.

    In float32 a few numbers that sum many terms may cancel, whoever adds them up: those are
    measured by the largest value of their peers, as `smac.testing.errors` does.
    """
    top = 0.0
    peers = max((y.detach().abs().max().item() for y in exact if y is not None and y.numel()),
                default=0.0)  # fmt: skip
    for x, y in zip(got, exact, strict=True):
        if x is None or y is None:
            if y is not None or (x is not None and x.any()):
                return math.inf
            continue
        if x.shape != y.shape:
            return math.inf
        if x.numel():
            scale = y.detach().abs().max().item() or 1.0
            if x.dtype == torch.float32 and x.numel() < FEW:
                scale = max(scale, peers)
            e = (x.detach().double() - y.detach()).abs().max().item() / scale
            top = max(top, e if e == e else math.inf)
    return top


def compiled(spec: str, order: str) -> smac.Op:
    """`spec`, shipped or of specs_triton, in chunks of 16. "chunked" stands for the schedule of
    sweeps, "chunks" for that of chunks in parallel, "segmented" for sweeps of segments, in the
    chunked order all; "fft" for that of the linear order."""
    schedule = {"chunked": "sweep"}.get(order, order if order in SCHEDULES else "auto")
    order = SCHEDULES.get(order, order)
    return smac.compile(SPECS[spec][0] if spec in SPECS else spec, target="triton", order=order,
                        chunk=None if order == "linear" else 16, schedule=schedule)  # fmt: skip


def cell(spec: str, order: str, dtype: torch.dtype = torch.float64, *, state: bool = False,
         special: bool = False, strided: bool = True, ends: tuple[int, ...] = (),
         **sizes: int) -> float:  # fmt: skip
    """Forward and backward of `spec` in `order`, against the oracle; `ends`: packed sequences."""
    op = compiled(spec, order)
    have = {a for i in op.spec.inputs for a in i.axes}
    given = {**SIZES, **sizes, **({"T": ends[-1]} if ends else {})}
    packed = {"cu_seqlens": torch.tensor(ends, dtype=torch.int32)} if ends else {}
    if "W" not in sizes:
        both = spec.startswith("bidirectional")
        given["W"] = max(2 * given["T"] - 1, 0) if both else given["T"]
    before = BEFORE if op.spec.levels is None else LEVELLED
    if op.spec.levels is not None:
        given[op.spec.levels] = levels_of(given["T"] + (before if state else 0))
    inputs = draw(op, given, special)
    a = leaves(inputs, dtype, strided)
    # The oracle sees what the kernels see: rounding of the inputs is no error of theirs.
    b = leaves({n: x.detach().double() if x.is_floating_point() else x for n, x in a.items()},
               torch.float64, False)  # fmt: skip
    more: list[tuple[Tensor, Tensor]] = []
    if state:
        many = {**given, "B": len(ends) - 1} if ends else given
        empty = op.init_state(dtype=dtype, **{x: n for x, n in many.items() if x in have - {"W"}})
        if empty.pos is not None:  # tokens before the first: a state somewhere on the way
            empty = dataclasses.replace(empty, pos=before)
        g = torch.Generator().manual_seed(1)
        S = torch.randn(empty.S.shape, generator=g, dtype=torch.float64)
        pair = tuple(S.to(d).requires_grad_() for d in (dtype, torch.float64))
        more = [(pair[0], pair[1])]
        ya, fa = op(**a, initial_state=dataclasses.replace(empty, S=pair[0]), return_state=True,
                    **packed)  # fmt: skip
        yb, fb = op.reference(**b, initial_state=dataclasses.replace(empty, S=pair[1]),
                              return_state=True, **packed)  # fmt: skip
        outs = [(ya, yb), (fa.S, fb.S)]
    else:
        outs = [(op(**a, **packed), op.reference(**b, **packed))]
    g = torch.Generator().manual_seed(2)
    cotangents = [torch.randn(y.shape, generator=g, dtype=torch.float64) for _, y in outs]
    wrt = [(a[n], b[n]) for n in a if a[n].is_floating_point()] + more
    got = torch.autograd.grad([y for y, _ in outs], [x for x, _ in wrt],
                              [c.to(y.dtype) for c, (y, _) in zip(cotangents, outs, strict=True)],
                              allow_unused=True)  # fmt: skip
    exact = torch.autograd.grad([y for _, y in outs], [x for _, x in wrt], cotangents,
                                allow_unused=True)  # fmt: skip
    return worst([*(y for y, _ in outs), *got], [*(y for _, y in outs), *exact])


def same_bits(spec: str, order: str) -> float:
    """0 where packed sequences have the bits of each alone: outputs, last states, gradients."""
    op, state = compiled(spec, order), order != "quadratic" and spec != "quasi"
    # Without a state, a chunk that covers a sequence is the quadratic order: none is that short.
    ends = (0, 21, 21, 22, 60) if state or order == "quadratic" else (0, 21, 38, 60)
    a = leaves(draw(op, {**SIZES, "T": 60, "W": 60}, False), torch.float64, True)
    axes = {i.name: i.axes for i in op.spec.inputs}
    along = [n for n in a if "T" in axes[n]]
    wrt = [n for n in along if a[n].is_floating_point()]

    def run(x: dict[str, Tensor], **more: Tensor) -> list[Tensor]:
        made = op(**x, return_state=state, **more)
        y, s = made if state else (made, None)
        grads = torch.autograd.grad(y.sum(), [x[n] for n in wrt])
        return [*((s.S,) if s is not None else ()), y, *grads]

    whole = run(a, cu_seqlens=torch.tensor(ends))
    for i, (start, stop) in enumerate(pairwise(ends)):
        part = {n: x.detach().narrow(axes[n].index("T"), start, stop - start)
                if n in along else x.detach() for n, x in a.items()}  # fmt: skip
        part = {n: x.requires_grad_(x.is_floating_point()) for n, x in part.items()}
        for found, due in zip(whole, run(part), strict=True):
            cut = (found[i : i + 1] if state and found is whole[0]
                   else found[:, start:stop])  # fmt: skip
            if not torch.equal(cut, due):
                return math.inf
    return 0.0


def in_turn(spec: str, **sizes: int) -> float:
    """A cell of the linear order that has scratch for three programs of more; infinite where it has
    other bits than with all at once, or when it is run again."""

    def run() -> list[Tensor]:
        a = leaves(draw(compiled(spec, "linear"), {**SIZES, **sizes}, False), torch.float64, True)
        y = compiled(spec, "linear")(**a)
        wrt = [x for x in a.values() if x.requires_grad]
        return [y.detach(), *torch.autograd.grad(y.sin().sum(), wrt)]

    whole = run()
    three = "2**28 // each", "3 if programs > 3 else 1 // 0"
    with rewritten(*three):
        same = all(torch.equal(x, y) for again in (run(), run())
                   for x, y in zip(whole, again, strict=True))  # fmt: skip
    with rewritten(*three) as found:
        error = cell(spec, "linear", **sizes)
    return error if same and any(found) else math.inf


@contextmanager
def rewritten(old: str, new: str) -> Iterator[list[bool]]:
    """Modules rendered here have `new` for `old`; yields which of them had it."""
    from smac.codegen import triton

    real, found = triton.tidy, list[bool]()

    def tidy(text: str) -> str:
        found.append(old in real(text))
        return real(text).replace(old, new)

    triton.tidy = tidy
    try:
        yield found
    finally:
        triton.tidy = real


def as_in_16_bits(spec: str, order: str, **sizes: int) -> float:
    """A cell in float64 by the code of 16-bit types, which adds up paths by differences."""
    with rewritten("EXACT=op.itemsize >= 4", "EXACT=False") as found:
        error = cell(spec, order, **sizes)
    return error if any(found) else math.inf


def as_in_bfloat16(spec: str, near: float = 56.0, **sizes: object) -> float:
    """A cell in float64 whose chunks of slow decays, of 2 to the power of `near`, meet in their
    middle as those of bfloat16 do; infinite where none could."""
    with (rewritten("EXACT=op.itemsize >= 4", "EXACT=False"),
          rewritten("NEAR=56.0 if op == torch.bfloat16 else 0.0", f"NEAR={near}") as found):
        error = cell(spec, "chunked", **sizes)  # type: ignore[arg-type]
    return error if any(found) else math.inf


def in_tall_tiles(spec: str, **sizes: object) -> float:
    """A cell of the quadratic order with programs of two tiles' rows, as 16-bit types have them."""
    with rewritten("return 128 if dtype.itemsize == 2 and columns == 64 and whole <= 128", "return"
                   " 2 * columns if True") as tall:  # fmt: skip
        error = cell(spec, "quadratic", **sizes)  # type: ignore[arg-type]
    return error if any(tall) else math.inf


def by_heads(spec: str, order: str, **sizes: int) -> float:
    """A cell whose programs take all heads of a group in turn, as they do beside many others, and
    16 columns of N each where they sum weights."""
    with (rewritten("programs // d >= 528", "d <= programs") as found,
          rewritten("128 if n_P <= 64 else 64", "16")):  # fmt: skip
        error = cell(spec, order, **{**MANY, "H": 6, **sizes})
    return error if any(found) else math.inf


def columns_first(spec: str, order: str, **sizes: object) -> float:
    """A cell in float64 whose reads have columns before rows, as those of 16-bit types do."""
    with rewritten("return dtype.itemsize == 2 and planned < 64", "return True") as found:
        error = cell(spec, order, **sizes)  # type: ignore[arg-type]
    return error if any(found) else math.inf


def cells() -> dict[str, Callable[[], float]]:
    """Every cell by name."""
    made: dict[str, Callable[[], float]] = {}

    def add(name: str, *args: object, **kw: object) -> None:
        made[name] = lambda: cell(*args, **kw)  # type: ignore[arg-type]

    for spec, orders in {**SHIPPED, **{n: o for n, (_, o) in SPECS.items()}}.items():
        wide = ("gla", "rwkv6", "channel_p", "channel_groups", "mamba1", "both_ways",
                "before_and_own")  # fmt: skip
        for order in orders:
            short = {"T": 19} if spec in wide and order != "chunked" else {}
            more = MANY if (spec, order) in CROWDED else {}
            add(f"{spec}-{order}-float64", spec, order, **short, **more)
    for spec in PARALLEL:
        more = MANY if (spec, "chunked") in CROWDED else {}
        add(f"{spec}-chunks-float64", spec, "chunks", **more)
    for spec in ("ssd", "packed_ssd", "three_lanes", "mamba3", "before_and_own"):
        add(f"{spec}-chunks-state", spec, "chunks", state=True)
    for spec in ("ssd", "packed_ssd", "three_lanes", "retnet", "groups_everywhere", "plain"):
        add(f"{spec}-segmented-state", spec, "segmented", state=True, **MANY)
    # Numbers beside K and Q go into states that others see, and wait for a read in all others.
    add("numbers-segmented-float64", "numbers", "segmented", T=70, **MANY)
    add("numbers-segmented-state", "numbers", "segmented", T=70, state=True)
    add("numbers-chunked-state", "numbers", "chunked", state=True)
    add("numbers-chunked-packed", "numbers", "chunked", ends=(0, 37, 37, 38, 71))
    for spec, order in (("numbers", "chunked"), ("numbers", "segmented"), ("ssd", "chunked"),
                        ("three_lanes", "chunked"), ("mamba3", "segmented")):  # fmt: skip
        made[f"{spec}-{order}-turned"] = partial(columns_first, spec, order, T=40)
    add("plain-segmented-T1", "plain", "segmented", T=1, state=True)
    add("document_causal-segmented-state", "document_causal", "segmented", state=True, T=70)
    add("plain_both_ways-segmented-float64", "plain_both_ways", "segmented", T=70)
    add("plain_both_ways-segmented-float32", "plain_both_ways", "segmented", torch.float32, T=70)
    add("factors-segmented-special", "factors", "segmented", special=True, T=40)
    add("ssd-segmented-float32", "ssd", "segmented", torch.float32, state=True, T=70)
    add("ssd-segmented-T0", "ssd", "segmented", T=0, state=True)
    add("ssd-segmented-T17", "ssd", "segmented", T=17, state=True)
    for spec in ("hydra", "quasi", "groups_both_ways", "diagonals"):
        add(f"{spec}-segmented-float64", spec, "segmented", T=70)
    add("backwards-segmented-float64", "backwards", "segmented")
    add("linear_attention-segmented-state", "linear_attention", "segmented", state=True, T=70)
    add("backwards-chunked-T1", "backwards", "chunked", T=1)
    add("mamba3-segmented-state", "mamba3", "segmented", state=True, T=70)
    for spec in ("factors", "three_lanes", "both_ways", "quasi"):
        add(f"{spec}-chunks-special", spec, "chunks", special=True, T=40)
    add("retnet-chunked-reset-state", "retnet", "chunked", state=True, special=True)
    add("log_linear-chunked-float64", "log_linear", "chunked", T=70, B=1, H=1)
    # Lanes in turn: ten levels, four of them inside chunks of 16; then all with states.
    add("log_linear-turns-float64", "log_linear", "chunks", T=270, B=1, H=1)
    add("log_linear-turns-state", "log_linear", "chunks", T=200, B=1, H=1, state=True)
    add("many_lanes-turns-float64", "many_lanes", "chunks")
    add("many_lanes-turns-special", "many_lanes", "chunks", special=True, T=40)
    add("many_of_groups-turns-state", "many_of_groups", "chunks", state=True, **MANY)
    add("many_of_groups-turns-float32", "many_of_groups", "chunks", torch.float32)
    add("many_of_groups-turns-packed-state", "many_of_groups", "chunks", state=True,
        ends=(0, 37, 37, 38))
    for T in (0, 1):
        add(f"many_of_groups-turns-T{T}", "many_of_groups", "chunks", T=T, state=True)
    for spec, order, sizes in (
        ("xpos", "chunked", {}), ("xpos", "chunks", {}), ("xpos", "segmented", {"T": 70}),
        ("xpos", "linear", {"T": 9}), ("log_linear", "chunked", {"H": 1}), ("clock", "chunked", {}),
        ("clock_channel", "chunked", {}), ("clock_channel", "linear", {"T": 9}),
    ):  # fmt: skip
        add(f"{spec}-{order}-state", spec, order, state=True, **sizes)
    for spec in ("retnet", "quasi"):
        add(f"{spec}-chunks-float32", spec, "chunks", torch.float32)
    add("ssd-chunks-wide", "ssd", "chunks", N=35, P=40, B=1, H=2)
    for spec, order in (("ssd", "chunked"), ("retnet", "chunked"), ("packed_ssd", "chunked"),
                        ("multiscale", "chunked"), ("three_lanes", "chunked"),
                        ("gla", "linear"), ("linear_attention", "linear"), ("gla", "chunked"),
                        ("channel_gated", "chunked"), ("channel_normalised", "chunked"),
                        ("channel_groups", "chunked"), ("mamba3", "chunked"),
                        ("before_and_own", "chunked"), ("strict_channel", "chunked")):  # fmt: skip
        add(f"{spec}-{order}-state", spec, order, state=True)
    add("rwkv6-linear-state", "rwkv6", "linear", state=True, T=36, H=1)
    for spec, order in (("ssd", "chunked"), ("toeplitz", "quadratic"), ("toeplitz", "fft"),
                        ("gla", "linear"), ("packed_ssd", "quadratic"),
                        ("linear_attention", "chunked"), ("gla", "chunked"),
                        ("channel_p", "chunked"), ("quasi", "chunked"),
                        ("rwkv6", "chunked")):  # fmt: skip
        add(f"{spec}-{order}-float32", spec, order, torch.float32)
    add("fast_wave-chunked-float32", "fast_wave", "chunked", torch.float32)
    for spec, order in (("factors", "chunked"), ("factors", "linear"), ("channel_p", "linear"),
                        ("three_lanes", "chunked"), ("gla", "chunked"), ("channel_p", "chunked"),
                        ("channel_documents", "chunked"), ("quasi", "chunked"),
                        ("rwkv6", "chunked"), ("late_per_value", "chunked"),
                        ("window_decay", "quadratic"), ("channel_p", "quadratic")):  # fmt: skip
        add(f"{spec}-{order}-special", spec, order, special=True, T=40)
    for T in (0, 1, 16, 17):
        add(f"ssd-chunked-T{T}", "ssd", "chunked", T=T, state=True)
        add(f"ssd-chunks-T{T}", "ssd", "chunks", T=T, state=True)
        add(f"gla-chunked-T{T}", "gla", "chunked", T=T, state=True)
        add(f"toeplitz-quadratic-T{T}", "toeplitz", "quadratic", T=T)
    for T in (0, 1):
        add(f"circulant-fft-T{T}", "circulant", "fft", T=T)
        add(f"bidirectional_toeplitz-fft-T{T}", "bidirectional_toeplitz", "fft", T=T)
    add("toeplitz-quadratic-many-lags", "toeplitz", "quadratic", W=1030, T=17)
    add("toeplitz-fft-more-lags", "toeplitz", "fft", W=45)
    add("documents_of_heads-chunked-state", "documents_of_heads", "chunked", state=True, B=2)
    packed = {"ends": (0, 37, 37, 38, 71)}
    for spec, order in (
        ("ssd", "chunked"), ("packed_ssd", "chunks"), ("linear_attention", "chunked"),
        ("multiscale", "chunked"), ("three_lanes", "chunks"), ("gla", "chunked"), ("gla", "linear"),
        ("ssd", "linear"), ("before_and_own", "chunks"),
        ("documents_of_heads", "chunked"),
    ):  # fmt: skip
        short = {"ends": (0, 9, 9, 10, 17)} if order == "linear" else packed
        add(f"{spec}-{order}-packed-state", spec, order, state=True, **short)
    for spec, order in (("quasi", "chunked"), ("quasi", "chunks"), ("lion", "chunked"),
                        ("rwkv6", "chunked")):  # fmt: skip
        add(f"{spec}-{order}-packed", spec, order, **packed)
    for spec in ("packed_ssd", "toeplitz", "dense", "window_decay"):
        add(f"{spec}-quadratic-packed", spec, "quadratic", **packed)
    for spec, order in (("ssd", "chunked"), ("toeplitz", "quadratic")):
        add(f"{spec}-{order}-packed-float32", spec, order, torch.float32, **packed)
    for spec, order in (("ssd", "chunked"), ("retnet", "chunks"), ("toeplitz", "quadratic"),
                        ("quasi", "chunks")):  # fmt: skip
        made[f"{spec}-{order}-packed-bits"] = partial(same_bits, spec, order)
    for spec, order in (("quasi", "chunks"), ("quasi", "chunked"), ("rwkv6", "chunked"),
                        ("gla", "chunked"), ("many_lanes", "chunks")):  # fmt: skip
        made[f"{spec}-{order}-differences"] = partial(as_in_16_bits, spec, order)
    for spec in ("gla", "channel_p", "rwkv6", "channel_gated"):
        made[f"{spec}-chunked-near"] = partial(as_in_bfloat16, spec)
    for spec in ("gla", "channel_p", "rwkv6", "late_per_value"):
        made[f"{spec}-chunked-near-special"] = partial(as_in_bfloat16, spec, special=True, T=40)
        made[f"{spec}-chunked-near-some"] = partial(as_in_bfloat16, spec, 12.5, T=150)
    for spec, more in (
        ("toeplitz", {"T": 70}), ("toeplitz", {"T": 64}), ("toeplitz", packed),
        ("bidirectional_toeplitz", {"T": 70}), ("window_decay", {"T": 70}), ("dense", packed),
        ("document_causal", {"T": 70}), ("packed_ssd", packed), ("transposed_lags", {"T": 70}),
        ("channel_p", {}), ("gla", {"T": 19}), ("linear_attention", {}),
    ):  # fmt: skip
        name = "packed" if more is packed else f"T{more.get('T', SIZES['T'])}"
        made[f"{spec}-tall-{name}"] = partial(in_tall_tiles, spec, **more)
    for spec, sizes in (("ssd", {"T": 35, "P": 20}), ("three_lanes", {"T": 5, **MANY}),
                        ("gla", {"T": 5, **MANY})):  # fmt: skip
        made[f"{spec}-linear-turns"] = partial(in_turn, spec, **sizes)
    for spec, order in (("ssd", "chunks"), ("packed_ssd", "chunks"), ("hydra", "chunks"),
                        ("mamba3", "segmented"), ("shared_factors", "chunks"),
                        ("groups_everywhere", "chunks"), ("groups_both_ways", "chunks"),
                        ("many_of_groups", "chunks"), ("shared_lanes", "chunks"),
                        ("shared_keys", "chunks")):  # fmt: skip
        made[f"{spec}-{order}-heads"] = partial(by_heads, spec, order)
    made["ssd-chunks-heads-wide"] = partial(by_heads, "ssd", "chunks", N=35, P=20, B=1)
    made["ssd-chunks-heads-packed"] = partial(by_heads, "ssd", "chunks", B=1, **packed)
    add("ssd-chunked-wide", "ssd", "chunked", N=35, P=40, B=1, H=2)
    add("gla-chunked-wide", "gla", "chunked", N=35, P=40, T=70)
    add("channel_p-chunked-wide", "channel_p", "chunked", N=40, P=35, T=33, state=True)
    for spec in ("gla", "channel_p", "rwkv6"):  # no mask is left where all tiles are whole
        add(f"{spec}-chunked-whole", spec, "chunked", N=16, P=32, T=32)
    add("gla-linear-long", "gla", "linear", T=70, H=1, G=1, state=True)
    add("ssd-linear-groups", "ssd", "linear", T=5, **MANY)
    return made


def main() -> None:
    """Run the cells named, or all."""
    torch.set_num_threads(1)
    known = cells()
    for name in sys.argv[1:] or known:
        try:
            print(json.dumps({"cell": name, "error": known[name]()}), flush=True)
        except Exception as e:
            print(json.dumps({"cell": name, "failed": f"{type(e).__name__}: {e}"}), flush=True)


if __name__ == "__main__":
    main()
