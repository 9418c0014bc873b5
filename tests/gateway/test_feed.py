"""Worlds written by hand, read by clients who may be slow, late or lapped: what must each have seen?"""

import json
import random

import pytest

from gateway import channels, errors
from gateway.fanout import Client, FanoutLimits
from gateway.feed import Feed, FeedLimits
from gateway.session import Session, SessionLimits
from gateway.world import World as Mapped
from shm import codes
from tests.gateway.wire import Wire
from tests.world import ALICE, BOB, CAROL, NOBODY, World

SECOND = 1_000_000_000
SMALL = FanoutLimits(ring_bytes=512, lag_bytes_max=4096, lag_queue_bytes_max=64 * 1024, direct_bytes_max=8192)


class Reader:
    """One client of a feed, and what it has heard."""

    def __init__(self, feed, *subscriptions, room=None):
        self.feed = feed
        self.wire = Wire(room)
        self.client = Client(self.wire, feed.fanout)
        self.session = Session(self.client, feed, None, SessionLimits())
        for subscription in subscriptions:
            self.subscribe(**subscription)

    def subscribe(self, now_ns=0, **subscription):
        message = {"method": "subscribe", "subscription": subscription}
        self.session.receive(json.dumps(message).encode(), now_ns)

    def take(self, channel=None):
        """The data of the messages since the last time: of one channel, or all with their channels."""
        heard = [m for m in self.wire.take() if m["channel"] != "subscriptionResponse"]
        if channel is None:
            return [(m["channel"], m["data"]) for m in heard]
        return [m["data"] for m in heard if m["channel"] == channel]

    def drain(self):
        """The socket takes everything again."""
        self.wire.room = None
        self.client.drained()


@pytest.fixture
def world():
    world = World()
    with world.block() as block:
        block.open("BTC", ALICE, "B", "100", "1", 1)
        block.open("BTC", BOB, "A", "101", "2", 2)
    return world


def feed_of(world, limits=FeedLimits()):  # noqa: B008 (frozen)
    feed = Feed(limits)
    feed.adopt(Mapped(world.reader()), 0)
    return feed


@pytest.fixture
def feed(world):
    return feed_of(world)


BOOK, BBO, TRADES, QUEUE = ({"type": kind, "coin": "BTC"} for kind in ("l2Book", "bbo", "trades", "l4Book"))


# --- what is told ------------------------------------------------------------------------------------------


def test_a_block_is_told_once_to_each_channel_that_it_changed(world, feed):
    reader = Reader(feed, BOOK, BBO, TRADES, {"type": "userFills", "user": ALICE})
    reader.take()
    with world.block() as block:
        block.trade("BTC", ALICE, BOB, "B", "101", "0.5", tid=9, maker_oid=2)
        block.update(2, "1.5")
    assert feed.turn(0) > 0
    heard = dict(reader.take())
    assert heard["l2Book"]["levels"][1] == [{"px": "101.0", "sz": "1.5", "n": 1}]
    assert heard["l2Book"]["time"] == 1_700_000_000_200
    assert heard["bbo"]["bbo"][1]["sz"] == "1.5"
    assert [trade["tid"] for trade in heard["trades"]] == [9]
    assert heard["trades"][0]["users"] == [ALICE, BOB]
    assert "isSnapshot" not in heard["userFills"]
    assert heard["userFills"]["fills"][0]["crossed"] is True
    assert feed.turn(0) == 0
    assert reader.take() == []


def test_what_did_not_change_is_not_told_again(world, feed):
    reader = Reader(feed, BBO, {**BOOK, "nLevels": 1}, {**BOOK, "nSigFigs": 2})
    reader.take()
    with world.block() as block:
        block.open("BTC", ALICE, "B", "99", "1", 3)
        block.open("ETH", ALICE, "B", "5", "1", 4)
    feed.turn(0)
    (only,) = reader.take()
    assert only[1]["levels"][0] == [{"px": "100.0", "sz": "1.0", "n": 1}, {"px": "99.0", "sz": "1.0", "n": 1}]
    assert only[1]["spread"] == "10.0"


