"""The float64 oracle, an independent recurrence, and the same-precision baseline."""

from smac.reference.baseline import baseline
from smac.reference.dense import define_mask, mask_matrix
from smac.reference.run import recurrence, reference
from smac.reference.states import State

__all__ = ["State", "baseline", "define_mask", "mask_matrix", "recurrence", "reference"]
