"""What an account was worth over a day, a week, a month, and ever: samples of the archive, joined to now.

A replica samples accounts at the first block of each hour (engine/replica/equity.py). A period is told by its
first sample, by the first one of each of its stretches (an hour of a day, some days of a whole life), and by
what the account has now, at the mark. Each point is exact at its time: its value is accountValue as
clearinghouseState has it, its profit is what that has grown by since the period's first point, beyond what
was paid in. So is the volume: that of the account between the first point and the last.

An account that began within the period begins with nothing. Where an archive began later than the period,
so does what is told; without one there is only now, and the volume is that of the fills still in memory.
"""

from typing import Any, NamedTuple

import numpy as np

from gateway import accounts
from gateway.accounts import Account
from gateway.codec import encode as json
from gateway.contracts import DAY_MS, HOUR_MS, usd
from gateway.older import Sampled, finished
from gateway.world import Array, World
from shm.archived import SAMPLE_MS

POINTS_MAX = 100  # of a period
FILLS_SEARCHED = 10_000  # of an account, for what it has traded within a period


class Period(NamedTuple):
    """length_ms: None: since ever. stretch_ms: of its points, each the first sample in there."""

    name: str
    length_ms: int | None
    stretch_ms: int


PERIODS = (
    Period("day", DAY_MS, HOUR_MS),
    Period("week", 7 * DAY_MS, 2 * HOUR_MS),
    Period("month", 30 * DAY_MS, 8 * HOUR_MS),
    Period("allTime", None, DAY_MS),
)


class Point(NamedTuple):
    """gained: its value beyond what was paid in, less what was paid out."""

    time_ms: int
    value: int
    gained: int
    volume: int


def told(world: World, row: int | None) -> bytes:
    """The portfolio of the account in this row, in the wire's form. Raises Elsewhere, NotNow."""
    if row is None:
        return _text({period.name: _told([], 0) for period in PERIODS})
    account = accounts.read(world, row)
    wanted = tuple(_samples(account, row, period) for period in PERIODS)
    recent = world.fills(row, FILLS_SEARCHED)

    def finish(older: list[Array]) -> bytes:
        periods = zip(PERIODS, older, strict=True)
        return _text({period.name: _period(account, period, found, recent) for period, found in periods})

    if all(each.since >= _hour_of(each.until) for each in wanted):  # no hour has begun since
        return finish([np.zeros(0, each.table.dtype) for each in wanted])
    return finished(wanted, finish)


def _samples(account: Account, row: int, period: Period) -> Sampled:
    """Those of before now: what the account has now is the period's last point."""
    now_ms, began_ms = account.now_ms, int(account.funds["created_ms"])
    since_ms = began_ms + 1 if _began_within(account, period) else now_ms - (period.length_ms or now_ms)
    stretches = -(-(now_ms - since_ms) // (POINTS_MAX * period.stretch_ms))  # more than one: if it is long
    return Sampled(row, since_ms, now_ms - 1, max(stretches, 1) * period.stretch_ms)


def _hour_of(time_ms: int) -> int:
    return time_ms - time_ms % SAMPLE_MS


def _began_within(account: Account, period: Period) -> bool:
    began_ms = int(account.funds["created_ms"])
    return period.length_ms is None or began_ms >= account.now_ms - period.length_ms


def _period(account: Account, period: Period, samples: Array, recent: Array) -> dict[str, Any]:
    """samples: EQUITY[], oldest first. recent: FILL[], what it has traded as far as that is in memory."""
    points = [Point(int(account.funds["created_ms"]), 0, 0, 0)] if _began_within(account, period) else []
    for time_ms, value, deposited, volume in samples.tolist():
        points.append(Point(time_ms, value, value - deposited, volume))
    points.append(_now(account))
    if len(points) > 1:
        return _told(points, points[-1].volume - points[0].volume)
    within = recent[recent["time_ms"] >= account.now_ms - (period.length_ms or account.now_ms)]
    return _told(points, int((within["price"] * within["quantity"]).sum()))


def _now(account: Account) -> Point:
    gained = account.value - int(account.funds["deposited"])
    return Point(account.now_ms, account.value, gained, int(account.funds["volume"]))


def _told(points: list[Point], volume: int) -> dict[str, Any]:
    """Of a single point nobody knows what was gained before it."""
    values = [[point.time_ms, usd(point.value)] for point in points]
    grown = points if len(points) > 1 else []
    gains = [[point.time_ms, usd(point.gained - points[0].gained)] for point in grown]
    return {"accountValueHistory": values, "pnlHistory": gains, "vlm": usd(volume)}


def _text(periods: dict[str, dict[str, Any]]) -> bytes:
    """Everything is a perp here."""
    perps = {"perp" + name[0].upper() + name[1:]: period for name, period in periods.items()}
    return json(list({**periods, **perps}.items()))
