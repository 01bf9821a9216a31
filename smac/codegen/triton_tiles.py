"""Tensors, frames and loads of a Triton kernel: which tile of which tensor an expression reads.

A frame says how an axis is indexed at one place of a kernel: by a program's scalar, along the rows
or columns of a tile, or by a whole tile of positions. A tensor is loaded at its own rank, once in
a section (before the loop, in it, behind it), and broadcast where it is used.

Non-goals: no knowledge of kernels or masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from smac.codegen.print_triton import ATOM, SUM, Leaf, Text, show
from smac.codegen.triton_packed import ENDS, offsets
from smac.errors import CodegenError
from smac.expr import Expr, Index, Name, Size
from smac.ir import SEQ

#: The tensor that says how many tokens came before, where a program starts from a state.
POS = "state.pos"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A kernel's argument: `p_arg` and strides `s_arg_axis`, in the order of `axes`.

    `arg` is the identifier that the tensor `name` has in a module; `integer`: loaded as it is.
    """

    name: str
    axes: tuple[str, ...]
    integer: bool = False
    arg: str = ""

    @property
    def id(self) -> str:
        """The identifier."""
        return self.arg or self.name


@dataclass(frozen=True, slots=True)
class Ix:
    """How one axis is indexed: `var` is a scalar (`dim` None), a vector along rows (0) or columns
    (1) of the frame's tiles, or a tile as it stands (2). `mask` names a vector or tile like it.

    `section` is where `var` is known: loads go to the last section among their indices'.
    `fixed` scalars are added to the tensor's base pointer. The position is `start` + `var` where
    there is a start, a 64-bit scalar: the tile's own offsets then do not change along a loop.
    `place` names the position in 32 bits, for what is only compared, subtracted or made a number.
    """

    var: str
    dim: int | None = None
    mask: str | None = None
    section: int = 0
    extent: str = ""
    fixed: bool = False
    start: str = ""
    place: str = ""

    @property
    def position(self) -> str:
        """Where along the axis, as a factor."""
        return f"({self.start} + {self.var})" if self.start else self.var


Frame = Mapping[str, Ix]


def spread(text: str, dim: int | None, rank: int) -> str:
    """A vector along `dim` of tiles of `rank`, ready to broadcast."""
    if dim is None or dim == 2 or rank < 2:
        return text
    return f"{text}[:, None]" if dim == 0 else f"{text}[None, :]"


@dataclass(slots=True)
class Load:
    """`name = tl.load(pointer, mask)`, as a number of type ACC or an integer; `raw` names it in the
    tensor's own type where somebody reads that, and `cast` says whether somebody reads `name`."""

    name: str
    pointer: str
    mask: str | None
    shape: str
    integer: bool
    raw: str = ""
    cast: bool = False


