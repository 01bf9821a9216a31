"""Derivatives of scalar expressions by sympy, and common subexpressions.

Sympy sees symbols, sums, products and our own unevaluated Functions: numbers and whatever does not
depend on the variable are symbols to it, so no constructor of its can be made to work for minutes.
Each Function has its derivative in our language (`_RULES`), in a form that does not overflow.
Where a function has a kink the subgradient is PyTorch's: relu′(0) = abs′(0) = 0, ties of minimum
and maximum get ½ each, clamp is 1 on its closed interval. sympy is imported when first needed.

Non-goals: evaluation, gradients of sums over positions (masks/ and lower/ do those).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import Any

from smac.expr import (
    DERIVED_FUNCTIONS,
    ENTRY_FUNCTIONS,
    FUNCTIONS,
    MOVE_FUNCTIONS,
    ONE,
    OPERATORS,
    SCAN_FUNCTIONS,
    ZERO,
    At,
    Between,
    Call,
    Expr,
    Given,
    Name,
    Num,
    call,
    children,
    fold,
    number,
    rebuild,
    substitute,
    walk,
)
from smac.scalars import scalar

#: Deeper parts of an expression are differentiated apart: sympy takes many stack frames a level.
_DEPTH = 12
_X, _Y = Name("x"), Name("y")
_PHI = call("mul", Num(0.5), call("add", ONE, call("erf", call("mul", Num(0.5**0.5), _X))))
#: fn → derivative by each argument (x, then y), in our language. PHI is the normal distribution.
_RULES: dict[str, tuple[str, ...]] = {
    "exp": ("exp(x)",),
    "expm1": ("exp(x)",),
    "log": ("1 / x",),
    "log1p": ("1 / (1 + x)",),
    "sqrt": ("0.5 / sqrt(x)",),
    "sin": ("cos(x)",),
    "cos": ("-sin(x)",),
    "tanh": ("1 - tanh(x) * tanh(x)",),
    "sigmoid": ("sigmoid(x) * (1 - sigmoid(x))",),
    "logsigmoid": ("sigmoid(-x)",),
    "softplus": ("sigmoid(x)",),
    "silu": ("sigmoid(x) * (1 + x * (1 - sigmoid(x)))",),
    "elu": ("where(x > 0, 1, exp(minimum(x, 0)))",),
    "gelu": (f"PHI + x * exp(-0.5 * x * x) * {1 / math.sqrt(2 * math.pi)!r}",),
    "erf": (f"{2 / math.sqrt(math.pi)!r} * exp(-x * x)",),
    "pow": ("y * x ** (y - 1)", "where((x == 0) * (y >= 0), 0, x ** y * log(x))"),
}
#: Piecewise constant: derivative 0.
_FLAT = frozenset({"lt", "le", "gt", "ge", "eq", "ne", "sign"} | set(ENTRY_FUNCTIONS)
                  | set(SCAN_FUNCTIONS))  # fmt: skip


def diff(e: Expr, wrt: Expr) -> Expr:
    """∂e/∂wrt, folded. `wrt` is a Name, At, Between or any other node, taken as one variable.

    At, Between and moves are values at other positions: a `wrt` inside them does not count.
    """
    return _diff(fold(e), wrt)


@lru_cache(maxsize=4096)
def _diff(e: Expr, wrt: Expr) -> Expr:
    if e == wrt:
        return ONE
    if not _contains(e, wrt):
        return ZERO
    translation = _Translation(wrt)
    source = translation.to_sympy(e, 0)
    return fold(translation.to_tree(source.diff(translation.x)))


def simplify(e: Expr) -> Expr:
    """Constants folded, identities of 0 and 1 applied; no search."""
    return fold(e)


def _contains(e: Expr, part: Expr) -> bool:
    if e == part:
        return True
    if isinstance(e, At | Between) or (isinstance(e, Call) and e.fn in MOVE_FUNCTIONS):
        return False
    return any(_contains(c, part) for c in children(e))


class _Translation:
    """To sympy and back for one variable: what does not depend on it is one symbol each."""

    def __init__(self, wrt: Expr) -> None:
        import sympy

        self.sympy: Any = sympy
        self.wrt = wrt
        self.x = sympy.Symbol("x")
        self.trees: dict[Any, Expr] = {self.x: wrt}
        self.symbols: dict[tuple[str, Expr], Any] = {}

    def symbol(self, kind: str, e: Expr) -> Any:
        """The symbol that stands for `e`; `kind` parts a value from a derivative."""
        key = (kind, e)
        if key not in self.symbols:
            name = f"#{e.value!r}" if isinstance(e, Num) else f"{kind}{len(self.symbols):04d}"
            self.symbols[key] = self.sympy.Symbol(name)
            self.trees[self.symbols[key]] = e
        return self.symbols[key]

    def to_sympy(self, e: Expr, depth: int) -> Any:
        if e == self.wrt:
            return self.x
        if not _contains(e, self.wrt):
            return self.symbol("c", e)
        if depth == _DEPTH:
            value, slope = self.symbol("u", e), self.symbol("d", _diff(e, self.wrt))
            return _functions()["cut"](value, slope, self.x)
        if isinstance(e, Given):
            asked = self.symbol("g", Name(e.name))
            parts = [self.to_sympy(c, depth + 1) for c in children(e)]
            return _functions()["given"](asked, *parts)
        assert isinstance(e, Call), e
        args = [self.to_sympy(a, depth + 1) for a in e.args]
        if e.fn in ("add", "mul"):
            make = self.sympy.Add if e.fn == "add" else self.sympy.Mul
            return make(*args, evaluate=False)
        return _functions()[e.fn](*args)

    def to_tree(self, s: Any) -> Expr:
        if s in self.trees:
            return self.trees[s]
        if s.is_Symbol:  # a number of a rule
            return _number_of(s.name)
        if s.is_Rational:
            return number(s.p / s.q if s.q != 1 else int(s.p))
        if s.is_Add or s.is_Mul:
            return _chain("add" if s.is_Add else "mul", [self.to_tree(a) for a in s.args])
        if s.is_Pow:
            base, power = (self.to_tree(a) for a in s.args)
            return call("mul", base, base) if power == Num(2) else call("pow", base, power)
        fn = type(s).__name__.removeprefix("f_")
        if fn == "cut":
            return self.trees[s.args[0]]
        args = tuple(self.to_tree(a) for a in s.args)
        if fn == "given":
            name = args[0]
            assert isinstance(name, Name)
            return Given(name.id, args[1], args[2])
        return Call(fn, args)


def _chain(fn: str, parts: list[Expr]) -> Expr:
    total = parts[0]
    for part in parts[1:]:
        total = call(fn, total, part)
    return total


def _number_of(name: str) -> Num:
    text = name.removeprefix("#")
    return number(float(text) if any(c in text for c in ".ein") else int(text))


# ---- our functions in sympy --------------------------------------------------------------------


@cache
def _functions() -> dict[str, Any]:
    """A sympy Function a name, unevaluated, with its derivative."""
    import sympy

    classes: dict[str, Any] = {}
    every = (FUNCTIONS | OPERATORS | ENTRY_FUNCTIONS | SCAN_FUNCTIONS | MOVE_FUNCTIONS
             | DERIVED_FUNCTIONS)  # fmt: skip
    for fn, nargs in (every | {"given": 3, "cut": 3}).items():
        body: dict[str, Any] = {"nargs": nargs}
        if fn in _STRUCTURAL:
            body["_eval_derivative"] = _structural(fn, classes)
        elif fn in _RULES:
            body["fdiff"] = _fdiff(fn, classes)
        elif fn in _FLAT:
            body["fdiff"] = lambda self, argindex=1: sympy.S.Zero
        classes[fn] = type(f"f_{fn}", (sympy.Function,), body)
    return classes


def _fdiff(fn: str, classes: dict[str, Any]) -> Callable[..., Any]:
    """`fdiff` from the rule of `fn`: its text with the arguments put in."""
    rules = [substitute(scalar(text), {"PHI": _PHI}) for text in _RULES[fn]]

    def fdiff(self: Any, argindex: int = 1) -> Any:
        env = dict(zip(("x", "y"), self.args, strict=False))
        return _instantiate(rules[argindex - 1], env, classes)

    return fdiff


def _instantiate(e: Expr, env: dict[str, Any], classes: dict[str, Any]) -> Any:
    """A rule's tree as sympy, names taken from `env`."""
    import sympy

    if isinstance(e, Name):
        return env[e.id]
    if isinstance(e, Num):
        return sympy.Symbol(f"#{e.value!r}")
    assert isinstance(e, Call)
    return classes[e.fn](*(_instantiate(a, env, classes) for a in e.args))


