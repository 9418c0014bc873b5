"""The reference follower against the captured log, and its bucketing against figures worked out by hand."""

import json
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import pytest

from tests import recorded, reference_book
from tests.reference_book import ReferenceBook, Unexplained

USER = "0x" + "1" * 40


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return json.loads(recorded.snapshot_path(tmp_path_factory.mktemp("snapshot")).read_bytes())


@pytest.mark.parametrize("form", ["by_block", "streaming"])
def test_the_capture_ends_as_its_publisher_says(form, snapshot, tmp_path):
    root, expected = recorded.extract(tmp_path, form), recorded.quotes()
    book, matched = ReferenceBook(), set()
    book.load(snapshot)
    assert len(book.orders) == 51_351
    for block in reference_book.read_blocks(root, form):
        book.apply(block)
        if book.time_ms in expected:
            bid, ask = book.best("BTC")
            assert (*bid, *ask) == expected[book.time_ms], book.height
            matched.add(book.time_ms)
    assert len(matched) == 49
    assert book.height == recorded.LAST_HEIGHT
    assert len(book.orders) == recorded.ORDERS_AT_END
    assert sum(map(len, book.book("BTC"))) == recorded.ORDERS_AT_END
    assert (len(book.trades), book.unpaired) == (11, [])


def test_levels_sum_their_orders(snapshot):
    book = ReferenceBook()
    book.load(snapshot)
    for side, levels in zip(book.book("BTC"), book.levels("BTC"), strict=True):
        assert sum(count for _, _, count in levels) == len(side)
        assert sum(Decimal(size) for _, size, _ in levels) == sum(Decimal(order["sz"]) for order in side)


@pytest.mark.parametrize(
    ("price", "figures", "mantissa", "bid", "ask"),
    [
        ("106217.0", 5, 1, "106210.0", "106220.0"),
        ("106217.0", 5, 2, "106200.0", "106220.0"),
        ("106217.0", 5, 5, "106200.0", "106250.0"),
        ("106217.0", 2, 1, "100000.0", "110000.0"),
        ("81307.0", 5, 1, "81307.0", "81307.0"),
        ("38.142", 4, 1, "38.14", "38.15"),
        ("0.0011234", 3, 1, "0.00112", "0.00113"),
        ("9.9999", 2, 1, "9.9", "10.0"),
    ],
)
def test_buckets(price, figures, mantissa, bid, ask):
    rounded = [
        reference_book.bucket(Decimal(price), figures, mantissa, away)
        for away in (ROUND_FLOOR, ROUND_CEILING)
    ]
    assert [reference_book.text(value) for value in rounded] == [bid, ask]


def order(oid, **changes):
    plain = {"coin": "BTC", "side": "B", "limitPx": "100.0", "sz": "1.0", "oid": oid, "timestamp": 1}
    return plain | {"isTrigger": False, "triggerPx": "0.0", "triggerCondition": "N/A", "tif": "Gtc"} | changes


def diff(oid, change, **changes):
    return {
        "user": USER,
        "oid": oid,
        "coin": "BTC",
        "side": "B",
        "px": "100.0",
        "raw_book_diff": change,
    } | changes


def block(height, statuses=(), diffs=(), fills=()):
    time = "2026-01-01T00:00:00.123456789"
    statuses = [{"time": time, "user": USER, "status": status, "order": order} for status, order in statuses]
    return {
        "height": height,
        "time": time,
        "order_statuses": statuses,
        "raw_book_diffs": diffs,
        "fills": fills,
    }


def test_a_trigger_order_waits_then_rests():
    book, stop = ReferenceBook(), order(5, isTrigger=True, triggerPx="90.0", tif=None)
    book.apply(block(1, [("open", stop)]))
    assert (list(book.triggers), book.orders) == ([5], {})
    assert list(book.open_orders(USER)) == [5]
    book.apply(block(2, [("triggered", stop)], [diff(5, {"new": {"sz": "0.5"}})]))
    assert book.triggers == {}
    assert (book.orders[5]["sz"], book.orders[5]["tif"]) == ("0.5", "Gtc")
    assert book.best("BTC") == (("100.0", "0.5", 1), None)


def test_a_cancelled_trigger_order_waits_no_more():
    book, stop = ReferenceBook(), order(5, isTrigger=True, triggerPx="90.0", tif=None)
    book.apply(block(1, [("open", stop)]))
    book.apply(block(2, [("canceled", stop)]))
    assert book.open_orders(USER) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        block(1, diffs=[diff(5, "remove")]),
        block(1, diffs=[diff(5, {"new": {"sz": "1.0"}})]),  # no status
        block(3),
        block(1, [("open", order(4))], [diff(4, {"new": {"sz": "1.0"}}), diff(4, {"new": {"sz": "1.0"}})]),
        block(
            1,
            [("open", order(4))],
            [diff(4, {"new": {"sz": "1.0"}}), diff(4, {"update": {"origSz": "2.0", "newSz": "1.0"}})],
        ),
    ],
)
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(Unexplained):
        ReferenceBook().apply(wrong)


def test_fills_pair_by_trade_and_the_lonely_are_kept_apart():
    def fill(side, tid, crossed):
        shape = {"coin": "BTC", "px": "100.0", "sz": "1.0", "time": 1, "hash": "0x0"}
        return [f"{side}{tid}", shape | {"side": side, "tid": tid, "crossed": crossed}]

    book = ReferenceBook()
    book.apply(
        block(1, fills=[fill("A", 0, True), fill("B", 7, False), fill("A", 7, True), fill("A", 0, True)])
    )
    assert [(trade["tid"], trade["side"], trade["users"]) for trade in book.trades] == [
        (7, "A", ["B7", "A7"])
    ]
    assert [user for user, _ in book.unpaired] == ["A0", "A0"]
