"""Compilers known to go wrong: which versions, on what GPUs, with which pattern; what SMAC does.

A table for people (`smac doctor` prints what applies to a machine) and for tests, which hold the
rendered sources to it. What is in it was seen; what is not is found by the check at first use
(runtime/self_check.py).

Non-goals: working around anything here: printers and templates do, always, whatever the version, so
that one source is verified and not several.
"""

from __future__ import annotations

from dataclasses import dataclass

#: A version as numbers: (3, 7, 0).
Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KnownBad:
    """Versions from `first` to `last` of Triton (None: no end is known) go wrong with `pattern` on
    compute capabilities `arches` (major version; empty: all). `instead`: what SMAC does."""

    name: str
    first: Version
    last: Version | None
    arches: tuple[int, ...]
    pattern: str
    goes_wrong: str
    instead: str
    source: str

    def applies(self, version: Version, arch: int) -> bool:
        """Whether Triton `version` on a GPU of capability `arch`.x is one of these."""
        return (self.first <= version and (self.last is None or version <= self.last)
                and (not self.arches or arch in self.arches))  # fmt: skip

    @property
    def versions(self) -> str:
        """ "3.4 to 3.7.0", "3.6 and later"."""
        first = ".".join(map(str, self.first))
        return f"{first} to {'.'.join(map(str, self.last))}" if self.last else f"{first} and later"


TABLE: tuple[KnownBad, ...] = (
    KnownBad(
        "trans-of-dot", (3, 4), (3, 7, 0), (9,),
        "a dot with the transpose of another dot's result, pointwise code between them",
        "wrong numbers, in silence",
        "the product is written the other way round: K·Qᵀ is computed where (Q·Kᵀ)ᵀ is due",
        "flash-linear-attention issues #640, #984",
    ),
    KnownBad(
        "narrow-dot", (3, 6), None, (9,),
        "16-bit dots with a side shorter than 64, beside a state in registers",
        "wrong numbers in silence, or accesses beyond shared memory",
        "16-bit tiles are padded to 64 (`width` in every module)",
        "seen on an H100 with Triton 3.6.0, states of 64 × 16 and 64 × 32",
    ),
    KnownBad(
        "float64-dot", (3, 6), None, (10,),
        "a dot of float64 operands whose input_precision is not ieee",
        "refused by the compiler",
        "every dot says its precision, and a float64 one says ieee",
        "seen ahead of time for sm_100 with Triton 3.6.0",
    ),
    KnownBad(
        "default-tf32", (3, 0), None, (),
        "a float32 dot that does not say its input_precision",
        "ten bits of mantissa where 23 are meant",
        "every dot says its precision: ieee, unless tf32 was asked for",
        "Triton's documentation of tl.dot",
    ),
)  # fmt: skip


def parsed(version: str) -> Version:
    """ "3.6.0+git1" as (3, 6, 0); what is no number ends it."""
    found: list[int] = []
    for part in version.split("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        found.append(int(digits))
        if digits != part:
            break
    return tuple(found)


def that_apply(version: str, arch: int) -> tuple[KnownBad, ...]:
    """What of the table is about Triton `version` on a GPU of capability `arch`.x."""
    return tuple(k for k in TABLE if k.applies(parsed(version), arch))
