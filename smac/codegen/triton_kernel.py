"""What every Triton kernel's context shares: values as tiles, stores, states, the rendered text.

A `Draft` collects one kernel while its expressions are printed; `finish` renders its template and
answers the text and how it is launched.

Non-goals: no kernel in particular (triton_sweeps.py, triton_masks.py, triton_pointwise.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smac.codegen.env import render
from smac.codegen.print_triton import HELPERS, SUM, Text, real
from smac.codegen.triton_factors import factors_of
from smac.codegen.triton_packed import LENGTHS, packed_grid
from smac.codegen.triton_tiles import Frame, Ix, Scope, spread
from smac.errors import CodegenError
from smac.expr import ONE, Expr, Name, substitute
from smac.ir import SEG, SEQ, TILE, Kernel, Value

#: Axes that a program of a kernel does not own one position of.
WALKED = frozenset({"T", "S", "W", "N", "P", "R", "C", "I", SEG, TILE})
#: The rows of a chunk, and the chunk: how vectors over the rows of chunks are read.
ROW: Frame = {"C": Ix("i_chunk", section=1), "I": Ix("o_i", 0, None, 1, "C")}
#: Functions of functions.py.jinja that templates call.
TILE_HELPERS = ("owner", "meeting", "wide_dot", "add_read", "decay_tile", "constant_tile",
                "lower_tile", "log2_decay", "late_tile", "late_fixed_tile", "strict_tile",
                "diagonal_tile")
#: Stands for a test of a launch's strides, which the wrapper writes (`Host.launch`).
FAR = "@far"


@dataclass(frozen=True, slots=True)
class Layout:
    """Axes of a module: `batch` in order, `groups` of H, `sized` axes that some input has."""

    batch: tuple[str, ...]
    groups: tuple[str, ...]
    sized: frozenset[str]
    packed: bool = False


@dataclass(frozen=True, slots=True)
class StoreText:
    """`tl.store(pointer, value, mask)`."""

    pointer: str
    value: str
    mask: str | None


@dataclass(frozen=True, slots=True)
class Launch:
    """A rendered kernel and how the wrapper calls it; texts are Python over the wrapper's names."""

    name: str
    text: str
    tensors: tuple[str, ...]
    sizes: tuple[str, ...]
    scalars: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, str], ...]
    grid: tuple[str, ...]
    helpers: frozenset[str]
    warps: int | str = 4
    stages: str = ""
    #: Whether its loop may have one load more in flight than others do (module.py.jinja).
    deep: bool = False
    #: Programs that run at once, where each has scratch of its own; "": all of them.
    at_once: str = ""
    #: Whether products and sums may be rounded once, together.
    fused: bool = True
    #: The most registers that a thread may have, as the wrapper's text; "": as many as it likes.
    registers: str = ""


