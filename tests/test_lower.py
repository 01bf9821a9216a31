"""The Programs of four specs, as `smac/ir.py` has them on paper."""

from __future__ import annotations

from dataclasses import replace

import pytest

import smac
from smac.codegen import emit
from smac.errors import PlanError
from smac.expr import ONE
from smac.ir import Carry, Kernel, LaneGrad, LaneIR, Program, Read, Scan, Walk
from smac.lower import backward, forward
from smac.plan import Plan
from smac.show import show

READ_Y = Read("Y", "KV", "Q", "N")
READS = (Read("d.Q", "KV", "dY", "P"), Read("d.K", "QG", "V", "P"), Read("d.V", "QG", "K", "N"))
KV, QG = Carry("KV", "K", "V"), Carry("QG", "Q", "dY", reverse=True)


def plan(name: str, order: str, state: bool = False, target: str = "torch",
         back: bool = False) -> Plan:  # fmt: skip
    op = smac.compile(name, target=target, order=order)
    device = "cpu" if target == "torch" else "h100"
    return op._plan({}, None, device, back, state, ())


def kernels(p: Program) -> tuple[Kernel, ...]:
    return tuple(k for k in p.steps if isinstance(k, Kernel))


def values(k: Kernel) -> dict[str, str]:
    return {v.name: f"{show(v.expr)}  {' '.join(v.axes)}" for v in k.values}


def stores(k: Kernel) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for s in k.stores:
        found.setdefault(s.buffer, []).append(f"{show(s.expr)}  {' '.join(s.axes)}")
    return found


def roles(p: Program, role: str) -> dict[str, str]:
    return {b.name: " ".join(b.axes) for b in p.buffers if b.role == role}


def test_ssd_forward_with_a_state() -> None:
    made = forward(plan("ssd", "chunked", state=True))
    (k,) = kernels(made)
    assert (k.kind, k.group, k.channel) == ("chunked", "G", None)
    assert values(k) == {
        "Q": "C  B T G N", "K": "B  B T G N", "V": "softplus(dt + dt_bias) * x  B T H P",
        "a0": "softplus(dt + dt_bias) * A  B T H"}  # fmt: skip
    assert k.carries == (Carry("KV", "K", "V", initial="state.S0", final="state.ST"),)
    assert k.reads == (READ_Y,)
    assert k.lanes == (LaneIR("a0"),)
    assert stores(k) == {"y": ["(Y + D * x) * silu(z)  B T H P"]}
    assert roles(made, "state") == {"state.S0": "B H R N P", "state.ST": "B H R N P"}
    assert roles(made, "output") == {"y": "B T H P"}


@pytest.mark.parametrize(
    ("name", "order", "state", "due"),
    [("ssd", "linear", True, True), ("linear_attention", "linear", True, True),
     ("ssd", "chunked", True, False), ("log_linear", "chunked", True, False),
     ("ssd", "linear", False, False), ("ssd", "quadratic", False, False)],
)  # fmt: skip
def test_only_a_walk_over_tokens_may_work_in_place(name: str, order: str, state: bool,
                                                   due: bool) -> None:
    assert forward(plan(name, order, state=state, target="triton")).in_place is due
    assert not backward(plan(name, order, state=state, target="triton", back=True)).in_place


def test_ssd_backward_saves_states_then_reads_all_in_one_reverse_walk() -> None:
    made = backward(plan("ssd", "chunked", state=True))
    first, main = kernels(made)
    assert first.name == "states"
    assert first.carries == (Carry("KV", "K", "V", initial="state.S0", saves="saved.KV"),)
    assert not first.reads
    assert not first.walk.reverse
    assert main.walk.reverse
    assert main.carries == (
        Carry("KV", "K", "V", restores="saved.KV"),
        Carry("QG", "Q", "dY", reverse=True, initial="state.dST", final="state.dS0"))  # fmt: skip
    assert main.reads == (READ_Y, *READS)
    assert main.lane_grads == (LaneGrad(0, "d.a0"),)
    assert values(main)["dY"] == "d.y * silu(z)  B T H P"
    assert stores(main)["grad.B"] == ["d.K  B T G N"]
    assert stores(main)["grad.A"] == ["chain(d.a0, softplus(dt + dt_bias))  B T H"]
    assert stores(main)["grad.dt"] == [
        "d.V * (x * sigmoid(dt + dt_bias))  B T H P",
        "chain(d.a0, A * sigmoid(dt + dt_bias))  B T H"]  # fmt: skip
    assert roles(made, "cotangent") == {"d.y": "B T H P"}
    assert roles(made, "gradient") == {
        "grad.x": "B T H P", "grad.dt": "B T H", "grad.A": "H", "grad.B": "B T G N",
        "grad.C": "B T G N", "grad.D": "H", "grad.z": "B T H P", "grad.dt_bias": "H"}  # fmt: skip
    assert roles(made, "scratch") == {"saved.KV": "B C H R N P"}
    assert set(roles(made, "state")) == {"state.S0", "state.dST", "state.dS0"}


