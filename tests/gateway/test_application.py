"""What stands behind the rim: a look-up that meets the engine at work is asked again, and then given up."""

import asyncio
import json
import types

import pytest

from gateway import application, errors
from gateway.application import Application
from gateway.feed import Feed
from gateway.http import HttpAnswer
from gateway.info import Info
from gateway.session import SessionLimits
from gateway.world import World as Mapped
from shm import codes, seqlock
from tests.gateway import signed
from tests.gateway.test_exchange import Desk
from tests.gateway.wire import Wire
from tests.world import ALICE, World

ORDERS = json.dumps({"type": "openOrders", "user": ALICE}).encode()


@pytest.fixture
def world():
    world = World()
    with world.block() as block:
        block.open("BTC", ALICE, "B", "100", "1", 1)
    return world


@pytest.fixture
def behind():
    return Application(Feed(), Info(), SessionLimits(), lambda: 0, lambda: 1_700_000_000_600_000_000)


def ask(behind, path, body=b""):
    async def answered():
        answer = behind.answer(path, body, None)
        return answer if isinstance(answer, HttpAnswer) else await answer

    return asyncio.run(answered())


def test_a_look_up_waits_for_the_end_of_a_block(behind, world):
    behind.adopt(Mapped(world.reader()))
    row = world.arrays["accounts"][world.accounts[ALICE]]
    seqlock.open_row(row)

    async def meet():
        waiting = asyncio.ensure_future(behind.answer("/info", ORDERS, None))
        await asyncio.sleep(2 * application.RETRY_SECONDS)
        assert not waiting.done()
        seqlock.close_row(row)
        return await waiting

    answer = asyncio.run(meet())
    assert (answer.status, [order["oid"] for order in json.loads(answer.body)]) == (200, [1])


def test_a_look_up_does_not_wait_for_ever(behind, world, monkeypatch):
    monkeypatch.setattr(application, "RETRIES_MAX", 2)
    behind.adopt(Mapped(world.reader()))
    seqlock.open_row(world.arrays["accounts"][world.accounts[ALICE]])
    answer = ask(behind, "/info", ORDERS)
    assert (answer.status, answer.headers) == (503, (("retry-after", "1"),))


def test_health_says_how_old_the_books_are(behind, world):
    assert json.loads(ask(behind, "/health").body)["state"] == "starting"
    behind.adopt(Mapped(world.reader()))
    assert json.loads(ask(behind, "/health").body) == {
        "state": "live", "height": 1, "lagMs": 500, "staleMarkets": 0,
    }  # fmt: skip
    world.status["state"] = codes.Feed.SILENT
    assert json.loads(ask(behind, "/health").body)["state"] == "silent"
    behind._feed.lost_engine()
    assert json.loads(ask(behind, "/health").body)["state"] == "stale"


def test_an_exchange_that_nobody_asks_for_anything_is_not_late(behind, world):
    behind.adopt(Mapped(world.reader()))
    world.status["mode"] = codes.Mode.EXCHANGE
    world.status["applied_ns"] = world.status["time_ns"] + 3_000_000
    assert json.loads(ask(behind, "/health").body)["lagMs"] == 3


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"action":1}', b"\xff"])
def test_what_is_no_action_is_not_refused_as_one(behind, body):
    assert ask(behind, "/exchange", body).status == 422
    answer = ask(behind, "/exchange", b'{"action":{"type":"order"},"nonce":1}')
    assert (answer.status, json.loads(answer.body)["status"]) == (200, "err")


@pytest.fixture
def desk():
    return Desk(actions_per_minute_max=2)


@pytest.fixture
def trading(desk):
    """An application of an exchange, whose engine is the desk's."""
    return Application(Feed(), Info(), SessionLimits(), lambda: 0, lambda: 0, desk.exchange)


REQUEST = types.SimpleNamespace(peer="127.0.0.1")
NOOP = signed.body({"type": "noop"})


def test_an_action_is_answered_when_the_engine_has_spoken(trading, desk):
    async def meet():
        waiting = trading.answer("/exchange", NOOP, REQUEST)
        assert not waiting.done() and trading.in_flight
        desk.engine.answer_all()
        assert trading.has_news
        trading.turn(0)
        assert not trading.has_news and not trading.in_flight
        return await waiting

    answer = asyncio.run(meet())
    assert (answer.status, json.loads(answer.body)["status"]) == (200, "ok")


def test_what_is_refused_at_once_and_what_stays_unknown(trading, desk):
    async def meet():
        refused = trading.answer("/exchange", b"{}", REQUEST)
        assert (refused.status, refused.body.decode()) == (422, errors.BAD_BODY.message)
        waiting = [trading.answer("/exchange", NOOP, REQUEST) for _ in range(2)]
        refused = trading.answer("/exchange", NOOP, REQUEST)
        assert (refused.status, refused.headers) == (429, (("retry-after", "1"),))
        waiting[0].cancel()  # its client has gone
        trading.give_up()
        return await waiting[1]

    assert asyncio.run(meet()).status == 504
    trading.stop()
    trading.lost_engine()


def test_a_client_that_leaves_while_it_waits_is_forgotten(behind, world):
    wire = Wire()
    conversation = behind.open(wire)
    conversation.receive(b'{"method":"subscribe","subscription":{"type":"allMids"}}')
    conversation.closed()
    behind.adopt(Mapped(world.reader()))
    assert wire.frames == []
