"""Masks: their laws (base.py), one file a family, how they combine (algebra.py), their names."""

from smac.masks import (
    algebra,
    causal,
    decay,
    dense,
    document,
    formula,
    fourier,
    ones,
    prefix,
    semiseparable,
    toeplitz,
    window,
)
from smac.masks.base import Cotangent, Generators, Lane, Mask, Support
from smac.masks.registry import build, register

__all__ = [
    "Cotangent", "Generators", "Lane", "Mask", "Support", "algebra", "build", "causal", "decay",
    "dense", "document", "formula", "fourier", "ones", "prefix", "register",
    "semiseparable", "toeplitz", "window",
]  # fmt: skip
