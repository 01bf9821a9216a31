"""Digits that lanes lose where they read positions: how far from the start they may be used.

Non-goals: positions in operands and outputs, which are the spec's own arithmetic.
"""

from __future__ import annotations

from smac.expr import Call, Expr, Index, Size, children, names
from smac.plan.types import Request

#: Bits that may be lost where lanes read positions, of those that the accumulator has. Triton's
#: products of 16 bits round states; the gradient of an angle is theirs times the position.
_SPARE = {
    "torch": {"float64": 43, "float32": 13, "bfloat16": 14, "float16": 14},
    "triton": {"float64": 43, "float32": 13, "bfloat16": 4, "float16": 4},
}


def few_digits(r: Request, tokens: int | None = None) -> str | None:
    """Why too many digits would be gone after `tokens` (by default T) of a sequence, or None.

    Lanes that read powers of positions cancel, and so do gradients of what turns by them: digits go
    as T grows. Angles themselves are made in float64, whatever the type."""
    powers, degree = _degrees(r)
    instead = "pass float64 inputs" if r.state else "use order='quadratic'"
    exact = r.dtype == "float64" or (r.dtype != "float32" and r.target == "torch")
    if powers and not exact:
        return (f"takes no powers of positions in {r.dtype} on target {r.target}: its states have "
                f"no digits to spare; {instead}")  # fmt: skip
    tokens = r.size("T") if tokens is None else tokens
    lost, spare = degree * max(tokens, 1).bit_length(), _SPARE[r.target][r.dtype]
    if lost > spare:
        where = "in the gradient of an angle that" if degree > powers else "where its lanes"
        return (f"loses {lost} bits at T = {tokens}, {where} read{'s' * (degree > powers)} "
                f"positions; at most {spare} may go in {r.dtype}; {instead}")
    return None


def most_tokens(r: Request) -> int | None:
    """After how many tokens of a sequence `few_digits` has nothing to say still; None: any."""
    _, degree = _degrees(r)
    return 2 ** (_SPARE[r.target][r.dtype] // degree) - 1 if degree else None


def _degrees(r: Request) -> tuple[int, int]:
    """Powers of positions in the lanes' factors, and in those and the gradients asked for."""
    found = r.mask.generators()
    lanes = () if found is None else (*found.lanes, *found.above)
    factors = [e for x in lanes for e in (x.read, x.write)]
    return (max((position_degree(e, turns=False) for e in factors), default=0),
            max((position_degree(e, turns=r.backward) for e in factors), default=0))


def position_degree(e: Expr, turns: bool = True) -> int:
    """The power of the position that `e`, or with `turns` its gradient, grows with: an angle's
    position comes out as a factor, where there is an input in it to differentiate by."""
    match e:
        case Index("T"):
            return 1
        case Call("mul", args):  # degrees add up; of errors of angles the largest counts
            powers = [position_degree(a, turns=False) for a in args]
            angles = [position_degree(a) - p for a, p in zip(args, powers, strict=True)]
            return sum(powers) + (max(angles) if turns else 0)
        case Call("div", (a, b)):
            return position_degree(a, turns) - _length_degree(b)
        case Call("where", (_, *args)):
            return max(position_degree(a, turns) for a in args)
        case Call("sin" | "cos", (a,)):
            return position_degree(a) if turns and names(a) else 0
        case Call("lt" | "le" | "gt" | "ge" | "eq" | "ne" | "mod", _):
            return 0
        case _:
            return max((position_degree(a, turns) for a in children(e)), default=0)


def _length_degree(e: Expr) -> int:
    """The power of T that a divisor grows with, as far as its form shows."""
    match e:
        case Size("T"):
            return 1
        case Call("mul", args):
            return sum(_length_degree(a) for a in args)
        case Call("add", args):
            return max(_length_degree(a) for a in args)
        case _:
            return 0
