"""The Jinja environment: strict, without autoescape, templates from one place.

Contexts are typed objects made by codegen, never user text; what a template prints is parsed again.
Compiling a template takes longer than filling it, so the environment keeps what Jinja makes of one
(smac/codegen/compiled.py).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from smac.codegen.compiled import kept_for
from smac.paths import templates_dir

#: How templates are read: what their code depends on beside their text.
OPTIONS: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True,
                           "keep_trailing_newline": True, "autoescape": False}  # fmt: skip


@cache
def environment() -> Environment:
    """One environment a process; an undefined name in a template is an error."""
    return Environment(loader=FileSystemLoader(str(templates_dir())), undefined=StrictUndefined,
                       bytecode_cache=kept_for(OPTIONS), **OPTIONS)  # fmt: skip


def render(template: str, **context: object) -> str:
    """The text of `template` with `context`."""
    return environment().get_template(template).render(**context)
