"""The five exceptions: every failure a user can cause ends in one of them."""

from __future__ import annotations


class SmacError(Exception):
    """Base of every error that SMAC raises on purpose."""


class SpecError(SmacError):
    """The spec is malformed: says file:line, what was found and what was expected."""


class PlanError(SmacError):
    """The request cannot be planned: names the law or the size that is missing."""


class CodegenError(SmacError):
    """A rendered source is not what was asked for: a defect in a template or a compiler."""


class LaunchError(SmacError):
    """A call does not fit its op: names the input, its axes, what came and what was due."""
