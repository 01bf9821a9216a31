"""The Jinja environment: strict, without autoescape, templates from one place.

Contexts are typed objects made by codegen, never user text; what a template prints is parsed again.
"""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from smac.paths import templates_dir


@cache
def environment() -> Environment:
    """One environment a process; an undefined name in a template is an error."""
    return Environment(
        loader=FileSystemLoader(str(templates_dir())), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip


def render(template: str, **context: object) -> str:
    """The text of `template` with `context`."""
    return environment().get_template(template).render(**context)
