"""Ops inside torch.compile and torch.export: smac::call and smac::call_backward stand for them all.

An op travels as text (its options, then its spec), so that a graph that holds a call means the same
in another process; a position is a number, which may differ from call to call. Results come as a
list: the outputs, then S, z, last and a mark that positions are counted; an empty tensor of
booleans stands for a part that a state does not have.

Non-goals: eager calls, which go to their launcher directly (op.py); double backward.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smac.runtime.build import layout_for, prepared
from smac.runtime.launch import Launcher
from smac.runtime.options import Options
from smac.runtime.state import State
from smac.runtime.validate import operand_dtype
from smac.spec import Spec, specialise

if TYPE_CHECKING:
    from smac.runtime.op import Op

#: Fields of a State that are tensors and that a spec can have, in order.
FIELDS = ("S", "z", "last")
_CALL = ("(str op, str names, Tensor[] inputs, Tensor? cu_seqlens, str fields, Tensor[] state, "
         "SymInt pos, bool stateful, bool step) -> Tensor[]")  # fmt: skip
#: Without `needs` all gradients are made: graphs in caches on disk may not say it.
_BACKWARD = _CALL.replace(") ->", ", Tensor[] cotangents, bool[]? needs=None) ->")


def text_of(spec: Spec, options: Options) -> str:
    """An op as text."""
    return f"{json.dumps(asdict(options))}\n{spec}"


@lru_cache(maxsize=256)
def _op(text: str) -> Op:
    from smac.parse import load
    from smac.runtime.op import Op

    options, spec = text.split("\n", 1)
    return Op(load(spec), Options(**json.loads(options)))


def traced(op: Op, values: Sequence[Any], given: Any, want: bool, cu_seqlens: Tensor | None,
           step: bool) -> Any:  # fmt: skip
    """What a call of `op` returns, by way of smac::call. Python that torch.compile can follow."""
    names = [n for n, x in zip(op._names, values, strict=True) if x is not None]
    inputs = [x for x in values if x is not None]
    pos: int | Tensor = 0
    fields: list[str] = []
    state: list[Tensor] = []
    if isinstance(given, State):
        pos = given.pos if isinstance(given.pos, Tensor) else given.pos or 0
        parts = ((n, getattr(given, n)) for n in (*FIELDS, "pos"))
        for name, x in parts:
            if isinstance(x, Tensor):
                fields.append(name)
                state.append(x)
    elif given is not None:
        fields, state = ["S"], [given]
    stateful = want or given is not None
    made = torch.ops.smac.call(op._text, ",".join(names), inputs, cu_seqlens, ",".join(fields),
                               state, pos if isinstance(pos, int) else 0, stateful,
                               step)  # fmt: skip
    n = len(op.spec.output)
    y = made[0] if n == 1 else tuple(made[:n])
    if not want:
        return y
    S, z, last, mark = made[n:]
    length = 1 if step else _length(op.spec, names, inputs)
    return y, State(S, None if z.dtype == torch.bool else z,
                    None if last.dtype == torch.bool else last, None,
                    None if mark.dtype == torch.bool else pos + length)  # fmt: skip


def _length(spec: Spec, names: Sequence[str], inputs: Sequence[Tensor]) -> int:
    axes = {i.name: i.axes for i in spec.inputs}
    for name, x in zip(names, inputs, strict=True):
        if "T" in axes[name]:
            return x.shape[axes[name].index("T")]
    return 1


def _values(op: Op, names: str, inputs: Sequence[Tensor]) -> tuple[Any, ...]:
    found = dict(zip(names.split(","), inputs, strict=True))
    return tuple(found.get(n) for n in op._names)


def _given(fields: str, state: Sequence[Tensor], pos: int) -> State | None:
    if not state:
        return None
    parts: dict[str, Any] = dict(zip(fields.split(","), state, strict=True))
    return State(parts["S"], parts.get("z"), parts.get("last"), None, parts.get("pos", pos))


def _own(x: Tensor, others: Sequence[Tensor]) -> Tensor:
    """`x`, contiguous, in memory that none of the others has: what a custom op may return."""
    place = x.untyped_storage().data_ptr()
    shared = any(place == y.untyped_storage().data_ptr() for y in others)
    return x.clone(memory_format=torch.contiguous_format) if shared else x.contiguous()


def _absent(like: Tensor, dtype: torch.dtype = torch.bool) -> Tensor:
    return torch.empty(0, dtype=dtype, device=like.device)


@torch.library.custom_op("smac::call", mutates_args=(), schema=_CALL)
def call(op: str, names: str, inputs: Sequence[Tensor], cu_seqlens: Tensor | None, fields: str,
         state: Sequence[Tensor], pos: int, stateful: bool,
         step: bool) -> list[Tensor]:  # fmt: skip
    """The call, by the launcher that an eager call would use."""
    made = _op(op)
    with torch.no_grad():
        y = made._run(_values(made, names, inputs), _given(fields, state, pos), stateful,
                      cu_seqlens, step)  # fmt: skip
    y, new = y if stateful else (y, State(inputs[0]))
    found = [y] if isinstance(y, Tensor) else list(y)
    if stateful:
        found += [_absent(found[0]) if x is None else x for x in (new.S, new.z, new.last)]
        found[-1] = found[-1] if new.last is None else found[-1].long()
        found.append(_absent(found[0], torch.bool if new.pos is None else torch.int64))
    passed = [*inputs, *state]
    for i, x in enumerate(found):
        found[i] = _own(x, [*passed, *found[:i]] if x.numel() else [])
    return found


@call.register_fake
def _(op: str, names: str, inputs: Sequence[Tensor], cu_seqlens: Tensor | None, fields: str,
      state: Sequence[Tensor], pos: int, stateful: bool,
      step: bool) -> list[Tensor]:  # fmt: skip
    made = _op(op)
    values = _values(made, names, inputs)
    sizes: Mapping[str, int] = made._signature.check(values, step)
    absent = frozenset(n for n, x in zip(made._names, values, strict=True) if x is None)
    special = specialise(made.spec, absent)
    dtype = operand_dtype(special, dict(zip(names.split(","), [x.dtype for x in inputs],
                                            strict=True)))  # fmt: skip
    device = inputs[0].device
    found = []
    for _, e in special.output:
        shown = [sizes[a] for a in special.axes_of(e) if not (step and a == "T")]
        found.append(torch.empty(shown, dtype=dtype, device=device))
    if stateful:
        layout = layout_for(prepared(made.spec, absent, sizes).spec, cu_seqlens is not None)
        if cu_seqlens is not None:
            sizes = {**sizes, "B": cu_seqlens.shape[0] - 1}
        acc = torch.float64 if dtype == torch.float64 else torch.float32
        axes, shape = layout._public(sizes)
        found.append(torch.empty(shape, dtype=acc, device=device))
        kept = [n for a, n in zip(axes, shape, strict=True) if a != "P"]
        found.append(torch.empty(kept, dtype=acc, device=device) if layout.normalised
                     else _absent(found[0]))  # fmt: skip
        last = [sizes[a] for a in layout.last_axes]
        found.append(_absent(found[0]) if layout.ids is None
                     else torch.empty(last, dtype=torch.int64, device=device))  # fmt: skip
        found.append(_absent(found[0], torch.int64 if layout.position else torch.bool))
    return found


@torch.library.custom_op("smac::call_backward", mutates_args=(), schema=_BACKWARD)
def call_backward(op: str, names: str, inputs: Sequence[Tensor], cu_seqlens: Tensor | None,
                  fields: str, state: Sequence[Tensor], pos: int, stateful: bool, step: bool,
                  cotangents: Sequence[Tensor],
                  needs: Sequence[bool] | None = None) -> list[Tensor]:  # fmt: skip
    """Gradients of the inputs and state parts that are floating-point, in order; empty tensors for
    those that do not need one."""
    made, due = _op(op), _floating(inputs, state)
    needs = [True] * len(due) if needs is None else needs
    with torch.no_grad():
        launcher = made._find(_values(made, names, inputs), stateful, step, cu_seqlens)
        found = _gradients(launcher, inputs, cu_seqlens, _given(fields, state, pos), cotangents,
                           len(made.spec.output), needs)  # fmt: skip
    passed = [*inputs, *state, *cotangents]
    for i, (x, like, need) in enumerate(zip(found, due, needs, strict=True)):
        x = x if need and x is not None else torch.zeros_like(like) if need else _absent(like)
        found[i] = _own(x, [*passed, *found[:i]] if x.numel() else [])
    return found


def _gradients(launcher: Launcher, inputs: Sequence[Tensor], cu_seqlens: Tensor | None,
               given: State | None, cotangents: Sequence[Tensor], n: int,
               needs: Sequence[bool]) -> list[Any]:  # fmt: skip
    """Of the floating-point inputs, then of S and z where a state was given."""
    asked = iter(needs)
    of_inputs = [x.is_floating_point() and next(asked) for x in inputs]
    layout = launcher.cell.layout
    lengths = [] if cu_seqlens is None else [cu_seqlens]
    entering: tuple[Tensor, ...] = ()
    due = list(cotangents[:n])
    if layout is not None:
        entering, pos = launcher.entering(given)
        launcher.reach(pos, launcher.backward_of((*of_inputs, *_rest(lengths, entering))))
        S, z = cotangents[n], cotangents[n + 1] if layout.normalised else None
        last = entering[1] if layout.ids is not None else None
        due.append(layout.join(State(S, z, last, None, 0))[0])
    tensors = [*inputs, *lengths, *entering]
    made = launcher.backward(tensors, due, (*of_inputs, *_rest(lengths, entering)))
    found: list[Any] = [g for x, g in zip(inputs, made, strict=False) if x.is_floating_point()]
    if given is None or layout is None:
        return found
    S0 = made[launcher.cell.first_state]
    if S0 is None:
        return [*found, None, *([None] if layout.normalised else [])]
    parts = layout.split((S0, *entering[1:]), 0)
    return [*found, parts.S, *([parts.z] if layout.normalised else [])]


def _rest(lengths: Sequence[Tensor], entering: Sequence[Tensor]) -> list[bool]:
    """Which tensors behind the inputs take gradients."""
    return [x.is_floating_point() for x in (*lengths, *entering)]


@call_backward.register_fake
def _(op: str, names: str, inputs: Sequence[Tensor], cu_seqlens: Tensor | None, fields: str,
      state: Sequence[Tensor], pos: int, stateful: bool, step: bool,
      cotangents: Sequence[Tensor],
      needs: Sequence[bool] | None = None) -> list[Tensor]:  # fmt: skip
    due = _floating(inputs, state)
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) if need else _absent(x)
            for x, need in zip(due, needs or [True] * len(due), strict=True)]  # fmt: skip


def _floating(inputs: Sequence[Tensor], state: Sequence[Tensor]) -> list[Tensor]:
    return [x for x in (*inputs, *state) if x.is_floating_point()]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
    """Keep the inputs; nothing that the forward computed is needed again."""
    op, names, tensors, cu_seqlens, fields, state, pos, stateful, step = inputs
    lengths = [] if cu_seqlens is None else [cu_seqlens]
    ctx.asked = (op, names, len(tensors), fields, len(state), pos, stateful, step)
    ctx.save_for_backward(*tensors, *state, *lengths)


def _backward(ctx: Any, cotangents: Sequence[Tensor]) -> tuple[Any, ...]:
    """Gradients at the places of the inputs; None for integers and for what is no tensor."""
    op, names, n, fields, m, pos, stateful, step = ctx.asked
    inputs, state, lengths = (list(ctx.saved_tensors[a:b]) for a, b in
                              ((0, n), (n, n + m), (n + m, None)))  # fmt: skip
    due = [x for x in cotangents if x.is_floating_point()]
    asked = (*ctx.needs_input_grad[2], *ctx.needs_input_grad[5])
    needs = [need for x, need in zip((*inputs, *state), asked, strict=True)
             if x.is_floating_point()]  # fmt: skip
    made = torch.ops.smac.call_backward(op, names, inputs, lengths[0] if lengths else None, fields,
                                        state, pos, stateful, step, due, needs)  # fmt: skip
    found = iter(x if need else None for x, need in zip(made, needs, strict=True))
    tensors, parts = ([next(found) if x.is_floating_point() else None for x in xs]
                      for xs in (inputs, state))  # fmt: skip
    return None, None, tensors, None, None, parts, None, None, None


call.register_autograd(_backward, setup_context=_keep)
