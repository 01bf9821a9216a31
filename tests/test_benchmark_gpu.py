"""The GPU benchmark without a GPU: floors, peers against the oracle, tables, and a run on the CPU.

Nothing here asserts on time.
"""

from __future__ import annotations

import json
import sys
import time
from collections import namedtuple
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import softplus

from benchmarks import bars, clock, exact, gpu, plot, store, table, warm
from benchmarks.cases import MODES, Shape
from benchmarks.cases_gpu import (
    CHUNKED,
    CUDNN,
    FFT,
    FIELDS,
    FLASH,
    INDUCTOR,
    N_SWEEP,
    SCALING,
    SCAN,
    SPECS,
    SSD,
    STEP,
    T_SWEEP,
    GpuCase,
    cases,
    draw,
    op_of,
)
from benchmarks.floor import Ceilings, floor, flops, moved
from benchmarks.peers import _BUILDERS, build, runner, toeplitz_fft, toeplitz_quadratic
from benchmarks.table import Row

H100 = Ceilings(3.02e12, 740e12)
TINY = Shape(2, 70, 4, 8, 16, 2)
KINDS = {"ssd": TINY, "causal": Shape(2, 70, 4, 8, 16, 4), "retention": Shape(1, 70, 6, 8, 16, 6),
         "simple_gla": Shape(2, 70, 4, 8, 16, 4), "gla": Shape(1, 40, 2, 8, 8, 2),
         "toeplitz": Shape(2, 70, 4, 8, 16, 4), "step": Shape(3, 1, 8, 8, 16, 2)}  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "kind", "forward", "both"),
    [
        # peers' medians over their multiples of the floor, as measured on one H100
        (Shape(8, 2048, 80, 64, 128, 1), "ssd", 0.728 / 6.3, 3.86 / 13.2),
        (Shape(16, 2048, 24, 64, 128, 1), "ssd", 0.857 / 11.7, 3.22 / 17.2),
        (Shape(8, 4096, 32, 64, 64, 1), "ssd", 0.093, 0.235),
        (Shape(4, 4096, 16, 128, 128, 16), "simple_gla", 0.458 / 5.1, 3.26 / 13.3),
    ],
)
def test_floors_of_known_cases(shape: Shape, kind: str, forward: float, both: float) -> None:
    case = GpuCase(kind, shape)
    for mode, ms in zip(MODES, (forward, both), strict=True):
        found = 1e3 * floor(shape, case.traffic, mode, H100).seconds
        assert found == pytest.approx(ms, rel=0.015)


def test_flops_by_hand() -> None:
    """Two chunks of 2: 6 pairs in the triangles, states made by one chunk and read by the other."""
    shape = Shape(1, 4, 3, 5, 7, 1)
    inside = 2 * 6 * (7 * 1 + 5 * 3)
    states = 2 * (2 * 2 * 3 * 7 * 5)
    assert flops(shape, "forward", 2) == inside + states
    assert flops(shape, "forward", 4) == 2 * 10 * (7 + 15), "one chunk: no states"
    assert flops(shape, "forward+backward", 2) == 3.5 * (inside + states)


@pytest.mark.parametrize("kind", FIELDS)
def test_bytes_are_those_of_the_tensors(kind: str) -> None:
    case = GpuCase(kind, KINDS[kind])
    inputs = draw(case, "cpu")
    sizes = {n: x.numel() * x.element_size() for n, x in inputs.items()}
    assert case.traffic.inputs == sum(sizes.values())
    assert case.traffic.leaves == sum(n for k, n in sizes.items() if inputs[k].requires_grad)
    forward, both = (moved(case.traffic, mode) for mode in MODES)
    assert forward == case.traffic.inputs + case.traffic.out + 2 * case.traffic.state
    assert both > 2 * forward or kind == "step"


def test_cases_cover_the_sweeps_once_and_name_known_sides() -> None:
    every = cases()
    assert len({c.name for c in every}) == len(every)
    assert {GpuCase("ssd", s).name for s in (*T_SWEEP, *N_SWEEP)} <= {c.name for c in every}
    assert {side for c in every for side in c.peers} == set(_BUILDERS) - {"smac"}
    assert len({s.B * s.T * s.H for s in T_SWEEP}) == 1, "constant tokens × heads"
    assert {c.kind for c in every} == set(SPECS) == set(FIELDS)
    assert max(len(c.name) for c in every) <= 33
    assert {b.case for b in bars.BARS} <= {c.name for c in every}
    sides = {c.name: {*c.peers, bars.FLOOR, bars.COPY} for c in every}
    assert all(set(b.sides) <= sides[b.case] for b in bars.BARS)


