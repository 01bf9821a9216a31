"""Masks by name: how specs make them, what they say of themselves, and masks from outside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from smac.errors import PlanError, SpecError
from smac.expr import ONE, S_POS, T_POS, ZERO, At, Expr, Index, Name, Num, Pos, Size, call
from smac.masks import Generators, Lane, Mask, Support, build, register
from smac.masks.algebra import Product, Sum
from smac.masks.band import EMPTY, FULL, band, empty, equal_at
from smac.masks.decay import Decay
from smac.masks.document import Document
from smac.masks.formula import Formula
from smac.masks.toeplitz import Toeplitz
from smac.parse import parse
from smac.signatures import SIGNATURES, Param
from smac.testing.masks import law_errors
from smac.testing.positions import matrix

SPEC = """smac = 1
name = "masked"
[inputs]
q = "B T H N"
k = "B T H N"
v = "B T H P"
a = "B T H"
g = "H"
h = "H W"
ids = "B T"
M = "H T S"
x = "B T H"
u = "H"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q"
K = "k"
V = "v"
L = '{L}'
[output]
y = "Y"
"""
_USES = ("a", "g", "h", "ids", "M", "x", "u")


def mask_of(text: str) -> Mask:
    """The mask that `text` means as a spec's L, by way of the parser."""
    # Every input must be used: those that L leaves out are not declared.
    unused = set(_USES) - set(re.findall(r"\w+", text))
    lines = SPEC.format(L=text).splitlines()
    kept = [line for line in lines if not any(line.startswith(f"{n} = ") for n in unused)]
    return build(parse("\n".join(kept) + "\n").contraction.L)


