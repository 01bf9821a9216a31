"""The host side of a Triton program: allocate, launch, reduce, return.

A store goes straight into its buffer where the kernel's tile has the buffer's axes; else into a
partial tensor over all of the store's axes, in the accumulator's type, that torch sums. Sums are
thus in a fixed order: the same call gives the same bits.

Non-goals: no kernel text (triton_sweeps.py and its like), no decisions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from smac.codegen.triton_kernel import FAR, Launch, Layout, identifier
from smac.codegen.triton_tiles import Tensor
from smac.errors import CodegenError
from smac.expr import names
from smac.ir import SEG, SEQ, TILE, Buffer, Join, Kernel, Program, Store, Value
from smac.plan.config import Tiles

#: Names that the module's own code has; a tensor called so gets a v_ in front.
_TAKEN = re.compile(
    r"(n_\w+|(partial|raw|fft|log|prefix|resets|cut|tiles|scratch|at_once|rows|sums|scaled|scores)_\w+|op|acc|device|torch|triton|tl|pad|"
    r"rows|columns|stages|on_chip|first|shift|count|slots|(flip|ahead|behind)(_grad)?|first_token|first_slot|first_program|programs|at_once|"
    r"TYPES|PRECISION|scan_ids|scan_sequences|last_of_sequences|cut_sums|far|tall|crowd|side_by_side|heads_each|spectrum|state_channels|channels_at|along|convolve|correlate|lags_of|shares|of_shares|"
    r"(forward|backward)\w*)"
)


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the module, for module.py.jinja."""

    name: str
    about: str
    arguments: tuple[str, ...]
    lines: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(slots=True)
