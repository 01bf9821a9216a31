"""Text → scalar expression, by a whitelist of `ast` nodes. Nothing is ever evaluated.

Limits come first (length, characters, digits, brackets), then `ast` reads, then every node is
matched against the whitelist and rebuilt as our own tree. Non-goals: masks (syntax.py), axes and
what may stand where (rules.py), TOML (parse.py).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from smac.errors import SpecError
from smac.expr import (
    ENTRY_FUNCTIONS,
    FUNCTIONS,
    S_POS,
    T_POS,
    At,
    Between,
    Call,
    Expr,
    Given,
    Index,
    Name,
    Num,
    Pos,
    Size,
    call,
    children,
    fold,
    integral,
    number,
)
from smac.limits import refusal
from smac.locate import clip, listing, nearest
from smac.show import show
from smac.signatures import SIGNATURES

MAX_TEXT, MAX_BRACKETS, MAX_DIGITS = 2000, 40, 32
MAX_DEPTH, MAX_NODES, MAX_EXPONENT = 64, 1000, 64

_ODD_CHARACTER = re.compile(r"""[^A-Za-z0-9_+\-*/%^<>=!.,()\[\]"' ]""")
_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow",
}  # fmt: skip
_ENTRY_BINARY: dict[type[ast.operator], str] = {
    ast.Mod: "mod", ast.FloorDiv: "floordiv", ast.BitXor: "xor",
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne",
}  # fmt: skip
_KINDS = {
    "Attribute": "an attribute", "Lambda": "a lambda", "IfExp": "an if-else (use where)",
    "BoolOp": "and/or (multiply comparisons, or use maximum)", "Subscript": "an index [...]",
    "ListComp": "a comprehension", "GeneratorExp": "a comprehension", "Tuple": "a tuple",
    "List": "a list", "Starred": "a star", "JoinedStr": "a formatted string",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reader:
    """What a text may mention, and where it stands (`where` heads every message)."""

    where: str
    names: Collection[str] | None = None
    axes: Collection[str] | None = None
    entry: bool = False
    bound: str = ""  # inside sum(x[k], k, …): the k

    def error(self, message: str) -> SpecError:
        """SpecError at this text."""
        return SpecError(f"{self.where}: {message}")


def scalar(
    text: str,
    *,
    where: str = "<python>",
    names: Collection[str] | None = None,
    axes: Collection[str] | None = None,
    entry: bool = False,
) -> Expr:
    """`text` in the scalar language as a tree; with `entry`, in that of mask entries (t, s, x[t]).

    `names` and `axes` are those that may be mentioned (None: any). Raises SpecError.
    """
    reader = Reader(where, names, axes, entry)
    e = read_scalar(syntax_tree(text, reader), reader)
    check_size(e, reader)
    return e


# ---- text → ast ------------------------------------------------------------------------------


def syntax_tree(text: str, r: Reader) -> ast.expr:
    """The `ast` of one expression, its depth and node count within the limits."""
    if not isinstance(text, str):
        raise r.error(f"expected a quoted expression, found {clip(repr(text))}")
    if len(text) > MAX_TEXT:
        raise r.error(f"expression of {len(text)} characters; at most {MAX_TEXT} are read")
    text = " ".join(text.split())
    if odd := _ODD_CHARACTER.search(text):
        raise r.error(f"unexpected character {odd.group()!a} in '{clip(text)}'")
    if re.search(rf"[\d_]{{{MAX_DIGITS + 1},}}", text):
        raise r.error(f"number with more than {MAX_DIGITS} digits")
    depth = 0
    for c in text:
        depth += (c in "([") - (c in ")]")
        if depth > MAX_BRACKETS:
            raise r.error(f"brackets nested deeper than {MAX_BRACKETS}")
    if not text:
        raise r.error("empty expression")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError) as e:
        reason = e.msg if isinstance(e, SyntaxError) else str(e)
        raise r.error(f"cannot read '{clip(text)}': {clip(str(reason), 80)}") from None
    except (RecursionError, MemoryError):
        raise r.error(f"expression nested deeper than {MAX_DEPTH}") from None
    _check_tree(tree, r)
    return tree


def _check_tree(tree: ast.expr, r: Reader) -> None:
    """Cap depth and node count without recursion."""
    level: list[ast.AST] = [tree]
    count = 0
    for _ in range(MAX_DEPTH):
        count += len(level)
        if count > MAX_NODES * 3:  # ast also counts operators and contexts
            raise r.error(f"expression with more than {MAX_NODES} nodes")
        level = [c for node in level for c in ast.iter_child_nodes(node)]
        if not level:
            return
    raise r.error(f"expression nested deeper than {MAX_DEPTH}")


