"""Specs beyond the shipped ones, one feature each, with the orders that their masks allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

QKV = {"q": "B T H N", "k": "B T H N", "v": "B T H P"}
ALL = ("quadratic", "chunked", "linear")


@dataclass(frozen=True)
class Case:
    """A spec in pieces; `bare` inputs are log decays, which get −inf, −50, 0 and 0.3."""

    mask: str
    more: Mapping[str, str] = field(default_factory=dict)
    orders: tuple[str, ...] = ALL
    inputs: Mapping[str, str] = field(default_factory=lambda: QKV)
    axes: Mapping[str, str] = field(default_factory=dict)
    channel: str = ""
    operands: tuple[str, str, str] = ("q", "k", "v")
    output: Mapping[str, str] = field(default_factory=lambda: {"y": "Y"})
    bare: tuple[str, ...] = ()
    lags: str = "causal"

    def toml(self, name: str) -> str:
        """The spec's text."""
        q, k, v = self.operands
        return "\n".join([
            "smac = 1", f'name = "{name}"',
            "[axes]", *(f'{a} = "{kind}"' for a, kind in self.axes.items()),
            "[inputs]", *(f'{n} = "{a}"' for n, a in {**self.inputs, **self.more}.items()),
            "[contraction]", f'equation = "TN,SN,SP,TS{self.channel}->TP"',
            f'Q = "{q}"', f'K = "{k}"', f'V = "{v}"', f'L = "{self.mask}"',
            "[output]", *(f'{n} = "{e}"' for n, e in self.output.items()), "",
        ])  # fmt: skip


SSM = "semiseparable(log_decay = a)"
A, AG = {"a": "B T H"}, {"a": "B T G"}
GROUP = {"G": "group of H"}
QUADRATIC = ("quadratic",)


def heads(q: str, k: str, v: str, a: str, axes: Mapping[str, str] | None = None) -> Case:
    """A 1-SS spec whose operands carry heads as told."""
    inputs = {"q": q, "k": k, "v": v, "a": a}
    return Case(SSM, inputs=inputs, axes=axes or {}, bare=("a",))


