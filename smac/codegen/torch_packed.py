"""Packed sequences on PyTorch: chunks that start where sequences do, ids that know theirs.

In the chunked walk every chunk holds rows of one sequence. `near` says which token a row loads,
`token` where it goes: rows behind a sequence's last token read that one, weigh nothing, and are
written to a row that nobody reads. All of it is computed from cu_seqlens where it lies.

Non-goals: tiles of L (torch_tiles.py asks for positions), checks of cu_seqlens (runtime/packed.py).
"""

from __future__ import annotations

from smac.codegen.torch_names import python
from smac.errors import CodegenError
from smac.ir import Kernel, Program, Scan


def in_chunks(p: Program) -> bool:
    """Whether a program walks packed sequences in chunks of their own."""
    return p.packed and any(isinstance(s, Kernel) and s.kind == "chunked" for s in p.steps)


def packing(p: Program) -> list[str]:
    """Lines that cut the sequences, for the top of a function."""
    if not p.packed:
        return []
    if not in_chunks(p):
        return ["sequence, begin, length, ends = _sequences(cu_seqlens, n_T)"]
    chunks = {s.walk.chunk for s in p.steps if isinstance(s, Kernel)}
    if len(chunks) != 1:
        raise CodegenError(f"torch: packed sequences in chunks of {sorted(chunks)}; expected one")
    return [f"token, near, own, enters, leaves = _cut_sequences(cu_seqlens, n_T, {chunks.pop()})"]


def scan(s: Scan, p: Program) -> str:
    """Integers from ids along T: a sequence's first token differs from what comes before it, or
    is held against its own last id."""
    ids, out = python(p.buffer(s.source)), python(p.buffer(s.out))
    dim = p.buffer(s.source).axes.index("T")
    last = "None" if s.last is None else python(p.buffer(s.last))
    code = f"{out} = _starts({ids}, {dim}, cu_seqlens, {last})"
    if s.fn == "runs":
        code += f".cumsum({dim})"
    if s.last is not None and "state.last_out" in {b.name for b in p.buffers}:
        code += f"\nstate_last_out = _last_ids({ids}, {dim}, cu_seqlens, {last})"
    return code
