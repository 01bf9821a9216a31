"""Context of the quadratic order (and of FFT): the mask's entry as code on a tile, rows × columns.

On a tile, axis T is the row (letter i) and S the column (letter j); both come last, behind heads
and a channel. Bases of the entry are laid out alike, with T, W or T S last.
"""

from __future__ import annotations

from dataclasses import replace

from smac.codegen.letters import contract, reduce, view
from smac.codegen.print_torch import Code, Scope
from smac.codegen.torch_kernel import KernelContext
from smac.codegen.torch_names import Shapes
from smac.expr import At, Between, Call, Expr, Pos, Size, names, walk
from smac.ir import Gather, Kernel, Program
from smac.masks.band import empty, form
from smac.masks.base import Support

POSITIONS = frozenset({"T", "S", "W"})
#: The axis of heads within a group, on tiles of a kernel with a group.
WITHIN = "H within"


class TileScope(Scope):
    """Prints entries: positions are index vectors t and s, bases are tensors laid out for tiles.

    Of packed sequences, t and s count from where the tensors start as long as they index (`inside`
    is set, and nothing is remembered), else from where the sequence does, and T is its length."""

    packed: bool = False
    inside: bool = False

    def code(self, e: Expr) -> Code:
        return self._code(e) if self.packed and self.inside else super().code(e)

    def _code(self, e: Expr) -> Code:
        match e:
            case At() | Between() if self.wide:
                return self._doubled(self._narrow(e))
            case Pos(which):
                text = f"{which}_own" if self.packed and not self.inside else which
                return Code(text, ("T",) if which == "t" else ("S",), integer=True)
            case Size("T") if self.packed:
                return Code("n_own", ("T",), integer=True)
            case At(base, index):
                made = self.code(base)
                return self.at(made, index)
            case Between(base, low, high):
                made = self.code(base)
                axes = tuple(a for a in made.axes or () if a not in POSITIONS)
                text = f"_between({made.text}_prefix, {self.flat(low)}, {self.flat(high)})"
                return Code(text, (*axes, "T", "S"))
            case _:
                return super()._code(e)

    def _narrow(self, e: Expr) -> Code:
        """What an angle reads at positions: made as anywhere else."""
        self.wide = False
        try:
            return self.code(e)
        finally:
            self.wide = True

    def at(self, base: Code, index: tuple[Expr, ...]) -> Code:
        """`base` read at positions `index`."""
        before, self.inside = self.inside, True
        try:
            return self._at(base, index)
        finally:
            self.inside = before

    def place(self, e: Expr) -> Code:
        """A position as an index of tensors."""
        before, self.inside = self.inside, True
        try:
            return self.code(e)
        finally:
            self.inside = before

    def _at(self, base: Code, index: tuple[Expr, ...]) -> Code:
        own = base.axes or ()
        lead = tuple(a for a in own if a not in POSITIONS)
        along = [a for a in own if a in POSITIONS]
        if not along:
            return base
        codes = [self.code(i) for i in index]
        ends = "TS"[: len(along)] if len(along) == 2 else along[0]
        if len(codes) == 1:
            (c,) = codes
            return Code(f"{base.text}[..., {_inside(c.text, ends)}]", (*lead, *(c.axes or ())))
        t, s = (_inside(self.flat(i), "T") for i in index)
        return Code(f"{base.text}[..., {t}, {s}]", (*lead, "T", "S"))

    def flat(self, e: Expr) -> str:
        """A position as code of rank 2: [rows, 1] or [1, columns], as an index of tensors."""
        code = self.place(e)
        return f"{code.text}[:, None]" if code.axes == ("T",) else f"{code.text}[None, :]"


