"""Lowering: a Plan becomes Programs, one forward and one backward, verified after each pass."""

from smac.lower.program import backward, forward

__all__ = ["backward", "forward"]
