"""Scalar expressions as PyTorch code over named axes.

Every sub-expression is computed at its own axes (softplus(dt + bias) once a head and token, not
once a channel) and broadcast where it meets larger ones. Shared sub-expressions become locals.

Non-goals: no loads, no masks; `Scope.define` says what a name's code and axes are.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass, field, replace

from smac.errors import CodegenError
from smac.expr import (
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
    children,
    reads_position,
)

BINARY = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**"}
COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
FUNCTIONS = {
    "exp": "torch.exp", "expm1": "torch.expm1", "log": "torch.log", "log1p": "torch.log1p",
    "sqrt": "torch.sqrt", "abs": "torch.abs", "sin": "torch.sin", "cos": "torch.cos",
    "tanh": "torch.tanh", "sigmoid": "torch.sigmoid", "relu": "torch.relu", "erf": "torch.erf",
    "sign": "torch.sign", "logsigmoid": "torch.nn.functional.logsigmoid",
    "silu": "torch.nn.functional.silu", "elu": "torch.nn.functional.elu",
    "gelu": "torch.nn.functional.gelu", "bit_length": "_bit_length", "chain": "_chain",
}  # fmt: skip
#: No threshold: torch's softplus turns linear at 20, which is 2e-9 off in float64.
FUNCTIONS["softplus"] = "_softplus"
#: Operations of integers that stay integers.
INTEGER = {"add", "sub", "mul", "neg", "mod", "floordiv", "xor", *COMPARE}
STATIC = {"exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", "erf"}


@dataclass(frozen=True, slots=True)
class Code:
    """A piece of code with the axes of its result; `axes` None: a Python number."""

    text: str
    axes: tuple[str, ...] | None
    boolean: bool = False
    integer: bool = False


@dataclass
class Scope:
    """Names in scope, the axes' order, and the statements made so far.

    `wide`: what is printed is an angle that grows with a position, in float64 whatever `acc` is."""

    order: tuple[str, ...]
    group: dict[str, str] = field(default_factory=dict)  # group axis → code for heads a group
    names: dict[str, Code] = field(default_factory=dict)
    memo: dict[tuple[Expr, bool], Code] = field(default_factory=dict)
    shared: Counter[Expr] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    fresh: int = 0
    prefix: str = "e"
    wide: bool = False

    def define(self, name: str, text: str, axes: tuple[str, ...] | None) -> None:
        """`name` reads as `text` with `axes`."""
        self.names[name] = Code(text, axes)

    def count(self, *roots: Expr) -> None:
        """Note the sub-expressions of `roots`: those met twice become locals."""
        stack = list(roots)
        while stack:
            e = stack.pop()
            self.shared[e] += 1
            if self.shared[e] == 1:
                stack.extend(children(e))

    def take_lines(self) -> list[str]:
        """Statements since the last call."""
        lines, self.lines = self.lines, []
        return lines

    def union(self, *parts: Code) -> tuple[str, ...] | None:
        """The axes of an operation between `parts`."""
        known = [p.axes for p in parts if p.axes is not None]
        if not known:
            return None
        found = {a for axes in known for a in axes}
        if "H" in found:
            found -= set(self.group)
        return tuple(a for a in self.order if a in found)

    def align(self, code: Code, axes: tuple[str, ...] | None) -> str:
        """`code` broadcastable against `axes`, a superset of its own."""
        if code.axes is None or axes is None or code.axes == axes:
            return code.text
        text, own = code.text, list(code.axes)
        for i, a in enumerate(own):
            if a in self.group and a not in axes:
                text, own[i] = f"{text}.repeat_interleave({self.group[a]}, {i})", "H"
        started = axes[_first(axes, own) :]
        index = ["None" if a not in own else ":" for a in started]
        if "None" not in index:
            return text
        while index and index[-1] == ":":
            index.pop()
        lead = 0
        while lead < len(index) and index[lead] == ":":
            lead += 1
        if set(index[lead:]) == {"None"} and lead == len(own):
            return f"{text}[..., {', '.join(index[lead:])}]"
        return f"{text}[{', '.join(index)}]"

    def code(self, e: Expr) -> Code:
        """The code of `e`; shared calls become locals first."""
        if (e, self.wide) in self.memo:
            return self.memo[e, self.wide]
        made = self._code(e)
        if isinstance(e, Call) and made.axes is not None and self.shared[e] > 1:
            name = f"{self.prefix}{self.fresh}"
            self.fresh += 1
            self.lines.append(f"{name} = {made.text}")
            made = Code(name, made.axes, made.boolean)
        self.memo[e, self.wide] = made
        return made

    def _code(self, e: Expr) -> Code:
        match e:
            case Num(value):
                return Code(_number(value), None, integer=isinstance(value, int))
            case Name(id):
                if id not in self.names:
                    raise CodegenError(f"no code for the name '{id}' in this kernel")
                return self._doubled(self.names[id])
            case Size(axis):
                return Code(f"n_{axis}", None, integer=True)
            case Index(axis):
                return self._doubled(self.names[f"index_{axis}"])
            case Call("sin" | "cos" as fn, (angle,)) if not self.wide and reads_position(angle):
                return self._turned(fn, angle)
            case Call(fn, args):
                return self._call(fn, [self.code(a) for a in args])
            case Given() | Pos() | At() | Between():
                raise CodegenError(f"{type(e).__name__} is not a pointwise expression")

    def _doubled(self, code: Code) -> Code:
        """A number as it is read in an angle."""
        if not self.wide or code.axes is None or code.integer or code.boolean:
            return code
        return replace(code, text=f"{closed(code.text)}.double()")

    def _turned(self, fn: str, angle: Expr) -> Code:
        """sin or cos of an angle that grows with a position: whole turns are taken off first."""
        self.wide = True
        try:
            code = self.code(angle)
        finally:
            self.wide = False
        if code.axes is None:
            return self._call(fn, [code])
        whole = f"{closed(code.text)}.double()" if code.integer else bare(code.text)
        return Code(f"torch.{fn}(torch.remainder({whole}, 2 * math.pi).to(acc))", code.axes)

    def _call(self, fn: str, args: list[Code]) -> Code:
        acc = "torch.float64" if self.wide else "acc"
        axes = self.union(*args)
        texts = [self.align(a, axes) for a in args]
        if fn in ("where", "minimum", "maximum", "clamp"):  # they would keep a comparison's type
            first = 1 if fn == "where" else 0
            texts[first:] = [f"{t}.to({acc})" if a.boolean else t
                             for a, t in zip(args[first:], texts[first:], strict=True)]  # fmt: skip
        if fn == "where":
            return self._where(args, texts, axes)
        if fn in ("minimum", "maximum", "clamp"):
            return Code(_bounded(fn, args, texts), axes)
        whole = all(a.integer for a in args) and fn in INTEGER
        texts = [
            f"{t}.to({acc})" if a.boolean or (a.integer and not whole and a.axes is not None) else t
            for a, t in zip(args, texts, strict=True)
        ]
        if fn in BINARY:
            return Code(f"({texts[0]} {BINARY[fn]} {texts[1]})", axes, integer=whole)
        if fn in COMPARE and axes is None:  # a number: torch subtracts no bools
            return Code(f"int({texts[0]} {COMPARE[fn]} {texts[1]})", None)
        if fn in COMPARE:
            return Code(f"({texts[0]} {COMPARE[fn]} {texts[1]})", axes, True)
        if fn == "neg":
            return Code(f"(-{texts[0]})", axes, integer=whole)
        if fn in ("mod", "floordiv", "xor"):
            sign = {"mod": "%", "floordiv": "//", "xor": "^"}[fn]
            return Code(f"({texts[0]} {sign} {texts[1]})", axes, integer=whole)
        if axes is None:
            return Code(_static(fn, texts), None)
        if fn == "chain" and args[1].axes is None:
            return Code(f"({texts[0]} * {texts[1]})", axes)
        if fn not in FUNCTIONS:
            raise CodegenError(f"the torch target has no code for '{fn}'")
        inner = ", ".join(bare(t) for t in texts)
        return Code(f"{FUNCTIONS[fn]}({inner})", axes, integer=fn == "bit_length")

    def _where(self, args: list[Code], texts: list[str], axes: tuple[str, ...] | None) -> Code:
        if axes is None:
            return Code(f"({texts[1]} if {texts[0]} else {texts[2]})", None)
        cond = texts[0] if args[0].boolean else f"({texts[0]} != 0)"
        if args[0].axes is None:  # still of the shape and type that both branches have together
            cond = f"torch.tensor({bare(cond)}, device=device)"
        yes, no = bare(texts[1]), bare(texts[2])
        if args[1].axes is None and args[2].axes is None:  # two numbers alone would be float32
            acc = "torch.float64" if self.wide else "acc"
            yes = f"torch.tensor({yes}, dtype={acc}, device=device)"
        text = f"torch.where({bare(cond)}, {yes}, {no})"
        return Code(text, axes)


def _first(axes: tuple[str, ...], own: list[str]) -> int:
    return next((i for i, a in enumerate(axes) if a in own), len(axes))


def _number(value: int | float) -> str:
    if value in (float("inf"), float("-inf")):
        return "math.inf" if value > 0 else "(-math.inf)"
    text = repr(value)
    return f"({text})" if text.startswith("-") else text


def bare(text: str) -> str:
    """`text` without one pair of enclosing parentheses."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for i, ch in enumerate(text):
        depth += (ch == "(") - (ch == ")")
        if depth == 0 and i < len(text) - 1:
            return text
    return text[1:-1]


