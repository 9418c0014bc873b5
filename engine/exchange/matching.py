"""Orders: judged whole before anything changes, then matched by price and time, then at rest or at an end.

`judge` says why an order is refused and touches nothing; `place` cannot fail. What an order does to others
(fills, ends) and what becomes of itself are outcomes, in the order in which they happen.
"""

import numpy as np

from engine import book
from engine.exchange import cloids, margin, money
from engine.exchange.arithmetic import ceil_div
from engine.exchange.outcomes import answer, emit
from engine.exchange.prices import PRICE_MAX, best_price, is_open, reference_of
from engine.exchange.records import Kind
from shm import index
from shm.codes import NAMES, REFUSED_AS, Ack, Ask, Flag, Method, Refusal, Side, Status, Tif
from shm.constants import INTEREST_VALUE_MAX, LIMIT_ORDERS_MAX_TIMES
from shm.kernel import apart, copy_bytes, inner
from shm.layout import NO_SLOT

QUANTITY_MAX = 10**15
FIGURES = 10**5  # a price has at most five significant figures, or is whole dollars
VALUE_MIN = 10 * 10**6
ORDERS_MIN, ORDERS_MAX = 1000, 5000  # open orders of an account
ORDER_VOLUME = 5_000_000 * 10**6  # traded, for each open order above ORDERS_MIN
TRADE_BITS = 50
PER_MILLE = 1000

CANCELED = int(Status.CANCELED)
MARGIN_CANCELED = NAMES.index("marginCanceled")
SELF_TRADE = NAMES.index("selfTradeCanceled")
REDUCE_ONLY_CANCELED = NAMES.index("reduceOnlyCanceled")
SCHEDULED = NAMES.index("scheduledCancel")
_REFUSED_AS = np.array(  # rows of NAMES, by Refusal
    [NAMES.index(REFUSED_AS.get(code, "rejected")) for code in range(max(Refusal) + 1)], np.uint16
)


@inner
def trade_id(buyer, seller):
    """The wire's tid of the trade between two orders (oids): 50 bits; two orders trade at most once."""
    return index.mix(index.mix(buyer) ^ seller) & ((1 << TRADE_BITS) - 1)


# --- judging ------------------------------------------------------------------------------------------------


@inner
def judge(state, command, account, replaced):
    """Return (Refusal, quantity to place). replaced: slot of the order that this one replaces, or NO_SLOT."""
    market, price, quantity = state.markets[command.market], command.price, command.quantity
    position = state.positions[margin.position_of(state, account, command.market)]
    reduces = command.flags & Ask.REDUCE_ONLY != 0
    if state.heap[0].is_killed or state.accounts[account].is_killed:
        return Refusal.KILLED, 0
    if not is_open(market):
        return Refusal.CLOSED, 0
    if command.flags & Ask.IS_TRIGGER:
        return Refusal.TRIGGER, 0
    if quantity <= 0 or quantity > QUANTITY_MAX:
        return Refusal.SIZE, 0
    if not is_legal_price(price, market.price_unit):
        return Refusal.PRICE, 0
    value_max = market.value_max // LIMIT_ORDERS_MAX_TIMES if command.tif == Tif.MARKET else market.value_max
    if price > value_max // quantity:
        return Refusal.VALUE_MAX, 0
    closable = _closable(position.size, command.side)
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
def _closable(size, side):
    """How much of a position an order of this side can close."""
    return max(0, -size) if side == Side.BUY else max(0, size)


@inner
def _judge_interest(state, command, closable):
    """Whether the market's open interest may grow by this order."""
    market, quantity = state.markets[command.market], command.quantity
    dearest = max(command.price, market.mark, market.oracle, best_price(state, command.market, Side.BUY))
    if dearest > INTEREST_VALUE_MAX // (market.open_interest + quantity):
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
    if command.flags & Ask.HAS_CLOID:
        known = cloids.find(state, account, command.text)
        if known != NO_SLOT and known != replaced:
            return Refusal.CLOID
    slots = state.heap[0].free_orders + (replaced != NO_SLOT)
    if slots == 0 or not _has_level(state, command.market, command.side):
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
    leverage = margin.leverage_of(state, position, command.market)
    covered = margin.covers(state, account, command.market, buys, sells, leverage, fee - freed)
    return Refusal.NONE if covered else Refusal.MARGIN


