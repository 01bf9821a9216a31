"""What a spec looks like: its mask, tiles, ranks and predicted times; as text, and as a PNG."""

from smac.picture.facts import Facts as Facts
from smac.picture.facts import look as look
