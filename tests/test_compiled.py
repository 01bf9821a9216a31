"""Compiled templates: what is kept comes back, and what is not whole or not ours is compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest

from smac import cachefile
from smac.codegen import compiled
from smac.codegen.compiled import Compiled

TEXT = "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{{ twice(word) }}{{ 1 + n }}\n"
OTHER = "{{ word }} of another\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cachefile._miss.cache_clear()
    return tmp_path / "smac" / "templates"


class Process:
    """What a new process renders, and how many templates it compiles for it."""

    def __init__(self, text: str = TEXT, name: str = "a.jinja", **options: Any) -> None:
        self.count = 0
        environment = jinja2.Environment(
            loader=jinja2.DictLoader({name: text}), bytecode_cache=Compiled(options), **options
        )
        plain = environment.compile

        def counted(*args: Any, **more: Any) -> Any:
            self.count += 1
            return plain(*args, **more)

        environment.compile = counted  # type: ignore[method-assign]
        self.text = environment.get_template(name).render(word="ab", n=2)


def test_what_is_kept_comes_back(cache: Path) -> None:
    assert (first := Process()).text == "abab3"
    assert first.count == 1
    assert (second := Process()).text == "abab3"
    assert second.count == 0
    assert [p.suffix for p in cache.iterdir()] == [".code"]


@pytest.mark.parametrize("change", [
    {"text": OTHER}, {"name": "b.jinja"}, {"trim_blocks": True},
])  # fmt: skip
def test_anything_else_is_compiled(cache: Path, change: dict[str, Any]) -> None:
    Process()
    assert Process(**change).count == 1
    assert len(list(cache.iterdir())) == 2


def test_another_jinja_or_python_is_compiled_for(cache: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    Process()
    with monkeypatch.context() as m:
        m.setattr(jinja2, "__version__", "0.0")
        assert Process().count == 1
    monkeypatch.setattr(compiled, "MAGIC_NUMBER", b"0000")
    assert Process().count == 1


def _moved(path: Path) -> None:
    """The code of another template under this one's name."""
    Process(OTHER)
    (other,) = (p for p in path.parent.iterdir() if p != path)
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"\0" * 64),
    lambda path: path.write_bytes(path.read_bytes()[:-1]),
    lambda path: path.write_bytes(path.read_bytes()[:40] + b"x" + path.read_bytes()[41:]), _moved,
    lambda path: path.chmod(0o620), lambda path: path.chmod(0o602),
])  # fmt: skip
def test_what_is_spoilt_is_compiled_anew(cache: Path, spoil: Callable[[Path], object]) -> None:
    Process()
    (path,) = cache.iterdir()
    spoil(path)
    again = Process()
    assert (again.text, again.count) == ("abab3", 1)
    assert Process().count == 0


def test_of_another_user_it_is_compiled_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Process()
    monkeypatch.setattr(compiled, "own", lambda folder: folder)
    monkeypatch.setattr("os.getuid", lambda: -1)
    assert Process().count == 1


def test_a_full_disk_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch,
                                 caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiled, "replace", full)
    assert Process().text == "abab3"
    assert "not written: [Errno 28] No space left on device" in caplog.text
