"""docs/coverage.md is what the planner says now; a refusal says what is missing."""

from __future__ import annotations

from docs import coverage


def test_the_page_is_up_to_date() -> None:
    assert coverage.page() == coverage.PAGE.read_text("utf-8"), (
        "docs/coverage.md is stale: run make docs")


def test_reasons_name_a_law_or_a_size() -> None:
    _, reasons = coverage.PAGE.read_text("utf-8").split("## Why not")
    for line in reasons.strip().splitlines():
        assert any(w in line for w in ("needs ", "takes ", "keeps ", "loses ", "cuts ")), line
