"""How T is cut: tokens that are kept in flight, segments of a sweep, chunks that fit on chip.

Non-goals: what a cut costs (cost.py), which ones are tried (candidates.py).
"""

from __future__ import annotations

from smac.plan.devices import Device, device_row
from smac.plan.shape import Shape

#: Columns of V that a triton program owns, programs that share an SM, stages of its pipeline.
VALUE_TILE, RESIDENT, _STAGES = 64, 2, 2
#: Shared memory that a program may have on an A100, the most of its generation.
_AMPERE = 163 * 1024
#: Rows of a chunk in a sweep that turns its products.
TURNED_ROWS = 32


def tile_columns(dtype: str) -> int:
    """Columns that a triton program of a read over tiles owns at most."""
    return VALUE_TILE if dtype in ("bfloat16", "float16") else 32


def operands_on_chip(device: str) -> bool:
    """Whether products take their operands from shared memory, as on Hopper and what came after:
    before it they pass through registers, which two reads of one program have none left for."""
    return not 0 < device_row(device).on_chip <= _AMPERE


def segment_tokens(x: Shape, device: Device, chunk: int, backward: bool) -> int:
    """Tokens that the torch target keeps in flight: chunks, a power of two of them.

    As many as keep scores, weights, states and operands within `device.in_flight` bytes, one chunk
    at least: n = max(1, ⌊in_flight / bytes(chunk)⌋), with
    bytes(C) = acc·B·(C²·(heads(QK) + 2·heads(QKL)) + rank·H·N·P + C·(Q, K, V and Y's elements)).
    """
    chunks = max(1, -(-x.T // chunk))
    size = chunk_bytes(x, chunk) * (2 if backward else 1)
    n = max(1, min(device.in_flight // max(size, 1), 2 ** (chunks - 1).bit_length()))
    return int(chunk * 2 ** (n.bit_length() - 1))


def span_tokens(x: Shape, device: Device, chunk: int) -> int:
    """Tokens of a segment of a triton sweep: a power of two of chunks, so many that the programs
    of all segments fill the GPU once."""
    programs = x.batch * x.all_heads * -(-x.p // VALUE_TILE)
    segments = max(1, device.units * RESIDENT // max(programs, 1))
    pieces = max(1, -(-x.T // chunk))
    return int(chunk * 2 ** (-(-pieces // segments) - 1).bit_length())


def chunk_bytes(x: Shape, C: int) -> int:
    """Bytes in flight for one chunk on the torch target."""
    tile = C * C * (x.heads("QK") + 2 * x.heads("QKL"))
    if x.channel:  # halving levels: a decayed copy of the operands a level, no C × C × channel
        tile = C * C * x.all_heads + 2 * C * x.all_heads * x.channel_size
    state = (x.rank or 1) * x.all_heads * x.n("QK") * x.p
    return x.acc * x.batch * (tile + state + C * (x.operands + x.all_heads * x.p))


def turns(schedule: str, chunk: int, itemsize: int) -> bool:
    """Whether a triton kernel multiplies with the columns of what it keeps as rows, of which a
    tensor core takes 64 at a time: a chunk may then have fewer."""
    return schedule in ("sweep", "segmented") and chunk < 64 and itemsize == 2


def fits(x: Shape, device: Device, chunk: int) -> bool:
    """Whether a chunk's operands (for each pipeline stage) and the state fit on chip (triton)."""
    n, p = 2 ** (x.n("QK") - 1).bit_length(), min(VALUE_TILE, 2 ** (x.p - 1).bit_length())
    return bool(_STAGES * chunk * (2 * n + p) * x.item + n * p * x.acc <= device.on_chip)


def tiles_fit(x: Shape, device: Device, rows: int, backward: bool) -> bool:
    """Whether square tiles of `rows` fit on chip (triton): a gradient of the mask has rows of Q, K,
    V and dY whole, of one tile; all else takes N in parts and few columns of V."""
    if not (backward and x.learned and device.on_chip):
        return True
    n, p = (2 ** (w - 1).bit_length() for w in (x.n("QK"), x.p))
    return bool(2 * rows * (n + p) * x.item <= device.on_chip)
