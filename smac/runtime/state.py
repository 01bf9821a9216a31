"""State: what a sequence leaves behind, and how it lies in the buffers of a program.

Non-goals: no arithmetic on states; which masks have one is the masks' law.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from smac.errors import LaunchError

#: The buffers that a State goes into, in order; a spec without documents, or one that reads no
#: positions, has no such buffer.
BUFFERS = ("state.S0", "state.last", "state.pos")


@dataclass(frozen=True, eq=False)
class State:
    """The state after a number of tokens; a pytree of the fields that are not None.

    S: (batch…, H, r, N, P), float32 (float64 for float64 inputs), the lane axis r dropped when 1,
    as are axes that no operand carries. z: the same without P, the state of the normaliser Z.
    last: id of the last token's document, (batch…). ring: the last tokens of a window. pos: tokens
    so far, where the spec or its mask reads `index(T)`: a number or, for CUDA graphs, whose replays
    would all start at the same number, an integer tensor without axes on the device of S.
    """

    S: Tensor
    z: Tensor | None = None
    last: Tensor | None = None
    ring: Tensor | None = None
    pos: int | Tensor | None = None

    def detach(self) -> State:
        """The same values, cut off from the graph."""
        parts: dict[str, Any] = {n: x.detach() for n, x in self._parts() if isinstance(x, Tensor)}
        return replace(self, **parts)

    def _parts(self) -> list[tuple[str, Any]]:
        pairs = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return [(n, x) for n, x in pairs if x is not None]

    def __repr__(self) -> str:
        shown = [f"{n}={tuple(x.shape) if isinstance(x, Tensor) else x}" for n, x in self._parts()]
        return f"State({', '.join(shown)}, {str(self.S.dtype)[6:]}, {self.S.device})"


def _flatten(state: State) -> tuple[list[Any], tuple[str, ...]]:
    parts = state._parts()
    return [x for _, x in parts], tuple(n for n, _ in parts)


pytree.register_pytree_node(
    State, _flatten, lambda leaves, names: State(**dict(zip(names, leaves, strict=True))),
    serialized_type_name="smac.State",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How a State lies in a program's state buffers.

    `axes` of the buffer S0, canonical, "R" among them; those not in `carried` have length 1 there
    and are no axes of a State. `normalised`: the last column along P is z. `last_axes`: the axes of
    `last`, None where the spec has no documents. `position`: the spec reads index(T).
    """

    axes: tuple[str, ...]
    carried: frozenset[str]
    rank: int
    normalised: bool
    ids: str | None
    last_axes: tuple[str, ...]
    position: bool

    @property
    def buffers(self) -> tuple[str, ...]:
        """The names of what `zeros` and `join` make."""
        there = (True, self.ids is not None, self.position)
        return tuple(n for n, due in zip(BUFFERS, there, strict=True) if due)

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape of the buffer: z's column included."""
        length = {a: sizes[a] if a in self.carried else 1 for a in self.axes if a != "R"}
        length["R"] = self.rank
        length["P"] = length.get("P", 1) + self.normalised
        return tuple(length[a] for a in self.axes)

    def _public(self, sizes: Mapping[str, int]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Axes and lengths of `State.S`."""
        axes = tuple(a for a in self.axes if a in self.carried or (a == "R" and self.rank > 1))
        return axes, tuple({**sizes, "R": self.rank}[a] for a in axes)

    def _dropped(self) -> tuple[int, ...]:
        """Dimensions of the buffer that a State does not have."""
        return tuple(i for i, a in enumerate(self.axes)
                     if a not in self.carried and not (a == "R" and self.rank > 1))  # fmt: skip

    def zeros(self, sizes: Mapping[str, int], dtype: torch.dtype,
              device: torch.device) -> tuple[Tensor, ...]:  # fmt: skip
        """State buffers before the first token: zeros (so is the position), and a last id that is
        nobody's."""
        buffers = [torch.zeros(self.shape(sizes), dtype=dtype, device=device)]
        if self.ids is not None:
            shape = [sizes[a] for a in self.last_axes]
            buffers.append(torch.full(shape, -1, dtype=torch.int64, device=device))
        if self.position:
            buffers.append(torch.zeros((), dtype=torch.int64, device=device))
        return tuple(buffers)

    def place(self, state: State, sizes: Mapping[str, int], dtype: torch.dtype,
              device: torch.device) -> Tensor | None:  # fmt: skip
        """The buffer whose parts are S and z where they lie; None where there is none like that."""
        S, z = state.S, state.z
        if S.shape != self._public(sizes)[1] or S.dtype != dtype or S.device != device:
            return None
        if not self.normalised:
            return self._whole(S)
        return None if z is None else beside(*self._both(S, z))

    def _whole(self, S: Tensor) -> Tensor:
        """S with all axes of the buffer."""
        for dim in self._dropped():
            S = S.unsqueeze(dim)
        return S

    def _both(self, S: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """S with all axes of the buffer, z with all but P."""
        for dim in self._dropped():
            z = z.unsqueeze(dim) if self.axes[dim] != "P" else z
        return self._whole(S), z

    def join(self, state: State) -> tuple[Tensor, ...]:
        """The buffers (S0, last, pos) that hold a checked `state`."""
        if self.normalised:
            assert state.z is not None
            S, z = self._both(state.S, state.z)
            seen = beside(S, z)
            buffers = [torch.cat([S, z.unsqueeze(-1)], -1) if seen is None else seen]
        else:
            buffers = [self._whole(state.S)]
        if self.ids is not None:
            assert state.last is not None
            buffers.append(state.last)
        if self.position:  # a tensor, so that nothing that is compiled or kept depends on it
            pos = state.pos
            assert pos is not None
            if not isinstance(pos, Tensor):
                pos = torch.full((), pos, dtype=torch.int64, device=state.S.device)
            buffers.append(pos)
        return tuple(buffers)

    def split(self, buffers: tuple[Tensor, ...], pos: int | Tensor) -> State:
        """The state in the buffers (ST, last, …) after `pos` tokens."""
        S, z = buffers[0], None
        dropped = self._dropped()
        if self.normalised:
            S, z = S[..., :-1], S[..., -1]
            z = z.squeeze([d for d in dropped if self.axes[d] != "P"]) if dropped else z
        S = S.squeeze(dropped) if dropped else S
        last = buffers[1] if self.ids is not None else None
        return State(S, z, last, None, pos if self.position else None)

    def needs(self) -> tuple[str, ...]:
        """The fields that a State must have."""
        extra = (("z", self.normalised), ("last", self.ids is not None),
                 ("pos", self.position))  # fmt: skip
        return ("S", *(n for n, due in extra if due))

    def checked(self, given: object, sizes: Mapping[str, int], dtype: torch.dtype,
                device: torch.device, name: str) -> State:  # fmt: skip
        """`given` as a State that fits, or LaunchError; a bare tensor is S where S is all."""
        due = self.needs()
        if isinstance(given, Tensor) and due == ("S",):
            given = State(given)
        if not isinstance(given, State):
            also = " or a tensor S" if due == ("S",) else f" with {', '.join(due)}"
            raise LaunchError(f"{name}: expected a smac.State{also}, got {type(given).__name__}")
        for field in due:
            if getattr(given, field) is None:
                raise LaunchError(f"{name}.{field} is missing; this spec needs {', '.join(due)}")
        axes, shape = self._public(sizes)
        self._check(f"{name}.S", given.S, axes, shape, dtype, device)
        if self.normalised:
            assert given.z is not None
            kept = [(a, n) for a, n in zip(axes, shape, strict=True) if a != "P"]
            self._check(f"{name}.z", given.z, tuple(a for a, _ in kept), tuple(n for _, n in kept),
                        dtype, device)  # fmt: skip
        if self.ids is not None:
            assert given.last is not None
            lengths = tuple(sizes[a] for a in self.last_axes)
            self._check(f"{name}.last", given.last, self.last_axes, lengths, None, device)
        if self.position:
            self._check_pos(f"{name}.pos", given.pos, device)
        return given

    @staticmethod
    def _check_pos(name: str, pos: object, device: torch.device) -> None:
        due = f"expected a whole number of tokens, or an integer tensor without axes on {device}"
        if isinstance(pos, Tensor):
            if pos.shape != () or pos.dtype not in (torch.int32, torch.int64):
                raise LaunchError(f"{name}: {due}, got {pos.dtype} of shape {tuple(pos.shape)}")
            if pos.device != device:
                raise LaunchError(f"{name}: {due}, got one on {pos.device}")
        elif not isinstance(pos, int) or pos < 0:
            raise LaunchError(f"{name}: {due}, got {pos!r}")

    @staticmethod
    def _check(name: str, x: Tensor, axes: tuple[str, ...], shape: tuple[int, ...],
               dtype: torch.dtype | None, device: torch.device) -> None:  # fmt: skip
        if not isinstance(x, Tensor):
            raise LaunchError(f"{name}: expected a tensor, got {type(x).__name__}")
        if tuple(x.shape) != shape:
            raise LaunchError(f"{name} has axes {' '.join(axes)}: expected shape {shape}, got "
                              f"{tuple(x.shape)}")  # fmt: skip
        if dtype is not None and x.dtype != dtype:
            raise LaunchError(f"{name}: expected {dtype}, the accumulator's type, got {x.dtype}; "
                              f"pass {name}.to({dtype})")  # fmt: skip
        if dtype is None and (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool):
            raise LaunchError(f"{name}: expected integers (document ids), got {x.dtype}")
        if x.device != device:
            raise LaunchError(f"{name}: expected device {device} (as the inputs), got {x.device}")


def beside(S: Tensor, z: Tensor) -> Tensor | None:
    """The tensor whose last column along P is z, the others S: what `split` makes is seen as it
    was. None where they do not lie so, or where gradients would miss one of the two."""
    tracked = torch.is_grad_enabled() and (S.requires_grad or z.requires_grad)
    if tracked or torch._C._are_functorch_transforms_active() or S.shape[:-1] != z.shape:
        return None
    n, step = S.shape[-1], S.stride(-1)
    there = (S.dtype == z.dtype and S.stride()[:-1] == z.stride()
             and S.untyped_storage().data_ptr() == z.untyped_storage().data_ptr()
             and S.storage_offset() + n * step == z.storage_offset())  # fmt: skip
    return S.as_strided((*S.shape[:-1], n + 1), S.stride()) if there else None


def write(out: object, new: State) -> State:
    """Copy `new` into the tensors of `out` (a State, or a tensor S where S is all), but for those
    that are there already; LaunchError."""
    alone = new.z is None and new.last is None and new.pos is None
    target = State(out) if isinstance(out, Tensor) and alone else out
    if not isinstance(target, State):
        raise LaunchError(f"out_state: expected a smac.State, got {type(out).__name__}")
    for field in ("S", "z", "last"):
        source, place = getattr(new, field), getattr(target, field)
        if source is None:
            continue
        if place is None or place.shape != source.shape:
            found = "nothing" if place is None else f"shape {tuple(place.shape)}"
            raise LaunchError(f"out_state.{field}: expected shape {tuple(source.shape)}, got "
                              f"{found}")  # fmt: skip
        if place is not source:
            place.copy_(source)
    if isinstance(target.pos, Tensor) and new.pos is not None:
        target.pos.copy_(torch.as_tensor(new.pos))
    elif new.pos is not None:  # as if it were a tensor: who keeps `out` alone goes on from here
        object.__setattr__(target, "pos", new.pos)
    return target
