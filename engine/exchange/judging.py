"""Whether an order may be placed: all of it is looked at before anything changes."""

from engine import book
from engine.exchange import cloids, margin, money, shelf
from engine.exchange.arithmetic import ceil_div, exceeds
from engine.exchange.prices import PRICE_MAX, best_price, is_open, reference_of
from engine.exchange.records import Role
from shm.codes import Ask, Flag, OrderState, Refusal, Side, Tif
from shm.constants import INTEREST_VALUE_MAX, LIMIT_ORDERS_MAX_TIMES
from shm.kernel import apart, inner
from shm.layout import NO_SLOT

QUANTITY_MAX = 10**15
FIGURES = 10**5  # a price has at most five significant figures, or is whole dollars
VALUE_MIN = 10 * 10**6
ORDERS_MIN, ORDERS_MAX = 1000, 5000  # open orders of an account
ORDER_VOLUME = 5_000_000 * 10**6  # traded, for each open order above ORDERS_MIN
PER_MILLE = 1000


@inner
def judge(state, command, account, replaced):
    """Return (Refusal, quantity to place). replaced: slot of the order that this one replaces, or NO_SLOT."""
    market, price, quantity = state.markets[command.market], command.price, command.quantity
    position = state.positions[margin.position_of(state, account, command.market)]
    reduces = command.flags & Ask.REDUCE_ONLY != 0
    code = judge_open(state, account, market)
    if code != Refusal.NONE:
        return code, 0
    if quantity <= 0 or quantity > QUANTITY_MAX:
        return Refusal.SIZE, 0
    if not is_legal_price(price, market.price_unit):
        return Refusal.PRICE, 0
    if exceeds(price, quantity, _value_max(market, command.tif)):
        return Refusal.VALUE_MAX, 0
    closable = closable_of(position.size, command.side)
    if reduces:
        if closable == 0:
            return Refusal.REDUCE_ONLY, 0
        quantity = min(quantity, closable)
    if price * quantity < VALUE_MIN and not (reduces and quantity == closable):
        return Refusal.VALUE_MIN, 0
    reference = reference_of(market)
    if PER_MILLE * abs(price - reference) > market.price_band * reference:
        return Refusal.PRICE_FAR, 0
    code = Refusal.NONE if reduces else _judge_interest(state, command, closable)
    if code == Refusal.NONE:
        code = _judge_room(state, command, account, replaced, reduces)
    if code == Refusal.NONE:
        code = _judge_crossing(state, command, replaced)
    if code == Refusal.NONE and not reduces:
        code = _judge_margin(state, command, account, replaced, quantity)
    return code, quantity


@apart
def judge_trigger(state, command, account, replaced):
    """The same of a trigger order: of what it comes to when it is triggered, nothing is judged before."""
    heap, market, price, quantity = (
        state.heap[0],
        state.markets[command.market],
        command.price,
        command.quantity,
    )
    position = state.positions[margin.position_of(state, account, command.market)]
    reduces = command.flags & Ask.REDUCE_ONLY != 0
    code = judge_open(state, account, market)
    if code != Refusal.NONE:
        return code, 0
    if (quantity <= 0 and not (quantity == 0 and heap.is_of_position)) or quantity > QUANTITY_MAX:
        return Refusal.SIZE, 0
    if not (
        is_legal_price(price, market.price_unit) and is_legal_price(heap.trigger_price, market.price_unit)
    ):
        return Refusal.PRICE, 0
    if exceeds(price, max(quantity, 1), _value_max(market, command.tif)):
        return Refusal.VALUE_MAX, 0
    if reduces and heap.role != Role.UNBORN and closable_of(position.size, command.side) == 0:
        return Refusal.REDUCE_ONLY, 0
    if not reduces and price * quantity < VALUE_MIN:
        return Refusal.VALUE_MIN, 0
    if state.accounts[account].order_count - (replaced != NO_SLOT) >= ORDERS_MIN:
        return Refusal.OPEN_ORDERS, 0
    book, side = shelf.book_of(state, command.market), shelf.side_of(heap.condition)
    code = _judge_place(state, command, account, replaced, book, side)
    if code == Refusal.NONE:
        reference = heap.parent_price if heap.role == Role.UNBORN else market.mark
        waits = command.tif == Tif.GTC or command.tif == Tif.MARKET
        if not waits or shelf.is_beyond(heap.condition, heap.trigger_price, reference):
            code = Refusal.TRIGGER
    return code, quantity


@inner
def judge_open(state, account, market):
    """Whether the account may trade, and the market is open."""
    if state.heap[0].is_killed or state.accounts[account].is_killed:
        return Refusal.KILLED
    return Refusal.NONE if is_open(market) else Refusal.CLOSED


@inner
def bears_slice(state, command, account):
    """Whether the account may place a part of what was judged when it came."""
    if command.flags & Ask.REDUCE_ONLY:
        return True
    size = state.positions[margin.position_of(state, account, command.market)].size
    code = _judge_interest(state, command, closable_of(size, command.side))
    if code == Refusal.NONE:
        code = _judge_margin(state, command, account, NO_SLOT, command.quantity)
    return code == Refusal.NONE


