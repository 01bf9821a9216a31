"""Which ways there are to run a request, by the mask's laws and the target's reach.

Non-goals: no costs (cost.py), no names of mask families.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smac.expr import (
    MOVE_FUNCTIONS,
    ONE,
    ZERO,
    At,
    Between,
    Call,
    Expr,
    children,
    walk,
)
from smac.locate import clip
from smac.masks.band import form
from smac.masks.base import Lane
from smac.masks.lanes import carried
from smac.masks.moves import moves
from smac.plan.config import MOST_LANES
from smac.plan.cuts import TURNED_ROWS, fits, tiles_fit, turns
from smac.plan.devices import Device
from smac.plan.digits import few_digits
from smac.plan.shape import Shape
from smac.plan.types import Request
from smac.show import show

#: Chunks that are tried, by target; rows of the quadratic order's blocks.
CHUNKS = {"torch": (16, 32, 64, 128, 256), "triton": (16, 32, 64)}
ROWS = {"torch": (64, 128, 256), "triton": (16, 32, 64)}
#: The schedule of each order, by target.
SCHEDULES = {
    "torch": {"chunked": "segments", "linear": "segments", "quadratic": "tiles"},
    "triton": {"chunked": "sweep", "linear": "tokens", "quadratic": "tiles"},
}


def largest_chunk(target: str, itemsize: int) -> int:
    """The most rows of a chunk. On triton, tiles of 128 rows spill their registers: on an H100 they
    took eight times as long as those of 64; wide types get half of that again."""
    if target == "torch":
        return 2**16
    return 64 if itemsize == 2 else 32


@dataclass(frozen=True, slots=True)
class Way:
    """An order with its schedule; `reason` says why it cannot run, None when it can."""

    order: str
    schedule: str
    reason: str | None = None

    @property
    def label(self) -> str:
        """The order; with its schedule where it has two."""
        twice = self.order == "linear" or self.schedule in ("chunks", "segmented")
        return f"{self.order} ({self.schedule})" if twice else self.order


def ways(x: Shape, r: Request) -> tuple[Way, ...]:
    """Every order with its schedule, and what stands against it."""
    own = SCHEDULES[r.target]
    chunked = lacks_generators(r) or _beyond_target(x, r, "chunked")
    linear = lacks_generators(r) or _beyond_target(x, r, "linear")
    quadratic = _no_entry(r)
    if r.state:
        quadratic = "keeps no state between calls"
    return (
        Way("quadratic", own["quadratic"], quadratic),
        Way("chunked", own["chunked"], chunked or _too_many(x, r, own["chunked"])),
        *_parallel(x, r, chunked),
        Way("linear", own["linear"], linear),
        Way("linear", "fft", _no_fft(x, r)),
    )


def lacks_generators(r: Request) -> str | None:
    """The law that the chunked and linear orders miss, or None."""
    generators = r.mask.generators()
    if generators is None:
        why = r.mask.why_no_generators()
        return f"needs generators: mask '{clip(str(r.mask), 200)}' has none ({why})"
    if r.state and (missing := r.mask.missing("state")):
        return f"needs a state to keep: {missing.replace('has no state', 'has none')}"
    if r.packed and generators.above and r.target == "torch":
        return ("walks back from the end of T for what is above the diagonal, and keeps no packed "
                "sequences apart there; use order='quadratic'")  # fmt: skip
    if any(map(moves, _lanes(r))) and (elsewhere := _no_moves(r)):
        return elsewhere
    return _factors_per_value(r) or few_digits(r)


def _no_moves(r: Request) -> str | None:
    """What stands against lanes that read other tokens than their own."""
    if r.packed:
        return ("has lanes that read other tokens (reverse, shift) and do not know where a packed "
                "sequence ends; use order='quadratic'")  # fmt: skip
    return None


def _no_entry(r: Request) -> str | None:
    """What triton's tiles cannot read: positions backwards in time, and moved inputs."""
    if r.target != "triton":
        return None
    for e in walk(r.mask.entry()):
        if isinstance(e, Call) and e.fn in MOVE_FUNCTIONS:
            return f"reads '{show(e)}', not on target triton so far; use target='torch'"
        if isinstance(e, At | Between):
            for f in map(form, children(e)[1:]):
                if f is not None and f.sizes and abs(f.t + f.s) == 1:
                    return ("reads tokens from the end of T (reverse), not on target triton so "
                            "far; use target='torch'")  # fmt: skip
    return None


