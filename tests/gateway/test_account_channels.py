"""Channels of accounts, contexts and candles: what comes first, what follows, what is made good."""

import random

import pytest

from gateway import exchange_schema
from gateway.fanout import FanoutLimits
from gateway.feed import FeedLimits
from gateway.world import World as Mapped
from shm import codes
from tests.exchange_world import KEPT, Exchange
from tests.gateway.test_accounts import asker
from tests.gateway.test_feed import SECOND, Reader, feed_of
from tests.world import ALICE, BOB, CAROL
from tests.world import World as Followed

NOW_MS = 1_699_999_980_000  # a whole minute, before those of blocks whose time is not told
OF_ALICE = {"user": ALICE}


@pytest.fixture
def world():
    world = Exchange()
    world.market("BTC", 5, max_leverage=40, price="60000")
    world.market("ETH", 4, max_leverage=25, price="3000")
    with world.block(time_ms=NOW_MS) as block:
        block.funds(ALICE, cash=1_000_000_000, used=150_000_000)
        block.position(ALICE, "ETH", "1", 3_000_000_000, 20, used=150_000_000)
        block.money(ALICE, codes.Ledger.DEPOSIT, 1_000_000_000)
        block.open("BTC", ALICE, "B", "59999", "0.01", 1)
        block.open("BTC", BOB, "A", "60001", "0.01", 2)
        block.status("BTC", ALICE, "B", "1", "1", 3, "badAloPxRejected")
    return world


@pytest.fixture
def feed(world):
    return feed_of(world)


def trade(world, coin, price, size="0.5", tid=1, **when):
    with world.block(**when) as block:
        block.trade(coin, CAROL, BOB, "B", price, size, tid=tid)


REQUESTS = {
    "user": ALICE, "coin": "BTC", "interval": "1m",
}  # fmt: skip


def request_of(kind):
    """A subscription of this kind, with what it must name."""
    keys = [key for key in kind.__struct_fields__ if key in REQUESTS]
    return {"type": exchange_schema.tag_of(kind), **{key: REQUESTS[key] for key in keys}}


@pytest.mark.parametrize("kind", exchange_schema.SUBSCRIPTIONS, ids=lambda kind: kind.__name__)
def test_whoever_follows_a_node_refuses_what_only_an_exchange_has(kind, feed, world):
    trade(world, "BTC", "60000")
    feed.turn(0)
    followed = Followed()
    with followed.block() as block:
        block.open("BTC", ALICE, "B", "1", "1", 1)
    refused = Reader(feed_of(followed), request_of(kind)).take()
    assert [(channel, data[:20]) for channel, data in refused] == [("error", "Invalid subscription")]
    ((channel, _),) = Reader(feed, request_of(kind)).take()
    assert channel == request_of(kind)["type"]


# --- accounts ----------------------------------------------------------------------------------------------


def test_an_account_is_told_when_it_changes_and_only_then(world, feed):
    reader = Reader(feed, {"type": "clearinghouseState", **OF_ALICE})
    (first,) = reader.take("clearinghouseState")
    assert (first["dex"], first["user"]) == ("", ALICE)
    assert first["clearinghouseState"] == asker(world)("clearinghouseState", user=ALICE)
    with world.block() as block:
        block.funds(BOB, cash=5)
    feed.turn(1)
    assert reader.take() == []
    with world.block() as block:
        block.funds(ALICE, cash=2_000_000_000, used=0)
    feed.turn(1)
    (second,) = reader.take("clearinghouseState")
    assert second["clearinghouseState"]["marginSummary"]["accountValue"] == "2000.0"
    assert second["clearinghouseState"]["time"] > NOW_MS


def test_a_mark_moves_an_account_at_the_next_tick(world, feed):
    kinds = ("clearinghouseState", "allDexsClearinghouseState", "webData2", "activeAssetData")
    reader = Reader(feed, *({"type": kind, "coin": "ETH", **OF_ALICE} for kind in kinds))
    reader.take()
    trade(world, "ETH", "3100")
    feed.turn(1)
    assert reader.take() == []
    feed.tick(SECOND)
    feed.turn(SECOND)
    heard = dict(reader.take())
    assert heard.keys() == set(kinds)
    state = heard["clearinghouseState"]["clearinghouseState"]
    assert state["assetPositions"][0]["position"]["unrealizedPnl"] == "100.0"
    assert heard["allDexsClearinghouseState"]["clearinghouseStates"] == [["", state]]
    assert heard["webData2"]["clearinghouseState"] == state
    assert heard["activeAssetData"]["markPx"] == "3100.0"
    feed.tick(2 * SECOND)
    feed.turn(2 * SECOND)
    assert reader.take() == [], "nothing has changed since"


