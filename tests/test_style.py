"""The habits that a machine can hold: short files, no code made of strings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from docs import files

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "smac").rglob("*.py"))
TEMPLATES = sorted((ROOT / "templates").rglob("*.jinja"))
MODULE_LINES, TEMPLATE_LINES, FUNCTION_LINES = 400, 300, 60
#: Calls that turn a string into code or objects. The one place that runs rendered sources, after
#: they were parsed and checked, is the loader.
FORBIDDEN = {"eval", "exec", "compile", "__import__", "sympify", "parse_expr", "S", "lambdify"}
LOADER = ROOT / "smac" / "runtime" / "module.py"


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def called(node: ast.Call) -> tuple[str, str]:
    """(what it is looked up on, name) of a call: ("", "eval"), ("re", "compile")."""
    if isinstance(node.func, ast.Name):
        return "", node.func.id
    if isinstance(node.func, ast.Attribute):
        base = node.func.value
        return (base.id if isinstance(base, ast.Name) else "…"), node.func.attr
    return "", ""


def forbidden(source: str) -> list[str]:
    """Forbidden calls in `source` as "name:line"; a bare name, or a module's attribute of it."""
    tree, found = ast.parse(source), []
    ours = {alias.asname or alias.name for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smac")
            for alias in node.names}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            base, name = called(node)
            risky = base in ("builtins", "sympy", "sp") or (base == "" and name not in ours)
            if name in FORBIDDEN and risky:
                found.append(f"{name}:{node.lineno}")
    return found


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_module_is_short(path: Path) -> None:
    assert lines(path) <= MODULE_LINES


@pytest.mark.parametrize("path", TEMPLATES, ids=ids)
def test_template_is_short(path: Path) -> None:
    assert lines(path) <= TEMPLATE_LINES


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_functions_are_short(path: Path) -> None:
    long = [f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
            and node.end_lineno - node.lineno >= FUNCTION_LINES]  # fmt: skip
    assert not long


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_module_says_what_it_is(path: Path) -> None:
    source = path.read_text("utf-8")
    assert not source.strip() or ast.get_docstring(ast.parse(source))


@pytest.mark.parametrize("path", [p for p in MODULES if p != LOADER], ids=ids)
def test_no_code_is_made_of_strings(path: Path) -> None:
    assert not forbidden(path.read_text("utf-8"))


def test_the_test_of_strings_can_fail() -> None:
    assert forbidden("x = eval('1')\nsympy.sympify(t)\nbuiltins.exec(t)") == [
        "eval:1", "sympify:2", "exec:3"]  # fmt: skip
    assert forbidden("code = compile(text, 'x', 'exec')") == ["compile:1"]
    assert not forbidden("re.compile('a')\nmodel.eval()\nself.compile(spec)")
    assert not forbidden("from smac.runtime.op import compile\ncompile(spec)")


def test_templates_are_strict() -> None:
    """`default(…)` would print blanks for what lowering forgot."""
    for path in TEMPLATES:
        assert not re.search(r"\|\s*default\b", path.read_text("utf-8")), path


def test_design_gives_every_file_its_sentence() -> None:
    text = files.DESIGN.read_text("utf-8")
    assert "| `smac/spec.py` |" in text
    assert not [row for row in files.table().splitlines() if row.endswith("|  |")]
    rows = set(files.table().splitlines()) ^ set(re.findall(r"^\| `.*", text, re.MULTILINE))
    assert not {row for row in rows if row.startswith("| `")}, "docs/DESIGN.md: run make docs"