def _factors_per_value(r: Request) -> str | None:
    """Rows and columns of several values at once have no product to belong to."""
    found = r.mask.generators()
    if r.spec.contraction.channel != "P" or found is None:
        return None
    lanes = carried(found.lanes) if r.target == "triton" and not r.state else found.lanes
    for e in (e for x in (*lanes, *found.above) for e in (x.read, x.write)):
        if "P" in r.spec.axes_of(e):
            return f"takes factors of rows and columns without P, found '{show(e)}'"
    return None


def _beyond_target(x: Shape, r: Request, order: str) -> str | None:
    """What the target's templates cannot do yet."""
    if r.target != "triton":
        return None
    chunks = order == "chunked"
    most = 1 if x.channel and chunks else MOST_LANES[order]
    if x.channel and chunks and x.above:
        return (f"takes no mask per {x.channel} that is nonzero above the diagonal on target "
                "triton; use order='linear'")  # fmt: skip
    if x.states > most and (x.channel or not chunks):
        return (f"takes a rank of at most {most} on target triton so far, found rank {x.states}; "
                "use target='torch'")  # fmt: skip
    if x.channel and chunks and (found := _beside_diagonal(r)):
        return ("takes no factors of rows or columns beside a diagonal under a mask per "
                f"{x.channel} on target triton, found '{show(found)}'; use order='linear'"
                )  # fmt: skip
    widest = 256 if x.item == 2 else 128
    if chunks and x.channel and x.channel_size > widest:
        return (f"takes a channel {x.channel} of at most {widest} in {r.dtype} on target triton, "
                f"found {x.channel_size}: a program holds it whole")  # fmt: skip
    return None


def _too_many(x: Shape, r: Request, schedule: str) -> str | None:
    """Why a schedule whose programs carry the states of all lanes cannot: chunks in parallel take
    lanes in turn, and so any number of them."""
    most = MOST_LANES["chunked"]
    if r.target != "triton" or not x.in_turn:
        return None
    return (f"takes a rank of at most {most} on schedule '{schedule}', found rank {x.states}; use "
            "schedule='chunks'")  # fmt: skip


def _beside_diagonal(r: Request) -> Expr | None:
    """A factor of a lane with a state, where another lane is a diagonal: Q and K are that one's
    too."""
    lanes = _lanes(r)
    kept = carried(lanes)
    factors = (e for x in kept for e in (x.read, x.write) if e != ONE)
    return next(factors, None) if len(kept) < len(lanes) else None


def _lanes(r: Request) -> tuple[Lane, ...]:
    found = r.mask.generators()
    return () if found is None else (*found.lanes, *found.above)


def _parallel(x: Shape, r: Request, missing: str | None) -> tuple[Way, ...]:
    """On triton, all chunks in parallel between states that pass through memory, and sweeps cut in
    segments: a backward of those is one of parallel chunks where the mask has gradients, and so
    is refused what chunks are; else of sweeps."""
    if r.target != "triton":
        return ()
    widest = 128 if x.item == 2 else 64
    wide = x.item == 2 and x.n("QK") <= 256 and x.p <= 64
    reason = missing
    if reason is None and x.channel:
        reason = f"takes no mask per {x.channel} on schedule 'chunks'; use schedule='sweep'"
    if reason is None and r.dtype == "float16":
        reason = "keeps states in memory in the operands' type, which float16 is too narrow for"
    if reason is None and x.tail:
        reason = "takes no normaliser Z on schedule 'chunks'"
    if reason is None and max(x.n("QK"), x.p) > widest and not wide:
        more = " (or N of 256 and P of 64)" if x.item == 2 else ""
        reason = (f"takes N and P of at most {widest} in {r.dtype}{more} on schedule 'chunks', "
                  f"found N = {x.n('QK')}, P = {x.p}")  # fmt: skip
    segmented = missing or _too_many(x, r, "segmented")
    if segmented is None and x.channel:
        segmented = f"takes no mask per {x.channel} on schedule 'segmented'; use schedule='sweep'"
    if segmented is None and r.packed:
        segmented = "cuts one sequence in segments, not packed ones; use schedule='sweep'"
    if segmented is None and r.backward and x.learned and reason is not None:
        segmented = reason.replace("'chunks'", "'segmented'")
    return Way("chunked", "chunks", reason), Way("chunked", "segmented", segmented)


