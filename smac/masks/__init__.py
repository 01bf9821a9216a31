"""Masks: their laws (base.py), one file a family, how they combine (algebra.py), their names."""

from smac.masks import (
    algebra,
    approx,
    causal,
    decay,
    dense,
    document,
    formula,
    fourier,
    semiseparable,
    toeplitz,
    window,
)
from smac.masks.base import Cotangent, Generators, Lane, Mask, Support
from smac.masks.registry import build, register

__all__ = [
    "Cotangent", "Generators", "Lane", "Mask", "Support", "algebra", "approx", "build", "causal",
    "decay",
    "dense", "document", "formula", "fourier", "register", "semiseparable", "toeplitz", "window",
]  # fmt: skip
