"""What each function of the mask language takes: enough to parse and check it, no laws.

A mask defined outside SMAC becomes parsable by `register_signature`. Non-goals: what a mask means.
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import Num

KINDS = ("expr", "mask", "choice", "flag", "formula")


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter: `kind` is one of `KINDS`.

    For kind "expr": `allows` are the axes among T, S, W that the expression may carry, `carries`
    those it must; `form` "name" asks for a bare input, "static" for numbers and sizes only,
    "levels" for the axis that is declared as "levels of T", which nothing else takes.
    For "choice": the strings in `choices`. `default` (choice, flag, number) makes it optional.
    `hint` ends the message when the axes do not fit.
    """

    name: str
    kind: str = "expr"
    allows: tuple[str, ...] = ("T",)
    carries: tuple[str, ...] = ()
    form: str = ""
    choices: tuple[str, ...] = ()
    default: str | bool | Num | None = None
    hint: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"parameter {self.name!r}: unknown kind {self.kind!r}; one of {KINDS}")


_A = Param("A", "mask")
_BY_T = "it scales rows or columns; write w * A for a factor without T"
#: Families and combinators by name. `add`, `mul`, `scale` and `given` are written as operators.
SIGNATURES: dict[str, tuple[Param, ...]] = {
    "causal": (),
    "decay": (
        Param("gamma", allows=(), hint="use semiseparable(log_decay = log(gamma))"),
    ),
    "semiseparable": (Param("log_decay"),),
    "toeplitz": (
        Param("h", allows=("W",), carries=("W",), hint='declare h over the lag axis, "H W" or "W"'),
        Param("bidirectional", "flag", default=False),
    ),
    "window": (Param("w", allows=(), form="static"),),
    "document": (Param("ids", carries=("T",), form="name"),),
    "fourier": (Param("kind", "choice", choices=("cos", "sin")),),
    "dense": (Param("M", allows=("T", "S"), carries=("T", "S"), hint='declare M as "… T S"'),),
    "entry": (Param("formula", "formula"),),
    "approx": (
        _A,
        Param("tol", allows=(), form="static", default=Num(1e-4)),
        Param("max_rank", allows=(), form="static", default=Num(32)),
    ),
    "ones": (),
    "lag": (),
    "circulant": (
        Param("h", allows=("W",), carries=("W",), hint='declare h over the lag axis, "H W" or "W"'),
    ),
    "level": (Param("l", allows=(), form="static"),),
    "fenwick": (Param("l", form="levels"),),
    "cumulative": (
        Param("g", carries=("T",), hint="use decay(exp(g)) for one rate at all tokens"),
    ),
    "kron": (_A, Param("B", "mask"), Param("width", allows=(), form="static")),
    "wave": (Param("omega", allows=()), Param("phase", allows=(), default=Num(0))),
    "prefix": (Param("p", allows=()),),
    "row": (Param("x", carries=("T",), hint=_BY_T), _A),
    "col": (Param("x", carries=("T",), hint=_BY_T), _A),
    "strict": (_A,),
    "diagonal": (Param("u"),),
    "transpose": (_A,),
    "shift": (_A, Param("axis", "choice", choices=("t", "s"))),
    "reverse": (_A,),
}  # fmt: skip
#: Masks that came after version 1 of the format: inputs may have their names.
LATER = frozenset(
    {"circulant", "cumulative", "fenwick", "kron", "lag", "level", "ones", "prefix", "reverse",
     "wave"}
)
#: Names of the format itself; signatures added later do not become reserved words.
BUILTIN = frozenset(SIGNATURES) - LATER
#: The factor of `w * A`, checked like a parameter.
FACTOR = Param("factor", allows=(), hint="use row(x) * A or col(x) * A for a factor with T")
OPERATOR_TERMS = frozenset({"add", "mul", "scale", "given"})


def register_signature(name: str, params: tuple[Param, ...]) -> None:
    """Make `name(…)` parsable in the mask language.

    Raises ValueError when the name is no identifier or already has another signature.
    """
    if not name.isidentifier() or name in OPERATOR_TERMS:
        raise ValueError(f"{name!r} cannot name a mask")
    if SIGNATURES.setdefault(name, tuple(params)) != tuple(params):
        raise ValueError(f"mask {name!r} already has the signature {SIGNATURES[name]}")
