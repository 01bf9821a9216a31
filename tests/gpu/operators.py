"""Small mutations of rendered Triton source, found on its syntax tree: general operators, no texts.

A mutation replaces one expression inside one jitted function and keeps every line where it was, so
that the other kernels of the module are the same to the compiler's cache.

Non-goals: running mutants (`mutants.py`); code on the host's side.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

FLIPS = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
EXPS = ("tl.exp", "tl.exp2", "tl.sigmoid", "sigmoid", "softplus", "logsigmoid", "silu", "tl.log2")


@dataclass(frozen=True)
class Mutation:
    """One replacement: in `function`, in the `nth` statement that reads `statement`, expression
    number `place` of those that `operator` takes there becomes `new`."""

    function: str
    operator: str
    statement: str
    nth: int
    place: int
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.function}: {self.operator}: {self.old} → {self.new} in: {self.statement}"


@dataclass(frozen=True)
class _Site:
    """Where a mutation goes: the expression's lines and columns, in bytes."""

    mutation: Mutation
    node: ast.expr | ast.AugAssign


def mutations(text: str) -> list[Mutation]:
    """Every mutation of every jitted function of a module."""
    return [s.mutation for s in _sites(text)]


def fits(text: str, m: Mutation) -> bool:
    """Whether the module has what `m` replaces."""
    return any(s.mutation == m for s in _sites(text, m.function))


def planted(text: str, m: Mutation) -> str:
    """The module with the mutation in it; ValueError where it does not fit."""
    site = next((s for s in _sites(text, m.function) if s.mutation == m), None)
    if site is None:
        raise ValueError(f"no place for: {m}")
    lines = text.encode().split(b"\n")
    n = site.node
    assert n.end_lineno is not None
    assert n.end_col_offset is not None
    before, after = lines[n.lineno - 1][: n.col_offset], lines[n.end_lineno - 1][n.end_col_offset :]
    padding = b"\n" * (n.end_lineno - n.lineno)
    body = m.new.encode()
    body = body + padding if isinstance(n, ast.AugAssign) else b"(" + body + padding + b")"
    lines[n.lineno - 1 : n.end_lineno] = (before + body + after).split(b"\n")
    return b"\n".join(lines).decode()


def _sites(text: str, function: str | None = None) -> Iterator[_Site]:
    for f in ast.parse(text).body:
        jitted = isinstance(f, ast.FunctionDef) and any(
            ast.unparse(d) == "triton.jit" for d in f.decorator_list)  # fmt: skip
        if not jitted or (function is not None and f.name != function):
            continue
        assert isinstance(f, ast.FunctionDef)
        seen: dict[str, int] = {}
        for statement in _simple(f.body):
            said = ast.unparse(statement).split("\n")[0]
            nth = seen[said] = seen.get(said, -1) + 1
            for operator, find in OPERATORS.items():
                places = 0
                for node in _expressions(statement):
                    for old, new in find(node):
                        # A statement that is replaced has no brackets to hold its line ends.
                        if isinstance(node, ast.expr) or node.lineno == node.end_lineno:
                            m = Mutation(f.name, operator, said, nth, places, old, new)
                            yield _Site(m, node)
                        places += 1


def _simple(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that hold no others, and the heads of loops and branches; no docstrings."""
    for s in body:
        if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant):
            continue
        yield s
        if isinstance(s, ast.For | ast.If | ast.While):
            yield from _simple(s.body)
            yield from _simple(s.orelse)


def _expressions(s: ast.stmt) -> Iterator[ast.expr | ast.AugAssign]:
    """Of a statement's own: not of the statements inside it."""
    if isinstance(s, ast.AugAssign):
        yield s
    tops: list[ast.expr | None] = (
        [s.iter] if isinstance(s, ast.For) else [s.test] if isinstance(s, ast.If | ast.While) else
        [s.value] if isinstance(s, ast.Assign | ast.AugAssign | ast.Expr | ast.Return) else []
    )  # fmt: skip
    for top in tops:
        for node in ast.walk(top) if top is not None else ():
            if isinstance(node, ast.expr) and hasattr(node, "lineno"):
                yield node


Found = Iterator[tuple[str, str]]


def _flip(n: ast.AST) -> Found:
    """a < b becomes a <= b, and the like."""
    if isinstance(n, ast.Compare) and type(n.ops[0]) in FLIPS:
        left, right = ast.unparse(n.left), ast.unparse(n.comparators[0])
        yield ast.unparse(n), f"({left}) {FLIPS[type(n.ops[0])]} ({right})"


def _calls(n: ast.AST, *names: str) -> bool:
    return isinstance(n, ast.Call) and ast.unparse(n.func) in names


def _drop_mask(n: ast.AST) -> Found:
    """A load or a store without its mask, or with one side of it."""
    if not _calls(n, "tl.load", "tl.store"):
        return
    assert isinstance(n, ast.Call)
    for k in n.keywords:
        if k.arg != "mask":
            continue
        m = ast.unparse(k.value)
        kept = [f"({m}) == ({m})"]
        if isinstance(k.value, ast.BinOp) and isinstance(k.value.op, ast.BitAnd):
            kept += [ast.unparse(k.value.left), ast.unparse(k.value.right)]
        for new in kept:
            copy = ast.parse(ast.unparse(n), mode="eval").body
            assert isinstance(copy, ast.Call)
            for other in copy.keywords:
                if other.arg == "mask":
                    other.value = ast.parse(new, mode="eval").body
            yield ast.unparse(n), ast.unparse(copy)


def _drop_where(n: ast.AST) -> Found:
    """tl.where(c, x, y) becomes x."""
    if _calls(n, "tl.where"):
        assert isinstance(n, ast.Call)
        yield ast.unparse(n), ast.unparse(n.args[1])


def _drop_exp(n: ast.AST) -> Found:
    """A transcendental becomes its argument."""
    if _calls(n, *EXPS):
        assert isinstance(n, ast.Call)
        yield ast.unparse(n), ast.unparse(n.args[0])


def _shift_index(n: ast.AST) -> Found:
    """A multiple of a tile's length or of a stride is one further, or one before."""
    if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mult) and isinstance(n.right, ast.Name):
        left, right = ast.unparse(n.left), n.right.id
        if right.isupper() or right.startswith("s_"):
            for sign in "+-":
                yield ast.unparse(n), f"({left} {sign} 1) * {right}"


