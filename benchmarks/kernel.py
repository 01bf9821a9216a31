"""An empty Triton kernel.

Non-goals: anything that is not a kernel; triton is imported here.
"""

import triton


@triton.jit
def nothing(p_x):  # type: ignore[no-untyped-def]
    """Nothing."""
