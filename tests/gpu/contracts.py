"""What target triton promises whatever the spec: layouts, sizes, heads, decays, precision.

`python tests/gpu/contracts.py [name …]` prints a JSON line a promise and order, on a GPU; without
one, interpreted (TRITON_INTERPRET=1), those of `SMALL` in float64. `--way` and `--dtype` leave out
the others, so that several processes can share what takes long to compile. Exit 1 where one is
broken.

Non-goals: specs and orders at large (run.py).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"

import smac  # noqa: E402

DEVICE = "cuda" if GPU else "cpu"
TYPES = (torch.bfloat16, torch.float32, torch.float64) if GPU else (torch.float64,)
#: The worst error that is allowed, relative to the root of the mean square.
BOUND = {torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-9}
WAYS = {"sweep": ("chunked", "sweep"), "chunks": ("chunked", "chunks"),
        "quadratic": ("quadratic", "auto"), "tokens": ("linear", "tokens")}  # fmt: skip
TEXT = """
smac = 1
name = "promise"
[axes]
G = "group of H"
[inputs]
q = "{q}"
k = "{k}"
v = "{v}"
a = "{a}"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q"
K = "k"
V = "v"
L = "semiseparable(log_decay = a)"
[output]
y = "Y"
"""
FULL = {"q": "B T H N", "k": "B T H N", "v": "B T H P", "a": "B T H"}
#: The patterns of heads: which operands are shared, and by whom.
HEADS = {
    "every head its own": {},
    "keys and values shared": {"k": "B T N", "v": "B T P"},
    "queries and values shared": {"q": "B T N", "v": "B T P"},
    "queries and keys shared": {"q": "B T N", "k": "B T N"},
    "keys and values of groups": {"k": "B T G N", "v": "B T G P"},
    "queries and keys of groups": {"q": "B T G N", "k": "B T G N"},
    "decays of groups": {"a": "B T G"}, "one decay": {"q": "B T H N", "a": "B T"},
}  # fmt: skip


def compiled(way: str, precision: str = "ieee", turn: str = "", **axes: str) -> smac.Op:
    """The op of TEXT with other `axes`, in one order and schedule; `turn` goes behind its mask."""
    order, schedule = WAYS[way]
    text = TEXT.format(**{**FULL, **axes}).replace("log_decay = a)", f"log_decay = a){turn}")
    if "G" not in text.split("[inputs]")[1].split("[contraction]")[0].replace('"', " ").split():
        text = text.replace('[axes]\nG = "group of H"\n', "")
    return smac.compile(text, target="triton", order=order, schedule=schedule,
                        precision=precision)  # fmt: skip


def drawn(op: smac.Op, dtype: torch.dtype, **sizes: int) -> dict[str, torch.Tensor]:
    """Inputs: normal, decays in (−1, 0)."""
    g = torch.Generator(DEVICE).manual_seed(0)
    made = {}
    for i in op.spec.inputs:
        shape = [sizes[a] for a in i.axes]
        x = torch.randn(shape, generator=g, device=DEVICE, dtype=torch.float32)
        made[i.name] = (-torch.sigmoid(x) if i.name == "a" else x).to(dtype)
    return made


def error(op: smac.Op, inputs: dict[str, torch.Tensor]) -> float:
    """The worst of the result and of all gradients, against the float64 oracle."""
    ours = {n: x.detach().requires_grad_() for n, x in inputs.items()}
    exact = {n: x.detach().double().requires_grad_() for n, x in inputs.items()}
    y, z = op(**ours), op.reference(**exact)
    dy = torch.randn(y.shape, generator=torch.Generator(DEVICE).manual_seed(1), device=DEVICE)
    a = torch.autograd.grad(y, list(ours.values()), dy.to(y.dtype))
    b = torch.autograd.grad(z, list(exact.values()), dy.to(y.dtype).double())
    return max(apart(p, q) for p, q in zip((y, *a), (z, *b), strict=True))


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The difference by the root of the mean square; NaN is infinite."""
    if a.shape != b.shape:
        return math.inf
    if not a.numel():
        return 0.0
    found = float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30))
    return found if found == found else math.inf


Found = Iterator[tuple[str, float, float]]


