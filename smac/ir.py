"""The Program: what a plan is lowered to and what templates print.

A program is buffers and steps. A step is one kernel: pointwise `values` computed where they are
needed, products of pairs of values summed under a mask (`Carry`), what is taken out of them
(`Read`), the mask's own gradients (`Gather`), and where results go (`Store`). Both targets print
the same steps; how many kernels the reads are spread over is the schedule (lower/adjoint.py).

A split walk has a program for each segment of T: one kernel finds what every segment adds to the
state by itself, a `Join` makes of that the states that enter them, and the walk starts from those.

Names: a read of Y's gradients goes to "d.Q", "d.K", "d.V"; a value v of the mask gets "d.v"; the
cotangent of an output y is the buffer "d.y", the gradient of an input x the buffer "grad.x". States
are "state.S0" and "state.ST" (before and after; `Program.in_place` says whether they may be one
memory), "state.dST" and "state.dS0" (their gradients), and
"state.last" and "state.last_out" (the id of the last token before, and of the last token);
"state.pos" (how many tokens came before) is there where a kernel's expressions read `index(T)`.

A packed program runs sequences that lie behind one another along T, each as if it were alone: the
buffer "cu_seqlens" says where they start and end, states have the axis SEQ in the place of B. What
T, positions and sums over T mean inside a kernel is then the sequence's own; pointwise kernels and
the sums of stores know no sequences.

On paper, for ssd with gate and groups (a0 = delta·A, one lane):

    forward    values Q = C, K = B, V = delta·x, a0 = delta·A
               carry  KV = K ⊗ V            read   Y = Q over N
               stores y = (Y + D·x)·silu(z)
    backward   values dY = d.y·silu(z)      carries KV, and QG = Q ⊗ dY in reverse
               reads  Y = Q·KV over N (the gate's gradient needs it), d.Q = dY·KV over P,
                      d.K = V·QG over P, d.V = K·QG over N;   the lane's gradient d.a0
               stores grad.x for each input: Σ over its uses of chain(d use, ∂ use/∂ input), summed
               over the axes that the input lacks (the group's heads for B and C; B and T for A)

linear_attention: V is [v | 1] (`Value.tail`), so Z is the last column of Y, and dY is [dY | dZ].
gla: the lane's log decay has axis N, so decays multiply Q and K before the product
(`Kernel.channel`).
toeplitz: no lanes; the kernel evaluates `Kernel.entry` on tiles, "d.m0.0" gathers by lag.

Non-goals: no target code, no sizes (they are read off the tensors), no mask families.
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.axes import SEG as SEG  # re-exported: buffers speak of them
from smac.axes import SEQ as SEQ
from smac.axes import TILE as TILE
from smac.expr import Expr
from smac.masks.base import Support
from smac.plan.config import OWN, Tiles

#: "operand": the promoted dtype of Q, K, V's T-carrying inputs. "acc": float32, or float64 for
#: float64 inputs. "int": int32. "input": the dtype of the input that the buffer belongs to.
#: "state": "operand", but "acc" for float16, whose range the sums of a state may leave.
DTYPES = ("operand", "acc", "int", "input", "state")
#: A "sum" is a gradient of something that is no input: scratch that stores add up in.
ROLES = ("input", "output", "cotangent", "gradient", "state", "scratch", "sum", "lengths")
#: How a kernel walks: "chunked" sweeps chunks with carried states, "recurrent" tokens with carried
#: states, "tiles" goes over T × T tiles of `entry`, "fft" convolves along T, "pointwise" has
#: no mask.
KINDS = ("chunked", "recurrent", "tiles", "fft", "pointwise")


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor in memory. `axes` in canonical order: batch axes, T, S, W, H or a group, N, P, R.

    `of` names the input that a gradient buffer belongs to, or the output of a cotangent buffer.
    R is the lane axis of states (dropped by the op when the rank is 1).
    """

    name: str
    axes: tuple[str, ...]
    dtype: str
    role: str
    of: str = ""


