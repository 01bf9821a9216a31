"""The dense contraction paths of the four operands, as opt_einsum counts them.

They are the context in which the orders stand: a structured mask is charged by its law instead
(`Mask.matvec_cost`), which is where the linear order comes from.

Non-goals: no choice is made from these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smac.plan.shape import Shape
from smac.plan.types import Request

_NAMES = ("Q", "K", "V", "L")


@dataclass(frozen=True, slots=True)
class DensePath:
    """One way to multiply the operands pair by pair, and its flops over all batches and heads."""

    text: str
    flops: int


def dense_paths(request: Request, x: Shape) -> tuple[DensePath, ...]:
    """All pairwise paths, cheapest first. An axis of length 0 is counted as 1."""
    from opt_einsum import contract_path
    from opt_einsum.parser import parse_einsum_input

    sizes = {"T": max(x.T, 1), "S": max(x.T, 1), "N": x.N, "P": x.P}
    equation = request.spec.contraction.equation
    shapes = [tuple(sizes[a] for a in term) for term in equation.partition("->")[0].split(",")]
    inputs, output, _ = parse_einsum_input((equation, *shapes), shapes=True)
    found: dict[str, int] = {}
    for path in _pairings(len(shapes)):
        _, info = contract_path(f"{inputs}->{output}", *shapes, shapes=True, optimize=path)
        text = _text(path)
        cost = int(info.opt_cost) * x.batch * x.all_heads
        found[text] = min(cost, found.get(text, cost))
    return tuple(sorted((DensePath(t, n) for t, n in found.items()), key=lambda p: p.flops))


def _pairings(n: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Every sequence of pairs that contracts `n` operands; a result goes to the end of the list."""
    if n == 1:
        yield ()
        return
    for i in range(n):
        for j in range(i + 1, n):
            for rest in _pairings(n - 1):
                yield ((i, j), *rest)


def _text(path: tuple[tuple[int, int], ...]) -> str:
    """`((Q K) L) V` for a path."""
    left = list(_NAMES)
    for i, j in path:
        b, a = left.pop(j), left.pop(i)
        one, two = sorted((a, b), key=lambda t: (-len(t), _NAMES.index(t.strip("(")[0])))
        left.append(f"({one} {two})")
    return left[0][1:-1]
