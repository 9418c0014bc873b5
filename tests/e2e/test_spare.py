"""The engine is killed while a spare stands by: that is the next one, and nothing is lost or done twice.

Once more the supervisor dies right after, so that the spare has to be known by the one that follows.
"""

import pytest

from engine.journal.disk import held
from tests.e2e.test_adoption import started, taken_over, trades_on
from tests.e2e.test_journal import Traders, check

pytestmark = pytest.mark.timeout(280)

KILLS = 3


def stood_by(exchange, count):
    """The process that stands by, of the so manieth spare."""
    exchange.wait(lambda: len(exchange.logged("spare engine stands by")) == count, "a spare")
    return exchange.logged("spare engine started")[-1]["pid"]


def test_a_spare_is_the_next_engine_and_loses_nothing(tmp_path):
    with started(tmp_path) as exchange, held(exchange.data / "journal"):
        traders = Traders(exchange, seed=5)
        try:
            for count in range(1, KILLS + 1):
                trades_on(exchange, traders)
                spare = stood_by(exchange, count)
                exchange.kill("engine")
                exchange.wait(lambda pid=spare: exchange.pids().get("engine") == pid, "the spare, as engine")
                trades_on(exchange, traders)
            taken_over(exchange, traders)
            assert exchange.pid("engine") == spare, "the next supervisor adopts it like any other"
        finally:
            said = traders.end()
        assert exchange.end() == 0
        assert not exchange.left_behind()
        check(exchange, said)
