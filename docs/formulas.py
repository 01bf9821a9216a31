"""Formulas of every mask of the catalogue, each written by hand in several ways.

`FORMULAS`: row → (what is expected, formulas). Expected is a rank (at most), or words that the
structure holds. Inputs are those of `AXES`.
"""

from __future__ import annotations

#: Inputs that the formulas read.
AXES = {
    "gamma": "H", "delta": "H", "omega": "H", "alpha": "H", "beta": "H", "sigma": "H", "p": "H",
    "u": "H", "a": "B T H", "b": "B T H", "g": "B T H", "c": "B T H", "d": "B T H", "x": "B T H",
    "y": "B T H", "dt": "B T H", "A": "H", "h": "H W", "M": "B T S", "lam": "B T S", "ids": "B T",
}  # fmt: skip

FORMULAS: dict[str, tuple[int | str, tuple[str, ...]]] = {
    "causal": (1, (
        "t >= s",
        "where(s <= t, 1, 0)",
        "1 - (t < s)",
        "where(t - s < 0, 0, 1)",
    )),
    "decay": (1, (
        "where(t >= s, gamma ** (t - s), 0)",
        "(t >= s) * exp((t - s) * log(gamma))",
        "(t >= s) * gamma ** t / gamma ** s",
        "where(s > t, 0, exp(-(t - s) / 8))",
        "(t >= s) * 0.9 ** (t - s)",
        "where(t >= s, exp(-alpha * abs(t - s)), 0)",
    )),
    "1-semiseparable": (1, (
        "where(t >= s, prod(a[k], k, s + 1, t), 0)",
        "(t >= s) * exp(sum(g[k], k, s + 1, t))",
        "where(t < s, 0, exp(sum((dt * A)[k], k, s + 1, t)))",
        "(t >= s) * exp(A * sum(dt[k], k, s + 1, t))",
        "(t >= s) * x[t] * prod(a[k], k, s + 1, t) * y[s]",
        "(t >= s) * prod(a[k], k, s, t) * x[t]",
        "where(t >= s, exp(g[t] - g[s]), 0)",
        "(t >= s) * exp(g[t]) * exp(-g[s])",
        "(t >= s) * y[s] * exp(A * dt[t] + g[t]) / exp(g[s] + dt[s] * A)",
    )),
    "Toeplitz": ("Toeplitz, no finite rank", (
        "where(t >= s, h[t - s], 0)",
        "h[t - s] * (s <= t)",
        "(t >= s) * h[abs(s - t)]",
        "h[abs(t - s)]",
        "h[t - s + size(T) - 1]",
        "(t >= s) * exp(h[t - s]) / 2",
    )),
    "r-semiseparable": (2, (
        "(t >= s) * (gamma ** (t - s) + delta ** (t - s))",
        "where(t >= s, exp((t - s) * log(gamma)) * alpha + beta * delta ** t / delta ** s, 0)",
        "where(t >= s, c[t] * prod(a[k], k, s + 1, t) * d[s]"
        " + x[t] * prod(b[k], k, s + 1, t) * y[s], 0)",
        "where(t >= s, exp(sum(g[k], k, s + 1, t)) * c[t] + gamma ** (t - s) * y[s], 0)",
    )),
    "complex decay": (2, (
        "where(t >= s, gamma ** (t - s) * cos(omega * (t - s)), 0)",
        "(t >= s) * gamma ** (t - s)"
        " * (cos(omega * t) * cos(omega * s) + sin(omega * t) * sin(omega * s))",
        "(t >= s) * cos(omega * t - omega * s)",
        "where(t < s, 0, exp(-(t - s) / 16) * sin(omega * (t - s)))",
        "(t >= s) * prod(a[k], k, s + 1, t) * cos(omega * (t - s) + alpha)",
    )),
    "polynomial": (3, (
        "where(t >= s, (alpha + beta * (t - s)) ** 2, 0)",
        "where(t >= s, alpha + beta * t - beta * s, 0)",
        "(t >= s) * (1 - (t - s) / size(T))",
        "(t >= s) * (t * t - 2 * t * s + s ** 2)",
    )),
    "polynomial x decay": (3, (
        "where(t >= s, (t - s) * gamma ** (t - s), 0)",
        "(t >= s) * (t - s) ** 2 * exp(-(t - s) / 8)",
        "(t >= s) * (t * gamma ** (t - s) - s * gamma ** t / gamma ** s)",
        "(t >= s) * (1 + t - s) * prod(a[k], k, s + 1, t)",
    )),
    "rational Toeplitz": (4, (
        "where(t >= s, alpha * gamma ** (t - s) + beta * delta ** (t - s), 0)",
        "(t >= s) * (gamma ** (t - s) * cos(omega * (t - s)) + alpha * delta ** (t - s))",
        "(t >= s) * gamma ** (t - s) * (cos(omega * (t - s)) + (t - s) * sin(omega * (t - s)))",
    )),
    "1-SS x two-band": ("semiseparable", (
        "(t >= s) * x[s] * prod(a[k], k, s + 1, t)"
        " + where(t > s, y[s + 1] * prod(a[k], k, s + 2, t), 0)",
        "where(t >= s, prod(a[k], k, s + 1, t) * x[s], 0)"
        " + (t - s >= 1) * exp(sum(log(a)[k], k, s + 2, t)) * y[s + 1]",
    )),
    "RWKV-6": ("semiseparable", (
        "where(t > s, prod(a[k], k, s + 1, t - 1), where(t == s, u, 0))",
        "(t > s) * exp(sum(g[k], k, s + 1, t - 1)) + u * (t == s)",
    )),
    "window": ("banded", (
        "(t >= s) * (t - s < 8)",
        "where((t - s >= 0) * (t - 8 < s), 1, 0)",
        "where(t < s, 0, where(t - s >= 8, 0, 1))",
        "(abs(t - s) < 4)",
    )),
    "banded Toeplitz": ("banded", (
        "where(t >= s, where(t - s < 4, h[t - s], 0), 0)",
        "(t >= s) * (t - s <= 3) * h[t - s]",
        "(t >= s) * (t - s < 5) * gamma ** (t - s)",
    )),
    "dilated": (3, (
        "(t >= s) * ((t - s) % 3 == 0)",
        "where(t >= s, where(t % 3 == s % 3, 1, 0), 0)",
    )),
    "power law": ("Toeplitz, no finite rank", (
        "where(t >= s, (1 + t - s) ** (-p), 0)",
        "(t >= s) / (1 + t - s)",
        "(t >= s) * exp(-p * log(1 + t - s))",
        "1 / (1 + abs(t - s))",
    )),
    "Gaussian": ("Toeplitz, no finite rank", (
        "where(t >= s, exp(-(t - s) ** 2 / sigma ** 2), 0)",
        "(t >= s) * exp(-t * t / sigma ** 2 + 2 * t * s / sigma ** 2 - s * s / sigma ** 2)",
        "exp(-0.01 * (t - s) * (t - s))",
    )),
    "document": (1, (
        "(t >= s) * (runs(ids)[t] == runs(ids)[s])",
        "where(t >= s, where(sum(starts(ids)[k], k, s + 1, t) == 0, 1, 0), 0)",
        "(t >= s) * prod(1 - starts(ids)[k], k, s + 1, t) * gamma ** (t - s)",
        "(t >= s) * (runs(ids)[t] - runs(ids)[s] == 0) * prod(a[k], k, s + 1, t)",
    )),
    "prefix-LM": (2, (
        "maximum(s < 5, t >= s)",
        "where(s < 5, 1, where(t >= s, 1, 0))",
        "1 - (t < s) * (s >= 5)",
    )),
    "quasi-separable": (2, (
        "where(t >= s, prod(a[k], k, s + 1, t), prod(b[k], k, t + 1, s))",
        "gamma ** abs(t - s)",
        "(t >= s) * exp(sum(g[k], k, s + 1, t)) + (s > t) * exp(sum(g[k], k, t + 1, s))",
        "where(t > s, gamma ** (t - s), delta ** (s - t))",
    )),
    "Fenwick": ("Fenwick", (
        "(t >= s) * lam[t, bit_length(t ^ s)]",
        "where(t >= s, lam[t, bit_length(s ^ t)] * prod(a[k], k, s + 1, t), 0)",
    )),
    "Fenwick levels": (2, (
        "(t >= s) * (x[t] * (bit_length(t ^ s) == 1) + y[t] * (bit_length(t ^ s) == 2))",
        "where(t >= s, where(bit_length(s ^ t) - 3 == 0, x[t] * prod(a[k], k, s + 1, t), 0), 0)",
    )),
    "low-rank": (2, (
        "x[t] * y[s]",
        "x[t] * y[s] + c[t] * d[s]",
        "y[s] * (x[t] + c[t]) + d[s] * c[t]",
    )),
    "Fourier": ("Fourier", (
        "cos(6.283185307179586 * t * s / size(T))",
        "sin(t * (6.283185307179586 / size(T)) * s)",
    )),
    "circulant": ("circulant", (
        "h[(t - s) % size(T)]",
        "h[(t + size(T) - s) % size(T)]",
    )),
    "Vandermonde": ("Vandermonde", (
        "x[t] ** s",
        "exp(s * log(x[t]))",
    )),
    "Cauchy": ("Cauchy", (
        "1 / (x[t] - y[s])",
        "(x[t] - y[s]) ** (-1)",
    )),
    "2-D separable": ("2-D", (
        "gamma ** (abs(t % 8 - s % 8) + abs(t // 8 - s // 8))",
        "gamma ** abs(t // 8 - s // 8) * gamma ** abs(t % 8 - s % 8)",
    )),
    "block-sparse": (2, (
        "(t >= s) * (t // 4 == s // 4)",
        "where(t // 4 == s // 4, 1, 0)",
    )),
    "dense": ("dense", (
        "M[t, s]",
        "(t >= s) * M[t, s] * x[t]",
    )),
    "equal ids": ("equal ids", (
        "(t >= s) * (x[t] == x[s])",
        "where(x[t] - x[s] == 0, 1, 0)",
    )),
    "diagonal": (1, (
        "where(t == s, x[t], 0)",
        "(t == s) * u",
    )),
}  # fmt: skip
