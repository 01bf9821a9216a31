"""approx(…): the bound holds wherever it is measured again, and what cannot be is refused."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy
import pytest
import torch
from drawn import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from under import under

import smac
from docs import approximations
from smac.certified import resolve
from smac.certified.fit import Fit, Mode, NoFit, evaluate, fit, split
from smac.certified.lags import values, why_not
from smac.certified.resolve import approximations as approx_terms
from smac.certified.resolve import terms
from smac.cli import main
from smac.errors import PlanError
from smac.masks import build
from smac.reference.dense import mask_matrix
from smac.reference.values import Scope
from smac.show import show
from smac.syntax import mask
from smac.testing.check import check, run_here

POWER, GAUSS = "(1 + t - s) ** -0.5", "exp(-((t - s) / 64) ** 2)"


def lag(h: str, options: str = "") -> str:
    return f'approx(entry("where(t >= s, {h}, 0)"){options})'


def spec(mask: str, more: str = "") -> smac.Spec:
    return under(mask, more, name="lag", sizes="T = 2048, H = 4, N = 16, P = 16")


def matrix(term: smac.spec.MaskTerm, T: int) -> torch.Tensor:  # type: ignore[name-defined]
    """L [T, T] by the oracle's definitions."""
    scope = Scope({}, {"T": T, "S": T}, frozenset(), {}, torch.float64, torch.device("cpu"))
    return mask_matrix(term, scope).to(("T", "S"))


# ---- the bound -------------------------------------------------------------------------------


@pytest.mark.parametrize(("h", "tol"), [
    (POWER, 1e-2), (POWER, 1e-4), (POWER, 1e-7), (GAUSS, 1e-6),
    ("(-0.9) ** (t - s)", 1e-6), ("t - s == 0", 1e-9), ("1 + (t - s == 0)", 1e-9),
    ("1 / (1 + 0.5 * log(1 + t - s))", 1e-3), ("cos(0.3 * (t - s)) * 0.99 ** (t - s)", 1e-8),
])  # fmt: skip
def test_the_oracle_measures_no_more_than_the_fit_says(h: str, tol: float) -> None:
    """Over every entry, fitted mask against asked mask, neither through this package's own laws."""
    asked = spec(lag(h, f", tol = {tol!r}"))
    for T in (1, 17, 300):
        fitted, (made,) = resolve(asked, T)
        off = (matrix(fitted.contraction.L, T) - matrix(asked.contraction.L, T)).abs().max()
        assert off <= made.error * (1 + 1e-9) + 1e-13
        assert made.error <= tol
        assert made.horizon >= T
        assert made.horizon & (made.horizon - 1) == 0


def test_ranks_of_the_catalogue() -> None:
    """The power law and the Gaussian at least as well as MASKS.md's plain exponentials."""
    for h, tol, most in ((POWER, 1e-4, 8), (POWER, 3e-6, 12), (GAUSS, 1e-6, 7)):
        (made,) = resolve(spec(lag(h, f", tol = {tol!r}")), 2048)[1]
        assert made.rank <= most, (h, tol)
    (long,) = resolve(spec(lag(POWER)), 2**17)[1]
    assert long.rank <= 12
    assert long.horizon == 2**17


@pytest.mark.parametrize("order", ["quadratic", "chunked", "linear"])
def test_every_order_stays_within_the_bound_of_the_exact_mask(order: str) -> None:
    """‖Y − exact Y‖ ≤ error ‖Q‖‖K‖‖V‖ a head; and what the bound is of is not nothing."""
    for h, options in ((POWER, ""), (GAUSS, ", tol = 1e-6")):
        asked = spec(lag(h, options))
        op = smac.compile(asked, target="torch", order=order)
        inputs = draw(asked, T=150, grad=False)
        y, exact = op(**inputs), op.reference(**inputs)
        (made,) = op.plan(T=150, device="cpu").fits
        off, q, k, v = (x.transpose(1, 2).flatten(2).norm(dim=-1)
                        for x in (y - exact, *(inputs[n] for n in "qkv")))  # fmt: skip
        assert (off <= made.error * q * k * v).all()
        assert off.max() > 1e-3 * made.error  # an exact mask would say that nothing was fitted


