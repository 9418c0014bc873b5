"""`python -m gateway --control-fd N --settings JSON`: started by the supervisor, not by hand."""

import sys

from gateway import server

if __name__ == "__main__":
    sys.exit(server.main(sys.argv[1:]))
