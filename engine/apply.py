"""One block in, the books after it and its events out.

Deterministic: reads the block and the state, and nothing else; no clock, no I/O, no allocation. Rows change
under their brackets (shm/seqlock.py), each changed book is published once, and the block's events become
visible together, after everything they speak of. Nothing in a block can stop it: a diff that does not fit
puts its market in doubt.
"""

import numpy as np
from numba import njit

from engine import book, history
from engine.state import EVENTS_PER_BLOCK_MAX
from shm import atomics, broadcast, index, seqlock
from shm.codes import TIF_GTC, TYPE_LIMIT, Condition, EventKind, Flag, OrderState, Side, Stale, Status
from shm.constants import BOOK_DEPTH, BOOK_SLOTS
from shm.layout import NO_ACCOUNT, NO_MARKET, NO_SLOT

NS_PER_MS = 1_000_000
NO_SIDE = 255  # a diff of an older node: the order's status knows


# --- brackets ---------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def touch_market(state, market):
    """Open the market's row, once a block."""
    if state.market_dirty[market] == 0:
        heap = state.heap[0]
        state.market_dirty[market] = 1
        state.dirty_markets[heap.dirty_markets] = market
        heap.dirty_markets += 1
        seqlock.open_row(state.markets[market])


@njit(cache=True, nogil=True)
def touch_account(state, account):
    """Open the account's row, once a block."""
    if account != NO_ACCOUNT and state.account_dirty[account] == 0:
        heap = state.heap[0]
        state.account_dirty[account] = 1
        state.dirty_accounts[heap.dirty_accounts] = account
        heap.dirty_accounts += 1
        seqlock.open_row(state.accounts[account])


@njit(cache=True, nogil=True)
def begin_block(state):
    seqlock.open_row(state.status[0])


@njit(cache=True, nogil=True)
def end_block(state, height, time_ns):
    """Publish what the block changed: books, then rows, then the height, then all its events at once."""
    heap, status = state.heap[0], state.status[0]
    for i in range(heap.dirty_markets):
        market = state.dirty_markets[i]
        state.markets[market].height = height
        publish_book(state, market, height, time_ns)
        seqlock.close_row(state.markets[market])
        state.market_dirty[market] = 0
    for i in range(heap.dirty_accounts):
        account = state.dirty_accounts[i]
        seqlock.close_row(state.accounts[account])
        state.account_dirty[account] = 0
    heap.dirty_markets, heap.dirty_accounts = 0, 0
    atomics.store_relaxed(status, "time_ns", time_ns)
    atomics.store_release(status, "height", height)
    seqlock.close_row(status)
    publish_events(state)


@njit(cache=True, nogil=True)
def publish_book(state, market, height, time_ns):
    """Put the best BOOK_DEPTH levels of both sides into the market's seqlock ring."""
    head = state.book_heads[market]
    cells = state.books[BOOK_SLOTS * market : BOOK_SLOTS * (market + 1)]
    row = state.markets[market]
    at = seqlock.begin(head, cells)
    cell = cells[at]
    cell.height, cell.time_ms = height, time_ns // NS_PER_MS
    cell.epoch, cell.stale, cell.last_price = row.epoch, row.stale, row.last_price
    cell.bid_count = _copy_levels(state, 2 * market + Side.BUY, cell.bids)
    cell.ask_count = _copy_levels(state, 2 * market + Side.SELL, cell.asks)
    seqlock.end(head, cells, at)


@njit(cache=True, nogil=True)
def _copy_levels(state, side, out):
    row = state.sides[side]
    count = min(row.count, BOOK_DEPTH)
    best = row.offset + row.count - 1
    for i in range(count):
        level = state.levels[best - i]
        out[i].price, out[i].quantity, out[i].count = level.price, level.quantity, level.count
    return count


# --- events -----------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def emit(state):
    """Return the next event of the block, blank, to be filled in."""
    heap = state.heap[0]
    if heap.block_events == EVENTS_PER_BLOCK_MAX:
        publish_events(state)
    event = state.block_events[heap.block_events]
    heap.block_events += 1
    event.height, event.time_ns, event.order, event.price, event.quantity = 0, 0, 0, 0, 0
    event.original, event.trigger_price, event.timestamp_ms = 0, 0, 0
    event.cloid[:] = 0
    event.address[:] = 0
    event.market, event.account = NO_MARKET, NO_ACCOUNT
    event.kind, event.side, event.condition, event.flags = 0, 0, 0, 0
    event.status, event.tif, event.order_type, event.reserved = 0, 0, 0, 0
    return event