def test_packed_sequences_stay_within_the_bound_or_are_refused() -> None:
    ends = torch.tensor([0, 13, 40])
    for h, options, turns in ((POWER, "", False), (GAUSS, ", tol = 1e-6", True)):
        op = smac.compile(spec(lag(h, options)), order="chunked", chunk=8)
        inputs = draw(op.spec, T=40, B=1, grad=False)
        if turns:
            with pytest.raises(PlanError, match=r"packed sequences .* reads index\(T\)"):
                op(**inputs, cu_seqlens=ends)
            continue
        off = op(**inputs, cu_seqlens=ends) - op.reference(**inputs, cu_seqlens=ends)
        (made,) = op.plan(T=40, device="cpu").fits
        size = math.prod(float(inputs[n].norm()) for n in "qkv")
        assert 1e-6 * made.error < float(off.norm()) <= made.error * size


def test_orders_and_gradients_agree_on_the_fit() -> None:
    """One mask for all orders: they differ by rounding alone, forward and backward."""
    asked = spec(lag(POWER, ", tol = 1e-2") + " * document(ids)", ', ids = "B T"')
    found = []
    for order in ("quadratic", "chunked", "linear"):
        op = smac.compile(asked, target="torch", order=order,
                          chunk=None if order == "linear" else 8)  # fmt: skip
        inputs = draw(asked, T=37)
        y = op(**inputs)
        found.append([y, *torch.autograd.grad(y.square().sum(), [inputs[n] for n in "qkv"])])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_check_holds_kernels_to_the_fit_and_the_fit_to_the_mask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = spec(lag(GAUSS, ", tol = 1e-4"))
    options = {"targets": ("torch",), "orders": ("chunked",), "dtypes": ("float64",)}
    assert check(asked, quick=True, **options).ok  # type: ignore[arg-type]
    from smac.testing import check as module

    honest = module.fit_of
    lying = lambda *a: Fit(m.text, m.tol, m.horizon, m.modes, 1e-9) if (m := honest(*a)) else m  # noqa: E731
    monkeypatch.setattr(module, "fit_of", lying)
    report = run_here(asked, module.Settings(quick=True, **options))  # type: ignore[arg-type]
    assert not report.ok
    assert re.search(r"\|L - fit\| is .*, the fit says 1e-09", str(report))


# ---- fits ------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(0.3, 0.999), st.floats(0.05, 3.0), st.floats(-2, 2),
                          st.booleans()), min_size=1, max_size=3,
                unique_by=lambda m: (round(m[0], 1), round(m[1], 1))))  # fmt: skip
def test_sums_of_exponentials_are_found(drawn: list[tuple[float, float, float, bool]]) -> None:
    """A lag function of finite rank needs no more than that rank."""
    modes = tuple(Mode(d, sum(split(a, 256)) if wave else 0.0, c, 0.5 * c if wave else 0.0)
                  for d, a, c, wave in drawn)  # fmt: skip
    h = evaluate(modes, numpy.arange(256))
    scale = 1e-5 * max(1e-3, float(numpy.abs(h).max()))
    made = fit(h, "h", scale, 12)
    assert made.error <= scale
    assert made.rank <= sum(m.rank for m in modes) + 1


def test_what_is_small_is_nothing() -> None:
    made = fit(numpy.full(16, 1e-5), "h", 1e-4, 4)
    assert (made.rank, made.mass, made.error) == (1, 0.0, 1e-5)


def test_angles_times_positions_are_exact_in_float32() -> None:
    """The promise of `split`, at every position."""
    for angle in (0.0723, 3.1, 1e-4):
        for M in (16, 2048, 2**17):
            t = numpy.arange(M)
            for part in split(angle, M):
                exact = part * t
                assert (exact.astype(numpy.float32) == exact).all()
            assert abs(sum(split(angle, M)) - angle) <= angle * max(2**-23, (M / 2**24) ** 2)


