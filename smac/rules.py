"""What may stand where in a spec: axes of operands, masks and outputs, lets, presence, use.

Each check takes parsed parts and a `Source` for its messages, and raises SpecError.
Non-goals: reading text (syntax.py), converting tables (build.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from smac.axes import POSITIONS, Scope
from smac.expr import (
    SCAN_FUNCTIONS,
    At,
    Between,
    Call,
    Expr,
    Given,
    Name,
    children,
    names,
    walk,
)
from smac.locate import Source, clip, listing
from smac.show import show
from smac.signatures import FACTOR, SIGNATURES, Param
from smac.terms import Contraction, Input, MaskTerm

MAX_INLINED_NODES, MAX_INLINED_DEPTH = 4000, 100
Path = tuple[str, ...]


def parts_of(e: Expr | MaskTerm) -> Iterator[Expr]:
    """The expressions of `e`: itself, or those at the leaves of a mask term."""
    if isinstance(e, MaskTerm):
        for a in e.args:
            if not isinstance(a, str | bool):
                yield from parts_of(a)
    else:
        yield e


def asked(e: Expr | MaskTerm) -> frozenset[str]:
    """Every name that `e` mentions, in given() too."""
    if not isinstance(e, MaskTerm):
        return names(e)
    own = {a for a in e.args[:1] if e.fn == "given" and isinstance(a, str)}
    return frozenset(own).union(*(asked(a) for a in e.args if not isinstance(a, str | bool)))


def sort_lets(let: dict[str, Expr], source: Source) -> tuple[tuple[str, Expr], ...]:
    """Lets in dependency order, otherwise as declared; cycles are errors."""
    done: dict[str, Expr] = {}
    waiting = dict(let)
    while waiting:
        ready = [n for n, e in waiting.items() if not names(e) & waiting.keys()]
        if not ready:
            name = next(iter(waiting))
            chain = [name]
            while chain.count(chain[-1]) < 2:
                here = names(waiting[chain[-1]])
                chain.append(next(n for n in waiting if n in here))
            cycle = " → ".join(chain[chain.index(chain[-1]) :])
            raise source.error(("let", chain[-1]), f"lets refer to each other in a cycle: {cycle}")
        for n in ready[:1]:
            done[n] = waiting.pop(n)
    return tuple(done.items())


def check_inlined(
    let: tuple[tuple[str, Expr], ...], texts: Mapping[Path, Expr | MaskTerm], source: Source
) -> None:
    """Cap what every expression grows to once lets are inlined (it can double at each let)."""
    cost: dict[str, tuple[int, int]] = {}

    def measure(e: Expr) -> tuple[int, int]:
        if isinstance(e, Name):
            return cost.get(e.id, (1, 1))
        kids = [measure(c) for c in children(e)]
        return 1 + sum(n for n, _ in kids), 1 + max((d for _, d in kids), default=0)

    every: list[tuple[Path, Expr | MaskTerm]] = [(("let", n), e) for n, e in let]
    for path, e in every + list(texts.items()):
        for part in parts_of(e):
            nodes, depth = measure(part)
            if nodes > MAX_INLINED_NODES or depth > MAX_INLINED_DEPTH:
                raise source.error(path, f"with lets inlined this has {nodes} nodes and depth "
                                         f"{depth}; at most {MAX_INLINED_NODES} and "
                                         f"{MAX_INLINED_DEPTH} are allowed")  # fmt: skip
            if path[0] == "let":
                cost[path[1]] = (nodes, depth)


def check_presence(
    inputs: tuple[Input, ...],
    let: tuple[tuple[str, Expr], ...],
    texts: Mapping[Path, Expr | MaskTerm],
    source: Source,
) -> None:
    """given() asks about inputs that may be absent; optional ones stand only inside it."""
    optional = {i.name for i in inputs if i.optional}
    absentable = {i.name for i in inputs if i.may_be_absent}
    lets = dict(let)
    seen: set[tuple[str, frozenset[str]]] = set()

    def visit(e: Expr | MaskTerm, here: frozenset[str], path: Path) -> None:
        match e:
            case Name(id) if id in optional - here:
                raise source.error(
                    path,
                    f"'{id}' is optional and may be absent; use it only in the second argument of "
                    f"given({id}, …, …), or give it a default",
                )
            case Name(id) if id in lets:
                if (id, here) not in seen:
                    seen.add((id, here))
                    visit(lets[id], here, path)
            case Given(name, a, b) | MaskTerm("given", (str(name), a, b)):
                if name not in absentable:
                    raise source.error(
                        path,
                        f"given({name}, …): '{name}' is always there; expected an input with "
                        f"optional = true or a default ({listing(sorted(absentable))})",
                    )
                visit(a, here | {name}, path)  # type: ignore[arg-type]
                visit(b, here, path)  # type: ignore[arg-type]
            case MaskTerm(_, args):
                for part in args:
                    if not isinstance(part, str | bool):
                        visit(part, here, path)
            case _:
                for c in children(e):
                    visit(c, here, path)

    for path, e in texts.items():
        visit(e, frozenset(), path)


def check_used(
    inputs: tuple[Input, ...],
    let: tuple[tuple[str, Expr], ...],
    texts: Mapping[Path, Expr | MaskTerm],
    source: Source,
) -> None:
    """Every input and let is mentioned by something that reaches an operand or an output."""
    used: set[str] = set()
    for e in texts.values():
        used |= asked(e)
    for name, e in reversed(let):
        if name not in used:
            raise source.error(("let", name), f"'{name}' is declared but never used; remove it")
        used |= names(e)
    for i in inputs:
        if i.name not in used:
            raise source.error(("inputs", i.name), f"'{i.name}' is declared but never used; "
                                                   "remove it")  # fmt: skip


def check_operands(c: Contraction, scope: Scope, source: Source) -> None:
    """Axes of Q (batch, T, heads, N), K (the same), V (batch, T, heads, P) and L."""
    shared = {*scope.batch, "T", "H", *scope.groups}
    for key, e, own in (("Q", c.Q, "N"), ("K", c.K, "N"), ("V", c.V, "P")):
        extra = scope.carried(e) - shared - {own}
        if extra:
            allowed = " ".join(scope.order(shared | {own}))
            raise source.error(
                ("contraction", key),
                f"'{clip(show(e))}' carries {' '.join(sorted(extra))}; "
                f"expected axes among {allowed}",
            )
    _check_mask(c.L, c, scope, source)


def check_ids(term: MaskTerm, inputs: tuple[Input, ...], source: Source) -> None:
    """Parameters of form "name" are inputs themselves: not expressions, not lets."""
    known = [Name(i.name) for i in inputs]
    for p, arg in zip(SIGNATURES.get(term.fn, ()), term.args, strict=False):
        if p.kind == "formula" and not isinstance(arg, MaskTerm | str | bool):
            _check_scans(arg, known, source)
        if p.form == "name" and arg not in known:
            text = show(arg) if not isinstance(arg, str | bool) else str(arg)
            raise source.error(
                ("contraction", "L"),
                f"{term.fn}({p.name}): expected the name of an input, found '{clip(text)}'",
            )
    for arg in term.args:
        if isinstance(arg, MaskTerm):
            check_ids(arg, inputs, source)


def _check_scans(e: Expr, known: list[Name], source: Source) -> None:
    """runs(ids) and starts(ids) in a formula take inputs themselves."""
    for n in walk(e):
        if isinstance(n, Call) and n.fn in SCAN_FUNCTIONS and n.args[0] not in known:
            raise source.error(("contraction", "L"), f"entry: {show(n)}: expected the name of an "
                                                     "input of ids")  # fmt: skip


def _check_mask(term: MaskTerm, c: Contraction, scope: Scope, source: Source) -> None:
    """Axes of the mask's arguments, by its signature."""
    params = {"scale": (FACTOR, Param("A", "mask"))}.get(term.fn) or SIGNATURES.get(term.fn, ())
    if term.fn in ("add", "mul", "given"):
        params = (Param("A", "mask"),) * len(term.args)
    for p, arg in zip(params, term.args, strict=True):
        if isinstance(arg, MaskTerm):
            _check_mask(arg, c, scope, source)
        elif not isinstance(arg, str | bool):
            _check_argument(f"{term.fn}({p.name})", p, arg, c, scope, source)