def _structural(fn: str, classes: dict[str, Any]) -> Callable[..., Any]:
    """`_eval_derivative` of a function that passes its arguments' derivatives on, or chooses one:
    what is not chosen is never multiplied, so its infinities do not spread."""

    def _eval_derivative(self: Any, x: Any) -> Any:
        make = _STRUCTURAL[fn]
        return make(classes, self.args, tuple(a.diff(x) for a in self.args))

    return _eval_derivative


def _half_at_ties(f: dict[str, Any], below: str, a: tuple[Any, ...], d: tuple[Any, ...]) -> Any:
    import sympy

    half = sympy.Symbol("#0.5") * (d[0] + d[1])
    return f["where"](f[below](*a), d[0], f["where"](f["eq"](*a), half, d[1]))


def _clamp(f: dict[str, Any], a: tuple[Any, ...], d: tuple[Any, ...]) -> Any:
    x, lo, hi = a
    under = f["where"](f["gt"](lo, hi), d[2], d[1])
    return f["where"](f["gt"](x, hi), d[2], f["where"](f["lt"](x, lo), under, d[0]))


_Structural = Callable[[dict[str, Any], tuple[Any, ...], tuple[Any, ...]], Any]
#: fn → its derivative from (functions, arguments, their derivatives).
_STRUCTURAL: dict[str, _Structural] = {
    "cut": lambda f, a, d: a[1],
    "neg": lambda f, a, d: f["neg"](d[0]),
    "sub": lambda f, a, d: f["sub"](*d),
    "add": lambda f, a, d: d[0] + d[1],
    "mul": lambda f, a, d: d[0] * a[1] + a[0] * d[1],
    "div": lambda f, a, d: f["div"](d[0], a[1]) - f["div"](f["div"](*a), a[1]) * d[1],
    "chain": lambda f, a, d: f["chain"](d[0], a[1]) + f["chain"](a[0], d[1]),
    "abs": lambda f, a, d: f["sign"](a[0]) * d[0],
    "relu": lambda f, a, d: f["where"](f["gt"](a[0], _zero()), d[0], _zero()),
    "where": lambda f, a, d: f["where"](a[0], d[1], d[2]),
    "given": lambda f, a, d: f["given"](a[0], d[1], d[2]),
    "minimum": lambda f, a, d: _half_at_ties(f, "lt", a, d),
    "maximum": lambda f, a, d: _half_at_ties(f, "gt", a, d),
    "clamp": _clamp,
}


