"""smac.paths in a checkout and laid out as in a wheel (test_wheel.py installs a real one)."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from smac import paths
from smac.errors import SmacError

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ["gla", "linear_attention", "multiscale", "packed_ssd", "retnet", "ssd", "toeplitz"]


def test_a_checkout_uses_its_own_folders() -> None:
    assert paths.specs_dir() == ROOT / "specs"
    assert paths.templates_dir() == ROOT / "templates"
    assert {"triton", "torch"} <= {p.name for p in paths.templates_dir().iterdir()}


def test_shipped_specs_are_sorted_by_name_and_carry_it() -> None:
    specs = paths.shipped_specs()
    assert set(SHIPPED) <= set(specs)
    assert list(specs) == sorted(specs)
    for name, path in specs.items():
        text = path.read_text("utf-8")
        table = tomllib.loads(text)
        assert table["name"] == name
        assert {"about", "paper", "sizes", "expect"} <= table.keys(), path
        assert len([line for line in text.splitlines() if line.strip()]) < 40, path


def test_the_wheels_copy_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "smac"
    (package / "_data" / "specs").mkdir(parents=True)
    (package.parent / "specs").mkdir()  # somebody else's folder of that name
    monkeypatch.setattr(paths, "_PACKAGE", package)
    assert paths.specs_dir() == package / "_data" / "specs"
    assert paths.shipped_specs() == {}


def test_a_broken_install_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "smac")
    with pytest.raises(SmacError) as caught:
        paths.templates_dir()
    assert str(caught.value) == (
        f"templates: found neither {tmp_path}/smac/_data/templates nor {tmp_path}/templates; "
        "expected one of them: reinstall smac-kernels, or run from a whole checkout"
    )
