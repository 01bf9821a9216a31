"""`smac new`: what it writes parses, plans, draws and checks; it overwrites nothing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import smac
from smac import starter
from smac.cli import main
from smac.picture import look


def test_the_written_spec_plans_and_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    assert main(["new", "mine", "-o", str(path)]) == 0
    assert f"{path}: written" in capsys.readouterr().out
    op = smac.compile(path)
    assert op.spec.name == "mine"
    plan = op.plan(device="h100")
    assert plan.order in ("quadratic", "chunked", "linear")
    assert look(plan).rank == 1
    assert main(["check", str(path), "--quick", "--targets", "torch"]) == 0
    assert "mine: ok" in capsys.readouterr().out


def test_every_mask_that_its_comments_name_is_one() -> None:
    """What a comment offers, put in the place of L with the inputs it asks for, plans."""
    text = starter.text("mine")
    offers = re.findall(r"^#   (\S.*\)) {2,}(.*)$", text, re.MULTILINE)
    assert len(offers) == 5
    wanted = {"a": "B T H", "slow": "H", "ids": "B T", "h": "H W"}
    for mask, note in offers:
        used = {n: axes for n, axes in wanted.items() if re.search(rf"\b{n}\b", mask)}
        assert all(f'{n} = "{a}"' in note for n, a in used.items() if n != "slow")
        inputs = "".join(f'{n} = "{a}"\n' for n, a in used.items())
        if "gamma" not in mask:
            text_now = re.sub(r"^gamma .*\n", "", text, flags=re.MULTILINE)
        else:
            text_now = text
        text_now = text_now.replace('L = "decay(gamma)"', f'L = "{mask}"')
        spec = smac.load(text_now.replace("[inputs]", "[inputs] #\n" + inputs, 1))
        assert smac.compile(spec).plan(device="cpu").order


def test_commented_tables_are_toml() -> None:
    lines = starter.text("mine").splitlines()
    offered = [x[2:] for x in lines if re.match(r"# (paper|\[axes\]|G |\[let\]|scaled)", x)]
    found = tomllib.loads("\n".join(offered))
    assert set(found) == {"paper", "axes", "let"}


@pytest.mark.parametrize("name", ["2fast", "my-mask", "class", "", "x" * 65])
def test_a_bad_name_is_an_error(name: str) -> None:
    with pytest.raises(smac.SpecError, match=r"smac new: name: '.*' is no name; expected letters"):
        starter.text(name)


def test_a_file_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("precious", encoding="utf-8")
    assert main(["new", "mine", "-o", str(path)]) == 1
    assert capsys.readouterr().err == (
        f"smac: {path}: found a file of that name; it is left as it is: choose another name, or "
        "remove it first\n")  # fmt: skip
    assert path.read_text("utf-8") == "precious"
