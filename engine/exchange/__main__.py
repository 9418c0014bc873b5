"""`python -m engine.exchange --control-fd N --settings JSON`: started by the supervisor, not by hand."""

import sys

from engine.exchange import runner

if __name__ == "__main__":
    sys.exit(runner.main(sys.argv[1:]))