def test_each_account_has_its_turn_however_many_there_are(world, feed, monkeypatch):
    monkeypatch.setattr("gateway.feed.MARKED_PER_TICK", 2)
    kinds = ("clearinghouseState", "webData2", "activeAssetData", "assetCtxs", "allDexsAssetCtxs")
    reader = Reader(feed, *({"type": kind, "coin": "ETH", **OF_ALICE} for kind in kinds))
    reader.take()
    trade(world, "ETH", "3100")
    feed.turn(0)
    heard = []
    for tick in range(1, 4):
        feed.tick(tick * SECOND)
        feed.turn(tick * SECOND)
        heard.append([channel for channel, _ in reader.take()])
    assert [len(channels) for channels in heard] == [2, 2, 1]
    assert {channel for channels in heard for channel in channels} == set(kinds)


def test_what_an_account_may_trade_changes_with_it(world, feed):
    reader = Reader(feed, {"type": "activeAssetData", "coin": "ETH", **OF_ALICE})
    (first,) = reader.take("activeAssetData")
    assert first == asker(world)("activeAssetData", user=ALICE, coin="ETH")
    with world.block() as block:
        block.funds(ALICE, cash=151_000_000)
    feed.turn(1)
    (second,) = reader.take("activeAssetData")
    assert [float(size) for size in second["maxTradeSzs"]] < [float(size) for size in first["maxTradeSzs"]]
    refused = Reader(feed, {"type": "activeAssetData", "coin": "NOPE", **OF_ALICE}).take()
    assert refused[0][0] == "error"


def test_a_user_who_was_never_seen_is_heard_from_the_first_block(world, feed):
    kinds = ("clearinghouseState", "userNonFundingLedgerUpdates", "userHistoricalOrders")
    reader = Reader(feed, *({"type": kind, "user": CAROL} for kind in kinds))
    first = dict(reader.take())
    assert first["clearinghouseState"]["clearinghouseState"]["withdrawable"] == "0.0"
    assert first["userNonFundingLedgerUpdates"]["nonFundingLedgerUpdates"] == []
    assert first["userHistoricalOrders"]["orderHistory"] == []
    with world.block() as block:
        block.funds(CAROL, cash=7_000_000)
        block.money(CAROL, codes.Ledger.DEPOSIT, 7_000_000)
        block.open("BTC", CAROL, "B", "59000", "0.01", 9)
    feed.turn(1)
    heard = dict(reader.take())
    assert heard["clearinghouseState"]["clearinghouseState"]["withdrawable"] == "7.0"
    (entry,) = heard["userNonFundingLedgerUpdates"]["nonFundingLedgerUpdates"]
    assert entry["delta"] == {"type": "deposit", "usdc": "7.0"}
    assert [order["order"]["oid"] for order in heard["userHistoricalOrders"]["orderHistory"]] == [9]


def test_a_group_of_orders_is_told_wherever_orders_are(world, feed):
    """Those that wait are no part of a book; the children of an order stand in it, and beside it."""
    kinds = ("orderUpdates", "openOrders", "webData2", "userHistoricalOrders")
    reader = Reader(feed, *({"type": kind, **OF_ALICE} for kind in kinds), {"type": "l4Book", "coin": "BTC"})
    reader.take()
    stop = {
        "state": codes.OrderState.UNTRIGGERED, "condition": codes.Condition.BELOW, "trigger_px": "58000",
        "flags": codes.Flag.IS_TRIGGER | codes.Flag.REDUCE_ONLY, "order_type": "Stop Market", "tif": "",
    }  # fmt: skip
    with world.block() as block:
        block.open("BTC", ALICE, "B", "59000", "0.01", 11, group=11)
        block.open("BTC", ALICE, "A", "57000", "0.01", 12, group=11, **stop)
    feed.turn(1)
    feed.tick(SECOND)
    feed.turn(SECOND)
    heard = dict(reader.take())
    assert heard.keys() == {*kinds, "l4Book"}
    assert [(update["order"]["oid"], update["status"]) for update in heard["orderUpdates"]] == [
        (11, "open"),
        (12, "open"),
    ]
    orders = {order["oid"]: order for order in heard["openOrders"]["orders"]}
    assert {oid: order["children"] for oid, order in orders.items()} == {1: [], 11: [orders[12]], 12: []}
    assert heard["webData2"]["openOrders"] == heard["openOrders"]["orders"]
    assert heard["webData2"]["openOrders"] == asker(world)("frontendOpenOrders", **OF_ALICE)
    assert orders[12]["triggerCondition"] == "Price below 58000" and orders[12]["tif"] is None
    book = heard["l4Book"]["Updates"]
    assert [diff["oid"] for diff in book["book_diffs"]] == [11]
    assert [status["order"]["oid"] for status in book["order_statuses"]] == [11, 12]
    newest = asker(world)("historicalOrders", **OF_ALICE)[:2]
    assert {entry["order"]["oid"]: entry["status"] for entry in newest} == {11: "open", 12: "open"}


