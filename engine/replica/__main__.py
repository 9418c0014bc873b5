"""`python -m engine.replica --control-fd N --settings JSON`: started by the supervisor, not by hand."""

import sys

from engine.replica import runner

if __name__ == "__main__":
    sys.exit(runner.main(dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))))