@inner
def _values_of(order):
    """What an open order adds to the buys and to the sells beside its position."""
    if order.flags & Flag.REDUCE_ONLY:
        return 0, 0
    value = order.price * order.quantity
    return (value, 0) if order.side == Side.BUY else (0, value)


# --- placing ------------------------------------------------------------------------------------------------


@inner
def place(state, command, account, oid, quantity):
    """Match the order, which was judged, and let its rest rest; answer the command."""
    heap = state.heap[0]
    heap.filled, heap.filled_notional, heap.is_stopped = 0, 0, 0
    remaining = quantity
    if _reaches(state, command.market, command.side, command.price):
        remaining = match(state, command, account, oid, quantity, command.price)
    may_rest = (command.tif == Tif.GTC or command.tif == Tif.ALO) and heap.is_stopped == 0
    if remaining > 0 and may_rest:
        _rest(state, command, account, oid, remaining, quantity)
        answer(state, command, Ack.RESTING, Refusal.NONE, oid, heap.filled, heap.filled_notional)
    elif heap.filled > 0:
        tell_taken(state, command, account, oid, quantity, remaining)
        answer(state, command, Ack.FILLED, Refusal.NONE, oid, heap.filled, heap.filled_notional)
    else:
        refuse(state, command, account, oid, Refusal.MARGIN if heap.is_stopped else Refusal.IOC)


@inner
def _reaches(state, market, side, limit):
    """Whether an order with this limit meets anybody."""
    best = best_price(state, market, 1 - side)
    return best > 0 and (limit >= best if side == Side.BUY else limit <= best)


@inner
def tell_taken(state, command, account, oid, quantity, remaining):
    """Tell the end of an order that was filled, at least in part, and does not rest."""
    outcome = _tell(state, Kind.ENDED, command, account, oid)
    outcome.quantity, outcome.original, outcome.flags = remaining, quantity, outcome.flags | Flag.CROSSED
    outcome.status = Status.FILLED
    if remaining > 0:
        outcome.status = MARGIN_CANCELED if state.heap[0].is_stopped else CANCELED


@inner
def refuse(state, command, account, oid, code):
    """Tell that the order never was, and answer so."""
    outcome = _tell(state, Kind.REFUSED, command, account, oid)
    outcome.quantity, outcome.original, outcome.code = command.quantity, command.quantity, code
    outcome.status = _REFUSED_AS[outcome.code]
    bid, ask = 0, 0
    if code == Refusal.POST_ONLY:
        bid = best_price(state, command.market, Side.BUY)
        ask = best_price(state, command.market, Side.SELL)
    answer(state, command, Ack.REFUSED, code, oid, bid, ask)


@inner
def _tell(state, kind, command, account, oid):
    """An outcome about the order that a command asks for."""
    outcome = emit(state, kind, account, command.market)
    outcome.order, outcome.price, outcome.side, outcome.tif = oid, command.price, command.side, command.tif
    outcome.placed_ms, outcome.flags = command.time_ns // 1_000_000, _flags_of(command)
    if command.flags & Ask.HAS_CLOID:
        copy_bytes(outcome.text, command.text)
    return outcome


@inner
def _flags_of(command):
    flags = Flag.REDUCE_ONLY if command.flags & Ask.REDUCE_ONLY else 0
    return flags | (Flag.HAS_CLOID if command.flags & Ask.HAS_CLOID else 0)


@apart
def match(state, command, account, oid, quantity, limit):
    """Trade with the other side as far as the limit reaches, and as both can bear it; return what remains."""
    market, side, remaining = command.market, command.side, quantity
    other = state.sides[2 * market + 1 - side]
    margin.refresh(state, account)
    while remaining > 0 and other.count > 0 and state.heap[0].is_stopped == 0:
        level = state.levels[other.offset + other.count - 1]
        if (level.price > limit) if side == Side.BUY else (level.price < limit):
            break
        slot = level.head
        maker = state.orders[slot]
        if maker.account == account:
            end(state, slot, SELF_TRADE)
            continue
        traded = min(remaining, maker.quantity)
        if maker.flags & Flag.REDUCE_ONLY:
            at = margin.position_of(state, maker.account, market)
            traded = min(traded, _closable(state.positions[at].size, maker.side))
            if traded == 0:
                end(state, slot, REDUCE_ONLY_CANCELED)
                continue
        remaining -= _trade(state, command, account, oid, slot, traded, remaining)
    return remaining