@pytest.mark.parametrize("kind", FIELDS)
def test_smac_is_judged_at_full_size_on_a_corner(kind: str, monkeypatch: Any) -> None:
    """Small errors for the right op; a wrong one is seen, in y and in a gradient alone."""
    monkeypatch.setattr(exact, "TOKENS", 33)
    monkeypatch.setattr(exact, "HEADS", 2)
    case = GpuCase(kind, KINDS[kind])
    inputs = draw(case, "cpu")
    for mode in case.modes:
        assert 0 < exact.smac_error(case, inputs, mode) < 0.03
    y = exact.exact_y(case, inputs) if kind != "step" else None
    if y is None:
        return
    assert tuple(y.shape) == (1, exact.corner(case).T, 2, 8)
    full = op_of(kind)(**inputs)
    assert exact.y_error(case, full, y) < 0.01
    assert exact.y_error(case, full * 1.1, y) == pytest.approx(0.1, abs=0.02)
    full = full.detach().clone()
    full[-1, -1, -1, -1] = float("nan")
    assert exact.y_error(case, full, y) != exact.y_error(case, full, y), "NaN outside the corner"


def test_a_wrong_gradient_shows(monkeypatch: Any) -> None:
    case = GpuCase("causal", KINDS["causal"])
    op = op_of("causal")

    class Wrong:
        reference = staticmethod(op.reference)

        def __call__(self, q: Any, k: Any, v: Any) -> Any:
            return op(q, k, v + 0.5 * (v - v.detach()))

    monkeypatch.setattr(exact, "op_of", lambda kind: Wrong())
    inputs = draw(case, "cpu")
    assert exact.smac_error(case, inputs, "forward") < 0.01
    assert exact.smac_error(case, inputs, "forward+backward") == pytest.approx(0.5, abs=0.02)


def test_corner_keeps_whole_groups() -> None:
    assert exact.corner(GpuCase("ssd", Shape(8, 4096, 32, 64, 64, 1))) == (1, 1024, 4, 64, 64, 1)
    assert exact.corner(GpuCase("ssd", Shape(8, 512, 32, 64, 64, 32))) == (1, 512, 4, 64, 64, 4)
    assert exact.corner(GpuCase("ssd", Shape(8, 512, 6, 64, 64, 2))).G == 1
    assert exact.corner(GpuCase("gla", Shape(8, 512, 9, 64, 64, 3)))[1:3] == (256, 3)


def test_toeplitz_peers_agree_with_the_oracle() -> None:
    case = GpuCase("toeplitz", KINDS["toeplitz"])
    inputs = {n: x.detach().float() for n, x in draw(case, "cpu").items()}
    due = op_of("toeplitz").reference(**inputs)
    for peer in (toeplitz_quadratic, toeplitz_fft):
        assert exact.relative(peer(**inputs), due) < 1e-6