@inner
def _value_max(market, tif):
    return market.value_max // LIMIT_ORDERS_MAX_TIMES if tif == Tif.MARKET else market.value_max


@inner
def is_legal_price(price, unit):
    """Whole dollars (`unit`), or at most five significant figures."""
    if price <= 0 or price > PRICE_MAX:
        return False
    step = 1
    while price >= FIGURES * step:
        step *= 10
    return price % unit == 0 or price % step == 0


@inner
def closable_of(size, side):
    """How much of a position an order of this side can close."""
    return max(0, -size) if side == Side.BUY else max(0, size)


@inner
def _judge_interest(state, command, closable):
    """Whether the market's open interest may grow by this order."""
    market, quantity = state.markets[command.market], command.quantity
    dearest = max(command.price, market.mark, market.oracle, best_price(state, command.market, Side.BUY))
    if exceeds(dearest, market.open_interest + quantity, INTEREST_VALUE_MAX):
        return Refusal.INTEREST_FAST
    capped = 0 < market.interest_cap <= market.open_interest * market.mark
    if capped and quantity > closable:
        return Refusal.INTEREST_FLIP if closable > 0 else Refusal.INTEREST_CAP
    return Refusal.NONE


@inner
def _judge_room(state, command, account, replaced, reduces):
    row = state.accounts[account]
    if command.tif == Tif.GTC or command.tif == Tif.ALO:
        count = row.order_count - (replaced != NO_SLOT)
        most = min(ORDERS_MAX, ORDERS_MIN + row.volume // ORDER_VOLUME)
        if count >= most or (reduces and count >= ORDERS_MIN):
            return Refusal.OPEN_ORDERS
    return _judge_place(state, command, account, replaced, command.market, command.side)


@inner
def _judge_place(state, command, account, replaced, market, side):
    """Whether there is a place for one more order on a side of a book."""
    if command.flags & Ask.HAS_CLOID:
        known = cloids.find(state, account, command.text)
        if known != NO_SLOT and known != replaced:
            return Refusal.CLOID
    slots = state.heap[0].free_orders + (replaced != NO_SLOT)
    if slots == 0 or not _has_level(state, market, side):
        return Refusal.ORDERS_FULL
    return Refusal.NONE


@inner
def _has_level(state, market, side):
    """Whether one more level fits; a side that is full grows now, so that it cannot fail later."""
    row = state.sides[2 * market + side]
    return row.count < row.capacity or book.grow_side(state, row)


@inner
def _judge_crossing(state, command, replaced):
    market, side, price, tif = command.market, command.side, command.price, command.tif
    best = _best_price_without(state, market, 1 - side, replaced)
    crosses = best > 0 and (price >= best if side == Side.BUY else price <= best)
    if tif == Tif.ALO and crosses:
        return Refusal.POST_ONLY
    if tif == Tif.MARKET and best == 0:
        return Refusal.LIQUIDITY
    if (tif == Tif.IOC or tif == Tif.MARKET) and not crosses:
        return Refusal.IOC
    return Refusal.NONE


@inner
def _best_price_without(state, market, side, slot):
    """The best price of a side after the order in `slot` (NO_SLOT: none) has left; 0 if it is empty."""
    row = state.sides[2 * market + side]
    count = row.count
    if slot != NO_SLOT and count > 0:
        best = state.levels[row.offset + count - 1]
        count -= best.head == slot and best.tail == slot
    return state.levels[row.offset + count - 1].price if count > 0 else 0


@apart
def _judge_margin(state, command, account, replaced, quantity):
    """Whether the account may have so large a position, and can bear it."""
    margin.refresh(state, account)
    market = state.markets[command.market]
    position = state.positions[margin.position_of(state, account, command.market)]
    value = command.price * quantity
    buys, sells, freed = position.buys, position.sells, 0
    if replaced != NO_SLOT:
        old_buys, old_sells = _values_of(state.orders[replaced])
        there = state.orders[replaced].market
        if there == command.market:
            buys, sells = buys - old_buys, sells - old_sells
        else:
            freed = margin.freed(state, account, there, old_buys, old_sells)
    if command.side == Side.BUY:
        buys += value
    else:
        sells += value
    if margin.exceeds_tier(state, account, command.market, buys, sells):
        return Refusal.TIER
    fee = ceil_div(value * max(market.taker_rate, 0), money.RATE_UNIT)
    covered = margin.covers(state, account, command.market, buys, sells, fee - freed)
    return Refusal.NONE if covered else Refusal.MARGIN


@inner
def value_of(order):
    """What an open order is worth to the margin beside its position."""
    if order.flags & Flag.REDUCE_ONLY or order.state == OrderState.UNTRIGGERED:
        return 0
    return order.price * order.quantity


@inner
def _values_of(order):
    """What an open order adds to the buys and to the sells beside its position."""
    value = value_of(order)
    return (value, 0) if order.side == Side.BUY else (0, value)