@dataclass(slots=True)
class Draft:
    """A kernel being written. `grid` lists (index, count in the kernel, count in the wrapper)."""

    name: str
    about: str
    scope: Scope
    values: Mapping[str, Value]
    grid: list[tuple[str, str, str]]
    constants: dict[str, str]
    scalars: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Text] = field(default_factory=dict)
    #: Tensors over the rows of chunks, by the expression that they hold (triton_rows.py).
    rows: Mapping[Any, str] = field(default_factory=dict)
    row: Frame = field(default_factory=lambda: ROW)
    #: Packed sequences are gone over inside of a program, rather than by programs.
    inside: bool = False
    #: The head that a program is at; or, where it takes several in a loop, their first.
    head: str = "at_H"
    #: The wrapper's name of how many programs run at once, where not all of them may.
    at_once: str = ""

    def show(self, e: Expr, frame: Frame, rank: int) -> Text:
        """`e` over tiles of `frame`: what is in registers first, then tensors, then values."""
        hidden = {n: v.expr for n, v in self.values.items()
                  if n not in self.extra and n not in self.scope.known}  # fmt: skip
        return self.scope.text(substitute(e, hidden), frame, rank, self.extra)

    def value(self, name: str, frame: Frame, rank: int) -> Text:
        """The value called `name`; its expression reads tensors alone."""
        return self.scope.text(self.values[name].expr, frame, rank, {})

    def number(self, value: str, frame: Frame, rank: int) -> str:
        """The value called `value` as a tile of type ACC."""
        return real(self.value(value, frame, rank))

    def integer(self, value: str | None, frame: Frame, rank: int) -> str:
        """An integer value (a reset) to be compared, or 0 where there is none."""
        return "0" if value is None else self.value(value, frame, rank).at(SUM)

    def operand(self, value: str, frame: Frame, rank: int = 2, cast: bool = True) -> str:
        """An operand of a product: its tile, 0 beyond its axes; `tail` is column n_P."""
        v = self.values[value]
        return self._operand(v.expr, v.tail, frame, rank, cast)

    def _operand(self, e: Expr, tail: Expr | None, frame: Frame, rank: int, cast: bool) -> str:
        text = real(self.scope.text(e, frame, rank, {}))
        ixs = [ix for a, ix in frame.items() if a not in self.scope.fixed and ix.mask]
        masks = dict.fromkeys(spread(ix.mask, ix.dim, rank) for ix in ixs if ix.mask)
        text = f"tl.where({' & '.join(masks)}, {text}, 0.0)" if masks else text
        if tail is not None and "P" in frame and frame["P"].dim is not None:
            p = frame["P"]
            others = [spread(ix.mask, ix.dim, rank) for ix in ixs if ix.mask and ix is not p]
            at = " & ".join([f"({spread(p.var, p.dim, rank)} == n_P)", *others])
            beside = {a: x for a, x in frame.items() if a != "P"}
            column = real(self.scope.text(tail, beside, rank, {}))
            text = f"tl.where({at}, {column}, {text})"
            self.scope.sizes.add("P")
        return f"({text}).to(OP)" if cast else text

    def core(self, value: str, frame: Frame, cast: bool = True) -> str:
        """An operand [rows, columns] of a product without the factors of its rows; as numbers of
        type ACC where it is not `cast` to the product's."""
        v = self.values[value]
        core = factors_of(v, self.scope.known).core
        tensor = self.scope.known.get(core.id) if isinstance(core, Name) else None
        masked = {a for a, ix in frame.items() if ix.mask and a not in self.scope.fixed}
        if v.tail is None and tensor is not None and masked <= set(tensor.axes):
            loaded = self.scope.load(tensor.name, frame, 2, raw=cast)
            return f"{loaded.text}.to(OP)" if cast else real(loaded)
        return self._operand(core, v.tail, frame, 2, cast)

    def whole(self, value: str, frame: Frame) -> str:
        """An operand [rows, columns] of a product, as it is loaded where it has no factors."""
        found = factors_of(self.values[value], self.scope.known)
        plain = found.vector == found.scalar == ONE
        return self.core(value, frame) if plain else self.operand(value, frame)

    def weights(self, values: tuple[str, ...], t: Ix) -> tuple[str | None, str | None]:
        """What `core` leaves out of the operands `values`, multiplied: over rows t, and a number.

        A vector over rows is 0 beyond the sequence or meets operands that are; None: 1."""
        return self.vector(values, t), self.numbers(values)

    def vector(self, values: tuple[str, ...], t: Ix) -> str | None:
        """The part of `weights` that differs from row to row."""
        found = (factors_of(self.values[n], self.scope.known).vector for n in values)
        return _times([self.scope.load(self.rows[e], self.row, 1).text if e in self.rows
                       else real(self.scope.text(e, {"T": t}, 1, {}))
                       for e in found if e != ONE])  # fmt: skip

    def numbers(self, values: tuple[str, ...]) -> str | None:
        """The part of `weights` that is the same for all rows."""
        found = (factors_of(self.values[n], self.scope.known).scalar for n in values)
        return _times([real(self.scope.text(e, {}, 0, {})) for e in found if e != ONE])

    def store(self, tensor: str, e: Expr, frame: Frame, rank: int,
              also: str | None = None) -> StoreText:  # fmt: skip
        """`e` stored where `frame` says; `also` is one more condition."""
        value = real(self.show(e, frame, rank))
        pointer, mask = self.scope.address(tensor, frame, rank)
        masks = [x for x in (mask, also) if x]
        return StoreText(pointer, value, " & ".join(masks) or None)

    def finish(self, template: str, x: Mapping[str, object], warps: int | str = 4) -> Launch:
        """Render the template and say how to launch it."""
        scope, grid, packed = self.scope, self.grid, None
        if self.at_once:
            self.scalars["first_program"] = "first_program"
        if scope.packed:
            grid, packed, more = packed_grid(grid, self.constants, self.inside)
            self.scalars |= more
            scope.use(LENGTHS)
        counts = " ".join(c for _, c, _ in grid)
        groups = [g for g in scope.groups if g in scope.fixed
                  and scope.fixed[g].var == f"at_{g}" and self._owns(g) is False
                  and any(g in t.axes for t in scope.tensors.values())]  # fmt: skip
        context = {
            "name": self.name, "about": self.about, "tensors": list(scope.tensors.values()),
            "sizes": [], "scalars": list(self.scalars), "constants": list(self.constants),
            "grid": [(i, c) for i, c, _ in grid], "groups": groups, "head": self.head,
            "packed": packed, "first": "first_program" if self.at_once else None,
            "bases": scope.bases(), "inner_bases": scope.bases(inner=True),
            "before": scope.sections[0], "loop": scope.sections[1], "inner": scope.sections[2],
            "late": scope.sections[3],
        }  # fmt: skip
        body = render(f"triton/{template}.py.jinja", k=context, x=x)
        found = set(re.findall(r"\bn_([A-Za-z]\w*)", body + counts)) - {"cuts"}
        found -= {"T"} if packed else set()
        sizes = tuple(sorted(found))
        text = render(f"triton/{template}.py.jinja", k={**context, "sizes": sizes}, x=x)
        helpers = frozenset(h for h in (*HELPERS, *TILE_HELPERS) if f"{h}(" in text)
        return Launch(
            self.name, wrap(text.strip() + "\n"), tuple(scope.tensors), sizes,
            tuple(self.scalars.items()), tuple(self.constants.items()),
            tuple(w for _, _, w in grid), helpers, warps, at_once=self.at_once,
        )  # fmt: skip

    def _owns(self, axis: str) -> bool:
        return any(i == f"at_{axis}" for i, _, _ in self.grid)


