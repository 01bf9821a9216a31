"""Where in a spec's text a key stands, and the errors that say so.

Lines come from our own scan of keys: tomllib keeps none. Non-goals: no parsing of values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from smac.errors import SpecError

_PART = re.compile(r"""[\w-]+|"[^"\n]*"|'[^'\n]*'""")
_KEY = re.compile(rf"\s*((?:{_PART.pattern})(?:\s*\.\s*(?:{_PART.pattern}))*)\s*=")
_STRING = re.compile(r"""\"(?:\\.|[^"\\])*"|'[^']*'|\#.*""")


@dataclass(frozen=True, slots=True)
class Source:
    """A spec's origin: `file` ("<python>" for a spec built in code) and the line of each key."""

    file: str = "<python>"
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def at(self, *path: str) -> str:
        """`file:line: a.b.c`: the line of the longest part of `path` that was found."""
        line = next((self.lines[path[:n]] for n in range(len(path), 0, -1)
                     if path[:n] in self.lines), None)  # fmt: skip
        place = self.file if line is None else f"{self.file}:{line}"
        return f"{place}: {'.'.join(clip(p, 64) for p in path)}" if path else place

    def error(self, path: tuple[str, ...], message: str) -> SpecError:
        """The SpecError for the key at `path`."""
        return SpecError(f"{self.at(*path)}: {message}")


def scan_keys(text: str) -> dict[tuple[str, ...], int]:
    """Line (from 1) of every table and key in TOML text; approximate on malformed text."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    inside: str | None = None  # the delimiter of the multi-line string that we are in
    for number, line in enumerate(text.split("\n"), start=1):
        rest = line
        if inside is None:
            if line.lstrip().startswith("["):
                table = tuple(p.strip("\"'") for p in _PART.findall(line.split("]")[0]))
                found.setdefault(table, number)
            elif m := _KEY.match(line):
                key = tuple(p.strip("\"'") for p in _PART.findall(m.group(1)))
                found.setdefault(table + key, number)
                rest = line[m.end() :]
        inside = _still_inside(rest, inside)
    return found


def _still_inside(line: str, inside: str | None) -> str | None:
    """The multi-line delimiter open at the end of `line`, when `inside` was open at its start."""
    if inside is not None:
        if inside not in line:
            return inside
        line = line.split(inside, 1)[1]
    for quote in ('"""', "'''"):
        if line.count(quote) % 2:
            head = _STRING.sub("", line.split(quote, 1)[0])
            if "#" not in head:
                return quote
    return None


def clip(text: str, limit: int = 60) -> str:
    """`text` on one printable line of at most `limit` characters, for messages."""
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= limit else text[: limit - 1] + "…"


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when no name is close."""
    close = get_close_matches(word[:64], list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def listing(words: Iterable[str]) -> str:
    """Names for a message, comma-separated."""
    return ", ".join(words) or "none"
