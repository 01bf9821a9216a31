"""The Triton target against the oracle: every spec and order, interpreted, in a child process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: The worst relative error that a cell may have, by the end of its name.
BOUND = {"float32": 2e-6}


def names() -> list[str]:
    """Names of all cells, asked of a child: importing them switches the interpreter on."""
    code = ("import os, sys; sys.path.insert(0, sys.argv[1]); import cells_triton as c; "
            "print('\\n'.join(c.cells()))")  # fmt: skip
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(HERE)], text=True,
                          capture_output=True, check=True)  # fmt: skip
    return done.stdout.split()


def test_every_cell_is_right() -> None:
    """Outputs, states and all gradients; 1e-10 in float64."""
    wanted = names()
    done = subprocess.run([sys.executable, "-W", "ignore", str(HERE / "cells_triton.py")],
                          capture_output=True, text=True, check=False)  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [x["cell"] for x in found] == wanted, done.stderr[-2000:]
    wrong = [x for x in found
             if not x.get("error", 1.0) <= BOUND.get(x["cell"].split("-")[-1], 1e-10)]  # fmt: skip
    assert not wrong, wrong


def test_a_wrong_kernel_is_seen(tmp_path: Path) -> None:
    """The cells fail when a template's decay of the state is dropped: the bound is no formality."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import cells_triton as c
from smac.codegen import triton
real = triton.wrap
triton.wrap = lambda text: real(text).replace("b_all0 * b_state0", "b_state0")
print(c.cells()["retnet-chunked-float64"]())
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(HERE)], text=True,
                          capture_output=True, check=True)  # fmt: skip
    assert float(done.stdout) > 1e-3


#: Texts of kernels of a mask per channel, and what makes them wrong.
MUTANTS = (
    ("b_all[:, None] * b_state", "b_state"),  # the state does not decay over a chunk
    ("b_sum - b_middle", "b_sum"),  # rows decay from the chunk's start at every level
    ("(b_a * b_from, 0,", "(b_from, 0,"),
    ("b_up[:, None] != (o_i", "b_up[:, None] == (o_i"),  # the other paths of a half
    ("+ b_self[:, None] * b_b", ""),  # no pair of a row with itself
    ("(b_up[None, :] == 0)", "True"),
    ("(b_up[:, None] != b_up[None, :])", "True"),  # pairs inside a half, which other levels have
    ("tl.trans(b_pairs)", "b_pairs"),  # columns read D as it stands
)
#: Those of chunks whose pairs meet in the middle, in 16 bits.
NEAR = (
    ("b_sum - b_halfway[None, :]", "b_sum"),  # rows decay from the chunk's start
    ("b_halfway[None, :] - b_sum", "-b_sum"),
    ("tl.where(o_i[:, None] < o_i[None, :], b_pairs", "tl.where(True, b_pairs"),
    ("b_rows * b_there", "b_rows"),
    ("- b_bs.to(ACC) * b_columns", ""),  # paths that end inside the chunk
    ("tl.where(o_i[:, None] > o_i[None, :], b_all", "tl.where(True, b_all"),
    ("first = tl.full((), LEVELS,", "first = tl.full((), 0,"),  # all pairs once more, by levels
)


@pytest.mark.parametrize(("cell", "mutants"), [
    ('c.cell("gla", "chunked", T=35, B=1, H=1)', MUTANTS),
    ('c.as_in_bfloat16("gla", T=35, B=1, H=1)', NEAR),
    # Factors far out of range where a decay cuts.
    ('c.as_in_bfloat16("gla", special=True, T=35, B=1, H=1)', (("_reach <= NEAR", "_reach >= 0"),)),
], ids=["levels", "near", "far"])
def test_wrong_chunks_of_a_mask_per_channel_are_seen(
    cell: str, mutants: tuple[tuple[str, str], ...]
) -> None:
    """Each change of a rendered kernel fails its cell."""
    code = """
import json, sys
sys.path.insert(0, sys.argv[1])
import cells_triton as c
from smac.codegen import triton
real = triton.wrap
for right, wrong in json.loads(sys.argv[2]):
    seen = []
    def changed(text):
        seen.append(right in text)
        return real(text).replace(right, wrong)
    triton.wrap = changed
    error = CELL
    print(json.dumps([any(seen), error]))
""".replace("CELL", cell)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(HERE), json.dumps(mutants)],
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(mutants)
    assert all(seen and not error <= 1e-6 for seen, error in found), found


