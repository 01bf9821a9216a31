"""Compiled templates: what is kept comes back, and no cache, whatever it holds, breaks a render."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest

from smac import cachefile
from smac.codegen import compiled, env
from smac.codegen.compiled import DIGEST, kept_for

TEXT = "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{{ twice(word) }}{{ 1 + n }}\n"
OTHER = "{{ word }} of another\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cachefile._private_dir.cache_clear()
    return tmp_path / "smac" / "templates"


def files(cache: Path) -> list[Path]:
    return sorted(p for p in cache.rglob("*") if p.is_file())


class Process:
    """What a new process renders, and how many templates it compiles for it."""

    def __init__(self, text: str = TEXT, name: str = "a.jinja", **options: Any) -> None:
        self.count = 0
        environment = jinja2.Environment(
            loader=jinja2.DictLoader({name: text}), bytecode_cache=kept_for(options), **options
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
    assert len(files(cache)) == 1


@pytest.mark.parametrize("change", [
    {"text": OTHER}, {"name": "b.jinja"}, {"trim_blocks": True},
])  # fmt: skip
def test_anything_else_is_compiled(cache: Path, change: dict[str, Any]) -> None:
    Process()
    assert Process(**change).count == 1


def test_a_template_that_changed_takes_the_place_of_its_code(cache: Path) -> None:
    Process()
    assert Process(OTHER).text == "ab of another"
    assert len(files(cache)) == 1
    assert (again := Process()).text == "abab3"
    assert again.count == 1


def test_another_jinja_or_python_has_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Process()
    with monkeypatch.context() as m:
        m.setattr(jinja2, "__version__", "0.0")
        assert Process().count == 1
    monkeypatch.setattr(sys.implementation, "cache_tag", "other-1")
    assert Process().count == 1
    assert len(files(cache)) == 3


def _flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _signed(path: Path, rest: bytes) -> None:
    """Whole by its digest, and no code."""
    path.write_bytes(hashlib.sha256(rest).digest() + rest)


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"\0" * 64),
    lambda path: path.write_bytes(path.read_bytes()[:-1]),
    lambda path: _flipped(path, 0), lambda path: _flipped(path, DIGEST + 70),
    lambda path: _flipped(path, -1), lambda path: _signed(path, b""),
    lambda path: _signed(path, path.read_bytes()[DIGEST:][:40]),
    lambda path: _signed(path, path.read_bytes()[DIGEST:][:90]),
])  # fmt: skip
def test_what_is_spoilt_is_compiled_anew(cache: Path, spoil: Callable[[Path], object]) -> None:
    Process()
    (path,) = files(cache)
    spoil(path)
    again = Process()
    assert (again.text, again.count) == ("abab3", 1)
    assert Process().count == 0


def test_a_folder_in_the_place_of_a_file(cache: Path) -> None:
    Process()
    (path,) = files(cache)
    path.unlink()
    path.mkdir()
    assert Process().text == "abab3"


def test_a_full_disk_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch,
                                 caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiled, "replace", full)
    assert Process().text == "abab3"
    assert "not written: [Errno 28] No space left on device" in caplog.text
    assert not files(cache)


def test_a_folder_that_goes_away_is_no_error(cache: Path) -> None:
    kept = kept_for({})
    environment = jinja2.Environment(loader=jinja2.DictLoader({"a": TEXT}), bytecode_cache=kept)
    (folder,) = cache.iterdir()
    folder.rmdir()
    assert environment.get_template("a").render(word="ab", n=2) == "abab3"


def test_no_folder_of_its_own_means_no_cache(tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kept_for({}) is None
    assert Process().text == "abab3"


def test_a_folder_of_another_user_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept_for({}) is not None
    monkeypatch.setattr("os.getuid", lambda: -1)
    assert kept_for({}) is None
    assert Process().text == "abab3"


def test_two_processes_at_once_render_the_same(cache: Path) -> None:
    """The environment's own templates, by processes that all find none, then by one that does."""
    code = ("from smac.codegen import env\n"
            "t = env.environment().get_template('triton/functions.py.jinja')\n"
            "print(sorted(t.module.__dict__)[:3], len(t.module.__dict__))\n")  # fmt: skip
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                                stderr=subprocess.PIPE) for _ in range(2)]  # fmt: skip
    ends = {process.communicate() for process in running}
    assert len(ends) == 1
    assert not next(iter(ends))[1]
    (path,) = files(cache)
    before = path.stat().st_mtime_ns
    assert (subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                           check=True).stdout, "") in ends  # fmt: skip
    assert path.stat().st_mtime_ns == before


def test_the_environment_has_it(cache: Path) -> None:
    env.environment.cache_clear()
    try:
        assert isinstance(env.environment().bytecode_cache, compiled.Compiled)
    finally:
        env.environment.cache_clear()
