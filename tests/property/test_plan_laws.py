"""What holds of every plan, whatever is asked."""

from __future__ import annotations

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from smac.errors import PlanError
from smac.parse import load
from smac.paths import shipped_specs
from smac.plan import TABLE, Plan, make
from smac.plan.candidates import Way
from smac.plan.sizes import at_sizes
from smac.spec import specialise

SPECS = [specialise(load(name)) for name in sorted(shipped_specs())]
STATEFUL = [s for s in SPECS if not at_sizes(s, {})[1].missing("state")]
T = st.one_of(st.integers(0, 70), st.sampled_from([64, 127, 1000, 4096, 131072, 2**40]))


@st.composite
def requests(draw: st.DrawFn) -> dict[str, object]:
    """Keywords of `make`, without forced choices."""
    return {
        "spec": draw(st.sampled_from(SPECS)),
        "sizes": {"T": draw(T), "B": draw(st.sampled_from([0, 1, 7])),
                  "N": draw(st.sampled_from([1, 16, 100, 256])),
                  "P": draw(st.sampled_from([1, 64, 65]))},
        "dtype": draw(st.sampled_from(["float64", "float32", "bfloat16", "float16"])),
        "device": draw(st.sampled_from(sorted(TABLE))),
        "target": draw(st.sampled_from(["auto", "torch", "triton"])),
        "backward": draw(st.booleans()),
        "state": draw(st.booleans()),
    }  # fmt: skip


def planned(asked: dict[str, object]) -> Plan:
    """The plan, where there is one."""
    try:
        return make(**asked)  # type: ignore[arg-type]
    except PlanError:
        assume(False)
        raise


@given(requests())
def test_the_choice_is_the_fastest_and_everything_is_accounted_for(
    asked: dict[str, object],
) -> None:
    p = planned(asked)
    event(f"order={p.order}")
    n = p.request.size("T")
    assert p.chosen == p.candidates[0]
    assert p.chosen.time == min(c.time for c in p.candidates)
    offered = {c.order for c in p.candidates}
    refused = {label for label, _ in p.illegal}
    by_schedule = {f"linear ({c.schedule})" for c in p.candidates if c.order == "linear"}
    accounted = offered | refused | ({"chunked"} if n <= 64 else set())
    assert {"quadratic", "chunked"} <= accounted
    assert len(by_schedule | {label for label in refused if label.startswith("linear")}) == 2
    for c in p.candidates:
        assert Way(c.order, c.schedule).label not in refused
        assert c.flops == sum(d.flops for d in c.dots)
        assert c.bytes == sum(b for _, b in c.traffic)
        assert min(c.flops, c.scalar_flops, c.bytes, c.launches, c.workspace) >= 0
        assert c.segment % c.chunk == 0
        ratio = c.segment // c.chunk
        assert ratio & (ratio - 1) == 0
        if c.order == "chunked" and not p.request.state:
            assert c.chunk < n
        if p.request.state:
            assert c.order != "quadratic"
    assert p == make(**asked)  # type: ignore[arg-type]


@given(requests(), st.sampled_from(["linear", "quadratic", "chunked"]), st.integers(4, 7))
def test_a_forced_choice_is_kept(asked: dict[str, object], order: str, power: int) -> None:
    chunk = None if order == "linear" else 2**power
    p = planned({**asked, "order": order, "chunk": chunk})
    n = p.request.size("T")
    if order == "chunked" and chunk is not None and chunk >= n and not p.request.state:
        assert p.order == "quadratic"
    else:
        assert {c.order for c in p.candidates} == {order}
    if chunk is not None:
        assert p.chunk <= chunk
        assert p.chunk == chunk or p.chunk >= n


@settings(max_examples=20)
@given(st.sampled_from([s for s in STATEFUL if s.levels is None]), st.booleans())
def test_a_forward_in_chunks_takes_memory_for_a_segment_only(spec: object, state: bool) -> None:
    asked = {"spec": spec, "dtype": "float64", "device": "cpu", "order": "chunked", "chunk": 64,
             "state": state}  # fmt: skip
    spaces = {make(**asked, sizes={"T": n}).chosen.workspace for n in (4096, 65536)}  # type: ignore[arg-type]
    assert len(spaces) == 1


def test_y_below_waits_in_memory_for_the_side_above() -> None:
    small, large = (make(load("hydra"), dtype="float32", device="cpu", order="chunked", chunk=64,
                         sizes={"T": n, "B": 1, "H": 2, "P": 32}).chosen.workspace
                    for n in (4096, 8192))  # fmt: skip
    assert large - small == 4096 * 2 * 32 * 4


@pytest.mark.parametrize("device", sorted(TABLE))
def test_empty_requests_plan(device: str) -> None:
    for spec in SPECS:
        for n in (0, 1):
            p = make(spec, sizes={"T": n}, dtype="float32", device=device)
            assert p.explain()
