"""The rules of margin in the naive exchange until those of margin.py are in the engine, by the same names.

What is open must be covered in full by cash; marks make no difference, nor does isolated or cross, but for
where money is set aside.
"""

from shm.codes import Refusal
from tests.exchange import margin
from tests.exchange.things import ceil_div


class Held(margin.Held):
    @property
    def margin(self):
        return ceil_div(max(self.entry + self.buys, self.sells - self.entry, 0), self.leverage)


class Whole(margin.Whole):
    held_as = Held

    @property
    def used(self):
        return sum(each.margin for each in self.held.values())

    @property
    def value(self):
        return self.cash

    @property
    def withdrawable(self):
        return self.free


def fill(owner, held, sign, price, quantity, fee):
    is_cross, held.is_cross = held.is_cross, True
    pnl, _ = margin.fill(owner, held, sign, price, quantity, fee)
    held.is_cross = is_cross
    if held.size == 0:
        owner.cash += held.isolated
        held.isolated = 0
    return pnl, None


def bears_order(whole, number, side, value, fee, replaced):
    after = margin.with_order(whole, number, side, value, replaced)
    grows = after.held[number].margin > whole.held[number].margin
    return Refusal.MARGIN if grows and after.free - fee < 0 else Refusal.NONE


def bears_fill(*_):
    return True


def bears_leverage(whole, number, leverage):
    after = whole.as_if()
    after.held[number].leverage = leverage
    return after.held[number].margin <= whole.held[number].margin or after.free >= 0, 0


def bears_isolated(whole, number, amount):
    return amount <= whole.free and whole.held[number].isolated + amount >= 0


def limit_of(*_):
    return margin.inf
