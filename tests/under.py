"""Specs of plain attention under a mask: what tests vary is the mask, sizes and more inputs."""

from __future__ import annotations

import smac

_TEXT = """
smac = 1
name = "{name}"
inputs = {{q = "B T H N", k = "B T H N", v = "B T H P"{more}}}
output = {{y = "Y"}}
sizes = {{{sizes}}}
{extra}
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q"
K = "k"
V = "v"
L = '{mask}'
"""


def under(mask: str, more: str = "", *, name: str, sizes: str, extra: str = "") -> smac.Spec:
    """Attention under `mask`; `more` inputs begin with a comma, `extra` is lines of TOML."""
    return smac.load(_TEXT.format(mask=mask, more=more, name=name, sizes=sizes, extra=extra))
