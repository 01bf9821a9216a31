"""`smac new NAME`: a first spec, with a comment for everything that one may want to change.

Non-goals: no questions asked, no variants; what a spec may hold is checked by parse.py alone.
"""

from __future__ import annotations

from pathlib import Path

from smac.build import check_name
from smac.errors import SmacError
from smac.locate import Source

_TEXT = """\
smac  = 1                   # the version of this format
name  = "{name}"
about = "Retention of my own: say here, in a line, what it is"
# paper = "arXiv:0000.00000"

# Axes: B batch, T sequence, H heads, N state (keys), P value. More can be declared:
# [axes]
# G = "group of H"          # head h reads group h // (H/G)

[inputs]                    # the caller's tensors, in call order, with their axes
q     = "B T H N"
k     = "B T H N"
v     = "B T H P"
gamma = "H"                 # in (0, 1): how much of the past a token keeps
gate  = {{axes = "B T H P", optional = true}}      # may be left out of a call

# [let]                     # expressions used more than once
# scaled = "q / sqrt(size(N))"

[contraction]               # Y[t,p] = sum over s, n of L[t,s] Q[t,n] K[s,n] V[s,p]
equation = "TN,SN,SP,TS->TP"
Q = "q / sqrt(size(N))"     # pointwise maps are welcome: "elu(q) + 1"
K = "k"
V = "v"
# The mask. Others to try, each with the inputs that it names declared above:
#   causal()                                linear attention
#   semiseparable(log_decay = a)            a = "B T H", at most 0: Mamba-2
#   decay(gamma) + decay(slow)              two memories in one head
#   decay(gamma) * document(ids)            ids = "B T", integers: packed documents
#   toeplitz(h)                             h = "H W": a weight for each distance
L = "decay(gamma)"

[output]                    # Y is the contraction, Z the same with V = 1: y = "Y / Z" normalises
y = "Y * given(gate, silu(gate), 1)"

[sizes]                     # typical sizes: for plan, show, bench and check
T = 4096
H = 16
N = 64
P = 64
"""


def text(name: str) -> str:
    """The TOML of a spec called `name`. Raises SpecError where that is no name."""
    check_name(name, ("name",), Source("smac new"), reserved=False)
    return _TEXT.format(name=name)


def write(name: str, path: str | Path | None = None) -> Path:
    """Write `text(name)` to `path` (default: NAME.toml here), which must not exist yet.

    Raises SpecError for a bad name, SmacError where the file exists, OSError where it cannot be.
    """
    out = Path(path or f"{name}.toml")
    made = text(name)
    try:
        with out.open("x", encoding="utf-8") as f:
            f.write(made)
    except FileExistsError:
        raise SmacError(f"{out}: found a file of that name; it is left as it is: choose another "
                        "name, or remove it first") from None  # fmt: skip
    return out
