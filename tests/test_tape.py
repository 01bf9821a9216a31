"""Tapes: what is recorded, what is refused, and that nothing is played on tensors of another kind.

Rendered programs are played in the interpreter (tests/triton/test_tapes.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest
import torch
from drawn import SPECS, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import smac
from smac.runtime import direct
from smac.runtime.direct import Direct
from smac.runtime.player import TAPES, Player, kind, player
from smac.runtime.tape import Called, Launched, Moved, Tape


class NoKernels(Direct):
    """Functions of torch alone, on the CPU."""

    def __init__(self) -> None:
        self.profiler = False

    def kernels(self, names: Any) -> dict[str, Any]:
        """None."""
        return {}

    def watched(self) -> bool:
        """By the test."""
        return self.profiler

    def stream(self, index: int) -> int:
        """None."""
        return 0


def of(function: Callable[..., Any]) -> Player:
    return Player(function, NoKernels())


def only(played: Player) -> Tape:
    (tape,) = played._tapes.values()
    assert isinstance(tape, Tape), tape
    return tape


def mixed(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Views, products, nested arguments, writes through views, and what nothing reads."""
    n = x.shape[0]
    unread = torch.empty((n, 3), dtype=x.dtype, device=x.device)
    z = torch.zeros((n, 2 * x.shape[1]), dtype=x.dtype)
    z[:, : x.shape[1]] = x
    z[1:] += y[:1]
    both = torch.cat([z, y], 0).unflatten(1, (2, -1)).sum(1).permute(1, 0)
    z.copy_(z * 2)
    kept = both.to(x.dtype)  # the same object
    halves = z.split(2, 1)
    assert unread.stride(0) == 3
    return kept, halves[-1], both.flip(0), x


def tensors(seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(3, 4, generator=g), torch.randn(3, 8, generator=g)


def test_a_tape_does_what_the_function_does() -> None:
    played = of(mixed)
    for seed in range(3):
        x, y = tensors(seed)
        due, found = mixed(x, y), played(x, y)
        assert all(torch.equal(a, b) for a, b in zip(due, found, strict=True))
        assert [a.stride() for a in due] == [b.stride() for b in found]
        assert found[3] is x
    tape = only(played)
    assert len(tape.offsets) == 1  # what nothing reads
    called = [step for step in tape.steps if isinstance(step, Called)]
    assert torch.Tensor.unflatten not in [step.function for step in called]


def of_waves(x: Tensor) -> tuple[Tensor, ...]:
    """Views that read memory in other ways: conjugates, parts of complex numbers."""
    wave = torch.fft.rfft(x)
    turned = wave.conj()
    return turned[:, :2], wave.real[0], torch.view_as_real(wave)[..., 1], turned.imag + 1


def test_views_that_read_memory_otherwise_are_left_as_they_are() -> None:
    played = of(of_waves)
    for seed in range(2):
        x, _ = tensors(seed)
        for a, b in zip(of_waves(x), played(x), strict=True):
            assert torch.equal(a, b)
    only(played)


def test_a_recording_keeps_nothing_alive() -> None:
    """What a function lets go while it is recorded is let go: no call takes more memory."""
    alive = []

    def function(x: Tensor) -> tuple[Tensor]:
        first = x * 2
        alive.append(ref(first))
        second = first.unflatten(0, (1, -1)) + 1
        del first
        alive.append(alive[0]() is not None)
        ids = {id(second)}
        for n in range(50):  # ids are used again
            second = second + n
            ids.add(id(second))
        assert len(ids) < 50
        return (second[0],)

    played = of(function)
    for x in (torch.ones(3), torch.arange(3.0)):
        assert torch.equal(played(x)[0], 2 * x + 1 + sum(range(50)))
    assert alive[1:] == [False]
    only(played)


def test_what_is_spent_is_let_go() -> None:
    """No tensor between is held longer than it is read, as far as it was made in the call."""
    played = of(lambda x: ((((x + 1) * 2).sum(0)) + 1,))
    played(torch.ones(2, 3))
    spent = [step.spent for step in only(played).steps]
    assert spent == [(), (1,), (2,), (3,)]


def test_one_tensor_passed_twice_is_two_arguments() -> None:
    played = of(lambda x, y: (x - y,))
    x = torch.ones(3)
    assert played(x, x)[0].tolist() == [0, 0, 0]
    assert played(x, torch.zeros(3))[0].tolist() == [1, 1, 1]
    only(played)


OUTSIDE = torch.ones(3)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: (x * x[0].item(),), "it asks torch for item, which may depend on values"),
        (lambda x: (x * 2 if x.sum() > 0 else x,),
         "it asks torch for __bool__, which may depend on values"),
        (lambda x: (x + OUTSIDE,), "it reads a tensor that is neither passed nor made"),
    ],
)  # fmt: skip
def test_what_a_tape_cannot_hold_is_called_as_written(function: Any, why: str) -> None:
    played = of(function)
    for sign in (1, -1):
        x = sign * torch.tensor([1.0, 2, 3])
        assert torch.equal(played(x)[0], function(x)[0])
    assert played.why_not == (why,)