class Host:
    """The wrapper of `program` being written. `known` are tensors that kernels may read."""

    program: Program
    layout: Layout
    known: dict[str, Tensor] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    kernels: list[Launch] = field(default_factory=list)
    helpers: set[str] = field(default_factory=set)
    extra_columns: dict[str, int] = field(default_factory=dict)
    chunk: str = ""
    segments: str = ""
    tiles: str = "1"
    lanes: int = 1
    made: set[str] = field(default_factory=set)
    count: int = 0
    #: Tensors of lags that lie side by side.
    aligned: set[str] = field(default_factory=set)
    #: Vectors over the rows of chunks (triton_rows.py), by chunk and what they hold.
    rows: dict[tuple[int, object], str] = field(default_factory=dict)
    #: Tensors of lanes that are taken in turn (triton_turns.py), by the same.
    turns: dict[tuple[int, object], Any] = field(default_factory=dict)
    #: Scratch of programs that run in turn: the tensor, and how many run at once.
    shared: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for b in self.program.buffers:
            self.know(Tensor(b.name, b.axes, b.dtype == "int"))
        self.made |= {b.name for b in arguments(self.program)}

    def know(self, t: Tensor) -> str:
        """The Python variable of a tensor that kernels can now read."""
        name = identifier(t.name)
        while _TAKEN.fullmatch(name) or name in self.variables.values():
            name = f"v_{name}"
        self.known[t.name] = replace(t, arg=name)
        self.variables[t.name] = name
        return name

    def fresh(self, stem: str, axes: tuple[str, ...], integer: bool = False) -> str:
        """A new tensor's name, which is its variable too."""
        self.count += 1
        name = f"{stem}_{self.count}"
        self.known[name] = Tensor(name, axes, integer)
        self.variables[name] = name
        return name

    def canonical(self, axes: set[str]) -> tuple[str, ...]:
        """`axes` in the order of buffers, groups dropped beside H."""
        order = (*self.layout.batch, "T", "S", "W", "H", *self.layout.groups, "R", "N", "P")
        heads = {"H"} if "H" in axes or len(axes & set(self.layout.groups)) > 1 else set()
        found = (axes - set(self.layout.groups) | heads) if heads else axes
        return tuple(a for a in order if a in found)

    def size(self, axis: str, state: str | None = None) -> str:
        """The length of an axis, as Python text over the wrapper's sizes."""
        if axis == "S":
            return "n_T"
        if axis == "R":
            return str(self.lanes)
        if axis == "C":
            return self.chunk
        if axis == SEG:
            return self.segments
        if axis == TILE:
            return self.tiles
        more = self.extra_columns.get(state or "", 0)
        return f"n_{axis} + {more}" if more and axis == "P" else f"n_{axis}"

    def dtype(self, b: Buffer) -> str:
        """A buffer's torch dtype, as text."""
        match b.dtype:
            case "operand":
                return "op"
            case "acc":
                return "acc"
            case "int":
                return "torch.int32"
            case "state":
                return "acc if op == torch.float16 else op"
            case _:
                return f"{self.variables[b.of or b.name]}.dtype"

    def allocate(self, name: str, dtype: str, shape: list[str] | None = None,
                 fill: str = "empty") -> None:  # fmt: skip
        """`x = torch.empty(…)` for the tensor `name`, unless the caller has brought it."""
        sizes = shape or [self.size(a, name) for a in self.known[name].axes]
        text = ", ".join(sizes) + ("," if len(sizes) == 1 else "")
        line = f"{self.variables[name]} = torch.{fill}(({text}), dtype={dtype}, device=device)"
        brought = any(b.name == name for b in places(self.program))
        self.lines += [f"if {self.variables[name]} is None:", f"    {line}"] if brought else [line]
        self.made.add(name)

    def ensure(self, name: str) -> None:
        """Allocate the buffer `name` unless it is there."""
        if name not in self.made:
            self.allocate(name, self.dtype(self.program.buffer(name)))

    def scratch(self, programs: str, each: str) -> tuple[str, str]:
        """A tensor with `each` elements for every program that runs at once, and how many do;
        kernels with the same numbers have the same one."""
        if (programs, each) not in self.shared:
            self.helpers.add("at_once")
            name = self.fresh("scratch", ("_s",))
            turn = name.replace("scratch", "at_once")
            self.lines.append(f"{turn} = at_once({programs}, {each})")
            self.allocate(name, "acc", [f"{turn} * {each}"])
            self.shared[programs, each] = name, turn
        return self.shared[programs, each]

    def launch(self, k: Launch) -> None:
        """Call a kernel, or as many programs of it at a time as run at once."""
        self.kernels.append(k)
        if "LAGS" in dict(k.constants):
            self._align(k)
        programs = " * ".join(k.grid) or "1"
        grid = f"min({k.at_once}, programs - first_program)" if k.at_once else programs
        args = [f"{self.variables[t]}, *{self.variables[t]}.stride()," for t in k.tensors]
        sizes = ", ".join([*(f"n_{s}" for s in k.sizes), *(v for _, v in k.scalars)])
        if "R" in dict(k.constants):
            self.helpers.add("tall")
        if "crowd(" in k.registers:
            self.helpers.add("crowd")
        constants = ", ".join(f"{n}={self._far(k) if v == FAR else v}" for n, v in k.constants)
        lines = [
            f"{k.name}[({grid},)](",
            *(f"    {a}" for a in args),
            *([f"    {sizes},"] if sizes else []),
            f"    {constants}, num_warps={_warps(k, self.program.tiles)},",
            f"    num_stages={_stages(k, self.program.tiles)},",
            *([] if k.fused else ["    enable_fp_fusion=False,"]),
            *([f"    maxnreg={k.registers},"] if k.registers else []),
            ")",
        ]
        if k.at_once:
            lines = [f"programs = {programs}",
                     f"for first_program in range(0, programs, {k.at_once}):",
                     *(f"    {x}" for x in lines)]  # fmt: skip
        self.lines += lines

    def _align(self, k: Launch) -> None:
        """Lags that a kernel reads in runs lie side by side."""
        for t in k.tensors:
            if "W" in self.known[t].axes and t not in self.aligned:
                var, at = self.variables[t], self.known[t].axes.index("W")
                self.lines.append(f"{var} = side_by_side({var}, {at})")
                self.helpers.add("side_by_side")
                self.aligned.add(t)

    def _far(self, k: Launch) -> str:
        """The test whether offsets inside a tile may pass 32 bits, as text."""
        self.helpers.add("far")
        inside = ("T", "S", "W", "N", "P")
        strides = [f"{self.variables[t]}.stride({i})" for t in k.tensors
                   for i, a in enumerate(self.known[t].axes) if a in inside]  # fmt: skip
        return f"far({', '.join(strides)})"

    def summed(self, source: str, target: tuple[str, ...], tensor: Tensor | None = None) -> str:
        """`source` summed to `target`'s axes, as text: batch and tokens, then heads of a group.
        `tensor` has its axes where they are to be read otherwise."""
        axes = list((tensor or self.known[source]).axes)
        text = self.variables[source]
        group = next((g for g in target if g in self.layout.groups and g not in axes), None)
        gone = [i for i, a in enumerate(axes) if a not in target and not (a == "H" and group)]
        if gone:
            text += f".sum(({', '.join(map(str, gone))},))"
            axes = [a for i, a in enumerate(axes) if i not in gone]
        if group and "H" in axes:
            i = axes.index("H")
            text += f".unflatten({i}, (n_{group}, -1)).sum({i + 1})"
            axes[i] = group
        if set(axes) != set(target):
            raise CodegenError(f"triton: cannot sum '{source}' over {axes} to {target}")
        order = [axes.index(a) for a in target]
        return text if order == sorted(order) else f"{text}.permute({', '.join(map(str, order))})"

    def shares(self, part: str, axes: tuple[str, ...], parts: str, buffer: str) -> str:
        """Allocate `part`: `parts` of the heads of a gradient, over `axes` each. Where that makes
        one for each group it is `buffer` itself. The sum that goes there, as text."""
        target = self.program.buffer(buffer).axes
        group = next((g for g in target if g in self.layout.groups), None)
        if group is None or set(target) != {*axes, group} or buffer in self.made:
            self.allocate(part, "acc", [parts, *map(self.size, axes)])
            return self.summed(part, target, replace(self.known[part], axes=("H", *axes)))
        self.helpers |= {"shares", "of_shares"}
        shape, i = ", ".join(map(self.size, target)), target.index(group)
        dtype = self.dtype(self.program.buffer(buffer))
        order = [a for a in target if a != group]
        if order != list(axes):
            raise CodegenError(f"triton: shares of '{buffer}' over {axes}, expected {order}")
        self.lines.append(f"{part} = shares(({shape}), {i}, {parts}, {dtype}, acc, device)")
        self.made.add(part)
        return f"of_shares({part}, {i}, n_{group})"

    def put(self, buffer: str, terms: list[str]) -> None:
        """`buffer` (+)= the sum of `terms`, in the buffer's type."""
        var = self.variables[buffer]
        dtype = self.dtype(self.program.buffer(buffer))
        if buffer in self.made:
            terms = [var, *terms]
        self.lines.append(f"{var} = ({' + '.join(terms)}).to({dtype})")
        self.made.add(buffer)


