"""Counted flops against torch's own counter, on the same algorithms written out with bmm.

The programs below are an independent count: each product is a batched matmul on tensors without
storage, its heads found by broadcasting. (Rendered sources are counted where they are tested.)
"""

from __future__ import annotations

import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from smac.parse import load
from smac.plan import Plan, make
from smac.show import show

#: Outputs whose gradient reads Y.
AGAIN = ("Y / Z + z", "Y * z", "exp(Y) * 2 + z")
H_AXES = st.sampled_from(["", "G", "H"])
SPEC = """
smac = 1
name = "counted"
[axes]
G = "group of H"
[inputs]
q = "B T {q} N"
k = "B T {k} N"
v = "B T {v} P"
a = "B T {a}"
z = "B T H P"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q"
K = "k"
V = "v"
L = "semiseparable(log_decay = a)"
[output]
y = "{y}"
"""


@st.composite
def plans(draw: st.DrawFn, order: str, backward: bool) -> Plan:
    """A plan on the torch target: chunk and sizes drawn; heads, group or neither on an operand."""
    axes = {name: draw(H_AXES, label=name) for name in "qkva"}
    y = draw(st.sampled_from([*AGAIN, "Y + z", "2 * Y - z"]))
    chunk = draw(st.sampled_from([2, 4, 16, 64]))
    G = draw(st.integers(1, 3))
    sizes = {
        "B": draw(st.integers(1, 3)), "T": draw(st.integers(chunk + 1, 5 * chunk)),
        "G": G, "H": G * draw(st.integers(1, 3)), "N": draw(st.integers(1, 5)),
        "P": draw(st.integers(1, 5)),
    }  # fmt: skip
    event(f"again={y in AGAIN}")
    return make(load(SPEC.format(**axes, y=y)), sizes=sizes, dtype="float32", device="cpu",
                order=order, chunk=chunk, backward=backward)  # fmt: skip


class Machine:
    """The sizes of a plan, and batched products on tensors that have shapes only."""

    def __init__(self, p: Plan) -> None:
        s = dict(p.request.sizes)
        self.B, self.T, self.H, self.G, self.N, self.P = (s[a] for a in "BTHGNP")
        spec = p.request.spec
        (output,) = (show(e) for _, e in spec.output)
        self.P += "Z" in output
        own = {"": 1, "G": self.G, "H": self.H}
        self.heads = {}
        for i in spec.inputs:
            (key,) = {"H", "G"} & set(i.axes) or {""}
            self.heads[i.name] = own[key]
        self.again = output in AGAIN

    def common(self, names: str) -> int:
        """Heads of a product by broadcasting: group heads repeat to H."""
        n = 1
        for name in names:
            h = self.heads[name]
            n = max(n, h)
        return n

    def product(self, names: str, count: int, rows: int, inner: int, columns: int) -> None:
        """`count` products [rows, inner] × [inner, columns] for each batch and head of `names`."""
        n = self.B * self.common(names) * count
        a = torch.empty(n, rows, inner, device="meta")
        torch.bmm(a, torch.empty(n, inner, columns, device="meta"))


def chunked(m: Machine, C: int) -> None:
    c = -(-m.T // C)
    m.product("qk", c, C, m.N, C)
    m.product("qkva", c, C, C, m.P)
    m.product("kva", c, m.N, C, m.P)
    m.product("qkva", c, C, m.N, m.P)


def chunked_backward(m: Machine, C: int) -> None:
    c = -(-m.T // C)
    m.product("kva", c, m.N, C, m.P)  # states, forward
    m.product("kva", c, m.N, C, m.P)  # and again inside a segment
    m.product("qk", c, C, m.N, C)
    m.product("qkva", c, C, m.P, C)  # dY Vᵀ
    m.product("qk", c, C, C, m.N)  # dQ and dK, summed over a group's heads before
    m.product("qk", c, C, C, m.N)
    m.product("qkva", c, C, C, m.P)  # dV
    m.product("qkva", c, m.N, C, m.P)  # Q ⊗ dY
    m.product("qkva", c, C, m.P, m.N)
    m.product("qkva", c, C, m.P, m.N)
    m.product("qkva", c, C, m.N, m.P)
    if m.again:
        m.product("qkva", c, C, C, m.P)
        m.product("qkva", c, C, m.N, m.P)


def quadratic(m: Machine, C: int) -> None:
    for start in range(0, m.T, C):
        stop = min(start + C, m.T)
        m.product("qk", 1, stop - start, m.N, stop)
        m.product("qkva", 1, stop - start, stop, m.P)


def quadratic_backward(m: Machine, C: int) -> None:
    for start in range(0, m.T, C):
        stop = min(start + C, m.T)
        rows = stop - start
        m.product("qk", 1, rows, m.N, stop)
        m.product("qkva", 1, rows, m.P, stop)
        m.product("qk", 1, rows, stop, m.N)
        m.product("qk", 1, stop, rows, m.N)
        m.product("qkva", 1, stop, rows, m.P)
        if m.again:
            m.product("qkva", 1, rows, stop, m.P)


def counted(p: Plan, program: object) -> int:
    with FlopCounterMode(display=False) as counter:
        program(Machine(p), p.chunk)  # type: ignore[operator]
    return int(counter.get_total_flops())


@settings(max_examples=50)
@given(plans("chunked", False))
def test_chunked(p: Plan) -> None:
    assert p.order == "chunked"
    assert p.chosen.flops == counted(p, chunked)


@settings(max_examples=50)
@given(plans("chunked", True))
def test_chunked_backward(p: Plan) -> None:
    assert p.chosen.flops == counted(p, chunked_backward)


@settings(max_examples=50)
@given(plans("quadratic", False))
def test_quadratic(p: Plan) -> None:
    assert p.chosen.flops == counted(p, quadratic)


@settings(max_examples=50)
@given(plans("quadratic", True))
def test_quadratic_backward(p: Plan) -> None:
    assert p.chosen.flops == counted(p, quadratic_backward)
