"""trial.py with a configuration that crashes, one that hangs and one that is wrong, by chunk."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from smac.runtime import trial

right = trial.misfit


def misfit(made: Any, launcher: Any, exact: Sequence[Any]) -> str | None:
    """As in trial.py, for all chunks but three."""
    match launcher.plan.chunk:
        case 16:
            os.abort()
        case 32:
            time.sleep(1000)
        case 128:
            call = launcher.runnable.call
            object.__setattr__(launcher.runnable, "call", lambda *x: tuple(
                1.2 * y for y in call(*x)))  # fmt: skip
    return right(made, launcher, exact)


trial.misfit = misfit
if __name__ == "__main__":
    trial.main()
