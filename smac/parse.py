"""TOML → Spec. Untrusted text: limits come before tomllib, and every failure is a SpecError.

Non-goals: expressions (syntax.py), checks (build.py, rules.py).
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from smac.errors import SpecError
from smac.locate import Source, clip, listing, nearest, scan_keys
from smac.paths import shipped_specs
from smac.spec import Spec

VERSION = 1
MAX_BYTES, MAX_LINE, MAX_DOTS = 64 * 1024, 4096, 200


def load(path_or_text: str | os.PathLike[str] | Spec) -> Spec:
    """The spec called, at, or written in `path_or_text`: a shipped name ("ssd"), a path to a .toml,
    or TOML text (anything with a newline). A Spec is answered as it is.

    Raises SpecError with file:line for whatever is malformed.
    """
    if isinstance(path_or_text, Spec):
        return path_or_text
    if not isinstance(path_or_text, str | os.PathLike):
        raise SpecError(f"expected a spec's name, path or text, found {clip(repr(path_or_text))}")
    if isinstance(path_or_text, str) and "\n" in path_or_text:
        return parse(path_or_text)
    name = os.fspath(path_or_text)
    shipped = shipped_specs() if isinstance(path_or_text, str) else {}
    if name in shipped:
        return parse(_read(shipped[name], f"specs/{name}.toml"), f"specs/{name}.toml")
    return parse(_read(Path(name), clip(name, 200), shipped), clip(name, 200))


def _read(path: Path, label: str, shipped: dict[str, Path] | None = None) -> str:
    """The text of a regular file of at most MAX_BYTES, in UTF-8."""
    try:
        if not path.is_file():
            raise SpecError(
                f"{label}: no such file, and no shipped spec of that name; expected a path or one "
                f"of {listing(shipped or ())}{nearest(label, shipped or ())}"
            )
        with path.open("rb") as f:
            data = f.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SpecError(f"{label}: larger than {MAX_BYTES} bytes; no spec is that long")
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise SpecError(f"{label}: not UTF-8 text (byte {e.start})") from None
    except (OSError, ValueError) as e:
        raise SpecError(f"{label}: cannot read: {clip(str(e), 100)}") from None


def parse(text: str, file: str = "<text>") -> Spec:
    """The spec written in TOML `text`; `file` heads the messages. Raises SpecError."""
    _check_limits(text, file)
    text = text.replace("\r\n", "\n")
    raw = _tables(text, file)
    source = Source(file, scan_keys(text))
    version = raw.pop("smac", None)
    if version is None:
        raise source.error((), f"smac = {VERSION} is missing: the version of the spec format")
    if version != VERSION or isinstance(version, bool | float):
        raise source.error(("smac",), f"expected version {VERSION}, found {clip(repr(version))}")
    return Spec._from(raw, source)


def _check_limits(text: str, file: str) -> None:
    """Size, line length and characters, before tomllib sees anything."""
    if len(text) > MAX_BYTES:
        raise SpecError(f"{file}: larger than {MAX_BYTES} characters; no spec is that long")
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > MAX_LINE:
            raise SpecError(f"{file}:{number}: line of {len(line)} characters; at most {MAX_LINE}")
        if line.count(".") > MAX_DOTS:  # dotted keys cost tomllib the square of their parts
            raise SpecError(f"{file}:{number}: line of {line.count('.')} dots; at most {MAX_DOTS}")
        if odd := re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", line):
            raise SpecError(f"{file}:{number}: control character {odd.group()!a}")


def _tables(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        m = re.search(r"\(at line (\d+), column \d+\)$", str(e))
        line = m.group(1) if m else str(text.count("\n") + 1)
        reason = clip(re.sub(r" \(at .*\)$", "", str(e)), 100)
        raise SpecError(f"{file}:{line}: not TOML: {reason}") from None
    except RecursionError:
        raise SpecError(f"{file}: values nested too deeply") from None
    except ValueError as e:  # an integer of thousands of digits
        raise SpecError(f"{file}: not TOML: {clip(str(e), 100)}") from None
