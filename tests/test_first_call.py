"""The benchmark of first calls runs cold and warm, and reads its bars rightly."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import first_call


def test_a_cold_and_a_warm_process(tmp_path: Path) -> None:
    found = first_call.child("retnet", "off", tmp_path, off=True)
    assert set(found) == {"imports", "forward", "backward", "device", "torch"}
    assert all(found[k] > 0 for k in ("imports", "forward", "backward"))
    assert list((tmp_path / "smac" / "src").iterdir()), "caches lie where they are asked for"


@pytest.mark.parametrize(("when", "forward", "backward", "device", "words"), [
    ("cold", 4.0, 5.0, "NVIDIA H100", "held"), ("warm", 0.2, 0.2, "NVIDIA H100", "held"),
    ("cold", 6.0, 5.0, "NVIDIA H100", "missed: forward 5 s, both 10 s"),
    ("warm", 0.4, 0.2, "NVIDIA H100", "missed: both 0.5 s"), ("cold", 9.0, 9.0, "cpu", "no bar"),
])  # fmt: skip
def test_bars(when: str, forward: float, backward: float, device: str, words: str) -> None:
    row = first_call.line("ssd", when, {"imports": 1.0, "forward": forward, "backward": backward,
                                        "device": device})  # fmt: skip
    assert row.endswith(f"  {words}")
