"""What an account of the naive exchange is worth and what it must hold, in exact rationals, from scratch.

Every figure is summed over all positions and all open orders whenever it is asked for. A `Whole` is such a
look at one account at the present marks; "as if" is asked of a copy that was changed, and never computed as a
difference.
"""

import copy
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, inf

from shm.codes import Refusal, Side


def tier_of(market, notional):
    """(notional, leverage, deduction) of the tier that a notional stands in."""
    return [tier for tier in market.tiers if tier[0] <= notional][-1]


def maintenance_of(market, notional):
    _, leverage, deduction = tier_of(market, notional)
    return ceil(Fraction(notional, 2 * leverage)) - deduction


def add_tier(market, notional, leverage):
    """Let margin be that of the new leverage from a notional on; at the notional itself both are the same."""
    _, before, deduction = market.tiers[-1]
    rise = ceil(Fraction(notional, 2 * leverage)) - ceil(Fraction(notional, 2 * before))
    market.tiers.append((notional, leverage, deduction + rise))


def limit_of(market, leverage):
    """The exposure from which on a leverage is too much."""
    return next((notional for notional, highest, _ in market.tiers if highest < leverage), inf)


@dataclass
class Held:
    """A position at the mark, with the open orders beside it."""

    is_cross: bool
    leverage: int
    size: int
    entry: int
    isolated: int
    buys: int
    sells: int
    market: object

    @property
    def value(self):
        return self.size * self.market.mark

    @property
    def notional(self):
        return abs(self.value)

    @property
    def exposure(self):
        return max(self.value + self.buys, self.sells - self.value)

    @property
    def margin(self):
        return ceil(Fraction(self.exposure, self.leverage))

    @property
    def profit(self):
        return self.value - self.entry

    @property
    def maintenance(self):
        return maintenance_of(self.market, self.notional)

    @property
    def bucket(self):
        """B, of an isolated one."""
        return self.isolated + self.profit


class Whole:
    """All of an account: `cash` and its positions by market number."""

    held_as = Held

    def __init__(self, account):
        self.cash, self.held = account.cash, {}
        for number, position in account.positions.items():
            values = [0, 0]
            for order in account.orders.values():
                if order.market.number == number and not order.reduce and not order.waits:
                    values[order.side] += order.price * order.quantity
            self.held[number] = self.held_as(
                position.is_cross, position.leverage, position.size, position.entry, position.isolated,
                *values, position.market,
            )  # fmt: skip

    def as_if(self):
        """A copy, to be changed."""
        other = copy.copy(self)
        other.held = {number: copy.copy(each) for number, each in self.held.items()}
        return other

    @property
    def cross(self):
        return [each for each in self.held.values() if each.is_cross]

    @property
    def value(self):
        """E."""
        return self.cash + sum(each.profit for each in self.cross)

    @property
    def used(self):
        """U: of an isolated position, only what its orders need besides it."""
        isolated = (each for each in self.held.values() if not each.is_cross)
        beside = sum(each.margin - ceil(Fraction(each.notional, each.leverage)) for each in isolated)
        return sum(each.margin for each in self.cross) + beside

    @property
    def maintenance(self):
        """M."""
        return sum(each.maintenance for each in self.cross)

    @property
    def notional(self):
        """N."""
        return sum(each.notional for each in self.cross)

    @property
    def free(self):
        return self.value - self.used

    @property
    def withdrawable(self):
        return self.value - max(self.used, ceil(Fraction(self.notional, 10)))

    def liquidation_price(self, number):
        """The mark of one market, others standing, at which maintenance is met; None if there is none.

        As the wire has it: price - side x available / size / (1 - l x side), l the maintenance rate.
        """
        held = self.held[number]
        side = 1 if held.size > 0 else -1
        _, leverage, deduction = tier_of(held.market, held.notional)
        needed = Fraction(held.notional, 2 * leverage) - deduction  # as it is before it is rounded up
        others = self.maintenance - held.maintenance if held.is_cross else 0
        mine = (self.value if held.is_cross else held.bucket) - others - needed
        price = held.market.mark - side * Fraction(mine, abs(held.size)) / (1 - Fraction(side, 2 * leverage))
        return price if price > 0 else None


