"""Program → Source: pick the target's printer, render, check.

Non-goals: no decisions; a Program says everything.
"""

from __future__ import annotations

from smac.codegen.source import Source, checked
from smac.errors import CodegenError
from smac.ir import Program

TARGETS = ("torch", "triton")


def emit(programs: Program | tuple[Program, ...], target: str, precision: str = "ieee") -> Source:
    """One module with a function for each program, named as the program is.

    Raises CodegenError where a template cannot print what a program asks for."""
    if isinstance(programs, Program):
        programs = (programs,)
    if target == "torch":
        from smac.codegen.torch import render_torch

        text = render_torch(programs)
    elif target == "triton":
        from smac.codegen.triton import render_triton

        text = render_triton(programs, precision)
    else:
        raise CodegenError(f"unknown target '{target}'; expected one of {', '.join(TARGETS)}")
    return checked(text, target, tuple(p.name for p in programs))
