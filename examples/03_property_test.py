"""Property-test a spec of your own: every order, odd shapes, strides, gradients, states."""

from __future__ import annotations

import smac

SPEC = """
smac = 1
name = "gated_retention"
about = "Retention whose output is gated, with a skip"
[inputs]
q     = "B T H N"
k     = "B T H N"
v     = "B T H P"
gamma = "H"
gate  = {axes = "B T H P", optional = true}
skip  = {axes = "H", default = 0}
[contraction]
equation = "TN,SN,SP,TS->TP"
Q = "q / sqrt(size(N))"
K = "k"
V = "v"
L = "decay(gamma)"
[output]
y = "(Y + skip * v) * given(gate, silu(gate), 1)"
"""


def main() -> None:
    report = smac.check(SPEC)
    print(report)
    assert report.ok


if __name__ == "__main__":
    main()
