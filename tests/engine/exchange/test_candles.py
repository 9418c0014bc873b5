"""The candles of a market are those of a calendar, whatever trades when."""

import random
from datetime import UTC, datetime

import numpy as np
import pytest
from numba import njit

from engine.exchange import candles
from shm.codes import INTERVALS_MS
from shm.layout import CANDLE, CANDLE_HEAD
from tests.engine.exchange.reference_candles import candles_of, start_of

YEAR_MS = 366 * candles.DAY_MS
KEPT = 40


@njit
def starts(times_ms, length_ms, out):
    for i in range(len(times_ms)):
        out[i] = candles.start_of(times_ms[i], length_ms)


@njit
def take(heads, rows, market, trades):
    for i in range(len(trades)):
        candles.take_trade(heads, rows, market, trades[i, 0], trades[i, 1], trades[i, 2])


def kept(heads, rows, market, place):
    """The candles of one interval that are still there, oldest first, as tuples."""
    at, each = market * len(INTERVALS_MS) + place, len(rows) // len(heads)
    count = int(heads[at]["count"])
    numbers = range(max(0, count - each), count)
    return [rows[at * each + number % each].item() for number in numbers]


@pytest.mark.parametrize("interval", INTERVALS_MS)
def test_a_candle_begins_where_the_calendar_says(interval):
    chance = random.Random(interval)
    times = [chance.randrange(300 * YEAR_MS) for _ in range(3000)]
    months = [datetime(year, month, 1, tzinfo=UTC) for year in range(1970, 2110) for month in range(1, 13)]
    firsts = [int(month.timestamp()) * 1000 for month in months]
    times += [first + off for first in firsts[1:] for off in (-1, 0, 1)]
    out = np.zeros(len(times), np.int64)
    starts(np.array(times), INTERVALS_MS[interval], out)
    assert out.tolist() == [start_of(time_ms, interval) for time_ms in times]


@pytest.mark.parametrize("seed", range(8))
def test_candles_are_those_of_the_trades(seed):
    chance = random.Random(seed)
    step_ms = chance.choice([1_000, 40_000, candles.DAY_MS, 20 * candles.DAY_MS])
    heads = np.zeros(2 * len(INTERVALS_MS), CANDLE_HEAD)
    rows = np.zeros(len(heads) * KEPT, CANDLE)
    told, time_ms = ([], []), chance.randrange(100 * YEAR_MS)
    for _ in range(400):
        time_ms += chance.randrange(step_ms)
        market = chance.randrange(2)
        told[market].append((time_ms, chance.randint(900, 1100), chance.randint(1, 50)))
        take(heads, rows, market, np.array(told[market][-1:]))
    for market in range(2):
        for place, interval in enumerate(INTERVALS_MS):
            expected = candles_of(told[market], interval)
            assert heads[market * len(INTERVALS_MS) + place]["count"] == len(expected), interval
            assert kept(heads, rows, market, place) == expected[-KEPT:], interval


def test_a_week_begins_on_monday_and_a_month_on_its_first():
    monday = datetime(2024, 2, 26, tzinfo=UTC)
    leap_day = np.array([int(datetime(2024, 2, 29, 23, tzinfo=UTC).timestamp()) * 1000])
    out = np.zeros(1, np.int64)
    starts(leap_day, INTERVALS_MS["1w"], out)
    assert out[0] == monday.timestamp() * 1000
    starts(leap_day, candles.MONTH, out)
    assert out[0] == datetime(2024, 2, 1, tzinfo=UTC).timestamp() * 1000
