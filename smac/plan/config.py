"""The space of configurations that a program can run in: what tuning chooses from, as values.

A configuration is an order with its schedule and chunk, and how the kernels of that are cut: the
columns of a tile that is split over programs, warps of a program, loads in flight. What is None
is the printer's own choice, by the tile at hand.

Non-goals: which configurations are worth a trial (space.py), what they cost (cost.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

#: The lanes whose states one triton program carries in registers.
MOST_LANES = {"chunked": 8, "linear": 4}
#: What each number of `Tiles` may be.
COLUMNS, WARPS, STAGES = (16, 32, 64, 128, 256), (1, 2, 4, 8), (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Tiles:
    """How kernels are cut (triton alone); None leaves a choice to the printer.

    `columns`: of a tile that is split over programs, at most; `warps`: of a program with tiles;
    `stages`: loads in flight, at most."""

    columns: int | None = None
    warps: int | None = None
    stages: int | None = None

    def __str__(self) -> str:
        """What differs from the printer's choice, as "8 warps, 2 stages"; "" where nothing does."""
        return ", ".join(f"{v} {n}" for n, v in asdict(self).items() if v is not None)


#: Every choice the printer's own.
OWN = Tiles()


@dataclass(frozen=True, slots=True)
class Config:
    """One way to run a program: what the planner decides, and the tiles."""

    order: str
    schedule: str
    chunk: int
    tiles: Tiles = OWN

    def __str__(self) -> str:
        return ", ".join(filter(None, (f"{self.order} {self.schedule} {self.chunk}",
                                       str(self.tiles))))  # fmt: skip

    def to_dict(self) -> dict[str, object]:
        """The configuration as JSON can hold it."""
        return asdict(self)

    @staticmethod
    def from_dict(found: object) -> Config | None:
        """What `to_dict` wrote; None for anything else, whatever it is."""
        if not _has(found, [f.name for f in fields(Config)]):
            return None
        assert isinstance(found, Mapping)
        tiles = found["tiles"]
        if not _has(tiles, [f.name for f in fields(Tiles)]):
            return None
        legal = {"columns": COLUMNS, "warps": WARPS, "stages": STAGES}
        if not all(tiles[n] is None or (type(tiles[n]) is int and tiles[n] in legal[n])
                   for n in legal):  # fmt: skip
            return None
        words = isinstance(found["order"], str) and isinstance(found["schedule"], str)
        if not words or type(found["chunk"]) is not int or not 1 <= found["chunk"] <= 2**20:
            return None
        return Config(found["order"], found["schedule"], found["chunk"], Tiles(**tiles))


def _has(found: object, names: list[str]) -> bool:
    return isinstance(found, Mapping) and found.keys() == set(names)
