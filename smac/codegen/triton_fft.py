"""Convolutions along T on Triton: pointwise kernels make the operands, torch.fft multiplies by L.

A kernel of kind "fft" becomes calls of the wrapper (triton_host.py: `spectrum`, `convolve`,
`correlate`) between kernels of pointwise.py.jinja. Operands are laid out alike for them: batch
axes, T (or W), heads (a group and the head within it), N, P, with length 1 where an axis lacks.

Non-goals: no kernel over lags, no transform but torch's, no states.
"""

from __future__ import annotations

from smac.codegen.triton_pointwise import PointStore, pointwise, row_and_column
from smac.codegen.triton_tiles import Tensor
from smac.codegen.triton_wrapper import Host
from smac.expr import At, Call, Expr, Name, Size, names, substitute, walk
from smac.ir import Kernel, Store

#: Functions that a read, and gradients, call; both call the first two.
_SHARED, _READ, _GRADIENTS = ("spectrum", "state_channels"), "convolve", ("correlate", "lags_of")


def convolution(host: Host, name: str, k: Kernel) -> tuple[Store, ...]:
    """The lines of a kernel of kind "fft"; answer its stores, over what they were put in."""
    f = _Fft(host, name, k)
    host.helpers |= {*_SHARED}
    f.start()
    reads = {r.out for r in k.reads}
    if "Y" in reads:
        host.helpers.add(_READ)
        f.read()
    if reads - {"Y"}:
        host.helpers |= {*_GRADIENTS}
        f.gradients()
    raw: dict[str, Expr] = {out: Name(made) for out, made in f.outs.items()}
    return tuple(Store(s.buffer, substitute(s.expr, raw), s.axes) for s in k.stores)


