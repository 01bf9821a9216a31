"""The committed gallery is what the specs say now; each spec has its picture, and its calls run."""

from __future__ import annotations

import re
import struct

from drawn import draw

import smac
from docs import gallery
from smac.paths import shipped_specs

TEXT = gallery.PAGE.read_text("utf-8")


def test_the_text_is_up_to_date() -> None:
    """Not the bytes of pictures: those follow the cost model and matplotlib's fonts."""
    assert gallery.page() == TEXT, "docs/gallery.md is stale: run make docs"


def test_every_spec_has_a_picture_and_every_picture_a_spec() -> None:
    pictures = {p.stem: p.read_bytes() for p in gallery.PICTURES.iterdir()}
    assert pictures.keys() == shipped_specs().keys()
    for data in pictures.values():
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", data[16:24]) == (1000, 820)
        assert 20_000 < len(data) < 200_000
    linked = re.findall(r"\]\((gallery/\w+\.png)\)", TEXT)
    assert sorted(linked) == [f"gallery/{name}.png" for name in sorted(pictures)]


def test_the_three_lines_of_each_op_run() -> None:
    for name, code in re.findall(r"^## (\w+)\n.*?```python\n(.*?)```", TEXT, re.M | re.S):
        spec = smac.load(name)
        absent = tuple(i.name for i in spec.inputs if i.may_be_absent)
        scope = {"smac": smac, **draw(spec, grad=False, absent=absent)}
        exec(code.replace("print(", "plan = ("), scope)
        assert scope["y"].shape[:2] == (2, 9), name
        assert "chosen" in scope["plan"]


def test_a_changed_spec_would_be_noticed() -> None:
    """The text of an entry follows the mask, not only the name."""
    text = str(smac.load("retnet")).replace("decay(gamma)", "decay(gamma) + causal()")
    changed = gallery.entry(smac.load(text))
    assert changed not in TEXT
    assert "| rank | 2 below the diagonal |" in changed
    assert gallery.entry(smac.load("retnet")) in TEXT