@dataclass(frozen=True, slots=True)
class Value:
    """A pointwise quantity, computed tile by tile from input buffers: `expr` with axes `axes`.

    `expr` reads buffers only (no other values), so any kernel can compute it by itself. An
    exception is a cotangent that needs Y or Z: it reads those, as outs of an earlier step or read.
    `tail`: one more column along P, behind the others (V's is 1 and Y's then is Z; dY's is dZ).
    `axes` are canonical and may lack any; what lacks an axis is broadcast along it. Of group axes a
    kernel's values carry at most one (`Kernel.group`); others are spread to H.
    """

    name: str
    expr: Expr
    axes: tuple[str, ...]
    dtype: str
    tail: Expr | None = None


@dataclass(frozen=True, slots=True)
class LaneIR:
    """`masks.base.Lane` with values in place of expressions; None: log decay 0, no reset, 1, 1.

    `decay`, `read`, `write` name `Value`s; `reset` names an int buffer over (batch, T). A `late`
    lane reads the state before the token's own decay and write. An `upper` lane is one of those
    above the diagonal: the mask holds it transposed. A lane that does not keep anything (`keeps`)
    is a diagonal, without a state. One that keeps nothing from a chunk to the next is `inside`:
    its decays act in the chunk, and between chunks it has no state either.
    """

    decay: str | None
    reset: str | None = None
    read: str | None = None
    write: str | None = None
    late: bool = False
    upper: bool = False
    keeps: bool = True
    inside: bool = False

    @property
    def carried(self) -> bool:
        """Whether it has a state between chunks."""
        return self.keeps and not self.inside


@dataclass(frozen=True, slots=True)
class Carry:
    """The product left ⊗ right (N side, P side), swept along T under the mask.

    Kind "chunked"/"recurrent": a state [N, P] per head and lane. `reverse` sweeps from the end,
    under Lᵀ. It takes the lanes that are `upper` where it is; L then stands for those lanes, which
    the mask holds transposed. `initial`/`final` name state buffers or None; `saves` a scratch
    buffer that keeps the state with which the sweep enters each segment of the walk (axes batch,
    "C" for segments in order of time, H, R, N, P); `restores` instead reads the states that an
    earlier kernel saved. `against` names states that another carry saved: where the sweep enters a
    segment, or they are restored side by side, their product with its own, summed over N tile by
    tile, goes to the buffer `met` (axes batch, "C", H, R, TILE, P); a carry with `met` and
    `restores` alone reads it there. `blank`: of the states that are restored, or met, the one that
    enters the first segment (in reverse the last) is 0.
    Under a split walk: `leaves` keeps what each segment makes of no state (axes batch, SEG, H, R,
    N, P), the last one's only where there is a `final`, and `spans` the log2 decay across it
    (batch, SEG, H, R); `enters` names the states from which the segments start. `closed`: no state
    comes in, goes out or is kept for another kernel.
    """

    name: str
    left: str
    right: str
    reverse: bool = False
    initial: str | None = None
    final: str | None = None
    saves: str | None = None
    restores: str | None = None
    against: str | None = None
    met: str | None = None
    leaves: str | None = None
    spans: str | None = None
    enters: str | None = None
    blank: bool = False
    closed: bool = False
    upper: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """`out` = `operand` · (mask applied to `carry`), contracted over "N" or "P"; the other stays.
    Where a kernel restores the states of both sides of a mask, it reads the carries of that name.

    out[t, p] = Σ_s L[t,s] (Σ_n operand[t,n] left[s,n]) right[s,p]  for over = "N", and with left
    and right exchanged for over = "P"; L is transposed when the carry is reversed.
    """

    out: str
    carry: str
    operand: str
    over: str


@dataclass(frozen=True, slots=True)
class LaneGrad:
    """Gradients of lane `lane`: values named `decay`, `read`, `write` (None where constant)."""

    lane: int
    decay: str | None = None
    read: str | None = None
    write: str | None = None

    @property
    def outs(self) -> tuple[str, ...]:
        """The gradients that there are."""
        return tuple(n for n in (self.decay, self.read, self.write) if n is not None)