class _Fft:
    """One kernel's lines; `outs` are its results so far and the tensors that hold them."""

    def __init__(self, host: Host, name: str, k: Kernel) -> None:
        self.host, self.name, self.k = host, name, k
        self.values = {v.name: v for v in k.values}
        (self.symbol,) = (v for n, v in self.values.items() if n not in ("Q", "K", "V", "dY"))
        self.heads = ("H",) if k.group is None else (k.group, "H")
        self.at = len(host.layout.batch)
        self.tail = self.values["V"].tail is not None
        self.outs: dict[str, str] = {}
        self.made: dict[str, str] = {}
        self.wraps, self.middle = _shift(k)
        self.taps = self.length = self.spectrum = ""

    def start(self) -> None:
        """Operands, and the spectrum of the lags, long enough that nothing wraps around."""
        for n in ("Q", "K", "V"):
            self._operand(n)
        taps = self._tensor(self.symbol.expr, (*self.symbol.axes, "W"))
        length = "max(n_T, 1)" if self.wraps else "1 << max(2 * n_T - 1, 1).bit_length()"
        self.taps, self.length, self.spectrum = taps, self._fresh(), self._fresh()
        self.host.lines += [
            f"{self.length} = {length}",
            f"{self.spectrum} = spectrum({self._laid(taps)}, {self.at}, n_T, {self.length}, "
            f"{self.middle})",
        ]

    def read(self) -> None:
        """Y, and Z where V has a column more."""
        host = self.host
        axes = self._y_axes()
        sizes = [host.size(a) if a in axes else "1" for a in host.layout.batch]
        heads = [host.size(h) for h in self.heads[:1]] if "H" in axes else ["1"]
        if self.k.group is not None:
            heads.append(f"n_H // n_{self.k.group}")
        columns = f"n_P{' + 1' if self.tail else ''}" if "P" in axes else "1"
        wide = ", ".join([*sizes, "n_T", *heads, columns])
        own = ", ".join([*(host.size(a) for a in axes if a != "P"),
                         *([columns] if "P" in axes else [])])  # fmt: skip
        y = host.fresh("raw", axes)
        host.lines += [
            f"{y} = convolve({self._arguments('Q', 'K', 'V')})",
            f"{y} = {y}.expand({wide}).reshape({own})",
        ]
        self.outs["Y"] = y
        if self.tail:
            z = host.fresh("raw", tuple(a for a in axes if a != "P"))
            host.lines += [f"{z} = {y}[..., n_P]", f"{y} = {y}[..., :n_P]"]
            self.outs["Z"] = z

    def gradients(self) -> None:
        """d.Q, d.K, d.V and that of the lags: each summed to the operand's own axes."""
        self._operand("dY")
        lines, dh = self.host.lines, self._fresh()
        parts = {n: self.host.fresh("raw", self.values[n].axes) for n in ("Q", "K", "V")}
        lines.append(
            f"{parts['Q']}, {parts['K']}, {parts['V']}, {dh} = "
            f"correlate({self._arguments('Q', 'K', 'V', 'dY')})"
        )
        for n, part in parts.items():
            whole = f"({', '.join(self._sizes(n))},)" if self.values[n].axes else "()"
            lines.append(f"{part} = {part}.reshape({whole})")
            if n == "V" and self.tail:
                lines.append(f"{part} = {part}[..., :n_P]")
            self.outs[f"d.{n}"] = part
        for g in self.k.gathers:
            axes = self.host.known[self.taps].axes
            out = self.host.fresh("raw", axes)
            sizes = ", ".join(self.host.size(a) for a in axes)
            lines.append(f"{out} = lags_of({dh}, {self.length}, {self.at}, n_T, n_W, {self.middle})"
                         f".reshape({sizes})")  # fmt: skip
            self.outs[g.out] = out

    def _operand(self, n: str) -> None:
        """The operand called `n` as text, laid out; its column more behind the others."""
        v = self.values[n]
        hidden: dict[str, Expr] = {out: Name(made) for out, made in self.outs.items()}
        tensor = self._tensor(substitute(v.expr, hidden), v.axes)
        text = self._laid(tensor)
        if v.tail is not None:
            rest = tuple(a for a in v.axes if a != "P")
            column = self._laid(self._tensor(substitute(v.tail, hidden), rest))
            text = f"torch.cat([{text}, {column}], -1)"
        self.made[n] = self._fresh()
        self.host.lines.append(f"{self.made[n]} = {text}")

    def _tensor(self, e: Expr, axes: tuple[str, ...]) -> str:
        """A tensor that holds `e` over `axes`, in the accumulator's type."""
        host = self.host
        axes = host.canonical({*axes})
        if isinstance(e, Name) and host.known[e.id].axes == axes:
            made = host.fresh("raw", axes)
            host.lines.append(f"{made} = {host.variables[e.id]}.to(acc)")
            return made
        read = {a for n in names(e) for a in host.known[n].axes}
        whole = host.canonical({*axes, *read})
        _, column = row_and_column(whole)
        part = host.fresh("raw", tuple(a for a in whole if a != column or a in axes))
        host.allocate(part, "acc")
        host.launch(pointwise(f"{self.name}_{part}", host.layout, host.known, {}, whole,
                              [PointStore(part, e)]))  # fmt: skip
        if set(host.known[part].axes) == set(axes):
            return part
        made = host.fresh("raw", axes)
        host.lines.append(f"{made} = {host.summed(part, axes)}")
        return made

    def _laid(self, tensor: str) -> str:
        """`tensor` with every dimension of the layout."""
        t: Tensor = self.host.known[tensor]
        text, index = self.host.variables[tensor], []
        if self.k.group is not None and "H" in t.axes:
            text += f".unflatten({t.axes.index('H')}, (n_{self.k.group}, -1))"
        for a in (*self.host.layout.batch, "T", *self.heads, "N", "P"):
            own = {a, "W"} if a == "T" else {a, "H"} if a == self.k.group else {a}
            index.append(":" if own & {*t.axes} else "None")
        return text if "None" not in index else f"{text}[{', '.join(index)}]"

    def _sizes(self, n: str) -> list[str]:
        """Lengths of the operand called `n`."""
        more = " + 1" if n == "V" and self.tail else ""
        return [self.host.size(a) + (more if a == "P" else "") for a in self.values[n].axes]

    def _arguments(self, *operands: str) -> str:
        made = ", ".join(self.made[n] for n in operands)
        return f"{made}, {self.spectrum}, {self.length}, {self.at}, n_T"

    def _fresh(self) -> str:
        """A name that no tensor of the caller's has."""
        return self.host.fresh("fft", ())

    def _y_axes(self) -> tuple[str, ...]:
        """Axes that Y carries."""
        carried = {a for n, v in self.values.items() if n != "dY" for a in v.axes} | {"T"}
        if self.k.group in carried:
            carried.add("H")
        return self.host.canonical(carried & {*self.host.layout.batch, "T", "H", "P"})


def _shift(k: Kernel) -> tuple[bool, bool]:
    """Whether lags wrap around, and whether lag 0 is in the middle."""
    assert isinstance(k.entry, At)
    index = [e for i in k.entry.index for e in walk(i)]
    wraps = any(isinstance(e, Call) and e.fn == "mod" for e in index)
    return wraps, not wraps and any(isinstance(e, Size) for e in index)
