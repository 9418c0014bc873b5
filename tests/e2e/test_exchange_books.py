"""Books under load: one rebuilt from l4Book, one told by l2Book and bbo, and the engine's own are one book.

One of two gateways is stopped while the exchange goes on, until the event ring has overrun it: its clients
are told, begin anew, and agree again; no trade or fill was left out, or told twice. Who has missed more of
them than are told anew is closed, and begins again.
"""

import os
import signal
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from decimal import Decimal

import psutil
import pytest

from gateway.channels import REPAIR_MAX
from gateway.errors import NotNow
from tests.e2e.client import Client
from tests.e2e.instance import Exchange, until
from tests.e2e.load import Load
from tests.e2e.replica import Replica
from tests.e2e.truth import Truth

pytestmark = pytest.mark.timeout(280)

COIN = "BTC"
TRADERS = 12  # so many that some are at the gateway that goes on
LAPS, SOAK_LAPS = 3, 30
ACTIONS_BETWEEN = 1500  # of all traders, before a gateway is stopped and after it goes on
LOOK_SECONDS = 0.02  # between two looks at the engine's book
EVENTS = 1 << 13  # slots of the event ring
CONFIG = f"""
[capacity]
events = {EVENTS}
[gateway]
count = 2
[gateway.limits]
actions_per_minute_max = 100_000_000
messages_per_minute_max = 1_000_000
lag_bytes_max = {1 << 25}
"""
BOOK = {"type": "l2Book", "coin": COIN}
STREAMS = [{"type": kind, "coin": COIN} for kind in ("l4Book", "bbo", "trades")] + [BOOK | {"nLevels": 100}]


class Listener:
    """A client of all channels, and all that it has heard, in order."""

    def __init__(self, exchange, users):
        fills = [{"type": "userFills", "user": user} for user in users]
        self.heard = []
        self.client = Client(exchange.port, *STREAMS, *fills, hear=self.heard.append)
        self.client.start()
        until(lambda: len(self.client.of("subscriptionResponse")) == len(STREAMS + fills), "subscriptions")
        until(lambda: self.client.snapshots, "a first snapshot")

    @property
    def lives(self):
        """True: its connection has not ended, which is asserted."""
        self.client.check()
        assert self.client.is_alive(), f"closed, because {self.client.closed_because}"
        return True

    @property
    def laps(self):
        """How often it was told of one."""
        assert self.lives
        return self.client.statuses().count("lapped")

    def book(self):
        """That of l4Book, as it is now."""
        return self.client.books[COIN].book()

    def last(self, channel):
        """What l2Book or bbo have told last."""
        return depth_of(self.client.of(channel)[-1])

    def gateway(self, exchange):
        """The role of the process that has its connection."""
        for role, pid in exchange.pids().items():
            for it in psutil.Process(pid).net_connections("inet"):
                if it.raddr and it.raddr.port == self.client.local_port:
                    return role
        return None

    def close(self):
        self.client.__exit__()


@pytest.fixture
def exchange(tmp_path):
    config = tmp_path / "exchange.toml"
    config.write_text(CONFIG)
    with Exchange(tmp_path, "--config", str(config)) as exchange:
        until(lambda: len(exchange.logged("gateway")) >= 4, "two gateways that are ready")
        yield exchange


@pytest.fixture
def load(exchange):
    """They begin when there are listeners."""
    return Load(exchange, TRADERS, seed=7)


@pytest.fixture
def listeners(exchange, load):
    """One at each gateway, by its role: the kernel deals the connections out."""
    found = {}
    for _ in range(40):
        listener = Listener(exchange, load.addresses)
        role = listener.gateway(exchange)
        if role in found:
            listener.close()
        found.setdefault(role, listener)
        if len(found) == 2:
            break
    assert {*found} == {"gateway 0", "gateway 1"}
    with load:
        yield found
    for listener in found.values():
        listener.close()