@njit(cache=True, nogil=True)
def emit_copy(state, events, i):
    """Tell events[i] as it is."""
    heap = state.heap[0]
    if heap.block_events == EVENTS_PER_BLOCK_MAX:
        publish_events(state)
    state.block_events[heap.block_events] = events[i]
    heap.block_events += 1


@njit(cache=True, nogil=True)
def publish_events(state):
    heap = state.heap[0]
    broadcast.publish(state.event_ring, state.events, state.block_events, heap.block_events)
    heap.block_events = 0


@njit(cache=True, nogil=True)
def doubt(state, market, reason, height, time_ns):
    """Say, once, that the market's book cannot be trusted any more."""
    row = state.markets[market]
    if row.stale != Stale.FRESH:
        return
    touch_market(state, market)
    atomics.store_release(row, "stale", np.int64(reason))
    state.status[0].stale_count += 1
    event = emit(state)
    event.kind, event.market, event.status = EventKind.STALE, market, reason
    event.height, event.time_ns = height, time_ns


# --- a block ----------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def apply_block(state, statuses, diffs, fills, height, time_ns, ended, trade):
    """Apply one block of a node's log.

    statuses  EVENT[], kind STATUS, in file order; at most EVENTS_PER_BLOCK_MAX of them are looked up by diffs
    diffs     EVENT[], kinds NEW, UPDATE, REMOVE, in file order
    fills     FILL[], in file order; their account_prior is written
    ended     ENDED[1], trade TRADE[1]: room to work in
    """
    begin_block(state)
    for i in range(len(statuses)):
        if i > 0 and _is_repeat(statuses, i):
            state.heap[0].duplicates += 1
            continue
        _on_status(state, statuses, i, ended)
        emit_copy(state, statuses, i)
    for i in range(len(diffs)):
        if _on_diff(state, diffs[i], statuses, height, time_ns):
            emit_copy(state, diffs, i)
    _on_fills(state, fills, height, time_ns, trade)
    _forget(state, statuses, diffs)
    event = emit(state)
    event.kind, event.height, event.time_ns = EventKind.BLOCK, height, time_ns
    end_block(state, height, time_ns)


@njit(cache=True, nogil=True)
def _is_repeat(statuses, i):
    """Whether statuses[i] says again what the one before it said: a line that was written twice."""
    one, other = statuses[i - 1], statuses[i]
    return (
        one.order == other.order
        and one.status == other.status
        and one.time_ns == other.time_ns
        and one.price == other.price
        and one.quantity == other.quantity
        and one.account == other.account
    )


@njit(cache=True, nogil=True)
def _on_status(state, statuses, i, ended):
    status = statuses[i]
    if state.refusals[status.status] != 0:
        history.end_order(state, status, True, ended)
    elif status.status == Status.OPEN:
        if status.flags & Flag.IS_TRIGGER:
            _wait(state, status)
        else:
            _remember(state, statuses, i)
    else:
        slot = index.find_order(state.order_index, state.orders, status.order)
        if slot != NO_SLOT and state.orders[slot].state == OrderState.UNTRIGGERED:
            touch_account(state, state.orders[slot].account)
            book.leave(state, slot)
        if status.status == Status.TRIGGERED:
            _remember(state, statuses, i)
        else:
            history.end_order(state, status, False, ended)


@njit(cache=True, nogil=True)
def _wait(state, status):
    """Keep an untriggered trigger order apart."""
    if index.find_order(state.order_index, state.orders, status.order) != NO_SLOT:
        return
    slot = book.take_slot(state)
    if slot == NO_SLOT:
        state.heap[0].full += 1
        return
    touch_account(state, status.account)
    _fill_order(state.orders[slot], status, status.quantity)
    book.wait_untriggered(state, slot)


@njit(cache=True, nogil=True)
def _fill_order(order, status, quantity):
    order.order, order.price, order.quantity = status.order, status.price, quantity
    order.original, order.trigger_price = status.original, status.trigger_price
    order.timestamp_ms = status.timestamp_ms
    order.cloid[:] = status.cloid
    order.market, order.account = status.market, status.account
    order.side, order.condition, order.flags = status.side, status.condition, status.flags
    order.tif, order.order_type = status.tif, status.order_type


