"""The README's spec compiles and its Python runs, as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def block(language: str) -> str:
    """The first fenced block of that language."""
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found, language
    return found[1]


def test_the_first_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = block("toml")
    assert len(spec.splitlines()) == 10
    (tmp_path / "retention.toml").write_text(spec, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 20, 3, 8)
    q1, k1, v1 = torch.randn(3, 2, 3, 8)
    names = {"q": q, "k": k, "v": v, "q1": q1, "k1": k1, "v1": v1, "gamma": torch.rand(3)}
    exec(block("python"), names)
    t = torch.arange(20)
    lag = (t[:, None] - t).float()
    mask = torch.where(lag >= 0, names["gamma"][:, None, None] ** lag.clamp_min(0), 0.0)
    exact = torch.einsum("hts,bthn,bshn,bshp->bthp", mask, q / 8**0.5, k, v)
    torch.testing.assert_close(names["y"], exact, rtol=1e-4, atol=1e-4)
    assert names["y1"].shape == (2, 3, 8)


def test_every_path_that_it_links_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_make_target_that_it_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", README, re.MULTILINE)) <= targets