def _no_fft(x: Shape, r: Request) -> str | None:
    """Why the FFT cannot run, or None."""
    missing = r.mask.missing("symbol")
    if missing is not None and r.mask.dft() is None:
        return "FFT needs a symbol: " + missing.replace("has no symbol", "has none")
    if missing is not None and r.target == "triton":
        return "the Fourier transform is not on target triton so far; use target='torch'"
    if r.packed:
        return "FFT convolves along all of T and keeps no packed sequences apart"
    return "keeps no state between calls" if r.state else None


def pieces(x: Shape, r: Request, device: Device, way: Way, chunk: int | None,
           cover: bool = False) -> Iterator[int]:  # fmt: skip
    """Chunks (rows of a block for the quadratic order) to try for `way`; `chunk` if it is given.
    `cover`: one that covers T stays a chunk, as it does where states are kept."""
    if way.order == "linear":
        if chunk is None:
            yield 1
        return
    least = 16 if r.target == "triton" else 1
    whole = max(least, 2 ** max(x.T - 1, 0).bit_length())  # the power of two that holds T
    if way.order == "quadratic":
        tried = {min(c, whole) for c in ([chunk] if chunk else _rows(x, r, device))}
        if r.target == "triton":
            tried = {c for c in tried if tiles_fit(x, device, c, r.backward) or c == least}
    elif r.state or cover:
        tried = {min(c, max(whole, 2)) for c in ([chunk] if chunk else _chunks(x, r, device, way))}
    else:
        tried = {c for c in ([chunk] if chunk else _chunks(x, r, device, way)) if c < x.T}
    yield from sorted(tried)


def _rows(x: Shape, r: Request, device: Device) -> list[int]:
    """Rows of a tile; on triton those that fit on chip, the smallest where none does."""
    sizes = ROWS[r.target]
    if r.target == "torch":
        return list(sizes)
    most = largest_chunk(r.target, x.item)
    fit = [c for c in sizes if c <= most and tiles_fit(x, device, c, r.backward)] or [sizes[0]]
    if x.item == 2:  # tensor cores want all rows that there are
        return [min(fit[-1], 32 if x.T <= 64 else most)]
    return [c for c in fit if _worthwhile(x, r, c)] or fit[-1:]


def _chunks(x: Shape, r: Request, device: Device, way: Way) -> list[int]:
    """Those that fit on chip; the smallest where none does, for the kernel then splits N. In 16
    bits the largest that fits: smaller ones leave tensor cores idle, except in sweeps that turn
    their products (`turns`)."""
    sizes = CHUNKS[r.target]
    if r.target == "torch":
        return list(sizes)
    sizes = tuple(c for c in sizes if c <= largest_chunk(r.target, x.item))
    if x.channel and x.item == 2 and sizes[-1] < x.T:
        return [sizes[-1]]  # all of it is products of C rows, which Hopper wants 64 of
    found = [c for c in sizes if _worthwhile(x, r, c) and fits(x, device, c)] or [sizes[0]]
    if x.item > 2 or x.channel:
        return found
    turned = [c for c in found if c == TURNED_ROWS and turns(way.schedule, c, x.item)]
    return turned if turned and _small(x, r) else found[-1:]


def _small(x: Shape, r: Request) -> bool:
    """Whether sweeps are better off with small chunks: with one state that is wide, it is registers
    that keep programs waiting, and where it decays each score has a weight to make. Backward that
    holds for sweeps alone that make no gradient of the mask, which contract N and P in turn.
    Measured on an H100 at N = 64, 128, 256 with and without decays (benchmarks/LOG.md)."""
    lanes, wide = _lanes(r), x.n("QK")
    if r.backward:
        wide = 0 if x.learned else min(wide, x.p)
    return wide >= 128 and len(lanes) == 1 and lanes[0].log_decay != ZERO


def _worthwhile(x: Shape, r: Request, chunk: int) -> bool:
    """Pieces of 16 are for short sequences and for float64."""
    return chunk > 16 or x.T <= 64 or r.dtype == "float64"
