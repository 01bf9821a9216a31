"""What is asked: Spec, a frozen value that compares and digests alike from TOML or Python.

Non-goals: no text rules (syntax.py), no mask laws, no sizes decided.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from smac.axes import Scope, scope_of
from smac.build import DECLARED, build
from smac.errors import SpecError
from smac.expr import Expr, Given, Name, Num, children, fold, number, rebuild
from smac.locate import Source, clip, listing, nearest
from smac.show import show
from smac.terms import Axis, Contraction, Input, MaskTerm

__all__ = ["Axis", "Contraction", "Input", "MaskTerm", "Spec", "specialise"]


@dataclass(frozen=True, init=False, repr=False)
class Spec:
    """One system: inputs, lets, a contraction and outputs. Equal specs have equal digests.

    Built from the tables of the format, as keywords: expressions are texts (or trees), an input is
    its axes ("B T H P") or a table with axes, default, optional. Raises SpecError, `<python>` in
    the place of file:line.
    """

    name: str
    about: str
    paper: str
    axes: tuple[Axis, ...]
    inputs: tuple[Input, ...]
    #: In dependency order.
    let: tuple[tuple[str, Expr], ...]
    contraction: Contraction
    output: tuple[tuple[str, Expr], ...]
    sizes: tuple[tuple[str, int], ...]
    expect: tuple[tuple[str, str], ...]

    def __init__(
        self,
        name: str,
        inputs: Mapping[str, Any] | tuple[Input, ...],
        contraction: Mapping[str, Any] | Contraction,
        output: Mapping[str, Any] | tuple[tuple[str, Expr], ...],
        *,
        axes: Mapping[str, str] | tuple[Axis, ...] = (),
        let: Mapping[str, Any] | tuple[tuple[str, Expr], ...] = (),
        sizes: Mapping[str, int] | tuple[tuple[str, int], ...] = (),
        expect: Mapping[str, str] | tuple[tuple[str, str], ...] = (),
        about: str = "",
        paper: str = "",
    ) -> None:
        raw = {
            "name": name, "about": about, "paper": paper, "axes": axes, "inputs": inputs,
            "let": let, "contraction": contraction, "output": output, "sizes": sizes,
            "expect": expect,
        }  # fmt: skip
        self._set(build(raw, Source()))

    def _set(self, values: Mapping[str, Any]) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, values[f.name])

    @classmethod
    def _from(cls, raw: Mapping[str, Any], source: Source) -> Spec:
        """From raw tables, with messages that name their lines (parse.py)."""
        return cls._assemble(build(raw, source))

    @classmethod
    def _assemble(cls, values: Mapping[str, Any]) -> Spec:
        """From fields that are already checked."""
        spec = object.__new__(cls)
        spec._set(values)
        return spec

    @cached_property
    def scope(self) -> Scope:
        """Axes of every name, Y and Z included."""
        return scope_of(self.axes, self.inputs, self.let, self.contraction)

    def axes_of(self, e: Expr | MaskTerm) -> tuple[str, ...]:
        """Axes that `e` carries, in canonical order; for a mask term, those beside T and S."""
        return self.scope.of(e)

    @property
    def batch(self) -> tuple[str, ...]:
        """B and the declared batch axes."""
        return self.scope.batch

    @property
    def groups(self) -> tuple[str, ...]:
        """The declared groups of H."""
        return self.scope.groups

    @property
    def levels(self) -> str | None:
        """The axis that is declared as "levels of T", if there is one."""
        return next(iter(self.scope.levels), None)

    def input(self, name: str) -> Input:
        """The input called `name`. Raises SpecError."""
        for i in self.inputs:
            if i.name == name:
                return i
        known = [i.name for i in self.inputs]
        raise SpecError(f"{self.name}: no input '{clip(name)}'; expected one of {listing(known)}"
                        f"{nearest(name, known)}")  # fmt: skip

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical text, without about, paper, sizes and expect."""
        return hashlib.sha256(_toml(self, whole=False).encode()).hexdigest()

    def __str__(self) -> str:
        """TOML that parses back to an equal spec."""
        return _toml(self, whole=True)

    def __repr__(self) -> str:
        c = self.contraction
        inputs = ", ".join(_signature(i) for i in self.inputs)
        lines = [f"Spec '{self.name}'" + (f": {self.about}" if self.about else "")]
        lines += [f"  inputs  {inputs}"]
        lines += [f"  let     {n} = {show(e)}" for n, e in self.let]
        lines += [f"  Y       contract({c.equation})", f"          Q = {show(c.Q)}"]
        lines += [f"          K = {show(c.K)}", f"          V = {show(c.V)}"]
        lines += [f"          L = {show(c.L)}"]
        lines += [f"  output  {n} = {show(e)}" for n, e in self.output]
        return "\n".join(lines)


def _signature(i: Input) -> str:
    """`D[H] = 0`, `z[B T H P]?`."""
    tail = "?" if i.optional else "" if i.default is None else f" = {show(number(i.default))}"
    return f"{i.name}[{' '.join(i.axes)}]{tail}"


