"""Text to trees and back: round trips, the mask language, and the words of every refusal."""

from __future__ import annotations

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from smac.errors import SpecError
from smac.expr import (
    FUNCTIONS,
    S_POS,
    T_POS,
    At,
    Between,
    Call,
    Expr,
    Given,
    Index,
    Name,
    Num,
    Size,
    call,
    fold,
    number,
    walk,
)  # fmt: skip
from smac.signatures import SIGNATURES, Param, register_signature
from smac.syntax import mask, scalar, show
from smac.terms import MaskTerm

X, A = Name("x"), Name("A")
CAUSAL = MaskTerm("causal", ())
OPERATORS = ("add", "sub", "mul", "div", "lt", "le", "gt", "ge", "eq", "ne", "pow")


def _leaves() -> st.SearchStrategy[Expr]:
    numbers = st.one_of(
        st.integers(-64, 64),
        st.floats(-64, 64, allow_nan=False).filter(lambda v: abs(v) > 1e-30),
    ).map(number)
    named = st.sampled_from(["x", "y", "dt_bias"]).map(Name)
    axes = st.sampled_from([Size("N"), Size("T"), Index("H")])
    return st.one_of(numbers, named, axes)


def _grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    def applied(fn: str, n: int) -> st.SearchStrategy[Expr]:
        return st.tuples(*[inner] * n).map(lambda args: Call(fn, args))

    functions = st.sampled_from(sorted(FUNCTIONS)).flatmap(lambda fn: applied(fn, FUNCTIONS[fn]))
    operators = st.sampled_from(OPERATORS).flatmap(lambda fn: applied(fn, 2))
    # The reader makes −3 of "-3", so a negated number is no tree of the language.
    negated = inner.filter(lambda e: not isinstance(e, Num)).map(lambda e: call("neg", e))
    asked = st.tuples(inner, inner).map(lambda ab: Given("z", *ab))
    return st.one_of(functions, operators, negated, asked)


EXPRESSIONS = st.recursive(_leaves(), _grow, max_leaves=12)


@given(EXPRESSIONS)
def test_scalar_round_trip(e: Expr) -> None:
    text = show(e)
    if any(_beyond(p.args[1]) for p in walk(e) if isinstance(p, Call) and p.fn == "pow"):
        with pytest.raises(SpecError, match=r"exponent .* is beyond ±64"):
            scalar(text)
        return
    again = scalar(text)
    assert again == e
    assert show(again) == text


def _beyond(power: Expr) -> bool:
    constant = fold(power)
    return isinstance(constant, Num) and abs(constant.value) > 64


def _mask_terms() -> st.SearchStrategy[MaskTerm]:
    leaves = st.sampled_from(
        ["causal()", "decay(g)", "semiseparable(delta * A)", "toeplitz(h, bidirectional = true)",
         "toeplitz(h)", "window(size(T) / 2)", 'fourier("sin")', "document(ids)", "dense(M)",
         "diagonal(u + 1)", 'entry("(t >= s) * x[t] * exp(sum(x[k], k, s + 1, t))")']
    ).map(mask)  # fmt: skip

    def grow(inner: st.SearchStrategy[MaskTerm]) -> st.SearchStrategy[MaskTerm]:
        weights = st.sampled_from(["2", "-1", "w", "w + 1", "1 / w", "-w", "w ** 2"]).map(scalar)
        pairs = st.tuples(inner, inner)
        return st.one_of(
            st.tuples(st.sampled_from(["add", "mul"]), pairs).map(lambda p: MaskTerm(*p)),
            st.tuples(st.sampled_from(["scale", "row", "col"]), st.tuples(weights, inner)).map(
                lambda p: MaskTerm(*p)
            ),
            st.tuples(st.sampled_from(["strict", "transpose"]), st.tuples(inner)).map(
                lambda p: MaskTerm(*p)
            ),
            inner.map(lambda a: MaskTerm("shift", (a, "t"))),
            pairs.map(lambda ab: MaskTerm("given", ("z", *ab))),
        )

    return st.recursive(leaves, grow, max_leaves=6)


