"""Scalar expressions as Triton text, over tiles that are already in registers.

Numbers live in the accumulator's type (`ACC`), positions and ids in integers; a comparison is a
boolean until it is used as a number. Constants take the type of what they meet, so that float64
kernels keep float64 constants: beside a tile they are literals, as arguments of functions tiles.

Non-goals: no loads, no axes (triton_tiles.py names the leaves), no statements.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from smac.errors import CodegenError
from smac.expr import Call, Expr, Num, reads_position

#: Precedences: comparison < sum < product < unary < atom.
COMPARE, SUM, PRODUCT, UNARY, ATOM = range(5)


@dataclass(frozen=True, slots=True)
class Text:
    """Printed code: `kind` is "const", "bool", "int" or "float"; `real` its own form as ACC."""

    text: str
    kind: str = "float"
    level: int = ATOM
    real: str | None = None

    def at(self, level: int) -> str:
        """The text, in parentheses where `level` binds tighter."""
        return self.text if self.level >= level else f"({self.text})"


Leaf = Callable[[Expr], Text]

_INFIX = {"add": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT), "div": ("/", PRODUCT)}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_INTEGER = ("mod", "floordiv", "bit_length")
#: Functions of the language as tl has them; the others are helpers in functions.py.jinja.
_TL = {"exp": "tl.exp", "log": "tl.log", "sqrt": "tl.sqrt", "abs": "tl.abs", "sin": "tl.sin",
       "cos": "tl.cos", "erf": "tl.erf", "minimum": "tl.minimum",
       "maximum": "tl.maximum"}  # fmt: skip
HELPERS = (
    "expm1", "log1p", "tanh", "sigmoid", "logsigmoid", "silu", "relu", "elu", "gelu", "softplus",
    "sign", "chain", "power", "power_int", "turned", *_INTEGER,
)  # fmt: skip


def show(e: Expr, leaf: Leaf) -> Text:
    """`e` as Triton text; `leaf` prints names, sizes, positions and what is read at them."""
    match e:
        case Num(value):
            return _number(value)
        case Call("sin" | "cos" as fn, (angle,)) if reads_position(angle):
            return Text(f"tl.{fn}({_turned(angle, leaf)})")
        case Call(fn, args):
            return _call(fn, [show(a, leaf) for a in args])
        case _:
            return leaf(e)


def _turned(angle: Expr, leaf: Leaf) -> str:
    """An angle that grows with a position: in float64 until whole turns are taken off."""

    def wide(e: Expr) -> Text:
        x = leaf(e)
        return Text(f"{x.at(ATOM)}.to(tl.float64)") if x.kind == "float" else x

    text = re.sub(r"\bACC\b", "tl.float64", real(show(angle, wide)))
    return f"turned({text}).to(ACC)"


def real(x: Text) -> str:
    """`x` as a number of type ACC, fit to be an argument of a function."""
    if x.real is not None:
        return x.real
    if x.kind == "const":
        return f"tl.full((), {x.text}, ACC)"
    return x.text if x.kind == "float" else f"{x.at(ATOM)}.to(ACC)"


def condition(x: Text) -> str:
    """`x` as a boolean."""
    return x.text if x.kind == "bool" else f"{x.at(SUM)} != 0"


def _number(value: int | float) -> Text:
    if isinstance(value, float) and not math.isfinite(value):
        return Text(f'float("{value}")', "const")
    return Text(repr(value), "const", UNARY if value < 0 else ATOM)


def _operand(x: Text, level: int) -> str:
    """An operand of a floating operator: constants stay literals, they take the other's type."""
    if x.kind == "float" or (x.kind == "const" and x.real is None):
        return x.at(level)
    return real(x)


def _call(fn: str, args: list[Text]) -> Text:
    if fn in _INFIX:
        return _infix(fn, *args)
    if fn in _COMPARE:
        a, b = args
        floats = "float" in (a.kind, b.kind)
        left, right = (_operand(x, SUM) if floats else _whole(x, SUM) for x in (a, b))
        return Text(f"{left} {_COMPARE[fn]} {right}", "bool", COMPARE)
    if fn == "neg":
        (a,) = args
        kind = "int" if a.kind == "bool" else a.kind
        return Text(f"-{_whole(a, UNARY)}", kind, UNARY)
    if fn == "pow":
        return _power(*args)
    if fn == "where":
        return _where(*args)
    if fn == "clamp":
        return _call("minimum", [_call("maximum", args[:2]), args[2]])
    if fn == "xor":
        return Text(" ^ ".join(_whole(a, ATOM) for a in args), "int", COMPARE)
    if fn in _INTEGER:
        return Text(f"{fn}({', '.join(_whole(a, SUM) for a in args)})", "int")
    return _function(fn, args)


def _function(fn: str, args: list[Text]) -> Text:
    if fn not in _TL and fn not in HELPERS:
        raise CodegenError(f"triton: no function '{fn}'; expected one of the scalar language")
    name = _TL.get(fn, fn)
    whole = fn in ("minimum", "maximum", "abs") and _all_whole(args)
    texts = [_whole(a, SUM) if whole else real(a) for a in args]
    return Text(f"{name}({', '.join(texts)})", "int" if whole else "float")


def _all_whole(args: list[Text]) -> bool:
    """Integers among which at least one is a tile."""
    tiles = [a for a in args if a.kind != "const"]
    whole = all(a.kind in ("int", "bool") for a in tiles)
    constants = (a.text for a in args if a.kind == "const")
    return bool(tiles) and whole and not any(c in t for t in constants for c in "./en")


def _whole(x: Text, level: int) -> str:
    """`x` unchanged, booleans as integers."""
    return f"{x.at(ATOM)}.to(tl.int32)" if x.kind == "bool" else x.at(level)


def _infix(fn: str, a: Text, b: Text) -> Text:
    sign, level = _INFIX[fn]
    right = level + (fn in ("sub", "div"))
    if a.kind == b.kind == "const":
        return Text(f"{a.at(level)} {sign} {b.at(right)}", "const", level)
    if fn != "div" and _all_whole([a, b]):
        return Text(f"{_whole(a, level)} {sign} {_whole(b, right)}", "int", level)
    return Text(f"{_operand(a, level)} {sign} {_operand(b, right)}", "float", level)


def _power(a: Text, b: Text) -> Text:
    if b.text in ("0.5", "1 / 2"):
        return _function("sqrt", [a])
    whole = b.text.lstrip("-").isdigit() and b.kind == "const" and abs(int(b.text)) <= 64
    if whole and a.kind != "const":
        n = int(b.text)
        if a.kind in ("int", "bool") and n >= 0:
            return Text(f"power_int({_whole(a, SUM)}, {n})", "int")
        return Text(f"power_int({real(a)}, {n})")
    return _function("power", [a, b])


def _where(c: Text, a: Text, b: Text) -> Text:
    if _all_whole([a, b]):
        return Text(f"tl.where({condition(c)}, {_whole(a, SUM)}, {_whole(b, SUM)})", "int")
    return Text(f"tl.where({condition(c)}, {real(a)}, {real(b)})")