def check_size(e: Expr, r: Reader) -> None:
    """Node count of our own tree."""
    stack, count = [e], 0
    while stack:
        stack.extend(children(stack.pop()))
        count += 1
    if count > MAX_NODES:
        raise r.error(f"expression with more than {MAX_NODES} nodes")


# ---- ast → Expr ------------------------------------------------------------------------------


def read_scalar(node: ast.expr, r: Reader) -> Expr:
    match node:
        case ast.Constant(value):
            return _constant(value, r)
        case ast.Name(id):
            return _name(id, r)
        case ast.UnaryOp(ast.USub(), operand):
            inner = read_scalar(operand, r)
            literal = isinstance(operand, ast.Constant) and isinstance(inner, Num)
            return number(-inner.value) if literal else call("neg", inner)  # type: ignore[union-attr]
        case ast.UnaryOp(ast.UAdd(), operand):
            return read_scalar(operand, r)
        case ast.BinOp(left, op, right):
            return _binary(left, op, right, r)
        case ast.Compare(left, [op], [right]) if type(op) in _COMPARE:
            return call(_COMPARE[type(op)], read_scalar(left, r), read_scalar(right, r))
        case ast.Compare():
            raise r.error(f"'{text_of(node)}': compare two values at a time; join with *")
        case ast.Subscript(value, ast.Name(id)) if r.bound and id == r.bound:
            return _scan(value, r) or read_scalar(value, replace(r, bound=""))
        case ast.Subscript(value, index) if r.entry:
            return _subscript(value, index, r)
        case ast.Call(ast.Name(fn), args, keywords):
            if keywords:
                raise r.error(f"{fn}() takes no keywords")
            return _call(fn, args, r)
        case _:
            raise _refuse(node, r)


def _refuse(node: ast.AST, r: Reader) -> SpecError:
    kind = type(node).__name__
    return r.error(
        f"'{text_of(node)}': {_KINDS.get(kind, kind)} is not in the language; "
        f"expected numbers, names, operators and function calls"
    )


def text_of(node: ast.AST) -> str:
    return clip(ast.unparse(node))


def _constant(value: object, r: Reader) -> Num:
    if isinstance(value, str):
        raise r.error(f"a string {clip(repr(value))} where a number or name is due")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise r.error(f"{clip(repr(value))} is no number of the language")
    if isinstance(value, int) and value.bit_length() > 1000:
        raise r.error("number too large")
    if value in (float("inf"), float("-inf")):
        raise r.error("numbers are finite; this one overflows")
    return number(value)


def _name(id: str, r: Reader) -> Expr:
    if r.entry and id in ("t", "s"):
        return T_POS if id == "t" else S_POS
    if id == r.bound:
        raise r.error(f"'{id}' only indexes here: write x[{id}]")
    if id in ("t", "s"):
        raise r.error(f"'{id}' is a position; only entry(\"…\") reads it, outside its x[…]")
    if r.names is not None and id not in r.names:
        if id in ("Y", "Z"):
            raise r.error(f"'{id}' is the contraction's result; only [output] reads it")
        raise r.error(
            f"unknown name '{clip(id)}'; expected an input or a let "
            f"({listing(sorted(r.names))}){nearest(id, r.names)}"
        )
    return Name(id)


def _binary(left: ast.expr, op: ast.operator, right: ast.expr, r: Reader) -> Expr:
    fn = _BINARY.get(type(op))
    a, b = read_scalar(left, r), read_scalar(right, r)
    if fn is None:
        fn = _ENTRY_BINARY.get(type(op))
        if fn is None or not (r.entry or (integral(a) and integral(b))):
            raise r.error(f"operator {type(op).__name__} is not in the language")
        _need_integers(fn, (a, b), r)
    if fn == "pow":
        power = fold(b)
        if isinstance(power, Num) and abs(power.value) > MAX_EXPONENT:
            raise r.error(f"exponent {clip(show(b))} is beyond ±{MAX_EXPONENT}")
    return call(fn, a, b)


def _need_integers(fn: str, args: tuple[Expr, ...], r: Reader) -> None:
    for a in args:
        if not integral(a):
            raise r.error(f"{fn} takes integers (t, s, sizes), found '{clip(show(a))}'")


def _call(fn: str, args: list[ast.expr], r: Reader) -> Expr:
    if fn in ("size", "index"):
        return _of_axis(fn, args, r)
    if fn == "given":
        return Given(given_name(args, r), read_scalar(args[1], r), read_scalar(args[2], r))
    if r.entry and fn in ("sum", "prod"):
        return _range(fn, args, r)
    known = FUNCTIONS | ENTRY_FUNCTIONS if r.entry else FUNCTIONS
    if fn not in known:
        if why := refusal(fn):
            raise r.error(f"{clip(fn)}(): {why}")
        every = [*known, "size", "index", "given"]
        what = "is a mask and stands only in L" if fn in SIGNATURES else "is unknown"
        raise r.error(f"function '{clip(fn)}' {what}; expected one of {listing(every)}"
                      f"{nearest(fn, every)}")  # fmt: skip
    _count(fn, args, known[fn], r)
    trees = tuple(read_scalar(a, r) for a in args)
    if fn in ENTRY_FUNCTIONS:
        _need_integers(fn, trees, r)
    return Call(fn, trees)


