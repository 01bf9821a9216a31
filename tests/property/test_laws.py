"""One suite for every mask: its laws agree with its entry, in float64, at awkward decays too."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import Tensor

from smac.expr import ONE, S_POS, T_POS, At, Between, Expr, Name, Num, call, names
from smac.masks import (
    Mask,
    causal,
    circulant,
    decay,
    dense,
    document,
    formula,
    fourier,
    kron,
    lag,
    level,
    ones,
    prefix,
    semiseparable,
    wave,
)
from smac.masks import toeplitz as toeplitz_family
from smac.masks import window as window_family
from smac.masks.algebra import Columns as col
from smac.masks.algebra import Diagonal, Product, Scale, Shift, Strict, Sum, reverse, transpose
from smac.masks.algebra import Rows as row
from smac.testing.decays import LOG_DECAY_KINDS, log_decays
from smac.testing.masks import law_errors

A, X, Y, C, IDS = (Name(n) for n in ("a", "x", "y", "c", "ids"))
LAG = call("sub", T_POS, S_POS)
ss = semiseparable.Semiseparable(A)
ss2 = semiseparable.Semiseparable(Name("a2"))
scaled = semiseparable.Semiseparable(call("mul", A, Name("delta")))
gamma = decay.Decay(Name("gamma"))
gamma2 = decay.Decay(Name("gamma2"))
causal_mask = causal.Causal()
documents = document.Document(IDS)
toeplitz = toeplitz_family.Toeplitz(Name("h"))
both_ways = toeplitz_family.Toeplitz(Name("hb"), True)
matrix = dense.Dense(Name("M"))
window = window_family.Window(Num(3))
gaussian = formula.Formula(call("exp", call("neg", call("mul", C, call("mul", LAG, LAG)))))
everywhere = ones.Ones()
prefixed = prefix.Prefix(C)
lags = lag.Lag()
circle = circulant.Circulant(Name("h"))
levels = tuple(level.Level(Num(n)) for n in range(4))
plane = kron.Kron(Sum(gamma, Strict(transpose(gamma))), window, Num(3))
waves = wave.Wave(C, Name("d"))
#: What `shift(semiseparable(a), "t")` is, written by hand.
by_hand = formula.Formula(
    call("where", call("gt", T_POS, S_POS),
         call("mul", call("exp", Between(A, S_POS, call("sub", T_POS, ONE))), At(X, (T_POS,))),
         Num(0)))  # fmt: skip

MASKS: tuple[Mask, ...] = (
    causal_mask, gamma, ss, scaled, toeplitz, both_ways, matrix, documents, window, gaussian,
    by_hand, fourier.Fourier("cos"), fourier.Fourier("sin"), Diagonal(X),
    Product(gamma, documents), Product(ss, documents), Product(documents, ss), Sum(gamma, gamma2),
    Sum(ss, ss2), Product(ss, ss2), Product(Sum(gamma, ss), Sum(gamma2, ss2)), Scale(C, ss),
    Sum(Scale(C, gamma), gamma), row(X, ss), col(X, ss), row(X, col(Y, gamma)),
    Sum(row(X, ss), row(Y, ss)), Sum(col(X, ss), col(Y, ss)), row(X, documents),
    Product(row(X, documents), Sum(ss, gamma)), Shift(ss, "t"), Shift(ss, "s"), Shift(gamma, "t"),
    Shift(toeplitz, "s"), Shift(row(X, ss), "t"), Shift(col(X, ss), "s"), Shift(matrix, "t"),
    Shift(matrix, "s"), Shift(ss.transpose(), "t"), Shift(both_ways, "t"), Strict(ss),
    Strict(matrix), Strict(ss.transpose()), ss.transpose(), toeplitz.transpose(),
    both_ways.transpose(), matrix.transpose(), row(X, ss).transpose(), Shift(ss, "s").transpose(),
    Sum(Shift(ss, "t"), Diagonal(X)), Sum(col(X, ss), Shift(col(Y, ss), "s")),
    Sum(ss, Strict(transpose(ss2))), Sum(toeplitz, Scale(C, toeplitz)), Product(ss, matrix),
    Product(both_ways, Scale(C, both_ways)), Sum(ss, Diagonal(X)), Product(Diagonal(X), ss),
    circle, Product(circle, circle), circle.transpose(), plane, plane.transpose(), *levels,
    Product(Sum(row(X, levels[1]), row(Y, levels[2])), ss), levels[2].transpose(),
    lags, Product(lags, Product(lags, gamma)), waves, Product(waves, ss), waves.transpose(),
    everywhere, prefixed, row(X, col(Y, everywhere)), Product(prefixed, documents),
    reverse(ss), reverse(row(X, col(Y, Product(ss, documents)))), reverse(ss).transpose(),
    reverse(Shift(col(X, ss), "s")), Shift(reverse(row(X, Product(ss, documents))), "s"),
    Shift(reverse(col(X, Product(ss, documents))), "t"), reverse(prefixed), reverse(matrix),
    Shift(Sum(ss, Strict(transpose(ss2))), "s"), reverse(Sum(row(X, ss), Strict(transpose(ss2)))),
    Shift(Sum(row(X, ss), Strict(transpose(ss2))), "t"), Shift(documents, "t"), reverse(lags),
    reverse(levels[2]),
)  # fmt: skip

_floats = st.floats(-2.0, 2.0)
#: γ by kind: 0 is legal, and so is growth.
_GAMMAS = {"0": st.just(0.0), "1": st.just(1.0), "> 1": st.floats(1.05, 2.0),
           "ordinary": st.floats(0.2, 0.95)}  # fmt: skip


@st.composite
def values_of(draw: st.DrawFn, e: Expr, T: int, seen: Counter[str]) -> dict[str, Tensor]:
    """Tensors for the names of an entry; the kinds of decays drawn are counted in `seen`."""

    def floats(*shape: int) -> Tensor:
        n = int(torch.tensor(shape).prod())
        drawn = draw(st.lists(_floats, min_size=n, max_size=n))
        return torch.tensor(drawn, dtype=torch.double).reshape(shape)

    def one(name: str) -> Tensor:
        if name in ("a", "a2"):
            drawn = draw(log_decays(T, lambda kind: seen.update([kind])))
            return torch.tensor(drawn, dtype=torch.double)
        if name in ("gamma", "gamma2"):
            kind = draw(st.sampled_from(sorted(_GAMMAS)))
            event(f"gamma {kind}")
            seen[f"gamma {kind}"] += 1
            return torch.tensor(draw(_GAMMAS[kind]), dtype=torch.double)
        if name == "delta":
            return torch.tensor(draw(st.floats(0.5, 1.5)), dtype=torch.double)
        if name == "ids":
            ids = draw(st.lists(st.integers(0, 2), min_size=T, max_size=T))
            return torch.tensor(ids, dtype=torch.int64)
        shapes = {"h": (T + 2,), "hb": (max(2 * T - 1, 0),), "M": (T, T), "c": (), "d": ()}
        return floats(*shapes.get(name, (T,)))

    return {name: one(name) for name in sorted(names(e))}


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_laws_agree(mask: Mask) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @given(st.data(), st.integers(0, 7))
    def check(data: st.DataObject, T: int) -> None:
        values = data.draw(values_of(mask.entry(), T, seen))
        errors = law_errors(mask, T, values)
        assert set(errors) >= {"support", "transpose", "adjoint"}
        assert max(errors.values()) < 1e-10, errors

    check()
    used = names(mask.entry())
    due = set(LOG_DECAY_KINDS) if used & {"a", "a2"} else set()
    if used & {"gamma", "gamma2"}:
        due |= {f"gamma {kind}" for kind in _GAMMAS}
    assert due <= set(seen), f"never drawn: {due - set(seen)}"


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_transposing_twice_is_the_mask(mask: Mask) -> None:
    assert mask.transpose().transpose() == mask


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_the_algebra_knows_no_wider_support_than_the_entry_shows(mask: Mask) -> None:
    from smac.masks.band import band

    assert mask.support() == band(mask.entry())


FINITE = {"ranks add": (Sum(gamma, gamma2), 2), "document keeps rank": (Product(ss, documents), 1),
          "ranks multiply": (Product(Sum(gamma, ss), Sum(gamma2, ss2)), 4),
          "equal transitions share a lane": (Sum(row(X, ss), row(Y, ss)), 1),
          "multiples too": (Sum(Scale(C, gamma), gamma), 1),
          "a diagonal is a lane": (Sum(ss, Diagonal(X)), 2),
          "equal decays are one": (Sum(gamma, gamma), 1),
          "a strict mask keeps its rank": (Strict(ss), 1),
          "strictness twice changes nothing": (Strict(Strict(ss)), 1),
          "equal lanes merge under strict": (Sum(Strict(row(X, ss)), Strict(ss)), 1),
          "a strict diagonal is nothing": (Sum(ss, Strict(Diagonal(X))), 1),
          "so is a strict mask on a diagonal": (Sum(ss, Product(Strict(ss), Diagonal(X))), 1),
          "zero has a lane that reads nothing": (Strict(Diagonal(X)), 1),
          "a shift keeps rank": (Shift(Sum(ss, ss2), "t"), 2),
          "in both directions": (Shift(Sum(row(X, ss), ss2), "s"), 2),
          "a row's factor may move": (Shift(row(X, ss), "t"), 1),
          "time backwards keeps rank": (reverse(Strict(ss)), 1),
          "and the diagonal is a lane then": (reverse(Sum(ss, ss2)), 3),
          "rwkv6": (Sum(Shift(ss, "t"), Diagonal(X)), 2),
          "a document both ways": (documents, 2),
          "ranks of the sides multiply": (Product(documents, Sum(ss, Strict(transpose(ss2)))), 2),
          "a transpose is its diagonal and what is above": (transpose(ss), 2),
          "a line is rank 2": (Product(lags, causal_mask), 2),
          "a square rank 3": (Product(lags, Product(lags, gamma)), 3),
          "a complex decay is rank 2": (Product(waves, ss), 2),
          "a level keeps rank": (Product(levels[2], ss), 1),
          "levels add": (Sum(Sum(levels[0], levels[1]), Sum(levels[2], levels[3])), 4),
          "low rank": (Sum(row(X, col(Y, everywhere)), row(Y, col(X, everywhere))), 4),
          "quasi-separable": (Sum(ss, Strict(transpose(ss2))), 2)}  # fmt: skip


@pytest.mark.parametrize(("mask", "rank"), FINITE.values(), ids=FINITE)
def test_rank_calculus(mask: Mask, rank: int) -> None:
    generators = mask.generators()
    assert generators is not None
    assert generators.rank == rank


class Wrong(semiseparable.Semiseparable):
    """A law suite that cannot fail proves nothing: lanes with the wrong decay."""

    def lanes(self):  # type: ignore[no-untyped-def]
        from smac.masks import Lane

        return (Lane(call("mul", self.log_decay, Num(2))),)


def test_the_suite_finds_a_wrong_law() -> None:
    a = torch.tensor([0.0, -0.5, -1.0], dtype=torch.double)
    errors = law_errors(Wrong(A), 3, {"a": a})
    assert errors["generators"] > 0.1
    assert errors["support"] == errors["transpose"] == 0.0


_LEAVES = st.sampled_from((causal_mask, gamma, ss, ss2, documents, matrix, window, toeplitz,
                           both_ways, gaussian, Diagonal(X), everywhere, prefixed, lags,
                           waves, circle, levels[0], levels[2], plane))  # fmt: skip


def _combined(inner: st.SearchStrategy[Mask]) -> st.SearchStrategy[Mask]:
    """Every combinator over masks drawn from `inner`."""
    return st.one_of(
        st.builds(Sum, inner, inner), st.builds(Product, inner, inner),
        st.builds(Scale, st.just(C), inner), st.builds(row, st.just(X), inner),
        st.builds(col, st.just(Y), inner), st.builds(Strict, inner), st.builds(transpose, inner),
        st.builds(Shift, inner, st.sampled_from(("t", "s"))), st.builds(reverse, inner),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.recursive(_LEAVES, _combined, max_leaves=4), st.data(), st.integers(0, 5))
def test_laws_agree_on_any_combination(mask: Mask, data: st.DataObject, T: int) -> None:
    """Laws are closed under the algebra, not only on the combinations that papers use."""
    event(f"generators: {mask.generators() is not None}")
    values = data.draw(values_of(mask.entry(), T, Counter()))
    errors = law_errors(mask, T, values)
    assert max(errors.values()) < 1e-10, errors
    assert mask.transpose().transpose() == mask
