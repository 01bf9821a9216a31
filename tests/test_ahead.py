"""What Triton finds out once a process: found once, waited for, and no error where it cannot be."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from smac.runtime import ahead, triton_key
from smac.runtime.warm import compile_for

GPU = torch.device("cuda", 1)


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ahead, "_begun", [])
    yield
    ahead.wait()


@pytest.fixture
def cache() -> Any:
    return pytest.importorskip("triton.runtime.cache")


def nothing(*_: object) -> None:
    """In the place of a part that is not looked at."""


@pytest.mark.parametrize(("module", "part"), [(triton_key, "take"), (ahead, "surroundings")])
def test_who_waits_finds_it(module: Any, part: str, cache: Any,
                            monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    may_end, ends = threading.Event(), list[Any]()

    def find(first: Any, *_: object) -> None:
        may_end.wait(60)
        ends.append(first)

    monkeypatch.setattr(triton_key, "take", nothing)
    monkeypatch.setattr(ahead, "surroundings", nothing)
    monkeypatch.setattr(module, part, find)
    ahead.begin(GPU)
    assert not ends, "who begins goes on"
    may_end.set()
    ahead.wait()
    ahead.wait()
    assert ends == [cache if part == "take" else GPU]


def test_once_in_a_process(cache: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list[int]()
    monkeypatch.setattr(triton_key, "take", lambda _: found.append(1))
    monkeypatch.setattr(ahead, "surroundings", nothing)
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


def test_what_fails_is_left_to_triton(cache: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no error of who waits, nor one that a thread prints."""
    failed, said = list[object](), list[object]()

    def fails(*_: object) -> None:
        failed.append(1)
        raise RuntimeError("no driver")

    monkeypatch.setattr(triton_key, "take", fails)
    monkeypatch.setattr(torch.cuda, "get_device_capability", fails)
    monkeypatch.setattr(threading, "excepthook", said.append)
    ahead.begin(GPU)
    ahead.wait()
    assert len(failed) == 2
    assert not said


def test_no_triton_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n == "triton" or n.startswith("triton.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    ahead.begin(GPU)
    assert not ahead._begun


def test_of_hopper_the_compiler_and_the_driver_are_asked(
    cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia = import_module("triton.backends.nvidia.compiler")
    driver = import_module("triton.runtime.driver")
    asked = list[object]()

    class Driver:
        @property
        def active(self) -> None:
            asked.append("driver")

    def version(arch: int) -> str:
        asked.append(arch)
        return "12"

    monkeypatch.setattr(triton_key, "take", nothing)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(driver, "driver", Driver())
    monkeypatch.setattr(nvidia, "get_ptxas_version", version)
    ahead.begin(GPU)
    ahead.wait()
    assert asked == [90, "driver"]


def test_threads_load_nothing_of_triton() -> None:
    """In a process that has not loaded it: all that both need is there when they start, for 3.6
    loaded by two threads at once was half there for one of them."""
    pytest.importorskip("triton")
    code = (
        "import sys, torch\n"
        "from smac.runtime import ahead, triton_key\n"
        "torch.cuda.get_device_capability = lambda _: (9, 0)\n"
        "def loaded(*_): return {n for n in sys.modules if n.startswith('triton')}\n"
        "seen = []\n"
        "triton_key.take = lambda _: seen.append(loaded())\n"
        "ahead.begin(torch.device('cuda', 0))\n"
        "ahead.wait()\n"
        "print(len(seen), sorted(loaded() - seen[0]))\n"
        "from triton.backends.nvidia.compiler import get_ptxas_version\n"
        "print(get_ptxas_version.cache_info().currsize)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["1 []", "1"]


def test_what_is_compiled_ahead_is_called_as_the_program_is() -> None:
    """With the defaults of its arguments, and each kernel asked to compile for its grid."""
    asked: list[tuple[Any, ...]] = []
    kernel = SimpleNamespace(warmup=lambda *args, grid: asked.append((*args, grid)))
    names: dict[str, Any] = {"kernel": kernel}
    exec("def forward(x, state_ST=None):\n    kernel[(3,)](x, state_ST)", names)
    compile_for(SimpleNamespace(function=names["forward"]), ["x"], torch.device("cpu"))  # type: ignore
    assert asked == [("x", None, (3,))]
