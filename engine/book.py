"""Order books: sides of price levels, levels of queued orders, all in arrays.

A side is one extent of `levels`, sorted with the touch at its end: nearly all of a book's life happens there,
so an insert moves few levels and the best is always `levels[offset + count - 1]`. An extent that is full
doubles: the levels move to a free extent of the next class, the old one goes on its class's free list. The
orders of a level are an intrusive queue, first come first; so are the orders of an account.
"""

from numba import njit

from engine.state import EXTENT_CLASSES
from shm import index
from shm.codes import OrderState, Side
from shm.constants import SIDE_LEVELS_MIN
from shm.layout import NO_ACCOUNT, NO_SLOT

NEAR = 8  # levels looked at from the touch before a binary search


@njit(cache=True, nogil=True)
def find_level(state, market, side, price):
    """Return (position, found): where in `levels` the price stands, or where it would go."""
    row = state.sides[2 * market + side]
    low, end = row.offset, row.offset + row.count
    sign = 1 if side == Side.BUY else -1
    key = sign * price
    at = end
    for _ in range(NEAR):
        if at == low or sign * state.levels[at - 1].price < key:
            return at, False
        at -= 1
        if state.levels[at].price == price:
            return at, True
    high = at
    while low < high:
        middle = (low + high) // 2
        if sign * state.levels[middle].price < key:
            low = middle + 1
        else:
            high = middle
    return low, low < end and state.levels[low].price == price


@njit(cache=True, nogil=True)
def take_extent(state, size_class):
    """Hand out an extent of SIDE_LEVELS_MIN << size_class levels; return its offset, or NO_SLOT."""
    heap = state.heap[0]
    first = state.free_extents[size_class]
    if first > 0:
        # a free extent's first word links the list
        state.free_extents[size_class] = state.levels[first - 1].price
        return first - 1
    size = SIDE_LEVELS_MIN << size_class
    if heap.levels_top + size > len(state.levels):
        return NO_SLOT
    heap.levels_top += size
    return heap.levels_top - size


@njit(cache=True, nogil=True)
def grow_side(state, row):
    """Give the side twice its room. False, and nothing changed, if there is none."""
    size_class = 0
    while row.capacity > 0 and SIDE_LEVELS_MIN << size_class <= row.capacity:
        size_class += 1
    if size_class >= EXTENT_CLASSES:
        return False
    offset = take_extent(state, size_class)
    if offset == NO_SLOT:
        return False
    for i in range(row.count):
        state.levels[offset + i] = state.levels[row.offset + i]
    if row.capacity > 0:
        state.levels[row.offset].price = state.free_extents[size_class - 1]
        state.free_extents[size_class - 1] = row.offset + 1
    row.offset, row.capacity = offset, SIDE_LEVELS_MIN << size_class
    return True


@njit(cache=True, nogil=True)
def open_level(state, market, side, price):
    """Return the position of the level at `price`, made if it was not there; NO_SLOT if there is no room."""
    at, found = find_level(state, market, side, price)
    if found:
        return at
    row = state.sides[2 * market + side]
    if row.count == row.capacity:
        place = at - row.offset
        if not grow_side(state, row):
            return NO_SLOT
        at = row.offset + place
    for i in range(row.offset + row.count, at, -1):
        state.levels[i] = state.levels[i - 1]
    row.count += 1
    level = state.levels[at]
    level.price, level.quantity, level.count = price, 0, 0
    level.head, level.tail = NO_SLOT, NO_SLOT
    return at


@njit(cache=True, nogil=True)
def close_level(state, market, side, at):
    """Take the empty level at position `at` out of its side."""
    row = state.sides[2 * market + side]
    row.count -= 1
    for i in range(at, row.offset + row.count):
        state.levels[i] = state.levels[i + 1]


@njit(cache=True, nogil=True)
def take_slot(state):
    """Take a free order slot, or NO_SLOT."""
    heap = state.heap[0]
    if heap.free_orders == 0:
        return NO_SLOT
    heap.free_orders -= 1
    return state.free_orders[heap.free_orders]


