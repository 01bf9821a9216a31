"""Triton's digest of itself: remembered for the files that it was taken of, and for no others."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from smac import cachefile
from smac.runtime import triton_key
from smac.runtime.triton_key import DIGESTS, PARTS, take
from tests.real_triton import hold


class Triton:
    """A Triton in a folder: its module, and how often the digest was taken of the files."""

    def __init__(self, root: Path) -> None:
        self.root, self.taken, self.version = root, 0, "1.0"
        for part in PARTS:
            (root / part / "inner").mkdir(parents=True)
            (root / part / "inner" / "code.py").write_text(part)

    def digest(self) -> str:
        """What a new process has of `take`."""

        @functools.lru_cache
        def digest_of_files() -> str:
            self.taken += 1
            return self.truth()

        self.module = SimpleNamespace(__file__=str(self.root / "runtime" / "cache.py"),
                                      __version__=self.version,
                                      triton_key=digest_of_files)  # fmt: skip
        take(self.module)
        return str(self.module.triton_key())

    def truth(self) -> str:
        """The digest of the files as they are."""
        return "-".join([self.version, *sorted(p.read_text() for p in self.root.rglob("*.py"))])


@pytest.fixture
def triton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Triton:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(triton_key, "SETTLED", -1.0)
    cachefile._miss.cache_clear()
    return Triton(tmp_path / "triton")


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "smac" / DIGESTS.name).glob("*"))


def test_the_digest_is_taken_once(triton: Triton) -> None:
    first = triton.digest()
    assert triton.digest() == first
    assert triton.taken == 1


def _rewrite(path: Path) -> None:
    """The same size and time of modification."""
    before = path.stat()
    path.write_text("x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _exchange(path: Path) -> None:
    """Another file in its place, of the same size and time of modification."""
    before = path.stat()
    other = path.with_suffix(".new")
    other.write_text("y" * before.st_size)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [
    _rewrite, _exchange, Path.unlink, lambda path: path.with_name("more.py").write_text("more"),
    lambda path: path.rename(path.with_name("other.py")),
])  # fmt: skip
@pytest.mark.parametrize("part", PARTS)
def test_changed_files_have_another(triton: Triton, part: str,
                                    change: Callable[[Path], object]) -> None:  # fmt: skip
    triton.digest()
    change(triton.root / part / "inner" / "code.py")
    assert triton.digest() == triton.truth()
    assert triton.taken == 2


def test_another_version_has_another(triton: Triton) -> None:
    triton.digest()
    triton.version = "1.0.1"
    assert triton.digest() == triton.truth()
    assert triton.taken == 2


def test_it_is_an_lru_cache_still(triton: Triton) -> None:
    triton.digest()
    triton.digest()
    function = triton.module.triton_key
    assert function.__name__ == "digest_of_files"
    assert function.cache_info().currsize == 1
    assert triton.taken == 1
    function.cache_clear()
    (triton.root / "_C" / "inner" / "code.py").write_text("edited while it runs")
    assert function() == triton.truth()
    assert function() == triton.truth()
    assert triton.taken == 2
    function.cache_clear()
    function()
    assert triton.taken == 3


def test_files_of_just_now_are_not_trusted(triton: Triton, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(triton_key, "SETTLED", 3600.0)
    triton.digest()
    triton.digest()
    assert triton.taken == 2
    assert not kept(tmp_path)


@pytest.mark.parametrize("text", [
    b"", b"{", b"\xff", b"[]", b'{"key": {}, "value": {"digest": "x"}}',
    b'{"key": 1, "value": {"digest": 1}}',
])  # fmt: skip
def test_a_spoilt_file_is_a_miss(triton: Triton, tmp_path: Path, text: bytes) -> None:
    first = triton.digest()
    (path,) = kept(tmp_path)
    path.write_bytes(text)
    assert triton.digest() == first
    assert triton.taken == 2
    assert triton.digest() == first
    assert triton.taken == 2, "it was written anew"


@pytest.mark.parametrize("digest", ["", "2.0-abc"])
def test_a_digest_of_another_version_is_a_miss(triton: Triton, tmp_path: Path,
                                               digest: str) -> None:  # fmt: skip
    first = triton.digest()
    (path,) = kept(tmp_path)
    path.write_text(path.read_text().replace(json.dumps(first), json.dumps(digest)))
    assert triton.digest() == first


def test_another_triton_is_left_alone(triton: Triton, tmp_path: Path) -> None:
    file, function = str(triton.root / "runtime" / "cache.py"), functools.lru_cache(lambda: "1-k")
    take(SimpleNamespace(__file__=file, __version__="1"))
    take(SimpleNamespace(__file__=file, __version__="1", triton_key=lambda: "1-k"))
    take(SimpleNamespace(__file__=file, triton_key=function))
    take(SimpleNamespace(__file__=str(tmp_path / "no" / "runtime" / "cache.py"), __version__="1",
                         triton_key=function))  # fmt: skip
    assert function.cache_info().currsize == 0
    assert not kept(tmp_path)


def test_a_digest_that_was_taken_stays(triton: Triton, tmp_path: Path) -> None:
    function = functools.lru_cache(lambda: "taken")
    module = SimpleNamespace(__file__=str(triton.root / "runtime" / "cache.py"),
                             __version__="taken", triton_key=function)  # fmt: skip
    function()
    take(module)
    assert module.triton_key is function
    assert not kept(tmp_path)


def test_of_the_installed_triton(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    hold([], tmp_path)
