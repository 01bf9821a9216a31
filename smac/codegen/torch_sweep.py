"""Context of the chunked walk: einsum letters of its tiles, and the lines that depend on lanes.

Letters: b batch, c chunk, i row, j column, g r (or h) heads, n, p. A lane's tiles keep rows last,
so that sums along a chunk run over contiguous memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.codegen.letters import view
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
    late: bool
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
        of = self.letters.of
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
        self.late: list[str] = []  # lines between Y and the gradients
        self.scope.count(*(v.expr for v in k.values), *(s.expr for s in k.stores))
        operands = [v for v in k.values if v.name in ("Q", "K", "V")]
        self.packed = self.cut
        self.values = [line for v in operands for line in (*self.tiled(v), *self._emptied(v))]
        self.lanes = tuple(self._lane(i) for i in range(len(k.lanes)))
        factors = [f.letters for x in self.lanes for f in (x.read, x.write) if f]
        self._products([x.rows for x in self.lanes] + factors, batch, heads)
        carries = {c.name: c for c in k.carries}
        self.saves = _python(carries["KV"].saves)
        self.restores = _python(carries["KV"].restores)
        self.steps_of = {c.name: c for c in k.carries}
        self.restored = "".join(f"KV{x.i}, " for x in self.lanes).rstrip()
        self.reads_y = any(r.out == "Y" for r in k.reads)
        self.mask_grads = bool(k.lane_grads)
        #: One lane without factors: M is its E, and a product with it serves twice.
        self.plain = len(self.lanes) == 1 and not factors
        self.epilogue = self._epilogue()
        self.final = self.finals()

    @property
    def rests(self) -> bool:
        """Whether what rounding leaves out of a chunk's decay is added where states are carried."""
        return not self.packed

    def _products(self, lanes: list[str], batch: str, heads: str) -> None:
        """The letters of every product, given those of the lanes' decays and factors."""
        union = self.letters.union
        self.mask = _tile(union(*lanes, "i", order=self.lead + "i"))
        self.scores = _tile(union(self.q, self.k, order=self.lead + "i"))
        self.dscores = _tile(union(self.dy, self.v, order=self.lead + "i"))
        whole = union(self.q, self.k, self.v, *lanes, *([self.dy] if self.dy else []),
                      order=self.lead + "i")  # fmt: skip
        self.weights = _tile(self.lead + "i") if self.channel else _tile(whole)
        self.y_inside = union(self.weights.replace("j", ""), self.v, order=self.y)
        self.wide_q, self.wide_k = (
            union(x, *lanes, order=batch + "ci" + heads + "n") for x in (self.q, self.k)
        )
        self.wide_v, self.wide_dy = (
            union(x, *lanes, order=batch + "ci" + heads + "p") for x in (self.v, self.dy)
        )
        if self.channel == "N":
            self.kv = union(self.wide_k, self.v, order=self.state)
            self.qg = union(self.wide_q, self.dy, order=self.state)
        else:
            self.kv = union(self.k, self.wide_v, order=self.state)
            self.qg = union(self.q, self.wide_dy, order=self.state)

    def _shared(self) -> bool:
        """Whether Q and K are those of groups in every kernel of the program: N before the heads of
        a group then makes products with states plain matrices."""
        kernels = (s for s in self.program.steps if isinstance(s, Kernel))
        return not any("H" in v.axes for k in kernels for v in k.values if v.name in ("Q", "K"))

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
            texts = [self._along(v, x, rows) if x or len(parts) == 1 else v.name for v, x in parts]
            rows, code = self._decays(lane.decay, texts, rows)
        elif self.channel_letter:  # a channel's tiles want log decays, be they 0
            rows, code = "i" + self.channel_letter, "torch.zeros(C, 1, dtype=acc, device=device)"
        tile = _tile(rows.replace(self.channel_letter or "?", ""))
        chunk = rows.replace("i", "")
        return LaneTiles(
            i, code, rows, chunk, tile, self._factor(lane.read), self._factor(lane.write),
            lane.late, grads,
        )  # fmt: skip

    def _decays(self, decay: str | None, texts: list[str], rows: str) -> tuple[str, str]:
        """Letters and code of a lane's log decays; rows without a token do not decay."""
        if decay is None:
            code = f"_cut(torch.zeros_like({texts[0]}, dtype=acc), {texts[0]})"
        else:
            code = f"_cut({', '.join(texts)})"
        if not self.packed:
            return rows, code
        wide = self.letters.union(rows, "ci", order=self.tall)
        return wide, f"torch.where({view('live', 'ci', wide)}, {view(code, rows, wide)}, 0.0)"

    def _emptied(self, v: Value) -> list[str]:
        """A line that makes an operand zero where there is no token (V meets zeros of K)."""
        if not self.packed or v.name == "V":
            return []
        live = view("live", "ci", self.letters.of(v.axes))
        return [f"{v.name} = torch.where({live}, {v.name}, 0.0)"]

    def entering(self, carry: str, lane: int) -> str:
        """Code for the states that enter the chunks in flight where a sequence starts."""
        if self.steps_of[carry].initial is None:
            return "0.0"
        return f"first_{carry}{lane}.index_select(0, own[t0 // C : t1 // C])"

    def collects(self, carry: str) -> bool:
        """Whether the states that leave packed sequences are asked for."""
        return self.steps_of[carry].final is not None

    def sequences(self, carry: str, lane: int) -> list[str]:
        """Lines before the walk: what enters packed sequences, and room for what leaves them."""
        lines, c = [], self.steps_of[carry]
        if c.initial is not None:
            text, group = f"{_python(c.initial)}.select(-3, {lane})", self.ir.group
            if group:
                text += f".unflatten({self.buffer.index('g')}, (n_{group}, -1))"
            lines.append(f"first_{carry}{lane} = {view(text, self.buffer, self.carried)}")
        if c.final is not None:
            zeros = self.initial(carry, lane).replace("zeros(n_B", "zeros(n_SEQ + 1", 1)
            lines.append(f"end_{carry}{lane} = {zeros}")
        return lines

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
        wide = view(text, have, want.replace("i", ""), whole=True)
        return f"{wide}[{index}].expand({sizes})"

    def _factor(self, name: str | None) -> Factor | None:
        if name is None:
            return None
        v = self.by_name[name]
        self.values += self.tiled(v)
        return Factor(name, self.letters.of(v.axes))

    def initial(self, carry: str, lane: int) -> str:
        """Code for the state with which lane `lane` of `carry` starts, as letters `carried`; packed
        sequences bring theirs when they start (`entering`)."""
        c = next(c for c in self.ir.carries if c.name == carry)
        if c.initial is not None and not self.packed:
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
        name = "{0}{1}" if not self.packed else "end_{0}{1}[:n_SEQ]"
        for c in self.ir.carries:
            if c.final is not None:
                states = (name.format(c.name, x.i) for x in self.lanes)
                laid = (view(text, self.carried, self.buffer) for text in states)
                stack = ", ".join(f"{text}{group}" for text in laid)
                lines.append(f"{_python(c.final)} = torch.stack([{stack}], -3)")
        return lines

    def _epilogue(self) -> list[str]:
        """Lines after the products: Y named, outputs stored."""
        return [*self._named_y(), *(x for s in self.ir.stores for x in self.store(s))]

    def _named_y(self) -> list[str]:
        if not self.reads_y:
            return []
        return [f"Y = {self.flat('Y', (*self.batch, 'T', 'H', 'P'))}", *self.output()]


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
