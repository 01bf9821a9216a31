"""Context of the chunked walk: einsum letters of its tiles, and the lines that depend on lanes.

Letters: b batch, c chunk, i row, j column, g r (or h) heads, n, p. A lane's tiles keep rows last, so
that sums along a chunk run over contiguous memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.codegen.letters import contract, reduce, view
from smac.codegen.torch_kernel import KernelContext
from smac.codegen.torch_names import Shapes
from smac.ir import Kernel, LaneGrad, Program, Value


@dataclass(frozen=True, slots=True)
class Factor:
    """A row or column factor of a lane: its code in a segment, and its letters."""

    code: str
    letters: str


@dataclass(frozen=True, slots=True)
class LaneTiles:
    """Letters of a lane: `rows` of its decays (rows last, a channel behind), `chunk` without rows,
    `tile` of its C × C matrix. `code` is None for a lane that never decays."""

    i: int
    code: str | None
    rows: str
    chunk: str
    tile: str
    read: Factor | None
    write: Factor | None
    grads: LaneGrad | None

    @property
    def row_dim(self) -> int:
        """The dimension of rows in `rows`, from the end."""
        return self.rows.index("i") - len(self.rows)


class SweepContext(KernelContext):
    """What templates/torch/chunked*.py.jinja read."""

    def __init__(self, k: Kernel, p: Program, shapes: Shapes) -> None:
        super().__init__(k, p, shapes)
        k = self.ir
        of, union = self.letters.of, self.letters.union
        axes = {v.name: v.axes for v in k.values}
        batch, heads = "".join(self.letters.batch.values()), self.letters.heads
        self.buffer = batch + heads + "np"
        self.y = batch + "ci" + heads + "p"
        self.chunk_dim = len(batch)
        self.q, self.k, self.v = (of(axes.get(n, ())) for n in "QKV")
        self.kj, self.vj = self.k.replace("i", "j"), self.v.replace("i", "j")
        self.dy = of(axes.get("dY", ()))
        self.carried = batch + ("gnrp" if k.group and self._shared() else heads + "np")
        self.state = batch + "c" + self.carried.removeprefix(batch)
        self.lead = batch + "c" + heads
        self.channel_letter = {None: "", "N": "n", "P": "p"}[k.channel]
        self.tall = self.lead + "i" + self.channel_letter
        self.values, self.late = self._values()
        self.lanes = tuple(self._lane(i) for i in range(len(k.lanes)))
        factors = [f.letters for x in self.lanes for f in (x.read, x.write) if f]
        lane_letters = [x.rows for x in self.lanes] + factors
        self.mask = _tile(union(*lane_letters, "i", order=self.lead + "i"))
        self.scores = _tile(union(self.q, self.k, order=self.lead + "i"))
        self.dscores = _tile(union(self.dy, self.v, order=self.lead + "i"))
        whole = union(self.q, self.k, self.v, *lane_letters, *([self.dy] if self.dy else []),
                      order=self.lead + "i")  # fmt: skip
        self.weights = _tile(self.lead + "i") if k.channel else _tile(whole)
        self.y_inside = union(self.weights.replace("j", ""), self.v, order=self.y)
        wide = [x.rows for x in self.lanes] + factors
        self.wide_q, self.wide_k = (
            union(x, *wide, order=batch + "ci" + heads + "n") for x in (self.q, self.k)
        )
        self.wide_v, self.wide_dy = (
            union(x, *wide, order=batch + "ci" + heads + "p") for x in (self.v, self.dy)
        )
        if k.channel == "N":
            self.kv = union(self.wide_k, self.v, order=self.state)
            self.qg = union(self.wide_q, self.dy, order=self.state)
        else:
            self.kv = union(self.k, self.wide_v, order=self.state)
            self.qg = union(self.q, self.wide_dy, order=self.state)
        carries = {c.name: c for c in k.carries}
        self.saves = _python(carries["KV"].saves)
        self.restores = _python(carries["KV"].restores)
        self.restored = "".join(f"KV{x.i}, " for x in self.lanes).rstrip()
        self.reads_y = any(r.out == "Y" for r in k.reads)
        self.mask_grads = bool(k.lane_grads)
        #: One lane without factors: M is its E, and a product with it serves twice.
        self.plain = len(self.lanes) == 1 and not factors
        self.epilogue = self._epilogue()
        self.final = self.finals()

    def _shared(self) -> bool:
        """Whether Q and K are those of groups in every kernel of the program: N before the heads of
        a group then makes products with states plain matrices."""
        kernels = (s for s in self.program.steps if isinstance(s, Kernel))
        return not any("H" in v.axes for k in kernels for v in k.values if v.name in ("Q", "K"))

    def _values(self) -> tuple[list[str], list[str]]:
        """Lines of the operands, and of those that need Y first."""
        early: list[str] = []
        late: list[str] = []
        self.scope.count(*(v.expr for v in self.ir.values), *(s.expr for s in self.ir.stores))
        for v in self.ir.values:
            if v.name in ("Q", "K", "V"):
                early += self.tiled(v)
        return early, late

    def _lane(self, i: int) -> LaneTiles:
        lane = self.ir.lanes[i]
        grads = next((g for g in self.ir.lane_grads if g.lane == i), None)
        rows, code = "", None
        parts: list[tuple[Value, str]] = []
        for name in (lane.decay, lane.reset):
            if name is not None:
                v = self.by_name[name]
                self.values += self.tiled(v)
                parts.append((v, self._rows(v)))
        if parts:
            rows = self.letters.union(*(x for _, x in parts), order=self.tall)
            rows = rows if "i" in rows else _put_row(rows)
            texts = [self._along(v, x, rows) for v, x in parts]
            if lane.decay is None:
                code = f"_cut(torch.zeros_like({texts[0]}, dtype=acc), {texts[0]})"
            else:
                code = f"_cut({', '.join(texts)})"
        elif self.channel_letter:  # a channel's tiles want log decays, be they 0
            rows, code = "i" + self.channel_letter, "torch.zeros(C, 1, dtype=acc, device=device)"
        return LaneTiles(
            i, code, rows, rows.replace("i", ""), _tile(rows.replace(self.channel_letter or "?", "")),
            self._factor(lane.read), self._factor(lane.write), grads,
        )  # fmt: skip

    def _rows(self, v: Value) -> str:
        """Letters of a lane value with rows behind heads."""
        return self.letters.union(self.letters.of(v.axes), order=self.tall)

    def _along(self, v: Value, have: str, want: str) -> str:
        """Code of a lane value as letters `want`; one without T is the same in every row."""
        text = view(v.name, self.letters.of(v.axes), have)
        if "i" in have:
            return view(text, have, want)
        at = want.index("i")
        sizes = ", ".join("C" if x == "i" else "-1" for x in want)
        index = ", ".join("None" if x == "i" else ":" for x in want[: at + 1])
        wide = view(text, have, want.replace("i", ""))
        return f"{wide}[{index}].expand({sizes})"

    def _factor(self, name: str | None) -> Factor | None:
        if name is None:
            return None
        v = self.by_name[name]
        self.values += self.tiled(v)
        return Factor(name, self.letters.of(v.axes))

    def initial(self, carry: str, lane: int) -> str:
        """Code for the state with which lane `lane` of `carry` starts, as letters `carried`."""
        c = next(c for c in self.ir.carries if c.name == carry)
        if c.initial is not None:
            text, group = f"{_python(c.initial)}.select(-3, {lane})", self.ir.group
            if group:
                text += f".unflatten({self.buffer.index('g')}, (n_{group}, -1))"
            return view(text, self.buffer, self.carried)
        tail = " + 1" if any(v.tail is not None for v in self.ir.values) else ""
        sizes = {x: f"n_{a}" for a, x in self.letters.batch.items()}
        sizes |= {"h": "n_H", "n": "n_N", "p": f"n_P{tail}"}
        sizes |= {"g": f"n_{self.ir.group}", "r": f"n_H // n_{self.ir.group}"}
        shape = ", ".join(sizes[x] for x in self.carried)
        return f"torch.zeros({shape}, dtype=acc, device=device)"

    def finals(self) -> list[str]:
        """Lines that put the last states where they belong."""
        lines = []
        at = self.buffer.find("g")
        group = f".flatten({at}, {at + 1})" if self.ir.group else ""
        for c in self.ir.carries:
            if c.final is not None:
                states = (view(f"{c.name}{x.i}", self.carried, self.buffer) for x in self.lanes)
                stack = ", ".join(f"{text}{group}" for text in states)
                lines.append(f"{_python(c.final)} = torch.stack([{stack}], -3)")
        return lines

    def lane_inside(self, lane: LaneTiles) -> str:
        """Lines: gradients of a lane's values from the pairs inside a chunk."""
        assert lane.grads is not None
        g, i = lane.grads, lane.i
        full = self.letters.union(
            lane.tile, *(f.letters for f in (lane.read, lane.write) if f), "ij",
            order=self.lead + "ij",
        )  # fmt: skip
        if self.plain:
            lines = [f"W = {text}"] if (text := reduce("W", self.weights, full)) != "W" else []
        else:
            inside = f"(ws * {view(f'E{i}', lane.tile, self.weights)})"
            lines = [f"W = {reduce(inside, self.weights, full)}"]
        c, b = self._times(lane.read, "c", i, full), self._times(lane.write, "b", i, full, True)
        if g.decay:
            both = f"(W{c}{b})" if c or b else "W"
            lines.append(f"da{i} = _segments_grad({reduce(both, full, lane.tile)})")
        if g.read and lane.read:
            lines.append(f"dc{i} = {reduce(f'(W{b})' if b else 'W', full, lane.read.letters)}")
        if g.write and lane.write:
            columns = lane.write.letters.replace("i", "j")
            lines.append(f"db{i} = {reduce(f'(W{c})' if c else 'W', full, columns)}")
        return "\n    ".join(lines)

    @staticmethod
    def _times(f: Factor | None, name: str, i: int, want: str, column: bool = False) -> str:
        if f is None:
            return ""
        letters = f.letters.replace("i", "j") if column else f.letters
        return f" * {view(f'{name}{i}', letters, want)}"

    def between(self, lane: LaneTiles) -> list[str]:
        """Lines: what states give to the gradients, for one lane (S enters, G leaves a chunk)."""
        return {None: self._between, "N": self._between_n, "P": self._between}[self.channel](lane)

    def _between(self, lane: LaneTiles) -> list[str]:
        i, g, y = lane.i, lane.grads, self.y
        p = f" * {view(f'p{i}', lane.rows, y)}" if lane.code else ""
        r = f" * {view(f'r{i}', lane.rows, y)}" if lane.code else ""
        c, b = self._times(lane.read, "c", i, y), self._times(lane.write, "b", i, y)
        wide_r = f" * {view(f'r{i}', lane.rows, self.wide_v)}" if lane.code else ""
        wide_b = self._times(lane.write, "b", i, self.wide_v)
        lines = [
            f"dQ = dQ + torch.einsum({contract(self.wide_dy, self.state, self.q)}, dYp, Sin{i})",
            f"Vr = {view('V', self.v, self.wide_v)}{wide_r}{wide_b}  # {self.wide_v}",
            f"dK = dK + torch.einsum({contract(self.wide_v, self.state, self.k)}, Vr, G)",
            f"dVl = torch.einsum({contract(self.k, self.state, y)}, K, G){r}  # {y}",
            f"dV = dV + {reduce(f'(dVl{b})' if b else 'dVl', y, self.v)}",
        ]
        if g is None:
            return lines
        kept = y if self.channel == "P" else y.replace("p", "")
        total = "" if self.channel == "P" else ".sum(-1)"
        lines += [
            f"Yl = torch.einsum({contract(self.q, self.state, y)}, Q, Sin{i}){p}",
            f"row = ({view('dY', self.dy, y)} * Yl){total}  # {kept}",
            f"col = ({view('V', self.v, y)} * dVl){total}",
        ]
        return lines + self._sums(lane, kept, "np" if not self.channel else "n", c and self._times(
            lane.read, "c", i, kept), b and self._times(lane.write, "b", i, kept))  # fmt: skip

    def _between_n(self, lane: LaneTiles) -> list[str]:
        i, g = lane.i, lane.grads
        kept = self.y.replace("p", "n")
        p, r = (view(f"{x}{i}", lane.rows, kept) for x in "pr")
        wide_r = view(f"r{i}", lane.rows, self.wide_k)
        lines = [
            f"dQl = torch.einsum({contract(self.dy, self.state, kept)}, dY, Sin{i}) * {p}  # {kept}",
            f"dKl = torch.einsum({contract(self.v, self.state, kept)}, V, G) * {r}  # {kept}",
            f"dQ = dQ + {reduce('dQl', kept, self.q)}",
            f"dK = dK + {reduce('dKl', kept, self.k)}",
            f"dV = dV + torch.einsum({contract(self.wide_k, self.state, self.v)}, "
            f"{view('K', self.k, self.wide_k)} * {wide_r}, G)",
        ]
        if g is None:
            return lines
        lines += [f"row = {view('Q', self.q, kept)} * dQl", f"col = {view('K', self.k, kept)} * dKl"]
        return lines + self._sums(lane, kept, "p", "", "")

    def _sums(self, lane: LaneTiles, kept: str, gone: str, c: str, b: str) -> list[str]:
        """Gradients of a lane's values from rows, columns and whole states."""
        i, g = lane.i, lane.grads
        assert g is not None
        at, lines = kept.index("i"), []
        if g.decay:
            dims = tuple(self.state.index(x) for x in gone)
            left = "".join(x for x in self.state if x not in gone)
            through = f"(Sin{i} * G * x{i}).sum({dims if len(dims) > 1 else dims[0]})"
            total = f"_from(row{c}, {at}) + _before(col{b}, {at}) + {view(through, left, kept)}"
            lines.append(f"da{i} = da{i} + {reduce(f'({total})', kept, lane.rows)}")
        if g.read and lane.read:
            lines.append(f"dc{i} = dc{i} + {reduce('row', kept, lane.read.letters)}")
        if g.write and lane.write:
            lines.append(f"db{i} = db{i} + {reduce('col', kept, lane.write.letters)}")
        return lines

    def _epilogue(self) -> list[str]:
        """Lines after the products: Y named, cotangents made, gradients stored."""
        lines: list[str] = []
        full = (*self.batch, "T", "H", "P")
        if self.reads_y:
            lines += [f"Y = {self.flat('Y', full)}", *self.output()]
        if not self.dy:
            return lines + [x for s in self.ir.stores for x in self.store(s)]
        self.late = list(lines)
        v = self.by_name["dY"]
        self.late += self.tiled(v)
        lines = []
        for name in ("Q", "K", "V"):
            v = self.by_name[name]
            lines.append(f"d{name} = {self.flat(f'd{name}', v.axes)}")
            if v.tail is not None:
                lines.append(f"d{name} = d{name}[..., :n_P]")
            self.scope.define(f"d.{name}", f"d{name}", v.axes)
        for lane in self.lanes:
            lines += self._lane_results(lane)
        return lines + [x for s in self.ir.stores for x in self.store(s)]

    def _lane_results(self, lane: LaneTiles) -> list[str]:
        """Lines that give a lane's gradients the axes of their values, under their IR names."""
        if lane.grads is None:
            return []
        lines, ir = [], self.ir.lanes[lane.i]
        reset = ir.decay and f"da{lane.i}"
        for out, value, have, letters in (
            (lane.grads.decay, ir.decay, reset, lane.rows),
            (lane.grads.read, ir.read, f"dc{lane.i}", lane.read.letters if lane.read else ""),
            (lane.grads.write, ir.write, f"db{lane.i}", lane.write.letters if lane.write else ""),
        ):
            if out is None or value is None:
                continue
            axes = self.by_name[value].axes
            text = reduce(str(have), letters, self.letters.of(axes))
            local = out.replace(".", "_")
            lines.append(f"{local} = {text}")
            lines.append(f"{local} = {self.flat(local, axes)}")
            self.scope.define(out, local, axes)
        return lines


def _python(name: str | None) -> str | None:
    return name and name.replace(".", "_")


def _tile(rows: str) -> str:
    """Letters of a C × C tile over the letters of rows."""
    lead = "".join(x for x in rows if x not in "ijnp")
    return lead + "ij"


def _put_row(letters: str) -> str:
    """`letters` with a row: last, but before a channel."""
    if letters and letters[-1] in "np":
        return letters[:-1] + "i" + letters[-1]
    return letters + "i"
