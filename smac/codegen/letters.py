"""Axes as letters: how einsum specs and broadcasts of chunked tiles are written.

A chunked tile of axes (B, T, H, N) with a group reads "bcigrn": c is the chunk, i the row in it
(j as a column), g and r the group and the head within it. Missing axes are missing letters.
"""

from __future__ import annotations

EXTRA = "defuvwxyz"


class Letters:
    """The letters of one kernel. `batch` are the batch axes; `group` its group axis or None."""

    def __init__(self, batch: tuple[str, ...], group: str | None) -> None:
        self.batch = dict(zip(batch, "b" + EXTRA, strict=False))
        self.group = group
        self.heads = "gr" if group else "h"

    def of(self, axes: tuple[str, ...], row: str = "i", chunks: bool = True) -> str:
        """Letters of `axes`, T as "c" + `row` (or `row` alone without chunks)."""
        out = ""
        for a in axes:
            if a in self.batch:
                out += self.batch[a]
            elif a == "T":
                out += ("c" if chunks else "") + row
            elif a == "S":
                out += "j"
            elif a == "H":
                out += self.heads
            elif a == self.group:
                out += "g"
            else:
                out += {"N": "n", "P": "p", "W": "w", "R": "l"}[a]
        return out

    def union(self, *specs: str, order: str = "") -> str:
        """All letters of `specs`, in the canonical order of tiles."""
        known = order or "".join(self.batch.values()) + "c" + "i" + "j" + self.heads + "npw"
        return "".join(x for x in known if any(x in s for s in specs))


def view(text: str, have: str, want: str, whole: bool = False) -> str:
    """Code for `text` with letters `have` laid out to broadcast against letters `want`; `whole`:
    with every one of those dimensions, the leading ones too."""
    kept = [x for x in want if x in have]
    order = [have.index(x) for x in kept]
    if sorted(order) != list(range(len(have))):
        raise ValueError(f"letters {have!r} do not all occur in {want!r}")
    if order != sorted(order):
        text = f"{text}.permute({', '.join(map(str, order))})"
    first = 0 if whole else next((i for i, x in enumerate(want) if x in have), len(want))
    index = [":" if x in have else "None" for x in want[first:]]
    if "None" not in index:
        return text
    tail = len(index)
    while tail and index[tail - 1] == "None":
        tail -= 1
    if "None" not in index[:tail]:
        return f"{text}[..., {', '.join(index[tail:])}]"
    while index and index[-1] == ":":
        index.pop()
    return f"{text}[{', '.join(index)}]"


def contract(a: str, b: str, out: str) -> str:
    """The einsum spec of a·b → out."""
    return f'"{a},{b}->{out}"'


def reduce(text: str, have: str, want: str) -> str:
    """Code for `text` summed over the letters that `want` lacks, in `want`'s order."""
    gone = [i for i, x in enumerate(have) if x not in want]
    kept = [x for x in have if x in want]
    if gone:
        text = f"{text}.sum({tuple(gone) if len(gone) > 1 else gone[0]})"
    order = [kept.index(x) for x in want if x in kept]
    if order != sorted(order):
        text = f"{text}.permute({', '.join(map(str, order))})"
    return text
