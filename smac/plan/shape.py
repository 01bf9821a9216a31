"""What the cost formulas need of a request, read once: axis lengths, heads, and what laws say.

Non-goals: no formulas (dots.py, cost.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from smac.expr import (
    ONE,
    SCAN_FUNCTIONS,
    At,
    Between,
    Call,
    Expr,
    Num,
    Size,
    names,
    transform,
    walk,
)
from smac.masks.base import Mask, Support
from smac.masks.lanes import Lanes, carried, resets_every, turned
from smac.plan.config import MOST_LANES
from smac.plan.devices import ITEMSIZE
from smac.plan.types import Request
from smac.spec import Spec


@dataclass(frozen=True, slots=True)
class Shape:
    """A request in numbers. `axes` maps "Q", "K", "V", "L" to the axes they carry.

    `batch`: product of the batch axes. `tail`: 1 when the output reads Z, which is one more column
    of V. `rank`: lanes, or None without generators; `lanes`: those with a state on the target, as
    many as `states`; `resets`: whether chunks start where lanes reset. `learned`: the mask has
    gradients that are asked for.
    `above`: some lie above the diagonal; `sides`: sweeps for what is below and what is above.
    `nodes`: operations in one entry of the mask; `pairs`: what it reads for each pair of tokens,
    not for a row, a column or a lag: sums between the two, and entries of matrices.
    `again`: the backward needs Y. `item`, `acc`: bytes of an operand's, an accumulator's element;
    `kept`: of one of the states that pass between kernels under a mask per channel.
    """

    batch: int
    T: int
    H: int
    N: int
    P: int
    groups: tuple[tuple[str, int], ...]
    axes: tuple[tuple[str, frozenset[str]], ...]
    tail: int
    rank: int | None
    lanes: Lanes
    states: int
    resets: bool
    learned: bool
    above: bool
    sides: int
    support: Support
    symbol: bool
    dft: bool
    channel: str | None
    nodes: int
    pairs: int
    matvec: int
    again: bool
    item: int
    acc: int
    kept: int
    given: int

    def heads(self, operands: str) -> int:
        """Heads of a product of `operands` (letters of QKVL): H, one group's size, or 1."""
        carried = self.carried(operands)
        groups = [n for g, n in self.groups if g in carried]
        if "H" in carried or len(groups) > 1:
            return self.H
        return groups[0] if groups else 1

    def carried(self, operands: str) -> frozenset[str]:
        """The axes that any of `operands` carries."""
        return frozenset().union(*(a for k, a in self.axes if k in operands))

    def n(self, operands: str) -> int:
        """N where one of `operands`, or the mask, carries it, else 1."""
        return self.N if "N" in self.carried(operands + "L") else 1

    @property
    def p(self) -> int:
        """P where V or the mask carries it, else 1; one more for Z's column."""
        return (self.P if "P" in self.carried("VL") else 1) + self.tail

    @property
    def in_turn(self) -> bool:
        """Whether there are more lanes than one triton program carries at once."""
        return self.states > MOST_LANES["chunked"]

    def states_between(self, chunk: int) -> int:
        """States that pass from a chunk to the next: where lanes are taken in turn, those that
        reset at every chunk have none."""
        if not (self.in_turn and self.resets):
            return self.states
        return sum(not resets_every(x, chunk) for x in self.lanes)

    @property
    def all_heads(self) -> int:
        """Heads of the result."""
        return self.heads("QKVL")

    @property
    def operands(self) -> int:
        """Elements of Q, K and V for one token."""
        return (self.heads("Q") * self.n("Q") + self.heads("K") * self.n("K")
                + self.heads("V") * self.p)  # fmt: skip

    @property
    def channel_size(self) -> int:
        """Length of the mask's channel axis, or 1."""
        return {None: 1, "N": self.N, "P": self.P}[self.channel]


