"""Steps whose next state goes where the caller says, in Triton's interpreter: a child process.

Prints one JSON line a spec and way: how many results differ in a bit from steps that make their
states anew, and how often a state was copied or joined on the way; steps run as written, then, from
the second on, by their tape.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import tapes_triton as tapes  # switches the interpreter on
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import smac
from smac.runtime import launch, player
from smac.runtime.state import State

sys.path.insert(0, str(Path(__file__).parent.parent))
from drawn import LEVELS, STATEFUL, draw, token

SIZES = {"B": 2, "H": 4, "G": 2, "N": 3, "P": 2, "E": LEVELS}
#: From the state before to memory for the state after.
Way = Callable[[State], State]


class Copies(TorchFunctionMode):
    """Counts copies of what is as large as a state."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.count = size, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ("copy_", "cat", "clone"):
            self.count += isinstance(found, Tensor) and found.numel() >= self.size
        return found


def same(state: State) -> State:
    """In place."""
    return state


def other(state: State) -> State:
    """Memory of its own, of the same kind."""
    S = torch.full_like(state.S, torch.nan)
    if state.z is not None:
        whole = torch.full((*S.shape[:-1], S.shape[-1] + 1), torch.nan, dtype=S.dtype)
        return replace(state, S=whole[..., :-1], z=whole[..., -1])
    return replace(state, S=S)


def slot(state: State) -> State:
    """Every third place of a pool, which has no axis without gaps."""
    pool = torch.full((*state.S.shape, 3), torch.nan, dtype=state.S.dtype)
    return replace(state, S=pool[..., 1])


def parted(state: State) -> State:
    """S and z that do not lie side by side."""
    assert state.z is not None
    return replace(state, S=torch.empty_like(state.S), z=torch.empty_like(state.z))


def low(state: State) -> State:
    """Another type."""
    return replace(state, S=state.S.float())


def parts(state: State) -> list[Tensor]:
    """The tensors of a state."""
    return [x for x in (state.S, state.z, state.last) if x is not None]


def steps(spec: str, way: Way, order: str = "auto") -> dict[str, Any]:
    """Three tokens, each from the state that the last one left, anew and by `way`."""
    op = smac.compile(spec, target="triton", order=order)
    inputs = draw(op.spec, grad=False)
    sizes = {a: n for a, n in SIZES.items() if any(a in i.axes for i in op.spec.inputs)}
    state, wrong, copies = op.init_state(**sizes, dtype="float64"), 0, 0
    for t in range(3):
        row = token(op.spec, inputs, t)
        given = copied(state)
        y, due = op.step(state, **row)
        out = way(given)
        version = out.S._version
        with Copies(state.S.numel()) as seen:
            got, last = op.step(given, **row, out_state=out)
        kind = out.S.dtype
        pairs = zip([got, *parts(out)], [y, *parts(due)], strict=True)
        wrong += sum(not torch.equal(a, b.to(kind) if b.is_floating_point() and i else b)
                     for i, (a, b) in enumerate(pairs))  # fmt: skip
        wrong += int(last is not out or out.S._version == version or last.pos != due.pos)
        if way is not same:
            wrong += sum(not torch.equal(a, b) for a, b in zip(parts(given), parts(state),
                                                               strict=True))  # fmt: skip
        copies, state = copies + seen.count, due
    return {"wrong": wrong, "copies": copies}


def copied(state: State) -> State:
    """A copy that lies as an op's own states do: z behind the columns of S."""
    if state.z is None:
        last = None if state.last is None else state.last.clone()
        return replace(state, S=state.S.clone(), last=last)
    whole = torch.cat([state.S, state.z.unsqueeze(-1)], -1)
    return replace(state, S=whole[..., :-1], z=whole[..., -1])


def apart(spec: str) -> dict[str, Any]:
    """Memory that overlaps what the step reads, in ways that it may not be written."""
    op = smac.compile(spec, target="triton")
    row = token(op.spec, draw(op.spec, grad=False), 0)
    y, due = op.step(torch.ones(2, 4, 3, 2, dtype=torch.float64), **row)
    wrong = 0
    pool = torch.ones(2 * 4 * 3 * 2 + 5, dtype=torch.float64)
    before, after = pool[5:].view(2, 4, 3, 2), pool[:-5].view(2, 4, 3, 2)
    got, _ = op.step(before, **row, out_state=after)  # of a state and its shifted self
    wrong += int(not torch.equal(got, y)) + int(not torch.equal(after, due.S))
    pool = torch.ones(2 * 4 * 3 * 2, dtype=torch.float64)
    x = pool[:16].view(row["x"].shape).copy_(row["x"])  # of a state and an input
    out = pool.view(2, 4, 3, 2)
    got, _ = op.step(torch.ones_like(due.S), **{**row, "x": x}, out_state=out)
    wrong += int(not torch.equal(got, y)) + int(not torch.equal(out, due.S))
    leaf = row["x"].clone().requires_grad_()  # where gradients are recorded
    state = torch.ones_like(due.S)
    got, _ = op.step(state.clone(), **{**row, "x": leaf}, out_state=state)
    wrong += int(not torch.equal(got, y) or got.grad_fn is None)
    wrong += int(not torch.equal(state, due.S))
    try:
        op.step(state.detach(), **row, out_state=due.S[:1].expand(2, 4, 3, 2))
        wrong += 1
    except RuntimeError as e:
        wrong += "more than one element" not in str(e)
    return {"wrong": wrong, "copies": 0}


def main() -> None:
    """Every case, as written, and those of one spec by tapes."""
    torch.set_num_threads(1)

    def say(case: str, found: dict[str, Any]) -> None:
        print(json.dumps({"case": case, **found}))

    for spec in STATEFUL:
        say(f"{spec} same", steps(spec, same))
    for spec in ("ssd", "linear_attention"):
        say(f"{spec} other", steps(spec, other))
    say("linear_attention parted", steps("linear_attention", parted))
    say("ssd slot", steps("ssd", slot))
    say("ssd low", steps("ssd", low))
    say("ssd chunked same", steps("ssd", same, "chunked"))
    say("ssd chunked other", steps("ssd", other, "chunked"))
    say("ssd apart", apart("ssd"))
    made: list[player.Player] = []

    def played(function: Any) -> Any:
        made.append(player.Player(function, tapes.Interpreted()))
        return made[-1]

    launch.player = played
    for spec in ("ssd", "linear_attention"):
        say(f"{spec} played", steps(spec, same))
    assert [len(p._tapes) for p in made] == [2, 2]  # where memory is brought, and where it is not
    say("tapes", {"wrong": sum(len(p.why_not) for p in made), "copies": 0})


if __name__ == "__main__":
    main()