def _scan(u: Any, dt: Any, a: Any, b: Any, c: Any, d: Any, delta_bias: Any,
          delta_softplus: bool) -> Any:  # fmt: skip
    """What Mamba-1's scan computes: u, dt [B, D, T], a [D, N], b, c [B, G, N, T]."""
    assert delta_softplus
    steps = softplus(dt.double() + delta_bias[:, None])
    own = [x.double().repeat_interleave(u.shape[1] // x.shape[1], 1) for x in (b, c)]
    state, out = u.new_zeros(*u.shape[:2], a.shape[1], dtype=torch.float64), []
    for t in range(u.shape[2]):
        step = steps[..., t, None]
        state = state * torch.exp(step * a) + step * u[..., t, None] * own[0][..., t]
        out.append((state * own[1][..., t]).sum(-1) + d * u[..., t])
    return torch.stack(out, -1)


def _update(state: Any, x: Any, dt: Any, a: Any, b: Any, c: Any, d: Any, dt_bias: Any,
            dt_softplus: bool) -> Any:  # fmt: skip
    """What Mamba's single step computes: state [B, H, P, N], x, dt [B, H, P], b, c [B, G, N]."""
    assert dt_softplus
    step = softplus(dt.double() + dt_bias)[..., None]
    own = [y.double().repeat_interleave(x.shape[1] // y.shape[1], 1)[:, :, None] for y in (b, c)]
    state = state * torch.exp(step * a) + step * x[..., None] * own[0]
    return (state * own[1]).sum(-1) + d * x


@pytest.mark.parametrize(("kind", "side", "module", "function"), [
    ("ssd", SCAN, "selective_scan_interface", _scan),
    ("step", STEP, "triton.selective_state_update", _update),
])  # fmt: skip
def test_mamba_gets_the_case_in_its_own_layout(
    kind: str, side: str, module: str, function: Any, monkeypatch: Any
) -> None:
    """A stand-in for the peer, written from its documentation, gives the oracle's y."""
    parts = ["mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", f"mamba_ssm.ops.{module}"]
    for name in parts:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    found: Any = sys.modules[parts[-1]]
    found.selective_scan_fn = found.selective_state_update = function
    case = GpuCase(kind, KINDS[kind])
    inputs = draw(case, "cpu")
    built = build(side, case, inputs)
    token = {n: x if kind == "ssd" or x.dim() == 1 else x[:, None] for n, x in inputs.items()}
    y = built.view(built.call())
    due = op_of(kind).reference(**{n: x.detach().double() for n, x in token.items()})
    assert exact.relative(y if kind == "ssd" else y[:, None], due) < 1e-9


@pytest.mark.parametrize("side", [FLASH, CUDNN])
def test_attention_gets_tensors_of_its_own(side: str) -> None:
    built = build(side, GpuCase("ssd", TINY), draw(GpuCase("ssd", TINY), "cpu"))
    assert [tuple(x.shape) for x in built.leaves] == [(2, 70, 4, 16), (2, 70, 4, 16), (2, 70, 4, 8)]
    assert not built.same


def test_runner_gives_y_and_every_gradient() -> None:
    case = GpuCase("toeplitz", KINDS["toeplitz"])
    side = build(FFT, case, draw(case, "cpu"))
    y: Any = runner(side, "forward")()
    assert not y.requires_grad
    both: Any = runner(side, "forward+backward")()
    assert [x.shape for x in both] == [y.shape, *(x.shape for x in side.leaves)]


def test_rotations_overflow_the_cache() -> None:
    assert clock.rotations(100, 50) == 1
    assert clock.rotations(60, 50) == 3, "two others of 60 in between push 60 out of 50"
    assert clock.rotations(1, 50) == 16
    assert clock.spread([1.0] * 8 + [9.0, 0.1]) == 0.0


@pytest.fixture
def on_cpu(monkeypatch: Any) -> gpu.Bench:
    """A bench whose clock runs every call once and answers made-up figures."""

    def once(runs: Any, budget: float = 0.0) -> clock.Timing:
        for run in runs:
            run()
        return clock.Timing(2e-3, 0.01, 1e-3)

    monkeypatch.setattr(clock, "measure", once)
    monkeypatch.setattr(clock, "peak_bytes", lambda run: 2**20)
    monkeypatch.setattr(clock, "kept_bytes", lambda call: 512)
    monkeypatch.setattr(clock, "cache_bytes", lambda: 0)
    monkeypatch.setattr(clock, "alive", lambda: True)
    return gpu.Bench(H100, "cpu", time.monotonic() + 600)


def test_a_run_survives_missing_and_failing_peers(on_cpu: gpu.Bench, monkeypatch: Any) -> None:
    """A missing peer is said to be missing, a failing one shows its error; SMAC has its figures."""
    def broken(case: GpuCase, inputs: Any) -> Any:
        raise RuntimeError("no kernel\nfor this shape")

    for module in ("fla", "fla.ops", "fla.ops.linear_attn"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(_BUILDERS, INDUCTOR, broken)
    chosen = [GpuCase("causal", KINDS["causal"], (CHUNKED,)),
              GpuCase("toeplitz", KINDS["toeplitz"], (FFT, INDUCTOR)),
              GpuCase("step", KINDS["step"])]  # fmt: skip
    saved: list[int] = []
    rows = gpu.run(on_cpu, chosen, lambda found: saved.append(len(found)))
    assert saved == [4, 6, 1]
    by = {(r.case.split()[0], r.mode, r.side): r for r in rows}
    assert by["causal", "forward", CHUNKED].note.startswith("missing: fla")
    assert by["toeplitz", "forward", INDUCTOR].note == "RuntimeError: no kernel\nfor this shape"
    assert by["toeplitz", "forward", INDUCTOR].failed
    assert by["toeplitz", "forward", FFT].error == pytest.approx(0, abs=0.01)
    ours = [r for r in rows if r.side == "smac"]
    assert all(r.seconds == 2e-3 and not r.failed and r.how for r in ours)
    assert [r.kept for r in ours] == [None, 512, None, 512, None]
    text = table.table(rows)
    assert max(map(len, text.splitlines())) <= 100
    assert "missing: fla" in text
    assert "RuntimeError: no kernel for this shape" in text


def test_smac_failing_is_a_row_and_the_run_goes_on(on_cpu: gpu.Bench, monkeypatch: Any) -> None:
    def broken(case: GpuCase, inputs: Any) -> Any:
        raise ImportError("an import inside SMAC")

    monkeypatch.setitem(_BUILDERS, "smac", broken)
    chosen = [GpuCase("toeplitz", KINDS["toeplitz"], (FFT,)), GpuCase("step", KINDS["step"])]
    rows = gpu.run(on_cpu, chosen, lambda found: None)
    assert [r.failed for r in rows] == [True, False, True, False, True]
    assert rows[0].note == "ImportError: an import inside SMAC"
    assert table.ratios(rows) == {}


def test_a_lost_device_ends_the_run(on_cpu: gpu.Bench, monkeypatch: Any) -> None:
    def lost(case: GpuCase, inputs: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setitem(_BUILDERS, "smac", lost)
    monkeypatch.setattr(clock, "alive", lambda: False)
    chosen = [GpuCase(k, KINDS[k]) for k in ("step", "causal")]
    rows = gpu.run(on_cpu, chosen, lambda found: None)
    assert [r.note for r in rows[1:]] == ["skipped: the device is lost"] * 2
    assert all(r.failed for r in rows)


def test_the_plan_that_is_printed_is_of_the_inputs_that_are_passed(monkeypatch: Any) -> None:
    case = next(c for c in cases() if c.kind == "ssd")
    passed: dict[str, Any] = {}
    op = gpu.op_of("ssd")

    def plan(**how: Any) -> Any:
        passed.update(how)
        return op.plan(**how)

    monkeypatch.setattr(gpu, "op_of", lambda kind: SimpleNamespace(spec=op.spec, plan=plan))
    gpu.how(case, "forward")
    absent = {i.name for i in op.spec.inputs} - {f.name for f in FIELDS["ssd"]}
    assert set(passed["absent"]) == absent > set()


def test_nothing_starts_after_the_deadline(on_cpu: gpu.Bench) -> None:
    bench = replace(on_cpu, deadline=time.monotonic())
    rows = gpu.run(bench, [GpuCase("ssd", TINY, (SSD,))], lambda found: None)
    assert [(r.mode, r.note) for r in rows] == [(m, "skipped: --minutes are over") for m in MODES]
    assert not any(r.failed for r in rows)


def test_table_lines() -> None:
    ours = Row("ssd 8,2048,80,64,128,1", "forward", "smac", 0.289e-3, 0.012, 1e-4, 0.1156e-3,
               floor_bytes=0.1156e-3, peak=160 * 2**20, error=2.3e-3,
               how="chunked 64 sweep")  # fmt: skip
    peer = replace(ours, side=SSD, seconds=0.728e-3, error=None, how="")
    text = table.table([ours, peer]).splitlines()
    assert text[1] == "ssd 8,2048,80,64,128,1"
    assert text[2] == ("  fwd smac               0.2890   1   2.50         40%    160"
                       "        2.3e-03  chunked 64 sweep")  # fmt: skip
    assert text[3].split() == ["fwd", "mamba_ssm", "ssd", "0.7280", "1", "6.30", "2.52", "16%",
                               "160"]  # fmt: skip
    assert table.line(replace(ours, kept=512), None).split()[7:9] == ["512", "B"]
    assert table.line(replace(ours, kept=3 * 2**19), None).split()[7] == "1.5"
    long = replace(peer, note="error " * 50)
    assert len(table.line(long, None)) == table.WIDTH
    assert max(map(len, table.about({f"key{i}": "x" * 30 for i in range(9)}).splitlines())) <= 100


def test_bars_by_hand() -> None:
    """Held and missed at the ratio itself; a bar without figures says why."""
    forward = "forward"
    best, floor_bar = (b for b in bars.BARS if b.case.startswith("causal 4,") and b.mode == forward)
    copy = next(b for b in bars.BARS if b.sides == (bars.COPY,))
    flash = next(b for b in bars.BARS if b.sides == (FLASH,) and b.more)
    ours = Row(best.case, forward, "smac", 1e-3, floor=0.5e-3)
    chunk, fused = (replace(ours, side=s, seconds=t) for s, t in (("fla chunk", 2.2e-3),
                                                                  ("fla fused", 3e-3)))  # fmt: skip

    def found(bar: bars.Bar, *rows: Row) -> bars.Found:
        return bars.judged(bar, {(r.case, r.mode, r.side): r for r in rows})

    good = found(best, ours, chunk, fused)
    assert (good.ratio, good.rival, good.verdict) == (2.2, "fla chunk", "held")
    assert found(best, ours, replace(chunk, seconds=2.1e-3)).verdict == "MISSED"
    assert found(floor_bar, ours).verdict == "MISSED"
    assert found(floor_bar, replace(ours, floor=0.8e-3)).verdict == "held"
    gone = replace(chunk, seconds=None, note="missing: fla")
    none = found(best, ours, gone)
    assert none.verdict == "no figure"
    assert none.why == "fla chunk: missing: fla; fla fused: not measured"
    assert found(best, chunk).why == "smac: not measured"
    one = Row(copy.case, forward, "smac", 1e-3, floor_bytes=0.86e-3)
    assert (found(copy, one).ratio, found(copy, one).held) == (pytest.approx(0.86), True)
    even = [Row(flash.case, flash.mode, s, 1e-3) for s in ("smac", FLASH)]
    assert found(flash, *even).verdict == "MISSED", "faster means faster"
    text = bars.table([ours, chunk]).splitlines()
    assert max(map(len, text)) <= 100
    assert f"1 of {len(bars.BARS)} bars held, 1 missed" in text[-2]


def test_results_go_on_where_a_run_ended(tmp_path: Path) -> None:
    """A case counts as done when each side has a row; other sources, and it is dropped."""
    one, two = GpuCase("ssd", TINY, (SSD,)), GpuCase("step", KINDS["step"])
    results = store.load(tmp_path)
    assert results.begin({"sources": "a", "device": "x", "copy TB/s": 3}) == 0
    rows = [Row(one.name, m, s, 1e-3, kept=0) for m in MODES for s in ("smac", SSD)]
    results.put([*rows[:-1], replace(rows[-1], seconds=None, note="skipped: over")], (two, one))
    assert not store.load(tmp_path).done(one)
    results.put(rows, (two, one))
    results.put([Row(two.name, "forward", "smac", 1e-3)], (two, one))
    again = store.load(tmp_path)
    assert [r.case for r in again.rows] == [two.name, *[one.name] * 4], "in the order of cases"
    assert again.rows[1:] == rows
    assert again.done(one)
    assert again.done(two)
    assert again.begin({"sources": "a", "device": "x", "copy TB/s": 2.9}) == 0
    again.put([replace(r, run=1) for r in rows], (two, one))
    once_more = store.load(tmp_path)
    assert [r["copy TB/s"] for r in once_more.runs] == [3, 2.9]
    assert [r.run for r in once_more.rows] == [0, 1, 1, 1, 1]
    assert once_more.begin({"sources": "b", "device": "x"}) == 5
    once_more.save()
    assert store.load(tmp_path).runs == [{"sources": "b", "device": "x"}]


def test_processes_share_kernels_alike() -> None:
    """A kernel is in one share, that of each other call which is compiled to the same."""
    param = namedtuple("param", "name is_constexpr")
    kernel = SimpleNamespace(fn=warm.mine, arg_names=["p_x", "n", "C"],
                             params=[param("p_x", False), param("n", False), param("C", True)])

    def key(*args: Any, **kwargs: Any) -> Any:
        return warm.special(kernel, args, kwargs)

    x = torch.zeros(8)
    assert key(x, 32, C=64) == key(x.clone(), 48, C=64) == key(x, n=16, C=64)
    others = [key(x, 32, C=32), key(x, 33, C=64), key(x, 1, C=64), key(x.double(), 32, C=64),
              key(x, 32, C=64, num_warps=8), key(x[1:], 32, C=64)]  # fmt: skip
    assert len({str(k) for k in [*others, key(x, 32, C=64)]}) == 7
    for n in range(50):
        assert sum(warm.mine(("k", n), i, 4) for i in range(4)) == 1


def test_few_processes_hold_large_cases() -> None:
    by = {c.name: warm.workers_for(c, 15) for c in cases()}
    assert by["step 128,1,80,64,128,1"] == 15
    assert 1 <= by["ssd 1,1048576,16,64,64,1"] < 15


def test_plots(tmp_path: Path) -> None:
    """Points come from the sweeps alone; without matplotlib it is an ImportError that names it."""
    rows = [Row(GpuCase("ssd", s).name, mode, "smac", 1e-3 * s.N, floor=1e-4, peak=s.T * 2**20,
                kept=0) for s in (*N_SWEEP, *SCALING) for mode in MODES]  # fmt: skip
    rows.append(Row("causal 8,4096,32,64,64,1", "forward", "smac", 1.0, floor=1e-4))
    found = plot.series(rows, N_SWEEP, "N", "forward")
    assert found["smac"] == [(n, float(n)) for n in (16, 32, 64, 128, 256, 512)]
    assert found["floor"][0] == (16, pytest.approx(0.1))
    held = plot.memory(rows, SCALING)
    assert held["smac"][-1] == (2**20, 2**20)
    assert held["smac, kept for backward"][0] == (2**12, 2**-10)
    if find_spec("matplotlib"):
        written = plot.plot(rows, tmp_path, "title")
        assert [p.name for p in written] == ["time_vs_T.png", "time_vs_N.png", "scaling.png"]
    else:
        with pytest.raises(ImportError, match="matplotlib"):
            plot.plot(rows, tmp_path, "title")


def test_main_without_a_gpu(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    assert "found no CUDA device; expected an NVIDIA GPU" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gpu.main(["--only", "nothing like it"])
    assert "no case matches 'nothing like it'" in capsys.readouterr().err


def test_main_writes_results_and_says_why_there_is_no_plot(
    on_cpu: gpu.Bench, monkeypatch: Any, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(clock, "ceilings", lambda: H100)
    monkeypatch.setattr(gpu, "machine", lambda c: {"device": "a GPU", "sources": "a"})
    monkeypatch.setattr(gpu, "Bench", lambda *_: on_cpu)
    monkeypatch.setattr(gpu, "how", lambda case, mode: "chunked 64 sweep")
    monkeypatch.setattr(gpu, "cases", lambda: (GpuCase("causal", KINDS["causal"]),
                                               GpuCase("step", KINDS["step"])))  # fmt: skip
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    argv = ["--only", "^causal", "--out", str(tmp_path), "--workers", "0"]
    assert gpu.main(argv) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["runs"] == [{"device": "a GPU", "sources": "a"}]
    assert [(r["mode"], r["how"], r["seconds"]) for r in found["rows"]] == [
        (m, "chunked 64 sweep", 2e-3) for m in MODES]  # fmt: skip
    out = capsys.readouterr().out
    assert out.splitlines()[2] == table.HEADER
    assert f"0 of {len(bars.BARS)} bars held" in out
    assert "no plot: matplotlib is not installed" in out or "no plot: import of matplotlib" in out
    monkeypatch.setattr(clock, "measure", None)  # nothing is left to measure
    assert gpu.main(argv) == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([*argv, "--report"]) == 0
    assert (tmp_path / "gpu.txt").read_text().splitlines()[2] == table.HEADER
    assert gpu.main(["--report", "--out", str(tmp_path / "none")]) == 1
    assert "no results" in capsys.readouterr().err
