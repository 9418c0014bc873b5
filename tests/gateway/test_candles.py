"""Candles on the wire: what was traded, interval by interval, and nothing where nothing was."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from shm.codes import INTERVALS_MS
from tests.exchange_world import KEPT, Exchange, begins
from tests.gateway.test_accounts import asker
from tests.world import ALICE, BOB

FEBRUARY_MS = int(datetime(2024, 2, 1, tzinfo=UTC).timestamp()) * 1000
HOUR_MS = 3_600_000
TRADES = [  # ms after the beginning of February 2024, price, size
    (0, "100", "1"), (59_999, "103.5", "2"), (60_000, "99", "0.5"), (5 * HOUR_MS, "101", "1"),
    (29 * 24 * HOUR_MS, "120", "0.25"),
]  # fmt: skip


@pytest.fixture
def ask():
    world = Exchange()
    world.market("SOL", 2, price="100")
    for tid, (after_ms, price, size) in enumerate(TRADES):
        with world.block(time_ms=FEBRUARY_MS + after_ms) as block:
            block.trade("SOL", ALICE, BOB, "B", price, size, tid=tid)
    return asker(world)


def candles(ask, interval, start_ms=0, **more):
    return ask("candleSnapshot", req={"coin": "SOL", "interval": interval, "startTime": start_ms, **more})


def test_a_minute_is_told_as_the_wire_tells_it(ask):
    first, second, *_ = candles(ask, "1m")
    assert first == {
        "t": FEBRUARY_MS, "T": FEBRUARY_MS + 59_999, "s": "SOL", "i": "1m", "o": "100.0", "c": "103.5",
        "h": "103.5", "l": "100.0", "v": "3.0", "n": 2,
    }  # fmt: skip
    assert (second["t"], second["o"], second["n"]) == (FEBRUARY_MS + 60_000, "99.0", 1)


@pytest.mark.parametrize("interval", INTERVALS_MS)
def test_every_interval_is_the_sum_of_its_trades(ask, interval):
    told = candles(ask, interval)
    starts = [begins(FEBRUARY_MS + after_ms, interval) for after_ms, *_ in TRADES]
    assert [candle["t"] for candle in told] == sorted(set(starts)), "there is none where nothing was traded"
    for candle in told:
        mine = [trade for trade, start in zip(TRADES, starts, strict=True) if start == candle["t"]]
        prices = [Decimal(price) for _, price, _ in mine]
        told_prices = [Decimal(candle[key]) for key in "ohlc"]
        assert told_prices == [prices[0], max(prices), min(prices), prices[-1]]
        assert Decimal(candle["v"]) == sum(Decimal(size) for *_, size in mine)
        assert candle["n"] == len(mine)
        assert begins(candle["T"], interval) == candle["t"] != begins(candle["T"] + 1, interval)


def test_a_span_takes_those_that_begin_in_it(ask):
    minute = FEBRUARY_MS + 60_000
    assert [candle["t"] for candle in candles(ask, "1m", minute, endTime=minute)] == [minute]
    assert len(candles(ask, "1m", FEBRUARY_MS, endTime=minute)) == 2
    assert len(candles(ask, "1m", FEBRUARY_MS, endTime=None)) == 4
    assert candles(ask, "1m", minute + 1, endTime=minute + 2) == []
    assert ask("candleSnapshot", req={"coin": "NOPE", "interval": "1m", "startTime": 0}) == []


def test_only_the_newest_are_kept():
    world = Exchange()
    for tid in range(2 * KEPT):
        with world.block(time_ms=FEBRUARY_MS + 60_000 * tid) as block:
            block.trade("SOL", ALICE, BOB, "B", 100 + tid, "1", tid=tid)
    told = candles(asker(world), "1m")
    assert [candle["n"] for candle in told] == [1] * KEPT
    assert told[-1]["t"] == FEBRUARY_MS + 60_000 * (2 * KEPT - 1)
