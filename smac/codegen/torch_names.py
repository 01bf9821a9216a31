"""Sizes and dtypes of a rendered function: read off its tensors at the top."""

from __future__ import annotations

from smac.expr import Expr, Size, names, walk
from smac.ir import SEQ, Buffer, Kernel, Move, Program


def python(b: Buffer) -> str:
    """The Python name of a buffer. Users' names get a prefix, names of our own lose their dots."""
    prefix = {"input": "in_", "output": "out_"}.get(b.role, "")
    return prefix + b.name.replace(".", "_")


def written_once(p: Program, b: Buffer) -> bool:
    """One store alone goes to `b` and reaches each token once: there is nothing to add up."""
    stores = [s for k in p.steps if isinstance(k, Kernel) for s in k.stores if s.buffer == b.name]
    more = any(isinstance(s, Move) and s.back and s.out == b.name for s in p.steps)
    return len(stores) == 1 and "T" in b.axes and not more


class Shapes:
    """Lines that define n_<axis> for every axis of a program, `operand`, `acc` and `device`.

    An axis that no input carries has length 1. Heads come as H, or from a group axis alone.
    """

    def __init__(self, p: Program) -> None:
        self.program = p
        inputs = [b for b in p.buffers if b.role in ("input", "state")]
        self.source: dict[str, str] = {}
        for b in inputs:
            if b.role == "state":
                continue
            for i, a in enumerate(b.axes):
                self.source.setdefault(a, f"{python(b)}.shape[{i}]")
        if p.packed:
            self.source[SEQ] = "cu_seqlens.shape[0] - 1"
        kernels = [s for s in p.steps if isinstance(s, Kernel)]
        self.groups = p.groups
        axes = dict.fromkeys(a for b in p.buffers for a in b.axes if a not in ("R", "C", "ENDS"))
        axes |= dict.fromkeys([*p.batch, "T", "W", "H", "N", "P"])
        axes |= {e.axis: None for k in kernels for x in _exprs(k) for e in walk(x)
                 if isinstance(e, Size)}  # fmt: skip
        self.lines = [f"n_{a} = {self._size(a)}" for a in axes]
        self.lines += [f"operand = {_operand(p, kernels)}"]
        self.lines += ["acc = torch.float64 if operand == torch.float64 else torch.float32"]
        self.lines += [f"device = {python(inputs[0])}.device"]

    def _size(self, axis: str) -> str:
        if axis in self.source:
            return self.source[axis]
        if axis in ("S", "W") and "T" in self.source:  # lags that no input carries are computed
            return self.source["T"]
        if axis == "H":
            return next((self.source[g] for g in self.groups if g in self.source), "1")
        return "1"

    def size(self, axis: str) -> str:
        """Code for the length of `axis`."""
        return f"n_{axis}"


def _exprs(k: Kernel) -> list[Expr]:
    found = [v.expr for v in k.values] + [v.tail for v in k.values if v.tail is not None]
    return [*found, *(s.expr for s in k.stores), *([k.entry] if k.entry is not None else []),
            *(g.weight for g in k.gathers), *(i for g in k.gathers for i in g.index)]  # fmt: skip


def _operand(p: Program, kernels: list[Kernel]) -> str:
    """Promotion of the inputs of Q, K and V that carry T."""
    inputs = {b.name: b for b in p.buffers if b.role == "input"}
    read: dict[str, None] = {}
    for k in kernels:
        for v in k.values:
            if v.name in ("Q", "K", "V"):
                read |= dict.fromkeys(n for n in sorted(names(v.expr)) if n in inputs)
    found = [n for n in read if "T" in inputs[n].axes] or list(read) or list(inputs)
    code = f"{python(inputs[found[0]])}.dtype"
    for n in found[1:]:
        code = f"torch.promote_types({code}, {python(inputs[n])}.dtype)"
    return code
