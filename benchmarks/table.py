"""Rows of the GPU benchmark and the table that they make, at most 100 columns wide.

Non-goals: no measuring.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

WIDTH = 100
SHORT = {"forward": "fwd", "forward+backward": "f+b"}
HEADER = (f"  {'':4}{'':17}{'ms':>8}{'±%':>4}{'×floor':>7}{'×smac':>7}{'copy':>5}{'MiB':>7}"
          f"{'kept':>7}{'error':>8}  plan")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One side of one case in one mode. Seconds; bytes above the inputs; relative rms error.

    `note` says why there are no figures: missing, skipped or the error; `how`: SMAC's plan;
    `floor_bytes` and `floor_flops`: the two terms of the floor; `kept`: bytes that a forward leaves
    for its backward, beyond inputs and y; `run`: which run of the results it is of.
    """

    case: str
    mode: str
    side: str
    seconds: float | None = None
    spread: float | None = None
    host: float | None = None
    floor: float | None = None
    floor_bytes: float | None = None
    floor_flops: float | None = None
    peak: int | None = None
    error: float | None = None
    how: str = ""
    note: str = ""
    failed: bool = False
    kept: int | None = None
    run: int = 0

    @property
    def skipped(self) -> bool:
        """Whether it was not tried."""
        return self.note.startswith("skipped")

    @property
    def bandwidth_share(self) -> float | None:
        """The share of the copy bandwidth at which the bytes that must move did."""
        return self.floor_bytes / self.seconds if self.seconds and self.floor_bytes else None

    @property
    def over_floor(self) -> float | None:
        """Time over the floor of the case."""
        return self.seconds / self.floor if self.seconds and self.floor else None


_LEGEND = (
    "cases are kind B,T,H,P,N,G; medians; ±: half the range of the middle 60 %; ×floor: of the "
    "case; ×smac: the side's time over SMAC's; copy: the share of the copy bandwidth at which the "
    "least bytes moved; MiB: peak above the inputs; kept: MiB that a forward leaves for its "
    "backward beyond inputs and y; error: relative rms against float64, the worst result"
)


def ratios(rows: Iterable[Row]) -> dict[tuple[str, str, str], float]:
    """Each peer's time over SMAC's of the same case and mode, where both were measured."""
    every = list(rows)
    ours = {(r.case, r.mode): r.seconds for r in every if r.side == "smac" and r.seconds}
    return {(r.case, r.mode, r.side): r.seconds / ours[r.case, r.mode] for r in every
            if r.side != "smac" and r.seconds and (r.case, r.mode) in ours}  # fmt: skip


def line(row: Row, ratio: float | None) -> str:
    """One row under its case's name."""
    head = f"  {SHORT[row.mode]:4}{row.side:17}"
    if row.note:
        text = " ".join(row.note.split())
        room = WIDTH - len(head) - 1
        return f"{head} {text if len(text) <= room else text[: room - 1] + '…'}"
    figures = [
        "-" if row.seconds is None else _ms(row.seconds),
        "-" if row.spread is None else f"{100 * row.spread:.0f}",
        "-" if row.over_floor is None else _times(row.over_floor),
        "" if ratio is None else _times(ratio),
        "-" if row.bandwidth_share is None else f"{100 * row.bandwidth_share:.0f}%",
        "-" if row.peak is None else f"{row.peak / 2**20:.0f}",
        "" if row.kept is None else _mib(row.kept),
        "" if row.error is None else f"{row.error:.1e}",
    ]
    widths = (8, 4, 7, 7, 5, 7, 7, 8)
    text = head + "".join(f"{x:>{n}}" for x, n in zip(figures, widths, strict=True))
    return f"{text}  {row.how}".rstrip()[:WIDTH]


def _mib(size: int) -> str:
    """Bytes in MiB; a few of them in full."""
    return f"{size} B" if 0 < size < 10**4 else f"{size / 2**20:.4g}"


def _times(x: float) -> str:
    return f"{x:.2f}" if x < 100 else f"{x:.0f}" if x < 1e6 else f"{x:.1e}"


def _ms(seconds: float) -> str:
    ms = 1e3 * seconds
    return f"{ms:.4f}" if ms < 1 else f"{ms:.3f}" if ms < 100 else f"{ms:.1f}"


def table(rows: Iterable[Row]) -> str:
    """Every row under its case, B,T,H,P,N,G."""
    every = list(rows)
    over = ratios(every)
    lines, last = [HEADER], ""
    for row in every:
        if row.case != last:
            lines.append(row.case)
        lines.append(line(row, over.get((row.case, row.mode, row.side))))
        last = row.case
    return "\n".join([*lines, *textwrap.wrap(_LEGEND, WIDTH)])


def about(machine: Mapping[str, object]) -> str:
    """What the figures depend on, a few to a line."""
    lines = [""]
    for key, value in machine.items():
        item = f"{key} {value}"
        if len(lines[-1]) + len(item) + 2 > WIDTH:
            lines.append("")
        lines[-1] += (", " if lines[-1] else "") + item
    return "\n".join(lines)
