"""One block in, the books after it and its events out.

Deterministic: reads the block and the state, and nothing else; no clock, no I/O, no allocation. How a change
becomes visible is `publish`'s. Nothing in a block can stop it: a diff that does not fit puts its market in
doubt.
"""

import numpy as np

from engine import book, history, publish
from engine.state import FACTS_PER_BLOCK_MAX, TINY, allocate
from shm import index
from shm.bulk import copy_bytes
from shm.codes import TIF_GTC, TYPE_LIMIT, Condition, EventKind, Flag, OrderState, Stale, Status
from shm.kernel import entry, inner
from shm.layout import ENDED, EVENT, FILL, NO_SLOT, TRADE

NO_SIDE = 255  # a diff of an older node: the order's status knows


@entry
def apply_block(state, statuses, diffs, fills, height, time_ns, ended, trade):
    """Apply one block of a node's log.

    statuses  EVENT[], kind STATUS, in file order; at most FACTS_PER_BLOCK_MAX of them are looked up by diffs
    diffs     EVENT[], kinds NEW, UPDATE, REMOVE, in file order
    fills     FILL[], in file order; their account_prior is written
    ended     ENDED[1], trade TRADE[1]: room to work in
    """
    publish.begin_block(state)
    for i in range(len(statuses)):
        if i > 0 and _is_repeat(statuses, i):
            state.rows.heap[0].duplicates += 1
            continue
        _on_status(state, statuses, i, ended)
        publish.emit_copy(state, statuses[i])
    for i in range(len(diffs)):
        if _on_diff(state, diffs[i], statuses, height, time_ns):
            publish.emit_copy(state, diffs[i])
    _on_fills(state, fills, height, time_ns, trade)
    _compare_streams(state, statuses, diffs, fills, height, time_ns)
    _forget(state, statuses, diffs)
    event = publish.emit(state)
    event.kind, event.height, event.time_ns = EventKind.BLOCK, height, time_ns
    publish.end_block(state, height, time_ns)


@inner
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


@inner
def _on_status(state, statuses, i, ended):
    status = statuses[i]
    if state.work.refusals[status.status] != 0:
        history.end_order(state, status, True, ended)
    elif status.status == Status.OPEN:
        if status.flags & Flag.IS_TRIGGER:
            _wait(state, status)
        elif not _complete(state, status):
            _remember(state, statuses, i)
    else:
        slot = index.find_order(state.rows.order_index, state.rows.orders, status.order)
        if slot != NO_SLOT and state.rows.orders[slot].state == OrderState.UNTRIGGERED:
            publish.touch_account(state, state.rows.orders[slot].account)
            book.leave(state.rows, slot)
        if status.status == Status.TRIGGERED:
            if not _complete(state, status):
                _remember(state, statuses, i)
        else:
            history.end_order(state, status, False, ended)


@inner
def _wait(state, status):
    """Keep an untriggered trigger order apart."""
    if index.find_order(state.rows.order_index, state.rows.orders, status.order) != NO_SLOT:
        return
    slot = book.take_slot(state.rows)
    if slot == NO_SLOT:
        state.rows.heap[0].full += 1
        return
    publish.touch_account(state, status.account)
    _fill_order(state.rows.orders[slot], status, status.quantity)
    book.wait_untriggered(state.rows, slot)


@inner
def _complete(state, status):
    """Tell of a resting order what only its status knows, which came in a later block than its diff."""
    slot = index.find_order(state.rows.order_index, state.rows.orders, status.order)
    if slot == NO_SLOT or not state.rows.orders[slot].flags & Flag.SYNTHETIC:
        return False
    order = state.rows.orders[slot]
    if order.market != status.market or order.account != status.account or order.side != status.side:
        return False
    publish.touch_market(state, order.market)
    publish.touch_account(state, order.account)
    order.original, order.trigger_price = status.original, status.trigger_price
    order.timestamp_ms = status.timestamp_ms
    copy_bytes(order.cloid, status.cloid)
    order.condition, order.flags = status.condition, status.flags
    order.tif, order.order_type = status.tif, status.order_type
    if status.status == Status.TRIGGERED:
        _trigger(order, status.time_ns)
    return True


@inner
def _fill_order(order, status, quantity):
    order.order, order.price, order.quantity = status.order, status.price, quantity
    order.original, order.trigger_price = status.original, status.trigger_price
    order.timestamp_ms = status.timestamp_ms
    copy_bytes(order.cloid, status.cloid)
    order.market, order.account = status.market, status.account
    order.side, order.condition, order.flags = status.side, status.condition, status.flags
    order.tif, order.order_type = status.tif, status.order_type