def test_a_wave_turns_into_two_lanes_that_are_that_wave() -> None:
    modes = (Mode(0.97, sum(split(0.21, 64)), 0.7, -0.4), Mode(0.5, 0.0, -1.0, 0.0))
    t = torch.arange(64)
    lags = (t[:, None] - t).clamp(min=0).numpy()
    due = torch.tensor(evaluate(modes, lags.ravel()).reshape(64, 64)).tril()
    torch.testing.assert_close(matrix(terms(modes, 64), 64), due, rtol=0, atol=1e-13)
    term = terms(modes, 64)
    lanes = build(term).generators()
    assert lanes is not None
    assert lanes.rank == 3 == sum(m.rank for m in modes)


# ---- which masks -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "decay(0.9) * window(7)", "window(3)",
    'entry("where(0 <= t - s, (1 + 2 * (t - s)) ** -1, 0)") + 0.5 * causal()',
    'entry("where(s > t, 0, cos(t - s))") * decay(0.9)', "strict(decay(0.5))",
])  # fmt: skip
def test_lag_functions_are_seen_and_their_values_are_the_entries(text: str) -> None:
    term = mask(text)
    assert why_not(build(term)) is None
    h = torch.tensor(values(build(term).entry(), 40).copy())
    torch.testing.assert_close(matrix(term, 40)[:, 0], h)
    for s in (1, 7):
        torch.testing.assert_close(matrix(term, 40)[s:, s], h[: 40 - s])


