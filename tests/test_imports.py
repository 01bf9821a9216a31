"""Imports flow one way: Spec → masks → Plan → lower → codegen → runtime; the front end stays light.

Read from the sources with `ast`, imports inside functions included, so that nothing must be loaded.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SMAC = Path(__file__).resolve().parent.parent / "smac"
#: The arrows. A file may import its own stage and those before it. What is not listed is the front
#: end: the spec, its parser, expressions, errors.
STAGES = ("front", "masks", "plan", "ir", "lower", "codegen", "runtime", "surface")
STAGE_OF = {
    "masks": "masks", "plan": "plan", "ir": "ir", "verify": "ir", "lower": "lower",
    "codegen": "codegen", "runtime": "runtime", "testing": "surface", "cli": "surface",
    "picture": "surface", "certified": "masks", "__init__": "surface", "__main__": "surface",
}  # fmt: skip
#: Stands apart: it must not share a mistake with what it judges.
ORACLE, ORACLE_MAY = "reference", {"front", "reference"}
#: Who may import the oracle, and torch.
ORACLE_USERS = {"runtime", "surface", "reference"}
TORCH_USERS = {"runtime", "surface", "reference"}
LATE = ("sympy", "matplotlib", "numpy")  # only inside functions
NOWHERE = ("transformers", "mamba_ssm", "fla", "pickle", "marshal", "shelve")


def stage(module: str) -> str:
    """The stage of "smac.plan.cost" (or of "smac")."""
    parts = module.split(".")
    first = parts[1] if len(parts) > 1 else "__init__"
    return ORACLE if first == ORACLE else STAGE_OF.get(first, "front")


def imports(source: str, package: str, *, top_only: bool = False) -> set[str]:
    """Modules that `source` imports, relative ones resolved against `package`.

    `from smac import plan` counts as smac.plan; what stands under TYPE_CHECKING counts too.
    """
    tree = ast.parse(source)
    nodes = tree.body if top_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            name = ".".join(part for part in (base, node.module) if part)
            # `from smac import errors` asks for a module, `from smac.errors import X` for a value.
            found |= {f"smac.{a.name}" for a in node.names} if name == "smac" else {name}
    return found


def backward(module: str, imported: set[str]) -> list[str]:
    """The imports of `module` that run against the arrows, in words."""
    here, wrong = stage(module), []
    for name in sorted(n for n in imported if n.split(".")[0] == "smac"):
        there = stage(name)
        if here == ORACLE:
            allowed = there in ORACLE_MAY
        elif there == ORACLE:
            allowed = here in ORACLE_USERS
        else:
            allowed = STAGES.index(there) <= STAGES.index(here)
        if not allowed:
            wrong.append(f"{module} ({here}) imports {name} ({there})")
    return wrong


def heavy(module: str, imported: set[str], at_top: set[str]) -> list[str]:
    """The imports of torch, triton, sympy and others where they must not be, in words."""
    roots, top = ({n.split(".")[0] for n in names} for names in (imported, at_top))
    wrong = [f"{module} imports {n}" for n in NOWHERE if n in roots]
    wrong += [f"{module} imports {n} at its top" for n in LATE if n in top]
    if stage(module) not in TORCH_USERS:
        wrong += [f"{module} imports {n}" for n in ("torch", "triton") if n in roots]
    return wrong


def modules() -> dict[str, tuple[str, str]]:
    """Every module of smac: name → (source, the package it lies in)."""
    found = {}
    for path in sorted(SMAC.rglob("*.py")):
        parts = ("smac", *path.relative_to(SMAC).with_suffix("").parts)
        package = ".".join(parts[:-1])
        name = package if parts[-1] == "__init__" else ".".join(parts)
        found[name] = (path.read_text("utf-8"), package)
    return found


MODULES = modules()


def test_the_sources_are_found() -> None:
    assert {"smac", "smac.spec", "smac.masks.base", "smac.ir"} <= MODULES.keys()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_flow_one_way(name: str) -> None:
    source, package = MODULES[name]
    if name == "smac":  # the surface names everything, and loads nothing
        assert imports(source, package, top_only=True) <= {
            "__future__", "importlib", "typing", "smac.errors"}  # fmt: skip
        return
    assert not backward(name, imports(source, package))


@pytest.mark.parametrize("name", sorted(MODULES))
def test_heavy_imports_stay_in_their_place(name: str) -> None:
    source, package = MODULES[name]
    assert not heavy(name, imports(source, package), imports(source, package, top_only=True))


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("smac.plan.cost", "from smac.lower import program",
         "smac.plan.cost (plan) imports smac.lower (lower)"),
        ("smac.spec", "def f():\n    import smac.masks.base",
         "smac.spec (front) imports smac.masks.base (masks)"),
        ("smac.masks.decay", "from ..plan import types",
         "smac.masks.decay (masks) imports smac.plan (plan)"),
        ("smac.lower.chunked", "from smac import runtime",
         "smac.lower.chunked (lower) imports smac.runtime (runtime)"),
        ("smac.reference.dense", "from smac.masks import build",
         "smac.reference.dense (reference) imports smac.masks (masks)"),
        ("smac.codegen.emit", "from smac.reference import run",
         "smac.codegen.emit (codegen) imports smac.reference (reference)"),
    ],
)  # fmt: skip
def test_this_test_can_fail(module: str, source: str, words: str) -> None:
    assert backward(module, imports(source, module.rpartition(".")[0])) == [words]


def test_the_test_of_heavy_imports_can_fail() -> None:
    inside = "def f():\n    import torch.nn\n    import sympy"
    assert heavy("smac.plan.cost", imports(inside, "smac.plan"), set()) == [
        "smac.plan.cost imports torch"]  # fmt: skip
    top = imports("import sympy\nimport pickle", "smac", top_only=True)
    assert heavy("smac.derive", top, top) == [
        "smac.derive imports pickle", "smac.derive imports sympy at its top"]  # fmt: skip
    assert not heavy("smac.runtime.op", {"torch"}, {"torch"})


def loaded_after(statement: str) -> set[str]:
    """Which heavy packages a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=SMAC.parent, text=True, check=False,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return set(done.stdout.split()) & {"torch", "triton", "sympy", "jinja2", "numpy"}


def test_importing_smac_is_light() -> None:
    assert loaded_after("import smac; smac.SpecError") == set()


def test_loading_a_spec_is_light() -> None:
    assert loaded_after("import smac; smac.load('ssd')") == set()


def test_the_test_of_lightness_can_fail() -> None:
    assert "torch" in loaded_after("import smac; smac.State")
