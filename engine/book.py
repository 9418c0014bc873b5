"""Order books: sides of price levels, levels of queued orders, all in arrays.

A side is one extent of `levels`, sorted with the touch at its end: nearly all of a book's life happens there,
so an insert moves few levels and the best is always `levels[offset + count - 1]`. An extent that is full
doubles: the levels move to a free extent of the next class, the old one goes on its class's free list. The
orders of a level are an intrusive queue, first come first; so are the orders of an account.
"""

import numpy as np

from engine.state import EXTENT_CLASSES
from shm import bulk, index
from shm.codes import OrderState
from shm.constants import SIDE_LEVELS_MIN
from shm.kernel import inner
from shm.layout import NO_ACCOUNT, NO_SLOT


@inner
def find_level(rows, market, side, price):
    """Return (position, found): where in `levels` the price stands, or where it would go."""
    row = rows.sides[2 * market + side]
    at = _search(rows.levels, side, price, row.offset, row.count)
    return at, at < row.offset + row.count and rows.levels[at].price == price


@inner
def _search(levels, side, price, at, count):
    """Return where the price stands or would go among `count` levels of a side that begin at `at`.

    A search in quarters: three looks a step, none of which waits for another or decides a branch.
    """
    turn = -np.int64(side)  # sells: a complement turns their order around
    key = price ^ turn
    while count > 3:
        quarter = count >> 2
        before = np.int64(levels[at + quarter - 1].price ^ turn < key)
        before += levels[at + 2 * quarter - 1].price ^ turn < key
        before += levels[at + 3 * quarter - 1].price ^ turn < key
        at += before * quarter
        count -= 3 * quarter
    before = 0
    for i in range(count):
        before += levels[at + i].price ^ turn < key
    return at + before


@inner
def _search_from(levels, side, price, row, at):
    """The same of one side, for a price near that of the level at `at`: in steps that double from there."""
    turn, step = -np.int64(side), 1
    key, first, end = price ^ turn, row.offset, row.offset + row.count
    if levels[at].price ^ turn < key:
        first = at + 1
        while at + step < end and levels[at + step].price ^ turn < key:
            first, step = at + step + 1, 2 * step
        end = min(end, at + step)
    else:
        end = at
        while at - step >= first and levels[at - step].price ^ turn >= key:
            end, step = at - step, 2 * step
        first = max(first, at - step + 1)
    return _search(levels, side, price, first, end - first)


@inner
def take_extent(rows, size_class):
    """Hand out an extent of SIDE_LEVELS_MIN << size_class levels; return its offset, or NO_SLOT."""
    heap = rows.heap[0]
    first = rows.free_extents[size_class]
    if first > 0:
        # a free extent's first word links the list
        rows.free_extents[size_class] = rows.levels[first - 1].price
        return first - 1
    size = SIDE_LEVELS_MIN << size_class
    if heap.levels_top + size > len(rows.levels):
        return NO_SLOT
    heap.levels_top += size
    return heap.levels_top - size


@inner
def grow_side(rows, row):
    """Give the side twice its room. False, and nothing changed, if there is none."""
    size_class = 0
    while row.capacity > 0 and SIDE_LEVELS_MIN << size_class <= row.capacity:
        size_class += 1
    if size_class >= EXTENT_CLASSES:
        return False
    offset = take_extent(rows, size_class)
    if offset == NO_SLOT:
        return False
    bulk.shift(rows.levels, offset, row.offset, row.count)
    if row.capacity > 0:
        rows.levels[row.offset].price = rows.free_extents[size_class - 1]
        rows.free_extents[size_class - 1] = row.offset + 1
    row.offset, row.capacity = offset, SIDE_LEVELS_MIN << size_class
    return True


@inner
def open_level(rows, market, side, price):
    """Return the position of the level at `price`, made if it was not there; NO_SLOT if there is no room."""
    at, found = find_level(rows, market, side, price)
    if found:
        return at
    row = rows.sides[2 * market + side]
    if row.count == row.capacity:
        place = at - row.offset
        if not grow_side(rows, row):
            return NO_SLOT
        at = row.offset + place
    bulk.shift(rows.levels, at + 1, at, row.offset + row.count - at)
    row.count += 1
    _clear(rows.levels[at], price)
    return at


@inner
def _clear(level, price):
    level.price, level.quantity, level.count = price, 0, 0
    level.head, level.tail = NO_SLOT, NO_SLOT


@inner
def turn_level(rows, market, side, at, price):
    """Let the empty level at position `at` go, and return that of the level at `price`, made if need be.

    Only what lies between the two is moved.
    """
    row, levels = rows.sides[2 * market + side], rows.levels
    to = _search_from(levels, side, price, row, at)
    if to < row.offset + row.count and levels[to].price == price:
        if to != at:
            close_level(rows, market, side, at)
        return to - (to > at)
    if to > at:
        to -= 1
        bulk.shift(levels, at, at + 1, to - at)
    else:
        bulk.shift(levels, to + 1, to, at - to)
    _clear(levels[to], price)
    return to


@inner
def close_level(rows, market, side, at):
    """Take the empty level at position `at` out of its side."""
    row = rows.sides[2 * market + side]
    row.count -= 1
    bulk.shift(rows.levels, at, at + 1, row.offset + row.count - at)


@inner
def take_slot(rows):
    """Take a free order slot, or NO_SLOT."""
    heap = rows.heap[0]
    if heap.free_orders == 0:
        return NO_SLOT
    heap.free_orders -= 1
    return rows.free_orders[heap.free_orders]


