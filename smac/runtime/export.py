"""One file that runs without smac: both programs, a function over them, and a test of itself.

The test holds values and gradients against another rendering of the same spec: the quadratic order
for PyTorch in float64, differentiated by autograd instead of by the derived backward.

Non-goals: states and packed sequences (an exported op takes whole sequences).
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from smac.ir import Program
from smac.runtime.build import planned
from smac.runtime.draws import SMALL, negative
from smac.runtime.options import Options
from smac.runtime.validate import id_inputs, shown
from smac.spec import Input, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smac.codegen import Source
    from smac.plan.types import Plan, Request

#: Names that an exported file uses itself, so that its op cannot have them.
OWN_NAMES = frozenset(("torch", "math", "triton", "tl", "forward", "backward", "self_test"))
#: The longest chunk that the self-test crosses: the dense formula is quadratic.
LONGEST = 256


def programs(forward: Plan, backward: Plan) -> tuple[Program, Program]:
    """The two programs of two plans."""
    from smac import lower

    return lower.forward(forward), lower.backward(backward)


def source(forward: Plan, backward: Plan, precision: str) -> Source:
    """Both programs in one module, as text."""
    from smac.codegen import emit

    return emit(programs(forward, backward), forward.request.target, precision)


def standalone(spec: Spec, forward: Plan, backward: Plan, precision: str) -> str:
    """The text of the file. Both plans are for the same absent inputs, without states."""
    from smac import __version__, lower
    from smac.codegen import emit
    from smac.codegen.env import render

    request = forward.request
    special = request.spec
    whole = forward.asked or special  # with what the caller passes: levels of an input together
    both = programs(forward, backward)
    absent = frozenset(i.name for i in spec.inputs if i not in whole.inputs)
    dense = planned(spec, Options(target="torch", order="quadratic"), dict(request.sizes),
                    "float64", "cpu", "torch", backward=False, state=False,
                    absent=absent)  # fmt: skip
    outputs = [b for b in both[0].buffers if b.role == "output"]
    parameters = [i.name for i in special.inputs]
    given = [i.name for i in whole.inputs]
    name = f"{spec.name}_op" if spec.name in OWN_NAMES | {*parameters, *given} else spec.name
    levels = _levels(whole, dict(request.sizes))
    longest = 2 * min(max(forward.chunk, backward.chunk), LONGEST) + 5
    of = {b.of: f"grad_{b.of}" for b in both[1].buffers if b.role == "gradient"}
    on_torch = request.target == "torch"
    return render(
        "export.py.jinja",
        title=f"{name}: {_plain(spec.about)}." if spec.about else f"{name}.",
        version=__version__, target=request.target, order=forward.order, back=backward.order,
        outputs=[f"{b.name:10} {shown(b.axes)}" for b in outputs],
        inputs=[f"{i.name:10} {shown(i.axes)}" for i in whole.inputs],
        programs=_body(emit(both, request.target, precision).text), name=name,
        parameters=", ".join(parameters), names=given, given=", ".join(given), levels=levels,
        one_output=len(outputs) == 1,
        gradients=list(of.values()),
        declared_gradients=[_back(i, both[0], of.get(i.name)) for i in special.inputs],
        views=[_view(i, both[0]) for i in special.inputs],
        signature=f"{', '.join(b.name for b in outputs)}, differentiable.",
        checker=_body(emit(lower.forward(dense), "torch").text),
        axes_line=_axes_line(whole), draws=_draws(whole, request),
        test_length=min(longest, levels["longest"]) if levels else longest,
        tolerance="1e-4" if precision == "ieee" else "1e-2",
        dtype="torch.float64" if on_torch
        else "torch.float32 if torch.cuda.is_available() else torch.float64",
        device='"cpu"' if on_torch else '"cuda" if torch.cuda.is_available() else "cpu"',
    )  # fmt: skip


def _plain(text: str) -> str:
    """Prose that may stand inside a docstring."""
    kept = "".join(c for c in text if c.isprintable() and c not in '"\\')
    return kept.strip().rstrip(".")


def _body(text: str) -> str:
    """A module's text without its docstring."""
    head = ast.parse(text).body[0]
    if isinstance(head, ast.Expr) and isinstance(head.value, ast.Constant) and head.end_lineno:
        text = "".join(text.splitlines(keepends=True)[head.end_lineno :])
    return text.strip("\n")


def _order(item: Input, program: Program) -> tuple[int, ...]:
    """The permutation from the declared axes to the buffer's; empty when they are the same."""
    axes = next((b.axes for b in program.buffers if b.role == "input" and b.name == item.name),
                item.axes)  # fmt: skip
    order = tuple(item.axes.index(a) for a in axes)
    return () if order == tuple(range(len(order))) else order


def _view(item: Input, program: Program) -> str:
    order = _order(item, program)
    return f"{item.name}.permute{order}" if order else item.name


def _back(item: Input, program: Program, gradient: str | None) -> str:
    order = _order(item, program)
    if gradient is None or not order:
        return str(gradient)
    return f"{gradient}.permute{tuple(order.index(i) for i in range(len(order)))}"


def _levels(spec: Spec, sizes: Mapping[str, int]) -> dict[str, Any] | None:
    """How inputs with an axis of levels are passed on level by level; None where there are none."""
    axis = spec.levels
    along = [i for i in spec.inputs if axis in i.axes]
    if axis is None or not along:
        return None
    n, timed = sizes[axis], next(i for i in spec.inputs if "T" in i.axes)
    dims = {i.name: i.axes.index(axis) for i in along}
    zeros = {name: f"torch.zeros_like({name}.select({dim}, 0))" for name, dim in dims.items()}
    spread = (f"*({i.name}.unbind({dims[i.name]}) + ({zeros[i.name]},) * {n})[:{n}]"
              if i in along else i.name for i in spec.inputs)  # fmt: skip
    return {
        "length": f"{timed.name}.shape[{timed.axes.index('T')}]", "longest": 2 ** (n - 1),
        "count": n, "counts": [(name, f"{name}.shape[{dim}]") for name, dim in dims.items()],
        "spread": ", ".join(spread) + ",",
    }  # fmt: skip


def _axes_line(spec: Spec) -> str:
    """Lengths of the axes that are not T and do not follow from it."""
    follow = ("T", "S", "W", spec.levels)
    used = list(dict.fromkeys(a for i in spec.inputs for a in i.axes if a not in follow))
    small = [SMALL.get(a, 2) for a in used]
    return f"{', '.join(used)} = {', '.join(map(str, small))}" if used else ""


def _draws(spec: Spec, request: Request) -> list[str]:
    """One expression an input: ids in runs of seven, else uniform in ±(0.1, 0.9)."""
    mask, sizes = request.mask, dict(request.sizes)
    ids, below = id_inputs(spec.contraction.L), negative(spec, mask)
    symbol = mask.symbol()
    from smac.masks.base import MIDDLE

    lags = "2 * T - 1" if symbol is not None and symbol[1] == MIDDLE else "T"
    known = {"S": "T", "W": lags}
    if spec.levels is not None:
        known[spec.levels] = str(sizes[spec.levels])
    lines = []
    for i in spec.inputs:
        shape = ", ".join(known.get(a, a) for a in i.axes)
        if i.name in ids:
            dims = ", ".join("T" if a == "T" else "1" for a in i.axes)
            lines.append(f"(torch.arange(T) // 7).reshape({dims}).repeat("
                         + ", ".join("1" if a == "T" else a for a in i.axes) + ")")  # fmt: skip
        else:
            lines.append(f"{'-' if i.name in below else ''}_uniform({shape})")
    return lines