def _toml(spec: Spec, whole: bool) -> str:
    """Canonical TOML; without prose, sizes and expectations unless `whole`."""
    c = spec.contraction
    head = {"smac": "1", "name": _quote(spec.name)}
    if whole:
        head |= {k: _quote(v) for k, v in (("about", spec.about), ("paper", spec.paper)) if v}
    tables: dict[str, dict[str, str]] = {
        "axes": {a.name: _quote(DECLARED.get(a.kind, a.kind)) for a in spec.axes},
        "inputs": {i.name: _input_toml(i) for i in spec.inputs},
        "let": {n: _quote(show(e)) for n, e in spec.let},
        "contraction": {"equation": _quote(c.equation)}
        | {k: _quote(show(getattr(c, k))) for k in "QKVL"},
        "output": {n: _quote(show(e)) for n, e in spec.output},
    }
    if whole:
        tables["sizes"] = {a: str(n) for a, n in spec.sizes}
        tables["expect"] = {k: _quote(v) for k, v in spec.expect}
    blocks = [_lines(head)]
    blocks += [f"[{t}]\n{_lines(pairs)}" for t, pairs in tables.items() if pairs]
    return "\n".join(blocks)


def _lines(pairs: Mapping[str, str]) -> str:
    return "".join(f"{k} = {v}\n" for k, v in pairs.items())


def _quote(text: str) -> str:
    """A TOML string: literal if it holds double quotes, else basic (JSON's escapes are TOML's)."""
    if '"' in text and not set(text) & {"'", "\n"}:
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False)


def _input_toml(i: Input) -> str:
    axes = _quote(" ".join(i.axes))
    if i.optional:
        return f"{{axes = {axes}, optional = true}}"
    return axes if i.default is None else f"{{axes = {axes}, default = {show(number(i.default))}}}"


# ---- presence -------------------------------------------------------------------------------


def specialise(spec: Spec, absent: frozenset[str] = frozenset()) -> Spec:
    """`spec` for calls without the inputs in `absent`: given() decided, defaults put in as numbers,
    lets inlined and everything folded. The result has no lets and only the inputs that are there.

    Raises SpecError for a name that is no input, or an input that cannot be absent.
    """
    env: dict[str, Expr] = {}
    for name in sorted(absent):
        i = spec.input(name)
        if not i.may_be_absent:
            raise SpecError(f"{spec.name}: input '{name}' cannot be absent: it has no default and "
                            "is not optional")  # fmt: skip
        if i.default is not None:
            env[name] = Num(i.default)
    for name, e in spec.let:
        env[name] = _decide(e, env, absent)
    c = spec.contraction
    Q, K, V = (fold(_decide(e, env, absent)) for e in (c.Q, c.K, c.V))
    inputs = tuple(i for i in spec.inputs if i.name not in absent)
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    scope = scope_of(spec.axes, inputs)
    values |= {
        "inputs": inputs,
        "let": (),
        "contraction": Contraction(c.equation, Q, K, V, _term(c.L, env, absent, scope), c.channel),
        "output": tuple((n, fold(_decide(e, env, absent))) for n, e in spec.output),
    }
    return Spec._assemble(values)


def _decide(e: Expr, env: Mapping[str, Expr], absent: frozenset[str]) -> Expr:
    """`e` with given() decided and names of `env` replaced."""
    match e:
        case Name(id):
            return env.get(id, e)
        case Given(name, a, b):
            return _decide(b if name in absent else a, env, absent)
        case _:
            kids = children(e)
            return rebuild(e, tuple(_decide(k, env, absent) for k in kids)) if kids else e


def _term(
    term: MaskTerm, env: Mapping[str, Expr], absent: frozenset[str], scope: Scope
) -> MaskTerm:
    """`_decide` for masks; `_degenerate` for what a default made constant."""
    if term.fn == "given":
        name, present, otherwise = term.args
        chosen = otherwise if name in absent else present
        assert isinstance(chosen, MaskTerm)
        return _term(chosen, env, absent, scope)
    args = tuple(
        a if isinstance(a, str | bool)
        else _term(a, env, absent, scope) if isinstance(a, MaskTerm)
        else fold(_decide(a, env, absent))
        for a in term.args
    )  # fmt: skip
    return _degenerate(MaskTerm(term.fn, args), scope)


def _degenerate(term: MaskTerm, scope: Scope) -> MaskTerm:
    """A mask whose argument lost its sequence axis to a default, as what it then is."""
    match term:
        case MaskTerm("scale", (Num(1), MaskTerm() as a)):
            return a
        case MaskTerm("row" | "col", (x, MaskTerm() as a)) if not _along_t(x, scope):
            return _degenerate(MaskTerm("scale", (x, a)), scope)
        case MaskTerm("toeplitz", (h, False)) if not _along_t(h, scope):
            return _degenerate(MaskTerm("scale", (h, MaskTerm("causal", ()))), scope)
        case MaskTerm("toeplitz", (h, True)) if not _along_t(h, scope):
            return MaskTerm("entry", (h,))
        case MaskTerm("dense", (m,)) if not _along_t(m, scope):
            return MaskTerm("entry", (m,))
        case MaskTerm("document", (Num(),)):
            return MaskTerm("entry", (Num(1),))
        case _:
            return term


def _along_t(e: Any, scope: Scope) -> bool:
    return bool(scope.carried(e) & {"T", "S", "W"})