def _count(fn: str, args: list[ast.expr], due: int, r: Reader) -> None:
    if len(args) != due:
        raise r.error(f"{fn}() takes {due} argument{'s' * (due != 1)}, found {len(args)}")


def _of_axis(fn: str, args: list[ast.expr], r: Reader) -> Expr:
    _count(fn, args, 1, r)
    if not isinstance(args[0], ast.Name):
        raise r.error(f"{fn}() takes the name of an axis, found '{text_of(args[0])}'")
    axis = args[0].id
    if axis == "S" or (r.axes is not None and axis not in r.axes):
        known = sorted(r.axes or ("T", "B", "H", "N", "P"))
        raise r.error(f"{fn}({clip(axis)}): unknown axis; expected one of {listing(known)}")
    if fn == "index" and r.entry and axis == "T":
        raise r.error("index(T) is ambiguous in an entry: write t or s")
    return Size(axis) if fn == "size" else Index(axis)


def given_name(args: list[ast.expr], r: Reader) -> str:
    _count("given", args, 3, r)
    if not isinstance(args[0], ast.Name):
        raise r.error(f"given() asks about an input by name, found '{text_of(args[0])}'")
    name = _name(args[0].id, r)
    if not isinstance(name, Name):
        raise r.error(f"given() asks about an input, found '{args[0].id}'")
    return name.id


# ---- what only entries have: x[t], sum, prod ---------------------------------------------------


def _subscript(value: ast.expr, index: ast.expr, r: Reader) -> Expr:
    """`base[index]`; `base` is an expression over a T, W or T-and-S axis, itself not indexed."""
    base = _scan(value, r) or read_scalar(value, replace(r, entry=False, bound=""))
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    at = tuple(read_scalar(p, r) for p in parts)
    if len(at) not in (1, 2) or not all(integral(i) for i in at):
        raise r.error(f"index [{text_of(index)}]: expected integers of t and s, as x[t] or M[t, s]")
    return At(base, at)


def _scan(node: ast.expr, r: Reader) -> Expr | None:
    """`runs(ids)` and `starts(ids)`, of an input of ids, where something is read at a position."""
    match node:
        case ast.Call(ast.Name("runs" | "starts" as fn), args, []):
            _count(fn, args, 1, r)
            ids = read_scalar(args[0], replace(r, entry=False, bound=""))
            if not isinstance(ids, Name):
                raise r.error(f"{fn}(ids): expected the name of an input, "
                              f"found '{clip(show(ids))}'")  # fmt: skip
            return call(fn, ids)
    return None


def _range(fn: str, args: list[ast.expr], r: Reader) -> Expr:
    """`sum(x[k], k, s + 1, t)`, and prod as the exponential of the sum of logs (a > 0)."""
    _count(fn, args, 4, r)
    if not isinstance(args[1], ast.Name):
        raise r.error(f"{fn}(x[k], k, low, high): k is a name, found '{text_of(args[1])}'")
    k = args[1].id
    if k in ("t", "s"):
        raise r.error(f"{fn}(): t and s are taken; call the index k")
    # Inside the sum x[k] is x itself: `Between` reads its base at every k.
    base = read_scalar(args[0], replace(r, entry=False, bound=k))
    low = _position(call("sub", read_scalar(args[2], r), Num(1)), r)
    high = _position(read_scalar(args[3], r), r)
    total = Between(base if fn == "sum" else call("log", base), low, high)
    return total if fn == "sum" else call("exp", total)


def _position(e: Expr, r: Reader) -> Expr:
    """`e`, a position plus or minus integers, as `p`, `p + n` or `p - n` with n > 0."""
    position, offset = _offset(e, r)
    if offset == 0:
        return position
    return call("add" if offset > 0 else "sub", position, Num(abs(offset)))


def _offset(e: Expr, r: Reader) -> tuple[Pos, int]:
    match e:
        case Pos():
            return e, 0
        case Call("add" | "sub" as fn, (a, b)) if isinstance(n := fold(b), Num):
            position, offset = _offset(a, r)
            if isinstance(n.value, int):
                return position, offset + (n.value if fn == "add" else -n.value)
        case Call("add", (Num(int(n)), b)):
            position, offset = _offset(b, r)
            return position, offset + n
    raise r.error(f"a sum's bounds are t or s plus an integer, found '{clip(show(e))}'")