class TilesContext(KernelContext):
    """What templates/torch/tiles*.py.jinja and fft*.py.jinja read."""

    def __init__(self, k: Kernel, p: Program, shapes: Shapes) -> None:
        super().__init__(k, p, shapes)
        k = self.ir
        of, union = self.letters.of, self.letters.union
        axes = {v.name: v.axes for v in k.values}
        self.bases = [v for v in k.values if v.name not in ("Q", "K", "V", "dY")]
        batch, heads = "".join(self.letters.batch.values()), self.letters.heads
        self.lead = batch + heads
        self.channel_letter = {None: "", "N": "n", "P": "p"}[k.channel]
        self.q, self.k, self.v = (of(axes.get(n, ()), chunks=False) for n in "QKV")
        self.kj, self.vj = self.k.replace("i", "j"), self.v.replace("i", "j")
        self.dy = of(axes.get("dY", ()), chunks=False)
        self.y = batch + "i" + heads + "p"
        self.reads_y = any(r.out == "Y" for r in k.reads)
        self.scope.count(*(v.expr for v in k.values), *(s.expr for s in k.stores))
        self.values = self._operands()
        self.tile = TileScope((*p.batch, *self._heads(("H",)), "N", "P", "T", "S"))
        self.packed = self.tile.packed = p.packed
        self.values += self._bases()
        self.tile_axes = {v.name: self.tile.names[v.name].axes or () for v in self.bases}
        lead_letters = [
            self._letters(tuple(a for a in axes if a not in POSITIONS))
            for axes in self.tile_axes.values()
        ]
        full = union(self.q, self.k, self.v, self.dy, *lead_letters, order=self.lead)
        self.mask = full + self.channel_letter + "ij"
        self.weights = full + "ij"
        self.scores = union(self.q, self.k, order=self.lead) + "ij"
        self.dscores = union(self.dy, self.v, order=self.lead) + "ij"
        self.y_inside = union(self.weights.replace("j", ""), self.v, order=self.y)
        self.support = k.support or Support()
        self.late = self._late()
        self.gathers = k.gathers
        self.epilogue = self._epilogue()

    @property
    def columns(self) -> str:
        """Code for (first, last) columns that meet rows t0 … t1."""
        if empty(self.support):
            return "0, 0"
        hi, lo = self.support.hi, self.support.lo
        first = "0" if hi is None else f"min(max(0, t0 - {hi}), n_T)"
        last = "n_T" if lo is None else f"min(n_T, max(t1 - {lo}, 0))"
        return f"{first}, {last}"

    def slice(self, name: str, letters: str, ends: str = "t0:t1") -> str:
        """`name` at the rows of the tile (or the columns: ends "s0:s1")."""
        if "i" not in letters:
            return name
        return f"{name}[{':, ' * letters.index('i')}{ends}]"

    def zeros(self, name: str, letters: str) -> str:
        """Code for an accumulator like `name`, in its letters."""
        return f"torch.zeros_like({name})"

    def mask_code(self) -> list[str]:
        """Lines that make M on the tile."""
        assert self.ir.entry is not None
        return self._on_tile("M", self.ir.entry)

    def _on_tile(self, name: str, e: Expr) -> list[str]:
        code = self.tile.code(e)
        text = code.text
        if code.boolean:
            text = f"{text}.to(acc)"
        elif code.axes is None:
            text = f"torch.full((1, 1), {text}, dtype=acc, device=device)"
            code = Code(text, ("T", "S"))
        elif code.integer or any(isinstance(n, Pos | Between) for n in walk(e)):
            text = f"({text}).to(acc)"
        axes = tuple(code.axes or ())
        if "T" not in axes or "S" not in axes:
            wide = self.tile.union(Code("", axes), Code("", ("T", "S")))
            text = self.tile.align(replace(code, text=text), wide)
            axes = wide or ()
        have = self._letters(axes)
        laid = view(text, have, self.mask, True)
        if self.packed:
            laid = f"torch.where(same, {laid}, 0.0)"
        return [*self.tile.take_lines(), f"{name} = {laid}  # {self.mask}"]

    def _letters(self, axes: tuple[str, ...]) -> str:
        special = {"T": "i", "S": "j", "W": "w", WITHIN: "r"}
        return "".join(special.get(a) or self.letters.of((a,)) for a in axes)

    def _heads(self, axes: tuple[str, ...]) -> tuple[str, ...]:
        """`axes` with H as two: the group, and the head within it."""
        two = (self.ir.group, WITHIN) if self.ir.group else ("H",)
        return tuple(x for a in axes for x in (two if a == "H" else (a,)) if x is not None)

    def _operands(self) -> list[str]:
        lines: list[str] = []
        for v in self.ir.values:
            if v.name in ("Q", "K", "V"):
                lines += [*self.value(v, whole=True), *self._grouped(v.name, v.axes)]
        return lines

    def _grouped(self, name: str, axes: tuple[str, ...]) -> list[str]:
        if not (self.ir.group and "H" in axes):
            return []
        return [f"{name} = {name}.unflatten({axes.index('H')}, (n_{self.ir.group}, -1))"]

    def _bases(self) -> list[str]:
        """Lines that lay the mask's values out: heads, channel, then positions."""
        lines: list[str] = []
        nodes = walk(self.ir.entry) if self.ir.entry else ()
        between = {e.base for e in nodes if isinstance(e, Between)}
        for v in self.bases:
            lines += [*self.value(v, whole=True), *self._grouped(v.name, v.axes)]
            have = self.letters.of(v.axes, chunks=False)
            lead = tuple(a for a in v.axes if a not in POSITIONS)
            where = tuple(a for a in v.axes if a in POSITIONS)
            order = [have.index(x) for x in self._letters((*self._heads(lead), *where))]
            if order != sorted(order):
                lines.append(f"{v.name} = {v.name}.permute({', '.join(map(str, order))})")
            if any(n == v.name for b in between for n in names(b)):
                if not where:
                    lines.append(f"{v.name} = {v.name}.unsqueeze(-1).expand(*{v.name}.shape, n_T)")
                    where = ("T",)
                lines.append(f"{v.name}_prefix = _prefix({v.name})")
            axes = (*self._heads(lead), *where)
            self.tile.names[v.name] = Code(v.name, axes, integer=v.dtype == "int")
        return lines

    def _late(self) -> list[str]:
        """Lines between Y and the gradients: Y named, dY made."""
        if "dY" not in self.by_name:
            return []
        lines = self._named_y() if self.reads_y else []
        v = self.by_name["dY"]
        return [*lines, *self.value(v, whole=True), *self._grouped("dY", v.axes)]

    def _named_y(self) -> list[str]:
        lines = []
        if self.ir.group:
            i = self.y.index("g")
            sizes = ", ".join(f"n_H // n_{self.ir.group}" if x == "r" else "-1" for x in self.y)
            lines.append(f"Y = Y.expand({sizes}).flatten({i}, {i + 1})")
        return [*lines, *self.output()]

    def _epilogue(self) -> list[str]:
        lines: list[str] = []
        if "dY" not in self.by_name:
            lines += self._named_y()
        else:
            for name in ("Q", "K", "V"):
                v = self.by_name[name]
                lines += self._ungrouped(f"d{name}", v.axes)
                if v.tail is not None:
                    lines.append(f"d{name} = d{name}[..., :n_P]")
                self.scope.define(f"d.{name}", f"d{name}", v.axes)
            for g in self.gathers:
                lines += self._gathered(g)
        return lines + [x for s in self.ir.stores for x in self.store(s, whole=True)]

    def _ungrouped(self, name: str, axes: tuple[str, ...]) -> list[str]:
        if not (self.ir.group and "H" in axes):
            return []
        i = axes.index("H")
        return [f"{name} = {name}.flatten({i}, {i + 1})"]

    def _gathered(self, g: Gather) -> list[str]:
        """Lines that give a gather's result the axes of its base."""
        v, out = self.by_name[g.base], self.local(g)
        lines = []
        tile = self._letters(self.tile_axes[g.base])
        if g.pattern == "cut":
            lines.append(f"{out} = _prefix_grad({out}, {g.base})")
        have = tile
        if "T" not in v.axes and "i" in tile:
            lines.append(f"{out} = {out}.sum(-1)")
            have = tile.replace("i", "")
        want = self.letters.of(v.axes, chunks=False)
        order = [have.index(x) for x in want]
        if order != sorted(order):
            lines.append(f"{out} = {out}.permute({', '.join(map(str, order))})")
        lines += self._ungrouped(out, v.axes)
        self.scope.define(g.out, out, v.axes)
        return lines

    @staticmethod
    def local(g: Gather) -> str:
        """The Python name of a gather's result."""
        return g.out.replace(".", "_")

    def gather_start(self, g: Gather) -> str:
        """The accumulator of a gather."""
        out = self.local(g)
        if g.pattern == "cut":
            return f"{out} = torch.zeros_like({g.base}_prefix[0])"
        return f"{out} = torch.zeros_like({g.base})"

    def gather(self, g: Gather) -> list[str]:
        """Lines that add a tile's part to a gather. dL has the letters of `mask`."""
        out, lines = self.local(g), self._on_tile("weight", g.weight)
        lead = self._letters(tuple(a for a in self.tile_axes[g.base] if a not in POSITIONS))
        lines.append(f"W = {reduce('(dL * weight)', self.mask, lead + 'ij')}")
        codes = [self.tile.place(i) for i in g.index]
        along = [a for a in self.tile_axes[g.base] if a in POSITIONS]
        if g.pattern == "cut":
            low, high = (self.tile.flat(i) for i in g.index)
            return [*lines, f"{out} = _between_grad(W, {low}, {high}, {out})"]
        if g.pattern == "all" or not along:
            return [*lines, f"{out} = {out} + W.sum((-2, -1))"]
        if g.pattern in ("row", "col"):
            dim = -1 if g.pattern == "row" else -2
            index = _inside(codes[0].text, along[0])
            return [*lines, f"{out} = {out}.index_add(-1, {index}, W.sum({dim}))"]
        if g.pattern == "lag":
            tile, first = self._least(g.index[0])
            first = f"{first} if W.numel() else 0"
            return [*lines, f"{out} = {out} + _by_lag({tile}, {first}, {out}.shape[-1])"]
        t, s = (_inside(self.tile.flat(i), "T") for i in g.index)
        return [*lines, f"{out} = _at_grad(W, {t}, {s}, {out})"]

    @staticmethod
    def _least(index: Expr) -> tuple[str, str]:
        """A tile whose lags row − column rise with `index`, and the least index on it."""
        f = form(index)
        assert f is not None  # the adjoint law asked
        ends = "t0 - s1 + 1" if f.t > 0 else "s0 - t1 + 1"
        sizes = "".join(f" + {c} * n_{a}" for a, c in f.sizes)
        return "W" if f.t > 0 else "W.mT", f"{ends} + {f.const}{sizes}"

    def einsum(self, a: str, b: str, out: str) -> str:
        """The spec of a product of two tiles."""
        return contract(a, b, out)