TEXTS = {
    "causal()": (0, None), "decay(g)": (0, None), "semiseparable(a)": (0, None),
    "cumulative(a)": (0, None), "strict(cumulative(a)) * document(ids)": (1, None),
    "toeplitz(h)": (0, None), "toeplitz(h, bidirectional = true)": (None, None),
    "window(3)": (0, 2), "document(ids)": (None, None), 'fourier("cos")': (None, None),
    "dense(M)": (None, None), 'entry("where(s < t, 1, 0)")': (1, None), "diagonal(u)": (0, 0),
    "decay(g) * document(ids)": (0, None), "decay(g) + diagonal(u)": (0, None),
    "g * (causal() + document(ids))": (None, None), "row(x) * decay(g)": (0, None),
    "strict(decay(g))": (1, None), "transpose(decay(g))": (None, 0),
    "strict(transpose(decay(g)))": (None, -1), 'shift(semiseparable(a), "t")': (1, None),
    'shift(window(3), "s")': (1, 3), "reverse(semiseparable(a))": (None, 0),
    'reverse(shift(semiseparable(a), "s"))': (None, -1), "reverse(document(ids))": (None, None),
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_mask_of_the_language_is_built_and_prints_as_it_was_written(text: str) -> None:
    mask = mask_of(text)
    assert str(mask) == text
    assert mask.support() == Support(*TEXTS[text])
    assert build(mask.term()) == mask


@pytest.mark.parametrize(("text", "why"), [
    ("toeplitz(h)", "mask 'toeplitz(h)' has no generators (no finite state)"),
    ("decay(g) * dense(M)", "mask 'decay(g) * dense(M)' has no generators "
     "('dense(M)': no finite state)"),
    ("strict(toeplitz(h))", "mask 'strict(toeplitz(h))' has no generators "
     "('toeplitz(h)': no finite state)"),
    ('shift(shift(decay(g), "s"), "t")', "mask 'shift(shift(decay(g), \"s\"), \"t\")' has no "
     "generators (it is moved twice off the diagonal, and lanes skip one token at most)"),
    ("reverse(decay(g) * dense(M))", "mask 'reverse(decay(g) * dense(M))' has no generators "
     "('decay(g) * dense(M)': 'dense(M)': no finite state)"),
])  # fmt: skip
def test_missing_generators_are_explained(text: str, why: str) -> None:
    mask = mask_of(text)
    assert mask.generators() is None
    assert mask.missing("generators") == why


@pytest.mark.parametrize("text", ["document(ids)", "decay(g) + document(ids)",
                                  "transpose(decay(g))", "decay(g) + strict(transpose(decay(g)))"])
def test_generators_above_the_diagonal_keep_no_state(text: str) -> None:
    mask = mask_of(text)
    assert mask.missing("generators") is None
    assert mask.missing("state") == (f"mask '{text}' has no state (it is nonzero above the "
                                     "diagonal; multiply it by causal())")  # fmt: skip


@pytest.mark.parametrize("text", ['shift(semiseparable(a), "s")', 'shift(row(x) * decay(g), "t")',
                                  "causal() * reverse(document(ids))"])
def test_lanes_that_read_other_tokens_keep_no_state(text: str) -> None:
    mask = mask_of(text)
    assert mask.missing("generators") is None
    assert mask.missing("state") == (
        f"mask '{text}' has no state (its lanes read other tokens than the one that comes in)")


def test_time_backwards_transposes_what_is_by_lag_and_undoes_itself() -> None:
    assert mask_of("reverse(toeplitz(h))") == mask_of("transpose(toeplitz(h))")
    assert mask_of("reverse(transpose(toeplitz(h)))") == mask_of("toeplitz(h)")
    assert mask_of("reverse(reverse(semiseparable(a)))") == mask_of("semiseparable(a)")


def test_a_level_is_a_whole_number() -> None:
    for text in ("level(1.5)", "level(size(N))", "level(41)"):
        with pytest.raises(SpecError, match=r"level\(l\): found '.*'; expected a whole number"):
            mask_of(text)
    generators = mask_of("level(3)").generators()
    assert generators is not None
    assert generators.rank == 1


def test_a_plane_takes_masks_of_positions() -> None:
    mask = mask_of("kron(decay(g), window(3), width = 4)")
    assert mask.missing("generators") == (
        "mask 'kron(decay(g), window(3), 4)' has no generators (a plane of tokens has no one order "
        "in which a state could pass)")  # fmt: skip
    with pytest.raises(PlanError) as e:
        mask_of("kron(semiseparable(a), decay(g), width = 4)").entry()
    assert str(e.value) == (
        "kron: mask 'semiseparable(a)' reads tokens; expected masks of positions alone, as "
        "causal(), decay(gamma), window(w) and their sums")  # fmt: skip


def test_laws_that_hold_are_not_missing() -> None:
    assert mask_of("decay(g) * document(ids)").missing("generators") is None
    assert mask_of("decay(g) * document(ids)").missing("state") is None
    assert mask_of("toeplitz(h)").missing("symbol") is None
    assert mask_of("decay(g)").missing("symbol") == (
        "mask 'decay(g)' has no symbol (its entries are not read from one lag axis)")  # fmt: skip
    with pytest.raises(ValueError, match="unknown law 'speed'; expected generators, state, symb"):
        mask_of("decay(g)").missing("speed")


@pytest.mark.parametrize(("text", "cost"), [
    ("causal()", 1024), ("decay(g) + semiseparable(a)", 2048), ("window(3)", 3 * 1024 - 3),
    ("dense(M)", 1024**2), ("strict(dense(M))", 1024**2), ("strict(decay(g))", 1024),
    ("transpose(semiseparable(a))", 2048), ("transpose(toeplitz(h))", 1024 * 1025 // 2),
    ("toeplitz(h)", 5 * 1024 * 11),
])  # fmt: skip
def test_cost_of_a_product_with_a_vector(text: str, cost: int) -> None:
    assert mask_of(text).matvec_cost(1024) == cost


def test_rank_is_bounded_and_nests_are_quick() -> None:
    """2⁴⁰ lanes, or a doubling at each level, would never end."""
    two = mask_of("decay(g) + semiseparable(a)")
    product, deep = two, mask_of("document(ids)")
    for n in range(40):
        product = Product(product, Sum(two, Decay(Name(f"g{n}"))))
        deep = Sum(deep, mask_of("document(ids)"))
    assert product.generators() is None
    assert "a rank above 64" in str(product.missing("generators"))
    known = deep.generators()
    assert known is not None
    assert known.rank == 2


def test_short_toeplitz_products_need_no_fft() -> None:
    assert mask_of("toeplitz(h)").matvec_cost(8) == 36


def test_gradient_of_decay_at_zero_is_right() -> None:
    """d γⁿ/dγ at γ = 0 is 1 for n = 1 and 0 beyond, where logarithms alone would say NaN."""
    mask = Decay(Name("g"))
    zero = torch.zeros((), dtype=torch.double)
    (term,) = mask.adjoint()
    assert (term.pattern, term.base) == ("all", Name("g"))
    expected = torch.diag(torch.ones(3, dtype=torch.double), -1)
    torch.testing.assert_close(matrix(term.weight, 4, {"g": zero}), expected)
    torch.testing.assert_close(matrix(mask.entry(), 4, {"g": zero}),
                               torch.eye(4, dtype=torch.double))  # fmt: skip


def test_an_index_that_nothing_gathers_is_a_plan_error() -> None:
    assert Formula(Toeplitz(Name("h")).entry()).adjoint() == Toeplitz(Name("h")).adjoint()
    odd = Formula(call("exp", At(Name("h"), (call("mul", T_POS, S_POS),))))
    why = "mask 'entry(\"exp(h[t * s])\")' has no adjoint (no gather pattern for h[t * s])"
    assert odd.missing("adjoint") == why
    with pytest.raises(PlanError, match=re.escape(why)):
        odd.adjoint()


def test_documents_have_no_gradient_for_their_ids() -> None:
    terms = mask_of("decay(g) * document(ids)").adjoint()
    assert [(t.pattern, t.base) for t in terms] == [("all", Name("g"))]


def test_patterns_follow_the_index() -> None:
    mask = mask_of('shift(row(x) * decay(g), "t") + dense(M) * semiseparable(a) + toeplitz(h)')
    found = {(t.pattern, t.base) for t in mask.adjoint()}
    assert found == {("row", Name("x")), ("all", Name("g")), ("entry", Name("M")),
                     ("cut", Name("a")), ("lag", Name("h"))}  # fmt: skip


T1 = call("sub", T_POS, ONE)


@pytest.mark.parametrize(("cond", "expected"), [
    (call("ge", T_POS, S_POS), Support(0, None)), (call("gt", T_POS, S_POS), Support(1, None)),
    (call("le", T_POS, S_POS), Support(None, 0)), (call("lt", S_POS, T1), Support(2, None)),
    (call("eq", T_POS, S_POS), Support(0, 0)), (call("ne", T_POS, S_POS), FULL),
    (call("lt", call("sub", T_POS, S_POS), Num(4)), Support(None, 3)),
    (call("lt", call("sub", T_POS, S_POS), Num(4.5)), FULL),
    (call("ge", T_POS, Num(2)), FULL), (call("ge", call("mul", Num(2), T_POS), S_POS), FULL),
    (call("ge", call("add", T_POS, S_POS), Num(2)), FULL),
    (call("lt", call("sub", T_POS, S_POS), Size("T")), FULL),
    (call("mul", call("ge", T_POS, S_POS), call("le", T1, S_POS)), Support(0, 1)),
    (call("maximum", call("eq", T_POS, S_POS), call("eq", T1, S_POS)), Support(0, 1)),
    # minimum(t >= s, -1) is −1 or 0 … or −1: nonzero everywhere. Not a conjunction.
    (call("minimum", call("ge", T_POS, S_POS), Num(-1)), FULL), (ONE, FULL), (ZERO, EMPTY),
])  # fmt: skip
def test_bands_of_conditions(cond: Expr, expected: Support) -> None:
    assert band(call("where", cond, ONE, ZERO)) == expected


def test_the_other_side_of_a_condition_counts_too() -> None:
    below = call("ge", T_POS, S_POS)
    assert band(call("where", below, ZERO, ONE)) == Support(None, -1)
    assert band(call("where", below, Pos("t"), ONE)) == FULL
    assert empty(band(call("where", below, ZERO, ZERO)))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names registered by a test are gone after it."""
    from smac.masks import registry

    monkeypatch.setattr(registry, "_FACTORIES", dict(registry._FACTORIES))
    known = dict(SIGNATURES)
    yield
    SIGNATURES.clear()
    SIGNATURES.update(known)


@pytest.mark.usefixtures("registered")
def test_a_mask_from_outside_in_twenty_lines() -> None:
    @register("linear_distance", (Param("slope", allows=()),))
    @dataclass(frozen=True)
    class LinearDistance(Mask):
        """L[t,s] = 1 + slope·(t − s) for t ≥ s: two lanes that never decay."""

        slope: Expr

        def entry(self) -> Expr:
            far = call("mul", self.slope, call("sub", T_POS, S_POS))
            return call("where", call("ge", T_POS, S_POS), call("add", ONE, far), ZERO)

        def generators(self) -> Generators:
            position = call("mul", self.slope, Index("T"))
            return Generators((Lane(ZERO, read=call("add", ONE, position)),
                               Lane(ZERO, write=call("neg", position))))  # fmt: skip

    mask = mask_of("linear_distance(g) * document(ids)")
    assert str(mask) == "linear_distance(g) * document(ids)"
    generators = mask.generators()
    assert generators is not None
    assert generators.rank == 2
    assert {lane.reset for lane in generators.lanes} == {call("starts", Name("ids"))}
    values = {"g": torch.tensor(0.3).double(), "ids": torch.tensor([0, 0, 1, 1, 1])}
    errors = law_errors(mask, 5, values)
    assert set(errors) == {"support", "transpose", "generators", "above", "lanes",
                           "adjoint"}
    assert max(errors.values()) < 1e-12


@pytest.mark.usefixtures("registered")
def test_registering_needs_a_signature_once_and_the_same_each_time() -> None:
    with pytest.raises(ValueError, match="mask 'new' has no signature yet: pass its params"):
        register("new")
    register("new", (Param("w"),))(Decay)
    with pytest.raises(ValueError, match="mask 'new' already has the signature"):
        register("new", (Param("v"),))
    Decay.name = "decay"


def test_an_unknown_mask_is_named_with_its_neighbours() -> None:
    from smac.terms import MaskTerm

    with pytest.raises(SpecError) as e:
        build(MaskTerm("decy", (Name("g"),)))
    assert str(e.value) == (
        "contraction.L: unknown mask 'decy'; expected one of approx, causal, circulant, col, "
        "cumulative, decay, dense, diagonal, document, entry, fenwick, fourier, kron, lag, level, "
        "ones, prefix, reverse, row, semiseparable, shift, strict, toeplitz, transpose, wave, "
        "window; did you mean 'decay'?"
    )
    with pytest.raises(SpecError, match="must be expanded for a number of levels"):
        build(MaskTerm("fenwick", (Name("l"),)))
    with pytest.raises(SpecError, match="must be specialised before masks are built"):
        build(MaskTerm("given", ("x", MaskTerm("causal", ()), MaskTerm("causal", ()))))


def test_what_is_equal_wherever_an_entry_is_not_zero() -> None:
    """Documents say so through products and masks around them, sums where both do."""
    doc, causal = Document(Name("ids")), Decay(ONE)
    ids, other = call("runs", Name("ids")), call("runs", Name("other"))
    for mask, due in (
        (doc, {ids}), (causal, set()), (Product(doc, causal), {ids}), (Sum(doc, causal), set()),
        (Sum(Product(doc, causal), doc), {ids}), (Product(doc, causal).transpose(), {ids}),
        (Product(doc, Document(Name("other"))), {ids, other}),
    ):  # fmt: skip
        assert equal_at(mask.entry()) == due, str(mask)
    later = call("eq", At(ids, (call("add", T_POS, ONE),)), At(ids, (S_POS,)))
    assert equal_at(call("where", later, ONE, ZERO)) == frozenset()
    same = call("eq", At(ids, (T_POS,)), At(ids, (S_POS,)))
    assert equal_at(call("where", same, ZERO, ONE)) == frozenset()
    assert equal_at(call("where", call("lt", T_POS, S_POS), ZERO, same)) == {ids}
    assert equal_at(ZERO) == frozenset()
