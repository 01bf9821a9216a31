"""What the linear order keeps in memory on triton: states between segments, and scratch.

Non-goals: no times (cost.py), no text of kernels.
"""

from __future__ import annotations

from smac.plan.shape import Shape

#: Tokens in a segment: states are saved where one starts, and stay a small part of the rest.
SEGMENT = 32
#: Columns of a state that a program of a lane's gradients has.
COLUMNS = 16
#: Elements of scratch that the programs of a kernel have together, at most: as many run at once as
#: fit, then the next. On the largest GPUs that is more than run beside each other in any case.
SCRATCH = 2**28


def tokens_space(x: Shape) -> int:
    """Bytes of a backward: gradients of operands and, where the mask has gradients, both sides'
    states and what a segment of each program that runs at once holds."""
    heads, n, p = x.batch * x.all_heads, x.n("QK"), x.p
    space = x.sides * heads * x.T * (2 * n + p)  # of two sides, the first waits for the second
    if x.again:  # Y, and dY with it
        space += 2 * heads * x.T * p
    if x.learned:
        blocks, lanes = -(-p // COLUMNS), max(x.rank or 1, x.states)
        space += 2 * lanes * heads * -(-x.T // SEGMENT) * n * p
        each = SEGMENT * COLUMNS * max(16, 2 ** (n - 1).bit_length())
        space += min(blocks * heads, max(SCRATCH // each, 1)) * each
        own = {None: 1, "N": n, "P": 0}[x.channel]  # a gradient for each block, then their sum
        space += lanes * heads * x.T * ((blocks + 1) * own + (p if x.channel == "P" else 0))
    return space * x.acc
