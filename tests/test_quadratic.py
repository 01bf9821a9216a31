"""The quadratic order on Triton: entries by lag, entries inside a band, gradients stored directly.

The kernels' numbers are tests/triton's.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

import smac
from smac.codegen.triton_entry import by_lags, lagged, narrow, of_lags
from smac.expr import S_POS, T_POS, At, Between, Expr, Name, Num, call
from smac.ir import Kernel
from smac.lower.program import backward
from smac.masks.band import FULL, Support, inside

LAG = call("sub", T_POS, S_POS)
BELOW = call("ge", T_POS, S_POS)
H = At(Name("h"), (LAG,))
TOEPLITZ = call("where", BELOW, H, Num(0))
ROW = At(Name("x"), (T_POS,))


@pytest.mark.parametrize(("entry", "lags", "dear"), [
    (TOEPLITZ, True, True), (call("where", BELOW, Num(1), Num(0)), True, False),
    (call("pow", call("add", LAG, Num(1)), Name("p")), True, True), (Name("gamma"), True, False),
    (call("lt", call("add", T_POS, Num(3)), S_POS), True, False), (T_POS, False, False),
    (call("mul", ROW, H), False, False), (call("exp", call("add", T_POS, S_POS)), False, False),
    (Between(Name("a"), S_POS, T_POS), False, False),
    (call("xor", T_POS, S_POS), False, False), (At(Name("m"), (T_POS, S_POS)), False, False),
])  # fmt: skip
def test_what_depends_on_the_lag_alone(entry: Expr, lags: bool, dear: bool) -> None:
    """And is worth a gather; a rule that is unsure says no."""
    assert (of_lags(entry), by_lags(entry)) == (lags, dear)


def test_a_lag_is_called_t() -> None:
    """Row − column becomes one position, in conditions too."""
    at = At(Name("h"), (T_POS,))
    assert lagged(TOEPLITZ) == call("where", call("ge", T_POS, Num(0)), at, Num(0))


def test_conditions_inside_of_a_band_are_decided() -> None:
    """What all lags answer alike; what they do not stays."""
    window = call("where", call("lt", LAG, Num(5)), TOEPLITZ, Num(0))
    assert inside(window, Support(0, 4)) == H
    assert inside(window, Support(0, None)) == call("where", call("lt", LAG, Num(5)), H, Num(0))
    assert inside(window, FULL) == window
    assert inside(TOEPLITZ, Support(None, -1)) == Num(0)


def test_products_of_positions_take_64_bits() -> None:
    """Sums and comparisons of positions do with 32."""
    assert narrow(TOEPLITZ)
    assert narrow(call("mul", Name("gamma"), LAG))
    assert not narrow(call("mul", T_POS, S_POS))
    assert not narrow(call("pow", T_POS, Num(3)))


def stores(spec: str, device: str = "h100", dtype: str = "bfloat16",
           **sizes: int) -> dict[str, list[str]]:  # fmt: skip
    """What each kernel of a backward stores."""
    op = smac.compile(spec, target="triton", order="quadratic")
    plan = op.plan(dtype=dtype, device=device, backward=True, **sizes)
    return {k.name: [s.buffer for s in k.stores] for k in backward(plan).steps
            if isinstance(k, Kernel)}  # fmt: skip


def test_kernels_store_gradients_of_inputs_where_nothing_is_summed() -> None:
    """Each head's own; shared operands go through scratch, and are summed behind it."""
    found = stores("toeplitz", B=2, T=256, H=4, N=64, P=64)
    assert found == {"grad_q": ["grad.q"], "grad_kv": ["grad.v", "grad.k"],
                     "grad_mask": ["d.m0.0"], "grad_inputs": ["grad.h"]}  # fmt: skip
    shared = stores("ssd", B=2, T=64, H=4, N=64, P=64, G=2)
    assert shared["grad_kv"] == ["d.V", "d.K"]
    assert shared["grad_q"] == ["d.Q"]


PAIRED, ALONE = ["grad_kv"], ["grad_k", "grad_v"]


@pytest.mark.parametrize(
    ("spec", "asked", "expected"),
    [
        ("toeplitz", {}, PAIRED),
        ("toeplitz", {"N": 33, "P": 5}, PAIRED),
        ("toeplitz", {"N": 128}, ALONE),
        ("toeplitz", {"P": 65}, ALONE),
        ("toeplitz", {"dtype": "float32"}, ALONE),
        ("toeplitz", {"dtype": "float32", "N": 32, "P": 32}, PAIRED),
        ("toeplitz", {"device": "a100"}, ALONE),  # operands pass through registers there
        ("linear_attention", {"P": 63}, PAIRED),
        ("linear_attention", {"P": 64}, ALONE),  # the normaliser's column is the 65th
        ("gla", {}, ALONE),  # a mask per channel
    ],
)
def test_k_and_v_share_a_kernel_that_holds_all_columns_of_both(
    spec: str, asked: dict[str, Any], expected: list[str]
) -> None:
    found = stores(spec, **{"B": 1, "T": 64, "H": 2, "N": 64, "P": 64, **asked})
    assert [n for n in found if n in (*PAIRED, *ALONE)] == expected


def test_a_programs_own_operand_is_read_as_it_lies_in_memory() -> None:
    """Computed, it passes through registers, and Hopper's products wait for one another."""
    op = smac.compile("toeplitz", target="triton", order="quadratic")
    text = op.source(target="triton", dtype="bfloat16", device="h100")
    assert "b_operand = r_q.to(OP)" in text
    read, *_ = re.findall(r"b_entry = tl\.reshape\((.*?)\[R, C\]\)", text, re.DOTALL)
    assert "tl.sqrt(tl.full((), n_N, ACC))" in read
