"""A rendered text becomes a Source, or is refused with a reason."""

from __future__ import annotations

import hashlib

import pytest

from smac.codegen.source import checked
from smac.errors import CodegenError

GOOD = (
    "from __future__ import annotations\nimport math\nimport torch.nn\n\ndef forward():\n    pass\n"
)


def test_what_is_well_formed_comes_back() -> None:
    made = checked(GOOD, "torch", ("forward",))
    assert str(made) == made.text == GOOD
    assert made.digest == hashlib.sha256(GOOD.encode()).hexdigest()
    assert made == checked(GOOD, "torch", ("forward",))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import os\n", "rendered source imports 'os'; allowed: torch, triton, math"),
        ("def f():\n    from subprocess import run\n",
         "rendered source imports 'subprocess'; allowed: torch, triton, math"),
        ("from . import x\n", "rendered source imports ''; allowed: torch, triton, math"),
        ("x = (1,\ny = 2\n", "rendered source does not parse: '(' was never closed at line 1: "
                             "['x = (1,']"),
        ("x = eval('1')\n", "rendered source names 'eval'"),
        ("f = __import__\n", "rendered source names '__import__'"),
        ("x = 1\ny = x % 2 == 0 != 0\n", "rendered source chains comparisons: x % 2 == 0 != 0; "
                                       "expected parentheses"),
        ("def backward():\n    pass\n", "rendered source does not define forward"),
    ],
)  # fmt: skip
def test_what_is_not_is_refused(text: str, why: str) -> None:
    with pytest.raises(CodegenError) as e:
        checked(text, "torch", ("forward",))
    assert str(e.value) == why
