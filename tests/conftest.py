"""What tests may rely on: kernels of these sources, examples without a deadline, `--soak`, a socket pair."""

import os
import socket

import hypothesis
import pytest

from scripts import caches

# Before a test imports numba, which reads it once: a cache of other sources would run other machine code.
os.environ.setdefault("NUMBA_CACHE_DIR", str(caches.directory()))

# A deadline is a timed test; a shared machine misses it for reasons of its own.
hypothesis.settings.register_profile("ringside", deadline=None, print_blob=True)
hypothesis.settings.load_profile("ringside")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", action="store_true", help="run the long forms: pytestconfig.getoption('--soak') in a test"
    )


@pytest.fixture
def pair():
    """Both ends of a control socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ours, theirs
    for one in (ours, theirs):
        one.close()
