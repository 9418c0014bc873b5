"""The simulated market keeps price-time priority and logs an order's life as a node does."""

import json

import pytest

from scripts.simulated_market import (
    BUY,
    DIFFS,
    FILLS,
    HIP2,
    SELL,
    SPECS,
    STATUSES,
    Accounts,
    Block,
    Market,
    Order,
    decimal_text,
    time_text,
)

BTC = SPECS["BTC"]
COIN = 100_000  # lots


@pytest.fixture
def market():
    return Market(BTC, Accounts())


@pytest.fixture
def block():
    return Block(7, 1_767_225_600_123_456_789)


def order(block, side, usd, lots=COIN, tif="Gtc", user="0xa", **others):
    return Order(block.take_oid(), user, side, usd * 10, lots, tif, block.time_ms, **others)


def told(block, stream):
    return [json.loads(text) for of, text in block.events if of == stream]


def lives(block):
    return [(status["order"]["oid"] % 100, status["status"]) for status in told(block, STATUSES)]


def changes(block):
    return [(diff["oid"] % 100, diff["raw_book_diff"]) for diff in told(block, DIFFS)]


def test_the_best_price_is_taken_first_then_the_oldest(market, block):
    for usd in (101, 100, 100):
        market.place(block, order(block, SELL, usd, user="0xb"))
    market.place(block, order(block, BUY, 101, lots=5 * COIN // 2))
    fills = [fill for _, fill in told(block, FILLS)]
    assert [(fill["oid"] % 100, fill["px"], fill["sz"]) for fill in fills if not fill["crossed"]] == [
        (1, "100.0", "1.0"),
        (2, "100.0", "1.0"),
        (0, "101.0", "0.5"),
    ]
    assert [fill["side"] for fill in fills] == [BUY, SELL] * 3
    assert lives(block)[3:] == [(3, "open"), (1, "filled"), (2, "filled"), (3, "filled")]
    assert changes(block)[3:] == [
        (1, "remove"),
        (2, "remove"),
        (0, {"update": {"origSz": "1.0", "newSz": "0.5"}}),
    ]
    assert [resting.oid % 100 for resting in market.in_priority(SELL)] == [0]


def test_what_a_limit_order_does_not_trade_rests_with_its_first_size_told(market, block):
    market.place(block, order(block, SELL, 100, user="0xb"))
    market.place(block, order(block, BUY, 100, lots=3 * COIN))
    assert told(block, STATUSES)[1]["order"]["sz"] == "3.0"
    assert changes(block)[1:] == [(0, "remove"), (1, {"new": {"sz": "2.0"}})]


def test_immediate_orders_never_rest(market, block):
    market.place(block, order(block, BUY, 100, tif="Ioc"))
    market.place(block, order(block, SELL, 100, user="0xb"))
    market.place(block, order(block, BUY, 100, lots=2 * COIN, tif="Ioc"))
    assert lives(block) == [
        (0, "iocCancelRejected"),
        (1, "open"),
        (2, "open"),
        (1, "filled"),
        (2, "canceled"),
    ]
    assert told(block, STATUSES)[-1]["order"]["sz"] == "1.0"
    assert market.orders == {}


def test_post_only_orders_never_take(market, block):
    market.place(block, order(block, SELL, 100, user="0xb"))
    market.place(block, order(block, BUY, 100, tif="Alo"))
    market.place(block, order(block, BUY, 99, tif="Alo"))
    assert lives(block)[1:] == [(1, "badAloPxRejected"), (2, "open")]
    assert told(block, FILLS) == []


def test_nobody_trades_with_himself(market, block):
    market.place(block, order(block, SELL, 100))
    market.place(block, order(block, BUY, 100))
    assert lives(block) == [(0, "open"), (1, "open"), (0, "selfTradeCanceled")]
    assert told(block, FILLS) == []
    assert list(market.orders) == [block.height * Block.ORDERS_MAX + 1]


def test_a_small_order_is_refused(market, block):
    market.place(block, order(block, BUY, 100, lots=COIN // 10 - 1))
    market.place(block, order(block, BUY, 100, lots=COIN // 10))
    assert lives(block) == [(0, "minTradeNtlRejected"), (1, "open")]


@pytest.mark.parametrize(("above", "calm", "firing"), [(True, 1_049, 1_050), (False, 1_051, 1_050)])
def test_a_trigger_order_waits_for_its_price(market, block, above, calm, firing):
    stop = order(block, BUY, 100, tif=None, trigger_price=1_050, trigger_above=above)
    market.place_trigger(block, stop, calm)
    market.fire(block, calm)
    assert (lives(block), changes(block)) == ([(0, "open")], [])
    market.fire(block, firing)
    assert lives(block)[1:] == [(0, "triggered")]
    assert changes(block) == [(0, {"new": {"sz": "1.0"}})]
    first, last = (status["order"] for status in told(block, STATUSES))
    assert first["isTrigger"] and last["isTrigger"] and last["tif"] is None
    assert first["triggerCondition"] == f"Price {'above' if above else 'below'} 105"
    resting = json.loads(market.orders[stop.oid].text(BTC))
    assert (resting["isTrigger"], resting["triggerCondition"], resting["tif"]) == (False, "Triggered", "Gtc")


def test_a_trigger_order_on_the_wrong_side_is_refused(market, block):
    market.place_trigger(
        block, order(block, BUY, 100, tif=None, trigger_price=1_050, trigger_above=True), 1_050
    )
    assert lives(block) == [(0, "badTriggerPxRejected")]
    assert market.triggers == {}


def test_children_follow_their_parent(market, block):
    def parent():
        child = order(block, SELL, 100, tif=None, trigger_price=2_000, trigger_above=True)
        return order(block, BUY, 100, children=[child])

    lost, filled = parent(), parent()
    market.place(block, lost)
    market.cancel(block, lost)
    assert lives(block) == [(1, "open"), (1, "canceled"), (0, "canceled")]
    market.place(block, filled)
    market.place(block, order(block, SELL, 100, user="0xb"))
    assert lives(block)[-2:] == [(2, "open"), (4, "filled")]
    assert [oid % 100 for oid in market.triggers] == [2]


def test_the_silent_maker_has_diffs_and_fills_only(market, block):
    market.place(block, order(block, SELL, 100, user=HIP2))
    market.place(block, order(block, BUY, 100))
    assert {status["user"] for status in told(block, STATUSES)} == {"0xa"}
    assert changes(block) == [(0, {"new": {"sz": "1.0"}}), (0, "remove")]
    assert [user for user, _ in told(block, FILLS)] == ["0xa", HIP2]


def test_fills_tell_the_position_and_what_was_closed(market, block):
    for side, usd, lots in ((BUY, 100, COIN), (SELL, 110, COIN // 2), (SELL, 90, COIN)):
        market.place(block, order(block, SELL if side == BUY else BUY, usd, lots, user="0xb"))
        market.place(block, order(block, side, usd, lots))
    mine = [fill for user, fill in told(block, FILLS) if user == "0xa"]
    assert [(fill["startPosition"], fill["dir"], fill["closedPnl"]) for fill in mine] == [
        ("0.0", "Open Long", "0.0"),
        ("1.0", "Close Long", "5.0"),
        ("0.5", "Long > Short", "-5.0"),
    ]


def test_prices_are_legal():
    assert SPECS["SOL"].legal_price(841_237) == 841_230  # five figures
    assert BTC.legal_price(1_234_567) == 1_234_560  # whole dollars, however many figures
    assert SPECS["PURR/USDC"].legal_price(11_234_567) == 11_234_000


def test_time_text():
    assert time_text(1_767_225_600_000_000_007) == "2026-01-01T00:00:00.000000007"


@pytest.mark.parametrize(
    ("value", "decimals", "expected"),
    [(0, 5, "0.0"), (813_070, 1, "81307.0"), (5, 5, "0.00005"), (-150, 2, "-1.5"), (7, 0, "7.0")],
)
def test_decimal_text(value, decimals, expected):
    assert decimal_text(value, decimals) == expected


def test_oids_of_two_blocks_never_meet():
    one, two = Block(7, 0), Block(8, 0)
    last = [one.take_oid() for _ in range(Block.ORDERS_MAX)][-1]
    assert last < two.take_oid()
    with pytest.raises(AssertionError):
        one.take_oid()
