"""The device table: what a machine achieves, a frozen row each, all in SI units.

Rows are achieved ceilings where they were measured (h100, cpu), else shares of the datasheet. A row
is a plain dataclass that goes to JSON and back, so a calibrated one can replace it.

Non-goals: no probing of the machine that we run on, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from smac.errors import PlanError

#: Bytes of an element, by operand dtype.
ITEMSIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Device:
    """One machine. Rates are per second for the whole of it.

    `dot64`, `dot32`, `dot16`: flops of matrix products, by operand dtype (float32 as ieee);
    `scalar`: elementwise operations in float32 (an exp counts a few); float64 takes twice as long.
    `bandwidth`: bytes from memory; `cached`: bytes while what is in flight fits `cache`.
    `launch`: seconds from one kernel to the next; `op`: the same for one eager PyTorch operation.
    `step`: seconds of one chunk in a sweep that waits for its own state, `token` of one token.
    `units`: SMs or cores; `on_chip`: bytes of shared memory a program may use (0: does not apply).
    `in_flight`: bytes that the torch target aims to keep in flight, so that they stay in cache.
    """

    name: str
    kind: str
    dot64: float
    dot32: float
    dot16: float
    scalar: float
    bandwidth: float
    cached: float
    cache: int
    launch: float
    op: float
    step: float
    token: float
    units: int
    on_chip: int
    in_flight: int

    def dot(self, dtype: str) -> float:
        """Flops of a matrix product with operands of `dtype`, per second."""
        return {8: self.dot64, 4: self.dot32, 2: self.dot16}[ITEMSIZE[dtype]]

    def to_dict(self) -> dict[str, str | int | float]:
        """The row as JSON can hold it."""
        return asdict(self)


def from_dict(row: Mapping[str, object]) -> Device:
    """A row that `to_dict` wrote. Raises PlanError for fields or values that no row has."""
    known = {f.name for f in fields(Device)}
    if set(row) != known:
        raise PlanError(f"device row: found fields {sorted(row)}; expected {sorted(known)}")
    for name, value in row.items():
        if name in ("name", "kind"):
            fits = isinstance(value, str)
        else:
            fits = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        if not fits:
            due = "a string" if name in ("name", "kind") else "a number >= 0"
            raise PlanError(f"device row: {name}: found {value!r}; expected {due}")
    return Device(**row)  # type: ignore[arg-type]


_MB, _GB = 2**20, 1e9
_H100 = Device(
    "h100", "gpu", dot64=40e12, dot32=50e12, dot16=740e12, scalar=30e12,
    bandwidth=3020 * _GB, cached=5500 * _GB, cache=40 * _MB, launch=2.5e-6, op=6e-6,
    step=1.8e-6, token=0.9e-6, units=132, on_chip=227 * 1024, in_flight=256 * _MB,
)  # fmt: skip
_CPU = Device(  # one thread of a busy Xeon; the torch target multiplies bfloat16 in float32
    "cpu", "cpu", dot64=25e9, dot32=50e9, dot16=50e9, scalar=5e9,
    bandwidth=5 * _GB, cached=20 * _GB, cache=32 * _MB, launch=7e-6, op=7e-6,
    step=0.0, token=0.0, units=1, on_chip=0, in_flight=16 * _MB,
)  # fmt: skip
#: Rows by name; "cuda" stands for a GPU nobody named.
TABLE: dict[str, Device] = {
    "cpu": _CPU,
    "cuda": replace(_H100, name="cuda"),
    "h100": _H100,
    "h200": replace(_H100, name="h200", bandwidth=4300 * _GB),
    "a100": replace(
        _H100, name="a100", dot64=15e12, dot32=17e12, dot16=250e12, scalar=12e12,
        bandwidth=1500 * _GB, cached=3000 * _GB, cache=30 * _MB, step=1.4e-6, token=0.5e-6,
        units=108, on_chip=163 * 1024,
    ),
}  # fmt: skip


def device_row(name: str, table: Mapping[str, Device] | None = None) -> Device:
    """The row called `name`: "cuda:1" reads as "cuda"; "cpu*" is this machine's calibrated one.

    Raises PlanError naming those there are.
    """
    rows = TABLE if table is None else table
    row = rows.get(name.partition(":")[0])
    if row is None and name.endswith("*"):
        from smac.plan.calibrated import rows as calibrated

        row = calibrated().get(name, ("", None))[1]
    if row is None:
        raise PlanError(f"device: found '{name}'; expected one of {', '.join(rows)}"
                        + ("; smac bench --calibrate measures this machine's"
                           if name.endswith("*") else ""))  # fmt: skip
    return row
