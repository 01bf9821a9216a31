"""The Jinja environment: strict, without autoescape, templates from one place.

Contexts are typed objects made by codegen, never user text; what a template prints is parsed again.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, StrictUndefined

from smac.codegen.compiled import Templates
from smac.paths import templates_dir

#: How templates are read: all that their code depends on beside themselves.
OPTIONS: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True,
                           "keep_trailing_newline": True, "autoescape": False}  # fmt: skip


@cache
def environment() -> Environment:
    """One environment a process; an undefined name in a template is an error."""
    loader = Templates(templates_dir(), OPTIONS)
    return Environment(loader=loader, undefined=StrictUndefined, **OPTIONS)


def render(template: str, **context: object) -> str:
    """The text of `template` with `context`."""
    return environment().get_template(template).render(**context)