def test_fast_books_say_so_and_have_five_levels(world, feed):
    with world.block() as block:
        for i in range(30):
            block.open("BTC", ALICE, "B", 50 + i, "1", 100 + i)
    feed.turn(0)
    fast, default, deep = ({**BOOK, "fast": True}, BOOK, {**BOOK, "nLevels": 100})
    for subscription, levels in ((fast, 5), (default, 20), (deep, 31)):
        (book,) = Reader(feed, subscription).take("l2Book")
        assert len(book["levels"][0]) == levels
        assert book.get("fast") == subscription.get("fast")


def test_order_updates_are_all_statuses_of_a_user_and_nobody_elses(world, feed):
    reader = Reader(feed, {"type": "orderUpdates", "user": ALICE})
    assert reader.take() == []
    with world.block() as block:
        block.open("BTC", ALICE, "B", "99", "1", 3)
        block.open("BTC", BOB, "B", "98", "1", 4)
        block.status("BTC", ALICE, "B", "97", "1", 5, "badAloPxRejected")
        block.remove(1)
    feed.turn(0)
    (updates,) = reader.take("orderUpdates")
    assert [(update["order"]["oid"], update["status"]) for update in updates] == [
        (3, "open"), (5, "badAloPxRejected"), (1, "canceled"),
    ]  # fmt: skip


def test_user_events_tell_fills_and_what_others_cancelled(world, feed):
    reader = Reader(feed, {"type": "userEvents", "user": ALICE})
    with world.block() as block:
        block.trade("BTC", ALICE, BOB, "B", "101", "0.5", tid=9)
        block.open("BTC", ALICE, "B", "99", "1", 3)
        block.remove(1, "marginCanceled")
    feed.turn(0)
    fills, cancels = reader.take("user")
    assert [fill["tid"] for fill in fills["fills"]] == [9]
    assert cancels == {"nonUserCancel": [{"coin": "BTC", "oid": 1}]}


def test_a_user_who_was_never_seen_is_heard_from_the_first_block(world, feed):
    kinds = ("orderUpdates", "openOrders", "userFills")
    reader = Reader(feed, *({"type": kind, "user": CAROL} for kind in kinds))
    assert [data.get("orders", data.get("fills")) for _, data in reader.take()] == [[], []]
    with world.block() as block:
        block.open("BTC", CAROL, "B", "99", "1", 3)
        block.trade("BTC", CAROL, BOB, "B", "101", "1", tid=5)
    feed.turn(0)
    heard = dict(reader.take())
    assert heard.keys() == set(kinds)
    assert [order["oid"] for order in heard["openOrders"]["orders"]] == [3]
    assert heard["openOrders"]["dex"] == ""


def test_open_orders_are_those_of_one_dex(world, feed):
    with world.block() as block:
        world.market("xyz:NVDA", codes.MarketKind.BUILDER)
        block.open("xyz:NVDA", ALICE, "B", "10", "1", 50)
    feed.turn(0)
    user = {"type": "openOrders", "user": ALICE}
    (main,), (other,), (none,) = (
        Reader(feed, {**user, **dex}).take("openOrders") for dex in ({}, {"dex": "xyz"}, {"dex": "q"})
    )
    assert [order["oid"] for order in main["orders"]] == [1]
    assert ([order["oid"] for order in other["orders"]], other["dex"]) == ([50], "xyz")
    assert none["orders"] == []


