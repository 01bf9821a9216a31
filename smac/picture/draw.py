"""A picture as a PNG of four panels, by matplotlib: the optional extra `show`.

Non-goals: no numbers of its own (facts.py), no window on the screen.
"""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smac.errors import SmacError
from smac.picture.facts import CUT, FULL, NOTHING, STATE, ZERO, Facts
from smac.picture.text import crossover_line, rank_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _FAINT, _MARK = "#22313f", "#c9d1d9", "#c0392b"
_TILES = {  # kind: (colour, what it means)
    ZERO: ("#f4f6f8", "zero: skipped"), FULL: ("#2c6fad", "entry by entry"),
    CUT: ("#8fbbe0", "entry by entry, edge masked"), STATE: ("#f2c14e", "low rank: by the state"),
}  # fmt: skip
_ORDERS = {"quadratic": "#2c6fad", "chunked": "#d98e04", "linear": "#4c9f70"}
_STYLE: dict[Any, Any] = {
    "font.size": 9.0, "axes.titlesize": 10.0, "axes.titlelocation": "left",
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color",
                     "ytick.color"), _INK),
}  # fmt: skip


def save(f: Facts, path: str | Path) -> Path:
    """Write the picture to `path` (PNG, about 1000 × 800 pixels).

    Raises SmacError where matplotlib is not installed, naming the extra, OSError for the file.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        what = "drawing a PNG needs matplotlib, which is not installed"
        raise SmacError(f"{what}: pip install 'smac-kernels[show]'; without it, smac show prints "
                        "text") from None  # fmt: skip
    out = Path(path)
    if out.suffix.lower() != ".png":
        raise SmacError(f"{out}: found the suffix {out.suffix!r}; expected a name ending in .png")
    with matplotlib.rc_context(_STYLE):
        fig = Figure((10, 8.2), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
        r = f.plan.request
        title = "\n".join(textwrap.wrap(f"L = {f.plan.mask_text}", 100)[:3])
        fig.suptitle(f"{r.spec.name}\n{title}", x=0.01, ha="left", fontsize=11)
        panels = fig.subplots(2, 2)
        _mask(f, panels[0][0])
        _tiles(f, panels[0][1])
        _sigma(f, panels[1][0])
        _times(f, panels[1][1])
        _write(fig, out)
    return out


def _write(fig: Figure, out: Path) -> None:
    """The file in 256 colours, a third as large, and without the version of matplotlib: the same
    picture is the same bytes."""
    from PIL import Image

    drawn = io.BytesIO()
    fig.savefig(drawn, format="png")
    image = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(out, format="PNG", optimize=True)


def _mask(f: Facts, ax: Axes) -> None:
    T = len(f.matrix)
    top = max(abs(x) for row in f.matrix for x in row) or 1.0
    signed = min(x for row in f.matrix for x in row) < 0
    shown = ax.imshow(f.matrix, cmap="RdBu_r" if signed else "Blues", vmax=top,
                      vmin=-top if signed else 0, interpolation="nearest")  # fmt: skip
    ax.set(title=f"the mask L[t, s] of one head,\non values drawn for T = {T}",
           xlabel="s", ylabel="t")  # fmt: skip
    assert ax.figure is not None
    ax.figure.colorbar(shown, ax=ax, shrink=0.85)


def _tiles(f: Facts, ax: Axes) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    plan, kinds = f.plan, list(_TILES)
    codes = [[kinds.index(k) for k in row] for row in f.tiles]
    ax.imshow(codes, cmap=ListedColormap([c for c, _ in _TILES.values()]), vmin=-0.5,
              vmax=len(kinds) - 0.5, interpolation="nearest")  # fmt: skip
    n = len(codes)
    for edge in range(n + 1):
        ax.axhline(edge - 0.5, color="white", lw=0.8)
        ax.axvline(edge - 0.5, color="white", lw=0.8)
    marks = range(0, n, max(1, n // 4))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks([m - 0.5 for m in marks], [str(m * plan.chunk) for m in marks])
    T = plan.request.size("T")
    shown = f"the first {n * plan.chunk} of" if n * plan.chunk < T else "all"
    ax.set(title=f"{plan.order} order, tiles of {plan.chunk}:\n{shown} {T} tokens",
           xlabel="s", ylabel="t")  # fmt: skip
    seen = [k for k in kinds if any(k in row for row in f.tiles)]
    ax.legend(handles=[Patch(fc=_TILES[k][0], ec=_FAINT, label=_TILES[k][1]) for k in seen],
              loc="upper right", framealpha=0.95, edgecolor=_FAINT, fontsize=8)  # fmt: skip


def _sigma(f: Facts, ax: Axes) -> None:
    first = f.sigma[0] if f.sigma and f.sigma[0] else 1.0
    found = sum(x / first > NOTHING for x in f.sigma)
    shown = [max(x / first, 1e-18) for x in f.sigma[: max(24, found + 4)]]
    colours = ["#2c6fad" if x > NOTHING else _FAINT for x in shown]
    ax.bar(range(1, len(shown) + 1), shown, bottom=1e-18, color=colours)
    ax.set_yscale("log")
    ax.axhline(NOTHING, color=_FAINT, lw=1, ls=":")
    if f.rank is not None:
        ax.axvline(f.rank + 0.5, color=_MARK, lw=1.5)
        ax.annotate(f" the claimed rank, {f.rank}", (f.rank + 0.5, 3), color=_MARK, fontsize=8)
    words = rank_line(f).split(", ")
    ax.set(title=f"singular values: {words[0]},\n{words[1]}", xlabel="number",
           ylabel="relative to the first", ylim=(1e-18, 60))  # fmt: skip
    _open(ax)


def _times(f: Facts, ax: Axes) -> None:
    r = f.plan.request
    for order, colour in _ORDERS.items():
        points = [(T, dict(times)[order]) for T, times in f.times if order in dict(times)]
        if points:
            ax.plot(*zip(*points, strict=True), marker="o", ms=3.5, color=colour, label=order)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    if f.beaten is not None:
        ax.axvline(f.beaten, color=_MARK, lw=1.5)
        ax.annotate(f" T = {f.beaten}", (f.beaten, ax.get_ylim()[0]), color=_MARK, fontsize=8,
                    va="bottom", bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
    what = "backward" if r.backward else "forward"
    ax.set(title=f"predicted time of the {what}, {r.dtype} on {r.device}\n{crossover_line(f)}",
           xlabel="T", ylabel="seconds")  # fmt: skip
    ax.legend(loc="upper left", framealpha=0.95, edgecolor=_FAINT, fontsize=8)
    _open(ax)


def _open(ax: Any) -> None:
    """No frame at the top and on the right."""
    ax.spines[["top", "right"]].set_visible(False)