def _zero() -> Any:
    import sympy

    return sympy.S.Zero


# ---- common subexpressions ---------------------------------------------------------------------


def cse(results: list[Expr], prefix: str = "e") -> tuple[list[tuple[str, Expr]], list[Expr]]:
    """Calls that occur twice or more, named `e0`, `e1`, … in dependency order, and the results
    over those names. Names that the expressions read are not taken; inside At and Between, whose
    base is read at other positions, nothing is named.
    """
    uses: Counter[Expr] = Counter()
    order: list[Expr] = []  # children before parents

    def count(e: Expr) -> None:
        if isinstance(e, Call | Given):
            uses[e] += 1
            if uses[e] == 1:
                for c in children(e):
                    count(c)
                order.append(e)

    for e in results:
        count(e)
    fresh = _fresh_names(prefix, results)
    named: dict[Expr, Expr] = {}
    assignments: list[tuple[str, Expr]] = []

    def rewrite(e: Expr) -> Expr:
        if e in named:
            return named[e]
        if not isinstance(e, Call | Given):
            return e
        return rebuild(e, tuple(rewrite(c) for c in children(e)))

    for e in order:
        if uses[e] > 1:
            name = next(fresh)
            assignments.append((name, rewrite(e)))
            named[e] = Name(name)
    return assignments, [rewrite(e) for e in results]


def _fresh_names(prefix: str, results: list[Expr]) -> Iterator[str]:
    taken = {n.id for e in results for n in walk(e) if isinstance(n, Name)}
    return (name for n in range(10**9) if (name := f"{prefix}{n}") not in taken)
