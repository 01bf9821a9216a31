"""A tape: what a program's function did at one call, to be done again on tensors of the same kind.

The function of a rendered module reads shapes, strides and types, allocates, launches kernels and
calls torch; it looks at no values. So tensors of equal shapes, strides, types and alignments make
it do the same things: a tape is the list of those, without what it took to find them. Memory that
kernels alone see comes from one allocation.

Non-goals: how a tape comes about (record.py), and when it is played (player.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smac.runtime.direct import STREAM

Made = tuple[Tensor, ...]
#: Triton asks of a pointer whether 16 divides it.
ALIGNED = 15


class Moved(Exception):
    """An allocation is not aligned as it was when the tape was recorded."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a tensor among all of a call's: inputs first, then what was made, in order."""

    number: int


@dataclass(slots=True, eq=False)
class Launched:
    """A launch: `places` of `values` are pointers, to tensors in slots. `spent`: slots that no step
    reads any more."""

    launch: Callable[..., object]
    values: list[Any]
    places: tuple[tuple[int, int], ...]
    spent: tuple[int, ...] = ()

    def reads(self) -> set[int]:
        """Slots."""
        return {slot for _, slot in self.places}

    def again(self, tensors: list[Any], pointers: list[int], stream: int) -> None:
        """Launch on the pointers of now."""
        values = self.values.copy()
        values[STREAM] = stream
        for place, slot in self.places:
            values[place] = pointers[slot]
        self.launch(*values)
        for slot in self.spent:
            tensors[slot] = None


@dataclass(slots=True, eq=False)
class Called:
    """A call of torch: `made` are the slots of its results, `pointed` those of them that launches
    read, with what their pointers leave modulo 16. `places` of `args` are tensors, from slots;
    where `deep`, arguments have slots inside. `spent` as for launches."""

    function: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    places: tuple[tuple[int, int], ...]
    deep: bool
    made: tuple[int, ...]
    one: bool
    pointed: tuple[tuple[int, int], ...] = ()
    spent: tuple[int, ...] = ()

    def reads(self) -> set[int]:
        """Slots."""
        return {slot for _, slot in self.places} | slots_of((self.args, self.kwargs))

    def again(self, tensors: list[Any], pointers: list[int], stream: int) -> None:
        """Call, and keep what comes."""
        args, kwargs = self.args, self.kwargs
        if self.deep:
            args, kwargs = _filled(args, tensors), _filled(kwargs, tensors)
        elif self.places:
            args = args.copy()
            for place, slot in self.places:
                args[place] = tensors[slot]
        found = self.function(*args, **kwargs)
        if self.one:
            tensors[self.made[0]] = found
        elif self.made:
            for slot, x in zip(self.made, tensors_of(found), strict=True):
                tensors[slot] = x
        for slot, rest in self.pointed:
            at = pointers[slot] = tensors[slot].data_ptr()
            if at & ALIGNED != rest:
                raise Moved
        for slot in self.spent:
            tensors[slot] = None


@dataclass(frozen=True, slots=True)
class Tape:
    """Steps of a call. `scratch` bytes are allocated at once, for the slots of `offsets`."""

    steps: tuple[Launched | Called, ...]
    results: tuple[int, ...]
    made: int
    scratch: int
    offsets: tuple[tuple[int, int], ...]
    device: torch.device

    def play(self, tensors: Sequence[Tensor], pointers: Sequence[int], stream: int) -> Made:
        """The results for `tensors` with these pointers. Raises Moved, having done no harm."""
        held: list[Any] = [*tensors, *(None,) * self.made]
        at = [*pointers, *(0,) * self.made]
        if self.scratch:
            block = torch.empty(self.scratch, dtype=torch.uint8, device=self.device)
            base = block.data_ptr()
            if base & ALIGNED:
                raise Moved
            for slot, offset in self.offsets:
                at[slot] = base + offset
        for step in self.steps:
            step.again(held, at, stream)
        return tuple([held[slot] for slot in self.results])


def tensors_of(found: Any) -> tuple[Tensor, ...]:
    """The tensors that a function of torch returned."""
    if isinstance(found, Tensor):
        return (found,)
    if isinstance(found, tuple | list):
        return tuple(x for x in found if isinstance(x, Tensor))
    return ()


def mapped(x: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """`x` with each instance of `kind`, in lists, tuples, dicts and slices too, changed."""
    if isinstance(x, kind):
        return change(x)
    if isinstance(x, dict):
        return {n: mapped(y, kind, change) for n, y in x.items()}
    if isinstance(x, slice):
        return slice(*(mapped(y, kind, change) for y in (x.start, x.stop, x.step)))
    if type(x) in (tuple, list):
        return type(x)(mapped(y, kind, change) for y in x)
    return x


def _filled(x: Any, tensors: list[Any]) -> Any:
    """Arguments with tensors in the place of slots."""
    return mapped(x, Slot, lambda slot: tensors[slot.number])


def slots_of(x: Any) -> set[int]:
    """Numbers of the slots in arguments."""
    found: set[int] = set()
    mapped(x, Slot, lambda slot: found.add(slot.number))
    return found
