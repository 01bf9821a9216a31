"""Recording: a program's function called once, every launch and call of torch in it written down.

Non-goals: no knowledge of how Triton starts kernels (direct.py); nothing is played (tape.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from smac.runtime.direct import Direct
from smac.runtime.tape import (
    ALIGNED,
    Called,
    Launched,
    Made,
    Slot,
    Tape,
    mapped,
    slots_of,
    tensors_of,
)

#: Questions that shapes, strides and types answer, so that a tape need not ask them again.
QUESTIONS = frozenset(
    {"shape", "dtype", "device", "ndim", "itemsize", "layout", "is_cuda", "requires_grad",
     "stride", "size", "dim", "numel", "element_size", "is_floating_point", "is_contiguous",
     "promote_types", "__len__"}
)  # fmt: skip
#: Operators that write to their first argument; functions that do end in one underscore.
WRITES = frozenset({"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__"})
#: Memory that only kernels see is cut from one block, in pieces of a multiple of PIECE bytes; what
#: is larger than LARGEST is allocated by itself, which large tensors do not notice.
PIECE, LARGEST = 512, 2**20


def record(function: Callable[..., Made], tensors: Sequence[Tensor],
           direct: Direct) -> tuple[Made, Tape | str]:  # fmt: skip
    """Call `function`; its results, and the tape of the call, or why there can be none."""
    # An object for each argument, so that one tensor passed twice is no reason to see it once.
    own = [x.detach() for x in tensors]
    recorder = _Recorder(own, direct)
    assert isinstance(function, FunctionType)
    kernels = direct.kernels(function.__globals__)
    names = function.__globals__ | {n: _Kernel(k, recorder) for n, k in kernels.items()}
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__,
                        function.__closure__)  # fmt: skip
    with recorder:
        results = copy(*own)
    tape = recorder.tape(results)
    # What is handed back is what came in, not another object for it.
    return tuple(next((x for x, y in zip(tensors, own, strict=True) if y is r), r)
                 for r in results), tape  # fmt: skip


class _Kernel:
    """A kernel whose launches are noted."""

    def __init__(self, kernel: Any, recorder: _Recorder) -> None:
        self._kernel, self._recorder = kernel, recorder

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., object]:
        return partial(self._recorder.launch, self._kernel, grid)


class _Recorder(TorchFunctionMode):
    """Sees each call of torch and each launch, and writes them down."""

    def __init__(self, own: Sequence[Tensor], direct: Direct) -> None:
        super().__init__()
        self._direct, self._count, self._device = direct, len(own), own[0].device
        #: Slots by a tensor's id, which is no other tensor's as long as the reference is alive:
        #: nothing that the function lets go is kept for the recording.
        self._seen: dict[int, tuple[int, ref[Tensor]]] = {}
        #: Of each slot, the bytes of its storage, and what its pointer leaves modulo 16.
        self._facts: list[tuple[int, int]] = []
        for x in own:
            self._see(x)
        #: Storages of arguments; and what was made, the first tensor of each storage.
        self._passed = {_storage(x) for x in own}
        self._roots: dict[int, ref[Tensor]] = {}
        self._steps: list[Launched | Called] = []
        self._launching = False
        self._why = ""

    def launch(self, kernel: Any, grid: tuple[int, ...], *args: Any, **kwargs: Any) -> Any:
        """Launch as ever, and note how to do it directly."""
        self._launching = True
        try:
            compiled = kernel[grid](*args, **kwargs)
            values = [*args, *(kwargs[n] for n in kernel.arg_names[len(args) :])]
            bound = self._direct.bind(kernel, compiled, grid, values)
        finally:
            self._launching = False
        if bound is None:
            self._why = self._why or "this version of Triton starts kernels in another way"
            return compiled
        first = len(bound[1])
        places = tuple((first + i, self._of(x)) for i, x in enumerate(values)
                       if isinstance(x, Tensor))  # fmt: skip
        numbers = [0 if isinstance(x, Tensor) else x for x in values]
        self._steps.append(Launched(bound[0], [*bound[1], *numbers], places))
        return compiled

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if not self._launching:
            self._note(func, args, kwargs, found)
        return found

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any], found: Any) -> None:
        name = _name(func)
        writes = name in WRITES or "out" in kwargs or (name[-1:] == "_" and name[-2:] != "__")
        outs = tensors_of(found)
        new = [x for x in outs if self._slot(x) is None]
        if not outs and name not in QUESTIONS and not writes:
            self._why = self._why or f"it asks torch for {name}, which may depend on values"
        if not new and not writes:
            return
        if new and len(new) != len(outs):
            self._why = self._why or f"{name} returns some of its own arguments"
            return
        if new and new[0].layout != torch.strided:
            self._why = self._why or f"{name} returns a tensor without strides"
            return
        if new and name in ("empty", "new_empty"):
            x = new[0]
            func, args = torch.empty_strided, (tuple(x.shape), x.stride())  # in less time
            kwargs = {"dtype": x.dtype, "device": x.device}
        root = self._root(new[0]) if len(outs) == 1 and not writes else None
        if root is not None and _lazy(root) == _lazy(new[0]):
            # A view of what was made here is had at once, however it was come by.
            x = new[0]
            func, kwargs = torch.as_strided, {}
            args = (root, tuple(x.shape), x.stride(), x.storage_offset())
        args, kwargs = [self._noted(x) for x in args], self._noted(kwargs)
        places = tuple((i, x.number) for i, x in enumerate(args) if isinstance(x, Slot))
        deep = any(not isinstance(x, Slot) and slots_of(x) for x in (*args, kwargs))
        made = [self._see(x) for x in new]
        for x in new:
            if _storage(x) not in self._passed and self._root(x) is None:
                self._roots[_storage(x)] = ref(x)
        one = isinstance(found, Tensor) and bool(made)
        self._steps.append(Called(func, args, kwargs, places, deep, tuple(made), one))

    def _see(self, x: Tensor) -> int:
        """A new slot, for `x`."""
        self._seen[id(x)] = len(self._facts), ref(x)
        self._facts.append((x.untyped_storage().nbytes(), x.data_ptr() & ALIGNED))
        return len(self._facts) - 1

    def _slot(self, x: Tensor) -> int | None:
        slot, seen = self._seen.get(id(x), (0, None))
        return slot if seen is not None and seen() is x else None

    def _root(self, x: Tensor) -> Tensor | None:
        """The first tensor that was made in the memory of `x`."""
        root = self._roots.get(_storage(x))
        return None if root is None else root()

    def _of(self, x: Tensor) -> int:
        slot = self._slot(x)
        if slot is None:
            self._why = self._why or "it reads a tensor that is neither passed nor made"
            return 0
        return slot

    def _noted(self, x: Any) -> Any:
        """Arguments with slots in the place of tensors."""
        return mapped(x, Tensor, lambda t: Slot(self._of(t)))

    def tape(self, results: Made) -> Tape | str:
        """All that was noted; or why that is not enough."""
        final = tuple(self._of(x) for x in results)
        if self._why:
            return self._why
        steps = self._needed(set(final))
        brought = any(slot < self._count for slot in final)
        if brought:  # perhaps in place, which is not done twice: nothing may fail once it has begun
            steps.sort(key=lambda s: not (isinstance(s, Called) and _allocates(s)))
        launched = {s for step in steps if isinstance(step, Launched) for s in step.reads()}
        seen = {s for step in steps if isinstance(step, Called) for s in step.reads()} | set(final)
        offsets, scratch = [], 0
        for step in steps.copy():
            slot = step.made[0] if isinstance(step, Called) and step.made else 0
            if (isinstance(step, Called) and _allocates(step)
                    and slot not in seen and self._facts[slot][0] <= LARGEST):  # fmt: skip
                offsets.append((slot, scratch))
                scratch += -(-self._facts[slot][0] // PIECE) * PIECE
                steps.remove(step)
        for step in steps:
            if isinstance(step, Called):
                step.pointed = tuple((s, self._facts[s][1]) for s in step.made if s in launched)
        begun = [i for i, step in enumerate(steps) if isinstance(step, Launched)][:1]
        if brought and any(isinstance(x, Called) and x.pointed for x in steps[sum(begun) :]):
            return "it writes where the caller says before it has all of its memory"
        return Tape(tuple(steps), final, len(self._facts) - self._count, scratch, tuple(offsets),
                    self._device)  # fmt: skip

    def _needed(self, later: set[int]) -> list[Launched | Called]:
        """The steps without views that nothing reads; each knows what is spent behind it."""
        steps: list[Launched | Called] = []
        for step in reversed(self._steps):
            made = set(step.made) if isinstance(step, Called) else set[int]()
            if isinstance(step, Called) and step.function is torch.as_strided and not made & later:
                continue
            reads = step.reads()
            step.spent = tuple(sorted(s for s in (reads | made) - later if s >= self._count))
            later = later | reads
            steps.append(step)
        return steps[::-1]


def _allocates(step: Called) -> bool:
    return step.function is torch.empty_strided


def _name(func: Any) -> str:
    """The name of a function, method or attribute of torch."""
    name = str(getattr(func, "__name__", func))
    return str(getattr(func.__self__, "__name__", name)) if name == "__get__" else name


def _lazy(x: Tensor) -> tuple[torch.dtype, bool, bool]:
    """What views may change beside shape, strides and offset: how memory is to be read."""
    return x.dtype, x.is_conj(), x.is_neg()


def _storage(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)
