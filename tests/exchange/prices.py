"""What the naive exchange knows of prices: moving means, the oracle's age, and the mark.

Fractions are exact until the rules say `floor`; nothing is kept that could be computed anew but the means,
which are histories by their nature.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import floor

from shm.codes import Oracle, Side, Trading

VALUE_MAX = 10**16  # open interest at the mark
HOUR_MS = 3_600_000
MARK_MS = 3000  # between two marks of a market that marks itself
OLD_MS, STOPPED_MS = 10_000, 60_000


@dataclass
class Mean:
    """An exponential mean, in thousandths, of samples that come when they come."""

    tau: int
    value: int | None = None
    weight: int = 0
    at_ms: int = 0

    def take(self, thousandths, now_ms):
        if self.value is None:
            self.value, self.weight, self.at_ms = thousandths, 1, now_ms
            return
        t = min(now_ms - self.at_ms, HOUR_MS)
        if t == 0:
            return
        self.weight = floor(Fraction(self.weight * self.tau, self.tau + t)) + t
        distance = thousandths - self.value
        step = floor(Fraction(abs(distance) * t, self.weight))
        self.value += step if distance > 0 else -step
        self.at_ms = now_ms

    def units(self, default):
        """The mean in whole units, rounded down."""
        return default if self.value is None else floor(Fraction(self.value, 1000))


def median(parts):
    """The middle one; of two in the middle their mean, rounded down."""
    parts = sorted(parts)
    half = len(parts) // 2
    return parts[half] if len(parts) % 2 else floor(Fraction(parts[half - 1] + parts[half], 2))


def hear_oracle(market, price, external, now_ms):
    """An oracle price and a perp's price elsewhere (0: none). Return whether the mark has changed."""
    market.oracle, market.external, market.oracle_ms = price, external, now_ms
    market.oracle_state = Oracle.LIVE
    touch = [market.best(side) for side in (Side.BUY, Side.SELL)]
    book = None
    if None not in touch:
        bid, ask = (order.price for order in touch)
        book = median([bid, ask, market.reference])
        market.basis.take(500 * (bid + ask) - 1000 * price, now_ms)
        market.smooth.take(1000 * book, now_ms)
    return market.mode != Trading.HALTED and set_mark(market, _mark_of(market, book), now_ms)


def _mark_of(market, book):
    parts = [max(1, market.oracle + market.basis.units(0))]
    if book is not None:
        parts.append(book)
    if market.external:
        parts.append(market.external)
    if len(parts) == 2 and market.smooth.value is not None:
        parts.append(max(1, market.smooth.units(0)))
    mark = median(parts)
    if market.mark_step:
        most = max(1, floor(Fraction(market.mark * market.mark_step, 1000)))
        mark = max(market.mark - most, min(market.mark + most, mark))
    return mark


def set_mark(market, mark, now_ms):
    """Within what open interest allows. Return whether it has changed."""
    if market.interest > 0:
        mark = min(mark, floor(Fraction(VALUE_MAX, market.interest)))
    mark = max(1, mark)
    changed = mark != market.mark
    if changed:
        market.mark, market.mark_ms = mark, now_ms
    return changed


def age_oracle(market, now_ms):
    if market.oracle:
        age = now_ms - market.oracle_ms
        market.oracle_state = (
            Oracle.STOPPED if age > STOPPED_MS else Oracle.OLD if age > OLD_MS else Oracle.LIVE
        )


def mark_itself(market, now_ms):
    """A market that was never given an oracle follows its trades. Return whether the mark has changed."""
    if market.oracle or market.mode == Trading.HALTED or now_ms - market.mark_ms < MARK_MS:
        return False
    return set_mark(market, market.reference, now_ms)


def is_closed(market):
    """Whether it takes no orders, and sells nobody's position."""
    return market.mode != Trading.OPEN or market.oracle_state == Oracle.STOPPED