@given(_mask_terms())
def test_mask_round_trip(term: MaskTerm) -> None:
    read = mask(show(term))
    assert mask(show(read)) == read
    moved = any(fn == "mul" and first in ("scale", "row", "col") for fn, first in _heads(term))
    event(f"a factor moves out: {moved}")
    if not moved:  # (w * A) * B reads as w * (A * B)
        assert read == term


def _heads(term: MaskTerm) -> list[tuple[str, str]]:
    """(fn, fn of its first argument) of every node."""
    inner = [a for a in term.args if isinstance(a, MaskTerm)]
    own = [(term.fn, inner[0].fn)] if inner else []
    return own + [pair for a in inner for pair in _heads(a)]


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("decay(gamma = x)", MaskTerm("decay", (X,))),
        ("toeplitz(h)", MaskTerm("toeplitz", (Name("h"), False))),
        ("toeplitz(h, bidirectional = True)", MaskTerm("toeplitz", (Name("h"), True))),
        ("row(x) * causal()", MaskTerm("row", (X, CAUSAL))),
        ("causal() * col(x)", MaskTerm("col", (X, CAUSAL))),
        ("row(x, causal())", MaskTerm("row", (X, CAUSAL))),
        ("2 * causal()", MaskTerm("scale", (Num(2), CAUSAL))),
        ("causal() * A", MaskTerm("scale", (A, CAUSAL))),
        ("causal() / 2", MaskTerm("scale", (call("div", Num(1), Num(2)), CAUSAL))),
        ("-causal()", MaskTerm("scale", (Num(-1), CAUSAL))),
        ("causal() - causal()", MaskTerm("add", (CAUSAL, MaskTerm("scale", (Num(-1), CAUSAL))))),
        ("x * A * causal()", MaskTerm("scale", (call("mul", X, A), CAUSAL))),
        (
            "row(x) * col(A) * causal() * causal()",
            MaskTerm("row", (X, MaskTerm("col", (A, MaskTerm("mul", (CAUSAL, CAUSAL)))))),
        ),
        ('shift(causal(), "s")', MaskTerm("shift", (CAUSAL, "s"))),
        ('shift(A = causal(), axis = "t")', MaskTerm("shift", (CAUSAL, "t"))),
        ("given(z, causal(), causal())", MaskTerm("given", ("z", CAUSAL, CAUSAL))),
    ],
)
def test_mask_language(text: str, term: MaskTerm) -> None:
    assert mask(text) == term


LAG = call("sub", T_POS, S_POS)


@pytest.mark.parametrize(
    ("text", "e"),
    [
        ("x[t]", At(X, (T_POS,))),
        ("x[t - s]", At(X, (LAG,))),
        ("M[t, s]", At(Name("M"), (T_POS, S_POS))),
        ("(x * A)[s]", At(call("mul", X, A), (S_POS,))),
        ("sum(x[k], k, s + 1, t)", Between(X, S_POS, T_POS)),
        ("sum(x[i], i, t + 1, s)", Between(X, T_POS, S_POS)),
        ("sum(A * x[k], k, 1 + s, t - 1)",
         Between(call("mul", A, X), S_POS, call("sub", T_POS, Num(1)))),
        ("sum(x[k], k, s, t)", Between(X, call("sub", S_POS, Num(1)), T_POS)),
        ("sum(x[k], k, s + 3, t)", Between(X, call("add", S_POS, Num(2)), T_POS)),
        ("prod(x[k], k, s + 1, t)", call("exp", Between(call("log", X), S_POS, T_POS))),
        ("t % 2 == s // 3",
         call("eq", call("mod", T_POS, Num(2)), call("floordiv", S_POS, Num(3)))),
        ("bit_length(t ^ s)", call("bit_length", call("xor", T_POS, S_POS))),
        ("(t >= s) * x[t]", call("mul", call("ge", T_POS, S_POS), At(X, (T_POS,)))),
    ],
)  # fmt: skip
def test_entry_language(text: str, e: Expr) -> None:
    assert scalar(text, entry=True) == e
    assert scalar(show(e), entry=True) == e