def _check_argument(
    what: str, p: Param, e: Expr, c: Contraction, scope: Scope, source: Source
) -> None:
    path = ("contraction", "L")
    hint = f"; {p.hint}" if p.hint else ""
    text = clip(show(e))
    if p.form == "static" and names(e):
        raise source.error(path, f"{what}: '{text}' reads {listing(sorted(names(e)))}; "
                                 f"expected a number or sizes")  # fmt: skip
    axes = scope.carried(e)
    channels = {"N", "P"} - {c.channel}
    if found := axes & channels:
        n = sorted(found)[0]
        raise source.error(
            path,
            f"{what}: '{text}' carries {n}; a mask per channel needs "
            f'equation = "TN,SN,SP,TS{n}->TP", found "{c.equation}"',
        )
    if p.kind == "formula":
        _check_entry(e, scope, source)
        return
    levels = axes & set(scope.levels)
    if levels and p.form != "levels":
        raise source.error(path, f"{what}: '{text}' carries {min(levels)}, the levels of T; only "
                                 "fenwick(l) takes them")  # fmt: skip
    if p.form == "levels" and not levels:
        raise source.error(
            path, f"{what}: '{text}' must carry the levels of T: declare E = \"levels of T\" in "
            '[axes], and the input as "B T H E"',
        )  # fmt: skip
    if found := (axes & POSITIONS) - set(p.allows):
        raise source.error(
            path, f"{what}: '{text}' carries {' and '.join(sorted(found))}; it must not{hint}"
        )
    if missing := set(p.carries) - axes:
        raise source.error(
            path, f"{what}: '{text}' must carry {' and '.join(sorted(missing))}{hint}"
        )


