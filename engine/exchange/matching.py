"""Orders that were judged: matched by price and time, then at rest or at an end.

`place` cannot fail. What an order does to others (fills, ends) and what becomes of itself are outcomes, in
the order in which they happen.
"""

from engine import book
from engine.exchange import cloids, margin, money, shelf
from engine.exchange.judging import closable_of, value_of
from engine.exchange.outcomes import answer
from engine.exchange.prices import PRICE_MAX, best_price
from engine.exchange.records import Kind, Role
from engine.exchange.telling import (
    CANCELED,
    MARGIN_CANCELED,
    REDUCE_ONLY_CANCELED,
    SELF_TRADE,
    flags_of,
    forget_order,
    refuse,
    tell,
    tell_ended,
    tell_open,
    tell_opened,
    tell_taken,
)
from shm import index
from shm.bulk import copy_bytes
from shm.codes import Ack, Ask, Flag, Method, OrderState, Refusal, Side, Status, Tif
from shm.kernel import apart, inner
from shm.layout import NO_SLOT

TRADE_BITS = 50


@inner
def trade_id(buyer, seller):
    """The wire's tid of the trade between two orders (oids): 50 bits; two orders trade at most once."""
    return index.mix(index.mix(buyer) ^ seller) & ((1 << TRADE_BITS) - 1)


# --- placing ------------------------------------------------------------------------------------------------


@inner
def place(state, command, account, oid, quantity):
    """Do what is asked with the order, which was judged, and answer; return its Ack, and what remains."""
    heap = state.heap[0]
    ack, code, remaining = execute(state, command, account, oid, quantity)
    if ack == Ack.REFUSED:
        refuse(state, command, account, oid, code)
    else:
        answer(state, command, ack, Refusal.NONE, oid, heap.filled, heap.filled_notional)
    return ack, remaining


@inner
def execute(state, command, account, oid, quantity):
    """Match the order, and let its rest rest; return its Ack, why it is refused, and what remains."""
    heap = state.heap[0]
    heap.filled, heap.filled_notional, heap.is_stopped = 0, 0, 0
    remaining = quantity
    if reaches(state, command.market, command.side, command.price):
        remaining = match(state, command, account, oid, quantity, command.price)
    may_rest = (command.tif == Tif.GTC or command.tif == Tif.ALO) and heap.is_stopped == 0
    if remaining > 0 and may_rest:
        _rest(state, command, account, oid, remaining, quantity)
        return Ack.RESTING, Refusal.NONE, remaining
    if heap.filled > 0:
        tell_taken(state, command, account, oid, quantity, remaining)
        return Ack.FILLED, Refusal.NONE, remaining
    return Ack.REFUSED, Refusal.MARGIN if heap.is_stopped else Refusal.IOC, remaining


@inner
def reaches(state, market, side, limit):
    """Whether an order with this limit meets anybody."""
    best = best_price(state, market, 1 - side)
    return best > 0 and (limit >= best if side == Side.BUY else limit <= best)


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
            traded = min(traded, closable_of(state.positions[at].size, maker.side))
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
    is_parent, group = maker.role == Role.PARENT and quantity == maker.quantity, state.facts[slot].group
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

    outcome = tell_open(state, Kind.FILLED, slot)
    outcome.quantity, outcome.original = quantity, maker.quantity - quantity
    outcome.other = account
    _settle(state, outcome, maker_account, command.market, gives, notional, maker_fee, trade)
    _fill_order(state, slot, quantity, notional)

    outcome = tell(state, Kind.FILLED, command, account, oid)
    outcome.price, outcome.quantity, outcome.original = price, quantity, remaining - quantity
    outcome.other, outcome.flags = maker_account, outcome.flags | Flag.CROSSED
    _settle(state, outcome, account, command.market, takes, notional, taker_fee, trade)
    if is_parent:
        release_children(state, maker_account, group)
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
        leave(state, slot)
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
        if order.market == market and order.flags & Flag.REDUCE_ONLY and closable_of(size, order.side) == 0:
            if order.role != Role.UNBORN:
                end(state, slot, REDUCE_ONLY_CANCELED)
        slot = following


@inner
def _rest(state, command, account, oid, remaining, original):
    slot = take(state, command, account, oid, remaining, original)
    order = state.orders[slot]
    book.rest(state, slot)
    if order.flags & Flag.REDUCE_ONLY == 0:
        margin.open_interest(state, account, command.market, order.side, order.price * remaining)
    enter(state, slot)
    tell_opened(state, command, account, oid, remaining, original)


@inner
def take(state, command, account, oid, remaining, original):
    """Write the order that a command asks for into a free slot, for which there is room; return it."""
    slot = book.take_slot(state)
    order = state.orders[slot]
    order.order, order.price, order.quantity = oid, command.price, remaining
    order.account, order.market, order.side = account, command.market, command.side
    _write(state, command, slot, original)
    return slot


@inner
def _write(state, command, slot, original):
    """Of an order, what no other order and no list depends on."""
    heap, order, facts = state.heap[0], state.orders[slot], state.facts[slot]
    order.original, order.tif = original, command.tif
    order.flags, order.condition, order.role = flags_of(state, command), heap.condition, heap.role
    facts.placed_ms = command.time_ns // 1_000_000
    facts.trigger_price, facts.group = heap.trigger_price, heap.group
    facts.builder_fee = 0
    if command.flags & Ask.HAS_BUILDER:
        copy_bytes(facts.builder, command.builder)
        facts.builder_fee = command.amount
    if order.flags & Flag.HAS_CLOID:
        copy_bytes(facts.cloid, command.text)


