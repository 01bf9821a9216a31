"""Hypothesis strategies for log decays that hold the awkward ones: resets, near-resets, growth.

Non-goals: whole specs and shapes (strategies of `smac.check`).
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import event
from hypothesis import strategies as st

_KINDS: dict[str, st.SearchStrategy[float]] = {
    "-inf": st.just(float("-inf")),
    "<= -256": st.sampled_from([-256.0, -300.0, -1e30]),
    "-50": st.just(-50.0),
    "0": st.just(0.0),
    "> 0": st.floats(0.05, 1.0),
    "ordinary": st.floats(-3.0, -0.01),
}
#: What a log decay can be, by the name under which it is counted.
LOG_DECAY_KINDS = tuple(_KINDS)


@st.composite
def log_decays(
    draw: st.DrawFn, length: int, seen: Callable[[str], object] | None = None
) -> list[float]:
    """`length` log decays of mixed kinds; each kind is a hypothesis event, and told to `seen`."""
    kinds = draw(st.lists(st.sampled_from(LOG_DECAY_KINDS), min_size=length, max_size=length))
    for kind in kinds:
        event(f"log decay {kind}")
        if seen is not None:
            seen(kind)
    return [draw(_KINDS[kind]) for kind in kinds]
