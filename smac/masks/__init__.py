"""Masks: their laws (base.py), one file a family, how they combine (algebra.py), their names."""

from smac.masks import (
    algebra,
    approx,
    causal,
    circulant,
    cumulative,
    decay,
    dense,
    document,
    formula,
    fourier,
    kron,
    lag,
    level,
    ones,
    prefix,
    semiseparable,
    toeplitz,
    wave,
    window,
)
from smac.masks.base import Cotangent, Generators, Lane, Mask, Support
from smac.masks.registry import build, register

__all__ = [
    "Cotangent", "Generators", "Lane", "Mask", "Support", "algebra", "approx", "build", "causal",
    "circulant", "cumulative", "decay", "dense", "document", "formula", "fourier", "kron", "lag",
    "level", "ones", "prefix", "register", "semiseparable", "toeplitz", "wave", "window",
]  # fmt: skip