def _drop_cast(n: ast.AST) -> Found:
    """x.to(OP) becomes x."""
    to = isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == "to"
    if to and n.args and isinstance(n.args[0], ast.Name):
        yield ast.unparse(n), ast.unparse(n.func.value)


def _shorten_loop(n: ast.AST) -> Found:
    """A loop begins one later, or ends one earlier."""
    if _calls(n, "range", "tl.range"):
        assert isinstance(n, ast.Call)
        name, args = ast.unparse(n.func), [ast.unparse(a) for a in n.args]
        more = [ast.unparse(k) for k in n.keywords]
        if len(args) >= 2:
            late = ", ".join([f"({args[0]}) + 1", *args[1:], *more])
            early = ", ".join([args[0], f"({args[1]}) - 1", *args[2:], *more])
            yield ast.unparse(n), f"{name}({late})"
            yield ast.unparse(n), f"{name}({early})"


def _drop_term(n: ast.AST) -> Found:
    """a + b becomes a; a - b too."""
    if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Add | ast.Sub):
        yield ast.unparse(n), ast.unparse(n.left)


def _flip_sign(n: ast.AST) -> Found:
    """a - b becomes a + b, a + b becomes a - b."""
    if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Add | ast.Sub):
        sign = "-" if isinstance(n.op, ast.Add) else "+"
        yield ast.unparse(n), f"({ast.unparse(n.left)}) {sign} ({ast.unparse(n.right)})"


def _drop_factor(n: ast.AST) -> Found:
    """a * b becomes a, or b; a / b becomes a."""
    if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mult | ast.Div):
        yield ast.unparse(n), ast.unparse(n.left)
        if isinstance(n.op, ast.Mult):
            yield ast.unparse(n), ast.unparse(n.right)


def _forget(n: ast.AST) -> Found:
    """What is added to is overwritten; what is scaled is left."""
    if isinstance(n, ast.AugAssign):
        target, value = ast.unparse(n.target), ast.unparse(n.value)
        kept = value if isinstance(n.op, ast.Add | ast.Sub) else target
        yield ast.unparse(n), f"{target} = {kept}"


def _empty_load(n: ast.AST) -> Found:
    """A load gives zeros: an initial state is forgotten, an operand is lost."""
    if _calls(n, "tl.load"):
        yield ast.unparse(n), f"{ast.unparse(n)} * 0"


def _swap_axes(n: ast.AST) -> Found:
    """A weight of rows weighs columns, and the other way round."""
    if isinstance(n, ast.Subscript):
        at, swapped = ast.unparse(n.slice), {":, None": "None, :", "None, :": ":, None"}
        at = at.strip("()")
        if at in swapped:
            yield ast.unparse(n), f"{ast.unparse(n.value)}[{swapped[at]}]"


def _drop_trans(n: ast.AST) -> Found:
    """tl.trans(x) becomes x."""
    if _calls(n, "tl.trans"):
        assert isinstance(n, ast.Call)
        yield ast.unparse(n), ast.unparse(n.args[0])


def _number(n: ast.AST) -> Found:
    """A floating constant becomes another."""
    if isinstance(n, ast.Constant) and isinstance(n.value, float):
        yield ast.unparse(n), repr(1.0 if n.value == 0.0 else 0.5 * n.value)


OPERATORS: dict[str, Callable[[ast.AST], Found]] = {
    "flip a comparison": _flip, "drop a mask": _drop_mask, "drop a where": _drop_where,
    "drop an exp": _drop_exp, "shift an index": _shift_index, "drop a cast": _drop_cast,
    "shorten a loop": _shorten_loop, "drop a term": _drop_term, "flip a sign": _flip_sign,
    "drop a factor": _drop_factor, "forget what was there": _forget,
    "empty a load": _empty_load, "swap rows and columns": _swap_axes,
    "drop a transpose": _drop_trans, "change a number": _number,
}  # fmt: skip