@inner
def _trade(state, command, account, oid, slot, quantity, remaining):
    """Trade `quantity` with the resting order in `slot`, if both can bear it; return how much it was.

    remaining  of the taker before
    """
    heap, maker, market, side = state.heap[0], state.orders[slot], state.markets[command.market], command.side
    price, maker_account, notional = maker.price, maker.account, maker.price * quantity
    maker_fee, taker_fee = money.fees_of(market, notional)
    margin.refresh(state, maker_account)
    gives = margin.fill_of(state, maker_account, command.market, maker.side, price, quantity, maker_fee)
    if not _may_give(state, slot, notional, gives):
        end(state, slot, MARGIN_CANCELED)
        return 0
    takes = margin.fill_of(state, account, command.market, side, price, quantity, taker_fee)
    if not _may_take(state, account, command.market, takes):
        heap.is_stopped = 1
        return 0
    heap.filled += quantity
    heap.filled_notional += notional
    market.reference_price, market.is_touched = price, 1
    money.take_fee(state, maker_fee + taker_fee)
    trade = trade_id(oid, maker.order) if side == Side.BUY else trade_id(maker.order, oid)

    outcome = _tell_open(state, Kind.FILLED, slot)
    outcome.quantity, outcome.original = quantity, maker.quantity - quantity
    outcome.other = account
    _settle(state, outcome, maker_account, command.market, gives, notional, maker_fee, trade)
    _fill_order(state, slot, quantity, notional)

    outcome = _tell(state, Kind.FILLED, command, account, oid)
    outcome.price, outcome.quantity, outcome.original = price, quantity, remaining - quantity
    outcome.other, outcome.flags = maker_account, outcome.flags | Flag.CROSSED
    _settle(state, outcome, account, command.market, takes, notional, taker_fee, trade)
    end_reducing(state, maker_account, command.market)
    end_reducing(state, account, command.market)
    return quantity


@inner
def _may_give(state, slot, notional, fill):
    """Whether the maker can bear the fill of his order in `slot`."""
    order = state.orders[slot]
    position = state.positions[margin.position_of(state, order.account, order.market)]
    buys, sells = position.buys, position.sells
    if order.flags & Flag.REDUCE_ONLY == 0:
        buys, sells = (buys - notional, sells) if order.side == Side.BUY else (buys, sells - notional)
    return margin.bears(state, order.account, order.market, fill, buys, sells)


@inner
def _may_take(state, account, market, fill):
    """Whether the taker can bear the fill; one who is sold out, whether he is left with no debt."""
    if state.heap[0].method != Method.NONE:
        return margin.survives(state, account, market, fill)
    position = state.positions[margin.position_of(state, account, market)]
    return margin.bears(state, account, market, fill, position.buys, position.sells)


@inner
def _settle(state, outcome, account, market, fill, notional, fee, trade):
    """Let one side of a trade have its fill, and say so in its outcome."""
    row, method = state.accounts[account], state.heap[0].method
    outcome.start = state.positions[margin.position_of(state, account, market)].size
    outcome.trade, outcome.fee, outcome.code = trade, fee, method
    outcome.done = outcome.original == 0
    outcome.status = Status.FILLED if outcome.done else 0
    if method != Method.NONE:
        outcome.flags |= Flag.LIQUIDATION
    outcome.amount = margin.settle(state, account, market, fill)
    row.fees += fee
    row.volume += notional


@inner
def _fill_order(state, slot, quantity, notional):
    """Take a fill off the resting order in `slot`; it leaves when nothing remains."""
    order = state.orders[slot]
    if order.flags & Flag.REDUCE_ONLY:
        notional = 0
    if order.quantity > quantity:
        book.resize(state, slot, order.quantity - quantity)
    else:
        _leave(state, slot)
    margin.open_interest(state, order.account, order.market, order.side, -notional)


@apart
def end_reducing(state, account, market):
    """End the account's reduce-only orders in a market whose position they cannot reduce any more."""
    if state.accounts[account].reduce_count == 0:
        return
    size = state.positions[margin.position_of(state, account, market)].size
    slot = state.accounts[account].first_order
    while slot != NO_SLOT:
        order, following = state.orders[slot], state.orders[slot].account_next
        if order.market == market and order.flags & Flag.REDUCE_ONLY and _closable(size, order.side) == 0:
            end(state, slot, REDUCE_ONLY_CANCELED)
        slot = following


