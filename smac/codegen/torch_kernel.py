"""What every torch kernel block needs: loads, values, stores, as lines of code."""

from __future__ import annotations

from smac.codegen.letters import Letters
from smac.codegen.print_torch import Code, Scope
from smac.codegen.torch_names import Shapes, python
from smac.expr import Expr, Index, names, walk
from smac.ir import Kernel, Program, Store, Value


class KernelContext:
    """Lines shared by all kinds. Inside a walk, tokens t0 … t1 are in flight."""

    def __init__(self, k: Kernel, p: Program, shapes: Shapes) -> None:
        self.ir, self.program, self.shapes = k, p, shapes
        self.name, self.chunk, self.segment = k.name, k.walk.chunk, k.walk.segment
        self.channel = k.channel
        self.by_name = {v.name: v for v in k.values}
        self.batch = p.batch
        self.letters = Letters(self.batch, k.group)
        self.order = (*self.batch, "T", "S", "W", "H", *p.groups, "N", "P")
        self.scope = Scope(self.order, {g: f"n_H // n_{g}" for g in p.groups})
        self.buffers = {b.name: b for b in p.buffers}
        self.once: list[str] = []
        self.loaded: set[str] = set()
        self.sums: dict[str, Code] = {}

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
        code = f"{python(b)}{slices(b.axes)}{cast}" if along else f"{python(b)}{cast}"
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
        self.scope.define(key, f"t_{key}", (axis,))
        line = f"t_{key} = torch.arange({ends}, dtype=acc, device=device)"
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
        text = code.text
        if code.axes is None:
            ones = ", ".join("1" for _ in v.axes)
            text, code = f"torch.full(({ones}{',' if len(v.axes) == 1 else ''}), {text}, dtype=acc, device=device)", Code(text, v.axes)
        if tail is not None:
            text = tail.replace("@", text)
        elif text != v.name and code.axes != v.axes:
            text = self._widened(Code(text, code.axes), v.axes)
        lines.append(f"{v.name} = {text}")
        return lines

    def _tail(self, v: Value) -> str:
        """Code that puts one more column behind "@"."""
        assert v.tail is not None
        rest = tuple(a for a in v.axes if a != "P")
        code = self._summed(self.scope.code(v.tail), rest)
        if code.axes is None:
            return f"torch.nn.functional.pad(@, (0, 1), value={code.text})"
        return f"torch.cat([@, {self.scope.align(code, v.axes)}], -1)"

    def _widened(self, code: Code, axes: tuple[str, ...]) -> str:
        """`code` with the axes that it lacks as length 1 (they broadcast)."""
        index = [":" if a in (code.axes or ()) else "None" for a in axes]
        return f"{code.text}[{', '.join(index)}]"

    def _summed(self, code: Code, axes: tuple[str, ...]) -> Code:
        """`code` summed over the axes that `axes` lacks; heads into their groups."""
        if code.axes is None:
            return code
        text, own = code.text, list(code.axes)
        for g in self.scope.group:
            if g in axes and "H" in own and "H" not in axes:
                i = own.index("H")
                text = f"{text}.unflatten({i}, (n_{g}, -1))"
                own[i : i + 1] = [g, "H"]
        gone = [i for i, a in enumerate(own) if a not in axes]
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

    def tiled(self, name: str, axes: tuple[str, ...]) -> list[str]:
        """Lines that cut `name` into chunks and heads into groups."""
        lines = []
        if self.ir.group and "H" in axes:
            lines.append(f"{name} = {name}.unflatten({axes.index('H')}, (n_{self.ir.group}, -1))")
        if "T" in axes:
            lines.append(f"{name} = {name}.unflatten({axes.index('T')}, (-1, C))")
        return lines

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
        """Lines that evaluate and store (gradients add up)."""
        b = self.buffers[s.buffer]
        lines = self.load([s.expr], whole)
        code = self._partial(self.scope.code(s.expr), b.axes)
        lines += self.scope.take_lines()
        target = python(b) + (slices(b.axes) if "T" in b.axes and not whole else "[...]")
        text = self.scope.align(code, b.axes)
        lines.append(f"{target} {'+=' if b.role == 'gradient' else '='} {text}")
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


def slices(axes: tuple[str, ...]) -> str:
    """The index of the tokens in flight."""
    return f"[{':, ' * axes.index('T')}t0:t1]"