@njit(cache=True, nogil=True)
def _remember(state, statuses, i):
    """Index a status that may open an order, for the diffs of this block."""
    heap = state.heap[0]
    if heap.block_facts == EVENTS_PER_BLOCK_MAX:
        return
    mask = len(state.fact_index) - 1
    at = index.mix(statuses[i].order) & mask
    while state.fact_index[at] != 0:
        if statuses[state.fact_index[at] - 1].order == statuses[i].order:
            state.fact_index[at] = i + 1
            return
        at = (at + 1) & mask
    state.fact_index[at] = i + 1
    heap.block_facts += 1


@njit(cache=True, nogil=True)
def _fact(state, statuses, order):
    """Return which status opens `order` in this block, or NO_SLOT."""
    mask = len(state.fact_index) - 1
    at = index.mix(order) & mask
    while state.fact_index[at] != 0:
        if statuses[state.fact_index[at] - 1].order == order:
            return state.fact_index[at] - 1
        at = (at + 1) & mask
    return NO_SLOT


@njit(cache=True, nogil=True)
def _on_diff(state, diff, statuses, height, time_ns):
    """Apply one diff. False if it repeated what was known: then it is not told again."""
    if diff.kind == EventKind.NEW:
        return _on_new(state, diff, statuses, height, time_ns)
    heap = state.heap[0]
    slot = index.find_order(state.order_index, state.orders, diff.order)
    if slot == NO_SLOT or state.orders[slot].state != OrderState.RESTING:
        if _was_removed(state, diff.order):
            heap.duplicates += 1
            return False
        heap.unknown += 1
        doubt(state, diff.market, Stale.UNKNOWN_ORDER, height, time_ns)
        return True
    order = state.orders[slot]
    same_side = diff.side == order.side or diff.side == NO_SIDE
    if order.market != diff.market or order.price != diff.price or not same_side:
        heap.wrong += 1
        doubt(state, order.market, Stale.WRONG_SIZE, height, time_ns)
        doubt(state, diff.market, Stale.WRONG_SIZE, height, time_ns)
        return True
    if diff.kind == EventKind.UPDATE and order.quantity == diff.quantity != diff.original:
        heap.duplicates += 1
        return False
    touch_market(state, order.market)
    touch_account(state, order.account)
    if diff.kind == EventKind.REMOVE:
        _mark_removed(state, diff.order)
        book.leave(state, slot)
        return True
    if order.quantity != diff.original:
        heap.wrong += 1
        doubt(state, order.market, Stale.WRONG_SIZE, height, time_ns)
    book.resize(state, slot, diff.quantity)
    return True


@njit(cache=True, nogil=True)
def _on_new(state, diff, statuses, height, time_ns):
    heap = state.heap[0]
    if _was_removed(state, diff.order):
        heap.duplicates += 1
        return False
    known = index.find_order(state.order_index, state.orders, diff.order)
    if known != NO_SLOT and state.orders[known].state == OrderState.RESTING:
        order = state.orders[known]
        if order.price == diff.price and order.market == diff.market:
            heap.duplicates += 1
            return False
        heap.wrong += 1
        doubt(state, diff.market, Stale.WRONG_SIZE, height, time_ns)
        return True
    slot = book.take_slot(state)
    if slot == NO_SLOT:
        heap.full += 1
        doubt(state, diff.market, Stale.CAPACITY, height, time_ns)
        return True
    order = state.orders[slot]
    if not _describe(state, order, diff, statuses, known, time_ns):
        _give_back(state, slot)
        doubt(state, diff.market, Stale.CORRUPT, height, time_ns)
        return True
    touch_market(state, order.market)
    touch_account(state, order.account)
    if known != NO_SLOT:
        touch_account(state, state.orders[known].account)
        book.leave(state, known)
    if not book.rest(state, slot):
        _give_back(state, slot)
        heap.full += 1
        doubt(state, diff.market, Stale.CAPACITY, height, time_ns)
    return True


@njit(cache=True, nogil=True)
def _give_back(state, slot):
    heap = state.heap[0]
    state.free_orders[heap.free_orders] = slot
    heap.free_orders += 1


