"""Values of the planner: what was asked (`Request`), what was weighed (`Candidate`), `Plan`.

Non-goals: no cost formulas (cost.py), no choice (choose.py), no text (explain.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.certified.fit import Fit
from smac.masks.base import Mask
from smac.plan.config import OWN, Config, Tiles
from smac.show import show
from smac.spec import Spec

ORDERS = ("linear", "quadratic", "chunked")


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be planned. `spec` is specialised (no lets, no absent inputs) and expanded (no
    axis of levels, whose length is in `sizes` all the same); sizes complete.

    `dtype` is that of the operands ("bfloat16", "float32", …); `device` a row of the device table;
    `state`: initial and final states are asked for (a generators law is then needed).
    `sequences`: how many lie packed along T, of lengths not known here; 0: T is one sequence.
    `frozen`: inputs that the backward makes no gradient of; of those with levels, their parts too.
    """

    spec: Spec
    mask: Mask
    sizes: tuple[tuple[str, int], ...]
    dtype: str
    device: str
    target: str
    backward: bool = False
    state: bool = False
    sequences: int = 0
    frozen: frozenset[str] = frozenset()

    @property
    def packed(self) -> bool:
        """Whether T holds sequences of their own."""
        return self.sequences > 0

    def size(self, axis: str) -> int:
        """The length of `axis`."""
        return dict(self.sizes)[axis]


@dataclass(frozen=True, slots=True)
class Dot:
    """A batched matrix product and its flops."""

    name: str
    flops: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a request, with its predicted cost.

    `chunk` rows of a piece; `segment` tokens in flight; `schedule` names how reads are spread over
    kernels ("segments" on torch; "sweep", "segmented", "chunks", "tiles", "tokens" on triton;
    "fft").
    flops (2 a multiply-add, dots only), scalar_flops, bytes, workspace bytes, time in seconds.
    `dots` names the products that make the flops, `traffic` the bytes by what moves, `parts` the
    seconds by resource.
    """

    order: str
    chunk: int
    segment: int
    schedule: str
    flops: int
    scalar_flops: int
    bytes: int
    launches: int
    workspace: int
    time: float
    verdict: str = ""
    dots: tuple[Dot, ...] = ()
    traffic: tuple[tuple[str, int], ...] = ()
    parts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The choice and all that lost. `explain()` prints them.

    `fits`: what stands for each approx(…) of the mask, in the order in which they are written.
    `asked`: the specialised spec with them unfitted and levels unexpanded, to be planned at other
    sizes.
    `tiles`: how kernels are cut, where tuning found better than the printer's own choice.
    """

    request: Request
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    illegal: tuple[tuple[str, str], ...] = ()
    fits: tuple[Fit, ...] = ()
    asked: Spec | None = None
    tiles: Tiles = OWN

    @property
    def mask_text(self) -> str:
        """The mask as it was asked for: fits and levels are not spelled out."""
        asked = self.asked
        if asked is None or not (self.fits or asked.levels):
            return str(self.request.mask)
        return show(asked.contraction.L)

    @property
    def frozen(self) -> tuple[str, ...]:
        """The caller's inputs that the backward makes no gradient of."""
        inputs = (self.asked or self.request.spec).inputs
        return tuple(i.name for i in inputs if i.name in self.request.frozen)

    @property
    def lengths(self) -> dict[str, int]:
        """The sizes that do not follow from T."""
        levels = self.asked.levels if self.asked is not None else None
        return {a: n for a, n in self.request.sizes if a not in ("T", "S", "W", levels)}

    @property
    def order(self) -> str:
        """ "linear", "quadratic" or "chunked"."""
        return self.chosen.order

    @property
    def chunk(self) -> int:
        """Tokens in a chunk (rows of a tile for the quadratic order)."""
        return self.chosen.chunk

    @property
    def config(self) -> Config:
        """What is chosen, as a point of the space that tuning searches."""
        c = self.chosen
        return Config(c.order, c.schedule, c.chunk, self.tiles)

    def explain(self, width: int = 100) -> str:
        """Every candidate, its flops, bytes, launches, workspace, predicted time, why it lost."""
        from smac.plan.explain import explain

        return explain(self, width)

    def __str__(self) -> str:
        return self.explain()