@dataclass(slots=True)
class Scope:
    """What one kernel loads: `tensors` become arguments, `sections` lists of loads.

    `fixed` indexes batch, heads, groups (and whatever a program owns one of). `packed`: tokens and
    chunks are those of one sequence, and pointers move to where it starts.
    """

    fixed: dict[str, Ix]
    groups: tuple[str, ...]
    known: Mapping[str, Tensor]
    packed: bool = False
    tensors: dict[str, Tensor] = field(default_factory=dict)
    sizes: set[str] = field(default_factory=set)
    helpers: set[str] = field(default_factory=set)
    sections: list[list[Load]] = field(default_factory=lambda: [[], [], [], []])
    _made: dict[tuple[object, ...], Load] = field(default_factory=dict)

    def use(self, name: str) -> Tensor:
        """The tensor called `name`, now an argument of the kernel."""
        if name not in self.known:
            raise CodegenError(f"triton: '{name}' is no buffer that a kernel can read")
        tensor = self.known[name]
        self.tensors.setdefault(name, tensor)
        return tensor

    def bases(self, inner: bool = False) -> list[tuple[str, str]]:
        """(`q_x`, its pointer) for every tensor; `inner`: of those that a loop moves."""
        return [(f"q_{t.id}", self.base(t)) for t in self.tensors.values()
                if inner == bool(self._section(t)) and ENDS not in t.axes]  # fmt: skip

    def _section(self, t: Tensor) -> int:
        """Where the indices that a program owns are known for a tensor."""
        own = max((self.fixed[a].section for a in t.axes if a in self.fixed), default=0)
        moved = self.packed and offsets(t.axes, t.id)
        return max(own, self.fixed[SEQ].section) if moved else own

    def base(self, t: Tensor) -> str:
        """`p_x` moved to this program's batch and head."""
        terms = [f"{self.fixed[a].var} * s_{t.id}_{a}" for a in t.axes if a in self.fixed]
        if self.packed:
            terms += offsets(t.axes, t.id)
        return " + ".join([f"p_{t.id}", *terms])

    def address(self, name: str, frame: Frame, rank: int) -> tuple[str, str | None]:
        """Pointer and mask of a tensor's tile in `frame`; axes it does not index are at 0."""
        t = self.use(name)
        ixs = [(a, frame[a]) for a in t.axes if a in frame and a not in self.fixed]
        terms = [f"{ix.start} * s_{t.id}_{a}" for a, ix in ixs if ix.start]
        terms += [f"{spread(ix.var, ix.dim, rank)} * s_{t.id}_{a}" if ix.dim != 2
                  else f"({ix.var}) * s_{t.id}_{a}" for a, ix in ixs]  # fmt: skip
        masks = dict.fromkeys(spread(ix.mask, ix.dim, rank) for _, ix in ixs if ix.mask)
        return " + ".join([f"q_{t.id}", *terms]), " & ".join(masks) or None

    def load(self, name: str, frame: Frame, rank: int, raw: bool = False) -> Text:
        """The tile of `name` in `frame`, broadcast to `rank`; `raw`: in the tensor's own type."""
        t = self.use(name)
        ixs = [frame[a] for a in t.axes if a in frame and a not in self.fixed]
        lacking = [a for a in t.axes if a not in frame and a not in self.fixed]
        if lacking:
            raise CodegenError(f"triton: '{name}' is read over {lacking}, which its tile lacks")
        dims = {ix.dim for ix in ixs if ix.dim is not None}
        own = 2 if len(dims) > 1 or 2 in dims else len(dims)
        section = max([self._section(t), *(ix.section for ix in ixs)])
        where = tuple((ix.start, ix.var, ix.dim if own > 1 else 0) for ix in ixs)
        key = (name, own, section, where)
        if key not in self._made:
            taken = sum(1 for k in self._made if k[0] == name)
            made = f"x_{t.id}" + (f"_{taken + 1}" if taken else "")
            pointer, mask = self.address(name, frame, own)
            along = sorted(ixs, key=lambda x: x.dim or 0)
            extents = [ix.extent for ix in along if ix.dim in (0, 1)]
            shape = "" if 2 in dims else f"[{', '.join(extents)}]" if extents else ""
            self._made[key] = Load(made, pointer, mask, shape, t.integer)
            self.sections[section].append(self._made[key])
        found = self._made[key]
        if raw and not t.integer:
            found.raw = f"r_{found.name[2:]}"
        else:
            found.cast = True
        dim = next(iter(dims)) if own == 1 else None
        text = spread(found.raw if raw and not t.integer else found.name, dim, rank)
        return Text(text, "int" if t.integer else "float")

    def text(self, e: Expr, frame: Frame, rank: int, extra: Mapping[str, Text]) -> Text:
        """`e` over tiles of `frame`; `extra` names what is in registers already."""
        return show(e, self.leaf(frame, rank, extra))

    def leaf(self, frame: Frame, rank: int, extra: Mapping[str, Text]) -> Leaf:
        """Prints names, sizes and positions in `frame`."""

        def one(e: Expr) -> Text:
            match e:
                case Name(id) if id in extra:
                    return extra[id]
                case Name(id):
                    return self.load(id, frame, rank)
                case Size(axis):
                    return self.size("T" if axis == "S" else axis)
                case Index(axis):
                    ix = frame.get(axis) or self.fixed.get(axis)
                    if ix is None:
                        raise CodegenError(f"triton: index({axis}) where {axis} is not a tile's")
                    at = spread(ix.position, ix.dim, rank)
                    if axis == "T" and POS in self.known:
                        return Text(f"{at} + {self.load(POS, {}, 0).text}", "int", SUM)
                    return Text(at, "int", ATOM if ix.dim != 2 else SUM)
            raise CodegenError(f"triton: no {type(e).__name__} outside of a mask's entry")

        return one

    def size(self, axis: str) -> Text:
        """The length of an axis; as a number it is a tile: 1 is a constant to the compiler."""
        self.sizes.add(axis)
        return Text(f"n_{axis}", "int", real=f"tl.full((), n_{axis}, ACC)")