@njit(cache=True, nogil=True)
def _describe(state, order, diff, statuses, known, time_ns):
    """Fill in a new resting order: price, side and size by its diff, the rest by whoever knows.

    False: nobody knows its side.
    """
    fact = _fact(state, statuses, diff.order)
    if fact != NO_SLOT and statuses[fact].market == diff.market:
        status = statuses[fact]
        _fill_order(order, status, diff.quantity)
        if status.status == Status.TRIGGERED:
            _trigger(order, status.time_ns)
    elif known != NO_SLOT:
        state.orders[known].quantity = diff.quantity
        _copy_order(order, state.orders[known])
        _trigger(order, time_ns)
    else:
        state.heap[0].synthetic += 1
        _fill_order(order, diff, diff.quantity)
        order.original, order.timestamp_ms = diff.quantity, time_ns // NS_PER_MS
        order.flags, order.condition = Flag.SYNTHETIC, Condition.NONE
        order.tif, order.order_type, order.trigger_price = 0, TYPE_LIMIT, 0
    order.price = diff.price
    if diff.side != NO_SIDE:
        order.side = diff.side
    return order.side != NO_SIDE


@njit(cache=True, nogil=True)
def _copy_order(order, other):
    order.order, order.price, order.quantity = other.order, other.price, other.quantity
    order.original, order.trigger_price = other.original, other.trigger_price
    order.timestamp_ms = other.timestamp_ms
    order.cloid[:] = other.cloid
    order.market, order.account = other.market, other.account
    order.side, order.condition, order.flags = other.side, other.condition, other.flags
    order.tif, order.order_type = other.tif, other.order_type


@njit(cache=True, nogil=True)
def _trigger(order, time_ns):
    """What a trigger order looks like once it has fired and rests."""
    order.trigger_price, order.condition = 0, Condition.TRIGGERED
    order.flags &= ~np.uint8(Flag.IS_TRIGGER)
    order.tif, order.timestamp_ms = TIF_GTC, time_ns // NS_PER_MS


@njit(cache=True, nogil=True)
def _mark_removed(state, order):
    heap = state.heap[0]
    if heap.block_removed == EVENTS_PER_BLOCK_MAX:
        return
    mask = len(state.removed_index) - 1
    at = index.mix(order) & mask
    while state.removed_index[at] != 0:
        at = (at + 1) & mask
    state.removed_index[at] = order
    heap.block_removed += 1


@njit(cache=True, nogil=True)
def _was_removed(state, order):
    """Whether this block has taken `order` off the book already: an oid never rests twice."""
    mask = len(state.removed_index) - 1
    at = index.mix(order) & mask
    while state.removed_index[at] != 0:
        if state.removed_index[at] == order:
            return True
        at = (at + 1) & mask
    return False


@njit(cache=True, nogil=True)
def _forget(state, statuses, diffs):
    """Empty the block's two indexes: only the words that its own oids can have reached."""
    heap = state.heap[0]
    if heap.block_facts > 0:
        for i in range(len(statuses)):
            _clear(state.fact_index, statuses[i].order)
    if heap.block_removed > 0:
        for i in range(len(diffs)):
            _clear(state.removed_index, diffs[i].order)
    heap.block_facts, heap.block_removed = 0, 0


@njit(cache=True, nogil=True)
def _clear(words, order):
    mask = len(words) - 1
    at = index.mix(order) & mask
    while words[at] != 0:
        words[at] = 0
        at = (at + 1) & mask


@njit(cache=True, nogil=True)
def _on_fills(state, fills, height, time_ns, trade):
    """Keep the fills; two adjacent ones that belong together are a trade. One alone stays a fill."""
    heap = state.heap[0]
    paired = False
    for i in range(len(fills)):
        position = history.keep_fill(state, fills, i)
        event = emit(state)
        history.point(event, EventKind.FILL, fills[i], position, height, time_ns)
        event.account = fills[i].account
        event.address[:] = fills[i].address
        heap.fills += 1
        if paired:
            paired = False
        elif i + 1 < len(fills) and history.are_a_trade(fills[i], fills[i + 1]):
            touch_market(state, fills[i].market)
            position = history.keep_trade(state, fills[i], fills[i + 1], trade)
            history.point(emit(state), EventKind.TRADE, trade[0], position, height, time_ns)
            heap.trades += 1
            paired = True
        else:
            heap.unpaired_fills += 1


@njit(cache=True, nogil=True)
def doubt_markets(state, markets, reason, height, time_ns):
    """Put each of `markets` (i8[]) in doubt, between two blocks."""
    begin_block(state)
    for i in range(len(markets)):
        doubt(state, markets[i], reason, height, time_ns)
    end_block(state, height, time_ns)


@njit(cache=True, nogil=True)
def publish_markets(state, height, time_ns):
    """Publish the books of all markets, after rows were loaded without a block."""
    begin_block(state)
    for market in range(state.status[0].market_count):
        touch_market(state, market)
    end_block(state, height, time_ns)
