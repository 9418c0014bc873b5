"""`python -m gateway`: one gateway process, started by the supervisor."""

import sys

from gateway.server import main

if __name__ == "__main__":
    sys.exit(main())
