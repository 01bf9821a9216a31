"""Specs beyond the shipped ones, for what the Triton templates must do: small, one feature each."""

from __future__ import annotations

_QKV = 'q = "B T H N"\nk = "B T H N"\nv = "B T H P"\n'


def spec(mask: str, more: str = "", *, name: str = "cell", y: str = "Y", mask_axes: str = "TS",
         axes: str = "", inputs: str = _QKV) -> str:  # fmt: skip
    """A spec of attention under `mask`, with `more` inputs."""
    return f"""
smac = 1
name = "{name}"
[axes]
{axes}
[inputs]
{inputs}{more}
[contraction]
equation = "TN,SN,SP,{mask_axes}->TP"
Q = "q"
K = "k"
V = "v"
L = "{mask}"
[output]
y = "{y}"
[sizes]
T = 64
H = 2
N = 16
P = 16
"""


_SHARED = 'q = "B T G N"\nk = "B T G N"\nv = "B T H P"\n'
_DECAY = 'a = "B T H"\n'
#: More lanes than programs have at once.
_NINE = " + ".join(f"decay(gamma * 0.{i})" for i in range(1, 10))
_HOSTILE = """smac = 1
name = "hostile"
[axes]
K = "group of H"
chunk = "batch"
[inputs]
op = "B chunk T H P"
tl = "B T K N"
n_T = "B T H N"
state = "B T H"
partial_1 = "H"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "n_T"
K = "tl"
V = "op * partial_1"
L = "semiseparable(log_decay = state)"
[output]
y = "Y * op"
[sizes]
T = 64
H = 2
N = 16
P = 16
""".replace("state", "decay_")

