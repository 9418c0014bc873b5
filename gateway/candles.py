"""Candles of an exchange of our own: what was traded in a market, interval by interval.

An interval without a trade has no candle. Raises NotNow when the engine was met at work at every try.
"""

import numpy as np

from gateway.errors import NotNow
from gateway.older import Wanted, finished
from gateway.world import Array, World
from shm import account_rows, layout
from shm.archived import CANDLES
from shm.codes import INTERVALS_MS

CANDLES_MAX = 5000  # in one answer, as on the wire
COPY_TRIES = 64  # of up to 100 us
INTERVALS = list(INTERVALS_MS)
NEVER_MS = 2**62  # later than any candle


def series(market: int, interval: str) -> int:
    """The row of a market's interval in `candle_heads`."""
    return market * len(INTERVALS) + INTERVALS.index(interval)


def read(world: World, market: int, interval: str, start_ms: int, end_ms: int, most: int) -> Array:
    """The newest candles that begin within start_ms..end_ms (CANDLE[]), newest first."""
    arrays, out = world.arrays, np.zeros(most, layout.CANDLE)
    tables = arrays["markets"], arrays["candle_heads"], arrays["candles"]
    row = series(market, interval)
    count = account_rows.read_candles(*tables, market, row, start_ms, end_ms, out, COPY_TRIES)
    if count < 0:
        raise NotNow
    return out[:count]


def ends(starts_ms: Array, interval: str) -> Array:
    """The last millisecond of each candle, by when it began (i8[])."""
    if INTERVALS_MS[interval]:
        last: Array = starts_ms + (INTERVALS_MS[interval] - 1)
        return last
    months = starts_ms.astype("datetime64[ms]").astype("datetime64[M]")
    return (months + 1).astype("datetime64[ms]").astype(np.int64) - 1


def text(world: World, market: int, interval: str, candles: Array) -> bytes:
    """Candles as the wire tells them, joined by commas."""
    return world.candles_json(candles, ends(candles["start_ms"], interval), market, interval)


def snapshot(world: World, coin: str, interval: str, start_ms: int, end_ms: int | None) -> bytes:
    """The candles of a coin, oldest first, as a JSON list; none of a coin that is not known."""
    market = world.market(coin)
    if market is None:
        return b"[]"
    until_ms = NEVER_MS if end_ms is None else end_ms
    found = read(world, market, interval, start_ms, until_ms, CANDLES_MAX)
    row = series(market, interval)
    oldest = _oldest(world, row)
    is_all = len(found) == CANDLES_MAX or oldest is None or oldest <= start_ms
    joint = int(found["start_ms"][-1]) if len(found) else oldest or 0
    more = Wanted(CANDLES, row, joint, CANDLES_MAX - len(found), start_ms, until_ms)

    def finish(older: list[Array]) -> bytes:
        newest_first = np.concatenate([found, *older])
        return b"[%b]" % text(world, market, interval, newest_first[::-1].copy())

    return finished(() if is_all else (more,), finish)


def _oldest(world: World, row: int) -> int | None:
    """When the oldest candle of a series began that is still there; None: none was ever forgotten."""
    arrays = world.arrays
    kept, begun = (
        len(arrays["candles"]) // len(arrays["candle_heads"]),
        int(arrays["candle_heads"]["count"][row]),
    )
    return None if begun <= kept else int(arrays["candles"]["start_ms"][row * kept + begun % kept])
