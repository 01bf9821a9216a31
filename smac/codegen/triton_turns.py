"""Lanes that a kernel takes in turn: what they hold as tensors along LANE, and runs of lanes alike.

A kernel that has the states of all lanes at once grows with them: beyond a few its registers spill
and it compiles for half a minute. Lanes of tensors are one text, whatever their number: sweeps for
states have a program for each, kernels of chunks a loop over them.

Non-goals: how many lanes are many (plan/config.py), masks per channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from smac.codegen.triton_kernel import Draft, StoreText
from smac.codegen.triton_lanes import restored
from smac.codegen.triton_rows import LANE, SUMS, Place, row_axes, row_kernel, sum_of
from smac.codegen.triton_sweeps import Turn, sum_texts
from smac.codegen.triton_tiles import Frame, Ix
from smac.codegen.triton_wrapper import Host
from smac.expr import ONE, Expr, Name, names
from smac.ir import Kernel, LaneGrad, LaneIR

#: Kinds of a lane's gradients.
KINDS = ("decay", "read", "write")


@dataclass(frozen=True, slots=True)
class Run:
    """Lanes from `first` to before `last` that differ in numbers alone; `slot`: where along R the
    states of the first are, if they have any."""

    first: int
    last: int
    like: LaneIR
    slot: int


@dataclass(frozen=True, slots=True)
class Turns:
    """Tensors (batch…, H, LANE, C, I) over the rows of chunks: sums of log2 decays, what is 1 where
    nothing cuts (None where nobody asks), and factors (None where every one is 1)."""

    sums: str
    passes: str | None
    read: str | None
    write: str | None


def runs(k: Kernel) -> tuple[Run, ...]:
    """The lanes of a kernel, those beside each other that are alike together."""

    def alike(a: LaneIR, b: LaneIR) -> bool:
        return (a.late, a.upper, a.keeps, a.inside) == (b.late, b.upper, b.keeps, b.inside)

    found: list[Run] = []
    for i, lane in enumerate(k.lanes):
        if found and alike(found[-1].like, lane):
            found[-1] = replace(found[-1], last=i + 1)
        else:
            found.append(Run(i, i + 1, lane, sum(x.carried for x in k.lanes[:i])))
    return tuple(found)


def prepare_turns(host: Host, k: Kernel) -> Turns:
    """Tensors of what the lanes hold; launches the kernel that writes them where none has."""
    exprs = {v.name: v.expr for v in k.values}
    sums = [sum_of(x, k) for x in k.lanes]
    reads, writes = ([ONE if n is None else exprs[n] for n in given]
                     for given in ([x.read for x in k.lanes], [x.write for x in k.lanes]))
    key = (k.walk.chunk, (*sums, *reads, *writes))
    known: Turns | None = host.turns.get(key)
    if known is not None:
        return known
    if any(x.inside for x in k.lanes) and not host.turns:
        host.lines += [f"if rows({k.walk.chunk}, op) != {k.walk.chunk}:",
                       f'    raise TypeError(f"found {{op}}; expected a type that takes chunks of "'
                       f' "{k.walk.chunk}, as planned: lanes reset with them")']  # fmt: skip
    axes = row_axes(host, *sums, *reads, *writes)
    rows = f"rows({k.walk.chunk}, op)"

    def made(dtype: str) -> str:
        name = host.fresh("rows", (*axes, LANE, "C", "I"))
        shape = [*map(host.size, axes), str(len(k.lanes)), host.size("C"), rows]
        host.allocate(name, dtype, shape)
        return name

    trained = any(s.lane_grads for s in host.program.steps if isinstance(s, Kernel))
    found = Turns(made(SUMS), made("acc") if trained else None,
                  *(made("acc") if set(x) != {ONE} else None for x in (reads, writes)))
    places = [Place(w, found.sums, i, found.passes) for i, w in enumerate(sums)]
    for tensor, factors in ((found.read, reads), (found.write, writes)):
        places += [Place(e, tensor, i) for i, e in enumerate(factors) if tensor is not None]
    name = f"{host.program.name}_lanes" + (f"_{len(host.turns)}" if host.turns else "")
    host.launch(row_kernel(name, host.layout, host.known, axes, places, rows))
    host.turns[key] = found
    return found


def run_texts(d: Draft, turns: Turns, run: Run, at: Frame, reverse: bool) -> dict[str, object]:
    """A run's lane for the templates, at rows `at`: its sums of decays, factors of rows and columns
    (read and write, exchanged in reverse)."""
    like = run.like
    x: dict[str, object] = {
        "i": "", "first": run.first, "last": run.last, "before": run.first - run.slot,
        "late": like.late, "keeps": like.keeps, "carried": like.carried, "upper": like.upper,
        "constant": None,
    }  # fmt: skip
    x |= sum_texts(d, turns.sums, at, like.late) if like.keeps else {"sum": None}
    read, write = (n and d.scope.load(n, at, 1).text for n in (turns.read, turns.write))
    return x | ({"row": write, "col": read} if reverse else {"row": read, "col": write})


def turns_of(k: Kernel, turns: Turns, upper: bool) -> Iterator[Turn]:
    """The lanes of one side of the diagonal that have states, a sweep for each run."""
    for run in runs(k):
        if run.like.carried and run.like.upper == upper:
            first = {LANE: run.first, "R": run.slot}
            yield Turn(first, run.last - run.first, partial(_of_sweep, turns, run))


def _of_sweep(turns: Turns, run: Run, d: Draft, reverse: bool) -> dict[str, object]:
    return run_texts(d, turns, run, d.row, reverse)


@dataclass(frozen=True, slots=True)
class Gradients:
    """Tensors (LANE, batch…, T, H) of lanes' gradients by kind, those that stores read; `lanes`:
    kind and lane by the gradient's name."""

    tensors: dict[str, str]
    lanes: dict[str, tuple[str, int]]

    def of(self, run: Run) -> dict[str, str]:
        """The tensors by kind that some lane of the run has a gradient in."""
        kinds = {kind for kind, i in self.lanes.values() if run.first <= i < run.last}
        return {kind: t for kind, t in self.tensors.items() if kind in kinds}