CASES: dict[str, Case] = {
    # heads, in the paper's words: which operands carry H
    "multi_head": heads("B T H N", "B T H N", "B T H P", "B T H"),
    "multi_query": heads("B T H N", "B T N", "B T P", "B T H"),
    "multi_key": heads("B T N", "B T H N", "B T P", "B T H"),
    "multi_value": heads("B T N", "B T N", "B T H P", "B T H"),
    "grouped_value": heads("B T G N", "B T G N", "B T H P", "B T H", GROUP),
    "grouped_everything": heads("B T G N", "B T G N", "B T G P", "B T G", GROUP),
    "two_groups": heads("B T H N", "T G N", "B T F P", "T G", {**GROUP, "F": "group of H"}),
    "heads_in_output": Case(SSM, {"a": "B T G", "z": "B T H P"}, axes=GROUP, bare=("a",),
                            inputs={"q": "B T N", "k": "B T G N", "v": "B T P"},
                            output={"y": "Y * z"}),
    "decay_in_groups": heads("B T H N", "B T H N", "B T H P", "B T G", GROUP),
    # axes beyond and axes missing
    "batch_axis": heads("B E T H N", "E T H N", "B E T H P", "E T H", {"E": "batch"}),
    "no_batch": heads("T H N", "T H N", "T H P", "T H"),
    "no_heads": heads("B T N", "B T N", "B T P", "B T"),
    "operands_without_t": heads("H N", "B N", "B T H P", "H"),
    "no_state_axis": heads("B T H", "B T H", "B T H P", "B T H"),
    "no_value_axis": heads("B T H N", "B T H N", "B T H", "B T H"),
    "keys_of_ones": Case(SSM, A, operands=("q", "1", "v"), inputs={"q": "B T H N", "v": "B T H P"},
                         bare=("a",)),
    # outputs
    "outputs": Case(SSM, {**A, "z": "B T H P"}, bare=("a",),
                    output={"y": "Y * silu(z)", "twice": "2 * Y", "gate": "sigmoid(z)"}),
    "normalised": Case(SSM, A, bare=("a",), operands=("elu(q) + 1", "elu(k) + 1", "v"),
                       output={"y": "Y / (1 + Z)", "norm": "sqrt(1 + Z * Z)"}),
    # channels
    "per_key": Case(SSM, {"a": "B T H N"}, channel="N", bare=("a",)),
    "per_value": Case(SSM, {"a": "B T H P"}, channel="P", bare=("a",)),
    "per_value_shared": Case(SSM, {"a": "T P"}, channel="P", bare=("a",)),
    "per_key_document": Case(SSM + " * document(ids)", {"a": "B T H N", "ids": "B T"},
                             channel="N", bare=("a",)),
    "per_key_sum": Case(f"{SSM} + decay(g1)", {"a": "B T H N", "g1": "H"}, channel="N",
                        bare=("a",)),
    "per_value_sum": Case(f"{SSM} + causal()", {"a": "B T H P"}, channel="P", bare=("a",)),
    "shared_channels": Case(SSM, {"a": "H P"}, inputs={"q": "T N", "k": "T N", "v": "B T P"},
                            channel="P", bare=("a",)),
    # the algebra
    "causal": Case("causal()"),
    "decays": Case("decay(g1) + decay(g2)", {"g1": "H", "g2": "H"}),
    "scaled_sum": Case("w * semiseparable(log_decay = a) + causal()", {**A, "w": "H"}, bare=("a",)),
    "factors": Case(f"row(r) * col(c) * {SSM}", {**A, "r": "B T H", "c": "B T H"}, bare=("a",)),
    "factors_in_groups": Case(f"row(r) * col(c) * {SSM}", {**A, "r": "B T G", "c": "B T G"},
                              axes=GROUP, bare=("a",)),
    "lanes_with_factors": Case(f"row(r) * {SSM} + col(c) * decay(g1)",
                               {**A, "r": "B T H", "c": "B T H", "g1": "H"}, bare=("a",)),
    "document": Case("document(ids) * causal()", {"ids": "B T"}),
    "documents_gamma": Case("decay(g1) * document(ids)", {"g1": "H", "ids": "B T"}),
    "documents_number": Case("decay(0.5) * document(ids)", {"ids": "B T"}),
    "documents_decay": Case(f"document(ids) * {SSM}", {**A, "ids": "B T"}, bare=("a",)),
    "documents_diagonal": Case("diagonal(1) * document(ids)", {"ids": "B T"}),
    "documents_alone": Case("document(ids)", {"ids": "B T"}),
    "documents_both_ways": Case(f"document(ids) * ({SSM} + strict(transpose({SSM})))",
                                {**A, "ids": "B T"}, bare=("a",)),
    "circulant": Case("circulant(h)", {"h": "H W"}, ("quadratic", "linear")),
    "circulant_key": Case("circulant(h)", {"h": "W N"}, QUADRATIC, channel="N"),
    "circulants": Case("circulant(h) * circulant(f)", {"h": "G W", "f": "W"},
                       ("quadratic", "linear"), axes=GROUP),
    "levels": Case(f"(row(r) * level(0) + row(c) * level(1) + row(r) * level(5)) * {SSM}",
                   {**A, "r": "B T H", "c": "B T H"}, bare=("a",)),
    "levels_both_ways": Case("level(3) + strict(transpose(level(2) * decay(g1)))", {"g1": "H"}),
    "plane": Case("kron(decay(g1) + strict(transpose(decay(g1))), decay(g2) + "
                  "strict(transpose(decay(g2))), width = 5)", {"g1": "H", "g2": "H"}, QUADRATIC),
    "prefix": Case("prefix(5)"),
    "square_decay": Case("lag() * lag() * decay(0.7 * g1)", {"g1": "H"}),
    "distance": Case("0.1 * lag()"),
    "complex_decay": Case("decay(g1) * wave(w, phase = 0.3 * f)", {"g1": "H", "w": "H", "f": "H"}),
    "complex_decay_key": Case(f"{SSM} * wave(w)", {"a": "B T H N", "w": "H N"}, channel="N",
                              bare=("a",)),
    "complex_both_ways": Case("wave(w) * (decay(g1) + strict(transpose(decay(g1))))",
                              {"g1": "H", "w": "H"}),
    "turning": Case("wave(w, phase = 1)", {"w": "B H"}),
    "prefixes": Case("prefix(10 * p) * decay(0.5)", {"p": "B"}),
    "codes": Case("row(r) * col(c) * ones() + row(index(T)) * ones()",
                     {"r": "B T H", "c": "B T H"}),
    "toeplitz": Case("toeplitz(h)", {"h": "H W"}, ("quadratic", "linear")),
    "toeplitz_shared": Case("toeplitz(h)", {"h": "W"}, ("quadratic", "linear")),
    "toeplitz_groups": Case("toeplitz(h)", {"h": "G W"}, ("quadratic", "linear"), axes=GROUP),
    "bidirectional": Case("toeplitz(h, bidirectional = true)", {"h": "H W"},
                          ("quadratic", "linear"), lags="both"),
    "window_decay": Case("window(7) * decay(g1)", {"g1": "H"}, QUADRATIC),
    "window_ssm": Case(f"window(5) * {SSM}", A, QUADRATIC, bare=("a",)),
    "bonus": Case("shift(semiseparable(log_decay = a), 't') + diagonal(u)",
                  {"a": "B T H N", "u": "H N"}, channel="N", bare=("a",)),
    "strict": Case(f"strict({SSM})", A, bare=("a",)),
    "strict_decay": Case("strict(decay(g1)) + 2 * causal()", {"g1": "H"}),
    "strict_documents": Case(f"strict({SSM} * document(ids))", {**A, "ids": "B T"}, bare=("a",)),
    "strict_key": Case(f"strict({SSM})", {"a": "B T H N"}, channel="N", bare=("a",)),
    "strict_factors": Case(f"row(r) * strict(col(c) * {SSM}) + row(c) * decay(g1)",
                           {**A, "r": "B T H", "c": "B T H", "g1": "H"}, bare=("a",)),
    "shifted": Case(f"shift(col(c) * {SSM}, 't')", {**A, "c": "B T H"}, bare=("a",)),
    "shifted_value": Case(f"shift({SSM}, 't')", {"a": "B T H P"}, channel="P", bare=("a",)),
    "shifted_value_sum": Case(f"shift({SSM}, 't') + diagonal(u)", {"a": "B T H P", "u": "H"},
                              channel="P", bare=("a",)),
    "factors_key": Case(f"row(r) * {SSM} + col(c) * decay(g1)",
                        {"a": "B T H N", "r": "B T H", "c": "B T H N", "g1": "H"}, channel="N",
                        bare=("a",)),
    "factors_value": Case(f"row(r) * {SSM} + col(c) * decay(g1)",
                          {"a": "B T H P", "r": "B T H", "c": "B T H", "g1": "H"}, channel="P",
                          bare=("a",)),
    "mamba3_by_strict": Case(f"col(c) * {SSM} + col(b) * strict({SSM})",
                             {**A, "b": "B T H", "c": "B T H"}, bare=("a",)),
    "two_band": Case(f"col(c) * {SSM} + shift(col(b) * {SSM}, 's')",
                   {**A, "b": "B T H", "c": "B T H"}, bare=("a",)),
    "backwards": Case(f"{SSM} + strict(reverse(row(r) * {SSM} * document(ids)))",
                      {**A, "r": "B T H", "ids": "B T"}, bare=("a",)),
    "backwards_groups": Case(f"reverse(col(r) * shift({SSM}, 's'))", {**AG, "r": "T"},
                             axes=GROUP, bare=("a",), output={"y": "Y / (2 + Z * Z)"}),
    "backwards_key": Case(f"reverse(row(r) * {SSM})", {"a": "B T H N", "r": "B T H"},
                          channel="N", bare=("a",)),
    "moved_both_ways": Case(
        f"shift(row(r) * {SSM} + transpose(row(r) * semiseparable(log_decay = b)), 't') "
        f"+ shift(col(r) * transpose({SSM} * document(ids)), 's')",
        {**A, "b": "B T H", "r": "B T H", "ids": "B T"}, bare=("a", "b")),
    "both_ways": Case(f"{SSM} + strict(transpose(semiseparable(log_decay = b)))",
                      {**A, "b": "B T H"}, bare=("a", "b")),
    "both_ways_gated": Case(f"{SSM} + strict(transpose(semiseparable(log_decay = b)))",
                            {**A, "b": "B T H", "z": "B T H P"}, bare=("a", "b"),
                            operands=("elu(q) + 1", "elu(k) + 1", "v"),
                            output={"y": "Y * silu(z) / (1 + Z)", "twice": "2 * Y + z"}),
    "both_ways_key": Case(f"{SSM} + strict(transpose(row(r) * {SSM}))",
                          {"a": "B T H N", "r": "B T H"}, channel="N", bare=("a",)),
    "both_ways_value": Case(f"{SSM} + 2 * transpose(decay(g1))", {"a": "B T H P", "g1": "H"},
                            channel="P", bare=("a",)),
    "both_ways_groups": Case(f"row(r) * {SSM} + transpose({SSM} * document(ids))",
                             {**AG, "r": "B T G", "ids": "B T"}, axes=GROUP, bare=("a",)),
    "upper": Case(f"transpose({SSM})", A, bare=("a",)),
    "strictly_upper": Case(f"strict(transpose({SSM}))", A, bare=("a",)),
    "by_position": Case("causal() + strict(transpose(row(index(T)) * decay(g1)))", {"g1": "H"}),
    "fourier": Case("fourier('cos')", orders=("quadratic", "linear")),
    "fourier_sin": Case("fourier('sin')", orders=("quadratic", "linear"),
                        inputs={"q": "B T N", "k": "T G N", "v": "B T H P"}, axes=GROUP,
                        output={"y": "Y / (1 + Z * Z)"}),
    "formula": Case("entry('where(t >= s, exp(-(t - s) / 8) * (1 + mod(t, 3)), 0.25)')",
                    orders=QUADRATIC),
    "dense": Case("dense(M)", {"M": "H T S"}, QUADRATIC),
    "dense_transposed": Case("transpose(dense(M))", {"M": "T S"}, QUADRATIC),
    "dense_causal": Case("causal() * dense(M)", {"M": "B G T S"}, QUADRATIC, axes=GROUP),
}  # fmt: skip
#: Nonzero above the diagonal, or with lanes that read other tokens: no state between calls.
STATELESS = ("both_ways", "both_ways_gated", "both_ways_key", "both_ways_value", "upper",
             "both_ways_groups", "strictly_upper", "by_position", "documents_alone",
             "documents_both_ways", "prefix",
             "codes", "distance", "complex_both_ways", "turning",
             "levels_both_ways", "two_band", "backwards", "backwards_groups",
             "backwards_key", "moved_both_ways")  # fmt: skip
STATEFUL = tuple(n for n, c in CASES.items() if "chunked" in c.orders and n not in STATELESS)

#: Names that a careless printer would take for its own.
HOSTILE = """
smac = 1
name = "hostile"
[axes]
K = "group of H"
C = "batch"
[inputs]
Q = "B T K N"
device = "B T K N"
torch = "B C T H P"
t0 = "B T H"
acc = "H"
math = "H"
n_T = {axes = "B T H P", optional = true}
operand = {axes = "H", default = 0}
S0 = "H"
[let]
e0 = "softplus(t0 + operand)"
KV0 = "e0 * acc"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "Q"
K = "device"
V = "torch * e0 * S0"
L = "semiseparable(log_decay = KV0)"
[output]
d_y = "Y * given(n_T, silu(n_T), 1) + math * torch"
range = "Y * Y"
"""