@njit(cache=True, nogil=True)
def free_slot(state, slot):
    """Forget the order in `slot`: out of the index and of its account's list, and the slot is free again."""
    order = state.orders[slot]
    index.remove_order(state.order_index, state.orders, order.order)
    unlink_account(state, slot)
    order.state = OrderState.FREE
    heap = state.heap[0]
    state.free_orders[heap.free_orders] = slot
    heap.free_orders += 1
    state.status[0].order_count -= 1


@njit(cache=True, nogil=True)
def link_account(state, slot):
    """Put the order at the end of its account's list."""
    order = state.orders[slot]
    order.account_prior, order.account_next = NO_SLOT, NO_SLOT
    if order.account == NO_ACCOUNT:
        return
    account = state.accounts[order.account]
    order.account_prior = account.last_order
    if account.last_order == NO_SLOT:
        account.first_order = slot
    else:
        state.orders[account.last_order].account_next = slot
    account.last_order = slot
    account.order_count += 1


@njit(cache=True, nogil=True)
def unlink_account(state, slot):
    order = state.orders[slot]
    if order.account == NO_ACCOUNT:
        return
    account = state.accounts[order.account]
    if order.account_prior == NO_SLOT:
        account.first_order = order.account_next
    else:
        state.orders[order.account_prior].account_next = order.account_next
    if order.account_next == NO_SLOT:
        account.last_order = order.account_prior
    else:
        state.orders[order.account_next].account_prior = order.account_prior
    account.order_count -= 1


@njit(cache=True, nogil=True)
def rest(state, slot):
    """Put the order in `slot` (all its fields set, not yet anywhere) at the end of its level's queue.

    False, and nothing changed, if there is no room for a new level.
    """
    order = state.orders[slot]
    at = open_level(state, order.market, order.side, order.price)
    if at == NO_SLOT:
        return False
    level = state.levels[at]
    order.state = OrderState.RESTING
    order.prior, order.next = level.tail, NO_SLOT
    if level.tail == NO_SLOT:
        level.head = slot
    else:
        state.orders[level.tail].next = slot
    level.tail = slot
    level.quantity += order.quantity
    level.count += 1
    index.add_order(state.order_index, order.order, slot)
    link_account(state, slot)
    state.sides[2 * order.market + order.side].order_count += 1
    state.markets[order.market].order_count += 1
    state.status[0].order_count += 1
    return True


@njit(cache=True, nogil=True)
def wait_untriggered(state, slot):
    """Keep the trigger order in `slot` apart from the book, until it is triggered or ends."""
    order = state.orders[slot]
    order.state = OrderState.UNTRIGGERED
    order.prior, order.next = NO_SLOT, NO_SLOT
    index.add_order(state.order_index, order.order, slot)
    link_account(state, slot)
    state.status[0].order_count += 1


@njit(cache=True, nogil=True)
def resize(state, slot, quantity):
    """Give a resting order a new quantity; it keeps its place in the queue."""
    order = state.orders[slot]
    at, _ = find_level(state, order.market, order.side, order.price)
    state.levels[at].quantity += quantity - order.quantity
    order.quantity = quantity


@njit(cache=True, nogil=True)
def leave(state, slot):
    """Take the order in `slot`, resting or untriggered, out of everything."""
    order = state.orders[slot]
    if order.state == OrderState.RESTING:
        at, _ = find_level(state, order.market, order.side, order.price)
        level = state.levels[at]
        if order.prior == NO_SLOT:
            level.head = order.next
        else:
            state.orders[order.prior].next = order.next
        if order.next == NO_SLOT:
            level.tail = order.prior
        else:
            state.orders[order.next].prior = order.prior
        level.quantity -= order.quantity
        level.count -= 1
        if level.count == 0:
            close_level(state, order.market, order.side, at)
        state.sides[2 * order.market + order.side].order_count -= 1
        state.markets[order.market].order_count -= 1
    free_slot(state, slot)