def test_nothing_is_played_while_launches_are_watched() -> None:
    calls = []

    def function(x: Tensor) -> tuple[Tensor]:
        calls.append(1)
        return (x + 1,)

    played = of(function)
    x = torch.ones(2)
    played(x), played(x)
    assert len(calls) == 1
    played._direct.profiler = True  # type: ignore[attr-defined]
    assert played(x)[0].tolist() == [2, 2]
    assert len(calls) == 2


def test_memory_that_lies_elsewhere_is_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an allocation is not aligned as it was, the function is called as written."""
    played = of(mixed)
    due = played(*tensors(0))

    def moved(*args: Any) -> Any:
        raise Moved

    monkeypatch.setattr(Tape, "play", moved)
    again = played(*tensors(0))
    assert all(torch.equal(a, b) for a, b in zip(due, again, strict=True))


def test_the_oldest_tape_gives_way() -> None:
    played = of(lambda x: (x + 1,))
    for n in range(TAPES + 3):
        assert played(torch.full((2, n + 1), n)[:, :1])[0].tolist() == [[n + 1], [n + 1]]
    assert len(played._tapes) == TAPES


class Idle(NoKernels):
    """Triton's kernels as they are on a GPU, but for the launch, which does nothing."""

    def kernels(self, names: Any) -> dict[str, Any]:
        """What is compiled on a GPU."""
        from triton.runtime import JITFunction

        return {n: IdleKernel(x.arg_names) for n, x in names.items() if isinstance(x, JITFunction)}

    def bind(self, *args: Any) -> Any:
        """A launch that does nothing."""
        return (lambda *values: None), (1, 1, 1, 0)