def heads() -> Found:
    """Every pattern of heads."""
    for about, axes in HEADS.items():
        for way in WAYS:
            for dtype in TYPES:
                op = compiled(way, **axes)
                x = drawn(op, dtype, B=2, T=70 if GPU else 19, H=4, G=2, N=24, P=20)
                yield f"{about}, {way} {dtype}", error(op, x), BOUND[dtype]


def decays() -> Found:
    """Log decays that grow, keep, nearly forget and reset."""
    for way in WAYS:
        for dtype in TYPES:
            op = compiled(way)
            x = drawn(op, dtype, B=1, T=150 if GPU else 37, H=2, N=16, P=16)
            for start, log in enumerate((0.25, 0.0, -50.0, -math.inf, -256.0)):
                x["a"].view(-1)[start::7] = log
            yield f"{way} {dtype}", error(op, x), BOUND[dtype]


def views() -> Found:
    """Heads of one fused projection, cut out of it and not copied: the bits of copies."""
    H, N, P, T = 2, 16, 32, 70 if GPU else 19
    for way in WAYS:
        for dtype in TYPES:
            op = compiled(way)
            x = drawn(op, dtype, B=2, T=T, H=H, N=N, P=P)
            fused = torch.cat([x[n].flatten(2) for n in "qkv"] + [x["a"]], -1)
            q, k, v, a = fused.split([H * N, H * N, H * P, H], -1)
            y = op(q=q.unflatten(-1, (H, N)), k=k.unflatten(-1, (H, N)),
                   v=v.unflatten(-1, (H, P)), a=a)  # fmt: skip
            yield f"{way} {dtype}", 0.0 if torch.equal(y, op(**x)) else math.inf, 0.0


def empty() -> Found:
    """No tokens, and one."""
    for way in WAYS:
        for T in (0, 1):
            op = compiled(way)
            yield f"{way} T = {T}", error(op, drawn(op, TYPES[0], B=2, T=T, H=2, N=4, P=4)), (
                BOUND[TYPES[0]])


def decoding() -> Found:
    """A prompt, then token by token, is the whole, though the mask reads positions; and so are
    replays of a CUDA graph of one step, whose position is a tensor."""
    sizes = {"B": 2, "H": 2, "N": 16, "P": 16}
    T, start = (70, 37) if GPU else (9, 6)
    for way in (w for w in WAYS if w in ("sweep", "tokens")):
        for dtype in TYPES:
            op = compiled(way, turn=" * wave(0.7, 0.2)")
            x = drawn(op, dtype, T=T, **sizes)
            y = op(**x)
            _, state = op(**{n: z[:, :start] for n, z in x.items()}, return_state=True)
            rows = []
            for t in range(start, T):
                row, state = op.step(state, **{n: z[:, t] for n, z in x.items()})
                rows.append(row)
            yield f"{way} {dtype}", apart(torch.stack(rows, 1), y[:, start:]), BOUND[dtype]
            if GPU:
                found = replayed(op, x, op.init_state(dtype=dtype, device=DEVICE, T=T, **sizes))
                yield f"{way} {dtype} in a graph", apart(found, y), BOUND[dtype]


def replayed(op: smac.Op, x: dict[str, torch.Tensor], state: smac.State) -> torch.Tensor:
    """All tokens, by replays of one captured step."""
    pos = torch.zeros((), dtype=torch.int64, device=DEVICE)
    state, one = replace(state, pos=pos), {n: z[:, 0].clone() for n, z in x.items()}
    op.step(state, **one)  # compiled and recorded outside
    graph, rows = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph):
        row, _ = op.step(state, **one, out_state=state)
    for t in range(x["q"].shape[1]):
        for n, z in x.items():
            one[n].copy_(z[:, t])
        graph.replay()
        rows.append(row.clone())
    return torch.stack(rows, 1)


def widths() -> Found:
    """N and P from 1 to 512, where the planner takes them."""
    for way in WAYS:
        for n, p in ((1, 1), (3, 512), (512, 3), (512, 512), (320, 200), (1, 130)):
            for dtype in TYPES:
                op = compiled(way)
                x = drawn(op, dtype, B=1, T=90, H=2, N=n, P=p)
                x["q"] = x["q"] / n**0.5
                try:
                    found = error(op, x)
                except smac.PlanError:
                    continue
                yield f"{way} N = {n} P = {p} {dtype}", found, BOUND[dtype]


