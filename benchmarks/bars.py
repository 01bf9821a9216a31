"""The bars: how many times faster than a peer, or how near to the floor, SMAC has to be, and is.

Computed from rows alone. A bar whose figures are missing says which side has none, and why.

Non-goals: no measuring; nothing is asserted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.cases import MODES
from benchmarks.cases_gpu import (
    CHUNKED,
    DECODING,
    FLA,
    FLASH,
    INDUCTOR,
    LAYERS,
    LONG,
    N_SWEEP,
    SCAN,
    SSD,
    STEP,
    T_SWEEP,
    TOEPLITZ,
    WIDE,
)
from benchmarks.table import SHORT, Row

FLOOR, COPY = "floor", "copy bandwidth"
FORWARD, BOTH = MODES


@dataclass(frozen=True)
class Bar:
    """SMAC in a case and mode against the fastest of `sides`; the ratio that is due.

    Sides that are peers: their time over SMAC's, at least `due` (`more`: above it). The floor:
    SMAC's time over it, at most `due`. Copy bandwidth: the share of it reached, at least `due`.
    """

    case: str
    mode: str
    sides: tuple[str, ...]
    due: float
    more: bool = False

    @property
    def against(self) -> str:
        """The sides in words."""
        return self.sides[0] if len(self.sides) == 1 else "best of fla"

    @property
    def sign(self) -> str:
        return "<=" if self.sides == (FLOOR,) else ">" if self.more else ">="


@dataclass(frozen=True)
class Found:
    """A bar with what was measured, or why nothing was; `rival`: the side that it is held to."""

    bar: Bar
    ratio: float | None
    rival: str = ""
    why: str = ""

    @property
    def held(self) -> bool | None:
        """Whether SMAC is over the bar; None without figures."""
        if self.ratio is None:
            return None
        if self.bar.sides == (FLOOR,):
            return self.ratio <= self.bar.due
        return self.ratio > self.bar.due if self.bar.more else self.ratio >= self.bar.due

    @property
    def verdict(self) -> str:
        return {True: "held", False: "MISSED", None: "no figure"}[self.held]


def _bars() -> tuple[Bar, ...]:
    found: list[Bar] = []

    def add(name: str, sides: tuple[str, ...], *due: float, more: bool = False) -> None:
        for mode, ratio in zip(MODES, due, strict=False):
            if ratio:
                found.append(Bar(name, mode, sides, ratio, more))

    def ssd(shape: object) -> str:
        return f"ssd {shape}"

    n64, n256 = (next(s for s in N_SWEEP if n == s.N) for n in (64, 256))
    add(ssd(LAYERS[0]), (SSD,), 4.5, 5)
    add(ssd(LAYERS[0]), (FLOOR,), 1.5, 2.6)
    for shape in (LAYERS[1], n64, n256, LAYERS[2]):
        add(ssd(shape), (SSD,), 4, 5)
    add(ssd(n64), (FLOOR,), 1.3)
    for kind, due in (("causal", (2.2, 2.6)), ("retention", (2.6, 3)), ("simple_gla", (3.5, 3.5))):
        add(f"{kind} {WIDE}", FLA[kind], *due)
        add(f"{kind} {WIDE}", (FLOOR,), 1.25, 2.3)
    for kind in ("causal", "retention", "simple_gla"):
        add(f"{kind} {LONG}", FLA[kind], 2, 2.2)
    add(f"gla {WIDE}", (CHUNKED,), 1.7, 1.7)
    for shape in T_SWEEP:
        if shape.T == 2**14:
            add(ssd(shape), (FLASH,), 60, 50)
        else:
            add(ssd(shape), (FLASH,), 1, 1, more=True)
    for shape, due in ((n64, (30, 35)), (n256, (70, 80))):
        add(ssd(shape), (SCAN,), *due)
    for shape in TOEPLITZ:
        add(f"toeplitz {shape}", (FLASH,), 1.4, 1.3)
    add(f"toeplitz {TOEPLITZ[0]}", (INDUCTOR,), 12, 10)
    add(f"step {DECODING}", (COPY,), 0.85)
    add(f"step {DECODING}", (STEP,), 1)
    return tuple(found)


BARS = _bars()


def judged(bar: Bar, rows: Mapping[tuple[str, str, str], Row]) -> Found:
    """A bar against `rows` by case, mode and side."""
    ours = rows.get((bar.case, bar.mode, "smac"))
    if ours is None or not ours.seconds:
        return Found(bar, None, why=f"smac: {_why(ours)}")
    if bar.sides == (FLOOR,):
        return Found(bar, ours.over_floor, FLOOR)
    if bar.sides == (COPY,):
        return Found(bar, (ours.floor_bytes or 0) / ours.seconds, COPY)
    peers = {s: rows.get((bar.case, bar.mode, s)) for s in bar.sides}
    times = {s: r.seconds for s, r in peers.items() if r is not None and r.seconds}
    if not times:
        return Found(bar, None, why="; ".join(f"{s}: {_why(r)}" for s, r in peers.items()))
    rival = min(times, key=times.__getitem__)
    return Found(bar, times[rival] / ours.seconds, rival)


def _why(row: Row | None) -> str:
    return "not measured" if row is None else " ".join(row.note.split())


def judge(rows: Sequence[Row]) -> list[Found]:
    """Every bar."""
    by = {(r.case, r.mode, r.side): r for r in rows}
    return [judged(bar, by) for bar in BARS]


def table(rows: Sequence[Row], width: int = 100) -> str:
    """The bars, a line each, and how many are held."""
    lines = [f"{'case B,T,H,P,N,G':33}{'':4}{'against':18}{'due':>9}{'found':>8}  verdict"]
    last, every = "", judge(rows)
    for f in every:
        b = f.bar
        head = (f"{b.case if b.case != last else '':33}{SHORT[b.mode]:4}{b.against:18}"
                f"{b.sign:>3}{b.due:6g}")  # fmt: skip
        figure = "-" if f.ratio is None else f"{f.ratio:.2f}" if f.ratio < 100 else f"{f.ratio:.0f}"
        named = f" ({f.rival})" if len(b.sides) > 1 and f.rival else ""
        text = f"{head}{figure:>8}  {f.verdict}{named}{': ' if f.why else ''}{f.why}"
        lines.append(text if len(text) <= width else text[: width - 1] + "…")
        last = b.case
    held, missed, none = (sum(f.held is x for f in every) for x in (True, False, None))
    lines.append(f"{held} of {len(every)} bars held, {missed} missed, {none} without figures; "
                 "peers: their time over SMAC's;")  # fmt: skip
    lines.append("floor: SMAC's time over it; copy bandwidth: the share of it that SMAC reaches")
    return "\n".join(lines)