def closed(text: str) -> str:
    """`text` so that a method can be called on it."""
    atoms = ast.Name | ast.Call | ast.Subscript | ast.Attribute
    return text if isinstance(ast.parse(text, mode="eval").body, atoms) else f"({text})"


def _static(fn: str, texts: list[str]) -> str:
    inner = ", ".join(bare(t) for t in texts)
    if fn in STATIC:
        return f"math.{fn}({inner})"
    return f"float({FUNCTIONS[fn]}(torch.tensor(float({inner}), dtype=torch.float64)))"


def _bounded(fn: str, args: list[Code], texts: list[str]) -> str:
    if all(a.axes is None for a in args):
        if fn == "clamp":
            return f"min(max({texts[0]}, {texts[1]}), {texts[2]})"
        return f"{'min' if fn == 'minimum' else 'max'}({texts[0]}, {texts[1]})"
    if fn == "clamp":
        if args[0].axes is not None and args[1].axes is None and args[2].axes is None:
            return f"{texts[0]}.clamp({texts[1]}, {texts[2]})"
        low = _bounded("maximum", args[:2], texts[:2])
        inner = Code(low, args[0].axes or args[1].axes)
        return _bounded("minimum", [inner, args[2]], [low, texts[2]])
    if args[0].axes is None or args[1].axes is None:
        number, tensor = (0, 1) if args[0].axes is None else (1, 0)
        side = "max" if fn == "minimum" else "min"
        return f"{texts[tensor]}.clamp({side}={bare(texts[number])})"
    return f"torch.{fn}({texts[0]}, {texts[1]})"
