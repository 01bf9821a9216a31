"""Canonical text of expressions and mask terms: for digests, messages, explain() and TOML.

What users can write comes back equal through syntax.py. Non-goals: target code (codegen).
"""

from __future__ import annotations

from smac.expr import At, Between, Call, Expr, Given, Index, Name, Num, Pos, Size, names
from smac.signatures import SIGNATURES
from smac.terms import MaskTerm

_COMPARE, _XOR, _SUM, _PRODUCT, _UNARY, _POWER, _ATOM = range(1, 8)
#: fn → (symbol, precedence of the result, of its left operand, of its right operand)
_BINARY: dict[str, tuple[str, int, int, int]] = {
    "lt": ("<", _COMPARE, _XOR, _XOR), "le": ("<=", _COMPARE, _XOR, _XOR),
    "gt": (">", _COMPARE, _XOR, _XOR), "ge": (">=", _COMPARE, _XOR, _XOR),
    "eq": ("==", _COMPARE, _XOR, _XOR), "ne": ("!=", _COMPARE, _XOR, _XOR),
    "xor": ("^", _XOR, _XOR, _SUM),
    "add": ("+", _SUM, _SUM, _PRODUCT), "sub": ("-", _SUM, _SUM, _PRODUCT),
    "mul": ("*", _PRODUCT, _PRODUCT, _UNARY), "div": ("/", _PRODUCT, _PRODUCT, _UNARY),
    "mod": ("%", _PRODUCT, _PRODUCT, _UNARY), "floordiv": ("//", _PRODUCT, _PRODUCT, _UNARY),
    "pow": ("**", _POWER, _ATOM, _UNARY),
}  # fmt: skip


def show(e: Expr | MaskTerm) -> str:
    """Canonical text of an expression or a mask term."""
    return show_mask(e) if isinstance(e, MaskTerm) else _show(e, 0)


def _show(e: Expr, floor: int) -> str:
    """Text of `e`, in parentheses where its operator binds weaker than `floor`."""
    match e:
        case Num(value):
            text, level = repr(value), _UNARY if value < 0 else _ATOM
        case Name(id):
            text, level = id, _ATOM
        case Size(axis):
            text, level = f"size({axis})", _ATOM
        case Index(axis):
            text, level = f"index({axis})", _ATOM
        case Pos(which):
            text, level = which, _ATOM
        case Given(name, a, b):
            text, level = f"given({name}, {_show(a, 0)}, {_show(b, 0)})", _ATOM
        case At(base, index):
            text, level = f"{_show(base, _ATOM)}[{', '.join(_show(i, 0) for i in index)}]", _ATOM
        case Between(base, low, high):
            text, level = _show_between(base, low, high), _ATOM
        case Call("neg", (a,)):
            text, level = f"-{_show(a, _UNARY)}", _UNARY
        case Call(fn, (a, b)) if fn in _BINARY:
            symbol, level, left, right = _BINARY[fn]
            text = f"{_show(a, left)} {symbol} {_show(b, right)}"
        case Call(fn, args):
            text, level = f"{fn}({', '.join(_show(a, 0) for a in args)})", _ATOM
    return f"({text})" if level < floor else text


def _show_between(base: Expr, low: Expr, high: Expr) -> str:
    """`sum(base[k], k, low + 1, high)` with a bound name that `base` does not use."""
    match low:
        case Call("sub", (p, Num(1))):
            start = _show(p, 0)
        case Call("sub", (p, Num(n))):
            start = f"{_show(p, _SUM)} - {n - 1}"
        case Call("add", (p, Num(n))):
            start = f"{_show(p, _SUM)} + {n + 1}"
        case _:
            start = f"{_show(low, _SUM)} + 1"
    used = names(base)
    k = next(k for k in ("k", "j", "i", *(f"k{n}" for n in range(999))) if k not in used)
    return f"sum({_show(base, _ATOM)}[{k}], {k}, {start}, {_show(high, 0)})"


def show_mask(term: MaskTerm, floor: int = 0) -> str:
    """Canonical text of a mask term; options at their defaults are left out."""
    match term:
        case MaskTerm("add", (MaskTerm() as a, MaskTerm() as b)):
            text, level = f"{show_mask(a, _SUM)} + {show_mask(b, _PRODUCT)}", _SUM
        case MaskTerm("mul", (MaskTerm() as a, MaskTerm() as b)):
            text, level = f"{_left(a)} * {show_mask(b, _UNARY)}", _PRODUCT
        case MaskTerm("scale", (w, MaskTerm() as a)) if not isinstance(w, MaskTerm | str | bool):
            text, level = f"{_show(w, _PRODUCT)} * {show_mask(a, _UNARY)}", _PRODUCT
        case MaskTerm("row" | "col" as fn, (x, MaskTerm() as a)) if not isinstance(
            x, MaskTerm | str | bool
        ):
            text, level = f"{fn}({_show(x, 0)}) * {show_mask(a, _UNARY)}", _PRODUCT
        case MaskTerm("given", (name, MaskTerm() as a, MaskTerm() as b)):
            text, level = f"given({name}, {show_mask(a)}, {show_mask(b)})", _ATOM
        case MaskTerm(fn, args):
            text, level = f"{fn}({', '.join(_arguments(fn, args))})", _ATOM
    return f"({text})" if level < floor else text


def _left(a: MaskTerm) -> str:
    """The left factor of a product: only a product of masks goes without parentheses, since
    `w * A * B` reads as w * (A * B)."""
    return show_mask(a, _PRODUCT if a.fn == "mul" else _UNARY)


def _arguments(fn: str, args: tuple[Expr | MaskTerm | str | bool, ...]) -> list[str]:
    """Texts of a call's arguments, trailing defaults dropped, flags by keyword."""
    params = SIGNATURES.get(fn, ())
    out = []
    for n, arg in enumerate(args):
        param = params[n] if n < len(params) else None
        if param is not None and param.default is not None and arg == param.default:
            continue
        if isinstance(arg, bool):
            out.append(f"{param.name if param else 'flag'} = {str(arg).lower()}")
        elif isinstance(arg, str):
            out.append(f'"{arg}"')
        elif isinstance(arg, MaskTerm):
            out.append(show_mask(arg))
        else:
            text = _show(arg, 0)
            if param is not None and param.default is not None:
                text = f"{param.name} = {text}"
            out.append(f'"{text}"' if param and param.kind == "formula" else text)
    return out