def fill(owner, held, sign, price, quantity, fee):
    """One side of a trade upon cash and a position, real ones or as if.

    Return (pnl, out): out is what an isolated bucket gives to the cash, None if nothing was closed.
    """
    pnl, out, closes = 0, None, 0
    if held.size * sign < 0:
        before, closes = abs(held.size), min(abs(held.size), quantity)
        part = floor(Fraction(abs(held.entry) * closes, before))
        part = part if held.size > 0 else -part
        pnl = -sign * price * closes - part
        held.entry -= part
        held.size += sign * closes
        if not held.is_cross and held.size == 0:
            out, held.isolated = held.isolated + pnl - fee, 0
        elif not held.is_cross:
            share = floor(Fraction(max(held.isolated, 0) * closes, before))
            out = max(0, share + pnl - fee)
            held.isolated += pnl - fee - out
    opens = quantity - closes
    held.size += sign * opens
    held.entry += sign * price * opens
    if held.is_cross:
        owner.cash += pnl - fee
        return pnl, None
    owner.cash += -fee if out is None else out
    moved = ceil(Fraction(price * opens, held.leverage))
    held.isolated += moved
    owner.cash -= moved
    return pnl, out


def with_order(whole, number, side, value, replaced):
    """The account with an order of this value, in the place of `replaced`."""
    after = whole.as_if()
    if replaced is not None and not replaced.reduce and not replaced.waits:
        add_value(after.held[replaced.market.number], replaced.side, -replaced.price * replaced.quantity)
    add_value(after.held[number], side, value)
    return after


def bears_order(whole, number, side, value, fee, replaced):
    """Why an order of this value may not be added, in the place of `replaced`; NONE if it may."""
    after, before = with_order(whole, number, side, value, replaced), whole.held[number]
    held = after.held[number]
    if held.exposure > max(before.exposure, limit_of(held.market, held.leverage)):
        return Refusal.TIER
    if held.margin > before.margin and after.value - after.used - fee < 0:
        return Refusal.MARGIN
    return Refusal.NONE


def add_value(held, side, value):
    if side == Side.BUY:
        held.buys += value
    else:
        held.sells += value


def bears_fill(whole, number, sign, price, quantity, fee, resting=None):
    """Whether the account may fill so much; `resting` is the order of its own that gives it."""
    before, after = whole.held[number], whole.as_if()
    if resting is not None and not resting.reduce:
        add_value(after.held[number], resting.side, -resting.price * quantity)
    held = after.held[number]
    _, out = fill(after, held, sign, price, quantity, fee)
    shrinks = before.size * sign < 0 and quantity <= abs(before.size)
    if held.is_cross:
        if shrinks:
            spare, was = after.value - after.maintenance, whole.value - whole.maintenance
            return spare >= 0 or spare >= was
        return after.value >= after.used
    if shrinks and held.size == 0:
        return out >= 0
    if shrinks:
        spare, was = held.bucket - held.maintenance, before.bucket - before.maintenance
        return spare >= 0 or spare >= was
    return after.value >= after.used and held.bucket >= held.maintenance and (out is None or out >= 0)


def survives_sale(whole, number, sign, price, quantity, fee):
    """Whether a position that is sold for its owner's lack of margin leaves him no debt."""
    after = whole.as_if()
    held = after.held[number]
    _, out = fill(after, held, sign, price, quantity, fee)
    if held.is_cross:
        return after.value >= 0
    return out >= 0 if held.size == 0 else held.bucket >= 0


def bears_leverage(whole, number, leverage):
    """(whether it may be chosen, what then moves from the cash to the bucket)."""
    before, after = whole.held[number], whole.as_if()
    held = after.held[number]
    held.leverage, moved = leverage, 0
    if not held.is_cross and held.size != 0 and leverage < before.leverage:
        moved = max(0, ceil(Fraction(held.notional, leverage)) - held.bucket)
    grows = held.margin > before.margin or moved > 0
    return not grows or after.value - moved - after.used >= 0, moved


def bears_isolated(whole, number, amount):
    """Whether so much may be put into a bucket, or (negative) taken from it."""
    held = whole.held[number]
    if amount > 0:
        return amount <= whole.free
    least = max(ceil(Fraction(held.notional, held.leverage)), ceil(Fraction(held.notional, 10)))
    return held.bucket + amount >= least
