"""`python -m linocut`, the same as the command `linocut`."""

import sys

from linocut.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
