"""TOML to Spec: messages that name file and line, limits, and where specs are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from smac.errors import SpecError
from smac.locate import scan_keys
from smac.parse import MAX_BYTES, load, parse
from smac.paths import shipped_specs

TEXT = '''smac = 1
name = "small"

[inputs]
q = "B T H N"
k = "B T H N"
v = {axes = "B T H P"}
gamma = "H"

[contraction]
equation = "TN,SN,SP,TS -> TP"
Q = "q"
K = "k"
V = "v"
L = "decay(gamma)"

[output]
y = "Y"
'''


def test_load_by_name_path_and_text(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(TEXT)
    spec = load(TEXT)
    assert load(path) == load(str(path)) == load(spec) == spec
    path.write_bytes(TEXT.replace("\n", "\r\n").encode())
    assert load(path) == spec
    for name in shipped_specs():
        assert load(name).name == name


ERRORS = [
    ('L = "decay(gamma)"', 'L = "decy(gamma)"', "<text>:15: contraction.L: unknown mask 'decy'; "
     "expected one of causal, decay, semiseparable, toeplitz, window, document, fourier, dense, "
     "entry, approx, ones, lag, circulant, level, cumulative, kron, wave, prefix, row, col, "
     "strict, diagonal, transpose, shift, reverse; did you mean 'decay'?"),
    ('gamma = "H"', 'gamma = "Q"', "<text>:8: inputs.gamma: unknown axis 'Q'; expected axes among "
     "B T S W H N P, or declare it in [axes]"),
    ('{axes = "B T H P"}', '{axis = "B T H P"}', "<text>:7: inputs.v.axis: unknown key 'axis'; "
     "expected one of axes, default, optional; did you mean 'axes'?"),
    ("[output]", "[outputs]", "<text>:17: outputs: unknown table or key 'outputs'; expected one of "
     "name, about, paper, axes, inputs, let, contraction, output, sizes, expect; "
     "did you mean 'output'?"),
    ("smac = 1", "", "<text>: smac = 1 is missing: the version of the spec format"),
    ("smac = 1", "smac = 2", "<text>:1: smac: expected version 1, found 2"),
    ("smac = 1", "smac = true", "<text>:1: smac: expected version 1, found True"),
    ('name = "small"', "", "<text>: name: expected a name, found None"),
    ('K = "k"', "K = 3", "<text>:13: contraction.K: expected a quoted expression, found 3"),
    ('K = "k"', 'K = "kk"', "<text>:13: contraction.K: unknown name 'kk'; expected an input or a "
     "let (gamma, k, q, v); did you mean 'k'?"),
    ('K = "k"', "K = k", "<text>:13: not TOML: Invalid value"),
    ('K = "k"', 'K = "k"\nK = "k"', "<text>:14: not TOML: Cannot overwrite a value"),
    ('K = "k"', "", "<text>:10: contraction: K is missing; expected equation, Q, K, V, L"),
    ('y = "Y"', "", "<text>:17: output: no outputs; expected at least one, as y = \"Y\""),
    ("[inputs]", "[[inputs]]", "<text>:4: inputs: expected a table, found "
     "[{'q': 'B T H N', 'k': 'B T H N', 'v': {'axes': 'B T H P'},…"),
    ('name = "small"', 'name = "a\x00b"', "<text>:2: control character '\\x00'"),
    ('gamma = "H"', "gamma = 1979-05-27", "<text>:8: inputs.gamma: expected axes, as \"B T H P\", "
     "found datetime.date(1979, 5, 27)"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), ERRORS)
def test_errors_name_the_line(old: str, new: str, message: str) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(SpecError) as e:
        parse(TEXT.replace(old, new))
    assert str(e.value) == message


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(TEXT.replace('"decay(gamma)"', '"decay(gama)"'))
    with pytest.raises(SpecError) as e:
        load(path)
    assert str(e.value) == (f"{path}:15: contraction.L: unknown name 'gama'; expected an input or "
                            "a let (gamma, k, q, v); did you mean 'gamma'?")  # fmt: skip


def test_no_such_spec() -> None:
    with pytest.raises(SpecError) as e:
        load("retnt")
    assert str(e.value).startswith("retnt: no such file, and no shipped spec of that name; "
                                   "expected a path or one of ")  # fmt: skip
    assert str(e.value).endswith("did you mean 'retnet'?")
    with pytest.raises(SpecError, match="expected a spec's name, path or text, found 3"):
        load(3)  # type: ignore[arg-type]


def test_a_file_too_large_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "big.toml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(SpecError, match=f"larger than {MAX_BYTES} bytes"):
        load(path)


def test_long_expressions_may_span_lines() -> None:
    text = TEXT.replace('"decay(gamma)"', '"""\n  decay(gamma)\n  * causal()"""')
    assert load(text).contraction.L.fn == "mul"


def test_scan_keys() -> None:
    text = "\n".join([
        "a = 1", "# b = 2", "[t]", 'c = """', "x = 3", '"""', "d = '''", "[u]", "'''",
        '"e f" = 2', "[ 'v' . w ]", "g.h = {i = 2}",
    ])  # fmt: skip
    assert scan_keys(text) == {
        ("a",): 1, ("t",): 3, ("t", "c"): 4, ("t", "d"): 7, ("t", "e f"): 10, ("v", "w"): 11,
        ("v", "w", "g", "h"): 12,
    }  # fmt: skip


def test_shipped_specs_are_short() -> None:
    for name, path in shipped_specs().items():
        code = [x for x in path.read_text().splitlines() if x.strip() and x.strip()[0] != "#"]
        assert len(code) < 40, name
