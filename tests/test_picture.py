"""Pictures: the facts they show are true, the text fits, the PNG holds what was drawn."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from under import under

import smac
from smac.cli import main
from smac.errors import SmacError
from smac.masks.base import Support
from smac.paths import shipped_specs
from smac.picture import look
from smac.picture.draw import save
from smac.picture.facts import CUT, FULL, STATE, ZERO, Facts, _tile
from smac.picture.sample import sample
from smac.picture.text import SHADES, render


def spec(mask: str, more: str = "") -> smac.Spec:
    return under(mask, more, name="drawn", sizes="T = 512, H = 2, N = 8, P = 8")


def facts(mask: str, more: str = "", **options: object) -> Facts:
    return look(smac.compile(spec(mask, more)).plan(device="cpu", **options))  # type: ignore[arg-type]


#: Specs whose law counts lanes that the block below the diagonal does not see.
ELSEWHERE = {"hydra", "lion", "log_linear", "low_rank", "mamba3", "prefix_lm", "rmt", "rwkv6",
             "window"}  # fmt: skip


@pytest.mark.parametrize("name", sorted(shipped_specs()))
def test_the_claimed_rank_is_the_rank_of_the_block(name: str) -> None:
    """The law says it, the singular values of the oracle's matrix show it: never more. Fewer where
    lanes stay above or on the diagonal, or meet the block at one of its levels only."""
    seen = look(smac.compile(name).plan(device="h100"))
    if name in ELSEWHERE:
        assert 0 < seen.found < (len(seen.matrix) // 2 if seen.rank is None else seen.rank)
    else:
        assert seen.found == (len(seen.matrix) // 2 if seen.rank is None else seen.rank)
    assert seen.plan.order in {order for _, row in seen.times for order, _ in row}


def test_a_false_rank_would_be_seen() -> None:
    """`found` counts, it does not repeat the claim."""
    seen = facts("decay(a) + decay(b)", ', a = "H", b = "H"')
    assert (seen.rank, seen.found) == (2, 2)
    assert replace(seen, sigma=(*seen.sigma[:2], 1e-3 * seen.sigma[0])).found == 3
    assert replace(seen, sigma=(0.0, 0.0)).found == 0


def test_samples_are_worth_looking_at() -> None:
    """Neither gone at once nor growing: a decay's values are found to be near 1."""
    for mask, more in (("decay(g)", ', g = "H"'), ("semiseparable(a)", ', a = "B T H"'),
                       ("semiseparable(-exp(a))", ', a = "B T H"')):  # fmt: skip
        L = sample(spec(mask, more))
        assert torch.equal(L, L.tril())
        assert (L.diagonal() - 1).abs().max() < 1e-12
        assert L.max() <= 1 + 1e-12
        share = (L > 0.1).double().mean()
        assert 0.05 < share < 0.45, (mask, share)


def test_documents_are_drawn_as_blocks() -> None:
    L = sample(spec("causal() * document(ids)", ', ids = "B T"'))
    assert set(L.unique().tolist()) == {0.0, 1.0}
    starts = [t for t in range(1, 96) if L[t, t - 1] == 0]
    assert len(starts) == 2


def test_both_sides_of_a_bidirectional_mask_are_drawn() -> None:
    L = sample(spec("toeplitz(h, bidirectional = true)", ', h = "W"'))
    torch.testing.assert_close(L, L.T, rtol=0, atol=0.03)
    assert L[0, 0] == L.max() > 0.97


def test_a_mask_without_finite_values_is_refused() -> None:
    with pytest.raises(SmacError, match="drawn: found no values of the inputs with which the mask"):
        sample(spec('entry("exp(exp(100 + t - s))")'))


