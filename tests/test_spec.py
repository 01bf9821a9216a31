"""Spec as a value: TOML and Python agree, digests, axes, and specialisation by presence."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from smac.errors import SpecError
from smac.expr import Name, Num, call
from smac.parse import load, parse
from smac.paths import shipped_specs
from smac.spec import Axis, Input, MaskTerm, Spec, specialise
from smac.syntax import mask, scalar, show

SSD: dict[str, Any] = {
    "name": "ssd",
    "about": "Mamba-2's state space dual layer",
    "paper": "arXiv:2405.21060",
    "axes": {"G": "group of H"},
    "inputs": {
        "x": "B T H P", "dt": "B T H", "A": "H", "B": "B T G N", "C": "B T G N",
        "D": {"axes": "H", "default": 0},
        "z": {"axes": "B T H P", "optional": True},
        "dt_bias": {"axes": "H", "default": 0},
    },
    "let": {"delta": "softplus(dt + dt_bias)"},
    "contraction": {
        "equation": "TN,SN,SP,TS->TP", "Q": "C", "K": "B", "V": "delta * x",
        "L": "semiseparable(log_decay = delta * A)",
    },
    "output": {"y": "(Y + D * x) * given(z, silu(z), 1)"},
    "sizes": {"T": 2048, "H": 80, "P": 64, "N": 128, "G": 1},
    "expect": {"order": "chunked"},
}  # fmt: skip
SMALL: dict[str, Any] = {
    "name": "small",
    "inputs": {"q": "B T H N", "k": "B T H N", "v": "B T H P"},
    "contraction": {"equation": "TN,SN,SP,TS->TP", "Q": "q", "K": "k", "V": "v", "L": "causal()"},
    "output": {"y": "Y"},
}  # fmt: skip


def small(**changes: Any) -> Spec:
    """SMALL with tables merged: `contraction={"L": …}` changes L only."""
    raw = {k: dict(v) if isinstance(v, dict) else v for k, v in SMALL.items()}
    for key, value in changes.items():
        raw[key] = {**raw.get(key, {}), **value} if isinstance(value, dict) else value
    return Spec(**raw)


def test_python_equals_toml() -> None:
    built, read = Spec(**SSD), load("ssd")
    assert built == read
    assert hash(built) == hash(read)
    assert built.digest == read.digest
    assert len(built.digest) == 64


def test_trees_and_values_build_the_same_spec() -> None:
    spec = load("ssd")
    raw = dict(SSD, let={"delta": scalar("softplus(dt + dt_bias)")}, axes=(Axis("G", "group"),))
    raw["contraction"] = dict(SSD["contraction"], L=mask("semiseparable(delta * A)"))
    raw["inputs"] = dict(SSD["inputs"], D=Input("D", ("H",), 0.0))
    assert Spec(**raw) == spec
    assert replace(spec) == spec
    assert replace(spec, name="other").digest != spec.digest


@pytest.mark.parametrize("name", sorted(shipped_specs()))
def test_str_is_toml_again(name: str) -> None:
    spec = load(name)
    again = parse(str(spec))
    assert again == spec
    assert again.digest == spec.digest
    assert str(again) == str(spec)
    assert pickle.loads(pickle.dumps(spec)) == spec == copy.deepcopy(spec)


def test_str_of_odd_prose_and_formulas() -> None:
    spec = small(about='two\nlines, "quotes" and a \\', contraction={"L": 'entry("t >= s")'})
    assert parse(str(spec)) == spec


def test_digest_leaves_out_what_does_not_compute() -> None:
    spec = load("ssd")
    for change in ({"about": "x"}, {"paper": "x"}, {"sizes": {"T": 1}}, {"expect": {}}):
        assert replace(spec, **change).digest == spec.digest  # type: ignore[arg-type]
    changed = Spec(**dict(SSD, output={"y": "Y + D * x + given(z, z, 1)"}))
    assert changed.digest != spec.digest
    assert Spec(**dict(SSD, name="ssd2")).digest != spec.digest
    swapped = dict(reversed(SSD["inputs"].items()))
    assert Spec(**dict(SSD, inputs=swapped)).digest != spec.digest  # call order is meant


def test_digest_is_the_same_in_every_version() -> None:
    """The canonical text is fixed: tuning caches are keyed by it."""
    assert small().digest == "91d904e02dc3d434ed24e44c2d7c862d1afd0c0856b8cb37f16a9df7bd9ddc11"


def test_spec_is_frozen_and_prints() -> None:
    spec = load("ssd")
    with pytest.raises(FrozenInstanceError):
        spec.name = "x"  # type: ignore[misc]
    assert repr(spec).splitlines() == [
        "Spec 'ssd': Mamba-2's state space dual layer",
        "  inputs  x[B T H P], dt[B T H], A[H], B[B T G N], C[B T G N], D[H] = 0, z[B T H P]?, "
        "dt_bias[H] = 0",
        "  let     delta = softplus(dt + dt_bias)",
        "  Y       contract(TN,SN,SP,TS->TP)",
        "          Q = C",
        "          K = B",
        "          V = delta * x",
        "          L = semiseparable(delta * A)",
        "  output  y = (Y + D * x) * given(z, silu(z), 1)",
    ]


def test_axes_of() -> None:
    spec = load("ssd")
    assert spec.batch == ("B",)
    assert spec.groups == ("G",)
    assert spec.axes_of(spec.contraction.Q) == ("B", "T", "G", "N")
    assert spec.axes_of(scalar("B * A")) == ("B", "T", "H", "N")  # H takes the group's place
    assert spec.axes_of(Name("delta")) == ("B", "T", "H")
    assert spec.axes_of(spec.contraction.L) == ("B", "H")
    assert spec.axes_of(scalar("index(T) * size(N)")) == ("T",)
    assert spec.axes_of(Name("Y")) == ("B", "T", "H", "P")
    assert spec.axes_of(Name("Z")) == ("B", "T", "H")
    assert spec.axes_of(Num(1)) == ()
    assert spec.axes_of(scalar("x[t]", entry=True)) == ("B", "H", "P")


def test_batch_axes_and_two_groups() -> None:
    spec = small(
        axes={"E": "batch", "G": "group of H", "K": "group of H"},
        inputs={"q": "E B T G N", "k": "B T K N"},
    )
    assert spec.batch == ("B", "E")
    assert spec.axes_of(scalar("q * k")) == ("B", "E", "T", "H", "N")
    assert spec.axes_of(Name("q")) == ("B", "E", "T", "G", "N")


def test_input() -> None:
    assert load("ssd").input("D") == Input("D", ("H",), 0)
    with pytest.raises(SpecError, match=r"ssd: no input 'dt_bia'; expected one of x, dt, .*"
                                        r"did you mean 'dt_bias'\?"):  # fmt: skip
        load("ssd").input("dt_bia")


def test_lets_come_in_dependency_order() -> None:
    spec = small(let={"b": "a + 1", "a": "q * 2", "c": "b * a"}, contraction={"Q": "c"})
    assert [n for n, _ in spec.let] == ["a", "b", "c"]


# ---- specialise ------------------------------------------------------------------------------


def test_specialise_absent() -> None:
    spec = specialise(load("ssd"), frozenset({"z", "D", "dt_bias"}))
    assert [i.name for i in spec.inputs] == ["x", "dt", "A", "B", "C"]
    assert spec.let == ()
    assert show(spec.contraction.V) == "softplus(dt) * x"
    assert show(spec.contraction.L) == "semiseparable(softplus(dt) * A)"
    assert show(spec.output[0][1]) == "Y"
    assert spec.axes_of(Name("Y")) == ("B", "T", "H", "P")


def test_specialise_present() -> None:
    spec = specialise(load("ssd"))
    assert spec.inputs == load("ssd").inputs
    assert show(spec.output[0][1]) == "(Y + D * x) * silu(z)"
    assert show(spec.contraction.L) == "semiseparable(softplus(dt + dt_bias) * A)"
    assert spec.digest != load("ssd").digest


def test_specialise_folds_defaults_and_given_of_a_default() -> None:
    spec = small(
        inputs={"w": {"axes": "H", "default": 2}}, let={"u": "given(w, w + 1, 5) * w"},
        contraction={"V": "u * v"},
    )  # fmt: skip
    assert show(specialise(spec, frozenset({"w"})).contraction.V) == "10 * v"
    assert show(specialise(spec).contraction.V) == "(w + 1) * w * v"


def test_specialise_masks() -> None:
    spec = small(
        inputs={"g": {"axes": "H", "optional": True}},
        contraction={"L": "given(g, decay(g), causal())"},
    )
    assert MaskTerm("decay", (Name("g"),)) == specialise(spec).contraction.L
    assert MaskTerm("causal", ()) == specialise(spec, frozenset({"g"})).contraction.L


@pytest.mark.parametrize(
    ("axes", "before", "after"),
    [
        ("H W", "toeplitz(w)", "2 * causal()"),
        ("H W", "toeplitz(w, bidirectional = true)", 'entry("2")'),
        ("B T S", "dense(w) * causal()", 'entry("2") * causal()'),
        ("B T H", "row(w) * causal()", "2 * causal()"),
        ("B T", "document(w) * causal()", 'entry("1") * causal()'),
        ("H", "w / 2 * causal()", "causal()"),
    ],
)
def test_a_default_in_the_place_of_an_axis(axes: str, before: str, after: str) -> None:
    spec = small(inputs={"w": {"axes": axes, "default": 2}}, contraction={"L": before})
    assert show(specialise(spec, frozenset({"w"})).contraction.L) == after


def test_specialise_errors() -> None:
    with pytest.raises(SpecError, match="ssd: input 'x' cannot be absent"):
        specialise(load("ssd"), frozenset({"x"}))
    with pytest.raises(SpecError, match="ssd: no input 'q'"):
        specialise(load("ssd"), frozenset({"q"}))


# ---- what a spec must not say ------------------------------------------------------------------

ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"name": "1st"}, "name: '1st' is no name; expected letters, digits and _, a letter first, "
                      "at most 64, no Python keyword"),
    ({"inputs": {"exp": "H"}}, "inputs.exp: 'exp' has a meaning of its own in the language; "
                               "choose another name"),
    ({"inputs": {"Y": "H"}}, "inputs.Y: 'Y' has a meaning of its own in the language; "
                             "choose another name"),
    ({"inputs": {"class": "H"}}, "inputs.class: 'class' is no name; expected letters, digits and "
                                 "_, a letter first, at most 64, no Python keyword"),
    ({"inputs": {"a": "B Q"}}, "inputs.a: unknown axis 'Q'; expected axes among B T S W H N P, "
                               "or declare it in [axes]"),
    ({"inputs": {"a": "B B"}}, "inputs.a: axis B stands twice"),
    ({"inputs": {"a": "S"}}, "inputs.a: carries S without T; S is the column axis of a dense mask"),
    ({"inputs": {"a": {"axes": "H", "default": "x"}}},
     "inputs.a: default: expected a number, found 'x'"),
    ({"inputs": {"a": {"axes": "H", "default": float("inf")}}},
     "inputs.a: default: expected a finite number, found inf"),
    ({"inputs": {"a": {"axes": "H", "default": 0, "optional": True}}},
     "inputs.a: has both a default and optional = true; keep one"),
    ({"inputs": {"a": {"axes": "H", "defalt": 0}}},
     "inputs.a.defalt: unknown key 'defalt'; expected one of axes, default, optional; "
     "did you mean 'default'?"),
    ({"inputs": {"a": "H"}}, "inputs.a: 'a' is declared but never used; remove it"),
    ({"let": {"u": "2 * q"}}, "let.u: 'u' is declared but never used; remove it"),
    ({"let": {"q": "k"}}, "let.q: 'q' is declared twice (inputs, lets and outputs share one set "
                          "of names)"),
    ({"let": {"a": "b", "b": "a + q"}}, "let.a: lets refer to each other in a cycle: a → b → a"),
    ({"let": {"a": "a"}}, "let.a: lets refer to each other in a cycle: a → a"),
    ({"axes": {"T": "batch"}}, "axes.T: T has a meaning of its own; choose another name"),
    ({"axes": {"G": "group of B"}},
     'axes.G: expected "group of H", "batch" or "levels of T", found \'group of B\''),
    ({"contraction": {"equation": "TN,SN,SP->TP"}},
     'contraction.equation: expected "TN,SN,SP,TS->TP" or "TN,SN,SP,TSN->TP" or '
     "\"TN,SN,SP,TSP->TP\", found 'TN,SN,SP->TP'"),
    ({"contraction": {"M": "x"}},
     "contraction.M: unknown key 'M'; expected one of equation, Q, K, V, L"),
    ({"contraction": {"Q": "v"}}, "contraction.Q: 'v' carries P; expected axes among B T H N"),
    ({"contraction": {"V": "v * k"}},
     "contraction.V: 'v * k' carries N; expected axes among B T H P"),
    ({"contraction": {"Q": 1}}, "contraction.Q: expected a quoted expression, found 1"),
    ({"contraction": {"L": "decay(k)"}},
     "contraction.L: decay(gamma): 'k' carries N; a mask per channel needs equation = "
     '"TN,SN,SP,TSN->TP", found "TN,SN,SP,TS->TP"'),
    ({"contraction": {"L": "decay(g)"}, "inputs": {"g": "T"}},
     "contraction.L: decay(gamma): 'g' carries T; it must not; "
     "use semiseparable(log_decay = log(gamma))"),
    ({"contraction": {"L": "toeplitz(g)"}, "inputs": {"g": "H"}},
     "contraction.L: toeplitz(h): 'g' must carry W; "
     'declare h over the lag axis, "H W" or "W"'),
    ({"contraction": {"L": "document(g)"}, "inputs": {"g": "B"}},
     "contraction.L: document(ids): 'g' must carry T"),
    ({"contraction": {"L": "document(g + 1)"}, "inputs": {"g": "B T"}},
     "contraction.L: document(ids): expected the name of an input, found 'g + 1'"),
    ({"contraction": {"L": "document(u)"}, "inputs": {"g": "B T"}, "let": {"u": "g + 0"}},
     "contraction.L: document(ids): expected the name of an input, found 'u'"),
    ({"contraction": {"L": "dense(g)"}, "inputs": {"g": "B T"}},
     "contraction.L: dense(M): 'g' must carry S; declare M as \"… T S\""),
    ({"contraction": {"L": "g * causal()"}, "inputs": {"g": "T"}},
     "contraction.L: scale(factor): 'g' carries T; it must not; "
     "use row(x) * A or col(x) * A for a factor with T"),
    ({"contraction": {"L": "row(g) * causal()"}, "inputs": {"g": "H"}},
     "contraction.L: row(x): 'g' must carry T; it scales rows or columns; "
     "write w * A for a factor without T"),
    ({"contraction": {"L": "window(g)"}, "inputs": {"g": ""}},
     "contraction.L: window(w): 'g' reads g; expected a number or sizes"),
    ({"contraction": {"L": 'entry("g * (t >= s)")'}, "inputs": {"g": "T"}},
     "contraction.L: entry: 'g' has a sequence axis: write g[t], g[s] or g[t - s]"),
    ({"contraction": {"L": 'entry("g[t]")'}, "inputs": {"g": "H"}},
     "contraction.L: entry: 'g[t]': 'g' has no one sequence axis to index (T, W, or T and S)"),
    ({"contraction": {"L": 'entry("g[t]")'}, "inputs": {"g": "T S"}},
     "contraction.L: entry: 'g[t]': expected 2 indices"),
    ({"contraction": {"L": 'entry("sum(g[k], k, s + 1, t)")'}, "inputs": {"g": "H"}},
     "contraction.L: entry: 'sum(g[k], k, s + 1, t)': 'g' must carry T; "
     "a constant sums to (t - s) * x"),
    ({"output": {"y": "q"}}, "output.y: 'q' carries N; expected axes among B T H P"),
    ({"output": {"y": "v"}}, "output: no output reads Y, the contraction's result"),
    ({"output": {"y": "Y", "v": "Y"}}, "output.v: 'v' is declared twice (inputs, lets and outputs "
                                       "share one set of names)"),
    ({"sizes": {"T": -1}}, "sizes.T: expected an integer from 0 to 2**40, found -1"),
    ({"sizes": {"T": True}}, "sizes.T: expected an integer from 0 to 2**40, found True"),
    ({"sizes": {"Q": 1}}, "sizes.Q: unknown axis 'Q'; expected one of B, T, W, H, N, P"),
    ({"axes": {"G": "group of H"}, "sizes": {"H": 6, "G": 4}},
     "sizes.G: G = 4 does not divide H = 6"),
    ({"expect": {"order": "fast"}},
     "expect.order: expected one of linear, quadratic, chunked, found 'fast'"),
    ({"expect": {"forward": "linear"}},
     "expect.forward: unknown key 'forward'; expected one of order, backward"),
    ({"inputs": {"z": {"axes": "H", "optional": True}}, "output": {"y": "Y * z"}},
     "output.y: 'z' is optional and may be absent; use it only in the second argument of "
     "given(z, …, …), or give it a default"),
    ({"inputs": {"z": {"axes": "H", "optional": True}}, "output": {"y": "given(z, Y, z)"}},
     "output.y: 'z' is optional and may be absent; use it only in the second argument of "
     "given(z, …, …), or give it a default"),
    ({"output": {"y": "given(v, Y, 1)"}},
     "output.y: given(v, …): 'v' is always there; expected an input with optional = true or a "
     "default (none)"),
    ({"about": "bell\x07"}, "about: contains control characters"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), ERRORS)
def test_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as e:
        small(**change)
    assert str(e.value) == f"<python>: {message}"


def test_optional_through_a_let_inside_given() -> None:
    spec = small(
        inputs={"z": {"axes": "B T H P", "optional": True}}, let={"g": "silu(z)"},
        output={"y": "Y * given(z, g, 1)"},
    )  # fmt: skip
    assert show(specialise(spec).output[0][1]) == "Y * silu(z)"
    with pytest.raises(SpecError, match=r"output\.y: 'z' is optional"):
        small(
            inputs={"z": {"axes": "B T H P", "optional": True}}, let={"g": "silu(z)"},
            output={"y": "Y * g"},
        )  # fmt: skip


def test_lets_cannot_explode() -> None:
    let = {f"a{n + 1}": f"a{n} * a{n}" for n in range(40)}
    with pytest.raises(SpecError, match=r"let\.a10: with lets inlined this has 4095 nodes"):
        small(let={"a0": "q + 0", **let}, contraction={"Q": "a40"})


def test_scalars_without_axes_and_operands_without_n() -> None:
    spec = small(inputs={"w": ""}, contraction={"L": "w * causal()"})
    assert spec.axes_of(Name("w")) == ()
    bare = Spec("mix", {"v": "B T H P", "h": "W"}, {**SMALL["contraction"], "Q": "1", "K": "1",
                "L": "toeplitz(h)"}, {"y": "Y"})  # fmt: skip
    assert bare.axes_of(Name("Y")) == ("B", "T", "H", "P")
    assert Num(1) == bare.contraction.Q
    assert bare.output == (("y", Name("Y")),)
    assert call("mul", Name("w"), Num(2)) == scalar("w * 2.0")
