"""Which template each kernel of a rendered Triton module came from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: Templates that others import, or that hold no kernel.
PARTS = {"macros", "lanes", "channels", "chunk", "functions", "module"}


def with_kernels() -> set[str]:
    """Names of the templates that kernels come from."""
    files = {p.name.removesuffix(".py.jinja") for p in (ROOT / "templates/triton").glob("*.jinja")}
    return files - PARTS


@contextmanager
def recorded() -> Iterator[dict[str, str]]:
    """Template by kernel, of all that is rendered inside."""
    from smac.codegen import triton_kernel

    kernels: dict[str, str] = {}
    real = triton_kernel.render

    def seen(template: str, **context: Any) -> str:
        made = real(template, **context)
        name = template.removeprefix("triton/").removesuffix(".py.jinja")
        kernels.update(dict.fromkeys(re.findall(r"^def (\w+)\(", made, re.MULTILINE), name))
        return made

    triton_kernel.render = seen
    try:
        yield kernels
    finally:
        triton_kernel.render = real