@inner
def _remember(state, statuses, i):
    """Index a status that may open an order, for the diffs of this block."""
    heap = state.rows.heap[0]
    if heap.block_facts == FACTS_PER_BLOCK_MAX:
        return
    mask = len(state.work.fact_index) - 1
    at = index.mix(statuses[i].order) & mask
    while state.work.fact_index[at] != 0:
        if statuses[state.work.fact_index[at] - 1].order == statuses[i].order:
            state.work.fact_index[at] = i + 1
            return
        at = (at + 1) & mask
    state.work.fact_index[at] = i + 1
    heap.block_facts += 1


@inner
def _fact(state, statuses, order):
    """Return which status opens `order` in this block, or NO_SLOT."""
    mask = len(state.work.fact_index) - 1
    at = index.mix(order) & mask
    while state.work.fact_index[at] != 0:
        if statuses[state.work.fact_index[at] - 1].order == order:
            return state.work.fact_index[at] - 1
        at = (at + 1) & mask
    return NO_SLOT


@inner
def _on_diff(state, diff, statuses, height, time_ns):
    """Apply one diff. False if it repeated what was known: then it is not told again."""
    if diff.kind == EventKind.NEW:
        return _on_new(state, diff, statuses, height, time_ns)
    heap = state.rows.heap[0]
    slot = index.find_order(state.rows.order_index, state.rows.orders, diff.order)
    if slot == NO_SLOT or state.rows.orders[slot].state != OrderState.RESTING:
        if _was_removed(state, diff.order):
            heap.duplicates += 1
            return False
        heap.unknown += 1
        publish.doubt(state, diff.market, Stale.UNKNOWN_ORDER, height, time_ns)
        return True
    order = state.rows.orders[slot]
    same_side = diff.side == order.side or diff.side == NO_SIDE
    if order.market != diff.market or order.price != diff.price or not same_side:
        heap.wrong += 1
        publish.doubt(state, order.market, Stale.WRONG_SIZE, height, time_ns)
        publish.doubt(state, diff.market, Stale.WRONG_SIZE, height, time_ns)
        return True
    if diff.kind == EventKind.UPDATE and order.quantity == diff.quantity != diff.original:
        heap.duplicates += 1
        return False
    publish.touch_market(state, order.market)
    publish.touch_account(state, order.account)
    if diff.kind == EventKind.REMOVE:
        _mark_removed(state, diff.order)
        book.leave(state.rows, slot)
        return True
    if order.quantity != diff.original:
        heap.wrong += 1
        publish.doubt(state, order.market, Stale.WRONG_SIZE, height, time_ns)
    book.resize(state.rows, slot, diff.quantity)
    return True


@inner
def _on_new(state, diff, statuses, height, time_ns):
    heap = state.rows.heap[0]
    if _was_removed(state, diff.order):
        heap.duplicates += 1
        return False
    known = index.find_order(state.rows.order_index, state.rows.orders, diff.order)
    if known != NO_SLOT and state.rows.orders[known].state == OrderState.RESTING:
        order = state.rows.orders[known]
        if order.price == diff.price and order.market == diff.market:
            heap.duplicates += 1
            return False
        heap.wrong += 1
        publish.doubt(state, diff.market, Stale.WRONG_SIZE, height, time_ns)
        return True
    slot = book.take_slot(state.rows)
    if slot == NO_SLOT:
        heap.full += 1
        publish.doubt(state, diff.market, Stale.CAPACITY, height, time_ns)
        return True
    order = state.rows.orders[slot]
    if not _describe(state, order, diff, statuses, known, time_ns):
        book.give_back(state.rows, slot)
        publish.doubt(state, diff.market, Stale.CORRUPT, height, time_ns)
        return True
    publish.touch_market(state, order.market)
    publish.touch_account(state, order.account)
    if known != NO_SLOT:
        publish.touch_account(state, state.rows.orders[known].account)
        book.leave(state.rows, known)
    if not book.rest(state.rows, slot):
        book.give_back(state.rows, slot)
        heap.full += 1
        publish.doubt(state, diff.market, Stale.CAPACITY, height, time_ns)
    return True


@inner
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
        state.rows.orders[known].quantity = diff.quantity
        _copy_order(order, state.rows.orders[known])
        _trigger(order, time_ns)
    else:
        state.rows.heap[0].synthetic += 1
        _fill_order(order, diff, diff.quantity)
        order.original, order.timestamp_ms = diff.quantity, time_ns // publish.NS_PER_MS
        order.flags, order.condition = Flag.SYNTHETIC, Condition.NONE
        order.tif, order.order_type, order.trigger_price = 0, TYPE_LIMIT, 0
    order.price = diff.price
    if diff.side != NO_SIDE:
        order.side = diff.side
    return order.side != NO_SIDE


@inner
def _copy_order(order, other):
    order.order, order.price, order.quantity = other.order, other.price, other.quantity
    order.original, order.trigger_price = other.original, other.trigger_price
    order.timestamp_ms = other.timestamp_ms
    copy_bytes(order.cloid, other.cloid)
    order.market, order.account = other.market, other.account
    order.side, order.condition, order.flags = other.side, other.condition, other.flags
    order.tif, order.order_type = other.tif, other.order_type