def test_tiles_follow_the_support() -> None:
    """Each class against the entries of its tile, for bands of every kind."""
    lag = torch.arange(24)[:, None] - torch.arange(24)
    for where in (Support(0, None), Support(None, None), Support(0, 5), Support(None, -1),
                  Support(3, 9), Support(1, 0)):  # fmt: skip
        inside = torch.ones(24, 24, dtype=torch.bool)
        inside &= (lag >= where.lo) if where.lo is not None else inside
        inside &= (lag <= where.hi) if where.hi is not None else inside
        for i in range(6):
            for j in range(6):
                block = inside[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
                due = FULL if block.all() else CUT if block.any() else ZERO
                assert _tile(where, i, j, 4, False) == due
                if due != ZERO and i != j:
                    assert _tile(where, i, j, 4, True) == STATE


def test_text_fits_and_says_what_the_facts_say() -> None:
    seen = facts("decay(a) + decay(b)", ', a = "H", b = "H"')
    text = render(seen)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.isascii()
    assert "rank 2 claimed, 2 found in the 48 x 48 block below the diagonal" in text
    assert re.search(r"^ {5}-+ the claimed rank$", text, re.MULTILINE)
    rows = {int(m[0]): m[1] for m in re.findall(r"^ +(\d{2,6}) (.*\*.*)$", text, re.MULTILINE)}
    assert set(rows) == {T for T, _ in seen.times}
    for T, row in rows.items():  # the star stands in the column of the fastest
        orders = ("linear", "quadratic", "chunked")
        cells = [row[14 * n : 14 * n + 14] for n in range(3)]
        times = dict(dict(seen.times)[T])
        best = min(times, key=lambda o: times[o])
        assert [o for o, c in zip(orders, cells, strict=True) if "*" in c] == [best]


def test_a_lower_triangle_is_blank_above_the_diagonal() -> None:
    lines = render(facts("causal()")).splitlines()
    start = next(i for i, x in enumerate(lines) if x.startswith("mask, "))
    for n, line in enumerate(lines[start + 1 : start + 25]):
        assert line[: 2 * n + 2] == SHADES[-1] * (2 * n + 2)
        assert not line[2 * n + 2 : 48].strip()


def test_more_than_one_crossing_is_not_called_none() -> None:
    """Where a fit's rank outgrows a target, the quadratic order wins again at the longest T."""
    seen = facts("causal()")
    assert seen.beaten is not None
    assert "crossover: the quadratic order wins below T=" in render(seen)
    assert "crossover: not one alone, see the times" in render(replace(seen, beaten=None))
    alone = replace(seen, beaten=None, times=((64, (("quadratic", 1.0),)),))
    assert "crossover: none up to T=131072: quadratic wins" in render(alone)


def test_show_prints_without_matplotlib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["show", "retnet", "T=256", "--device", "h100"]) == 0
    assert "crossover: the quadratic order wins below T=" in capsys.readouterr().out
    assert main(["show", "retnet", "--device", "h100", "-o", str(tmp_path / "x.png")]) == 1
    assert capsys.readouterr().err == (
        "smac: drawing a PNG needs matplotlib, which is not installed: pip install "
        "'smac-kernels[show]'; without it, smac show prints text\n")  # fmt: skip


def test_a_png_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from matplotlib.image import imread

    path = tmp_path / "retnet.png"
    assert main(["show", "retnet", "--device", "h100", "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: drawn\n"
    pixels = imread(path)
    assert pixels.shape[:2] == (820, 1000)
    blue, gold = (torch.tensor([int(c[i : i + 2], 16) / 255 for i in (0, 2, 4)])
                  for c in ("8fbbe0", "f2c14e"))  # fmt: skip
    image = torch.tensor(pixels[..., :3])
    for colour, tiles in ((blue, 12), (gold, 66)):  # the tiles panel: a diagonal, and below it
        share = ((image - colour).abs().amax(-1) < 0.01).sum() / (285 / 12) ** 2
        assert share > 0.7 * tiles


def test_the_same_picture_is_the_same_bytes(tmp_path: Path) -> None:
    seen = facts("causal()")
    a, b = (save(seen, tmp_path / f"{n}.png").read_bytes() for n in "ab")
    assert a == b


def test_a_name_that_is_no_png_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SmacError, match=r"x\.jpg: found the suffix '\.jpg'; expected a name"):
        save(facts("causal()"), tmp_path / "x.jpg")