@inner
def _rest(state, command, account, oid, remaining, original):
    slot = book.take_slot(state)
    order, facts = state.orders[slot], state.facts[slot]
    order.order, order.price, order.quantity, order.original = oid, command.price, remaining, original
    order.account, order.market, order.side, order.tif = account, command.market, command.side, command.tif
    order.flags = _flags_of(command)
    facts.placed_ms = command.time_ns // 1_000_000
    facts.builder_fee = 0
    if command.flags & Ask.HAS_BUILDER:
        copy_bytes(facts.builder, command.builder)
        facts.builder_fee = command.amount
    book.rest(state, slot)
    if order.flags & Flag.HAS_CLOID:
        copy_bytes(facts.cloid, command.text)
        cloids.add(state, slot)
    if order.flags & Flag.REDUCE_ONLY:
        state.accounts[account].reduce_count += 1
    else:
        margin.open_interest(state, account, command.market, order.side, order.price * remaining)
    outcome = _tell(state, Kind.OPENED, command, account, oid)
    outcome.quantity, outcome.original = remaining, original


# --- ending -------------------------------------------------------------------------------------------------


@apart
def end(state, slot, status):
    """End the open order in `slot`, with a row of NAMES to say how."""
    order = state.orders[slot]
    outcome = _tell_open(state, Kind.ENDED, slot)
    outcome.price, outcome.quantity, outcome.original = order.price, order.quantity, order.original
    outcome.status = status
    value = 0 if order.flags & Flag.REDUCE_ONLY else order.price * order.quantity
    _leave(state, slot)
    margin.open_interest(state, order.account, order.market, order.side, -value)


@apart
def sell_out(state, account, market, quantity, tif):
    """Sell or buy back so much of a position, at whatever the book gives; return how much it was.

    The owner is left with nothing less than nothing. There was no order if nobody could trade with it.
    """
    heap, own = state.heap[0], state.own[0]
    size = state.positions[margin.position_of(state, account, market)].size
    own.market, own.side, own.price, own.tif = market, Side.SELL if size > 0 else Side.BUY, 0, tif
    own.flags, own.time_ns = Ask.REDUCE_ONLY, heap.time_ns
    heap.filled, heap.filled_notional, heap.is_stopped = 0, 0, 0
    heap.orders += 1
    oid, heap.method = heap.orders, Method.MARKET
    remaining = match(state, own, account, oid, quantity, 1 if size > 0 else PRICE_MAX)
    heap.method, heap.is_stopped = Method.NONE, 0
    if heap.filled > 0:
        tell_taken(state, own, account, oid, quantity, remaining)
    else:
        heap.orders -= 1
    return heap.filled


@inner
def end_all(state, account, status):
    """End all open orders of the account, oldest first; return how many there were."""
    count = 0
    while state.accounts[account].first_order != NO_SLOT:
        end(state, state.accounts[account].first_order, status)
        count += 1
    return count


@inner
def _leave(state, slot):
    order = state.orders[slot]
    if order.flags & Flag.HAS_CLOID:
        cloids.remove(state, slot)
    if order.flags & Flag.REDUCE_ONLY:
        state.accounts[order.account].reduce_count -= 1
    book.leave(state, slot)


@inner
def _tell_open(state, kind, slot):
    """An outcome about the open order in `slot`."""
    order, facts = state.orders[slot], state.facts[slot]
    outcome = emit(state, kind, order.account, order.market)
    outcome.order, outcome.price, outcome.side, outcome.tif = order.order, order.price, order.side, order.tif
    outcome.placed_ms, outcome.flags = facts.placed_ms, order.flags
    if order.flags & Flag.HAS_CLOID:
        copy_bytes(outcome.text, facts.cloid)
    return outcome


@inner
def find_open(state, account, command, by_cloid):
    """Return the slot of the account's open order that the command means, or NO_SLOT."""
    if by_cloid:
        return cloids.find(state, account, command.of)
    slot = index.find_order(state.order_index, state.orders, command.order)
    return slot if slot != NO_SLOT and state.orders[slot].account == account else NO_SLOT