class IdleKernel:
    """Takes what a kernel takes."""

    def __init__(self, names: list[str]) -> None:
        self.arg_names = names

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def test_every_spec_can_be_played(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward of each spec on Triton ask torch nothing that a tape cannot answer."""
    pytest.importorskip("triton")
    from smac.runtime import device, launch

    monkeypatch.setattr(launch, "player", lambda function: Player(function, Idle()))
    monkeypatch.setattr(device, "target_for", lambda *args: "triton")
    for name in SPECS:
        op = smac.compile(name, target="triton")
        inputs = draw(op.spec, dtype=torch.float32)
        y = op(**inputs)
        (y[0] if isinstance(y, tuple) else y).sum().backward()
        (made,) = op._launchers.values()
        for runnable in (made.runnable, made.backward_of().runnable):
            assert isinstance(runnable.call, Player)
            steps = only(runnable.call).steps
            assert any(isinstance(step, Launched) for step in steps), name


def test_functions_without_compiled_kernels_are_called_as_they_are() -> None:
    def function(x: Tensor) -> tuple[Tensor]:
        return (x,)

    assert player(function) is function


DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int32, torch.int64)
LAYOUT = st.tuples(st.permutations((0, 1)), st.sampled_from((1, 2, 3, 8)), st.integers(0, 9),
                   st.sampled_from(DTYPES))  # fmt: skip


def laid(shape: tuple[int, int], layout: Any) -> Tensor:
    """Zeros of `shape`: axes permuted in memory, steps, an offset, a type."""
    order, step, offset, dtype = layout
    rows, columns = (shape[i] for i in order)
    x = torch.zeros(rows * columns * step + offset, dtype=dtype)[offset:]
    strides = [0, 0]
    strides[order[0]], strides[order[1]] = columns * step, step
    return x.as_strided(shape, strides)


@settings(max_examples=300, deadline=None)
@given(st.tuples(st.integers(1, 17), st.integers(1, 17)), st.lists(LAYOUT, min_size=1, max_size=3),
       st.data())  # fmt: skip
def test_tensors_of_one_kind_are_one_to_triton(shape: tuple[int, int], layouts: list[Any],
                                               data: st.DataObject) -> None:  # fmt: skip
    """Equal kinds: Triton compiles the same for all pointers, sizes and strides of both."""
    pytest.importorskip("triton")
    from triton._C.libtriton import native_specialize_impl
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.compiler import CUDABackend

    backend = CUDABackend(GPUTarget("cuda", 90, 32))

    def seen(x: Tensor) -> list[Any]:
        return [native_specialize_impl(backend, v, False, True, True)
                for v in (x, *x.shape, *x.stride())]  # fmt: skip

    others = [data.draw(st.one_of(st.just(a), st.tuples(
        st.just(a[0]), st.just(a[1]), st.integers(0, 9), st.just(a[3])), LAYOUT)) for a in layouts]
    first, second = ([laid(shape, a) for a in each] for each in (layouts, others))
    if kind(first)[1] == kind(second)[1]:
        assert [seen(x) for x in first] == [seen(x) for x in second]
    moved = [x.data_ptr() % 16 for x in first] != [x.data_ptr() % 16 for x in second]
    assert not (moved and kind(first)[1] == kind(second)[1])


def test_a_compiled_kernel_is_bound_where_triton_looks_as_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """3.6 and later are; a launcher that takes something else, or another one, is not."""

    class CudaLauncher:
        global_scratch_size = profile_scratch_size = 0
        launch_cooperative_grid, launch_pdl = False, True

        def launch(self, *args: Any) -> None: ...
        def __call__(self, gridX: int, gridY: int, gridZ: int, stream: int, function: int,
                     *args: Any) -> None: ...  # fmt: skip

    class Later(CudaLauncher):
        def __call__(self, gridX: int, gridY: int, gridZ: int, stream: int,  # type: ignore[override]
                     function: int, kernel_metadata: Any, launch_metadata: Any,
                     launch_enter_hook: Any, launch_exit_hook: Any,
                     *args: Any) -> None: ...  # fmt: skip

    class Other(CudaLauncher):
        def __call__(self, gridX: int, stream: int, *args: Any) -> None: ...  # type: ignore[override]

    Later.__name__ = Other.__name__ = "CudaLauncher"

    class Kernel:
        pre_run_hooks: tuple[Any, ...] = ()

    class Compiled:
        function, packed_metadata = 5, (4, 1, 0)

        def __init__(self, run: Any) -> None:
            self.run = run

    def bound(run: Any) -> Any:
        return Direct.bind(NoKernels(), Kernel(), Compiled(run), (6,), ())

    monkeypatch.setattr(direct, "_of_3_6", lambda: False)
    run: Any
    for run in (CudaLauncher(), Later()):
        assert bound(run) == (run, (6, 1, 1, 0, 5, (4, 1, 0), None, None, None))
    assert bound(Other()) is None
    assert bound(object()) is None
    assert Direct.bind(NoKernels(), Kernel(), None, (6,), ()) is None
    monkeypatch.setattr(direct, "_of_3_6", lambda: True)
    run = CudaLauncher()
    head = (6, 1, 1, 0, 5, False, True, None, None, (4, 1, 0), None, None, None)
    assert bound(run) == (run.launch, head)
    run.global_scratch_size = 8
    assert bound(run)[0] is run
    Kernel.pre_run_hooks = (print,)
    assert bound(run) is None


def test_the_installed_triton_is_known() -> None:
    """Else every launch would be slow, and nothing would say so."""
    pytest.importorskip("triton")
    from triton.backends.nvidia.driver import CudaLauncher

    assert direct._looks_known(CudaLauncher)
    assert not Direct().watched()