def gradients(host: Host, k: Kernel, axes: tuple[str, ...]) -> Gradients:
    """Allocate what stores read of the lanes' gradients."""
    read = {n for s in k.stores for n in names(s.expr)}
    lanes = {out: (kind, g.lane) for g in k.lane_grads for kind, out in _outs(g) if out in read}
    tensors: dict[str, str] = {}
    for kind in KINDS:
        if any(kind == found for found, _ in lanes.values()):
            tensors[kind] = host.fresh("raw", (LANE, *axes))
            host.allocate(tensors[kind], "acc", [str(len(k.lanes)), *map(host.size, axes)])
    return Gradients(tensors, lanes)


def _outs(g: LaneGrad) -> Iterator[tuple[str, str]]:
    for kind in KINDS:
        out = getattr(g, kind)
        if out is not None:
            yield kind, out


def run_lanes(d: Draft, k: Kernel, turns: Turns, grads: Gradients) -> list[dict[str, object]]:
    """Each run of lanes as the one lane that a loop over them sees in a chunk, at indices at_LANE
    and at_R, with the stores of its gradients."""
    at: Frame = {LANE: Ix("at_LANE", section=2)}
    frame: Frame = {"T": Ix("o_i", 0, "m_t", 0, "C", start="i_first"), **at}
    found: list[dict[str, object]] = []
    for run in runs(k):
        text = run_texts(d, turns, run, {**d.row, **at}, run.like.upper)
        text |= restored(d, k, run.like, {"R": Ix("at_R", section=2)})
        own = grads.of(run)
        text["grads"] = {n: f"own_{n}" if n in own else None for n in KINDS} if own else None
        places = {n: d.scope.address(t, frame, 1) for n, t in own.items()}
        text["stores"] = [StoreText(p, f"b_own_{n}", mask) for n, (p, mask) in places.items()]
        if turns.passes is not None and "decay" in own:
            text["cut"] = f"{d.scope.load(turns.passes, {**d.row, **at}, 1).text} == 0.0"
        found.append(text)
    return found


def behind(host: Host, found: Gradients) -> dict[str, Expr]:
    """Lanes' gradients by name, each a tensor of its own, once the kernel is launched."""
    raw: dict[str, Expr] = {}
    for out, (kind, i) in found.lanes.items():
        tensor = found.tensors[kind]
        name = host.fresh("raw", host.known[tensor].axes[1:])
        host.lines.append(f"{name} = {tensor}[{i}]")
        raw[out] = Name(name)
    return raw