def test_history_begins_with_last_words_and_goes_on_with_every_status(world, feed):
    reader = Reader(feed, {"type": "userHistoricalOrders", **OF_ALICE})
    (first,) = reader.take("userHistoricalOrders")
    assert (first["isSnapshot"], first["user"]) == (True, ALICE)
    assert first["orderHistory"] == asker(world)("historicalOrders", user=ALICE)
    with world.block() as block:
        block.remove(1)
        block.status("BTC", BOB, "B", "1", "1", 5, "badAloPxRejected")
        block.open("ETH", ALICE, "B", "2900", "1", 6)
    feed.turn(1)
    (second,) = reader.take("userHistoricalOrders")
    assert "isSnapshot" not in second
    told = [(order["order"]["oid"], order["status"]) for order in second["orderHistory"]]
    assert told == [(1, "canceled"), (6, "open")]
    assert second["orderHistory"][1]["order"]["tif"] == "Gtc"


def test_the_ledger_begins_with_a_snapshot_and_goes_on_with_each_block(world, feed):
    reader = Reader(feed, {"type": "userNonFundingLedgerUpdates", **OF_ALICE})
    (first,) = reader.take("userNonFundingLedgerUpdates")
    assert first["isSnapshot"] is True
    assert [entry["delta"]["usdc"] for entry in first["nonFundingLedgerUpdates"]] == ["1000.0"]
    with world.block() as block:
        block.money(ALICE, codes.Ledger.SEND, -1_000_000, BOB)
        block.money(BOB, codes.Ledger.SEND, 1_000_000, ALICE)
        block.money(ALICE, codes.Ledger.WITHDRAW, -2_000_000)
    feed.turn(1)
    (second,) = reader.take("userNonFundingLedgerUpdates")
    assert "isSnapshot" not in second
    kinds = [entry["delta"]["type"] for entry in second["nonFundingLedgerUpdates"]]
    assert kinds == ["internalTransfer", "withdraw"]


def test_funding_is_told_apart_from_the_rest_and_liquidations_with_it(world, feed):
    names = ("userFundings", "userNonFundingLedgerUpdates", "userEvents")
    reader = Reader(feed, *({"type": name, **OF_ALICE} for name in names))
    first = dict(reader.take())
    assert first["userFundings"] == {"isSnapshot": True, "user": ALICE, "fundings": []}
    with world.block() as block:
        paid = {"size": 2_000_000, "rate": -40_000, "samples": 719, "coin": "BTC"}
        block.money(ALICE, codes.Ledger.FUNDING, 480_000, **paid)
        block.money(ALICE, codes.Ledger.TAKEN, 0, BOB, coin="BTC", price=12_000_000, size=90_000_000)
    feed.turn(1)
    told = reader.take()
    (hour,) = next(data for name, data in told if name == "userFundings")["fundings"]
    assert {key: hour[key] for key in ("coin", "usdc", "fundingRate", "nSamples")} == {
        "coin": "BTC", "usdc": "0.48", "fundingRate": "-0.000004", "nSamples": 719,
    }  # fmt: skip
    (rest,) = next(data for name, data in told if name == names[1])["nonFundingLedgerUpdates"]
    assert (rest["delta"]["type"], rest["delta"]["leverageType"]) == ("liquidation", "Isolated")
    funding, liquidation = (data for name, data in told if name == "user")
    assert funding == {"funding": hour}
    lid = liquidation["liquidation"].pop("lid")
    assert lid > 0 and liquidation == {
        "liquidation": {
            "liquidator": BOB, "liquidated_user": ALICE, "liquidated_ntl_pos": "90.0",
            "liquidated_account_value": "12.0",
        }
    }  # fmt: skip


def test_what_there_is_not_is_told_once_and_empty(world, feed):
    empty = {
        "spotState": {"user": ALICE, "spotState": {"balances": []}},
        "twapStates": {"dex": "", "user": ALICE, "states": []},
        "userTwapSliceFills": {"isSnapshot": True, "user": ALICE, "twapSliceFills": []},
        "userTwapHistory": {"isSnapshot": True, "user": ALICE, "history": []},
        "spotAssetCtxs": [],
    }
    reader = Reader(feed, *({"type": kind, **OF_ALICE} for kind in empty))
    assert dict(reader.take()) == empty
    with world.block() as block:
        block.funds(ALICE, cash=1)
    feed.tick(SECOND)
    feed.turn(SECOND)
    assert reader.take() == []