def programs() -> Found:
    """65536 heads in all: those at the ends are what they are alone."""
    for way in WAYS:
        op = compiled(way)
        x = drawn(op, torch.bfloat16, B=1024, T=40, H=64, N=16, P=16)
        y = op(**x)
        for b in (0, 1023):
            alone = op(**{n: t[b : b + 1] for n, t in x.items()})
            yield f"{way} entry {b}", 0.0 if torch.equal(alone, y[b : b + 1]) else math.inf, 0.0


def large() -> Found:
    """More than 2³¹ elements of V: along T in chunks, along B in every order, both ways; of states
    too, in parallel chunks."""
    long = {"sweep": 16, "chunks": 64}
    cases = [(way, 2**19 + 256, 1, long[way]) for way in WAYS if way in long]
    cases += [(way, 64, 2**13 + 2, 16) for way in WAYS]
    for way, T, B, N in cases:
        op = compiled(way, q="B T N", k="B T N")
        x = drawn(op, torch.bfloat16, B=B, T=T, H=64, N=N, P=64)
        assert x["v"].numel() > 2**31
        x["a"] = x["a"] - 0.5  # nothing is left of it after 1024 tokens
        x["v"].requires_grad_()
        y = op(**x)
        (dv,) = torch.autograd.grad(y, x["v"], y.detach())
        # The last tokens of the last entry, from a piece that holds all that they see.
        rows, entry = slice(max(T - 1024, 0), T), slice(B - 1, B)
        part = {n: t.detach()[entry, rows] for n, t in x.items()}
        part["v"].requires_grad_()
        alone = op(**part)
        last = slice(-min(T, 256), None)
        (dv_alone,) = torch.autograd.grad(alone, part["v"], y.detach()[entry, rows])
        yield f"{way} T = {T} B = {B}", apart(y[entry, rows][:, last], alone[:, last]), 1e-2
        yield f"{way} T = {T} B = {B} dv", apart(dv[entry, rows][:, last], dv_alone[:, last]), 1e-2
        del x, y, dv, part, alone, dv_alone


def tf32() -> Found:
    """precision = "tf32" is what it says: worse than ieee and no worse than ten bits."""
    for way in (w for w in WAYS if w != "tokens"):
        found = {}
        for precision in ("ieee", "tf32"):
            op = compiled(way, precision)
            found[precision] = error(op, drawn(op, torch.float32, B=1, T=200, H=2, N=64, P=64))
        yield f"{way}", found["tf32"], 3e-3
        worse = found["tf32"] > 5 * found["ieee"]
        yield f"{way} is another precision", 0.0 if worse else math.inf, 0.0


SMALL: tuple[Callable[[], Found], ...] = (decays, views, empty, decoding)
LARGE: tuple[Callable[[], Found], ...] = (heads, widths, programs, large, tf32)


def main() -> int:
    """Those named, or all that run here."""
    known = {f.__name__: f for f in (SMALL + LARGE if GPU else SMALL)}
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(known))
    parser.add_argument("--way", choices=list(WAYS))
    parser.add_argument("--dtype", choices=[str(t).removeprefix("torch.") for t in TYPES])
    asked = parser.parse_args()
    if not known.keys() >= set(asked.names):
        parser.error(f"found {' '.join(asked.names)}; expected some of {', '.join(known)}")
    keep(asked.way, asked.dtype)
    broken = 0
    for name in asked.names or known:
        for about, found, bound in known[name]():
            right = found <= bound
            broken += not right
            line: dict[str, Any] = {"promise": name, "cell": about, "error": found, "right": right}
            print(json.dumps(line), flush=True)
            if GPU:
                torch.cuda.empty_cache()
    return int(broken > 0)


def keep(way: str | None, dtype: str | None) -> None:
    """Of WAYS and TYPES those alone."""
    global WAYS, TYPES
    WAYS = {w: x for w, x in WAYS.items() if way in (None, w)}
    TYPES = tuple(t for t in TYPES if dtype in (None, str(t).removeprefix("torch.")))


if __name__ == "__main__":
    sys.exit(main())