NAMES = ["dt", "x", "gamma"]
SCALAR_ERRORS = [
    ("gama", "unknown name 'gama'; expected an input or a let (dt, gamma, x); "
             "did you mean 'gamma'?"),
    ("Y", "'Y' is the contraction's result; only [output] reads it"),
    ("t + 1", "'t' is a position; only entry(\"…\") reads it, outside its x[…]"),
    ("x.real", "'x.real': an attribute is not in the language; "
               "expected numbers, names, operators and function calls"),
    ("x[0]", "'x[0]': an index [...] is not in the language; "
             "expected numbers, names, operators and function calls"),
    ("0 < x < 1", "'0 < x < 1': compare two values at a time; join with *"),
    ("exp(x, x)", "exp() takes 1 argument, found 2"),
    ("exp(x=x)", "exp() takes no keywords"),
    ("x ** 65", "exponent 65 is beyond ±64"),
    ("x ** (8 * 9)", "exponent 8 * 9 is beyond ±64"),
    ("1e400", "numbers are finite; this one overflows"),
    ("1j", "1j is no number of the language"),
    ("True", "True is no number of the language"),
    ("'x'", "a string 'x' where a number or name is due"),
    ("x @ x", "unexpected character '@' in 'x @ x'"),
    ("x % 2", "operator Mod is not in the language"),
    ("", "empty expression"),
    ("x +", "cannot read 'x +': invalid syntax"),
    ("(x", "cannot read '(x': '(' was never closed"),
    ("size(Q)", "size(Q): unknown axis; expected one of N, T"),
    ("size(S)", "size(S): unknown axis; expected one of N, T"),
    ("size(1)", "size() takes the name of an axis, found '1'"),
    ("given(1, x, x)", "given() asks about an input by name, found '1'"),
    ("(" * 41 + "x" + ")" * 41, "brackets nested deeper than 40"),
    ("-" * 100 + "x", "expression nested deeper than 64"),
    ("1" * 33, "number with more than 32 digits"),
    ("x" * 2001, "expression of 2001 characters; at most 2000 are read"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), SCALAR_ERRORS)
def test_scalar_errors(text: str, message: str) -> None:
    with pytest.raises(SpecError) as e:
        scalar(text, where="a.toml:3: let.u", names=NAMES, axes=["T", "N"])
    assert str(e.value) == f"a.toml:3: let.u: {message}"


def test_unknown_function_lists_and_suggests() -> None:
    with pytest.raises(SpecError) as e:
        scalar("softplu(x)")
    assert str(e.value).startswith("<python>: function 'softplu' is unknown; expected one of exp, ")
    assert str(e.value).endswith("given; did you mean 'softplus'?")
    with pytest.raises(SpecError, match="function 'causal' is a mask and stands only in L"):
        scalar("causal()")


MASK_ERRORS = [
    ("decay()", "decay(gamma): gamma is missing"),
    ("causal(1)", "causal() takes 0 arguments, found 1"),
    ("decay(x, gamma = x)", "decay(gamma): gamma is given twice"),
    ("decay(gama = x)", "decay(gamma) has no option 'gama'; expected one of gamma"),
    ("toeplitz(x, bidirectional = 1)",
     "toeplitz(h, bidirectional): bidirectional: expected true or false, found '1'"),
    ('fourier("tan")', "fourier(kind): kind: expected \"cos\" or \"sin\", found ''tan''"),
    ("entry(x)", "entry(formula): formula: expected a quoted formula in t and s, found 'x'"),
    ("2 / causal()", "cannot divide by the mask 'causal()'"),
    ("row(x) * col(x)", "row(x) and col(x) scale a mask: multiply by one, as row(x) * causal()"),
    ('entry("sum(x[t], k, s + 1, t)")',
     "'x[t]': an index [...] is not in the language; "
     "expected numbers, names, operators and function calls"),
    ('entry("sum(k, k, s + 1, t)")', "'k' only indexes here: write x[k]"),
    ('entry("sum(x[k], k, 0, t)")', "a sum's bounds are t or s plus an integer, found '0'"),
    ('entry("x[x]")', "index [x]: expected integers of t and s, as x[t] or M[t, s]"),
    ('entry("x[t] % 2")', "mod takes integers (t, s, sizes), found 'x[t]'"),
    ('entry("index(T)")', "index(T) is ambiguous in an entry: write t or s"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), MASK_ERRORS)
