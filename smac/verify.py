"""The Program's invariants, checked after each pass: a defect in lowering stops here, by name.

Non-goals: no check of numbers, none of sizes.
"""

from __future__ import annotations

from collections import Counter

from smac.errors import CodegenError
from smac.expr import names
from smac.ir import DTYPES, KINDS, ROLES, Join, Kernel, Move, Program, Scan


def verify(program: Program) -> Program:
    """`program` itself when it is well formed; CodegenError otherwise."""
    known = {b.name for b in program.buffers}
    for twice, n in Counter(b.name for b in program.buffers).items():
        _hold(n == 1, program, f"buffer '{twice}' is declared {n} times")
    for b in program.buffers:
        _hold(b.dtype in DTYPES, program, f"buffer '{b.name}' has dtype '{b.dtype}'")
        _hold(b.role in ROLES, program, f"buffer '{b.name}' has role '{b.role}'")
    for step in program.steps:
        if isinstance(step, Scan | Move):
            what = type(step).__name__.lower()
            _hold({step.out, step.source} <= known, program, f"{what} of unknown '{step.source}'")
        elif isinstance(step, Join):
            for name in (step.states, step.spans, step.initial, step.final):
                _hold(name is None or name in known, program,
                      f"join '{step.name}' of unknown '{name}'")  # fmt: skip
        else:
            _kernel(program, step, known)
    written = {s.buffer for k in program.steps if isinstance(k, Kernel) for s in k.stores}
    for b in program.buffers:
        if b.role == "output":
            _hold(b.name in written, program, f"output '{b.name}' is never stored")
    return program


def _kernel(program: Program, k: Kernel, known: set[str]) -> None:
    at = f"kernel '{k.name}'"
    _hold(k.kind in KINDS, program, f"{at}: kind '{k.kind}'")
    _hold(k.walk.chunk >= 1 and k.walk.segment >= 1, program, f"{at}: walk {k.walk}")
    _hold(not k.walk.split or k.walk.segment % k.walk.chunk == 0, program,
          f"{at}: segments of {k.walk.segment} tokens cut chunks of {k.walk.chunk}")
    _hold(k.kind != "tiles" or k.entry is not None, program, f"{at}: tiles without an entry")
    values = {v.name for v in k.values}
    outs = {r.out for r in k.reads} | {g.out for g in k.gathers}
    for g in k.lane_grads:
        outs |= {n for n in (g.decay, g.read, g.write) if n is not None}
        _hold(g.lane < len(k.lanes), program, f"{at}: gradient of lane {g.lane}")
    readable = known | values | outs | {"Y", "Z"}
    for v in k.values:
        for e in (v.expr, v.tail):
            missing = set() if e is None else names(e) - readable
            _hold(not missing, program, f"{at}: value '{v.name}' reads unknown {sorted(missing)}")
    carries = {c.name: c for c in k.carries}
    for c in k.carries:
        _hold({c.left, c.right} <= values, program, f"{at}: carry '{c.name}' of unknown values")
        for n in (c.initial, c.final, c.saves, c.restores, c.against, c.met, c.leaves, c.spans,
                  c.enters):
            _hold(n is None or n in known, program, f"{at}: carry '{c.name}' names state '{n}'")
    for r in k.reads:
        _hold(r.carry in carries, program, f"{at}: read '{r.out}' of unknown carry '{r.carry}'")
        _hold(r.operand in values, program, f"{at}: read '{r.out}' by unknown '{r.operand}'")
        _hold(r.over in ("N", "P"), program, f"{at}: read '{r.out}' over '{r.over}'")
    sides = Counter((r.carry, r.over) for r in k.reads)
    for (carry, over), times in sides.items() if k.kind == "tiles" else ():
        _hold(times == 1, program, f"{at}: {times} reads of carry '{carry}' over '{over}'")
    for lane in k.lanes:
        for n in (lane.decay, lane.reset, lane.read, lane.write):
            _hold(n is None or n in values, program, f"{at}: lane of unknown value '{n}'")
    for s in k.stores:
        _hold(s.buffer in known, program, f"{at}: store to unknown buffer '{s.buffer}'")
        missing = names(s.expr) - readable
        _hold(not missing, program, f"{at}: store to '{s.buffer}' reads {sorted(missing)}")


def _hold(truth: bool, program: Program, what: str) -> None:
    if not truth:
        raise CodegenError(f"program '{program.name}' is not well formed: {what}")
