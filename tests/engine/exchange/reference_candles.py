"""Candles as a calendar would have them: datetimes, a dict, no cleverness."""

from datetime import UTC, datetime, timedelta

from shm.codes import INTERVALS_MS

DAY = timedelta(days=1)


def start_of(time_ms: int, interval: str) -> int:
    """When the candle that holds `time_ms` began."""
    at = datetime.fromtimestamp(time_ms // 1000, UTC)
    midnight = at.replace(hour=0, minute=0, second=0)
    if interval == "1M":
        return milliseconds(midnight.replace(day=1))
    if interval == "1w":
        return milliseconds(midnight - at.weekday() * DAY)
    return time_ms - time_ms % INTERVALS_MS[interval]


def milliseconds(at: datetime) -> int:
    return int(at.timestamp()) * 1000


def candles_of(trades: list[tuple[int, int, int]], interval: str) -> list[tuple[int, ...]]:
    """The candles of trades (time_ms, price, quantity), oldest first, as tuples in the order of CANDLE."""
    held: dict[int, list[tuple[int, int]]] = {}
    for time_ms, price, quantity in trades:
        held.setdefault(start_of(time_ms, interval), []).append((price, quantity))
    out = []
    for start_ms, mine in held.items():
        prices = [price for price, _ in mine]
        volume, notional = sum(q for _, q in mine), sum(p * q for p, q in mine)
        out.append((start_ms, prices[0], max(prices), min(prices), prices[-1], volume, notional, len(mine)))
    return out