def test_mask_errors(text: str, message: str) -> None:
    with pytest.raises(SpecError) as e:
        mask(text, where="a.toml:3: contraction.L")
    assert str(e.value) == f"a.toml:3: contraction.L: {message}"


def test_unknown_mask_is_named_with_the_nearest() -> None:
    with pytest.raises(SpecError) as e:
        mask("decy(gamma)", where="specs/retnet.toml:14: contraction.L")
    text = str(e.value)
    assert text.startswith("specs/retnet.toml:14: contraction.L: unknown mask 'decy'; "
                           "expected one of causal, decay, semiseparable, ")  # fmt: skip
    assert text.endswith("; did you mean 'decay'?")


@pytest.mark.parametrize("text", ["x", "x + causal()", "causal() ** 2", "exp(causal())", "causal"])
def test_no_mask(text: str) -> None:
    with pytest.raises(SpecError, match=r"is no mask; expected one of causal, decay, "):
        mask(text)


def test_a_registered_mask_parses() -> None:
    params = (Param("rate"), Param("side", "choice", choices=("up", "down"), default="up"))
    register_signature("ramp_for_this_test", params)
    try:
        register_signature("ramp_for_this_test", params)  # the same again is fine
        term = mask("ramp_for_this_test(x, side = \"down\")")
        assert term == MaskTerm("ramp_for_this_test", (X, "down"))
        assert show(mask("ramp_for_this_test(rate = x)")) == "ramp_for_this_test(x)"
        with pytest.raises(ValueError, match="already has the signature"):
            register_signature("ramp_for_this_test", ())
    finally:
        del SIGNATURES["ramp_for_this_test"]
    with pytest.raises(ValueError, match="cannot name a mask"):
        register_signature("scale", ())


NO_SMA = {
    "softmax": "no structured masked attention: it takes exp of q·k and divides each row",
    "log_softmax": 'use a feature map in Q and K, as "elu(k) + 1", with Y / Z in [output]',
    "delta_rule": "its transition I - beta k k' is a matrix in N that depends on K",
    "gated_delta": "so that L would be operator-valued; use a decay of each channel",
    "rms_norm": "Y / Z in [output] is the one normaliser there is",
    "cummax": "running maxima over positions are not linear",
    "dropout": "nothing inside the contraction is random; drop out before or after the op",
    "topk": "it picks positions by values of other positions",
}


@pytest.mark.parametrize("fn", NO_SMA)
@pytest.mark.parametrize("text", ["{}(x)", "causal() * {}(x)", 'entry("(t >= s) * {}(x[t])")'])
def test_what_is_no_masked_attention_is_refused_with_a_reason(fn: str, text: str) -> None:
    with pytest.raises(SpecError) as e:
        mask(text.format(fn), where="a.toml:3: contraction.L")
    assert str(e.value).startswith(f"a.toml:3: contraction.L: {fn}(): ")
    assert NO_SMA[fn] in str(e.value)
    with pytest.raises(SpecError, match=rf"{fn}\(\): "):
        scalar(f"1 + {fn}(x)")


def test_a_name_that_is_merely_unknown_is_not_refused() -> None:
    with pytest.raises(SpecError, match="function 'softmaxx' is unknown"):
        scalar("softmaxx(x)")


def test_runs_and_starts_read_inputs_of_ids() -> None:
    runs = call("runs", X)
    assert scalar("runs(x)[t] == runs(x)[s]", entry=True) == call(
        "eq", At(runs, (T_POS,)), At(runs, (S_POS,)))  # fmt: skip
    assert scalar("sum(starts(x)[k], k, s + 1, t)", entry=True) == Between(
        call("starts", X), S_POS, T_POS)  # fmt: skip
    with pytest.raises(SpecError, match=r"runs\(ids\): expected the name of an input, found 'x \+"):
        scalar("runs(x + 1)[t]", entry=True)
    with pytest.raises(SpecError, match="function 'runs' is unknown"):
        scalar("runs(x)", entry=True)


def test_remainders_of_positions_stand_everywhere() -> None:
    assert scalar("index(T) % 3 == 0") == call("eq", call("mod", Index("T"), Num(3)), Num(0))
    with pytest.raises(SpecError, match="operator Mod is not in the language"):
        scalar("x % 3")
