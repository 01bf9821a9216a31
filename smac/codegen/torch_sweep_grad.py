"""The backward of the chunked walk, as lines: from pairs inside a chunk and states between.

S enters a chunk (K ⊗ V of the tokens before it), G leaves it (Q ⊗ dY of those behind it).
"""

from __future__ import annotations

from smac.codegen.letters import contract, reduce, view
from smac.codegen.torch_sweep import Factor, LaneTiles, SweepContext


class SweepGradContext(SweepContext):
    """What templates/torch/chunked_grad.py.jinja reads."""

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
            text = reduce(both, full, lane.tile)
            lines.append(f"da{i} = _segments_grad({_up(lane, text, -2)})")
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
            f"Vr = {view('V', self.v, self.wide_v, True)}{wide_r}{wide_b}  # {self.wide_v}",
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
        c, b = self._times(lane.read, "c", i, kept), self._times(lane.write, "b", i, kept)
        wide_b = self._times(lane.write, "b", i, self.wide_k)
        lines = [
            f"dQl = torch.einsum({contract(self.dy, self.state, kept)}, dY, Sin{i}) * {p}"
            f"  # {kept}",
            f"dKl = torch.einsum({contract(self.v, self.state, kept)}, V, G) * {r}  # {kept}",
            f"dQ = dQ + {reduce(f'(dQl{c})' if c else 'dQl', kept, self.q)}",
            f"dK = dK + {reduce(f'(dKl{b})' if b else 'dKl', kept, self.k)}",
            f"dV = dV + torch.einsum({contract(self.wide_k, self.state, self.v)}, "
            f"{view('K', self.k, self.wide_k, True)} * {wide_r}{wide_b}, G)",
        ]
        if g is None:
            return lines
        rows, columns = view("Q", self.q, kept), view("K", self.k, kept)
        lines += [f"row = {rows} * dQl", f"col = {columns} * dKl"]
        return lines + self._sums(lane, kept, "p", c, b)

    def _sums(self, lane: LaneTiles, kept: str, gone: str, c: str, b: str) -> list[str]:
        """Gradients of a lane's values from rows, columns and whole states."""
        i, g = lane.i, lane.grads
        assert g is not None
        at, lines = kept.index("i"), []
        if g.decay:
            dims = tuple(self.state.index(x) for x in gone)
            left = "".join(x for x in self.state if x not in gone)
            through = f"(Sin{i} * G * x{i}).sum({dims if len(dims) > 1 else dims[0]})"
            after = f"_from({_up(lane, f'row{c}', at)}, {at})"
            total = f"{after} + _before(col{b}, {at}) + {view(through, left, kept)}"
            lines.append(f"da{i} = da{i} + {reduce(f'({total})', kept, lane.rows)}")
        if g.read and lane.read:
            lines.append(f"dc{i} = dc{i} + {reduce('row', kept, lane.read.letters)}")
        if g.write and lane.write:
            lines.append(f"db{i} = db{i} + {reduce('col', kept, lane.write.letters)}")
        return lines

    def _epilogue(self) -> list[str]:
        """Lines after the products: gradients of operands and mask, then those of inputs."""
        v = self.by_name["dY"]
        self.late = [*self._named_y(), *self.tiled(v), *self._emptied(v)]
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
            if self.packed and "T" not in axes and out == lane.grads.decay:
                have = f"torch.where({view('live', 'ci', letters)}, {have}, 0.0)"
            text = reduce(str(have), letters, self.letters.of(axes))
            local = out.replace(".", "_")
            lines.append(f"{local} = {text}")
            lines.append(f"{local} = {self.flat(local, axes)}")
            self.scope.define(out, local, axes)
        return lines


def _up(lane: LaneTiles, text: str, dim: int) -> str:
    """Rows of a late lane at the decays that they have seen: those of the row before."""
    return f"_up({text}, {dim})" if lane.late else text
