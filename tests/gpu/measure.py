"""One cell on the GPU: its errors, the bits of two runs, packed sequences beside each alone.

Non-goals: which cells there are (`run.py`), processes (`pool.py`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

#: Schedules that cells ask for by name, and their orders.
SCHEDULES = {"chunks": "chunked", "segmented": "chunked", "fft": "linear"}
ENDS = (0, 130, 130, 131, 300)


def op_of(spec: str, order: str, schedule: str = "auto", chunk: int | None = None) -> Any:
    """The op of a cell; `spec`: a name or TOML text; `order` may be a schedule."""
    import smac

    if schedule == "auto":
        schedule = {"chunked": "sweep"}.get(order, order if order in SCHEDULES else "auto")
    return smac.compile(spec, target="triton", order=SCHEDULES.get(order, order),
                        schedule=schedule, chunk=chunk)  # fmt: skip


def lengths(op: Any, sizes: dict[str, int]) -> Any:
    """All lengths that the inputs of `op` have, of those in `sizes`."""
    from smac.testing.cells import complete

    have = {a for i in op.spec.inputs for a in i.axes}
    return complete(op.spec, {a: n for a, n in sizes.items() if a in have})


def source_of(spec: str, order: str, dtype: str, sizes: dict[str, int], state: bool,
              schedule: str | None, frozen: tuple[str, ...] = ()) -> str:  # fmt: skip
    """A digest of the program that a cell runs, as it is for an H100; `schedule`: of packed
    sequences."""
    import hashlib

    op = op_of(spec, order) if schedule is None else op_of(spec, order, schedule, chunk_of(order))
    how = {"state": state} if schedule is None else {"state": state, "sequences": len(ENDS) - 1}
    found = dict(lengths(op, sizes))
    if not state:  # then as many levels are walked as T has
        found.pop(op.spec.levels, None)
    text = op.source(dtype=dtype, device="h100", frozen=frozen, **how, **found)
    return hashlib.sha256(text.encode()).hexdigest()


def chunk_of(order: str) -> int | None:
    """Rows of a chunk of packed sequences: few, for what ends inside of chunks."""
    return None if order == "linear" else 32


def trial_of(spec: str, order: str, dtype: str, sizes: dict[str, int], *, schedule: str = "auto",
             chunk: int | None = None, state: bool = False, special: bool = False,
             seed: int = 0, frozen: tuple[str, ...] = ()) -> Any:  # fmt: skip
    """The op and its inputs on the GPU, where what a kernel fails to write is NaN, not luck.

    `spec`: a name or TOML text; `order` may be a schedule."""
    import torch

    from smac.testing.cells import Cell
    from smac.testing.inputs import recipe
    from smac.testing.properties import Trial

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    op = op_of(spec, order, schedule, chunk)
    cell = Cell("triton", SCHEDULES.get(order, order), dtype, lengths(op, sizes), layout="strided",
                state=state, special=special, seed=seed, frozen=frozen)  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Trial(op, cell, recipe(op.spec), device)


def values(spec: str, order: str, dtype: str, sizes: dict[str, int], state: bool,
           special: bool, frozen: tuple[str, ...] = ()) -> dict[str, Any]:  # fmt: skip
    """Errors of values and gradients, and the same bits of both in two more runs."""
    import torch

    from smac.testing.properties import ours, values_and_gradients

    trial = trial_of(spec, order, dtype, sizes, state=state, special=special, frozen=frozen)
    found, steep = values_and_gradients(trial)
    one, two = (ours(trial) for _ in range(2))
    if not all(torch.equal(a, b) for k in range(2) for a, b in zip(one[k], two[k], strict=True)):
        raise AssertionError("two runs gave different bits")
    return {"error": found.relative, "ratio": found.ratio,
            "gradient_error": steep.relative, "gradient_ratio": steep.ratio}  # fmt: skip


def packed(spec: str, order: str, dtype: str, sizes: dict[str, int], state: bool,
           schedule: str) -> dict[str, Any]:  # fmt: skip
    """Packed sequences: the bits of each alone, run in the same pieces; nothing waits for
    cu_seqlens; in float64 and float32 the oracle's values and gradients."""
    import torch

    from smac.testing.properties import packed

    trial = trial_of(spec, order, dtype, sizes, schedule=schedule, chunk=chunk_of(order))
    op = trial.op
    packed(trial, state)
    ends = torch.tensor(ENDS, device="cuda", dtype=torch.int32)
    axes = {i.name: i.axes for i in op.spec.inputs}
    x = {n: v if v is None else v.detach() for n, v in trial.inputs.items()}

    def outputs(inputs: dict[str, Any], **more: Any) -> list[Any]:
        made = op(**inputs, return_state=state, **more)
        return [made[0], made[1].S] if state else [made]

    outputs(x, cu_seqlens=ends)  # compiled
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        whole = outputs(x, cu_seqlens=ends)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for i, (start, stop) in enumerate(pairwise(ENDS)):
        alone = outputs({n: v if v is None or "T" not in axes[n] else
                         v.narrow(axes[n].index("T"), start, stop - start)
                         for n, v in x.items()})  # fmt: skip
        own = [whole[0][:, start:stop], *(s[i : i + 1] for s in whole[1:])]
        # Sums of decays over a range come of prefix sums along all of T: equal, but not in bits.
        exact = order != "quadratic" or spec == "toeplitz"
        # One token alone runs code compiled for T = 1, where multiply-adds fuse in other places; or
        # by the quadratic order, for without a state a chunk that covers T is that.
        if (order == "linear" or not state) and stop - start == 1:
            exact = False
            for a, b in zip(own, alone, strict=True):
                torch.testing.assert_close(a, b)
        if exact and not all(torch.equal(a, b) for a, b in zip(own, alone, strict=True)):
            raise AssertionError(f"sequence {i} has other bits than alone")
    torch.cuda.synchronize()
    return {"held": "each sequence as alone, nothing waited for"}
