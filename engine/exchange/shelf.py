"""Orders that wait for the mark, in the order in which it comes to them: a second book of each market.

It stands behind the books in the same tables, by trigger price: who waits for the mark to fall as the buys,
who waits for it to rise as the sells, so that whom it reaches first is best. A child whose parent is not
filled (Role.UNBORN) is not in it.
"""

from engine import book
from engine.exchange.records import Role
from shm.codes import Condition, OrderState, Side
from shm.kernel import inner
from shm.layout import NO_SLOT


@inner
def side_of(condition):
    return Side.SELL if condition == Condition.ABOVE else Side.BUY


@inner
def book_of(state, market):
    """The number under which the orders that wait in a market stand."""
    return len(state.markets) + market


@inner
def put(state, slot):
    """Let the mark trigger the order in `slot`. False, and nothing changed, if there is no room."""
    order = state.orders[slot]
    market, price = book_of(state, order.market), state.facts[slot].trigger_price
    return book.join_queue(state, slot, market, side_of(order.condition), price)


@inner
def take(state, slot):
    """The mark does not trigger the order in `slot` any more."""
    order = state.orders[slot]
    if order.state == OrderState.UNTRIGGERED and order.role != Role.UNBORN:
        market, price = book_of(state, order.market), state.facts[slot].trigger_price
        book.leave_queue(state, slot, market, side_of(order.condition), price)


@inner
def reached(state, market):
    """The slot of the next order that the mark has reached, those above it first; NO_SLOT: there is none."""
    mark, number = state.markets[market].mark, book_of(state, market)
    row = state.sides[2 * number + Side.SELL]
    if row.count > 0:
        level = state.levels[row.offset + row.count - 1]
        if level.price <= mark:
            return level.head
    row = state.sides[2 * number + Side.BUY]
    if row.count > 0:
        level = state.levels[row.offset + row.count - 1]
        if level.price >= mark:
            return level.head
    return NO_SLOT


@inner
def is_beyond(condition, trigger_price, price):
    """Whether a price has come to a trigger price already."""
    return price >= trigger_price if condition == Condition.ABOVE else price <= trigger_price