@inner
def enter(state, slot):
    """Let the open order in `slot` be found by its cloid, and be counted if it only reduces."""
    order = state.orders[slot]
    if order.flags & Flag.HAS_CLOID:
        cloids.add(state, slot)
    if order.flags & Flag.REDUCE_ONLY:
        state.accounts[order.account].reduce_count += 1


@inner
def _exit(state, slot):
    order = state.orders[slot]
    if order.flags & Flag.HAS_CLOID:
        cloids.remove(state, slot)
    if order.flags & Flag.REDUCE_ONLY:
        state.accounts[order.account].reduce_count -= 1


# --- moving -------------------------------------------------------------------------------------------------


@inner
def only_moves(state, command, slot):
    """Whether a MODIFY, which was judged, gives the order in `slot` another place on its side and no more:
    neither it nor what replaces it has children or meets anybody.
    """
    order = state.orders[slot]
    waits = command.tif == Tif.GTC or command.tif == Tif.ALO
    there = order.market == command.market and order.side == command.side
    alone = order.role == Role.ALONE and order.state == OrderState.RESTING
    alone = alone and command.flags & Ask.IS_TRIGGER == 0
    return waits and there and alone and not reaches(state, command.market, command.side, command.price)


@apart
def move(state, command, account, slot, oid, quantity):
    """End the order in `slot` and let another rest in its place, which is all that happens; and answer."""
    order = state.orders[slot]
    tell_ended(state, slot, CANCELED)
    value = value_of(order)
    _exit(state, slot)
    book.replace(state, slot, oid, command.price, quantity)
    _write(state, command, slot, quantity)
    margin.open_interest(state, account, order.market, order.side, value_of(order) - value)
    enter(state, slot)
    tell_opened(state, command, account, oid, quantity, quantity)
    answer(state, command, Ack.RESTING, Refusal.NONE, oid, 0, 0)


# --- ending -------------------------------------------------------------------------------------------------


@apart
def end(state, slot, status):
    """End the open order in `slot`, with a row of NAMES to say how, and with it what waits for its fill.

    One that was filled in part, and that its owner cannot bear more of, lets those wait for their trigger.
    """
    order = state.orders[slot]
    account, group, is_parent = order.account, state.facts[slot].group, order.role == Role.PARENT
    bears = status == MARGIN_CANCELED and order.quantity < order.original
    _end_one(state, slot, status)
    if is_parent and bears:
        release_children(state, account, group)
    elif is_parent:
        end_members(state, account, group, Role.UNBORN, status)


@apart
def _end_one(state, slot, status):
    order = state.orders[slot]
    tell_ended(state, slot, status)
    value = value_of(order)
    leave(state, slot)
    margin.open_interest(state, order.account, order.market, order.side, -value)


@inner
def member(state, slot, group, role):
    """The first of an account's orders from `slot` on that has this role in the group; NO_SLOT: none has."""
    while slot != NO_SLOT and (state.orders[slot].role != role or state.facts[slot].group != group):
        slot = state.orders[slot].account_next
    return slot


@apart
def release_children(state, account, group):
    """A parent is filled: let the mark trigger what has waited for that, if it can reduce anything."""
    slot = member(state, state.accounts[account].first_order, group, Role.UNBORN)
    while slot != NO_SLOT:
        order, following = state.orders[slot], state.orders[slot].account_next
        size = state.positions[margin.position_of(state, account, order.market)].size
        if closable_of(size, order.side) == 0:
            _end_one(state, slot, REDUCE_ONLY_CANCELED)
        elif not shelf.put(state, slot):
            _end_one(state, slot, CANCELED)
        else:
            order.role = Role.CHILD
        slot = member(state, following, group, Role.UNBORN)


@apart
def end_members(state, account, group, role, status):
    """End those who have this role in the group, whom nothing waits for."""
    slot = member(state, state.accounts[account].first_order, group, role)
    while slot != NO_SLOT:
        following = state.orders[slot].account_next
        _end_one(state, slot, status)
        slot = member(state, following, group, role)


@apart
def sell_out(state, account, market, quantity, tif):
    """Sell or buy back so much of a position, at whatever the book gives; return how much it was.

    The owner is left with nothing less than nothing. There was no order if nobody could trade with it.
    """
    heap, own = state.heap[0], state.own[0]
    size = state.positions[margin.position_of(state, account, market)].size
    own.market, own.side, own.price, own.tif = market, Side.SELL if size > 0 else Side.BUY, 0, tif
    own.flags, own.time_ns = Ask.REDUCE_ONLY, heap.time_ns
    forget_order(state)
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
    count = state.accounts[account].order_count
    while state.accounts[account].first_order != NO_SLOT:
        end(state, state.accounts[account].first_order, status)
    return count


@inner
def leave(state, slot):
    """Take the open order in `slot` out of everything but the margin."""
    shelf.take(state, slot)
    _exit(state, slot)
    book.leave(state, slot)


@inner
def find_open(state, account, command, by_cloid):
    """Return the slot of the account's open order that the command means, or NO_SLOT."""
    if by_cloid:
        return cloids.find(state, account, command.of)
    slot = index.find_order(state.order_index, state.orders, command.order)
    return slot if slot != NO_SLOT and state.orders[slot].account == account else NO_SLOT
