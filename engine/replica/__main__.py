"""`python -m engine.replica --control-fd N --settings JSON`: started by the supervisor, not by hand."""

import sys

from engine.replica import runner

if __name__ == "__main__":
    sys.exit(runner.main(sys.argv[1:]))