@inner
def _trigger(order, time_ns):
    """What a trigger order looks like once it has fired and rests."""
    order.trigger_price, order.condition = 0, Condition.TRIGGERED
    order.flags &= ~np.uint8(Flag.IS_TRIGGER)
    order.tif, order.timestamp_ms = TIF_GTC, time_ns // publish.NS_PER_MS


@inner
def _mark_removed(state, order):
    heap = state.rows.heap[0]
    if heap.block_removed == FACTS_PER_BLOCK_MAX:
        return
    mask = len(state.work.removed_index) - 1
    at = index.mix(order) & mask
    while state.work.removed_index[at] != 0:
        at = (at + 1) & mask
    state.work.removed_index[at] = order
    heap.block_removed += 1


@inner
def _was_removed(state, order):
    """Whether this block has taken `order` off the book already: an oid never rests twice."""
    mask = len(state.work.removed_index) - 1
    at = index.mix(order) & mask
    while state.work.removed_index[at] != 0:
        if state.work.removed_index[at] == order:
            return True
        at = (at + 1) & mask
    return False


@inner
def _compare_streams(state, statuses, diffs, fills, height, time_ns):
    """Doubt the markets of which a status or a fill of this block says what no diff has said: one is lost."""
    for i in range(len(statuses)):
        status = statuses[i]
        if status.height != height or state.work.refusals[status.status] != 0:
            continue  # one that came late speaks of a book that is no more
        slot = index.find_order(state.rows.order_index, state.rows.orders, status.order)
        rests = slot != NO_SLOT and state.rows.orders[slot].state == OrderState.RESTING
        if status.status == Status.OPEN and not status.flags & Flag.IS_TRIGGER:
            if not rests and not _was_removed(state, status.order) and not _ended_behind(statuses, i):
                publish.doubt(state, status.market, Stale.GAP, height, time_ns)
        elif status.status != Status.OPEN and status.status != Status.TRIGGERED and rests:
            publish.doubt(state, state.rows.orders[slot].market, Stale.GAP, height, time_ns)
    for i in range(len(fills)):
        fill = fills[i]
        if fill.height != height or fill.flags & Flag.CROSSED:
            continue
        slot = index.find_order(state.rows.order_index, state.rows.orders, fill.order)
        if slot != NO_SLOT and state.rows.orders[slot].state == OrderState.RESTING:
            changed = False
            for k in range(len(diffs)):
                changed = changed or diffs[k].order == fill.order
            if not changed:
                publish.doubt(state, fill.market, Stale.GAP, height, time_ns)


@inner
def _ended_behind(statuses, i):
    """Whether the order of statuses[i] was filled or canceled at once, further on: it never rested."""
    for later in range(i + 1, len(statuses)):
        if statuses[later].order == statuses[i].order and statuses[later].status != Status.OPEN:
            return True
    return False


@inner
def _forget(state, statuses, diffs):
    """Empty the block's two indexes: only the words that its own oids can have reached."""
    heap = state.rows.heap[0]
    if heap.block_facts > 0:
        for i in range(len(statuses)):
            _clear(state.work.fact_index, statuses[i].order)
    if heap.block_removed > 0:
        for i in range(len(diffs)):
            _clear(state.work.removed_index, diffs[i].order)
    heap.block_facts, heap.block_removed = 0, 0


@inner
def _clear(words, order):
    mask = len(words) - 1
    at = index.mix(order) & mask
    while words[at] != 0:
        words[at] = 0
        at = (at + 1) & mask


@inner
def _on_fills(state, fills, height, time_ns, trade):
    """Keep the fills; two adjacent ones that belong together are a trade. One alone stays a fill."""
    heap = state.rows.heap[0]
    paired = False
    for i in range(len(fills)):
        position = history.keep_fill(state, fills, i)
        event = publish.emit(state)
        history.point(event, EventKind.FILL, fills[i], position, height, time_ns)
        event.account = fills[i].account
        copy_bytes(event.address, fills[i].address)
        heap.fills += 1
        if paired:
            paired = False
        elif i + 1 < len(fills) and history.are_a_trade(fills[i], fills[i + 1]):
            publish.touch_market(state, fills[i].market)
            position = history.keep_trade(state, fills[i], fills[i + 1], trade)
            history.point(publish.emit(state), EventKind.TRADE, trade[0], position, height, time_ns)
            heap.trades += 1
            paired = True
        else:
            heap.unpaired_fills += 1


def warm() -> None:
    """Compile the entry points."""
    state, events = allocate(TINY), np.zeros(0, EVENT)
    apply_block(state, events, events, np.zeros(0, FILL), 1, 1, np.zeros(1, ENDED), np.zeros(1, TRADE))