def shape_of(request: Request) -> Shape:
    """The numbers of `request`."""
    spec, mask, sizes = request.spec, request.mask, dict(request.sizes)
    c, n = spec.contraction, max(request.sequences, 1)
    T = -(-sizes["T"] // n)  # packed sequences are costed as a batch of their mean length
    axes = {k: frozenset(spec.axes_of(getattr(c, k))) for k in "QKVL"}
    generators, item = mask.generators(), ITEMSIZE[request.dtype]
    sides = sides_of(request)
    return Shape(
        batch=n * math.prod(sizes[a] for a in spec.batch), T=T, H=sizes["H"], N=sizes["N"],
        P=sizes["P"],
        groups=tuple((g, sizes[g]) for g in spec.groups),
        axes=tuple(axes.items()), tail=int(reads(spec, "Z")),
        rank=None if generators is None else generators.rank, support=mask.support(),
        lanes=tuple(lane for side in sides for lane in side), states=sum(map(len, sides)),
        resets=request.target == "triton" and not request.state, sides=max(len(sides), 1),
        learned=_learned(request),
        above=generators is not None and bool(generators.above),
        symbol=mask.symbol() is not None, dft=mask.dft() is not None, channel=c.channel,
        nodes=_nodes(mask), pairs=_pairs(mask),
        matvec=mask.matvec_cost(T), again=needs_y(spec), item=item, acc=max(item, 4),
        kept=4 if request.dtype == "float16" else item,
        given=sum(math.prod(sizes[a] for a in i.axes) for i in spec.inputs),
    )  # fmt: skip


def sides_of(r: Request) -> list[Lanes]:
    """Lanes of each sweep: those below the diagonal, and those above it. On triton a diagonal has
    no state where none is asked for."""
    found = r.mask.generators()
    if found is None:
        return []
    below = carried(found.lanes) if r.target == "triton" and not r.state else found.lanes
    return [x for x in (below, turned(found.above)) if x]


def _learned(r: Request) -> bool:
    """Whether a lane, or without lanes the entry, reads a tensor that takes a gradient."""
    found = r.mask.generators()
    if found is None:
        return learns(r.mask.entry(), r.frozen)
    return any(learns(e, r.frozen) for x in (*found.lanes, *found.above)
               for e in (x.log_decay, x.read, x.write))  # fmt: skip


def learns(e: Expr, frozen: frozenset[str]) -> bool:
    """Whether `e` reads a tensor, none of ids and none of `frozen`."""
    floats = transform(e, lambda n: ONE if isinstance(n, Call) and n.fn in SCAN_FUNCTIONS else None)
    return bool(names(floats) - frozen)


def reads(spec: Spec, name: str) -> bool:
    """Whether an output reads `name`."""
    return any(name in names(e) for _, e in spec.output)


def needs_y(spec: Spec) -> bool:
    """Whether a gradient of the outputs reads Y or Z, so that the backward computes them again."""
    return any(_gradient_reads(e) for _, e in spec.output)


def _gradient_reads(e: Expr) -> bool:
    """Whether some derivative of `e` by Y, Z or an input still holds Y or Z."""
    if not names(e) & {"Y", "Z"} or not isinstance(e, Call):
        return False
    here = [bool(names(a) & {"Y", "Z"}) for a in e.args]
    if any(_gradient_reads(a) for a in e.args):
        return True
    match e.fn:
        case "add" | "sub" | "neg":
            return False
        case "mul":
            other = e.args[here.index(False)] if False in here else None
            return other is None or not _static(other)
        case "div":
            return here[1] or not _static(e.args[1])
        case "where":
            return False
        case _:
            return True


def _static(e: Expr) -> bool:
    """No tensor in it."""
    return all(isinstance(x, Num | Size | Call) for x in walk(e))


def _pairs(mask: Mask) -> int:
    """Reads of an entry that are made for each pair of tokens."""
    return sum(isinstance(x, Between) or (isinstance(x, At) and len(x.index) > 1)
               for x in walk(mask.entry()))  # fmt: skip


def _nodes(mask: Mask) -> int:
    """Operations that one entry takes: calls, and two for the sum of a decay."""
    return sum(1 if isinstance(x, Call) else 2 * (type(x).__name__ == "Between")
               for x in walk(mask.entry()))  # fmt: skip
