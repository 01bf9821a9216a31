"""Formulas and what they are found to be: the table, rewritten formulas, numbers, refusals."""

from __future__ import annotations

import random
import re

import pytest
import torch

from docs import classification
from docs.formulas import AXES, FORMULAS
from smac.axes import Scope, scope_of
from smac.errors import SmacError
from smac.expr import ONE, ZERO, Call, Expr, Name, Num, call, rebuild, transform, walk
from smac.expr import children as parts
from smac.masks import build
from smac.masks.classify import ClassificationError, Found, classify
from smac.masks.classify.check import verify
from smac.masks.classify.evaluate import Point, value
from smac.masks.decay import Decay
from smac.reference import mask_matrix
from smac.reference.values import Scope as values_scope
from smac.reference.values import Value
from smac.show import show
from smac.syntax import mask as read_mask
from smac.syntax import scalar
from smac.terms import Input, MaskTerm
from smac.testing.masks import distance, law_errors
from smac.testing.positions import matrix

EVERY = [(row, expected, f) for row, (expected, formulas) in FORMULAS.items() for f in formulas]
SCOPE = classification.scope()
CATALOGUE = 60


def as_expected(found: Found, expected: int | str) -> bool:
    if isinstance(expected, int):
        return found.rank is not None and found.rank <= expected
    return expected in found.structure


def test_the_table_is_large_and_each_row_is_written_in_two_ways() -> None:
    assert len(EVERY) >= CATALOGUE
    assert all(len(formulas) >= 2 for _, formulas in FORMULAS.values())
    assert len({f for _, _, f in EVERY}) == len(EVERY)


@pytest.mark.parametrize(("row", "expected", "formula"), EVERY)
def test_each_formula_is_what_the_catalogue_says(
    row: str, expected: int | str, formula: str
) -> None:
    found = classification.found(formula)
    assert as_expected(found, expected), (row, found)
    assert (found.term is None) == (found.compared == 0)


def drawn(T: int, seed: int) -> dict[str, torch.Tensor]:
    """Values of the table's inputs for one head, as `testing.positions` takes them."""
    g = torch.Generator().manual_seed(seed)
    shapes = {"T": (T,), "W": (2 * T - 1,), "S": (T, T)}

    def one(name: str, axes: str) -> torch.Tensor:
        if name == "ids":
            return torch.randint(0, 3, (T,), generator=g)
        kind = next((k for k in ("S", "W", "T") if k in axes), "")
        return 0.2 + 0.8 * torch.rand(shapes.get(kind, ()), generator=g, dtype=torch.double)

    return {n: one(n, a) for n, a in AXES.items()}