@dataclass(frozen=True, slots=True)
class Gather:
    """A mask parameter's gradient on tiles: `Cotangent` with the base as value `base`.

    `weight` is over the entry's nodes; `out` has the axes of `base` (or of its T-free leaf).
    """

    out: str
    pattern: str
    base: str
    weight: Expr
    index: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class Store:
    """buffer (+)= expr summed over the axes that the buffer lacks.

    `expr` reads buffers, values and outs of reads, lane gradients and gathers. `axes` are those of
    the expression. Several stores to one gradient buffer add up.
    """

    buffer: str
    expr: Expr
    axes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Walk:
    """How a kernel goes along T: pieces of `chunk` tokens (rows of a tile for "tiles"),
    `segment` tokens at a time where the target keeps several chunks in flight. A `mirrored` walk
    sees time backwards: its first token is the last. `split`: segments are walked side by side."""

    chunk: int
    segment: int
    reverse: bool = False
    mirrored: bool = False
    split: bool = False


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel: see the module's docstring.

    `channel` is None, "N" or "P": the axis that the mask carries beside T and S.
    `entry` with `support` (kind "tiles"): L[t,s] over `At`/`Between` whose bases are `Name`s of
    values; `runs`: those of them that never fall along T (kind "tiles"); `lanes` (kinds
    "chunked", "recurrent"), which are taken `in_turn`, one behind the other, where they are too
    many to have on chip at once. `group`: the group axis of this kernel's values.
    Y and Z in `stores` are the read "Y" without its tail, and its tail.
    """

    name: str
    kind: str
    walk: Walk
    values: tuple[Value, ...]
    carries: tuple[Carry, ...] = ()
    reads: tuple[Read, ...] = ()
    lanes: tuple[LaneIR, ...] = ()
    in_turn: bool = False
    lane_grads: tuple[LaneGrad, ...] = ()
    entry: Expr | None = None
    support: Support | None = None
    runs: tuple[str, ...] = ()
    gathers: tuple[Gather, ...] = ()
    stores: tuple[Store, ...] = ()
    channel: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """An integer buffer from ids along T: `fn` is "starts" or "runs" (expr.SCAN_FUNCTIONS).

    `last` names the state buffer that holds the id before the first token (or None)."""

    out: str
    fn: str
    source: str
    last: str | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """What segments add to a state → the states that enter them, in place: the buffer `states`
    (axes batch, SEG, H, R, N, P), by the log2 decays `spans` across segments of `segment` tokens.

    `initial` and `final` name state buffers or None; `reverse` goes from the last segment; `tail`:
    states have one more column along P."""

    name: str
    states: str
    spans: str
    segment: int
    initial: str | None = None
    final: str | None = None
    reverse: bool = False
    tail: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """`out` is `source` at other tokens: `fn` is one of expr.MOVE_FUNCTIONS, ends repeated.

    `back`: the adjoint, added to `out`: each token of `source` to where it was read."""

    out: str
    fn: str
    source: str
    back: bool = False


Step = Kernel | Scan | Move | Join


@dataclass(frozen=True, slots=True)
class Program:
    """Buffers and the steps that fill them, in order. `batch` and `groups` sort the axes' kinds;
    `tiles`: how kernels are cut, where that is not the printer's choice."""

    name: str
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    batch: tuple[str, ...] = ("B",)
    groups: tuple[str, ...] = ()
    packed: bool = False
    tiles: Tiles = OWN

    def buffer(self, name: str) -> Buffer:
        """The buffer called `name`; KeyError when there is none."""
        for b in self.buffers:
            if b.name == name:
                return b
        raise KeyError(name)

    @property
    def in_place(self) -> bool:
        """Whether "state.ST" may be the memory of "state.S0": all that reads the state before is
        the walk over tokens that writes the state after, and each part of a walk has read all of
        its own before it writes there."""
        joins = [s for s in self.steps if isinstance(s, Join)]
        carries = [(s.kind, c) for s in self.steps if isinstance(s, Kernel) for c in s.carries]
        before = [(kind, c) for kind, c in carries if "state.S0" in (c.initial, c.enters)]
        return not joins and all(kind == "recurrent" and c.final == "state.ST"
                                 for kind, c in before) and len(before) == 1  # fmt: skip
