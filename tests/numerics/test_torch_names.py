"""Inputs, lets, axes and outputs called as the rendered code calls its own locals."""

from __future__ import annotations

import pytest
import torch
from drawn import close, draw, floats
from specs_torch import ALL, HOSTILE

import smac


@pytest.mark.parametrize("order", ALL)
@pytest.mark.parametrize("absent", [(), ("n_T", "operand")])
def test_no_name_of_a_user_meets_one_of_ours(order: str, absent: tuple[str, ...]) -> None:
    op = smac.compile(HOSTILE, target="torch", order=order, chunk=None if order == "linear" else 4)
    inputs = draw(op.spec, T=11, K=2, C=2, absent=absent)
    found, due = op(**inputs), op.reference(**inputs)
    for a, b in zip(found, due, strict=True):
        close(a, b)
    weights = [torch.randn_like(y) for y in due]
    for a, b in zip(torch.autograd.grad(found, floats(inputs), weights),
                    torch.autograd.grad(due, floats(inputs), weights), strict=True):  # fmt: skip
        close(a, b)
