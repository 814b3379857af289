"""`python -m otgen` is `otgen`."""

import sys

from otgen.cli import main

if __name__ == "__main__":
    sys.exit(main())
