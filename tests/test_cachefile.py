"""Cache files: what is written comes back, what was tampered with is a miss that says why."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smac import cachefile

ROWS = {"smac": int, "rows": {str: {"rate": float, "tags": [str], "why": (str, None)}}}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cachefile._miss.cache_clear()
    return tmp_path / "smac"


def row(**changed: Any) -> dict[str, Any]:
    return {"smac": 1, "rows": {"a": {"rate": 2, "tags": ["x"], "why": None, **changed}}}


def test_what_is_written_comes_back(cache: Path) -> None:
    path = cachefile.write_json("t.json", row())
    assert path == cache / "t.json"
    assert cachefile.read_json("t.json", ROWS) == row()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert [p.name for p in cache.iterdir()] == ["t.json"], "no temporary file is left"


def test_a_missing_file_is_a_silent_miss(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert cachefile.read_json("t.json", ROWS) is None
    assert not caplog.records


@pytest.mark.parametrize(("text", "why"), [
    ("{", "JSONDecodeError"), ("[" * 10**5, "RecursionError"), ("\xff", "Decode"),
    ("[]", "the file: found []; expected an object"),
    (json.dumps(row() | {"more": 1}), "found ['more', 'rows', 'smac']; expected the keys"),
    (json.dumps(row(rate="3")), "rows.a.rate: found '3'; expected float"),
    (json.dumps(row(rate=True)), "rows.a.rate: found True; expected float"),
    (json.dumps(row(rate=float("inf"))), "rows.a.rate: found inf; expected float"),
    (json.dumps(row(tags=["x", 1])), "rows.a.tags[1]: found 1; expected str"),
    (json.dumps(row(tags={})), "rows.a.tags: found {}; expected a list"),
    (json.dumps(row(why=3)), "rows.a.why: found 3; expected null"),
    (" " * (cachefile.LARGEST + 1), "more than"),
])  # fmt: skip
def test_a_spoilt_file_is_a_miss(
    text: str, why: str, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = cachefile.write_json("t.json", row())
    path.write_bytes(text.encode("latin-1"))
    with caplog.at_level(logging.WARNING, "smac"):
        assert cachefile.read_json("t.json", ROWS) is None
        assert cachefile.read_json("t.json", ROWS) is None
    assert len(caplog.records) == 1, "said once"
    assert why in caplog.text
    assert str(path) in caplog.text
    cachefile.write_json("t.json", row())
    assert cachefile.read_json("t.json", ROWS) == row()


def test_a_writer_that_dies_leaves_the_old_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cachefile.write_json("t.json", row())

    def die(source: str, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        cachefile.write_json("t.json", {})
    assert cachefile.read_json("t.json", ROWS) == row()
    assert [p.name for p in cache.iterdir()] == ["t.json"]


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(LEAVES, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=9)


@given(JSON)
def test_misfit_answers_for_anything(value: Any) -> None:
    """Any JSON: no exception, and a misfit unless it really is of the shape."""
    why = cachefile.misfit(value, ROWS)
    assert (why is None) == (isinstance(value, dict) and set(value) == {"smac", "rows"}
                             and type(value["smac"]) is int and isinstance(value["rows"], dict)
                             and not value["rows"])  # fmt: skip
    assert why is None or "expected" in why
