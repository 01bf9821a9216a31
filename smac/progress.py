"""A bar on stderr, redrawn in place; silent when it is not wanted.

Non-goals: what is being done, and how long it will take.
"""

from __future__ import annotations

import sys
from types import TracebackType


class Progress:
    """`with Progress(total, wanted) as bar: bar.at("what comes next")`, `total` times."""

    def __init__(self, total: int, wanted: bool) -> None:
        self.total, self.wanted, self.done = total, wanted, 0

    def __enter__(self) -> Progress:
        return self

    def at(self, label: str) -> None:
        """Draw the bar: what came before is done, `label` is being run."""
        if self.wanted:
            full = 20 * self.done // max(self.total, 1)
            bar = "█" * full + "·" * (20 - full)
            line = f"{bar} {self.done}/{self.total} {label}"[:79]
            print(f"\r{line:79}", end="", file=sys.stderr, flush=True)
        self.done += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        if self.wanted:
            print("\r" + " " * 79 + "\r", end="", file=sys.stderr, flush=True)