def test_linear_attention_has_z_as_a_last_column() -> None:
    (k,) = kernels(forward(plan("linear_attention", "chunked")))
    assert {v.name: v.tail for v in k.values} == {"Q": None, "K": None, "V": ONE}
    assert stores(k) == {"y": ["Y / Z  B T H P"]}
    assert k.lanes == (LaneIR(None),)
    _, main = kernels(backward(plan("linear_attention", "chunked")))
    (dy,) = (v for v in main.values if v.name == "dY")
    assert show(dy.expr) == "chain(d.y, 1 / Z)"
    assert dy.tail is not None
    assert show(dy.tail) == "chain(d.y, -(Y / Z / Z))"
    assert main.reads == (READ_Y, *READS)
    assert not main.lane_grads


def test_gla_has_a_channel() -> None:
    (k,) = kernels(forward(plan("gla", "linear")))
    assert (k.kind, k.walk.chunk, k.channel, k.group) == ("chunked", 1, "N", None)
    assert values(k)["a0"] == "g  B T H N"
    _, main = kernels(backward(plan("gla", "linear")))
    assert main.reads == READS  # Y is not needed: the output is Y itself
    assert stores(main)["grad.g"] == ["d.a0  B T H N"]
    assert stores(main)["grad.q"] == ["chain(d.Q, 1 / sqrt(size(N)))  B T H N"]


def test_a_channel_on_triton_is_swept_where_a_read_contracts_it() -> None:
    """For a mask per N: Y and dV by sweeps, which save states; dQ, dK and the decays from those."""
    (k,) = kernels(forward(plan("gla", "chunked", target="triton")))
    assert (k.reads, k.carries, k.channel) == ((READ_Y,), (KV,), "N")
    made = backward(plan("gla", "chunked", target="triton"))
    assert {made.buffer(f"saved.{n}").dtype for n in ("KV", "QG")} == {"state"}
    states, grad_v, chunks = kernels(backward(plan("gla", "chunked", target="triton")))
    assert (states.reads, states.carries) == ((), (replace(KV, saves="saved.KV"),))
    assert (grad_v.reads, grad_v.carries) == (READS[2:], (replace(QG, saves="saved.QG"),))
    assert stores(grad_v) == {"grad.v": ["d.V  B T H P"]}
    assert chunks.reads == READS[:2]
    assert chunks.carries == (replace(KV, restores="saved.KV"), replace(QG, restores="saved.QG"))
    assert chunks.lane_grads == (LaneGrad(0, "d.a0"),)
    assert stores(chunks) == {
        "grad.q": ["chain(d.Q, 1 / sqrt(size(N)))  B T H N"], "grad.k": ["d.K  B T H N"],
        "grad.g": ["d.a0  B T H N"]}  # fmt: skip


PER_VALUE = str(smac.load("gla")).replace("TSN", "TSP").replace(
    'g = "B T H N"', 'g = "B T H P"').replace("P = 512", "P = 64")  # fmt: skip


def test_a_channel_per_value_turns_sweeps_and_chunks_around() -> None:
    """For a mask per P: Y from saved states; dQ and dK by sweeps; dV and the decays from states.
    An output that is not linear in Y has it made again."""
    text = PER_VALUE.replace('y = "Y"', 'y = "silu(Y) * v"')
    states, chunks = kernels(forward(plan(text, "chunked", state=True, target="triton")))
    assert states.carries == (
        replace(KV, initial="state.S0", final="state.ST", saves="saved.KV"),)  # fmt: skip
    assert (chunks.reads, chunks.carries) == ((READ_Y,), (replace(KV, restores="saved.KV"),))
    made = kernels(backward(plan(text, "chunked", target="triton")))
    assert [(k.name, tuple(r.out for r in k.reads)) for k in made] == [
        ("states", ()), ("output", ("Y",)), ("cotangent", ()), ("grad_q", ("d.Q",)),
        ("grad_k", ("d.K",)), ("chunks", ("d.V",)),
    ]  # fmt: skip
    assert made[3].carries == (KV,)  # its states are saved already
    assert made[4].carries == (replace(QG, saves="saved.QG"),)
    assert stores(made[5]) == {
        "grad.v": ["d.y * silu(Y) + d.V  B T H P"], "grad.g": ["d.a0  B T H P"]}


