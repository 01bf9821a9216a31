"""Tables (from TOML or Python) → the checked fields of a Spec.

Non-goals: reading files (parse.py); what the checks are (rules.py).
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Mapping
from typing import Any

from smac import rules
from smac.axes import KNOWN, Scope, scope_of
from smac.expr import ENTRY_FUNCTIONS, FUNCTIONS, Expr, number
from smac.locate import Source, clip, listing, nearest
from smac.show import show
from smac.signatures import BUILTIN
from smac.syntax import mask, scalar
from smac.terms import EQUATIONS, Axis, Contraction, Input, MaskTerm

FIELDS = ("name", "about", "paper", "axes", "inputs", "let", "contraction", "output", "sizes",
          "expect")  # fmt: skip
ORDERS = ("linear", "quadratic", "chunked")
MAX_INPUTS, MAX_LETS, MAX_OUTPUTS, MAX_AXES, MAX_SIZE = 64, 64, 16, 16, 2**40
#: Names with a meaning of their own; inputs, lets and outputs cannot take them.
RESERVED = (
    {"Y", "Z", "t", "s", "state", "initial_state", "return_state", "cu_seqlens", "absent",
     "out_state", "true", "false", "size", "index", "given", "sum", "prod"}
    | set(FUNCTIONS) | set(ENTRY_FUNCTIONS) | BUILTIN
)  # fmt: skip
#: How each kind of a declared axis is written.
DECLARED = {"group": "group of H", "batch": "batch", "levels": "levels of T"}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def build(raw: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """The fields of a Spec from raw tables (or from values already built). Raises SpecError."""
    for key in raw:
        _known(key, FIELDS, "table or key", (), source)
    name = raw.get("name")
    check_name(name, ("name",), source, reserved=False)
    axes = _axes(_items(raw, "axes", MAX_AXES, source), source)
    scope = scope_of(axes, ())
    inputs = _inputs(_items(raw, "inputs", MAX_INPUTS, source), scope, source)
    if not inputs:
        raise source.error(("inputs",), "no inputs; expected at least one")
    lets = _items(raw, "let", MAX_LETS, source)
    known = [i.name for i in inputs] + [n for n, _ in lets]
    _no_repeats(known, ("let",), source)
    countable = tuple(a for a in scope.axes if a not in scope.levels)
    reader = _Reader(known, countable, source)
    let = rules.sort_lets({n: reader.expr(v, "let", n) for n, v in lets}, source)
    contraction = _contraction(raw.get("contraction"), reader, source)
    outputs = _items(raw, "output", MAX_OUTPUTS, source)
    if not outputs:
        raise source.error(("output",), 'no outputs; expected at least one, as y = "Y"')
    _no_repeats(known + [n for n, _ in outputs], ("output",), source)
    reader = _Reader([*known, "Y", "Z"], countable, source)
    output = tuple((n, reader.expr(v, "output", n)) for n, v in outputs)
    _check(axes, inputs, let, contraction, output, source)
    return {
        "name": name,
        "about": _prose(raw, "about", source),
        "paper": _prose(raw, "paper", source),
        "axes": axes, "inputs": inputs, "let": let, "contraction": contraction, "output": output,
        "sizes": _sizes(_items(raw, "sizes", 64, source), axes, scope.axes, source),
        "expect": _expect(_items(raw, "expect", 16, source), source),
    }  # fmt: skip


def _check(
    axes: tuple[Axis, ...], inputs: tuple[Input, ...], let: tuple[tuple[str, Expr], ...],
    contraction: Contraction, output: tuple[tuple[str, Expr], ...], source: Source,
) -> None:  # fmt: skip
    """Everything that rules.py asks, in the order in which messages help most."""
    c = contraction
    texts: dict[rules.Path, Expr | MaskTerm] = {
        ("contraction", "Q"): c.Q, ("contraction", "K"): c.K, ("contraction", "V"): c.V,
        ("contraction", "L"): c.L, **{("output", n): e for n, e in output},
    }  # fmt: skip
    rules.check_inlined(let, texts, source)
    rules.check_presence(inputs, let, texts, source)
    scope = scope_of(axes, inputs, let, c)
    rules.check_ids(c.L, inputs, source)
    rules.check_operands(c, scope, source)
    rules.check_output(output, let, scope, source)
    rules.check_used(inputs, let, texts, source)


class _Reader:
    """Reads expression texts, or values already built, by way of their text: one canonical form."""

    def __init__(self, names: list[str], axes: tuple[str, ...], source: Source) -> None:
        self.names, self.source = names, source
        self.axes = [a for a in axes if a != "S"]  # those that size() and index() may name

    def expr(self, value: object, *path: str) -> Expr:
        text = show(value) if isinstance(value, Expr) else value
        return scalar(text, where=self.source.at(*path), names=self.names, axes=self.axes)  # type: ignore[arg-type]

    def mask(self, value: object, *path: str) -> MaskTerm:
        text = show(value) if isinstance(value, MaskTerm) else value
        return mask(text, where=self.source.at(*path), names=self.names, axes=self.axes)  # type: ignore[arg-type]


def check_name(name: object, path: tuple[str, ...], source: Source, reserved: bool = True) -> None:
    """An identifier of at most 64 characters, no Python keyword, not taken by the language."""
    if not isinstance(name, str):
        raise source.error(path, f"expected a name, found {clip(repr(name))}")
    if not _NAME.fullmatch(name) or len(name) > 64 or keyword.iskeyword(name):
        raise source.error(path, f"'{clip(name)}' is no name; expected letters, digits and _, "
                                 "a letter first, at most 64, no Python keyword")  # fmt: skip
    if reserved and name in RESERVED:
        raise source.error(path, f"'{name}' has a meaning of its own in the language; "
                                 "choose another name")  # fmt: skip


def _known(
    key: object, known: tuple[str, ...], what: str, path: rules.Path, source: Source
) -> None:
    if key not in known:
        text = clip(str(key))
        raise source.error((*path, text), f"unknown {what} '{text}'; "
                           f"expected one of {listing(known)}{nearest(text, known)}")  # fmt: skip


def _no_repeats(names: list[str], path: rules.Path, source: Source) -> None:
    for name in names:
        if names.count(name) > 1:
            raise source.error((*path, name), f"'{name}' is declared twice (inputs, lets and "
                                              "outputs share one set of names)")  # fmt: skip


def _items(raw: Mapping[str, Any], key: str, limit: int, source: Source) -> list[tuple[str, Any]]:
    """A table as pairs, names checked; also from a tuple of pairs, Axis or Input values."""
    value = raw.get(key)
    if value is None:
        return []
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, tuple) and all(isinstance(v, Axis | Input) for v in value):
        pairs = [(v.name, v) for v in value]
    elif isinstance(value, tuple) and all(isinstance(v, tuple) and len(v) == 2 for v in value):
        pairs = list(value)
    else:
        raise source.error((key,), f"expected a table, found {clip(repr(value))}")
    if len(pairs) > limit:
        raise source.error((key,), f"{len(pairs)} entries; at most {limit} are allowed")
    for name, _ in pairs:
        reserved = key in ("inputs", "let", "output")
        check_name(name, (key, str(name)), source, reserved)
    return pairs


def _axes(pairs: list[tuple[str, Any]], source: Source) -> tuple[Axis, ...]:
    axes: list[Axis] = []
    for name, value in pairs:
        path = ("axes", name)
        if isinstance(value, Axis):
            value = DECLARED.get(value.kind, value.kind)
        kind = {text: k for k, text in DECLARED.items()}.get(" ".join(str(value).split()))
        if name == "W" and value == "lag":
            continue  # W has this meaning unasked
        if name in KNOWN:
            raise source.error(path, f"{name} has a meaning of its own; choose another name")
        if kind is None:
            due = '"group of H", "batch" or "levels of T"'
            raise source.error(path, f"expected {due}, found {clip(repr(value))}")
        if kind == "levels" and any(a.kind == kind for a in axes):
            raise source.error(path, "a second axis of levels; expected one, for all inputs")
        axes.append(Axis(name, kind))
    return tuple(axes)


def _inputs(
    pairs: list[tuple[str, Any]], scope: Scope, source: Source
) -> tuple[Input, ...]:
    return tuple(_input(name, value, scope, source) for name, value in pairs)


def _input(name: str, value: Any, scope: Scope, source: Source) -> Input:
    path = ("inputs", name)
    if isinstance(value, Input):
        value = {"axes": value.axes, "default": value.default, "optional": value.optional}
        value = {k: v for k, v in value.items() if v is not None}
    table = value if isinstance(value, Mapping) else {"axes": value}
    for key in table:
        _known(key, ("axes", "default", "optional"), "key", path, source)
    axes = _input_axes(table.get("axes"), path, scope, source)
    default, optional = table.get("default"), table.get("optional", False)
    if not isinstance(optional, bool):
        raise source.error(path, f"optional: expected true or false, found {clip(repr(optional))}")
    if default is not None:
        if isinstance(default, bool) or not isinstance(default, int | float):
            raise source.error(path, f"default: expected a number, found {clip(repr(default))}")
        if abs(default) > 1e300 or math.isnan(default):
            raise source.error(path, f"default: expected a finite number, found "
                                     f"{clip(repr(default))}")  # fmt: skip
        if optional:
            raise source.error(path, "has both a default and optional = true; keep one")
        default = number(default).value
    return Input(name, axes, default, optional)


def _input_axes(
    value: object, path: rules.Path, scope: Scope, source: Source
) -> tuple[str, ...]:
    """`"B T H P"` → ("B", "T", "H", "P"), each known and there once."""
    known = scope.axes
    if isinstance(value, str):
        value = tuple(value.split())
    if not isinstance(value, tuple) or not all(isinstance(a, str) for a in value):
        raise source.error(path, f'expected axes, as "B T H P", found {clip(repr(value))}')
    for a in value:
        if a not in known:
            raise source.error(path, f"unknown axis '{clip(a)}'; expected axes among "
                                     f"{' '.join(known)}, or declare it in [axes]")  # fmt: skip
        if value.count(a) > 1:
            raise source.error(path, f"axis {a} stands twice")
    heads = [a for a in value if a == "H" or a in scope.groups]
    if len(heads) > 1:
        raise source.error(path, f"carries {' and '.join(heads)}; expected H or one group of it")
    if "S" in value and "T" not in value:
        raise source.error(path, "carries S without T; S is the column axis of a dense mask")
    if "W" in value and "T" in value:
        raise source.error(path, "carries both W and T; a lag axis stands for the sequence")
    if (levels := [a for a in value if a in scope.levels]) and {"W", "S"} & set(value):
        raise source.error(path, f"carries {levels[0]}, the levels of T, beside W or S; expected T")
    return value


def _contraction(value: Any, reader: _Reader, source: Source) -> Contraction:
    keys = ("equation", "Q", "K", "V", "L")
    if isinstance(value, Contraction):
        value = {k: getattr(value, k) for k in keys}
    if not isinstance(value, Mapping):
        raise source.error(("contraction",), "missing; expected a table with " + listing(keys))
    for key in value:
        _known(key, keys, "key", ("contraction",), source)
    for key in keys:
        if key not in value:
            raise source.error(("contraction",), f"{key} is missing; expected {listing(keys)}")
    equation = "".join(value["equation"].split()) if isinstance(value["equation"], str) else None
    if equation not in EQUATIONS:
        due = " or ".join(f'"{e}"' for e in EQUATIONS)
        raise source.error(("contraction", "equation"),
                           f"expected {due}, found {clip(repr(value['equation']))}")  # fmt: skip
    Q, K, V = (reader.expr(value[k], "contraction", k) for k in "QKV")
    L = reader.mask(value["L"], "contraction", "L")
    return Contraction(equation, Q, K, V, L, EQUATIONS[equation])


def _prose(raw: Mapping[str, Any], key: str, source: Source) -> str:
    text = raw.get(key, "")
    if not isinstance(text, str) or len(text) > 2000:
        raise source.error((key,), f"expected a text of at most 2000 characters, "
                                   f"found {clip(repr(text))}")  # fmt: skip
    if any(c != "\n" and not c.isprintable() for c in text):
        raise source.error((key,), "contains control characters")
    return text


def _sizes(
    pairs: list[tuple[str, Any]], axes: tuple[Axis, ...], known: tuple[str, ...], source: Source
) -> tuple[tuple[str, int], ...]:
    follow = {"S", *(a.name for a in axes if a.kind == "levels")}  # from T
    usable = tuple(a for a in known if a not in follow)
    for axis, size in pairs:
        path = ("sizes", axis)
        _known(axis, usable, "axis", ("sizes",), source)
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_SIZE:
            raise source.error(path, f"expected an integer from 0 to 2**40, found "
                                     f"{clip(repr(size))}")  # fmt: skip
    sizes = dict(pairs)
    for a in axes:
        heads, groups = sizes.get("H"), sizes.get(a.name)
        if a.kind != "group" or heads is None or groups is None:
            continue
        if heads % groups if groups else heads:
            text = f"{a.name} = {groups} does not divide H = {heads}"
            raise source.error(("sizes", a.name), text)
    return tuple(sizes.items())


def _expect(pairs: list[tuple[str, Any]], source: Source) -> tuple[tuple[str, str], ...]:
    for key, value in pairs:
        _known(key, ("order", "backward"), "key", ("expect",), source)
        if value not in ORDERS:
            raise source.error(("expect", key), f"expected one of {listing(ORDERS)}, found "
                                                f"{clip(repr(value))}")  # fmt: skip
    return tuple(pairs)
