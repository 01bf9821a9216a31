"""What Triton finds out once a process: found once, waited for, and no error where it cannot be."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from smac.runtime import ahead, triton_key

GPU = torch.device("cuda", 1)


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ahead, "_begun", [])
    yield
    ahead.wait()


def nothing(_: torch.device) -> None:
    """In the place of a part that is not looked at."""


@pytest.mark.parametrize("part", ["_digest", "_surroundings"])
def test_who_waits_finds_it(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, ends = threading.Event(), list[torch.device]()

    def find(device: torch.device) -> None:
        may_end.wait(60)
        ends.append(device)

    find.__name__ = nothing.__name__
    for name in ("_digest", "_surroundings"):
        monkeypatch.setattr(ahead, name, find if name == part else nothing)
    ahead.begin(GPU)
    assert not ends, "who begins goes on"
    may_end.set()
    ahead.wait()
    ahead.wait()
    assert ends == [GPU]


def test_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    found = list[int]()
    monkeypatch.setattr(ahead, "_digest", nothing)

    def find(_: torch.device) -> None:
        found.append(1)

    monkeypatch.setattr(ahead, "_surroundings", find)
    barrier = threading.Barrier(8)

    def call() -> None:
        barrier.wait(60)
        ahead.begin(GPU)
        ahead.wait()
        assert found

    callers = [threading.Thread(target=call) for _ in range(8)]
    for c in callers:
        c.start()
    for c in callers:
        c.join()
    ahead.begin(GPU)
    ahead.wait()
    assert found == [1]


def test_who_began_nothing_waits_for_nothing() -> None:
    ahead.wait()
    assert not ahead._begun


def test_what_fails_is_left_to_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no driver")

    monkeypatch.setattr(triton_key, "take", fails)
    monkeypatch.setattr(torch.cuda, "get_device_capability", fails)
    ahead._digest(GPU)
    ahead._surroundings(GPU)


def test_no_triton_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n == "triton" or n.startswith("triton.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    ahead._digest(GPU)
    ahead._surroundings(GPU)


def test_the_digest_is_given_to_the_module_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = pytest.importorskip("triton.runtime.cache")
    taken = list[object]()
    monkeypatch.setattr(triton_key, "take", taken.append)
    ahead._digest(GPU)
    assert taken == [cache]


def test_of_hopper_the_compiler_and_the_driver_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = pytest.importorskip("triton.backends.nvidia.compiler")
    from triton import runtime

    asked = list[object]()

    class Driver:
        @property
        def active(self) -> None:
            asked.append("driver")

    def version(arch: int) -> str:
        asked.append(arch)
        return "12"

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(runtime, "driver", Driver())
    monkeypatch.setattr(compiler, "get_ptxas_version", version)
    compiler.CUDABackend.hash.cache_clear()
    try:
        ahead._surroundings(GPU)
    finally:
        compiler.CUDABackend.hash.cache_clear()
    assert asked == [90, "driver"]