def oracle(formula: str, T: int, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """The formula as a matrix, by the oracle."""
    sizes = {"T": T, "S": T, "W": 2 * T - 1, "H": 1, "B": 1}
    axes = {n: tuple(x for x in a.split() if x not in ("B", "H")) for n, a in AXES.items()}
    tensors = {n: Value(axes[n], v) for n, v in values.items()}
    scope = values_scope(tensors, sizes, frozenset(AXES), {}, torch.float64, torch.device("cpu"))
    found = mask_matrix(MaskTerm("entry", (scalar(formula, entry=True),)), scope)
    return found.to(("T", "S")).expand(T, T)


CLASSIFIED = [f for _, _, f in EVERY if classification.found(f).term is not None]


@pytest.mark.parametrize("formula", CLASSIFIED)
def test_masks_equal_their_formulas_and_keep_their_laws(formula: str) -> None:
    """By the oracle's and torch's values: the classifier's own check shares nothing with them."""
    found = classification.found(formula)
    assert found.term is not None
    mask = build(found.term)
    for T in (1, 6, 11):
        values = drawn(T, T)
        want, got = oracle(formula, T, values), matrix(mask.entry(), T, values)
        kept = want.isfinite()  # a formula may have no value where its condition makes it 0
        assert kept.tril().sum() == T * (T + 1) // 2
        assert distance(torch.where(kept, got, 0), torch.where(kept, want, 0)) < 1e-12
        assert max(law_errors(mask, T, values).values()) < 1e-9
    assert read_mask(show(found.term))  # the language can say it


@pytest.mark.parametrize("formula", CLASSIFIED)
def test_ranks_are_those_of_the_blocks_off_the_diagonal(formula: str) -> None:
    found = classification.found(formula)
    if found.rank is None:
        return
    T = 14
    L = oracle(formula, T, drawn(T, 5)).nan_to_num()
    blocks = (L,) if "low-rank" in found.structure else (L[7:, :7], L[:7, 7:])
    rank = sum(int(torch.linalg.matrix_rank(b, rtol=1e-9)) for b in blocks if b.abs().max() > 1e-12)
    assert rank <= found.rank


# ---- formulas rewritten -----------------------------------------------------------------------

_FLIPPED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le", "eq": "eq", "ne": "ne"}


def commuted(e: Expr, source: random.Random) -> Expr:
    """Operands of + and *, and sides of comparisons, exchanged here and there."""
    kids = tuple(commuted(k, source) for k in parts(e))
    e = rebuild(e, kids) if kids else e
    if isinstance(e, Call) and source.random() < 0.5:
        if e.fn in ("add", "mul", "maximum", "minimum"):
            return Call(e.fn, e.args[::-1])
        if e.fn in _FLIPPED:
            return Call(_FLIPPED[e.fn], e.args[::-1])
    return e


def expanded(e: Expr, source: random.Random) -> Expr:
    """where(c, a, 0) as c · a, a − b as a + (−1) · b, squares as products, and back."""
    kids = tuple(expanded(k, source) for k in parts(e))
    e = rebuild(e, kids) if kids else e
    if source.random() < 0.3:
        return e
    match e:
        case Call("where", (Call("lt" | "le" | "gt" | "ge" | "eq", _) as c, a, Num(0))):
            return call("mul", c, a)
        case Call("where", (c, a, b)) if b != ZERO:
            return call("where", call("eq", c, ZERO), b, a)
        case Call("sub", (a, b)):
            return call("add", a, call("mul", Num(-1), b))
        case Call("pow", (a, Num(2))):
            return call("mul", a, a)
        case Call("div", (a, b)) if b != ONE:
            return call("mul", a, call("div", ONE, b))
        case Call("exp", (Call("add" | "sub" as fn, (a, b)),)):
            return call("mul" if fn == "add" else "div", call("exp", a), call("exp", b))
    return e


def split(e: Expr, source: random.Random) -> Expr:
    """A quarter of the formula and three quarters."""
    return call("add", call("mul", Num(0.25), e), call("div", e, call("div", Num(4), Num(3))))


REWRITES = {"commute": commuted, "expand": expanded, "split": split}


def renamed(e: Expr) -> tuple[Expr, Scope]:
    """Every input called otherwise, in another order of the alphabet."""
    new = {n: f"z{len(AXES) - i}_{n}" for i, n in enumerate(sorted(AXES))}
    inputs = tuple(Input(new[n], tuple(a.split())) for n, a in AXES.items())
    return (transform(e, lambda n: Name(new[n.id]) if isinstance(n, Name) else None),
            scope_of((), inputs))  # fmt: skip


@pytest.mark.parametrize("how", [*REWRITES, "rename"])
@pytest.mark.parametrize(("row", "expected", "formula"), EVERY[::3])
def test_rewritten_formulas_are_still_found(
    row: str, expected: int | str, formula: str, how: str
) -> None:
    e = scalar(formula, entry=True)
    source = random.Random(f"{how} {formula}")
    scope = SCOPE
    if how == "rename":
        e, scope = renamed(e)
    else:
        e = REWRITES[how](e, source)
    found = classify(e, scope)
    assert as_expected(found, expected), (row, show(e), found)


# ---- wrong is not an answer -------------------------------------------------------------------


def test_a_wrong_classification_is_a_loud_error() -> None:
    formula = scalar("where(t >= s, gamma ** (t - s) + 0.001 * (t - s > 9), 0)", entry=True)
    with pytest.raises(ClassificationError, match="this is a defect of SMAC") as e:
        verify(formula, Decay(Name("gamma")), SCOPE)
    assert isinstance(e.value, SmacError)
    assert "was classified as decay(gamma), whose entry at t = " in str(e.value)


def test_a_window_is_checked_beyond_its_width() -> None:
    formula = scalar("(t >= s) * (t - s < 40)", entry=True)
    mask = build(read_mask("window(41)"))
    with pytest.raises(ClassificationError, match=re.escape("window(41)")):
        verify(formula, mask, SCOPE)
    assert verify(formula, build(read_mask("window(40)")), SCOPE) > 1000


def test_what_cannot_be_checked_is_unknown() -> None:
    found = classification.found("(t >= s) * log(0 - exp(gamma))")
    assert found.term is None
    assert "no finite value at any of the drawn parameters" in found.lines[0]


UNKNOWN = {
    "(t >= s) * x[t + 2]": "x[2 + t] is read elsewhere than at t",
    "(t >= s) * x[t - s]": "x is read by the lag, but x carries T: declare it over the lag axis W",
    "(t >= s) * exp(g[t] * y[s])": "g[t]",
    "(t >= s) * sum(g[k], k, s + 1, t)": "sum(g[k], k, s + 1, t) is a function of both t and s",
}  # fmt: skip


@pytest.mark.parametrize("formula", UNKNOWN)
def test_unknown_is_an_answer_with_a_reason(formula: str) -> None:
    found = classification.found(formula)
    assert found.term is None
    assert UNKNOWN[formula] in "; ".join(found.lines)


def test_what_does_not_multiply_out_is_unknown() -> None:
    terms = " * ".join(f"(x[t] + {n} * y[s] + c[t] * d[s] + x[t] * b[s])" for n in range(1, 20))
    found = classification.found(f"(t >= s) * {terms}")
    assert found.term is None
    assert found.lines == ("it does not multiply out within the limits",)


def test_large_formulas_end() -> None:
    for formula, structure in [
        ("(t >= s) * ((t - s) % 16 == 0) * ((t - s) % 15 == 0)",
         "Toeplitz; semiseparable, rank 240"),
        ("(t >= s) * " + " * ".join(f"cos({k} * omega * (t - s))" for k in range(1, 9)),
         "Toeplitz; semiseparable, rank 256"),
        ("(t >= s) * x[t] * ((t - s) % 15 == 0) * ((t - s) % 14 == 0)", "unknown"),
        ("(t >= s) * (x[t] + y[s] + gamma * c[t] + d[s]) ** 16", "unknown"),
    ]:  # fmt: skip
        assert classification.found(formula).structure == structure


def test_values_are_those_of_the_language() -> None:
    point = Point(9, {"x": [1.0, 2.0, 4.0, 8.0], "h": [0.5, 0.25]}, 3, 1)
    for text, want in [("x[t] - x[s]", 6.0), ("sum(x[k], k, s + 1, t)", 12.0), ("size(T)", 9),
                       ("where(t > s, 1, 1 / 0)", 1), ("bit_length(t ^ s)", 2),
                       ("h[t - s - 1]", 0.25), ("clamp(t, 0, 2)", 2)]:  # fmt: skip
        assert value(scalar(text, entry=True), point) == want
    with pytest.raises(IndexError):
        value(scalar("x[s - t]", entry=True), point)


def test_values_of_formulas_let_go_are_not_those_of_the_next() -> None:
    """What a point has seen is known by the identity of its nodes, which memory gives out again."""
    point = Point(9, {"x": [float(k) for k in range(9)]}, 3, 1)
    for n in range(200):
        assert value(scalar(f"(x * {n})[t]", entry=True), point) == 3.0 * n


def test_the_page_is_true() -> None:
    rows = classification.PAGE.read_text("utf-8").splitlines()
    there = [re.sub(r" \| [0-9.]+ \|$", "", row) for row in rows if row.startswith("| ")]
    due = [re.sub(r" \| [0-9.]+ \|$", "", classification.line(r)) for r in classification.rows()]
    assert there[1:] == due, "docs/classification.md: run python -m docs.classification"


def test_formulas_walk_no_further_than_their_nodes() -> None:
    """The rewriting above reaches every part of a formula."""
    e = scalar("where(t >= s, x[t] * exp(g[t] - g[s]), 0)", entry=True)
    assert len(list(walk(commuted(e, random.Random(1))))) == len(list(walk(e)))