def test_mids_come_at_most_once_in_their_gap(world, feed):
    reader = Reader(feed, {"type": "allMids"})
    assert reader.take("allMids") == [{"mids": {"BTC": "100.5"}}]
    for height, now_ns in enumerate((SECOND // 2, SECOND - 1, SECOND)):
        with world.block() as block:
            block.open("BTC", BOB, "A", f"100.{9 - height}", "1", 10 + height)
        feed.turn(now_ns)
    assert reader.take("allMids") == [{"mids": {"BTC": "100.35"}}]


def test_trades_begin_with_the_recent_ones_oldest_first(world, feed):
    with world.block() as block:
        for tid in range(15):
            block.trade("BTC", ALICE, BOB, "B", "101", "1", tid=tid)
    feed.turn(0)
    (recent,) = Reader(feed, TRADES).take("trades")
    assert [trade["tid"] for trade in recent] == list(range(5, 15))


def test_fills_begin_with_a_snapshot_newest_first(world, feed):
    for tid in range(3):
        with world.block() as block:
            block.trade("BTC", ALICE, BOB, "B", "101", "1", tid=tid)
    reader = Reader(feed, {"type": "userFills", "user": ALICE}, TRADES)
    heard = reader.take()
    (first,) = [data for channel, data in heard if channel == "userFills"]
    assert first["isSnapshot"] is True
    assert [fill["tid"] for fill in first["fills"]] == [2, 1, 0]
    assert feed.turn(0) > 0  # their events were still in the ring
    assert reader.take() == [], "nothing is told twice"


def test_a_book_is_told_again_before_its_clients_give_up(world, feed):
    reader = Reader(feed, BOOK, BBO, TRADES)
    reader.take()
    world.region.beat(49 * SECOND)
    feed.tick(49 * SECOND)
    assert reader.take() == []
    world.region.beat(51 * SECOND)
    feed.tick(51 * SECOND)
    assert {channel for channel, _ in reader.take()} == {"l2Book", "bbo"}
    feed.tick(52 * SECOND - 1)
    assert reader.take() == []


# --- snapshot, then what comes after it --------------------------------------------------------------------


class QueueClient:
    """Rebuilds a book from l4Book, as a client does; any contradiction fails."""

    def __init__(self):
        self.height = None
        self.orders = {}
        self.snapshots = 0

    def hear(self, data):
        if "Snapshot" in data:
            told = data["Snapshot"]
            self.height, self.snapshots = told["height"], self.snapshots + 1
            self.orders = {o["oid"]: float(o["sz"]) for side in told["levels"] for o in side}
            return
        told = data["Updates"]
        assert told["height"] > self.height, "rises, and is after the snapshot"
        self.height = told["height"]
        for diff in told["book_diffs"]:
            change, oid = diff["raw_book_diff"], diff["oid"]
            if change == "remove":
                del self.orders[oid]
            elif "new" in change:
                assert oid not in self.orders
                self.orders[oid] = float(change["new"]["sz"])
            else:
                assert self.orders[oid] == float(change["update"]["origSz"])
                self.orders[oid] = float(change["update"]["newSz"])


def resting(world, coin):
    market = world.markets[coin]
    return {o["order"]: o["quantity"] / 10**8 for o in world.orders.values() if o["market"] == market}


def random_block(world, chance, oids):
    with world.block() as block:
        for _ in range(chance.randrange(6)):
            mine = [oid for oid in world.orders if oid not in block.removed]
            if mine and chance.random() < 0.3:
                block.remove(chance.choice(mine))
            elif mine and chance.random() < 0.3:
                block.update(chance.choice(mine), chance.randrange(1, 50))
            else:
                coin, side = chance.choice(["BTC", "ETH"]), chance.choice("BA")
                price = (100 if side == "A" else 60) + chance.randrange(40)
                block.open(
                    coin, chance.choice([ALICE, BOB]), side, price, chance.randrange(1, 50), next(oids)
                )
        if chance.random() < 0.5:
            block.status("BTC", CAROL, "B", "1", "1", next(oids), "iocCancelRejected")


@pytest.mark.parametrize("seed", range(8))
def test_whenever_a_client_comes_and_however_slow_it_is_its_book_is_the_worlds(seed):
    chance, oids = random.Random(seed), iter(range(10_000))
    world = World()
    random_block(world, chance, oids)
    world.market("BTC"), world.market("ETH")
    feed = feed_of(world, FeedLimits(fanout=SMALL))
    readers = []
    for _ in range(60):
        for _ in range(chance.randrange(3)):
            random_block(world, chance, oids)
        if chance.random() < 0.1:
            coin = chance.choice(["BTC", "ETH"])
            room = chance.choice([None, 100, 1000])
            readers.append((Reader(feed, {"type": "l4Book", "coin": coin}, room=room), QueueClient(), coin))
        if chance.random() < 0.7:
            feed.turn(0)
        for reader, _, _ in readers:
            if chance.random() < 0.3:
                reader.wire.room = chance.choice([None, 100, 1000])
                reader.client.drained()
    feed.turn(0)
    for reader, client, coin in readers:
        reader.drain()
        feed.turn(0)
        for data in reader.take("l4Book"):
            client.hear(data)
        assert client.orders == resting(world, coin)
        assert not reader.wire.closed
    assert readers


def test_an_update_that_the_snapshot_holds_is_not_sent(world, feed):
    with world.block() as block:
        block.open("BTC", ALICE, "B", "99", "1", 3)
    reader = Reader(feed, QUEUE)  # the block is in the rows, and its events are still in the ring
    (snapshot,) = reader.take("l4Book")
    assert snapshot["Snapshot"]["height"] == 2
    assert [order["oid"] for order in snapshot["Snapshot"]["levels"][0]] == [1, 3]
    feed.turn(0)
    assert reader.take() == []
    with world.block() as block:
        block.remove(3)
    feed.turn(0)
    (update,) = reader.take("l4Book")
    assert update["Updates"]["height"] == 3


def test_untriggered_orders_are_in_no_snapshot(world, feed):
    with world.block() as block:
        block.open("BTC", ALICE, "B", "99", "1", 3, state=codes.OrderState.UNTRIGGERED)
    (snapshot,) = Reader(feed, QUEUE).take("l4Book")
    assert [order["oid"] for order in snapshot["Snapshot"]["levels"][0]] == [1]


# --- slow clients ------------------------------------------------------------------------------------------


def test_a_slow_client_of_a_book_gets_the_newest_and_keeps_nobody_waiting(world):
    feed = feed_of(world, FeedLimits(fanout=SMALL))
    slow, quick = Reader(feed, BOOK, room=1), Reader(feed, BOOK)
    quick.take()
    for i in range(50):
        with world.block() as block:
            block.open("BTC", ALICE, "B", f"99.{i:02}", "1", 10 + i)
        feed.turn(0)
        assert len(quick.take("l2Book")) == 1
    assert slow.take() == []  # it had room for one byte: the answer to its subscription was more
    slow.drain()
    (book,) = slow.take("l2Book")
    assert [level["px"] for level in book["levels"][0][:3]] == ["100.0", "99.49", "99.48"]
    assert not slow.wire.closed


def test_conflation_jumps_to_the_newest(world):
    feed = feed_of(world, FeedLimits(fanout=SMALL))
    reader = Reader(feed, BBO)
    reader.take()
    reader.wire.room = 1
    for i in range(1, 30):
        with world.block() as block:
            block.update(1, i + 1)
        feed.turn(0)
    assert [data["bbo"][0]["sz"] for data in reader.take("bbo")] == ["2.0"]
    reader.drain()
    assert [data["bbo"][0]["sz"] for data in reader.take("bbo")] == ["30.0"]


@pytest.mark.parametrize("kind", ["trades", "userFills", "orderUpdates", "userEvents"])
def test_where_nothing_may_be_left_out_a_slow_client_is_closed_with_a_reason(world, kind):
    feed = feed_of(world, FeedLimits(fanout=SMALL))
    subscription = TRADES if kind == "trades" else {"type": kind, "user": ALICE}
    slow, quick = Reader(feed, subscription), Reader(feed, subscription)
    slow.wire.room = 1
    heard = 0
    for i in range(60):
        with world.block() as block:
            block.trade("BTC", ALICE, BOB, "B", "101", "1", tid=i)
            block.open("BTC", ALICE, "B", "1", "1", 100 + i)
        feed.turn(0)
        heard += len([channel for channel, data in quick.take() if not data_is_first(data)])
    assert heard == 60
    code, reason = slow.wire.closed_with
    assert code == 1008
    assert reason.startswith("too slow: ")
    assert not quick.wire.closed


def data_is_first(data):
    return isinstance(data, dict) and data.get("isSnapshot", False)


def test_a_client_that_catches_up_in_time_has_missed_nothing(world):
    feed = feed_of(world, FeedLimits(fanout=SMALL))
    reader = Reader(feed, TRADES)
    tids = []
    for i in range(60):
        with world.block() as block:
            block.trade("BTC", ALICE, BOB, "B", "101", "1", tid=i)
        feed.turn(0)
        if i % 5 == 0:
            reader.drain()
            reader.wire.room = 1
    reader.drain()
    for trades in reader.take("trades"):
        tids += [trade["tid"] for trade in trades]
    assert tids == list(range(60))
    assert not reader.wire.closed


def test_a_client_that_reads_no_answers_is_closed():
    world = World()
    feed = feed_of(world, FeedLimits(fanout=SMALL))
    reader = Reader(feed, room=1)
    for _ in range(10_000):
        reader.session.receive(b'{"method":"ping"}', 0)
        if reader.wire.closed:
            break
    assert reader.wire.closed_with[0] == 1008


def test_a_lagging_queue_is_told_so_and_begins_anew(world):
    limits = FanoutLimits(ring_bytes=512, lag_queue_bytes_max=2048)
    feed = feed_of(world, FeedLimits(fanout=limits))
    reader, client = Reader(feed, QUEUE), QueueClient()
    reader.wire.room = 1
    for i in range(40):
        with world.block() as block:
            block.open("BTC", ALICE, "B", "1", "1", 100 + i)
        feed.turn(0)
    reader.drain()
    feed.turn(0)
    heard = reader.take()
    assert [data["status"] for channel, data in heard if channel == "feedStatus"] == ["lapped"]
    for channel, data in heard:
        if channel == "l4Book":
            client.hear(data)
    assert client.snapshots == 2
    assert client.orders == resting(world, "BTC")


# --- what goes wrong with the source -----------------------------------------------------------------------


def lap(world):
    """More events than the ring holds, before anybody reads."""
    oids = iter(range(10_000, 100_000))
    for _ in range(40):
        with world.block() as block:
            block.trade("BTC", ALICE, BOB, "B", "101", "1", tid=next(oids))
            for _ in range(30):
                block.status("BTC", CAROL, "B", "1", "1", next(oids), "badAloPxRejected")
            block.open("BTC", ALICE, "B", "2", "1", next(oids))


def test_a_lapped_feed_says_so_and_is_right_again(world, feed):
    reader, client = Reader(feed, BOOK, TRADES, QUEUE, {"type": "userFills", "user": ALICE}), QueueClient()
    for data in reader.take("l4Book"):
        client.hear(data)
    lap(world)
    feed.turn(0)
    assert feed.counts.laps == 1
    heard = reader.take()
    assert [data["status"] for channel, data in heard if channel == "feedStatus"] == ["lapped"]
    trades = [trade["tid"] for channel, data in heard if channel == "trades" for trade in data]
    fills = [fill["tid"] for channel, data in heard if channel == "userFills" for fill in data["fills"]]
    assert len(trades) == len(set(trades)) == 40
    assert fills == trades == sorted(trades)
    with world.block() as block:
        block.remove(1)
    feed.turn(0)
    for channel, data in heard + reader.take():
        if channel == "l4Book":
            client.hear(data)
    assert client.orders == resting(world, "BTC")
    assert not reader.wire.closed


@pytest.mark.parametrize("most", [40, 41])
def test_who_missed_more_than_is_told_anew_is_closed(world, feed, monkeypatch, most):
    """Of the last 40 trades all were missed: who sees one more knows that there were not others, too."""
    monkeypatch.setattr(channels, "REPAIR_MAX", most)
    for i in range(3):
        with world.block() as block:
            block.trade("BTC", ALICE, BOB, "B", "101", "1", tid=i)
    feed.turn(0)
    readers = Reader(feed, TRADES), Reader(feed, {"type": "userFills", "user": ALICE})
    other = Reader(feed, BOOK, {"type": "userFills", "user": CAROL})
    lap(world)
    feed.turn(0)
    for reader in readers:
        assert reader.wire.closed_with == ((1008, errors.CLOSE_EVENTS_LOST) if most == 40 else None)
    assert not other.wire.closed


def test_order_updates_that_are_lost_end_their_clients(world, feed):
    reader = Reader(feed, {"type": "orderUpdates", "user": ALICE})
    other = Reader(feed, BOOK)
    lap(world)
    feed.turn(0)
    assert reader.wire.closed_with == (1008, errors.CLOSE_EVENTS_LOST)
    assert not other.wire.closed


def test_stale_and_rebuilt_are_told_to_the_readers_of_that_coin(world, feed):
    world.market("ETH")
    btc, eth = Reader(feed, BOOK, QUEUE, TRADES), Reader(feed, {"type": "l2Book", "coin": "ETH"})
    btc.take(), eth.take()
    world.stale("BTC", codes.Stale.GAP)
    feed.turn(0)
    (status,) = btc.take("feedStatus")
    assert (status["coin"], status["status"], status["height"]) == ("BTC", "stale", 1)
    assert status["reason"] == errors.STALE_REASONS[codes.Stale.GAP]
    late = Reader(feed, BBO)
    assert [channel for channel, _ in late.take()] == ["bbo", "feedStatus"]
    world.reset("BTC")
    feed.turn(0)
    heard = btc.take()
    assert [channel for channel, _ in heard] == ["feedStatus", "l4Book", "l2Book"]
    assert (heard[0][1]["status"], heard[0][1]["reason"]) == ("live", errors.REBUILT)
    assert "Snapshot" in heard[1][1]
    assert eth.take() == []


def test_a_silent_engine_is_told_and_so_is_its_return(world, feed):
    reader = Reader(feed, BOOK)
    reader.take()
    world.region.beat(10 * SECOND)
    feed.tick(11 * SECOND)
    assert reader.take() == []
    feed.tick(12 * SECOND)
    feed.tick(13 * SECOND)
    (status,) = reader.take("feedStatus")
    assert (status["status"], status["reason"]) == ("stale", errors.ENGINE_GONE)
    world.region.beat(14 * SECOND)
    feed.tick(14 * SECOND)
    (status,) = reader.take("feedStatus")
    assert (status["status"], status["reason"]) == ("live", errors.ENGINE_BACK)


def test_an_engine_that_has_ended_is_not_live_because_its_last_heartbeat_is_young(world, feed):
    reader = Reader(feed, BOOK)
    reader.take()
    world.region.beat(10 * SECOND)
    feed.lost_engine()
    feed.tick(10 * SECOND)
    assert [status["status"] for status in reader.take("feedStatus")] == ["stale"]
    feed.adopt(Mapped(world.reader()), 10 * SECOND)
    assert [status["status"] for status in reader.take("feedStatus")] == ["live"]


def test_a_new_world_is_taken_over_and_nothing_is_told_twice(world, feed):
    kinds = ({"type": kind, "user": ALICE} for kind in ("userFills", "orderUpdates", "openOrders"))
    reader, client = Reader(feed, BOOK, QUEUE, TRADES, *kinds), QueueClient()
    with world.block() as block:
        block.trade("BTC", ALICE, BOB, "B", "101", "1", tid=1)
        block.open("BTC", ALICE, "B", "90", "1", 3)
    feed.turn(0)
    told = reader.take()
    feed.lost_engine()
    (status,) = reader.take("feedStatus")
    assert status["status"] == "stale"
    again = World(epoch=2)  # restarted from its checkpoint: the blocks come again, and then new ones
    again.market("ETH")  # other rows than before
    with again.block(height=1) as block:
        block.open("BTC", ALICE, "B", "100", "1", 1)
        block.open("BTC", BOB, "A", "101", "2", 2)
    with again.block(height=2) as block:
        block.trade("BTC", ALICE, BOB, "B", "101", "1", tid=1)
        block.open("BTC", ALICE, "B", "90", "1", 3)
    feed.adopt(Mapped(again.reader()), 0)
    with again.block(height=3) as block:
        block.trade("BTC", ALICE, BOB, "B", "101", "1", tid=2)
        block.remove(1)
    feed.turn(0)
    heard = reader.take()
    assert [data["status"] for channel, data in heard if channel == "feedStatus"] == ["live"]
    assert [t["tid"] for channel, data in told + heard if channel == "trades" for t in data] == [1, 2]
    fills = [f["tid"] for channel, data in told + heard if channel == "userFills" for f in data["fills"]]
    assert fills == [1, 2]
    updates = [u["order"]["oid"] for channel, data in told + heard if channel == "orderUpdates" for u in data]
    assert updates == [3, 1]
    for channel, data in told + heard:
        if channel == "l4Book":
            client.hear(data)
    assert client.orders == resting(again, "BTC")
    assert {"l2Book", "openOrders"} <= {channel for channel, _ in heard}
    assert not reader.wire.closed


def test_a_new_world_that_begins_later_mends_what_it_can(world, feed):
    reader, lost = Reader(feed, TRADES), Reader(feed, {"type": "orderUpdates", "user": ALICE})
    again = World(epoch=2, height=6)
    with again.block(height=7) as block:
        block.trade("BTC", ALICE, BOB, "B", "101", "1", tid=7)
    feed.adopt(Mapped(again.reader()), 0)
    assert lost.wire.closed_with == (1008, errors.CLOSE_EVENTS_LOST)
    (trades,) = reader.take("trades")
    assert [trade["tid"] for trade in trades] == [7]


def test_a_coin_that_a_new_world_lacks_is_stale_until_it_comes(world, feed):
    reader = Reader(feed, BOOK)
    reader.take()
    again = World(epoch=2, height=1)
    feed.adopt(Mapped(again.reader()), 0)
    (status,) = reader.take("feedStatus")
    assert (status["status"], status["reason"]) == ("stale", errors.STALE_REASONS[codes.Stale.NO_SNAPSHOT])
    with again.block() as block:
        block.open("BTC", ALICE, "B", "5", "1", 1)
    feed.turn(0)
    (book,) = reader.take("l2Book")
    assert book["levels"][0][0]["px"] == "5.0"
    feed.tick(0)
    assert [data["status"] for data in reader.take("feedStatus")] == ["live"]


def test_nobody_reads_nothing_is_encoded(world, feed):
    reader = Reader(feed, BOOK, TRADES, QUEUE, {"type": "userFills", "user": NOBODY})
    before = feed.counts.messages
    reader.session.closed()
    with world.block() as block:
        block.trade("BTC", ALICE, BOB, "B", "101", "1", tid=1)
    feed.turn(0)
    assert feed.counts.messages == before
    assert feed.counts.blocks == 1


def test_a_message_is_encoded_once_for_all_its_readers(world, feed):
    readers = [Reader(feed, TRADES) for _ in range(20)]
    before = feed.counts.messages
    with world.block() as block:
        block.trade("BTC", ALICE, BOB, "B", "101", "1", tid=1)
    feed.turn(0)
    assert feed.counts.messages == before + 1
    assert all(len(reader.take("trades")) == 1 for reader in readers)