def heads_and_batch(layout: Layout, axes: set[str]) -> list[str]:
    """The axes that programs own one position of, H first; a group stands for its heads."""
    heads = ["H"] if axes & {"H", *layout.groups} else []
    return [*heads, *(a for a in reversed(layout.batch) if a in axes)]


def atom(text: str) -> str:
    """`text` fit to be a factor."""
    return text if text.replace("_", "").isalnum() else f"({text})"


def _times(texts: list[str]) -> str | None:
    """A product of texts, fit to be a factor; None for none."""
    if not texts:
        return None
    return " * ".join(atom(t) for t in texts)


def owned_grid(owned: list[str]) -> list[tuple[str, str, str]]:
    """Grid entries of axes that a program owns one position of."""
    return [(f"at_{a}", f"n_{a}", f"n_{a}") for a in owned]


def fixed_frame(layout: Layout, owned: list[str]) -> dict[str, Ix]:
    """How owned axes are indexed; groups follow from the head."""
    groups = layout.groups if "H" in owned else ()
    own = (*owned, *groups, *((SEQ,) if layout.packed else ()))
    return {a: Ix(f"at_{a}", fixed=True) for a in own}


def carried_axes(k: Kernel) -> set[str]:
    """Axes of a kernel's values."""
    return {a for v in k.values for a in v.axes}


def value(k: Kernel, name: str) -> Value:
    """The value called `name`; CodegenError where the kernel has none."""
    for v in k.values:
        if v.name == name:
            return v
    raise CodegenError(f"triton: kernel '{k.name}' has no value '{name}'")


def identifier(name: str) -> str:
    """A name of lowering's ("d.Q") as part of an identifier."""
    return name.replace(".", "_")


def wrap(text: str, limit: int = 98) -> str:
    """Lines longer than `limit` broken at blanks inside brackets; code is not changed by it."""
    out: list[str] = []
    depth, quoted = 0, False
    for line in text.split("\n"):
        line = line.rstrip()
        opens = line.count('"""') % 2 == 1
        if quoted or opens:
            out.append(line)
            quoted ^= opens
            continue
        breaks, after = _breaks(line, depth)
        out += [line] if len(line) <= limit else _broken(line, breaks, limit)
        depth = after
    return "\n".join(out)


def _breaks(line: str, depth: int) -> tuple[list[int], int]:
    """Where `line` may be broken when it starts `depth` brackets deep, and how deep it ends."""
    breaks: list[int] = []
    quote = ""
    if line.lstrip().startswith(('"""', "#")):
        return breaks, depth
    for i, c in enumerate(line):
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c == "#":
            break
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == " " and depth > 0 and line[:i].strip():
            breaks.append(i)
    return breaks, depth


def _broken(line: str, breaks: list[int], limit: int) -> list[str]:
    """`line` in pieces at some of `breaks`; a comment at its end goes above it."""
    body, _, comment = line.partition("  # ")
    indent = len(body) - len(body.lstrip())
    out = [" " * indent + f"# {comment}"] if comment else []
    start, pad = 0, ""
    while len(pad) + len(body) - start > limit:
        fit = [b for b in breaks if start < b <= start + limit - len(pad) and b < len(body)]
        if not fit:
            break
        commas = [b for b in fit if body[b - 1] == "," and b > start + limit // 3]
        at = (commas or fit)[-1]
        out.append(pad + body[start:at].rstrip())
        start, pad = at + 1, " " * (indent + 8)
    return [*out, pad + body[start:]]