def _inside(text: str, axis: str) -> str:
    """An index kept inside its axis: outside the support it is read and thrown away."""
    size = "n_T" if axis in ("T", "S") else f"n_{axis}"
    return f"({text}).clamp(0, {size} - 1)"


class FftContext(TilesContext):
    """What templates/torch/fft*.py.jinja read beside: the lag symbol `base`, taken whole."""

    @property
    def part(self) -> str:
        """ "cos" or "sin" where L is that part of the Fourier matrix, "" where it has a symbol."""
        return self.ir.entry.fn if isinstance(self.ir.entry, Call) else ""

    @property
    def base(self) -> str:
        """The name of the symbol's value: lags last."""
        return self.ir.gathers[0].base if self.ir.gathers else self.bases[0].name

    @property
    def base_letters(self) -> str:
        """Its letters, frequencies as rows."""
        return self._letters(self.tile_axes[self.base]).replace("w", "i")

    @property
    def spectrum(self) -> str:
        """Letters of the spectrum: those of Y, and behind them a channel N."""
        return self.y + ("n" if "n" in self.base_letters else "")

    @property
    def shift(self) -> str:
        """ "0" when lag 0 comes first, "mod" when lags wrap around, else it is in the middle."""
        assert isinstance(self.ir.entry, At)
        if any(isinstance(e, Call) and e.fn == "mod" for e in walk(self.ir.entry)):
            return "mod"
        return "T" if any(isinstance(e, Size) for e in walk(self.ir.entry)) else "0"

    def symbol_grad(self) -> list[str]:
        """Lines from the spectrum's gradient to that of the lags."""
        if not self.gathers:
            return []
        (g,) = self.gathers
        at = self.y.index("i")
        lags = self._letters(self.tile_axes[g.base]).replace("w", "i")
        dF = "torch.stack(dF, -1)" if "n" in lags else "dF"
        lines = [f"lags = {reduce(f'torch.fft.irfft({dF}, L, {at})', self.spectrum, lags)}"]
        if self.shift == "T":
            lines.append("lags = torch.roll(lags, n_T - 1, -1)[..., : max(2 * n_T - 1, 0)]")
        else:
            lines.append("lags = lags[..., :n_T]")
        lines.append(f"{self.local(g)} = torch.nn.functional.pad(lags, (0, n_W - lags.shape[-1]))")
        return lines
