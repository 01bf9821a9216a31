"""What a call that does not fit its op is told: the whole text, since users act on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from drawn import draw

import smac

SSD = smac.compile("ssd")
ORDER = "x, dt, A, B, C, D, z, dt_bias"


def ssd(**changes: Any) -> dict[str, Any]:
    """A call of ssd with some inputs replaced."""
    inputs = draw(SSD.spec, dtype=torch.float32, grad=False, B=2, T=5, H=4, P=3, N=6, G=2)
    return {**inputs, **changes}


GOOD = ssd()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"C": None}, "ssd: input 'C' (B T G N) is missing; pass it by name, or as argument 5"),
        ({"dt_bia": GOOD["dt_bias"]},
         f"ssd: unexpected input 'dt_bia'; expected some of {ORDER}; did you mean 'dt_bias'?"),
        ({"B": GOOD["B"][0]},
         "ssd: B has axes B T G N: expected 4 dimensions, got 3, shape (5, 2, 6)"),
        ({"C": GOOD["C"][:, :4]},
         "ssd: C has axes B T G N: expected T = 5 (as x), got 4, shape (2, 4, 2, 6)"),
        ({"A": GOOD["A"][:3]}, "ssd: A has axes H: expected H = 4 (as x), got 3, shape (3,)"),
        ({"B": torch.ones(2, 5, 3, 6), "C": torch.ones(2, 5, 3, 6)},
         "ssd: B has axes B T G N: expected a G that divides H = 4, got G = 3"),
        ({"C": GOOD["C"].to("meta")}, "ssd: C (B T G N): expected device cpu (as x), got meta"),
        ({"x": GOOD["x"].long()},
         "ssd: x (B T H P): expected float16, bfloat16, float32 or float64, got torch.int64"),
        ({"A": GOOD["A"].to(torch.complex64)},
         "ssd: A (H): expected float16, bfloat16, float32 or float64, got torch.complex64"),
        ({"dt": GOOD["dt"].double()},
         "ssd: dt (B T H): got torch.float64 beside torch.float32 (x); "
         "expected float64 for all float inputs or for none"),
        ({"A": [1.0, 2.0]}, "ssd: A has axes H: expected a tensor, got list"),
        ({"A": 0.5}, "ssd: A has axes H: expected a tensor, got float"),
        ({"x": torch.ones(2, 5, 4, 0), "z": None}, "ssd: expected P ≥ 1, got 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(smac.LaunchError) as e:
        SSD(**{**GOOD, **changes})
    assert str(e.value) == text


def test_the_same_call_without_the_mistake_runs() -> None:
    assert SSD(**GOOD).shape == (2, 5, 4, 3)


def test_too_many_and_twice() -> None:
    with pytest.raises(smac.LaunchError) as e:
        SSD(*GOOD.values(), GOOD["x"])
    assert str(e.value) == f"ssd: expected at most 8 inputs ({ORDER}), got 9"
    with pytest.raises(smac.LaunchError) as e:
        SSD(*GOOD.values(), x=GOOD["x"])
    assert str(e.value) == "ssd: input 'x' is passed by position and by name"


def test_an_error_is_not_remembered_as_a_launcher() -> None:
    for _ in range(2):
        with pytest.raises(smac.LaunchError, match="expected a tensor"):
            SSD(**{**GOOD, "A": "A"})
    SSD(**GOOD)


@pytest.mark.parametrize("swapped", [("x", "z"), ("x", "z", "B", "C"), ("dt",)])
def test_heads_before_time_gets_a_hint(swapped: tuple[str, ...]) -> None:
    with pytest.raises(smac.LaunchError) as e:
        SSD(**{**GOOD, **{n: GOOD[n].transpose(1, 2) for n in swapped}})
    first, *_ = (n for n in GOOD if n in swapped)
    came, due = ("B H T", "B T H") if first == "dt" else ("B H T P", "B T H P")
    named = ", ".join(n for n in GOOD if n in swapped)
    assert str(e.value).endswith(f"; it looks as if {named} came as {came} where {due} is due: "
                                 f"pass {first}.transpose(1, 2)")  # fmt: skip


def test_a_plain_misfit_gets_no_hint() -> None:
    with pytest.raises(smac.LaunchError) as e:
        SSD(**{**GOOD, "dt": torch.ones(2, 6, 4)})
    assert "transpose" not in str(e.value)


def test_ids_are_integers() -> None:
    op = smac.compile("packed_ssd")
    inputs = draw(op.spec, grad=False)
    inputs["ids"] = inputs["ids"].double()
    with pytest.raises(smac.LaunchError) as e:
        op(**inputs)
    assert str(e.value) == "packed_ssd: ids (B T): expected integers (ids), got torch.float64"


TWO_SIDED = """
smac = 1
name = "both"
[inputs]
q = "B T H N"
v = "B T H P"
h = "H W"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q"
K = "q"
V = "v"
L = "toeplitz(h, bidirectional = true)"
[output]
y = "Y"
"""


@pytest.mark.parametrize(
    ("spec", "lags", "text"),
    [
        ("toeplitz", 8, "toeplitz: h: expected W ≥ T = 9 (lags 0 … T−1), got 8"),
        (TWO_SIDED, 16, "both: h: expected W = 2T − 1 = 17 (lags −(T−1) … T−1), got 16"),
        (TWO_SIDED, 18, "both: h: expected W = 2T − 1 = 17 (lags −(T−1) … T−1), got 18"),
    ],
)
def test_lags_fit_the_sequence(spec: str, lags: int, text: str) -> None:
    op = smac.compile(spec)
    with pytest.raises(smac.LaunchError) as e:
        op(**draw(op.spec, grad=False, W=lags))
    assert str(e.value) == text


def test_more_lags_than_tokens_are_ignored() -> None:
    op = smac.compile("toeplitz")
    inputs = draw(op.spec, grad=False, W=12)
    due = op(**{**inputs, "h": inputs["h"][:, :9]})
    assert torch.equal(op(**inputs), due)
