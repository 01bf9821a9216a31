"""What triton's kernels reach of a device, how long their steps take: constants that are fitted.

They describe the templates, not the devices, whose rates are rows of a table (devices.py).
`python -m benchmarks.fit` fits them to cells of which every candidate was measured.

Non-goals: what a candidate does (cost.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares and steps. A step is the time of a chunk of a sweep, which the device's row gives.

    `dots`: the share of the dot rate that a schedule's kernels reach with large tiles; `dots_back`
    what a backward reaches of that. `reach`: the share of the bandwidth, forward and backward. A
    backward that sweeps reads wide states a second time for the gradients of decays, little of it
    in parallel; "swept back" is one whose mask has no gradients.

    `state_step`: a chunk of a sweep that makes states alone; `join_step`: a segment's state that
    is joined to the others; `turned_step`: a chunk of a sweep that turns its products, against one
    of 64 rows. `lane_step`: what a further lane of a chunk takes; `tail_step`, `tail_tile`: what a
    normaliser makes of a chunk, of a tile: its one more column is masked, and pads the others to
    twice their number.

    `tile_step`: a tile of the quadratic order; `node_step`: each node of its entry; `pair_step`:
    what is read for each pair of tokens (a sum of decays is two loads in float64 and an exp);
    `channel_tile`: a tile under a mask per channel, which makes its entries for each one, without
    tensor cores. `entry_ops`: operations for each node of an entry, sums of decays in float64 too.
    """

    dots: Mapping[str, float] = field(default_factory=lambda: {
        "tiles": 0.64, "sweep": 0.26, "swept back": 0.6, "chunks": 0.35, "tokens": 1.0,
    })  # fmt: skip
    dots_back: float = 0.65
    reach: Mapping[str, tuple[float, float]] = field(default_factory=lambda: {
        "tiles": (0.9, 0.6), "sweep": (0.9, 0.45), "swept back": (0.9, 0.6), "chunks": (0.8, 0.65),
        "tokens": (0.9, 0.6),
    })  # fmt: skip
    state_step: float = 0.4
    join_step: float = 0.15
    turned_step: float = 0.45
    lane_step: float = 1.8
    tail_step: float = 5.0
    tail_tile: float = 8.0
    tile_step: float = 0.5
    node_step: float = 0.02
    pair_step: float = 1.9
    channel_tile: float = 32.0
    entry_ops: float = 10.0


#: Of operands of 16 bits: fitted to 350 choices among measured candidates, of an H100 and H200s,
#: and to forward passes of six layers.
NARROW = Rates(
    dots={"tiles": 0.29, "sweep": 0.27, "swept back": 0.6, "chunks": 0.35, "tokens": 1.0},
    dots_back=0.545,
    reach={"tiles": (0.41, 0.21), "sweep": (0.61, 0.31), "swept back": (0.945, 0.91),
           "chunks": (0.8, 0.5), "tokens": (0.9, 0.6)},
    state_step=0.8, tail_step=8.5, tail_tile=2.8, tile_step=0.52, node_step=0.0123, pair_step=9.9,
    entry_ops=2.7,
)  # fmt: skip
#: Of wider ones, of which less was measured.
WIDE = Rates()


def rates(itemsize: int) -> Rates:
    """Those of operands of `itemsize` bytes."""
    return NARROW if itemsize == 2 else WIDE
