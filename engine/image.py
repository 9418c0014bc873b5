"""A market's orders as a plain array: taken out of a state, put into one, compared between two.

An image is ORDER[]: the bids best first, then the asks best first, each level in the order of its queue, then
the untriggered orders. It is what a snapshot holds, what a checkpoint keeps, and what two states are compared
by.
"""

import numpy as np

from engine import book, publish
from engine.state import TINY, State, allocate
from shm import atomics, index
from shm.codes import EventKind, Flag, OrderState, Stale
from shm.constants import CLOID_BYTES
from shm.kernel import entry, inner
from shm.layout import NO_SLOT, ORDER


@entry
def copy_resting(state, market, out):
    """Copy the market's resting orders, in priority, into out (ORDER[order_count]); return how many."""
    count = 0
    for side in range(2):
        row = state.rows.sides[2 * market + side]
        for i in range(row.count):
            slot = state.rows.levels[row.offset + row.count - 1 - i].head
            while slot != NO_SLOT:
                out[count] = state.rows.orders[slot]
                count += 1
                slot = state.rows.orders[slot].next
    return count


@entry
def copy_untriggered(state, out):
    """Copy the untriggered orders of all markets, in slot order, into out; return how many there are."""
    count = 0
    for slot in range(len(state.rows.orders)):
        if state.rows.orders[slot].state == OrderState.UNTRIGGERED:
            if count < len(out):
                out[count] = state.rows.orders[slot]
            count += 1
        if count == len(out):
            break
    return count


@entry
def load(state, orders):
    """Put `orders` (an image of any markets; market and account are rows of this state) behind what is there.

    Returns how many found no room. Not bracketed: the caller has opened the markets, or nobody reads yet.
    """
    refused = 0
    for i in range(len(orders)):
        slot = book.take_slot(state.rows)
        if slot == NO_SLOT:
            refused += len(orders) - i
            break
        state.rows.orders[slot] = orders[i]
        if orders[i].state == OrderState.UNTRIGGERED:
            book.wait_untriggered(state.rows, slot)
        elif not book.rest(state.rows, slot):
            state.rows.free_orders[state.rows.heap[0].free_orders] = slot
            state.rows.heap[0].free_orders += 1
            refused += 1
    return refused


@inner
def clear_market(state, market):
    """Take every resting order of the market off its book."""
    for side in range(2):
        row = state.rows.sides[2 * market + side]
        while row.count > 0:
            slot = state.rows.levels[row.offset + row.count - 1].head
            publish.touch_account(state, state.rows.orders[slot].account)
            book.leave(state.rows, slot)


@entry
def replace_market(state, market, orders, height, time_ns):
    """Rebuild one market from an image of its resting orders, and tell everyone to take a new snapshot of it.

    An untriggered order that the image has as resting gives way. Returns how many orders found no room (then
    the market stays in doubt).
    """
    publish.begin_block(state)
    publish.touch_market(state, market)
    clear_market(state, market)
    for i in range(len(orders)):
        slot = _slot_of(state, orders[i].order)
        if slot != NO_SLOT:
            publish.touch_account(state, state.rows.orders[slot].account)
            book.leave(state.rows, slot)
        publish.touch_account(state, orders[i].account)
    refused = load(state, orders)
    row = state.rows.markets[market]
    if row.stale != Stale.FRESH and refused == 0:
        state.rows.status[0].stale_count -= 1
    if row.stale == Stale.FRESH and refused > 0:
        state.rows.status[0].stale_count += 1
    atomics.store_release(row, "stale", np.int64(Stale.CAPACITY if refused else Stale.FRESH))
    row.epoch += 1
    event = publish.emit(state)
    event.kind, event.market, event.status = EventKind.RESET, market, row.stale
    event.height, event.time_ns = height, time_ns
    publish.end_block(state, height, time_ns)
    return refused


@inner
def _slot_of(state, order):
    return index.find_order(state.rows.order_index, state.rows.orders, order)


@entry
def first_difference(one, other):
    """Return the first place where two images of a market differ, their lengths included; -1 if nowhere.

    An order that only a diff has told (Flag.SYNTHETIC) is compared by what a diff tells.
    """
    count = min(len(one), len(other))
    for i in range(count):
        mine, theirs = one[i], other[i]
        same = (
            mine.order == theirs.order
            and mine.price == theirs.price
            and mine.quantity == theirs.quantity
            and mine.side == theirs.side
            and mine.account == theirs.account
        )
        if same and not (mine.flags | theirs.flags) & Flag.SYNTHETIC:
            same = (mine.flags & Flag.HAS_CLOID) == (theirs.flags & Flag.HAS_CLOID)
            for k in range(CLOID_BYTES):
                same = same and mine.cloid[k] == theirs.cloid[k]
        if not same:
            return i
    return -1 if len(one) == len(other) else count


def resting(state: State, market: int) -> np.ndarray:
    """The image of a market's resting orders: ORDER[order_count], a copy."""
    out = np.zeros(int(state.rows.markets[market]["order_count"]), ORDER)
    assert copy_resting(state, market, out) == len(out), "a market counts its orders"
    return out


def untriggered(state: State) -> np.ndarray:
    """The untriggered orders of all markets: ORDER[], a copy."""
    known = int(state.status[0]["order_count"])
    out = np.zeros(known - int(state.markets["order_count"].sum()), ORDER)
    assert copy_untriggered(state, out) == len(out), "the world counts its orders"
    return out


@entry
def replace_untriggered(state, gone, missing):
    """Forget the untriggered orders with ids in `gone` (i8[]); add `missing` (ORDER[]) if not known."""
    publish.begin_block(state)
    for i in range(len(gone)):
        slot = _slot_of(state, gone[i])
        if slot != NO_SLOT and state.rows.orders[slot].state == OrderState.UNTRIGGERED:
            publish.touch_account(state, state.rows.orders[slot].account)
            book.leave(state.rows, slot)
    for i in range(len(missing)):
        if _slot_of(state, missing[i].order) == NO_SLOT:
            publish.touch_account(state, missing[i].account)
            load(state, missing[i : i + 1])
    publish.end_block(state, state.rows.status[0].height, state.rows.status[0].time_ns)


def warm() -> None:
    """Compile the entry points."""
    state, orders = allocate(TINY), np.zeros(0, ORDER)
    copy_resting(state, 0, orders)
    copy_untriggered(state, np.zeros(1, ORDER))
    load(state, orders)
    replace_market(state, 0, orders, 1, 1)
    replace_untriggered(state, np.zeros(0, np.int64), orders)
    first_difference(orders, orders)