def test_toeplitz_goes_by_its_entry() -> None:
    (k,) = kernels(forward(plan("toeplitz", "quadratic")))
    assert (k.kind, k.carries, k.lanes) == ("tiles", (KV,), ())
    assert k.entry is not None
    assert k.support is not None
    assert (k.support.lo, k.support.hi) == (0, None)
    (main,) = kernels(backward(plan("toeplitz", "quadratic", back=True)))
    assert main.carries == (KV, QG)
    ((out, pattern, base),) = ((g.out, g.pattern, g.base) for g in main.gathers)
    assert (out, pattern, base) == ("d.m0.0", "lag", "m0")
    assert values(main)["m0"] == "h  W H"
    assert stores(main)["grad.h"] == ["d.m0.0  W H"]


def test_toeplitz_linear_is_a_convolution() -> None:
    (k,) = kernels(forward(plan("toeplitz", "linear")))
    assert k.kind == "fft"
    assert values(k)["h"] == "h  W H"


def test_ids_become_a_scan_and_a_reset() -> None:
    made = forward(plan("packed_ssd", "chunked", state=True))
    assert made.steps[0] == Scan("starts.ids", "starts", "ids", last="state.last")
    (k,) = kernels(made)
    assert k.lanes == (LaneIR("a0", reset="reset0"),)
    assert roles(made, "state")["state.last_out"] == "B"
    assert not any("ids" in name for name in roles(backward(plan("packed_ssd", "chunked")),
                                                   "gradient"))  # fmt: skip
    (scan,) = (s for s in forward(plan("packed_ssd", "quadratic")).steps if isinstance(s, Scan))
    assert scan.fn == "runs"


def test_for_triton_each_read_is_a_kernel_of_its_own() -> None:
    names = [k.name for k in kernels(backward(plan("ssd", "chunked", target="triton")))]
    assert names == ["output", "grad_q", "grad_k", "grad_v", "grad_mask", "grad_inputs"] or (
        names == ["output", "cotangent", "grad_q", "grad_k", "grad_v", "grad_mask", "grad_inputs"])


def test_factors_of_one_lane_go_into_operands_where_an_order_goes_by_lanes() -> None:
    text = str(smac.load("retnet")).replace('"decay(gamma)"', '"row(r) * decay(gamma)"')
    text = text.replace('gamma = "H"', 'gamma = "H"\nr = "B T H"')
    (by_lanes,) = kernels(forward(plan(text, "chunked")))
    assert values(by_lanes)["Q"] == "r * (q / sqrt(size(N)))  B T H N"
    assert by_lanes.lanes == (LaneIR("a0"),)
    (by_entry,) = kernels(forward(plan(text, "quadratic")))
    assert values(by_entry)["Q"] == "q / sqrt(size(N))  B T H N"


@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("schedule", ["sweep", "segmented"])
def test_a_number_beside_q_waits_for_reads_unless_others_see_the_state(
        schedule: str, state: bool) -> None:  # fmt: skip
    """dK and dV sweep Q ⊗ dY: of raw operands, where nobody else has that state."""
    text = """
smac = 1
name = "numbers"
[inputs]
q = "B T H N"
k = "B T H N"
v = "B T H P"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q / sqrt(size(N))"
K = "k"
V = "v"
L = "causal()"
[output]
y = "Y"
"""
    op = smac.compile(text, target="triton", order="chunked", chunk=64, schedule=schedule)
    sizes = {"T": 65536, "H": 4, "N": 64, "P": 64}
    made = emit(backward(op._plan(sizes, None, "h100", True, state, ())), "triton").text
    assert ("b_col0 = b_in0 * (1 / tl.sqrt(" in made) == state
    assert ("nothing reads what it adds" in made) == (schedule == "segmented")


def test_a_factor_of_each_value_is_refused() -> None:
    text = str(smac.load("gla")).replace('L = "', 'L = "row(g) * ').replace(
        "TSN->TP", "TSP->TP").replace('g = "B T H N"', 'g = "B T H P"')  # fmt: skip
    with pytest.raises(PlanError) as e:
        forward(plan(text, "chunked"))
    assert str(e.value) == (
        "gla: order='chunked' takes factors of rows and columns without P, found 'g'")


def test_walks_come_from_the_plan() -> None:
    made = smac.compile("retnet", order="chunked", chunk=16, target="torch").plan(device="cpu")
    (k,) = kernels(forward(made))
    assert k.walk == Walk(16, made.chosen.segment)