# --- contexts ----------------------------------------------------------------------------------------------


def test_a_context_follows_the_book_and_the_trades_of_its_market(world, feed):
    reader = Reader(feed, {"type": "activeAssetCtx", "coin": "BTC"})
    (first,) = reader.take("activeAssetCtx")
    assert first == {"coin": "BTC", "ctx": asker(world)("metaAndAssetCtxs")[1][0]}
    with world.block() as block:
        block.open("BTC", ALICE, "B", "60000", "0.01", 4)
    feed.turn(1)
    assert [data["ctx"]["midPx"] for data in reader.take("activeAssetCtx")] == ["60000.5"]
    trade(world, "BTC", "60500")
    feed.turn(1)
    assert [data["ctx"]["markPx"] for data in reader.take("activeAssetCtx")] == ["60500.0"]
    trade(world, "ETH", "3050")
    feed.turn(1)
    assert reader.take() == []


def test_a_day_ends_without_a_trade(world, feed):
    trade(world, "BTC", "60500", time_ms=NOW_MS)
    feed.turn(1)
    reader = Reader(feed, {"type": "activeAssetCtx", "coin": "BTC"})
    assert reader.take("activeAssetCtx")[0]["ctx"]["dayBaseVlm"] == "0.5"
    with world.block(time_ms=NOW_MS + 2 * 86_400_000) as block:
        block.funds(ALICE, cash=1)
    feed.turn(1)
    feed.tick(SECOND)
    feed.turn(SECOND)
    assert [data["ctx"]["dayBaseVlm"] for data in reader.take("activeAssetCtx")] == ["0.0"]


def test_all_contexts_in_the_order_of_the_universe(world, feed):
    reader = Reader(feed, {"type": "assetCtxs", "dex": ""}, {"type": "allDexsAssetCtxs"})
    contexts = asker(world)("metaAndAssetCtxs")[1]
    assert reader.take() == [
        ("assetCtxs", {"dex": "", "ctxs": contexts}), ("allDexsAssetCtxs", {"ctxs": [["", contexts]]}),
    ]  # fmt: skip
    assert Reader(feed, {"type": "assetCtxs", "dex": "x"}).take() == [("assetCtxs", {"dex": "x", "ctxs": []})]


# --- candles -----------------------------------------------------------------------------------------------


def candles(world, interval="1m"):
    return asker(world)("candleSnapshot", req={"coin": "BTC", "interval": interval, "startTime": 0})


CANDLE = {"type": "candle", "coin": "BTC", "interval": "1m"}


def test_a_candle_is_told_first_and_whenever_it_moves(world, feed):
    reader = Reader(feed, CANDLE)
    assert reader.take() == [], "there is none yet"
    for tid, price in enumerate(("60000", "60010", "59990")):
        trade(world, "BTC", price, tid=tid, time_ms=NOW_MS + tid)
        feed.turn(1)
        assert reader.take("candle") == candles(world)
    assert Reader(feed, CANDLE).take("candle") == candles(world)
    trade(world, "ETH", "3000")
    feed.turn(1)
    assert reader.take() == []


def test_nobody_misses_how_a_candle_ended(world, feed):
    trade(world, "BTC", "60000", time_ms=NOW_MS)
    reader = Reader(feed, CANDLE)
    reader.take()
    feed.turn(1)
    reader.take()
    for tid, after_ms in enumerate((1_000, 59_999, 60_000, 150_000)):  # all before the gateway looks again
        trade(world, "BTC", 60_001 + tid, tid=tid, time_ms=NOW_MS + after_ms)
    feed.turn(1)
    assert reader.take("candle") == candles(world)
    assert [candle["n"] for candle in candles(world)] == [3, 1, 1]


@pytest.mark.parametrize("seed", range(3))
def test_the_last_that_was_said_of_each_candle_is_that_candle(world, feed, seed):
    chance, time_ms, told = random.Random(seed), NOW_MS, {}
    reader = Reader(feed, CANDLE, {**CANDLE, "interval": "1h"})
    for tid in range(40):
        time_ms += chance.choice([0, 10_000, 70_000])
        trade(world, "BTC", chance.randrange(59_000, 61_000), tid=tid, time_ms=time_ms)
        if chance.random() < 0.5:
            feed.turn(1)
        told |= {(candle["i"], candle["t"]): candle for candle in reader.take("candle")}
    feed.turn(1)
    told |= {(candle["i"], candle["t"]): candle for candle in reader.take("candle")}
    for interval in ("1m", "1h"):
        kept = candles(world, interval)
        assert [told[interval, candle["t"]] for candle in kept] == kept
        assert len(kept) == KEPT or len(told) >= len(kept)


