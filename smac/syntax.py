"""Text → mask term, and the door to the whole language: `scalar`, `mask` and `show`.

Non-goals: scalar expressions (scalars.py reads them), axes (rules.py), what masks mean (masks/).
"""

from __future__ import annotations

import ast
from collections.abc import Collection

from smac.expr import FUNCTIONS, Expr, Num, call
from smac.locate import clip, listing, nearest
from smac.scalars import Reader, check_size, given_name, read_scalar, scalar, syntax_tree, text_of
from smac.show import show, show_mask
from smac.signatures import SIGNATURES, Param
from smac.terms import MaskTerm

__all__ = ["mask", "scalar", "show", "show_mask"]


def mask(
    text: str,
    *,
    where: str = "<python>",
    names: Collection[str] | None = None,
    axes: Collection[str] | None = None,
) -> MaskTerm:
    """`text` in the mask language as a term, keywords and defaults made positional.

    `names` and `axes` are those that may be mentioned (None: any). Raises SpecError.
    """
    reader = Reader(where, names, axes)
    return _mask(syntax_tree(text, reader), reader)


def _is_mask(node: ast.expr) -> bool:
    """Whether `node` reads as a mask: a mask function somewhere where operators keep it one."""
    match node:
        case ast.Call(ast.Name("given"), [_, a, b]):
            return _is_mask(a) or _is_mask(b)
        case ast.Call(ast.Name(fn)):
            return fn not in FUNCTIONS and fn not in ("size", "index", "given")
        case ast.BinOp(a, _, b):
            return _is_mask(a) or _is_mask(b)
        case ast.UnaryOp(_, a):
            return _is_mask(a)
        case _:
            return False


def _mask(node: ast.expr, r: Reader) -> MaskTerm:
    match node:
        case ast.BinOp(a, ast.Add(), b):
            return MaskTerm("add", (_mask(a, r), _mask(b, r)))
        case ast.BinOp(a, ast.Sub(), b):
            return MaskTerm("add", (_mask(a, r), MaskTerm("scale", (Num(-1), _mask(b, r)))))
        case ast.UnaryOp(ast.USub(), a):
            return MaskTerm("scale", (Num(-1), _mask(a, r)))
        case ast.BinOp(_, ast.Mult() | ast.Div(), _):
            return _product(node, r)
        case ast.Call(ast.Name("given"), args, []):
            name = given_name(args, r)
            return MaskTerm("given", (name, _mask(args[1], r), _mask(args[2], r)))
        case ast.Call(ast.Name(fn), args, keywords) if fn not in FUNCTIONS:
            return _mask_call(fn, args, keywords, r)
        case _:
            raise r.error(
                f"'{text_of(node)}' is no mask; expected one of {listing(SIGNATURES)}, or a sum or "
                "product of them; numbers stand in diagonal(u) and w * A"
            )


def _product(node: ast.expr, r: Reader) -> MaskTerm:
    """A chain of factors from left to right: the masks multiply, what scales them wraps around.

    `w * A * B / v * row(x)` is w · (1/v · (row(x) · (A ∘ B))).
    """
    factors: list[tuple[ast.expr, bool]] = []  # (factor, divides)
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        if not _is_mask(node):
            break
        factors.insert(0, (node.right, isinstance(node.op, ast.Div)))
        node = node.left
    factors.insert(0, (node, False))
    product: MaskTerm | None = None
    wraps: list[tuple[str, Expr]] = []
    for factor, divides in factors:
        match factor:
            case ast.Call(ast.Name("row" | "col" as fn), [x], []) if not divides:
                wraps.append((fn, _argument_expr(x, r)))
            case _ if not _is_mask(factor):
                w = _argument_expr(factor, r)
                wraps.append(("scale", call("div", Num(1), w) if divides else w))
            case _ if divides:
                raise r.error(f"cannot divide by the mask '{text_of(factor)}'")
            case _:
                term = _mask(factor, r)
                product = term if product is None else MaskTerm("mul", (product, term))
    if product is None:
        raise r.error("row(x) and col(x) scale a mask: multiply by one, as row(x) * causal()")
    for name, w in reversed(wraps):
        product = MaskTerm(name, (w, product))
    return product


def _argument_expr(node: ast.expr, r: Reader) -> Expr:
    e = read_scalar(node, r)
    check_size(e, r)
    return e


def _mask_call(
    fn: str, args: list[ast.expr], keywords: list[ast.keyword], r: Reader
) -> MaskTerm:
    if fn not in SIGNATURES:
        raise r.error(f"unknown mask '{clip(fn)}'; expected one of {listing(SIGNATURES)}"
                      f"{nearest(fn, SIGNATURES)}")  # fmt: skip
    params = SIGNATURES[fn]
    if len(args) > len(params):
        raise r.error(f"{_usage(fn)} takes {len(params)} arguments, found {len(args)}")
    given = {p.name: a for p, a in zip(params, args, strict=False)}
    for word in keywords:
        allowed = [p.name for p in params]
        if word.arg not in allowed:
            raise r.error(f"{_usage(fn)} has no option '{clip(str(word.arg))}'; "
                          f"expected one of {listing(allowed)}")  # fmt: skip
        if word.arg in given:
            raise r.error(f"{_usage(fn)}: {word.arg} is given twice")
        given[word.arg] = word.value
    return MaskTerm(fn, tuple(_argument(fn, p, given.get(p.name), r) for p in params))


def _usage(fn: str) -> str:
    return f"{fn}({', '.join(p.name for p in SIGNATURES[fn])})"


def _argument(fn: str, p: Param, node: ast.expr | None, r: Reader) -> Expr | MaskTerm | str | bool:
    """The argument of `fn` for parameter `p`, converted by its kind."""
    if node is None:
        if p.default is None:
            raise r.error(f"{_usage(fn)}: {p.name} is missing")
        return p.default
    match p.kind, node:
        case "expr", _:
            return _argument_expr(node, r)
        case "mask", _:
            return _mask(node, r)
        case "flag", (ast.Name(id=("true" | "false") as word)):
            return word == "true"
        case "flag", ast.Constant(value=bool(value)):
            return value
        case "choice", ast.Constant(value=str(word)) if word in p.choices:
            return word
        case "formula", ast.Constant(value=str(text)):
            return scalar(text, where=r.where, names=r.names, axes=r.axes, entry=True)
    due = {
        "flag": "true or false",
        "choice": " or ".join(f'"{c}"' for c in p.choices),
        "formula": "a quoted formula in t and s",
    }[p.kind]
    raise r.error(f"{_usage(fn)}: {p.name}: expected {due}, found '{text_of(node)}'")