def axes_of(host: Host, s: Store, values: Mapping[str, Value],
            own: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:  # fmt: skip
    """Axes of a store's expression: its own, and those of all that it reads."""
    found = set(s.axes)
    for n in names(s.expr):
        if n in own:
            found |= set(own[n])
        elif n in values and n not in host.known:
            found |= set(values[n].axes)
        else:
            found |= set(host.known[n].axes)
    return host.canonical(found)


def arguments(p: Program) -> tuple[Buffer, ...]:
    """Buffers that a program's function takes: inputs, cotangents, then states that come in."""
    out = finals(p)
    return (*(b for b in p.buffers if b.role == "input"),
            *(b for b in p.buffers if b.role == "cotangent"),
            *(b for b in p.buffers if b.role == "state" and b.name not in out),
            *(b for b in p.buffers if b.role == "lengths"))  # fmt: skip


def results(p: Program) -> tuple[Buffer, ...]:
    """Buffers that it returns: outputs, gradients, then states that go out."""
    out = finals(p)
    return (*(b for b in p.buffers if b.role in ("output", "gradient")),
            *(b for b in p.buffers if b.name in out))  # fmt: skip


def finals(p: Program) -> frozenset[str]:
    """State buffers that the program fills: final states, and ids after the last token."""
    carried = {c.final for s in p.steps if isinstance(s, Kernel) for c in s.carries if c.final}
    carried |= {s.final for s in p.steps if isinstance(s, Join) and s.final}
    states = {b.name for b in p.buffers if b.role == "state"}
    return frozenset(carried | {n for n in states if n.endswith("_out")})


def places(p: Program) -> tuple[Buffer, ...]:
    """Results that go where the caller says, if he does: the last state."""
    out = finals(p)
    return tuple(b for b in p.buffers if b.name == "state.ST" and b.name in out)


def layout_of(p: Program) -> Layout:
    """Batch axes stand before T; what is neither known nor before T is a group of H."""
    known = ("T", "S", "W", "H", "N", "P", "R", "C", SEG, SEQ, TILE, "ENDS")
    batch: dict[str, None] = {}
    for b in p.buffers:
        if "T" in b.axes:
            batch.update(dict.fromkeys(b.axes[: b.axes.index("T")]))
    others = dict.fromkeys(a for b in p.buffers for a in b.axes
                           if a not in known and a not in batch and a != "B")  # fmt: skip
    batch_axes = tuple(batch) if "B" in batch else ("B", *batch)
    sized = {a for b in arguments(p) if b.role == "input" for a in b.axes}
    return Layout(batch_axes, tuple(others), frozenset(sized), p.packed)


def _warps(k: Launch, tuned: Tiles) -> int | str:
    """Warps of a program: as tuned, where it has a loop over tiles."""
    return tuned.warps if tuned.warps and _tile(dict(k.constants)) else k.warps


def _stages(k: Launch, tuned: Tiles) -> str:
    """Loads in flight: as asked for, or as many as fit, and no more than tuned."""
    tile = [*_tile(dict(k.constants)), *(["deep=True"] if k.deep else [])]
    fit = f"stages({', '.join(['op', *tile])})"
    return k.stages or (f"min({fit}, {tuned.stages})" if tuned.stages else fit)


def _tile(constants: Mapping[str, str]) -> list[str]:
    """Rows and both widths of the tiles that a kernel loads in its loop; nothing for the others."""
    widths = [constants[n] for n in ("DC", "DN", "BN", "BK", "DP", "BP") if n in constants]
    return [constants["C"], *widths] if "C" in constants and len(widths) == 2 else []
