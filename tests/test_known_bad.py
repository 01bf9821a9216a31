"""Known-bad compilers: what applies where, and that rendered sources keep clear of the patterns."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

import smac
from smac import cli
from smac.codegen.known_bad import TABLE, parsed, that_apply
from smac.plan.config import Config, Tiles
from smac.plan.space import replanned

CASES = [
    *(("ssd", s) for s in ("sweep", "chunks", "segmented")), ("retnet", "sweep"),
    ("linear_attention", "sweep"), ("gla", "sweep"), ("toeplitz", "auto"), ("rwkv6", "auto"),
    ("multiscale", "chunks"), ("window", "auto"), ("gla", "tokens"),
]  # fmt: skip
SIDES = ("DC", "DN", "DP", "BK", "BN", "BP", "BC", "BO")


@pytest.mark.parametrize(("version", "found"), [
    ("3.6.0", (3, 6, 0)), ("3.7.1+git2", (3, 7, 1)), ("3.8rc1", (3, 8)), ("", ()), ("x.1", ()),
])  # fmt: skip
def test_versions(version: str, found: tuple[int, ...]) -> None:
    assert parsed(version) == found


@pytest.mark.parametrize(("version", "arch", "names"), [
    ("3.6.0", 9, "trans-of-dot narrow-dot default-tf32"), ("3.7.0", 9, "trans-of-dot narrow-dot "
                                                           "default-tf32"),
    ("3.7.1", 9, "narrow-dot default-tf32"), ("3.3.1", 9, "default-tf32"),
    ("3.6.0", 8, "default-tf32"), ("3.9.0", 10, "float64-dot default-tf32"), ("2.1.0", 9, ""),
])  # fmt: skip
def test_what_applies(version: str, arch: int, names: str) -> None:
    assert " ".join(k.name for k in that_apply(version, arch)) == names


def test_every_entry_says_all_of_it() -> None:
    assert len({k.name for k in TABLE}) == len(TABLE)
    for k in TABLE:
        assert all((k.pattern, k.goes_wrong, k.instead, k.source))
        assert k.last is None or k.first <= k.last
    assert [k.versions for k in TABLE[:2]] == ["3.4 to 3.7.0", "3.6 and later"]


def test_the_doctor_prints_what_applies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib import metadata

    monkeypatch.setattr(metadata, "version", lambda _: "3.6.0")
    cli._doctor_compiler(9)
    out = capsys.readouterr().out
    assert re.findall(r"^  known bad    ([a-z0-9-]+): ", out, re.M) == [
        "trans-of-dot", "narrow-dot", "default-tf32"]  # fmt: skip
    assert all(len(line) <= cli.WIDTH for line in out.splitlines())


# ---- rendered sources ------------------------------------------------------------------------


def calls(node: ast.AST, name: str) -> Iterator[ast.Call]:
    """Calls of tl.`name` below `node`."""
    for n in ast.walk(node):
        if (isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == name
                and isinstance(n.func.value, ast.Name) and n.func.value.id == "tl"):  # fmt: skip
            yield n


def of_dots(kernel: ast.FunctionDef) -> set[str]:
    """Names that hold a dot's result, or what pointwise code made of one."""
    found: set[str] = set()
    while True:
        before = len(found)
        for n in ast.walk(kernel):
            if isinstance(n, ast.Assign | ast.AugAssign) and tainted(n.value, found):
                targets = n.targets if isinstance(n, ast.Assign) else [n.target]
                found |= {t.id for t in targets if isinstance(t, ast.Name)}
        if len(found) == before:
            return found


def tainted(e: ast.AST, names: set[str]) -> bool:
    """Whether `e` computes with a dot's result. What was summed away or compared is no operand."""
    return any(True for _ in calls(e, "dot")) or any(
        isinstance(n, ast.Name) and n.id in names for n in ast.walk(e))  # fmt: skip


def breaches(text: str) -> list[str]:
    """What of a module's kernels a known-bad compiler would trip over."""
    found, tree = [], ast.parse(text)
    for kernel in (f for f in tree.body if isinstance(f, ast.FunctionDef) and f.decorator_list):
        names = of_dots(kernel)
        for dot in calls(kernel, "dot"):
            given = {k.arg: ast.unparse(k.value) for k in dot.keywords}
            if given.get("input_precision") not in ("PRECISION", "'ieee'"):
                found.append(f"{kernel.name}: {ast.unparse(dot)} says no precision")
            for side in dot.args[:2]:
                if any(tainted(t.args[0], names) for t in calls(side, "trans")):
                    found.append(f"{kernel.name}: {ast.unparse(dot)} transposes a dot's result")
        if any(True for _ in calls(kernel, "dot")):
            launch = re.search(rf"^    {kernel.name}\[.*?^    \)", text, re.M | re.S)
            for side, length in re.findall(rf"\b({'|'.join(SIDES)})=(\w+)\(",
                                           launch.group() if launch else ""):
                if length not in ("width", "columns"):
                    found.append(f"{kernel.name}: {side} may be narrower than a safe dot")
    return found


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_rendered_sources_keep_clear(name: str, schedule: str, dtype: str) -> None:
    op = smac.compile(name, target="triton", schedule=schedule)
    text = op.source(device="h100", dtype=dtype, N=64, P=64)
    assert "tl.dot(" in text or schedule == "tokens"
    assert not breaches(text)


def test_products_of_float64_are_ieee_whatever_was_asked() -> None:
    op = smac.compile("ssd", target="triton", precision="tf32")
    found = {d: re.findall(r'^PRECISION = "(\w+)"$', op.source(device="h100", dtype=d), re.M)
             for d in ("float32", "float64")}  # fmt: skip
    assert found == {"float32": ["tf32"], "float64": ["ieee"]}


@pytest.mark.parametrize(("line", "words"), [
    ("b = tl.dot(a, tl.trans((s * m).to(OP)), input_precision=PRECISION)",
     "transposes a dot's result"),
    ("b = tl.dot(tl.trans(s), a, input_precision=PRECISION)", "transposes a dot's result"),
    ("b = tl.dot(a, a)", "says no precision"),
    ("b = tl.dot(a, a, input_precision='tf32')", "says no precision"),
])  # fmt: skip
def test_this_test_can_fail(line: str, words: str) -> None:
    text = ("@triton.jit\ndef k(a, m):\n    s = tl.dot(a, tl.trans(a), input_precision='ieee')\n"
            f"    {line}\n")  # fmt: skip
    (found,) = breaches(text)
    assert found.endswith(words)


def test_narrow_tiles_are_seen_in_a_launch() -> None:
    text = ("@triton.jit\ndef k(a):\n    s = tl.dot(a, a, input_precision='ieee')\n\n\n"
            "def forward(x):\n    k[(1,)](\n        x, DC=pad(n_N),\n    )\n")  # fmt: skip
    assert breaches(text) == ["k: DC may be narrower than a safe dot"]


def test_tuned_tiles_are_never_narrower_than_is_safe() -> None:
    plan = smac.compile("ssd").plan(device="h100", dtype="bfloat16")
    with pytest.raises(smac.PlanError) as e:
        replanned(plan, Config(plan.order, plan.chosen.schedule, plan.chunk, Tiles(columns=32)))
    assert str(e.value) == ("ssd: found tiles of 32 columns in bfloat16; expected 128: narrower "
                            "ones are not safe, wider ones do not fit")  # fmt: skip
