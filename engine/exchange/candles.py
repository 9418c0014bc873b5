"""Candles of each market and interval, moved by one trade at a time.

The candles of market m and interval i (in the order of codes.INTERVALS_MS) are a ring of equal share of
`candles`; its head, candle_heads[m x INTERVALS + i], counts the candles ever begun. An interval without a
trade has none. Weeks begin on Monday, months on their first day, all at 00:00 UTC.
"""

import numpy as np

from shm import atomics
from shm.codes import INTERVALS_MS
from shm.kernel import inner

INTERVALS = len(INTERVALS_MS)
DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
MONTH = 0  # stands for a calendar month in `_LENGTHS`
MONTH_LEAST_MS = 28 * DAY_MS
_LENGTHS = np.array(list(INTERVALS_MS.values()), np.int64)

EPOCH_TO_MONDAY_MS = 4 * DAY_MS  # 1970 began on a Thursday
# civil dates: years that begin in March, in eras of 400 years, so that a leap day is the last of its year
EPOCH_IN_ERAS = 719_468  # days from 0000-03-01 to 1970-01-01
ERA_DAYS, CENTURY_DAYS, FOUR_YEARS_DAYS, YEAR_DAYS = 146_097, 36_524, 1_461, 365
FIVE_MONTHS_DAYS = 153  # March to July, and August to December


@inner
def _day_of_month(day):
    """Return how many days of its month lie before `day` (days since 1970): 0 on the first."""
    in_era = (day + EPOCH_IN_ERAS) % ERA_DAYS
    leaps = in_era // (FOUR_YEARS_DAYS - 1) - in_era // CENTURY_DAYS + in_era // (ERA_DAYS - 1)
    year = (in_era - leaps) // YEAR_DAYS
    in_year = in_era - (YEAR_DAYS * year + year // 4 - year // 100)
    month = (5 * in_year + 2) // FIVE_MONTHS_DAYS
    return in_year - (FIVE_MONTHS_DAYS * month + 2) // 5


@inner
def start_of(time_ms, length_ms):
    """Return when the candle that holds `time_ms` began. length_ms: one of INTERVALS_MS, or MONTH."""
    if length_ms == MONTH:
        day = time_ms // DAY_MS
        return (day - _day_of_month(day)) * DAY_MS
    offset = EPOCH_TO_MONDAY_MS if length_ms == WEEK_MS else 0
    return time_ms - (time_ms - offset) % length_ms


@inner
def _is_within(time_ms, start_ms, length_ms):
    """Whether the candle that began at `start_ms`, not after `time_ms`, holds it."""
    if length_ms == MONTH:
        return time_ms < start_ms + MONTH_LEAST_MS or start_of(time_ms, MONTH) == start_ms
    return time_ms < start_ms + length_ms


@inner
def take_trade(candle_heads, candles, market, time_ms, price, quantity):
    """Move the newest candle of all the market's intervals by one trade, or begin it. Time never falls.

    The market's row is open (shm/seqlock.py).
    """
    kept = len(candles) // len(candle_heads)
    for i in range(INTERVALS):
        head = candle_heads[market * INTERVALS + i]
        first = (market * INTERVALS + i) * kept
        candle = candles[first + (head.count - 1) % kept]
        if head.count == 0 or not _is_within(time_ms, candle.start_ms, _LENGTHS[i]):
            candle = candles[first + head.count % kept]
            candle.start_ms = start_of(time_ms, _LENGTHS[i])
            candle.open, candle.high, candle.low = price, price, price
            candle.volume, candle.notional, candle.count = 0, 0, 0
            atomics.store_release(head, "count", head.count + 1)
        candle.high, candle.low = max(candle.high, price), min(candle.low, price)
        candle.close = price
        candle.volume += quantity
        candle.notional += price * quantity
        candle.count += 1