# --- what goes wrong ---------------------------------------------------------------------------------------


def test_after_a_gap_nothing_is_missing(world):
    """The ring has 1024 events: whoever sleeps through more of them is told the rest of everything."""
    feed = feed_of(world)
    kinds = ("userNonFundingLedgerUpdates", "userHistoricalOrders", "clearinghouseState", "userTwapHistory")
    reader = Reader(feed, CANDLE, *({"type": kind, **OF_ALICE} for kind in kinds))
    reader.take()
    with world.block() as block:
        block.money(ALICE, codes.Ledger.DEPOSIT, 5_000_000)
        block.funds(ALICE, cash=9_000_000, used=0)
        block.twap(ALICE, 7, "BTC")
        block.remove(1)
    trade(world, "BTC", "60000")
    for oid in range(100, 700):
        with world.block() as block:
            block.open("ETH", BOB, "B", "1", "1", oid)
    feed.turn(1)
    heard = {channel: data for channel, data in reader.take() if channel != "feedStatus"}
    assert heard["candle"] == candles(world)[-1]
    (entry,) = heard["userNonFundingLedgerUpdates"]["nonFundingLedgerUpdates"]
    assert entry["delta"]["usdc"] == "5.0"
    assert [entry["twapId"] for entry in heard["userTwapHistory"]["history"]] == [7]
    assert heard["userHistoricalOrders"]["isSnapshot"] is True, "it begins anew"
    assert heard["userHistoricalOrders"]["orderHistory"][0]["status"] == "canceled"
    assert heard["clearinghouseState"]["clearinghouseState"]["marginSummary"]["accountValue"] == "9.0"


def test_a_new_world_is_told_from_where_the_old_one_ended(world, feed):
    reader = Reader(feed, CANDLE, {"type": "clearinghouseState", **OF_ALICE})
    trade(world, "BTC", "60000", time_ms=NOW_MS)
    feed.turn(1)
    reader.take()
    again = Exchange(epoch=2, height=int(world.status["height"][0]))
    again.market("BTC", 5, price="60000")
    trade(again, "BTC", "60000", time_ms=NOW_MS)
    with again.block(time_ms=NOW_MS) as block:
        block.trade("BTC", CAROL, BOB, "B", "60100", "0.5", tid=2)
        block.funds(ALICE, cash=3_000_000)
    feed.adopt(Mapped(again.reader()), 2)
    heard = dict(reader.take())
    assert heard["candle"] == candles(again)[-1]
    assert heard["clearinghouseState"]["clearinghouseState"]["withdrawable"] == "3.0"


def test_a_new_world_is_waited_for_until_it_has_its_markets(world, feed):
    wanted = {"type": "activeAssetData", "coin": "ETH", **OF_ALICE}
    reader = Reader(feed, wanted, {"type": "activeAssetCtx", "coin": "ETH"}, {"type": "assetCtxs"})
    reader.take()
    again = Exchange(epoch=2)
    feed.adopt(Mapped(again.reader()), 2)
    assert [channel for channel, _ in reader.take() if channel != "feedStatus"] == ["assetCtxs"]
    again.market("ETH", 4, price="2000")
    with again.block() as block:
        block.funds(ALICE, cash=1_000_000)
    feed.turn(3)
    heard = dict(reader.take())
    assert heard["activeAssetData"] == asker(again)("activeAssetData", user=ALICE, coin="ETH")
    assert heard["activeAssetCtx"]["ctx"]["markPx"] == "2000.0"


def test_a_slow_reader_of_accounts_gets_the_newest(world):
    limits = FanoutLimits(ring_bytes=512, lag_bytes_max=4096, direct_bytes_max=8192)
    feed = feed_of(world, FeedLimits(fanout=limits))
    reader = Reader(feed, {"type": "clearinghouseState", **OF_ALICE})
    reader.take()
    reader.client.blocked = True
    for cash in range(1, 100):
        with world.block() as block:
            block.funds(ALICE, cash=cash * 1_000_000, used=0)
        feed.turn(1)
    reader.drain()
    assert [
        data["clearinghouseState"]["marginSummary"]["accountValue"]
        for data in reader.take("clearinghouseState")
    ] == ["99.0"]
