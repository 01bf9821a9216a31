"""The parts of a spec: axes, inputs, mask terms and the contraction. Frozen values, no behaviour.

Non-goals: no text (syntax.py), no axis inference (axes.py), no mask laws (masks/).
"""

from __future__ import annotations

from dataclasses import dataclass

from smac.expr import Expr

#: The equations of the format, with the channel axis that the mask carries beside T and S.
EQUATIONS: dict[str, str | None] = {
    "TN,SN,SP,TS->TP": None,
    "TN,SN,SP,TSN->TP": "N",
    "TN,SN,SP,TSP->TP": "P",
}


@dataclass(frozen=True, slots=True)
class Axis:
    """A declared axis: a group of H (`kind="group"`), a further batch axis (`kind="batch"`) or the
    levels of a Fenwick tree over T (`kind="levels"`)."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Input:
    """A caller's tensor. `default`: the number that absence means; `optional`: see given()."""

    name: str
    axes: tuple[str, ...]
    default: int | float | None = None
    optional: bool = False

    @property
    def may_be_absent(self) -> bool:
        """Whether a call may leave this input out."""
        return self.optional or self.default is not None


@dataclass(frozen=True, slots=True)
class MaskTerm:
    """A node of the mask language, not yet given laws: `fn(*args)`, options made positional.

    `fn` is a family or combinator name ("decay", "add", "mul", "scale", "transpose", …). An
    argument is an `Expr`, another `MaskTerm`, or a string / bool option, as the signature says
    (signatures.py). The operators are "add"(A, B), "mul"(A, B) entrywise,
    "scale"(Expr without T, A) and "given"(name as str, present, absent), which `specialise` folds.
    """

    fn: str
    args: tuple[Expr | MaskTerm | str | bool, ...]


@dataclass(frozen=True, slots=True)
class Contraction:
    """`equation` with its operands; `channel` is None, "N" or "P": the extra axis of the mask."""

    equation: str
    Q: Expr
    K: Expr
    V: Expr
    L: MaskTerm
    channel: str | None = None
