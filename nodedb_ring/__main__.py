"""``python -m nodedb_ring`` is the command ``nodedb-ring``."""

import sys

from .command.cli import main

if __name__ == "__main__":
    sys.exit(main())
