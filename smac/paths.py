"""Where the shipped templates and specs are, in a checkout and in an installed wheel.

Non-goals: no user files, no caches (those are the runtime's), nothing is read here.
"""

from __future__ import annotations

from pathlib import Path

from smac.errors import SmacError

_PACKAGE = Path(__file__).resolve().parent


def _data_dir(name: str) -> Path:
    """The folder `name` of the wheel's `smac/_data`, else the one beside `smac/` in a checkout."""
    in_wheel, in_checkout = _PACKAGE / "_data" / name, _PACKAGE.parent / name
    for folder in (in_wheel, in_checkout):
        if folder.is_dir():
            return folder
    raise SmacError(
        f"{name}: found neither {in_wheel} nor {in_checkout}; expected one of them: "
        "reinstall smac-kernels, or run from a whole checkout"
    )


def templates_dir() -> Path:
    """The folder of kernel templates, with `triton/` and `torch/` in it."""
    return _data_dir("templates")


def specs_dir() -> Path:
    """The folder of shipped specs, one TOML file a system."""
    return _data_dir("specs")


def shipped_specs() -> dict[str, Path]:
    """Shipped specs by name ("ssd"), sorted; the name is the file's stem."""
    return {path.stem: path for path in sorted(specs_dir().glob("*.toml"))}