#: Name → (TOML, orders it is run in).
SPECS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bidirectional_toeplitz": (
        spec("toeplitz(h, bidirectional = true)", 'h = "H W"\n'), ("quadratic", "fft")),
    "lags_of_all_heads": (spec("toeplitz(h)", 'h = "W"\n'), ("quadratic", "fft")),
    "circulant": (spec("w * circulant(h)", 'w = "H"\nh = "H W"\n', y="tanh(Y) * v"), ("fft",)),
    "lags_normalised": (
        spec("toeplitz(exp(h))", 'h = "G W"\n', axes='G = "group of H"\nF = "group of H"',
             y="Y / maximum(abs(Z), 1)",
             inputs='q = "B T H N"\nk = "T G N"\nv = "B T F P"\n'), ("fft",)),
    "lags_per_channel": (
        spec("toeplitz(h)", 'h = "H N W"\n', mask_axes="TSN"), ("fft",)),
    "lags_per_value": (
        spec("toeplitz(h)", 'h = "H P W"\n', mask_axes="TSP",
             inputs='q = "B T H"\nk = "N"\nv = "B T H P"\n'), ("fft",)),
    "transposed_lags": (spec("transpose(toeplitz(h))", 'h = "H W"\n'), ("quadratic",)),
    "window_decay": (
        spec("window(19) * semiseparable(log_decay = a)", _DECAY), ("quadratic",)),
    "dense": (spec("dense(M)", 'M = "H T S"\n'), ("quadratic",)),
    "dense_transposed": (spec("transpose(dense(M))", 'M = "T S"\n'), ("quadratic",)),
    "document": (spec("document(ids)", 'ids = "B T"\n'), ("quadratic",)),
    "document_causal": (
        spec("document(ids) * causal()", 'ids = "B T"\n'), ("quadratic", "chunked", "linear")),
    "documents_of_heads": (
        spec("document(ids) * semiseparable(log_decay = a)", _DECAY + 'ids = "B T H"\n'),
        ("quadratic", "chunked")),
    # Masks without gradients, whose backward is sweeps alone.
    "plain": (spec("causal()"), ("chunked",)),
    "numbers": (spec("causal()").replace('"q"', '"q / sqrt(size(N))"').replace('"k"', '"-3 * k"'),
                ("chunked",)),
    "plain_both_ways": (
        spec("document(ids) * (causal() + strict(transpose(causal())))", 'ids = "B T"\n',
             y="tanh(Y / 8) * v", axes='G = "group of H"\nF = "group of H"',
             inputs='q = "B T G N"\nk = "T F N"\nv = "B T H P"\n'), ("chunked",)),
    "both_ways": (
        spec("semiseparable(log_decay = a) + strict(transpose(semiseparable(log_decay = b)))",
             _DECAY + 'b = "B T H"\n'), ("quadratic", "chunked", "linear")),
    # Two lanes above the diagonal, factors on both sides, a diagonal without a state.
    "quasi": (
        spec("col(c) * strict(semiseparable(log_decay = a)) + diagonal(u) "
             "+ strict(transpose(row(r) * semiseparable(log_decay = b) + decay(gamma)))",
             _DECAY + 'b = "B T H"\nc = "B T H"\nr = "B T H"\nu = "B T H"\ngamma = "H"\n'),
        ("chunked",)),
    "groups_both_ways": (
        spec("semiseparable(log_decay = a) + row(r) * strict(transpose(semiseparable(a)))",
             'a = "T G"\nr = "B T H"\n', y="Y * sigmoid(v)",
             axes='G = "group of H"\nF = "group of H"',
             inputs='q = "B T G N"\nk = "T F N"\nv = "B T H P"\n'), ("chunked",)),
    "gated_both_ways": (
        spec("semiseparable(log_decay = a) + strict(transpose(decay(gamma)))",
             _DECAY + 'gamma = "H"\n', y="tanh(Y) + v"), ("chunked",)),
    "documents_both_ways": (
        spec("document(ids) * (semiseparable(a) + strict(transpose(semiseparable(a))))",
             _DECAY + 'ids = "B T"\n'), ("chunked",)),
    "backward": (
        spec("strict(transpose(row(r) * semiseparable(log_decay = a)))",
             _DECAY + 'r = "B T H"\n'), ("chunked",)),
    "diagonals": (spec("diagonal(u) + strict(transpose(decay(gamma)))",
                       'u = "B T H"\ngamma = "H"\n'), ("chunked",)),
    "before_and_own": (
        spec("shift(semiseparable(log_decay = a), 't') + diagonal(u)",
             _DECAY + 'u = "B T H"\n'), ("chunked", "linear")),
    # Lanes of every kind in turn: with resets, late, above the diagonal, and a diagonal.
    "many_lanes": (
        spec(f"row(r) * semiseparable(a) * document(ids) * ({_NINE}) "
             "+ col(r) * strict(decay(gamma)) + diagonal(u) "
             "+ strict(transpose(row(u) * semiseparable(a) + decay(gamma)))",
             _DECAY + 'gamma = "H"\nids = "B T"\nr = "B T H"\nu = "B T H"\n'), ()),
    "many_of_groups": (
        spec(_NINE, 'gamma = "G"\n', y="tanh(Y / 64) * v",
             axes='G = "group of H"\nF = "group of H"',
             inputs='q = "B T G N"\nk = "T F N"\nv = "B T H P"\n'), ()),
    "backwards": (
        spec("semiseparable(log_decay = a) "
             "+ strict(reverse(row(r) * semiseparable(log_decay = a) * document(ids)))",
             _DECAY + 'r = "B T H"\nids = "B T"\n'), ("chunked",)),
    "rwkv6": (
        spec("shift(semiseparable(log_decay = g), 't') + diagonal(u)",
             'g = "B T H N"\nu = "H N"\n', mask_axes="TSN"), ("quadratic", "chunked", "linear")),
    "late_per_value": (
        spec("shift(semiseparable(log_decay = f), 't') + diagonal(u)",
             'f = "B T H P"\nu = "H P"\n', mask_axes="TSP"), ("chunked",)),
    "strict_channel": (
        spec("strict(semiseparable(log_decay = g))", 'g = "B T H N"\n', mask_axes="TSN",
             y="Y / maximum(abs(Z), 1)"), ("chunked",)),
    "channel_and_own": (
        spec("semiseparable(log_decay = g) + diagonal(u)", 'g = "B T H N"\nu = "T N"\n',
             mask_axes="TSN"), ("chunked",)),
    "mamba3_by_shift": (
        spec("col(c) * semiseparable(log_decay = a) "
             "+ shift(col(b) * semiseparable(log_decay = a), 's')",
             _DECAY + 'b = "B T H"\nc = "B T H"\n'), ("chunked", "quadratic")),
    # Found to be cumulative(c): its lane reads the token before.
    "differences": (spec("entry('where(t >= s, exp(c[t] - c[s]), 0)')", 'c = "B T H"\n'),
                    ("quadratic", "chunked")),
    "factors": (
        spec("row(r) * col(c) * semiseparable(log_decay = a)",
             _DECAY + 'r = "B T H"\nc = "B T H"\n'), ("quadratic", "chunked", "linear")),
    "channel_p": (
        spec("semiseparable(log_decay = f)", 'f = "B T H P"\n', mask_axes="TSP"),
        ("quadratic", "linear", "chunked")),
    "channel_groups": (
        spec("row(r) * semiseparable(log_decay = g)", 'g = "B T G N"\nr = "B T H"\n',
             mask_axes="TSN", axes='G = "group of H"',
             inputs='q = "B T G N"\nk = "B T G N"\nv = "B T H P"\n'), ("chunked", "linear")),
    "channel_of_groups": (
        spec("semiseparable(log_decay = g)", 'g = "T G N"\n', mask_axes="TSN",
             axes='G = "group of H"', y="Y * sigmoid(v)",
             inputs='q = "B T G N"\nk = "B T G N"\nv = "B T H P"\n'), ("chunked",)),
    "channel_shared": (
        spec("semiseparable(log_decay = f)", 'f = "T P"\n', mask_axes="TSP",
             axes='G = "group of H"\nF = "group of H"',
             inputs='q = "B T H N"\nk = "T G N"\nv = "B T F P"\n'), ("chunked",)),
    "channel_documents": (
        spec("document(ids) * semiseparable(log_decay = g) * decay(gamma)",
             'g = "B T H N"\ngamma = "H"\nids = "B T"\n', mask_axes="TSN"), ("chunked",)),
    "channel_normalised": (
        spec("semiseparable(log_decay = g)", 'g = "B T H N"\n', mask_axes="TSN",
             y="Y / maximum(abs(Z), 1)"), ("chunked",)),
    "channel_gated": (
        spec("semiseparable(log_decay = f)", 'f = "B T H P"\n', mask_axes="TSP",
             y="tanh(Y) + v"), ("chunked",)),
    "channel_constant": (
        spec("decay(gamma)", 'gamma = "H N"\n', mask_axes="TSN", y="Y * silu(v)"), ("chunked",)),
    "hgrn": (
        spec("semiseparable(log_decay = f)", 'f = "B T H P"\n', mask_axes="TSP",
             inputs='q = "B T H"\nv = "B T H P"\n').replace('K = "k"', 'K = "1"').replace(
            '"v"', '"(1 - exp(f)) * v"'), ("chunked",)),
    "mamba1": (
        spec("semiseparable(log_decay = -exp(A) * softplus(d))",
             'A = "H N"\nd = "B T H"\nD = "H"\n', mask_axes="TSN", y="Y + D * v",
             inputs='q = "B T N"\nk = "B T N"\nv = "B T H"\n').replace(
            'V = "v"', 'V = "softplus(d) * v"'), ("chunked", "linear")),
    # Positions wherever they may stand: operands, decays, factors, a Fenwick tree, the output.
    "clock": (
        spec("decay(gamma) * wave(0.4, 1) + semiseparable(where(index(T) % 3 == 0, -1000, -0.1)) "
             "+ row(1 + 1 / (1 + index(T))) * strict(level(1))", 'gamma = "H"\n',
             y="Y / (2 + Z * Z) + cos(index(T))").replace(
            'Q = "q"', 'Q = "q * sin(index(T))"').replace('K = "k"', 'K = "k * cos(index(T))"'),
        ("chunked",)),
    "clock_channel": (
        spec("col(cos(index(T))) * row(1 + sin(w * index(T))) * semiseparable(log_decay = a)",
             'a = "B T H N"\nw = "H"\n', mask_axes="TSN"), ("chunked",)),
    "fourier": (spec("fourier('cos')"), ("quadratic",)),
    # Angles of 10⁶ at T = 37, which float32 has no fractions of a turn for.
    "fast_wave": (
        spec("decay(gamma) * wave(40000.7)", 'gamma = "H"\n'), ("quadratic",)),
    "formula": (
        spec("entry('where(t >= s, where(mod(t - s, 3) == 0, exp(-(t - s) / 8), 0.25), 0)')"),
        ("quadratic",)),
    "scaled": (spec("w * causal()", 'w = "H"\n'), ("quadratic", "chunked")),
    "normalised_decay": (
        spec("decay(gamma)", 'gamma = "H"\n', y="Y / maximum(abs(Z), 1)"),
        ("quadratic", "chunked", "linear")),
    "three_lanes": (
        spec("row(r) * semiseparable(log_decay = a) + w * decay(gamma) * document(ids) + causal()",
             _DECAY + 'r = "B T H"\nw = "H"\ngamma = "H"\nids = "B T"\n'),
        ("quadratic", "chunked")),
    "two_lanes_normalised": (
        spec("semiseparable(log_decay = a) + decay(gamma)", _DECAY + 'gamma = "H"\n',
             y="Y / maximum(abs(Z), 1)"), ("chunked",)),
    "hostile_names": (_HOSTILE, ("quadratic", "chunked", "linear")),
    # Q and K that heads share, factors of theirs too, under lanes on both sides.
    "shared_factors": (
        spec("row(r) * semiseparable(log_decay = a) + strict(transpose(decay(gamma)))",
             _DECAY + 'r = "B T H"\ngamma = "H"\n', y="r * Y", axes='G = "group of H"',
             inputs=_SHARED).replace('Q = "q"', 'Q = "q * sin(1 + index(T))"').replace(
            'K = "k"', 'K = "k * cos(index(T))"').replace('V = "v"', 'V = "v * a"'), ()),
    "shared_lanes": (
        spec(f"{_NINE} + strict(transpose(row(r) * semiseparable(log_decay = a)))",
             _DECAY + 'r = "B T H"\ngamma = "H"\n', axes='G = "group of H"',
             inputs=_SHARED), ()),
    "shared_keys": (  # and no gradient of Q
        spec(_NINE, 'gamma = "H"\n', axes='G = "group of H"',
             inputs='k = "B T G N"\nv = "B T H P"\n').replace(
            'Q = "q"', 'Q = "cos(index(T) + index(N))"'), ()),
    "groups_everywhere": (
        spec("semiseparable(log_decay = a)", 'a = "T G"\n',
             axes='G = "group of H"\nF = "group of H"',
             inputs='q = "B T H N"\nk = "T G N"\nv = "B T F P"\n'),
        ("quadratic", "chunked", "linear")),
}  # fmt: skip