def _check_entry(e: Expr, scope: Scope, source: Source) -> None:
    """In a formula, what has sequence axes is indexed, by as many indices as it has of them."""
    path = ("contraction", "L")
    match e:
        case At(base, index):
            axes = scope.carried(base) & scope.consumed
            due = {frozenset("T"): 1, frozenset("W"): 1, frozenset("TS"): 2}.get(axes)
            if due is None:
                raise source.error(
                    path,
                    f"entry: '{clip(show(e))}': '{clip(show(base))}' has no one sequence axis to "
                    "index (T, W, or T and S)",
                )
            if due != len(index):
                raise source.error(path, f"entry: '{clip(show(e))}': expected {due} "
                                         f"{'index' if due == 1 else 'indices'}")  # fmt: skip
        case Between(base, _, _):
            if scope.carried(base) & POSITIONS != {"T"}:
                raise source.error(path, f"entry: '{clip(show(e))}': '{clip(show(base))}' must "
                                         "carry T; a constant sums to (t - s) * x")  # fmt: skip
        case Name(id) if scope.of_name[id] & set(scope.levels):
            raise source.error(path, f"entry: '{id}' carries the levels of T; write fenwick({id}), "
                                     "a mask of its own")  # fmt: skip
        case Name(id) if scope.of_name[id] & POSITIONS:
            raise source.error(path, f"entry: '{id}' has a sequence axis: write {id}[t], {id}[s] "
                                     f"or {id}[t - s]")  # fmt: skip
        case _:
            for child in children(e):
                _check_entry(child, scope, source)


def check_output(
    output: tuple[tuple[str, Expr], ...],
    let: tuple[tuple[str, Expr], ...],
    scope: Scope,
    source: Source,
) -> None:
    """Outputs carry batch, T, heads and P; one of them at least reads Y."""
    allowed = {*scope.batch, "T", "H", *scope.groups, "P"}
    for name, e in output:
        if extra := scope.carried(e) - allowed:
            raise source.error(
                ("output", name),
                f"'{clip(show(e))}' carries {' '.join(sorted(extra))}; "
                f"expected axes among {' '.join(scope.order(allowed))}",
            )
    if not any("Y" in names(e) for _, e in output):
        raise source.error(("output",), "no output reads Y, the contraction's result")