@inner
def free_slot(rows, slot):
    """Forget the order in `slot`: out of the index and of its account's list, and the slot is free again."""
    order = rows.orders[slot]
    index.remove_order(rows.order_index, rows.orders, order.order)
    unlink_account(rows, slot)
    order.state = OrderState.FREE
    give_back(rows, slot)
    rows.status[0].order_count -= 1


@inner
def give_back(rows, slot):
    """Put a slot that holds no order back among the free ones."""
    heap = rows.heap[0]
    rows.free_orders[heap.free_orders] = slot
    heap.free_orders += 1


@inner
def link_account(rows, slot):
    """Put the order at the end of its account's list."""
    order = rows.orders[slot]
    order.account_prior, order.account_next = NO_SLOT, NO_SLOT
    if order.account == NO_ACCOUNT:
        return
    account = rows.accounts[order.account]
    order.account_prior = account.last_order
    if account.last_order == NO_SLOT:
        account.first_order = slot
    else:
        rows.orders[account.last_order].account_next = slot
    account.last_order = slot
    account.order_count += 1


@inner
def unlink_account(rows, slot):
    order = rows.orders[slot]
    if order.account == NO_ACCOUNT:
        return
    account = rows.accounts[order.account]
    if order.account_prior == NO_SLOT:
        account.first_order = order.account_next
    else:
        rows.orders[order.account_prior].account_next = order.account_next
    if order.account_next == NO_SLOT:
        account.last_order = order.account_prior
    else:
        rows.orders[order.account_next].account_prior = order.account_prior
    account.order_count -= 1


@inner
def join_queue(rows, slot, market, side, price):
    """Put the order in `slot` at the end of a level's queue. False, and nothing changed: there is no room."""
    at = open_level(rows, market, side, price)
    if at == NO_SLOT:
        return False
    _append(rows, rows.levels[at], slot)
    rows.sides[2 * market + side].order_count += 1
    return True


@inner
def leave_queue(rows, slot, market, side, price):
    """Take the order in `slot` out of the queue that it joined."""
    at, _ = find_level(rows, market, side, price)
    _unlink(rows, rows.levels[at], slot)
    if rows.levels[at].count == 0:
        close_level(rows, market, side, at)
    rows.sides[2 * market + side].order_count -= 1


@inner
def _append(rows, level, slot):
    """Put the order in `slot` at the end of the level's queue."""
    order = rows.orders[slot]
    order.prior, order.next = level.tail, NO_SLOT
    if level.tail == NO_SLOT:
        level.head = slot
    else:
        rows.orders[level.tail].next = slot
    level.tail = slot
    level.quantity += order.quantity
    level.count += 1


@inner
def _unlink(rows, level, slot):
    order = rows.orders[slot]
    if order.prior == NO_SLOT:
        level.head = order.next
    else:
        rows.orders[order.prior].next = order.next
    if order.next == NO_SLOT:
        level.tail = order.prior
    else:
        rows.orders[order.next].prior = order.prior
    level.quantity -= order.quantity
    level.count -= 1


@inner
def rest(rows, slot):
    """Put the order in `slot` (all its fields set, not yet anywhere) at the end of its level's queue.

    False, and nothing changed, if there is no room for a new level.
    """
    order = rows.orders[slot]
    if not join_queue(rows, slot, order.market, order.side, order.price):
        return False
    order.state = OrderState.RESTING
    index.add_order(rows.order_index, order.order, slot)
    link_account(rows, slot)
    rows.markets[order.market].order_count += 1
    rows.status[0].order_count += 1
    return True


@inner
def replace(rows, slot, order_id, price, quantity):
    """Let the order that rests in `slot` be another one from here on: with this oid, last in this price's
    queue, on the same side, and last of its account's. There is room for one more level.
    """
    order = rows.orders[slot]
    market, side = order.market, order.side
    index.remove_order(rows.order_index, rows.orders, order.order)
    index.add_order(rows.order_index, order_id, slot)
    unlink_account(rows, slot)
    link_account(rows, slot)
    at, _ = find_level(rows, market, side, order.price)
    _unlink(rows, rows.levels[at], slot)
    if rows.levels[at].count == 0:
        at = turn_level(rows, market, side, at, price)
    else:
        at = open_level(rows, market, side, price)
    order.order, order.price, order.quantity = order_id, price, quantity
    _append(rows, rows.levels[at], slot)


@inner
def wait_untriggered(rows, slot):
    """Keep the trigger order in `slot` apart from the book, until it is triggered or ends."""
    order = rows.orders[slot]
    order.state = OrderState.UNTRIGGERED
    order.prior, order.next = NO_SLOT, NO_SLOT
    index.add_order(rows.order_index, order.order, slot)
    link_account(rows, slot)
    rows.status[0].order_count += 1


@inner
def resize(rows, slot, quantity):
    """Give a resting order a new quantity; it keeps its place in the queue."""
    order = rows.orders[slot]
    at, _ = find_level(rows, order.market, order.side, order.price)
    rows.levels[at].quantity += quantity - order.quantity
    order.quantity = quantity


@inner
def leave(rows, slot):
    """Take the order in `slot`, resting or untriggered, out of everything."""
    order = rows.orders[slot]
    if order.state == OrderState.RESTING:
        leave_queue(rows, slot, order.market, order.side, order.price)
        rows.markets[order.market].order_count -= 1
    free_slot(rows, slot)