@pytest.mark.parametrize(("inner", "said"), [
    ('entry("1 / (1 + t - s)")', "it is nonzero above the diagonal; multiply it by causal()"),
    ('entry("where(t >= s, 1 / (1 + t + s), 0)")', "it is not seen to depend on t - s alone; keep "
     "what does not outside, as in approx(A) * B"),
    ('entry("where(t >= s, exp(0.5 * s - 0.5 * t), 0)")', "it is not seen to depend on t - s al"),
    ('entry("where(t >= s, exp(t) * exp(-s), 0)")', "it is not seen to depend on t - s alone"),
    ('entry("where(t >= s, (t - s) / size(T), 0)")', "it reads sizes; write numbers"),
    ('entry("where(t >= s, 1 / (t - s), 0)")', "no sum of exponentials within tol = 0.0001 at 2048 "
     "lags: it is inf at some lag below 2048"),
    ("window(64)", "no sum of exponentials within tol = 0.0001 at 2048 lags: the best of rank 32 "
     "or less is off by"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_words(inner: str, said: str) -> None:
    op = smac.compile(spec(f"approx({inner})"))
    with pytest.raises(PlanError, match=re.escape(said)) as refused:
        op.plan(device="cpu")
    assert str(refused.value).startswith(f"lag: approx({show(mask(inner))}): ")


def test_a_refusal_says_what_rank_would_do() -> None:
    with pytest.raises(NoFit, match=r"^the best of rank 2 or less is off by 0\.14; rank 8 would"):
        fit((1.0 + numpy.arange(512)) ** -0.5, "h", 1e-4, 2)
    with pytest.raises(NoFit, match=r"rank \d+ still leaves 0\.\d+: it does not compress$"):
        fit((numpy.arange(512) < 64) * 1.0, "h", 1e-2, 8)


@pytest.mark.parametrize(("options", "said"), [
    (", tol = 0", "tol: found 0; expected a number above 0"),
    (", tol = -1e-3", "tol: found -0.001; expected a number above 0"),
    (", max_rank = 0", "max_rank: found 0; expected a whole number from 1 to 64"),
    (", max_rank = 2.5", "max_rank: found 2.5; expected a whole number from 1 to 64"),
    (", max_rank = 65", "max_rank: found 65; expected a whole number from 1 to 64"),
])  # fmt: skip
def test_options_that_make_no_sense(options: str, said: str) -> None:
    with pytest.raises(PlanError, match=re.escape(said)):
        smac.compile(spec(lag(POWER, options))).plan(device="cpu")


def test_the_longest_sequence_is_named() -> None:
    with pytest.raises(PlanError, match="approx: found T = 2097152; expected at most 1048576"):
        smac.compile(spec(lag(POWER))).plan(T=2**21, device="cpu")


def test_values_of_tensors_are_not_guessed() -> None:
    op = smac.compile(spec("approx(toeplitz(h))", ', h = "W"'))
    with pytest.raises(PlanError, match=r"it reads h, whose values are not known when planning"):
        op.plan(device="cpu")


def test_text_comes_back_equal() -> None:
    for text in ("approx(decay(0.9))", "approx(decay(0.9), max_rank = 4)",
                 "approx(decay(0.9), tol = 1e-06) * document(ids)"):  # fmt: skip
        assert show(mask(text)) == text
    assert mask("approx(window(2), 1e-3, 8)") == mask("approx(window(2), max_rank=8, tol=0.001)")
    assert len(approx_terms(mask("approx(decay(0.9)) + 2 * transpose(approx(causal()))"))) == 2


# ---- what people read ------------------------------------------------------------------------


def test_explain_prints_the_measured_bound() -> None:
    plan = smac.compile(spec(lag(GAUSS, ", tol = 1e-6"))).plan(device="cpu")
    (made,) = plan.fits
    text = " ".join(plan.explain().split())
    said = f"by rank {made.rank} (decays: 1, damped waves: 3): |L - fit| <= {made.error:.3g}"
    assert said in text
    assert "measured at every lag below 2048 (asked: 1e-06)" in text
    assert f"bound |Y - exact Y| <= {made.error:.3g} |Q| |K| |V|, Frobenius norms a head" in text
    both = spec(lag(POWER) + " * document(ids)", ', ids = "B T"')
    text = " ".join(smac.compile(both).plan(device="cpu").explain().split())
    assert "times the largest |entry| of what multiplies the fit in L" in text
    quadratic = smac.compile(both, order="quadratic").plan(device="cpu").explain()
    assert "without approx(…) the same plan is exact" in " ".join(quadratic.split())


def test_a_fit_is_never_applied_unasked() -> None:
    plain = spec(f'entry("where(t >= s, {POWER}, 0)")')
    plan = smac.compile(plain).plan(device="cpu", T=65536)
    assert (plan.order, plan.chosen.schedule, plan.fits) == ("linear", "fft", ())  # exact


def test_the_page_is_up_to_date() -> None:
    """Text and ranks as committed; errors may differ in their last digit by the BLAS."""
    committed = approximations.PAGE.read_text("utf-8")
    assert committed.startswith(approximations.HEAD), "docs/approximations.md: run make docs"
    rows = committed[len(approximations.HEAD) :].splitlines()
    every = [(T, tol) for _, _, asked in approximations.ROWS for T, tol in asked]
    due = [(line, tol) for line, (T, tol) in zip(rows, every, strict=True) if T <= 4096]
    for (line, tol), made in zip(due, approximations.lines(4096), strict=True):
        cells, again = line.split("|"), made.split("|")
        assert cells[:5] == again[:5], "docs/approximations.md: run make docs"
        if "refused" in line:
            continue
        measured, now = float(cells[-2]), float(again[-2])
        assert measured <= float(tol)
        assert math.isclose(measured, now, rel_tol=0.2)


def test_plan_says_where_a_rank_outgrows_the_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rank 8 in chunks at T = 2048, more at 131072, which float16 has no chunks in turn for: two
    crossings are not called none."""
    path = tmp_path / "lag.toml"
    path.write_text(str(spec(lag(POWER))), encoding="utf-8")
    again = "crossover  not one alone: the quadratic order wins again at T=131072"
    for dtype, twice in (("float16", True), ("bfloat16", False)):
        assert main(["plan", str(path), "--device", "h100", "--dtype", dtype]) == 0
        out = capsys.readouterr().out
        assert "chosen  chunked" in out
        assert (again in out) == twice
