"""Program → PyTorch text: one function a program, one block a kernel.

Non-goals: no algorithm (templates/torch has those), no decision (the Program says everything).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from smac.codegen.env import environment, render
from smac.codegen.letters import contract, reduce, view
from smac.codegen.torch_kernel import KernelContext
from smac.codegen.torch_names import Shapes, python, written_once
from smac.codegen.torch_packed import in_chunks, packing, scan
from smac.codegen.torch_sweep import SweepContext
from smac.codegen.torch_sweep_grad import SweepGradContext
from smac.codegen.torch_tiles import FftContext, TilesContext
from smac.errors import CodegenError
from smac.ir import Buffer, Kernel, Move, Program, Scan, Step

STATES_IN = ("state.S0", "state.dST", "state.last", "state.pos")
#: (kind of kernel, whether it is a backward) → what makes its lines, and the template around them.
BLOCKS: dict[tuple[str, bool], tuple[type[KernelContext], str]] = {
    ("chunked", False): (SweepContext, "torch/chunked.py.jinja"),
    ("chunked", True): (SweepGradContext, "torch/chunked_grad.py.jinja"),
    ("tiles", False): (TilesContext, "torch/tiles.py.jinja"),
    ("tiles", True): (TilesContext, "torch/tiles_grad.py.jinja"),
    ("fft", False): (FftContext, "torch/fft.py.jinja"),
    ("fft", True): (FftContext, "torch/fft_grad.py.jinja"),
}


@dataclass(frozen=True, slots=True)
class Helpers:
    """Which helper functions the module needs beyond those that always come."""

    packed: bool
    channel: bool
    tiles: bool
    math: bool
    moves: bool


@dataclass(frozen=True, slots=True)
class Function:
    """One rendered program."""

    name: str
    summary: str
    parameters: tuple[str, ...]
    header: tuple[str, ...]
    steps: tuple[str, ...]
    results: str


def render_torch(programs: tuple[Program, ...]) -> str:
    """The module's text."""
    environment().globals.update(view=view, contract=contract, reduce=reduce)
    kernels = [s for p in programs for s in p.steps if isinstance(s, Kernel)]
    functions = [_function(p) for p in programs]
    tiles = any(k.kind in ("tiles", "fft") for k in kernels)
    helpers = Helpers(
        packed=any(p.packed for p in programs),
        channel=any(k.channel and k.kind == "chunked" for k in kernels), tiles=tiles,
        math=tiles or any("math." in step for f in functions for step in f.steps),
        moves=any(isinstance(s, Move) for p in programs for s in p.steps),
    )  # fmt: skip
    title = ", ".join(p.name for p in programs)
    return render("torch/module.py.jinja", title=title.capitalize(), helpers=helpers,
                  programs=functions)  # fmt: skip


def _function(p: Program) -> Function:
    shapes = Shapes(p)
    incoming = [b for b in p.buffers if b.role in ("input", "cotangent")]
    states = [b for b in p.buffers if b.role == "state" and b.name in STATES_IN]
    results = [b for b in p.buffers if b.role in ("output", "gradient")]
    final = [b for b in p.buffers if b.role == "state" and b not in states]
    steps = tuple(_step(s, p, shapes) for s in p.steps)
    stored = {s.buffer for k in p.steps if isinstance(k, Kernel) for s in k.stores}
    between = [b for b in p.buffers if b.role == "sum" or
               (b.role == "scratch" and b.name in stored)]  # fmt: skip
    made = [_allocation(b, shapes, p) for b in (*results, *between)]
    returned = _tuple([_result(b, p) for b in results] + [python(b) for b in final])
    cuts = packing(p)
    text = "\n".join((*cuts, *made, *steps, returned))
    header = [*_used(shapes.lines, text), *cuts, *made]
    lengths = [b for b in p.buffers if b.role == "lengths"]
    parameters = tuple(python(b) for b in (*incoming, *states, *lengths))
    return Function(p.name, _summary(p), parameters, tuple(header), steps, returned)