#: Texts of loops over lanes, and what makes them wrong.
TURNS = (
    ("at_LANE = i_zero + i_lane", "at_LANE = i_zero"),  # the first lane's decays for all
    ("at_R = at_LANE", "at_R = at_LANE * 0"),  # and its states
    ("b_mask += ", "b_mask = "),
    ("tl.max(tl.abs(b_weight), 0) > 0.0", "tl.max(tl.abs(b_weight), 0) > 1.0"),
    ("tl.max(b_out, 0) > 0.0", "tl.max(b_out, 0) > 1.0"),
    ("i_lane = i_program % 9", "i_lane = i_program % 9 // 2"),  # states of some lanes alone
)


def test_wrong_loops_over_lanes_are_seen() -> None:
    """Each change of a rendered kernel fails its cell."""
    code = """
import json, sys
sys.path.insert(0, sys.argv[1])
import cells_triton as c
from smac.codegen import triton
real = triton.wrap
for right, wrong in json.loads(sys.argv[2]):
    seen = []
    def changed(text):
        seen.append(right in text)
        return real(text).replace(right, wrong)
    triton.wrap = changed
    error = c.cell("many_of_groups", "chunks", T=19)
    print(json.dumps([any(seen), error]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(HERE), json.dumps(TURNS)],
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(TURNS)
    assert all(seen and not error <= 1e-6 for seen, error in found), found


def test_plans_count_the_products_of_a_mask_per_channel() -> None:
    """Flops of a plan are what `tl.dot` multiplies, forward and backward."""
    done = subprocess.run([sys.executable, "-W", "ignore", str(HERE / "flops_triton.py")],
                          capture_output=True, text=True, check=False)  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 12, done.stderr[-2000:]
    assert all(x["done"] == x["planned"] > 0 for x in found), found


@pytest.mark.parametrize(("spec", "lanes"), [("ssd", 1), ("mamba3", 2)])
def test_weights_of_heads_that_share_q_and_k_are_summed_first(spec: str, lanes: int) -> None:
    """A head takes one product for its weights, three a lane for its states; Q and K one each."""
    import smac

    op = smac.compile(spec, target="triton", order="chunked", schedule="chunks")
    text = op.source("triton", dtype="bfloat16", device="h100", T=256)
    kernel = text.split("def backward_grad_qk(")[1].split("@triton.jit")[0].split("\ndef ")[0]
    before, _, loop = kernel.partition("for i_head in range(")
    loop, _, behind = loop.partition("\n    b_weights = ")
    assert [x.count("tl.dot(") for x in (before, loop, behind)] == [0, 1 + 3 * lanes, 2]


@pytest.mark.parametrize("order", ["chunked", "quadratic"])
def test_rendered_text_is_tidy(order: str) -> None:
    """Lines of at most 100 columns, no family named, 64-bit program indices."""
    import smac

    text = smac.compile("packed_ssd", target="triton", order=order).source("triton", T=256)
    assert max(map(len, text.splitlines())) <= 100
    assert "tl.program_id(0).to(tl.int64)" in text
    assert not re.search(r"semiseparable|causal|toeplitz|document\(", text)


def test_scalar_functions_are_exact_to_rounding() -> None:
    """Every function of the scalar language, small arguments included, in both types."""
    done = subprocess.run([sys.executable, "-W", "ignore", str(HERE / "functions_triton.py")],
                          capture_output=True, text=True, check=False)  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 64, done.stderr[-2000:]
    wrong = [x for x in found
             if not x["error"] <= (5e-6 if x["cell"].endswith("float32") else 2e-14)]  # fmt: skip
    assert not wrong, wrong


def test_tiles_of_zeros_are_not_multiplied() -> None:
    """A window's and documents' tiles by count: two products a tile that is not zero, forward."""
    done = subprocess.run([sys.executable, "-W", "ignore", str(HERE / "tiles_triton.py")],
                          capture_output=True, text=True, check=True)  # fmt: skip
    found = {x["mask"]: x["products"] for x in map(json.loads, done.stdout.splitlines())}
    diagonals = {"causal": 36, "window": 15, "documents": 4 + 4 + 16,
                 "causal documents": 3 + 3 + 10, "documents and more": 36}  # fmt: skip
    assert {m: found[m] for m in diagonals} == {m: [2 * n, 6 * n] for m, n in diagonals.items()}
    assert found["gated documents"] == [32, 128]  # the decay's gradient is one more pass
