"""Hostile specs: each ends in SpecError in under a second, and nothing of them runs.

An audit hook watches while a spec is loaded: executing code, importing, opening files, starting
processes or sockets is what no text may cause.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from smac.errors import SpecError
from smac.parse import load
from smac.syntax import mask, scalar, show

GOOD = '''smac = 1
name = "small"
[inputs]
q = "B T H N"
k = "B T H N"
v = "B T H P"
[let]
u = "q * 2"
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "u"
K = "k"
V = "v"
L = "causal()"
[output]
y = "Y"
[sizes]
T = 16
'''


def let(text: str) -> str:
    """GOOD with another expression for u."""
    return GOOD.replace('"q * 2"', f"'''{text}'''")


def with_mask(text: str) -> str:
    """GOOD with another mask."""
    return GOOD.replace('"causal()"', f"'''{text}'''")


def chain(links: int) -> str:
    """Lets that double at each link."""
    lines = ['a0 = "q + q"'] + [f'a{n} = "a{n - 1} * a{n - 1}"' for n in range(1, links)]
    return GOOD.replace('u = "q * 2"', "\n".join([*lines, f'u = "a{links - 1}"']))


CODE_IN_EXPRESSIONS = [
    "__import__('os').system('touch /tmp/owned')",
    "exec('import os')",
    "eval('1+1')",
    "open('/etc/passwd')",
    "compile('1', '', 'exec')",
    "(lambda: 1)()",
    "[x for x in (1, 2)]",
    "(y := q)",
    "f'{q}'",
    "q if q else q",
    "q and q",
    "not q",
    "await q",
    "(yield q)",
    "*q",
    "print(q)",
    "getattr(q, 'real')",
    "globals()",
    "breakpoint()",
    "{q: q}",
    "`q`",
    "q; import os",
    "import os",
    "q\\nimport os",
]
DUNDERS = [
    "q.__class__",
    "().__class__.__bases__[0].__subclasses__()",
    "''.__class__.__mro__",
    "q.__init__.__globals__",
    "__builtins__",
    "exp.__globals__",
    "q[0].__class__",
    "Symbol('q')",
    "sympify('q')",
    "S('q')",
]
TEMPLATES = [
    "{{ 7 * 7 }}",
    "{% for x in range(9) %}q{% endfor %}",
    "{{ config.__class__.__init__.__globals__ }}",
    "#{q}",
    "${q}",
    "q # {{ q }}",
]
MONSTERS = [
    "9 ** 9 ** 9 ** 9",
    "q ** 999999999",
    "q ** (10 ** 10)",
    "q ** -65",
    "1" * 5000,
    "1" * 1999,
    "0x" + "f" * 1990,
    "1e999999",
    "-" * 1990 + "q",
    "(" * 900 + "q" + ")" * 900,
    "exp(" * 400 + "q" + ")" * 400,
    "q" + "+q" * 990,
    "q" + "**q" * 660,
    "q < " * 400 + "q",
    "size(" * 300 + "T" + ")" * 300,
    "q" * 10_000_0,
    "where(" * 30 + "q" + ",q,q)" * 30 + "+" + "+".join(["(q*q*q*q)"] * 100),
    "é",
    "ｅxp(q)",
    "q\u200b",
    "q\u202e",
    "",
    "   ",
    "q,",
    "(q, q)",
    "\\\\",
    "nan",
    "inf",
    "True",
    "None",
    "...",
    "'q'",
    "1j",
]
MASKS = [
    "causal().__class__",
    "causal()" + " + causal()" * 170,
    "transpose(" * 80 + "causal()" + ")" * 80,
    'entry("__import__(\'os\')")',
    'entry("t ** s ** 9999")',
    'entry("sum(sum(q[k], k, s + 1, t)[j], j, s, t)")',
    'entry("t.bit_length()")',
    'entry(entry("t"))',
    'entry("bit_length(" * 99)',
    "dense('/etc/passwd')",
    "causal",
    "causal(*q)",
    "causal(**q)",
    "fourier('{{ 1 }}')",
    "window(10 ** 10 ** 10)",
    "add(causal(), causal())",
    "given(q, causal(), causal())",
    "lambda: causal()",
]
WHOLE = {
    "nul": GOOD.replace("small", "sm\0all"),
    "nul at the end": GOOD + "\0",
    "escape": GOOD.replace("small", "sm\x1ball"),
    "lone surrogate": GOOD.replace("small", "sm\ud800all"),
    "ten megabytes": GOOD + "#" * 10_000_000,
    "ten megabytes of lines": GOOD + "# x\n" * 2_500_000,
    "deep array": GOOD + "z = " + "[" * 2000 + "]" * 2000 + "\n",
    "deep array over lines": GOOD + "z = " + "[\n" * 20000 + "\n",
    "deep inline table": GOOD + "z = " + "{a = " * 700 + "1" + "}" * 700 + "\n",
    "dotted key": GOOD + ".".join("a" * 2000) + " = 1\n",
    "dotted keys": GOOD + "".join(f"b{n}." + ".".join("a" * 1900) + " = 1\n" for n in range(16)),
    "dotted table": GOOD + "[" + ".".join("a" * 2000) + "]\n",
    "duplicate key": GOOD.replace('K = "k"', 'K = "k"\nK = "k"'),
    "duplicate table": GOOD + "[inputs]\n",
    "cyclic lets": GOOD.replace('u = "q * 2"', 'u = "w"\nw = "u"'),
    "long cycle": GOOD.replace(
        'u = "q * 2"', "\n".join(f'u{n} = "u{(n + 1) % 60}"' for n in range(60)) + '\nu = "u0"'
    ),
    "doubling lets": chain(60),
    "many lets": chain(500),
    "many inputs": GOOD.replace("[let]", "".join(f'i{n} = "H"\n' for n in range(3000)) + "[let]"),
    "template in a name": GOOD.replace("small", "{{ 7 * 7 }}"),
    "template in an input": GOOD.replace('k = "B T H N"', '"{{ k }}" = "B T H N"'),
    "path as a name": GOOD.replace("small", "../../etc/passwd"),
    "newline in a name": GOOD.replace('"small"', '"a\\nimport os"'),
    "keyword as an input": GOOD.replace("[let]", 'import = "H"\n[let]'),
    "dunder as an input": GOOD.replace("[let]", '__class__ = "H"\n[let]'),
    "long name": GOOD.replace("small", "a" * 65),
    "name of another script": GOOD.replace("small", "аdmin"),
    "reserved output": GOOD.replace('y = "Y"', 'state = "Y"'),
    "huge integer": GOOD.replace("T = 16", "T = 1" + "0" * 4000),
    "huger integer": GOOD.replace("T = 16", "T = 1" + "0" * 5000),
    "huge size": GOOD.replace("T = 16", "T = 1099511627777"),
    "negative size": GOOD.replace("T = 16", "T = -1"),
    "float size": GOOD.replace("T = 16", "T = 16.0"),
    "date": GOOD.replace("T = 16", "T = 2024-01-01"),
    "infinite default": GOOD.replace("[let]", 'w = {axes = "H", default = inf}\n[let]'),
    "nan default": GOOD.replace("[let]", 'w = {axes = "H", default = nan}\n[let]'),
    "equation": GOOD.replace("TN,SN,SP,TS->TP", "TN," * 1000 + "->TP"),
    "axes": GOOD.replace('q = "B T H N"', 'q = "' + "B " * 1900 + '"'),
    "unknown table": GOOD + "[hooks]\npost = 'rm'\n",
    "include": GOOD + "include = '/etc/passwd'\n",
    "no tables": "\n\n",
    "binary": "\x7fELF\n" + "\x01" * 99,
    "python": "import os\nos.system('true')\n",
    "yaml": "!!python/object/apply:os.system ['true']\n",
    "json": '{"smac": 1,\n"name": "small"}',
}
CASES = {
    **{f"let {t[:30]!r} {len(t)}": let(t)
       for t in CODE_IN_EXPRESSIONS + DUNDERS + TEMPLATES + MONSTERS},
    **{f"mask {t[:30]!r} {len(t)}": with_mask(t) for t in MASKS},
    **WHOLE,
}  # fmt: skip

FORBIDDEN = ("exec", "import", "open", "os.", "subprocess.", "socket.", "shutil.", "ctypes.",
             "marshal.", "pickle.", "code.__new__")  # fmt: skip
_watched: list[str] | None = None


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _watched is not None and event.startswith(FORBIDDEN):
        _watched.append(f"{event} {args!r}"[:200])


sys.addaudithook(_audit)


@contextmanager
def watched() -> Iterator[list[str]]:
    """The forbidden events of the block; what is imported lazily is imported before it."""
    global _watched
    load(GOOD)
    seen: list[str] = []
    _watched = seen
    try:
        yield seen
    finally:
        _watched = None


def test_the_good_one_is_good_and_the_watch_works() -> None:
    assert load(GOOD).name == "small"
    with watched() as seen:
        exec("1 + 1")
    assert [s.split()[0] for s in seen] == ["exec"]
    assert len(CASES) >= 50


@pytest.mark.parametrize("name", CASES)
def test_hostile_text(name: str) -> None:
    with watched() as seen:
        start = time.perf_counter()
        with pytest.raises(SpecError) as error:
            load(CASES[name])
        seconds = time.perf_counter() - start
    assert seconds < 1
    assert seen == []
    message = str(error.value)
    assert message.startswith("<text>")
    assert len(message) < 1000
    assert message.isprintable()


def test_hostile_files(tmp_path: Path) -> None:
    big = tmp_path / "big.toml"
    big.write_bytes(GOOD.encode() + b"#" * 10_000_000)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(GOOD.encode() + b"# \xff\n")
    bom = tmp_path / "bom.toml"
    bom.write_bytes(b"\xff\xfe" + GOOD.encode("utf-16-le"))
    link = tmp_path / "link.toml"
    link.symlink_to(link)
    paths = [big, latin, bom, link, tmp_path, "/dev/zero", "a\0b", "x" * 5000, "", ".", "\ud800"]
    for path in paths:
        start = time.perf_counter()
        with pytest.raises(SpecError):
            load(path)
        assert time.perf_counter() - start < 1, path


_WORDS = ["q", "k", "t", "s", "exp", "given", "size", "sum", "causal", "entry", "row", "shift", "T",
          "lambda", "if", "else", "for", "in", "1", "0x", "1e9", "(", ")", "[", "]", ",", ".", "=",
          "+", "-", "*", "**", "/", "//", "%", "^", "<", "==", '"', "'", " ", "true", "not", "\\",
          "{", "}", ":", "#", "\n", "é"]  # fmt: skip


@given(st.lists(st.sampled_from(_WORDS), max_size=12).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (scalar, mask, lambda x: scalar(x, entry=True)):
        try:
            tree = read(text)
        except SpecError:
            event("refused")
        else:
            event("read")
            show(tree)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 8), st.text(max_size=6))
def test_any_damage_to_a_spec_is_read_or_refused(at: int, cut: int, put: str) -> None:
    with suppress(SpecError):
        load(GOOD[:at] + put + GOOD[at + cut :] + "\n")