def _used(lines: list[str], text: str) -> list[str]:
    """Those of `lines` whose variable `text`, or a later one of them, reads."""
    kept: list[str] = []
    for line in reversed(lines):
        if re.search(rf"\b{line.split(' = ')[0]}\b", "\n".join((text, *kept))):
            kept.insert(0, line)
    return kept


def _tuple(texts: list[str]) -> str:
    """A tuple, a line for each element where there are several."""
    if len(texts) == 1:
        return f"({texts[0]},)"
    return "(\n" + "".join(f"        {x},\n" for x in texts) + "    )"


def _summary(p: Program) -> str:
    """Inputs → results with their axes."""
    found = [f"{b.name} {' '.join(b.axes) or 'scalar'}" for b in p.buffers if b.role == "input"]
    return f"{p.name.capitalize()} of {', '.join(found)}."


def _allocation(b: Buffer, shapes: Shapes, p: Program) -> str:
    more = " + 1" if in_chunks(p) else ""  # a row for what no token is written from
    sizes = "".join(f"{shapes.size(a)}{more if a == 'T' else ''}, " for a in b.axes)
    if b.role == "output":
        return f"{python(b)} = torch.empty({sizes}dtype=operand, device=device)".replace(
            "empty(dtype", "empty((), dtype"
        )
    if b.role == "scratch" or written_once(p, b):
        return f"{python(b)} = torch.empty({sizes}dtype=acc, device=device)"
    return f"{python(b)} = torch.zeros({sizes}dtype=acc, device=device)".replace(
        "zeros(dtype", "zeros((), dtype"
    )


def _result(b: Buffer, p: Program) -> str:
    text = python(b)
    if in_chunks(p) and "T" in b.axes:
        text += f".narrow({b.axes.index('T')}, 0, n_T)"
    return text if b.role == "output" else f"{text}.to(in_{b.of}.dtype)"


def _step(step: Step, p: Program, shapes: Shapes) -> str:
    if isinstance(step, Move):
        return _move(step, p)
    if isinstance(step, Scan):
        return scan(step, p) if p.packed else _scan(step, p)
    if not isinstance(step, Kernel):
        raise CodegenError(f"torch: step '{step.name}' joins segments, which this target walks "
                           "in one kernel")  # fmt: skip
    make, template = BLOCKS[step.kind, len(step.reads) > 1]
    text = render(template, k=make(step, p, shapes))
    return "\n".join(line for line in text.splitlines() if line.strip())


def _move(m: Move, p: Program) -> str:
    """A tensor at other tokens, or what that does to gradients."""
    out, source = p.buffer(m.out), p.buffer(m.source)
    sign, name = ("+=", f"_{m.fn}_grad") if m.back else ("=", f"_{m.fn}")
    return f"{python(out)} {sign} {name}({python(source)}, {source.axes.index('T')})"


def _scan(s: Scan, p: Program) -> str:
    """Integers from ids along T (axis at the place that T has in the source)."""
    dim = p.buffer(s.source).axes.index("T")
    ids, out = python(p.buffer(s.source)), python(p.buffer(s.out))
    first = f"torch.ones_like({ids}.narrow({dim}, 0, min(n_T, 1)))"
    if s.last is not None:
        last = python(p.buffer(s.last))
        first = f"({ids}.narrow({dim}, 0, min(n_T, 1)) != {last}.unsqueeze({dim}))"
    changed = f"{ids}.diff(dim={dim}) != 0"
    code = f"{out} = torch.cat([{first}.to(torch.int32), ({changed}).to(torch.int32)], {dim})"
    if s.fn == "runs":
        code += f".cumsum({dim})"
    if "state.last_out" in {b.name for b in p.buffers} and s.last is not None:
        code += f"\nstate_last_out = {ids}.select({dim}, -1) if n_T else state_last"
    return code
