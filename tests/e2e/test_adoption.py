"""The supervisor of an exchange is killed while clients trade: nobody notices, and the next one takes over.

What an orphan must do is broken on purpose, too (broken.py), and the same test fails then.
"""

import os
import signal
import sys

import pytest

from engine.journal.disk import held
from tests.e2e import broken
from tests.e2e.instance import Exchange, lives, until
from tests.e2e.test_journal import CONFIG, Traders, check

pytestmark = pytest.mark.timeout(280)

ROLES = ("engine", "journaler", "replica", "gateway 0")
KILLS, SOAK_KILLS = 2, 100
ALONE_SECONDS = 3.0
PATIENCE_SECONDS, IMPATIENT_SECONDS = 60, 10  # for orders that are accepted; where they may never be


def started(tmp_path, more=""):
    config = tmp_path / "exchange.toml"
    config.write_text(CONFIG + more)
    return Exchange(tmp_path, "--config", str(config))


def trades_on(exchange, traders, count=30):
    """Orders go on being accepted."""
    before = traders.accepted
    until(lambda: traders.accepted > before + count, "orders that are accepted", PATIENCE_SECONDS)


def trade_on_each(traders):
    """Each of them goes on: nobody still waits for an answer."""
    before = [len(trader.said) for trader in traders.all]

    def has_moved():
        return all(len(one.said) > count + 8 for one, count in zip(traders.all, before, strict=True))

    until(has_moved, "orders that are accepted of each", PATIENCE_SECONDS)


def taken_over(exchange, traders):
    """Kill the supervisor, trade without one, and start the next one, which takes over."""
    worlds = len(exchange.logged("the engine has a world"))
    exchange.kill_supervisor()
    trades_on(exchange, traders)
    exchange.start()
    trades_on(exchange, traders)
    exchange.wait(lambda: len(exchange.logged("the engine has a world")) > worlds, "an engine, adopted")


def survive(exchange, kills):
    """Kill the supervisor so often; then the engine with and without one. Give what traders were told."""
    traders = Traders(exchange, seed=11)
    try:
        trades_on(exchange, traders)
        before = {role: exchange.pid(role) for role in ROLES}
        connected = traders.connections
        for _ in range(kills):
            taken_over(exchange, traders)
        assert {role: exchange.pid(role) for role in ROLES} == before
        trade_on_each(traders)
        assert traders.connections == connected, "nobody was disconnected, or left without an answer"
        exchange.kill("engine")
        exchange.wait(lambda: exchange.pid("engine") != before["engine"], "another engine")
        trades_on(exchange, traders)
        engine = exchange.pid("engine")
        exchange.kill_supervisor()
        os.kill(engine, signal.SIGKILL)  # and nobody is there to notice
        exchange.start()
        trades_on(exchange, traders)
    finally:
        said = traders.end()
    return said


def test_nobody_notices_and_the_engine_recovers_under_the_next_supervisor(tmp_path, request):
    kills = SOAK_KILLS if request.config.getoption("--soak") else KILLS
    with started(tmp_path) as exchange, held(exchange.data / "journal"):
        said = survive(exchange, kills)
        assert exchange.end() == 0
        assert not exchange.left_behind()
        check(exchange, said)


@pytest.mark.parametrize("name", broken.ORPHANS)
def test_an_orphan_that_does_it_wrongly_is_caught(tmp_path, monkeypatch, name):
    monkeypatch.setenv("PYTHONPATH", broken.path(tmp_path, name))
    monkeypatch.setattr(sys.modules[__name__], "PATIENCE_SECONDS", IMPATIENT_SECONDS)
    with started(tmp_path) as exchange, held(exchange.data / "journal"):
        with pytest.raises((AssertionError, pytest.fail.Exception), match=broken.ORPHANS[name].caught):
            said = survive(exchange, kills=1)
            exchange.end()
            check(exchange, said)


def test_who_was_told_something_else_is_replaced_and_orphans_end_by_themselves_or_when_told_to(tmp_path):
    with started(tmp_path) as exchange, held(exchange.data / "journal"):
        before = {role: exchange.pid(role) for role in ROLES}
        exchange.kill_supervisor()
        more = f"\n[supervision]\norphan_seconds = {ALONE_SECONDS}\n"
        (tmp_path / "exchange.toml").write_text(CONFIG.replace("1_000_000", "2_000_000") + more)
        exchange.start()
        exchange.wait(lambda: len(exchange.logged("gateway 0 is ready")) == 2, "another gateway")
        gateway = exchange.pid("gateway 0")
        assert gateway != before.pop("gateway 0") and {role: exchange.pid(role) for role in before} == before
        traders = Traders(exchange, seed=3)
        trades_on(exchange, traders)
        exchange.kill("engine")  # the next one is told how long to be alone
        trades_on(exchange, traders)
        engine = exchange.pid("engine")
        exchange.kill_supervisor()
        os.kill(gateway, signal.SIGTERM)
        until(lambda: not lives(gateway), "the end of who was told to")
        said = traders.end()
        until(lambda: not lives(engine), "the end of who has waited long enough")
        assert lives(before["journaler"]), "he may still wait"
        exchange.kill_all()
        check(exchange, said)
