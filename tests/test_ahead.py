"""What Triton finds out once a process: found once, waited for, and no error where it cannot be."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from smac.runtime import ahead, triton_key

GPU = torch.device("cuda", 1)


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ahead, "_begun", [])
    yield
    ahead.wait()


def test_who_waits_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, ends = threading.Event(), list[torch.device]()

    def find(device: torch.device) -> None:
        may_end.wait(60)
        ends.append(device)

    monkeypatch.setattr(ahead, "_find", find)
    ahead.begin(GPU)
    assert not ends, "who begins goes on"
    may_end.set()
    ahead.wait()
    ahead.wait()
    assert ends == [GPU]


def test_one_thread_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    found = list[int]()
    monkeypatch.setattr(ahead, "_find", lambda _: found.append(1))
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
    assert found == [1]


def test_who_began_nothing_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_find", lambda _: pytest.fail("begun"))
    ahead.wait()
    assert not ahead._begun


def test_what_fails_is_left_to_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """One part fails, and the other is found."""
    found = list[Any]()

    def fails(*_: Any) -> None:
        raise RuntimeError("no driver")

    monkeypatch.setattr(triton_key, "take", found.append)
    monkeypatch.setattr(ahead, "surroundings", fails)
    ahead._find(GPU)
    assert [m.__name__ for m in found] == ["triton.runtime.cache"]
    monkeypatch.setattr(triton_key, "take", fails)
    monkeypatch.setattr(ahead, "surroundings", found.append)
    ahead._find(GPU)
    assert found[1:] == [GPU]


def test_no_triton_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n == "triton" or n.startswith("triton.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    ahead._find(GPU)


def test_it_is_what_triton_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a GPU of compute capability 9.0: its compiler's version is there, and the driver asked."""
    compiler = pytest.importorskip("triton.backends.nvidia.compiler")
    from triton import runtime

    asked = list[str]()

    class Driver:
        @property
        def active(self) -> None:
            asked.append("driver")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(runtime, "driver", Driver())
    monkeypatch.setattr(compiler, "get_ptxas_version", lambda arch: asked.append(arch) or "12")
    ahead.surroundings(GPU)
    assert asked == [90, "driver"]
