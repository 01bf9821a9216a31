"""`python -m smac` is the command line."""

import sys

from smac.cli import main

if __name__ == "__main__":
    sys.exit(main())