def test_all_books_are_one_book_under_load_and_through_laps(request, exchange, load, listeners):
    truth, stopped = Truth(exchange, COIN), listeners["gateway 0"]
    for _ in range(SOAK_LAPS if request.config.getoption("--soak") else LAPS):
        watch(truth, load)
        laps, snapshots = stopped.laps, stopped.client.snapshots
        overrun(exchange, lambda: truth.events, EVENTS + EVENTS // 8)
        exchange.wait(lambda laps=laps: stopped.laps > laps, "word of the lap")
        exchange.wait(lambda seen=snapshots: stopped.client.snapshots > seen, "a new snapshot")
    watch(truth, load)
    load.pause()
    compare_at_rest(exchange, truth, listeners, load)
    seen = truth.seen()
    for listener in listeners.values():
        segments = replay(listener.heard, seen)
        compare_frames(listener.heard, segments)
        compare_trades_with_fills(listener.client)
    tapes = [[it["tid"] for batch in each.client.of("trades") for it in batch] for each in listeners.values()]
    assert tapes[0] == tapes[1]


def watch(truth, load):
    """Look at the book until the traders have sent a number of actions."""
    wanted = load.sent + ACTIONS_BETWEEN
    while load.sent < wanted:
        load.check()
        try:
            truth.look()
        except NotNow:
            pass  # the engine was met at work at every try
        time.sleep(LOOK_SECONDS)


def test_who_missed_more_trades_than_are_told_anew_is_closed_and_begins_again(exchange, load, listeners):
    truth, stopped = Truth(exchange, COIN), listeners.pop("gateway 0")
    watch(truth, load)
    overrun(exchange, lambda: truth.trades, 2 * REPAIR_MAX)
    exchange.wait(lambda: not stopped.client.is_alive(), "the end of its connection")
    assert stopped.client.closed_with == 1008
    again = listeners["again"] = Listener(exchange, load.addresses)
    watch(truth, load)
    load.pause()
    compare_at_rest(exchange, truth, listeners, load)
    compare_frames(again.heard, replay(again.heard, truth.seen()))
    compare_trades_with_fills(listeners["gateway 1"].client)


def overrun(exchange, count, more):
    """Stop a gateway until `count` gives so many more."""
    pid, began = exchange.pid("gateway 0"), count()
    os.kill(pid, signal.SIGSTOP)
    try:
        exchange.wait(lambda: count() > began + more, "enough to overrun a gateway")
    finally:
        os.kill(pid, signal.SIGCONT)


def compare_at_rest(exchange, truth, listeners, load):
    """Whoever is asked for the book gives the same one, now that nothing happens any more."""
    height = truth.look()
    book, depth = truth.seen()[height], truth.depth()
    assert min(map(len, depth)) > 5, "there is a book"
    open_orders = [
        (it["oid"], user, it["side"], Decimal(it["limitPx"]), Decimal(it["sz"]))
        for user in load.addresses
        for it in exchange.info({"type": "openOrders", "user": user})
    ]
    assert sorted(open_orders) == sorted(order[:5] for side in book for order in side)
    assert levels_of(exchange.info(BOOK)["levels"]) == tuple(side[:20] for side in depth)
    for role, listener in listeners.items():
        exchange.wait(lambda it=listener: it.lives and it.book() == book, f"the last l4Book of {role}")
        exchange.wait(lambda it=listener: it.last("l2Book") == depth, f"the last l2Book of {role}")
        exchange.wait(lambda it=listener: it.last("bbo") == touch(depth), f"the last bbo of {role}")
        assert listener.client.books[COIN].depth() == depth


def replay(heard, seen):
    """Rebuild the book from l4Book, and hold it against `seen` at each height that is there, order by order.

    Gives what it was after each message, in lists from one Snapshot to the next: (time in ms, depth).
    """
    replica, segments, waiting, compared = Replica(COIN), [], sorted(seen), 0
    for message in (it for it in heard if it["channel"] == "l4Book"):
        is_snapshot, (told,) = "Snapshot" in message["data"], message["data"].values()
        while waiting and waiting[0] < told["height"]:
            height = waiting.pop(0)
            if segments and not is_snapshot:  # else it has not heard all that came before
                assert replica.book() == seen[height], f"at {height}"
                compared += 1
        replica.take(message["data"])
        if is_snapshot:
            segments.append([])
        segments[-1].append((replica.time_ms, replica.depth()))
    assert all(replica.book() == seen[height] for height in waiting)
    assert compared > 5, f"{compared} of {len(seen)} were compared"
    return segments


def compare_frames(heard, segments):
    """What l2Book and bbo tell is the book of its moment: of a block of that millisecond, or the last one."""
    compared = Counter()
    for channel, data in ((it["channel"], it.get("data")) for it in heard):
        books = books_at(segments, data["time"]) if channel in ("l2Book", "bbo") else []
        if books:
            assert depth_of(data) in (books if channel == "l2Book" else map(touch, books)), (channel, data)
            compared[channel] += 1
    assert min(compared["l2Book"], compared["bbo"]) > 10, compared


def books_at(segments, time_ms):
    """All that the book may have been at the end of a block of this time; none if that was not heard.

    (A Snapshot may name an earlier time than that of its height, so what it tells begins with what follows.)
    """
    for number, segment in enumerate(segments):
        times = [time for time, _ in segment]
        is_last = number == len(segments) - 1
        if len(times) > 1 and times[1] < time_ms and (is_last or time_ms < times[-1]):
            first, end = bisect_left(times, time_ms), bisect_right(times, time_ms)
            return [depth for _, depth in segment[first - 1 : end]]
    return []


def depth_of(data):
    """(bids, asks) of a message of l2Book or bbo, in the form of Replica.depth."""
    return levels_of(data["levels"] if "levels" in data else [[it] if it else [] for it in data["bbo"]])


def levels_of(sides):
    return tuple(tuple((Decimal(it["px"]), Decimal(it["sz"]), it["n"]) for it in side) for side in sides)


def touch(depth):
    """The best level of each side alone."""
    return tuple(side[:1] for side in depth)


def compare_trades_with_fills(client):
    """Each trade is a fill of its buyer and one of its seller, one of which has crossed; told once."""
    trades = [it for batch in client.of("trades") for it in batch]
    fills = [(data["user"], it) for data in client.of("userFills") for it in data["fills"]]
    of_trades = Counter(
        (it["tid"], user, side, it["px"], it["sz"], it["time"], side == it["side"])
        for it in trades
        for user, side in zip(it["users"], "BA", strict=True)
    )
    of_fills = Counter(
        (it["tid"], user, it["side"], it["px"], it["sz"], it["time"], it["crossed"]) for user, it in fills
    )
    assert of_trades == of_fills and {*of_trades.values()} == {1}
    assert len(trades) > 100
