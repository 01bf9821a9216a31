"""Triton's digest of itself: remembered for the files that it was taken of, and for no others."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from smac import cachefile
from smac.runtime import triton_key
from smac.runtime.triton_key import DIGESTS, PARTS, take


class Triton:
    """A Triton in a folder: its module, and how often the digest was taken of the files."""

    def __init__(self, root: Path) -> None:
        self.root, self.taken = root, 0
        for part in PARTS:
            (root / part / "inner").mkdir(parents=True)
            (root / part / "inner" / "code.py").write_text(part)

    def digest(self) -> str:
        """What a new process has of `take`."""

        @functools.lru_cache
        def digest_of_files() -> str:
            self.taken += 1
            return "-".join(sorted(p.read_text() for p in self.root.rglob("*.py")))

        module = SimpleNamespace(__file__=str(self.root / "runtime" / "cache.py"),
                                 triton_key=digest_of_files)  # fmt: skip
        take(module)
        return str(module.triton_key())


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
    expected = "-".join(sorted(p.read_text() for p in triton.root.rglob("*.py")))
    assert triton.digest() == expected
    assert triton.taken == 2


def test_files_of_just_now_are_not_trusted(triton: Triton, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(triton_key, "SETTLED", 3600.0)
    triton.digest()
    triton.digest()
    assert triton.taken == 2
    assert not kept(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[]", b'{"key": {}, "value": {"digest": "x"}}',
                                  b'{"key": 1, "value": {"digest": 1}}'])  # fmt: skip
def test_a_spoilt_file_is_a_miss(triton: Triton, tmp_path: Path, text: bytes) -> None:
    first = triton.digest()
    (path,) = kept(tmp_path)
    path.write_bytes(text)
    assert triton.digest() == first
    assert triton.taken == 2
    assert triton.digest() == first
    assert triton.taken == 2, "it was written anew"


def test_another_triton_is_left_alone(triton: Triton, tmp_path: Path) -> None:
    take(SimpleNamespace(__file__=str(triton.root / "runtime" / "cache.py")))
    plain = SimpleNamespace(__file__=str(triton.root / "runtime" / "cache.py"),
                            triton_key=lambda: "k")  # fmt: skip
    take(plain)
    elsewhere = SimpleNamespace(__file__=str(tmp_path / "no" / "runtime" / "cache.py"),
                                triton_key=functools.lru_cache(lambda: "k"))  # fmt: skip
    take(elsewhere)
    assert elsewhere.triton_key() == "k"
    assert not kept(tmp_path)


def test_a_digest_that_was_taken_stays(triton: Triton, tmp_path: Path) -> None:
    function = functools.lru_cache(lambda: "taken")
    module = SimpleNamespace(__file__=str(triton.root / "runtime" / "cache.py"),
                             triton_key=function)  # fmt: skip
    function()
    take(module)
    assert module.triton_key is function
    assert not kept(tmp_path)


def test_of_the_installed_triton(triton: Triton) -> None:
    """The function is where it is looked for, and its digest comes back."""
    of_triton = pytest.importorskip("triton.runtime.cache")
    function = of_triton.triton_key.__wrapped__
    calls: list[int] = []

    def counted() -> str:
        calls.append(1)
        return str(function())

    modules = [SimpleNamespace(__file__=of_triton.__file__, triton_key=functools.lru_cache(counted))
               for _ in range(2)]  # fmt: skip
    for module in modules:
        take(module)
    first, second = (m.triton_key() for m in modules)
    assert first == second
    assert len(calls) == 1
    root = Path(of_triton.__file__).parents[1]
    listed = {path for path, *_ in triton_key.files(root)}
    assert {of_triton.__file__} < listed
    assert any("libtriton" in path for path in listed)


def test_who_waits_finds_it_taken(triton: Triton, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []
    monkeypatch.setattr(triton_key, "_take", lambda: ends.append("taken"))
    triton_key._thread.cache_clear()
    try:
        triton_key.begin()
        triton_key.wait()
        triton_key.wait()
    finally:
        triton_key._thread.cache_clear()
    assert ends == ["taken"]
