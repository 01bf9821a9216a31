"""What every torch kernel block needs: loads, values, stores, as lines of code."""

from __future__ import annotations

from dataclasses import replace

from smac.codegen.letters import Letters
from smac.codegen.print_torch import Code, Scope, bare, closed
from smac.codegen.torch_names import Shapes, python, written_once
from smac.expr import Expr, Index, names, walk
from smac.ir import Kernel, Program, Store, Value

OPERANDS = ("Q", "K", "V", "dY")


class KernelContext:
    """Lines shared by all kinds. Inside a walk, tokens t0 … t1 are in flight."""

    def __init__(self, k: Kernel, p: Program, shapes: Shapes) -> None:
        self.order = (*p.batch, "T", "S", "W", "H", *p.groups, "N", "P")
        k = replace(k, values=tuple(self._widened(v, k) for v in k.values))
        self.ir, self.program, self.shapes = k, p, shapes
        self.name, self.chunk, self.segment = k.name, k.walk.chunk, k.walk.segment
        self.channel, self.mirrored = k.channel, k.walk.mirrored
        self.by_name = {v.name: v for v in k.values}
        self.batch = p.batch
        self.letters = Letters(self.batch, k.group)
        self.scope = Scope(self.order, {g: f"n_H // n_{g}" for g in p.groups})
        self.buffers = {b.name: b for b in p.buffers}
        self.cut = p.packed and k.kind == "chunked"
        #: The tokens in flight, as they are loaded and as they are stored.
        self.rows = ("at", "put") if self.cut else ("t0:t1", "t0:t1")
        if self.mirrored:
            self.rows = ("n_T - t1 : n_T - t0", "n_T - t1 : n_T - t0")
        self.once: list[str] = []
        self.loaded: set[str] = set()
        self.sums: dict[str, Code] = {}

    def _widened(self, v: Value, k: Kernel) -> Value:
        """Operands always have an axis T; Q and K share N, V has a channel's P: what they lack they
        repeat, so that each product has its gradient's axes."""
        if v.name not in OPERANDS:
            return v
        own = {*v.axes, "T"}
        if v.name in ("Q", "K"):
            others = {a for x in k.values if x.name in ("Q", "K") for a in x.axes}
            own |= {"N"} & {*others, k.channel}
        elif k.channel == "P":
            own.add("P")
        return replace(v, axes=tuple(a for a in self.order if a in own))

    def load(self, exprs: list[Expr], whole: bool = False) -> list[str]:
        """Lines that bring the buffers of `exprs` in, in the accumulator's type; those without T
        go to `once`. `whole`: all tokens rather than those in flight."""
        lines = []
        for e in exprs:
            for n in walk(e):
                if isinstance(n, Index):
                    lines += self._index(n.axis, whole)
            for name in sorted(names(e)):
                lines += self._buffer(name, whole)
        return lines

    def _buffer(self, name: str, whole: bool) -> list[str]:
        if name in self.loaded or name not in self.buffers or name in self.scope.names:
            return []
        self.loaded.add(name)
        b = self.buffers[name]
        cast = "" if b.dtype == "int" else ".to(acc)"
        along = "T" in b.axes and not whole
        local = f"t_{name.replace('.', '_')}"
        code = f"{python(b)}{cast}"
        if along:
            code = f"{python(b)}{slices(b.axes, self.rows[0])}{self.turned(b.axes)}{cast}"
        self.scope.define(name, local, b.axes)
        if not along:
            self.once.append(f"{local} = {code}")
            return []
        return [f"{local} = {code}"]

    def _index(self, axis: str, whole: bool) -> list[str]:
        key = f"index_{axis}"
        if key in self.scope.names:
            return []
        along = axis == "T" and not whole
        ends = "t0, t1" if along else f"n_{axis}"
        if along and self.mirrored:
            ends = "n_T - 1 - t0, n_T - 1 - t1, -1"
        self.scope.define(key, f"t_{key}", (axis,))
        line = f"t_{key} = torch.arange({ends}, dtype=acc, device=device)"
        if axis == "T" and "state.pos" in self.buffers:
            line += f" + {python(self.buffers['state.pos'])}"
        if not along:
            self.once.append(line)
            return []
        return [line]

    def value(self, v: Value, whole: bool = False) -> list[str]:
        """Lines that make `v`, with its axes in order (not yet cut into chunks)."""
        exprs = [v.expr] if v.tail is None else [v.expr, v.tail]
        lines = self.load(exprs, whole)
        code = self._summed(self.scope.code(v.expr), v.axes)
        tail = None if v.tail is None else self._tail(v)
        lines += self.scope.take_lines()
        text = self._spread(code, v, whole)
        if tail is not None:
            text = tail.replace("@", text)
        return [*lines, f"{v.name} = {text}"]

    def _spread(self, code: Code, v: Value, whole: bool) -> str:
        """`code` with the axes of `v`. Of those that it lacks, T, N and P are repeated (all of them
        where a tail has to fit behind); the others have length 1 and broadcast."""
        sizes = {a: f"n_{a}" for a in v.axes} | ({} if whole else {"T": "t1 - t0"})
        wide = v.axes if v.tail is not None else ("T", "N", "P")
        if code.axes is None:
            shape = "".join(f"{sizes[a] if a in wide else 1}, " for a in v.axes)
            return f"torch.full(({shape}), {bare(code.text)}, dtype=acc, device=device)"
        text = self.scope.align(code, v.axes)
        if code.boolean:
            text += ".to(acc)"
        lacking = {a for a in v.axes if a in wide and a not in code.axes}
        if lacking:
            text += f".expand({', '.join(sizes[a] if a in lacking else '-1' for a in v.axes)})"
        return bare(text)

    def _tail(self, v: Value) -> str:
        """Code that puts one more column behind "@"."""
        assert v.tail is not None
        rest = tuple(a for a in v.axes if a != "P")
        code = self._summed(self.scope.code(v.tail), rest)
        if code.axes is None:
            return f"torch.nn.functional.pad(@, (0, 1), value={code.text})"
        return f"torch.cat([@, {self.scope.align(code, v.axes)}], -1)"

    def _summed(self, code: Code, axes: tuple[str, ...]) -> Code:
        """`code` summed over the axes that `axes` lacks; heads into their groups."""
        if code.axes is None:
            return code
        text, own = code.text, list(code.axes)
        for g, heads in self.scope.group.items():
            if g in own and g not in axes and "H" in axes:
                i = own.index(g)
                text, own[i] = f"{text}.repeat_interleave({heads}, {i})", "H"
            if g in axes and "H" in own and "H" not in axes:
                i = own.index("H")
                text = f"{text}.unflatten({i}, (n_{g}, -1))"
                own[i : i + 1] = [g, "H"]
        gone = [i for i, a in enumerate(own) if a not in axes]
        if self.cut and "T" in own and "T" not in axes:
            behind = ", None" * (len(own) - own.index("T") - 1)
            text = f"torch.where({f'real[:{behind}]' if behind else 'real'}, {bare(text)}, 0.0)"
        if gone:
            text = f"{text}.sum({gone[0] if len(gone) == 1 else tuple(gone)})"
        return Code(text, tuple(a for a in own if a in axes))

    def _partial(self, code: Code, axes: tuple[str, ...]) -> Code:
        """`code` summed to `axes`, from an earlier sum of the same where there is one."""
        known = self.sums.get(code.text)
        if known is not None and not set(axes) <= set(known.axes or ()):
            return self._summed(code, axes)
        made = self._summed(known if known is not None else code, axes)
        if made.text != code.text and made.axes and known is None and code.text.isidentifier():
            local = f"{code.text}_sum"
            self.scope.lines.append(f"{local} = {made.text}")
            made = self.sums[code.text] = Code(local, made.axes)
        return made

    def tiled(self, v: Value) -> list[str]:
        """Lines that make `v`, heads in their groups and tokens in chunks."""
        *lines, last = self.value(v)
        cuts = ""
        if self.ir.group and "H" in v.axes:
            cuts += f".unflatten({v.axes.index('H')}, (n_{self.ir.group}, -1))"
        if "T" in v.axes:
            cuts += f".unflatten({v.axes.index('T')}, (-1, C))"
        text = last.removeprefix(f"{v.name} = ")
        return [*lines, f"{v.name} = {closed(text)}{cuts}" if cuts else last]

    def flat(self, name: str, axes: tuple[str, ...]) -> str:
        """Code that undoes `tiled`."""
        text = name
        if "T" in axes:
            i = axes.index("T")
            text += f".flatten({i}, {i + 1})"
        if self.ir.group and "H" in axes:
            i = axes.index("H")
            text += f".flatten({i}, {i + 1})"
        return text

    def store(self, s: Store, whole: bool = False) -> list[str]:
        """Lines that evaluate and store (several stores to a gradient add up)."""
        b = self.buffers[s.buffer]
        lines = self.load([s.expr], whole)
        code = self._partial(self.scope.code(s.expr), b.axes)
        lines += self.scope.take_lines()
        along = "T" in b.axes and not whole
        target = python(b) + (slices(b.axes, self.rows[1]) if along else "[...]")
        text = self.scope.align(code, b.axes)
        text = text + self.turned(b.axes) if along and code.axes and "T" in code.axes else text
        text = bare(text)
        adds = b.role in ("gradient", "sum") and not written_once(self.program, b)
        if self.cut and b.role == "output":  # an index by a tensor does not convert by itself
            text = f"{closed(text)}.to(operand)"
        lines.append(f"{target} {'+=' if adds else '='} {text}")
        return lines

    def output(self) -> list[str]:
        """Lines that name Y and Z for the stores, from the tile or tensor `Y`."""
        axes = (*self.batch, "T", "H", "P")
        tail = any(v.tail is not None for v in self.ir.values)
        self.scope.define("Y", "Y", axes)
        lines = []
        if tail:
            lines = ["Z = Y[..., n_P:]", "Y = Y[..., :n_P]"]
            self.scope.define("Z", "Z", axes)
        return lines

    def turned(self, axes: tuple[str, ...]) -> str:
        """What brings tokens between the walk's order and memory's."""
        return f".flip({axes.index('T') - len(axes)})" if self.mirrored else ""


def slices(axes: tuple[str, ...], rows: str) -> str:
    """The index of the tokens in flight, `rows` along T."""
    return f"[{':, ' * axes.index('T')}{rows}]"
