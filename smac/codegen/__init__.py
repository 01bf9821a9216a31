"""Program → Source: contexts, printers and the templates that they fill."""

from smac.codegen.emit import emit
from smac.codegen.source import Source

__all__ = ["Source", "emit"]
