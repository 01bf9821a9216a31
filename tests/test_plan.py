"""The planner: sizes, legality by laws, the choice, and what explain() says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

import smac.plan
from smac.errors import PlanError
from smac.parse import load
from smac.paths import shipped_specs
from smac.plan import TABLE, Plan, crossover, make
from smac.plan.devices import from_dict
from smac.plan.words import duration, quantity
from smac.spec import Spec

SPECS = sorted(shipped_specs())


def plan(name: str, **kw: object) -> Plan:
    """A plan of a shipped spec, on the H100 in bfloat16 unless `kw` says otherwise."""
    asked: dict[str, object] = {"dtype": "bfloat16", "device": "h100", "sizes": {}, **kw}
    return make(load(name), **asked)  # type: ignore[arg-type]


def orders(p: Plan) -> set[str]:
    return {c.order for c in p.candidates}


# ---- what specs expect ----------------------------------------------------------------------


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_the_planner_holds_what_specs_expect(name: str, backward: bool) -> None:
    claims = dict(load(name).expect)
    expected = claims.get("backward", claims["order"]) if backward else claims["order"]
    p = plan(name, backward=backward)
    assert p.order == expected, str(p)


@pytest.mark.parametrize("backward", [False, True])
def test_ssd_crosses_from_quadratic_to_chunked(backward: bool) -> None:
    assert plan("ssd", sizes={"T": 32}, backward=backward).order == "quadratic"
    assert plan("ssd", sizes={"T": 8192}, backward=backward).order == "chunked"
    where = crossover(load("ssd"), dtype="bfloat16", device="h100", backward=backward)
    assert where is not None
    assert 32 < where <= 8192
    before, after = ({"T": where - 16}, {"T": where})
    assert plan("ssd", sizes=before, backward=backward).order == "quadratic"
    assert plan("ssd", sizes=after, backward=backward).order != "quadratic"


def test_a_mask_without_states_never_crosses() -> None:
    assert crossover(load("toeplitz"), dtype="bfloat16", device="h100", high=4096) is None


# ---- legality -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["chunked", "linear"])
def test_a_forced_order_names_the_missing_law(order: str) -> None:
    with pytest.raises(PlanError) as e:
        plan("toeplitz", order=order, state=order == "linear")
    law = "needs generators: mask 'toeplitz(h)' has none (no finite state)"
    assert law in str(e.value)
    if order == "chunked":
        assert f"toeplitz: order='{order}' {law}" in str(e.value)


@pytest.mark.parametrize("target", ["torch", "triton"])
def test_lags_run_by_fft_on_both_targets(target: str) -> None:
    made = plan("toeplitz", order="linear", target=target, device="h100")
    assert (made.order, made.chosen.schedule, made.request.target) == ("linear", "fft", target)
    with pytest.raises(PlanError, match="by fft: FFT needs a symbol: mask 'window"):
        masked("window(5) * decay(gamma)", target, "linear")


def test_long_lags_are_convolved_on_a_gpu() -> None:
    orders = [plan("toeplitz", device="h100", sizes={"T": n}).order for n in (2048, 2**20)]
    assert orders == ["quadratic", "linear"]


def masked(L: str, target: str, order: str) -> Plan:
    text = str(load("retnet")).replace('L = "decay(gamma)"', f'L = "{L}"')
    device = "cpu" if target == "torch" else "h100"
    return make(load(text), sizes={}, dtype="float32", device=device,
                target=target, order=order)  # fmt: skip


@pytest.mark.parametrize("target", ["torch", "triton"])
@pytest.mark.parametrize("L", ["strict(decay(gamma))", "decay(gamma) + transpose(decay(gamma))"])
def test_late_lanes_and_those_above_the_diagonal_are_chunked(L: str, target: str) -> None:
    assert masked(L, target, "chunked").order == "chunked"


def test_time_backwards_is_walked_in_chunks() -> None:
    moved = "reverse(strict(row(k2) * decay(gamma)))"
    text = str(load("retnet")).replace('L = "decay(gamma)"', f'L = "{moved}"')
    spec = load(text.replace("[contraction]", 'k2 = "B T"\n[contraction]', 1))
    at: dict[str, Any] = {"dtype": "bfloat16", "sizes": {}}
    assert make(spec, **at, device="cpu", order="chunked").order == "chunked"
    assert make(spec, **at, device="h100").order == "chunked"
    assert make(spec, **at, device="h100", order="linear").order == "linear"
    with pytest.raises(PlanError) as e:
        make(spec, **at, device="h100", target="triton", order="quadratic")
    assert "reads tokens from the end of T (reverse), not on target" in str(e.value)


def test_the_fourier_matrix_is_for_torch() -> None:
    fourier = "fourier('cos')"
    text = str(load("linear_attention")).replace('L = "causal()"', f'L = "{fourier}"')
    at: dict[str, Any] = {"dtype": "float32", "sizes": {}, "order": "linear"}
    assert make(load(text), **at, device="cpu").chosen.schedule == "fft"
    with pytest.raises(PlanError, match="the Fourier transform is not on target triton so far"):
        make(load(text), **at, device="h100", target="triton")


@pytest.mark.parametrize(("L", "target", "T", "dtype", "why"), [
    ("lag() * decay(gamma)", "torch", 2048, "float32",
     "takes no powers of positions in float32 on target torch: its states have no digits to spare"),
    ("lag() * decay(gamma)", "triton", 2048, "bfloat16",
     "takes no powers of positions in bfloat16 on target triton: its states have no digits to "),
    ("lag() * decay(gamma)", "torch", 2048, "bfloat16", None),
    ("lag() * decay(gamma)", "torch", 2**14, "bfloat16", "loses 15 bits at T = 16384, where its"),
    ("lag() * lag() * decay(gamma)", "torch", 2**40, "float64", "loses 82 bits"),
    ("lag() * lag() * decay(gamma)", "torch", 2**20, "float64", None),
    ("wave(gamma) * causal()", "torch", 8191, "float32", None),
    ("wave(gamma) * causal()", "torch", 8192, "float32", "loses 14 bits at T = 8192"),
    ("wave(gamma) * causal()", "triton", 300, "bfloat16", "loses 9 bits at T = 300, in the gradient"
     " of an angle that reads positions; at most 4 may go in bfloat16; use order='quadratic'"),
    ("wave(gamma) * causal()", "triton", 300, "float64", None),
    ("wave(1.25) * decay(gamma)", "triton", 2**40, "bfloat16", None),
    ("wave(gamma) * causal()", "triton", 8191, "float32", None),
    ("wave(gamma / (2 * size(T) + 1)) * causal()", "torch", 2**20, "float32", None),
    ("prefix(7) * decay(gamma)", "torch", 2**40, "float32", None),
])  # fmt: skip
def test_lanes_that_read_positions_keep_enough_digits(
    L: str, target: str, T: int, dtype: str, why: str | None
) -> None:
    text = str(load("retnet")).replace('L = "decay(gamma)"', f'L = "{L}"')
    asked = {"sizes": {"T": T}, "dtype": dtype, "target": target, "order": "chunked",
             "device": "cpu" if target == "torch" else "h100"}  # fmt: skip
    if "wave" in L:  # angles are made in float64: gradients alone are short of digits
        assert make(load(text), **asked).order == "chunked"  # type: ignore[arg-type]
        asked["backward"] = True
    if why is None:
        assert make(load(text), **asked).order == "chunked"  # type: ignore[arg-type]
        return
    with pytest.raises(PlanError) as e:
        make(load(text), **asked)  # type: ignore[arg-type]
    assert why in str(e.value)


def test_fft_needs_a_symbol() -> None:
    with pytest.raises(PlanError, match=r"FFT needs a symbol: mask 'decay.gamma.' has none"):
        plan("retnet", schedule="fft", target="torch", order="linear")


def test_toeplitz_runs_by_fft_on_torch() -> None:
    p = plan("toeplitz", order="linear", device="cpu", dtype="float32")
    assert (p.order, p.chosen.schedule, p.request.target) == ("linear", "fft", "torch")


def test_states_need_generators_and_an_order_that_keeps_them() -> None:
    with pytest.raises(PlanError, match=r"initial or final state needs generators: mask 'toep"):
        plan("toeplitz", state=True)
    with pytest.raises(PlanError, match=r"order='quadratic' keeps no state between calls"):
        plan("ssd", state=True, order="quadratic")
    p = plan("ssd", state=True, sizes={"T": 8})
    assert "quadratic" not in orders(p)
    assert ("quadratic", "keeps no state between calls") in p.illegal


def test_a_mask_per_channel_says_how_it_is_chunked() -> None:
    p = plan("gla", backward=True, sizes={"B": 8})
    assert (p.order, p.chunk, p.chosen.schedule) == ("chunked", 64, "sweep")
    assert dict(p.illegal)["chunked (chunks)"] == (
        "takes no mask per N on schedule 'chunks'; use schedule='sweep'"
    )
    text = p.explain()
    assert "mask    semiseparable(g): generators of rank 1, lower triangular, one per N" in text
    assert {n for n, _ in p.chosen.traffic} >= {"decays", "operands and scores", "states"}
    assert {d.name for d in p.chosen.dots} == {
        "level scores", "state", "QdY state", "dV read", "dV intra", "dscores", "dQ read",
        "dK read", "inside"}  # fmt: skip
    with pytest.raises(PlanError, match=r"takes no mask per N on schedule 'chunks'"):
        plan("gla", order="chunked", schedule="chunks")
    # States pass in 16 bits, but not in float16, whose range they may leave.
    states = {t: dict(plan("gla", order="chunked", backward=True, dtype=t).chosen.traffic)["states"]
              for t in ("bfloat16", "float16")}  # fmt: skip
    assert 2 * states["bfloat16"] == states["float16"]
    # Short sequences take smaller chunks; long ones, in 16 bits, only those of 64.
    assert {c.chunk for c in plan("gla", order="chunked", sizes={"T": 40}).candidates} == {16, 32}
    assert {c.chunk for c in plan("gla", order="chunked", dtype="float32",
                                  sizes={"N": 64, "T": 4096}).candidates} == {32}  # fmt: skip


def test_what_triton_lacks_is_listed_and_said() -> None:
    assert dict(plan("gla", sizes={"N": 300}).illegal)["chunked"] == (
        "takes a channel N of at most 256 in bfloat16 on target triton, found 300: "
        "a program holds it whole"
    )
    assert orders(plan("gla")) == {"quadratic", "linear", "chunked"}
    assert orders(plan("multiscale")) == {"quadratic", "chunked", "linear"}
    with pytest.raises(
        PlanError,
        match=r"order='linear' takes a rank of at most 4 on target triton so far, found rank 13",
    ):
        plan("log_linear", order="linear")
    assert orders(plan("rwkv6")) == {"quadratic", "chunked", "linear"}
    per_channel = str(load("rwkv6"))
    for mask, why in (
        ("strict(semiseparable(w)) + diagonal(u)", r"takes no factors of rows or columns beside a "
         r"diagonal under a mask per N on target triton, found 'where\(w > -256, exp\(w\), 0\)'; "
         "use order='linear'"),
        ("strict(transpose(semiseparable(w))) + diagonal(u)", "takes no mask per N that is nonzero "
         "above the diagonal on target triton; use order='linear'"),
    ):  # fmt: skip
        changed = per_channel.replace('shift(semiseparable(w), "t") + diagonal(u)', mask)
        assert changed != per_channel
        with pytest.raises(PlanError, match=why):
            make(load(changed), sizes={}, dtype="bfloat16", device="h100", order="chunked")
    with pytest.raises(PlanError, match=r"'chunked' takes no normaliser Z on schedule 'chunks'$"):
        plan("linear_attention", order="chunked", schedule="chunks")
    # Where the mask has no gradients segments go backward as sweeps, not as parallel chunks.
    for dtype in ("float16", "bfloat16"):
        assert plan("linear_attention", order="chunked", schedule="segmented", backward=True,
                    dtype=dtype)  # fmt: skip
    with pytest.raises(PlanError, match=r"which float16 is too narrow for$"):
        plan("retnet", order="chunked", schedule="segmented", backward=True, dtype="float16")
    with pytest.raises(PlanError, match=r"takes no mask per N on schedule 'segmented'; use sched"):
        plan("gla", order="chunked", schedule="segmented")
    with pytest.raises(PlanError, match=r"cuts one sequence in segments, not packed ones; use sch"):
        plan("ssd", order="chunked", schedule="segmented", sequences=2)
    with pytest.raises(PlanError, match=r"float16 is too narrow for$"):
        plan("ssd", schedule="chunks", dtype="float16")
    with pytest.raises(PlanError, match=r"at most 128 in bfloat16 \(or N of 256 and P of 64\) on .*"
                                        r", found N = 256, P = 128$"):  # fmt: skip
        plan("ssd", schedule="chunks", sizes={"N": 256, "P": 128})
    with pytest.raises(PlanError, match=r"at most 64 in float32 on schedule 'chunks', found"):
        plan("ssd", schedule="chunks", dtype="float32", sizes={"N": 256})
    assert plan("ssd", schedule="chunks", sizes={"N": 256}).chosen.schedule == "chunks"
    assert orders(plan("multiscale", target="torch")) == {"quadratic", "chunked", "linear"}


@pytest.mark.parametrize("device", ["h100", "h200"])
@pytest.mark.parametrize(
    ("B", "T", "H", "N", "schedule"),
    [(8, 2048, 80, 128, "sweep"), (16, 2048, 24, 128, "sweep"), (8, 4096, 32, 64, "sweep"),
     (8, 4096, 32, 256, "sweep"), (256, 128, 32, 64, "sweep"), (1, 32768, 64, 128, "segmented")],
)  # fmt: skip
def test_layers_run_by_the_schedule_that_was_fastest(
    device: str, B: int, T: int, H: int, N: int, schedule: str
) -> None:
    """SSD forward, without its gate, as benchmarks/results/h200 has it: chunks took 1.3 to 1.7
    times as long."""
    p = plan("ssd", device=device, absent=frozenset({"z"}),
             sizes={"B": B, "T": T, "H": H, "N": N, "P": 64, "G": 1})  # fmt: skip
    assert p.chosen.schedule == schedule


def test_long_sequences_of_few_heads_are_walked_in_segments() -> None:
    """As many segments as fill the GPU once with programs, of a power of two of chunks."""
    few = {"B": 1, "T": 32768, "H": 64, "P": 64, "N": 128, "G": 1}
    for backward in (False, True):
        p = plan("ssd", sizes=few, backward=backward)
        assert (p.order, p.chosen.schedule, p.chosen.segment) == ("chunked", "segmented", 8192)
    assert plan("ssd", sizes={**few, "B": 8, "T": 2048}).chosen.schedule == "sweep"
    one = plan("ssd", sizes={**few, "H": 1}, schedule="segmented").chosen
    assert one.segment == 128  # 512 chunks over 264 programs


# ---- forced chunks --------------------------------------------------------------------------


def test_one_chunk_is_called_quadratic() -> None:
    for chunk, T in ((256, 256), (256, 100)):
        p = plan("ssd", order="chunked", chunk=chunk, target="torch", sizes={"T": T})
        assert p.order == "quadratic"
    p = plan("ssd", order="chunked", chunk=64, target="torch", sizes={"T": 65})
    assert (p.order, p.chunk) == ("chunked", 64)
    assert not any(c.order == "chunked" and c.chunk >= 64
                   for c in plan("ssd", sizes={"T": 64}).candidates)  # fmt: skip


def test_tiles_are_as_tall_as_the_gradient_of_the_mask_has_room_for() -> None:
    """Rows of Q, K, V and dY of a tile lie on chip together: at N = P = 512 and 64 rows of 16 bits
    that is 256 KiB, which an H100 refused."""
    wide = {"order": "quadratic", "sizes": {"N": 512, "P": 512, "T": 90}}
    for dtype, forward, backward in (("bfloat16", 64, 32), ("float32", 32, 16)):
        assert plan("ssd", **wide, dtype=dtype).chunk == forward
        for spec in ("ssd", "toeplitz"):
            assert plan(spec, **wide, dtype=dtype, backward=True).chunk == backward
    assert plan("linear_attention", **wide, backward=True).chunk == 64  # its mask has no gradients
    with pytest.raises(PlanError) as e:
        plan("ssd", **wide, backward=True, chunk=64)
    assert str(e.value) == (
        "ssd: chunk: found 64, whose rows of Q, K, V and dY do not fit on chip together in the "
        "gradient of the mask (N = 512, P = 512); ask for fewer, or leave chunk out")


def test_one_chunk_with_states_stays_chunked() -> None:
    p = plan("ssd", order="chunked", chunk=256, target="torch", sizes={"T": 100}, state=True)
    assert (p.order, p.chunk) == ("chunked", 128)


@pytest.mark.parametrize(
    ("kw", "text"),
    [
        ({"chunk": 48}, "chunk: found 48; expected a power of two from 16 to 64 in bfloat16 on "
                        "target triton"),
        ({"chunk": 64, "order": "linear"}, "chunk: found 64 with the linear order"),
        ({"order": "cubic"}, "order: found 'cubic'; expected one of auto, linear, quadratic"),
        ({"schedule": "fast"}, "schedule: found 'fast'; expected one of auto, chunks, fft"),
        ({"schedule": "segments"}, "schedule='segments' is no schedule of order='auto' on target"),
        ({"dtype": "int8"}, "dtype: found 'int8'; expected one of float64, float32"),
        ({"device": "tpu"}, "device: found 'tpu'; expected one of cpu, cuda, h100, h200, a100"),
        ({"target": "cuda"}, "target: found 'cuda'; expected one of auto, torch, triton"),
    ],
)
def test_requests_that_cannot_be(kw: dict[str, object], text: str) -> None:
    with pytest.raises(PlanError) as e:
        plan("ssd", **kw)
    assert text in str(e.value)


# ---- sizes ----------------------------------------------------------------------------------


def test_sizes_are_completed() -> None:
    p = plan("ssd", sizes={"T": 100})
    assert dict(p.request.sizes) == {"B": 1, "T": 100, "S": 100, "H": 80, "G": 1, "N": 128, "P": 64}
    assert p.request.size("N") == 128
    assert plan("toeplitz", sizes={"T": 100}).request.size("W") == 100
    assert plan("toeplitz", sizes={"T": 100, "W": 300}).request.size("W") == 300


BIDIRECTIONAL = """
smac = 1
name = "both"
[inputs]
v = "T P"
h = "W"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "1"
K = "1"
V = "v"
L = "toeplitz(h, bidirectional = true)"
[output]
y = "Y"
"""


def test_sizes_that_follow_and_sizes_that_are_missing() -> None:
    spec = load(BIDIRECTIONAL)
    p = make(spec, sizes={"T": 10, "P": 4}, dtype="float32", device="cpu")
    assert dict(p.request.sizes) == {"B": 1, "T": 10, "S": 10, "W": 19, "H": 1, "N": 1, "P": 4}
    with pytest.raises(PlanError, match=r"both: sizes are missing: T, P; give them, as in T=64"):
        make(spec, sizes={}, dtype="float32", device="cpu")
    with pytest.raises(PlanError, match=r"found W = 10 at T = 10; expected 2T - 1 = 19 lags"):
        make(spec, sizes={"T": 10, "P": 4, "W": 10}, dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"G": 3}, "found H = 80 and G = 3; expected a multiple of 3 heads, since G groups H"),
        ({"X": 3}, "found a size for 'X'; expected axes among B, T, S, W, H, G, N, P"),
        ({"T": -1}, "found T = -1; expected a whole number from 0 to 2**40"),
        ({"N": 0}, "found N = 0; expected a whole number from 1 to 2**40"),
        ({"T": 2**41}, f"found T = {2**41}; expected"),
        ({"T": 1.5}, "found T = 1.5; expected"),
        ({"H": True}, "found H = True; expected"),
        ({"S": 5}, "found S = 5, T = 2048; expected S = T"),
    ],
)
def test_sizes_that_cannot_be(sizes: dict[str, int], text: str) -> None:
    with pytest.raises(PlanError) as e:
        plan("ssd", sizes=sizes)
    assert text in str(e.value)


def test_absent_inputs_cost_nothing() -> None:
    whole = plan("ssd", backward=True, target="torch")
    bare = plan("ssd", backward=True, target="torch", absent=frozenset({"z"}))
    assert "intra" in {d.name for d in whole.chosen.dots}  # the gate's gradient needs Y again
    assert "intra" not in {d.name for d in bare.chosen.dots}


# ---- the device table -----------------------------------------------------------------------


def test_distorting_the_device_table_moves_the_choice() -> None:
    h100 = TABLE["h100"]

    def order(**rates: float) -> str:
        table = {"h100": replace(h100, **rates)}  # type: ignore[arg-type]
        return plan("ssd", table=table).order

    assert order() == "chunked"
    boundless = {"dot16": 1e18, "scalar": 1e18, "bandwidth": 1e17, "units": 10**4}
    assert order(**boundless, step=0.0) == "quadratic"  # nothing waits for a state
    assert order(dot16=1e9) == "linear"  # the recurrence takes no dots
    cpu = {"cpu": replace(TABLE["cpu"], op=1.0)}
    few = make(load("ssd"), sizes={"T": 300}, dtype="float32", device="cpu", table=cpu)
    assert few.chosen.launches == min(c.launches for c in few.candidates)


def test_device_rows_go_to_json_and_back() -> None:
    for row in TABLE.values():
        assert from_dict(json.loads(json.dumps(row.to_dict()))) == row
    with pytest.raises(PlanError, match=r"device row: found fields \['name'\]; expected"):
        from_dict({"name": "x"})
    with pytest.raises(PlanError, match=r"device row: units: found 'two'; expected a number >= 0"):
        from_dict({**TABLE["cpu"].to_dict(), "units": "two"})


def test_a_device_index_is_its_kind() -> None:
    assert plan("ssd", device="cuda:1").order == plan("ssd", device="cuda").order


# ---- explain --------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("name", SPECS)
def test_explain_shows_every_candidate_and_fits(name: str, width: int) -> None:
    p = plan(name, backward=True)
    lines = p.explain(width).splitlines()
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if line.startswith(("quadratic ", "chunked ", "linear "))]
    assert [r.split()[0] for r in rows] == [c.order for c in p.candidates]
    for c, row in zip(p.candidates, rows, strict=True):
        for shown in (quantity(c.flops), quantity(c.bytes, "B"), str(c.launches),
                      quantity(c.workspace, "B"), duration(c.time)):  # fmt: skip
            assert shown in row
    text = " ".join(p.explain(width).split())
    for label, why in p.illegal:
        assert f"not {label}: {' '.join(why.split())}" in text
    assert f"{name}: bfloat16 on h100, target triton, backward" in text


def test_losers_say_how_much_and_why() -> None:
    best, *others = plan("ssd", device="cpu", dtype="float32").candidates
    assert best.verdict == "chosen"
    for c in others:
        assert c.time >= best.time
        assert "slower: " in c.verdict or "as fast; " in c.verdict
    quadratic = next(c for c in others if c.order == "quadratic")
    assert "GB of scores traffic" in quadratic.verdict


def test_dense_paths_are_opt_einsums() -> None:
    text = plan("ssd", sizes={"T": 1024, "H": 1}).explain()
    flops = 2 * 1024 * 1024 * 128 + 2 * 1024 * 1024 * 64 + 1024 * 1024
    assert f"((Q K) L) V: {quantity(flops)}" in " ".join(text.split())
    assert "charged by the mask's law" in text


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12.34e9, "12.3 GB")]
)
def test_quantities(n: float, text: str) -> None:
    assert quantity(n, "B") == text


@pytest.mark.parametrize(
    ("s", "text"), [(0.0, "0 µs"), (1.5e-6, "1.5 µs"), (0.0999, "99.9 ms"), (2.0, "2 s")]
)
def test_durations(s: float, text: str) -> None:
    assert duration(s) == text


def test_planning_imports_nothing_heavy() -> None:
    code = (
        "import sys; from smac.parse import load; from smac.plan import make\n"
        "p = make(load('ssd'), sizes={}, dtype='bfloat16', device='h100', backward=True)\n"
        "print(sorted({'torch', 'triton', 'sympy', 'jinja2'} & set(sys.modules)), p.order)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[] chunked"


def test_the_package_exports_what_it_says() -> None:
    assert all(hasattr(smac.plan, name) for name in smac.plan.__all__)


def test_a_normaliser_per_value_channel_is_refused() -> None:
    spec = Spec(
        name="both", inputs={"q": "B T H N", "v": "B T H P", "a": "B T H P"},
        contraction={"equation": "TN,SN,SP,TSP->TP", "Q": "q", "K": "q", "V": "v",
                     "L": "semiseparable(log_decay = a)"}, output={"y": "Y / Z"},
    )  # fmt: skip
    with pytest.raises(PlanError, match=r"^both: Z with a mask per P: found a normaliser for each"):
        make(spec, sizes={"B": 1, "T": 8, "H": 1, "N": 4, "P": 4}, dtype="float32", device="cpu")
