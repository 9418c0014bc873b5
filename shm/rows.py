"""Long reads of the world: depth, queues, an account's orders, chains of fills. Bounded, never torn.

A reader brackets what it copies by the sequence of the row it belongs to (MARKET, ACCOUNT, or the status of
the whole world), and tries again when the writer was inside. Between two looks everything may be in motion:
so no offset, count or link is followed before it is known to lie inside its table, and no walk is longer than
its output.

A result that is not negative is a count. TORN: the writer was met at every try. MISSING: there is no such
row. TOO_SMALL: `out` cannot hold the answer; the market's or account's `order_count` says what it takes.

found  i8[3], written: bids, asks, and the height at which the market last changed
"""

import numpy as np

from shm import broadcast, index, layout, seqlock
from shm.atomics import load_acquire, load_acquire_at, pause
from shm.codes import Flag, Side
from shm.constants import CLOID_BYTES, DECIMAL_DIGITS_MAX
from shm.kernel import entry, inner
from shm.layout import NO_SLOT
from shm.units import POWERS

TORN = seqlock.TORN
MISSING = -2
TOO_SMALL = -3

BIDS, ASKS, HEIGHT = 0, 1, 2


STATUS_WORDS = (
    "height", "time_ns", "applied_ns", "seen_height", "state", "mode", "market_count", "account_count",
    "name_count", "order_count", "stale_count", "checked_height",
)  # fmt: skip
MARKET_WORDS = ("height", "epoch", "stale", "order_count", "last_price")


# --- words -------------------------------------------------------------------------------------------------


@entry
def read_status(status, out):
    """Copy STATUS_WORDS into `out` (i8[]), each by itself, but none older than the height."""
    row = status[0]
    out[0] = load_acquire(row, "height")
    out[1] = load_acquire(row, "time_ns")
    out[2] = load_acquire(row, "applied_ns")
    out[3] = load_acquire(row, "seen_height")
    out[4] = load_acquire(row, "state")
    out[5] = load_acquire(row, "mode")
    out[6] = load_acquire(row, "market_count")
    out[7] = load_acquire(row, "account_count")
    out[8] = load_acquire(row, "name_count")
    out[9] = load_acquire(row, "order_count")
    out[10] = load_acquire(row, "stale_count")
    out[11] = load_acquire(row, "checked_height")


@entry
def command_sequence(status):
    """The last command whose effects the world shows."""
    return load_acquire(status[0], "command_sequence")


@entry
def read_market(markets, market, out):
    """Copy MARKET_WORDS into `out` (i8[]), each by itself."""
    row = markets[market]
    out[0] = load_acquire(row, "height")
    out[1] = load_acquire(row, "epoch")
    out[2] = load_acquire(row, "stale")
    out[3] = load_acquire(row, "order_count")
    out[4] = load_acquire(row, "last_price")


# --- depth -------------------------------------------------------------------------------------------------


@entry
def bucket(price, figures, mantissa, up):
    """Round a price (units, 0 or more) to a multiple of mantissa x 10**(digits - figures) units.

    figures  significant figures, 1..18
    up       asks are rounded up, bids down
    """
    digits = 1
    while digits < DECIMAL_DIGITS_MAX and price >= POWERS[digits]:
        digits += 1
    step = mantissa * POWERS[digits - figures] if digits >= figures else 1
    return (price + step - 1) // step * step if up else price // step * step


@inner
def _fill_levels(side, levels, out, figures, mantissa, up):
    """Aggregate a side into `out`, best first; return how many levels were filled, or TORN."""
    offset, count = side.offset, side.count
    if offset < 0 or count < 0 or offset + count > len(levels):
        return TORN
    filled = 0
    for i in range(count):
        level = levels[offset + count - 1 - i]
        price = level.price if figures == 0 else bucket(level.price, figures, mantissa, up)
        if filled > 0 and out[filled - 1].price == price:
            out[filled - 1].quantity += level.quantity
            out[filled - 1].count += level.count
            continue
        if filled == len(out):
            break
        out[filled].price = price
        out[filled].quantity = level.quantity
        out[filled].count = level.count
        filled += 1
    return filled


@entry
def read_depth(markets, sides, levels, market, bids, asks, figures, mantissa, found, tries):
    """Copy the best levels of a market into `bids` and `asks` (BOOK_LEVEL[]), both sides of one moment.

    figures   0: every level; else levels are added up in buckets of so many significant figures
    mantissa  1, 2 or 5: the width of a bucket in units of its last figure

    Returns the levels copied, or TORN. O(levels read).
    """
    row = markets[market]
    for _ in range(tries):
        sequence = seqlock.row_begin(row)
        if sequence != TORN:
            height = row.height
            bid_count = _fill_levels(sides[2 * market + Side.BUY], levels, bids, figures, mantissa, False)
            ask_count = _fill_levels(sides[2 * market + Side.SELL], levels, asks, figures, mantissa, True)
            if seqlock.row_unchanged(row, sequence) and bid_count >= 0 and ask_count >= 0:
                found[BIDS], found[ASKS], found[HEIGHT] = bid_count, ask_count, height
                return bid_count + ask_count
        pause()
    return TORN


# --- orders ------------------------------------------------------------------------------------------------


@inner
def _copy_queues(side, levels, orders, out, at):
    """Copy the orders of a side into out[at:], in priority; return the end, TORN or TOO_SMALL."""
    offset, count = side.offset, side.count
    if offset < 0 or count < 0 or offset + count > len(levels):
        return TORN
    for i in range(count):
        slot = levels[offset + count - 1 - i].head
        while slot != NO_SLOT:
            if slot < 0 or slot >= len(orders):
                return TORN
            if at == len(out):
                return TOO_SMALL
            out[at] = orders[slot]
            slot, at = out[at].next, at + 1
    return at


@entry
def read_orders(markets, sides, levels, orders, market, out, found, tries):
    """Copy a market's resting orders into `out` (ORDER[]): bids best first and by time, then asks.

    Returns how many, TORN or TOO_SMALL. Only a state that was whole is believed, also when it says TOO_SMALL.
    """
    row = markets[market]
    for _ in range(tries):
        sequence = seqlock.row_begin(row)
        if sequence != TORN:
            height = row.height
            middle = _copy_queues(sides[2 * market + Side.BUY], levels, orders, out, 0)
            end = middle
            if middle >= 0:
                end = _copy_queues(sides[2 * market + Side.SELL], levels, orders, out, middle)
            if seqlock.row_unchanged(row, sequence) and end != TORN:
                found[BIDS], found[ASKS], found[HEIGHT] = middle, end - middle, height
                return end
        pause()
    return TORN


@entry
def read_account_orders(accounts, orders, account, out, tries):
    """Copy an account's orders, resting and untriggered, oldest first; return how many, TORN or TOO_SMALL."""
    row = accounts[account]
    for _ in range(tries):
        sequence = seqlock.row_begin(row)
        if sequence != TORN:
            count = _copy_list(orders, row.first_order, out) if row.order_count > 0 else 0
            if seqlock.row_unchanged(row, sequence) and count != TORN:
                return count
        pause()
    return TORN


@inner
def _copy_list(orders, slot, out):
    at = 0
    while slot != NO_SLOT:
        if slot < 0 or slot >= len(orders):
            return TORN
        if at == len(out):
            return TOO_SMALL
        out[at] = orders[slot]
        slot, at = out[at].account_next, at + 1
    return at


@entry
def read_order(status, order_index, orders, order, out, tries):
    """Copy the order with oid `order` into out[0]; return 1, MISSING or TORN.

    status  WORLD_STATUS[1]: an index is only whole between two blocks
    """
    for _ in range(tries):
        sequence = seqlock.row_begin(status[0])
        if sequence != TORN:
            slot = index.find_order(order_index, orders, order)
            if slot != NO_SLOT:
                out[0] = orders[slot]
            if seqlock.row_unchanged(status[0], sequence):
                return MISSING if slot == NO_SLOT else 1
        pause()
    return TORN


@entry
def account_row(account_index, accounts, address):
    """Return the row of the account with this address (u1[20]), or MISSING.

    Accounts are only ever added, and their rows are compared whole: what is found is right, without a
    bracket. One that is being added may be missed.
    """
    row = index.find_account(account_index, accounts, address, 0)
    return MISSING if row == NO_SLOT else row


# --- chains ------------------------------------------------------------------------------------------------


@entry
def read_trades(markets, ring, slots, market, out):
    """Copy a market's newest trades, newest first, as far as they are still there; return how many."""
    position = load_acquire(markets[market], "last_trade") - 1
    for n in range(len(out)):
        item = out[n : n + 1]
        if position < 0 or not broadcast.peek(ring, slots, position, item) or item[0].market != market:
            return n
        if item[0].market_prior > position:
            return n
        position = item[0].market_prior - 1
    return len(out)


@inner
def _read_chain(ring, slots, position, account, out):
    """Copy an account's items (FILL or ENDED), from the one at `position` back in time; return how many."""
    for n in range(len(out)):
        item = out[n : n + 1]
        if position < 0 or not broadcast.peek(ring, slots, position, item) or item[0].account != account:
            return n
        if item[0].account_prior > position:
            return n
        position = item[0].account_prior - 1
    return len(out)


@entry
def read_fills(accounts, ring, slots, account, out):
    """Copy an account's newest fills, newest first; return how many."""
    return _read_chain(ring, slots, load_acquire(accounts[account], "last_fill") - 1, account, out)


@entry
def read_closed(accounts, ring, slots, account, out):
    """Copy an account's orders that ended last, newest first; return how many."""
    return _read_chain(ring, slots, load_acquire(accounts[account], "last_closed") - 1, account, out)


@entry
def read_rejected(accounts, ring, slots, account, out):
    """Copy an account's newest refusals, newest first; return how many."""
    return _read_chain(ring, slots, load_acquire(accounts[account], "last_rejected") - 1, account, out)


@entry
def read_ended(ring, slots, buckets, order, out):
    """Copy the newest entry of the order with oid `order`, closed or rejected; return 1 or MISSING."""
    position = load_acquire_at(buckets, index.mix(order) & (len(buckets) - 1)) - 1
    for _ in range(len(slots)):
        if position < 0 or not broadcast.peek(ring, slots, position, out):
            return MISSING
        if out[0].order == order:
            return 1
        if out[0].bucket_prior > position:
            return MISSING
        position = out[0].bucket_prior - 1
    return MISSING


@entry
def read_ended_cloid(ring, slots, buckets, cloid, account, out):
    """Copy the account's newest closed order with this cloid (u1[16]); return 1 or MISSING."""
    key = index.key_of(cloid, 0, CLOID_BYTES)
    position = load_acquire_at(buckets, key & (len(buckets) - 1)) - 1
    for _ in range(len(slots)):
        if position < 0 or not broadcast.peek(ring, slots, position, out):
            return MISSING
        if out[0].account == account and has_cloid(out[0], cloid):
            return 1
        if out[0].cloid_prior > position:
            return MISSING
        position = out[0].cloid_prior - 1
    return MISSING


@entry
def has_cloid(item, cloid):
    """Whether an order or ended order came with this cloid (u1[16])."""
    if item.flags & Flag.HAS_CLOID == 0:
        return False
    for i in range(CLOID_BYTES):
        if item.cloid[i] != cloid[i]:
            return False
    return True


@entry
def chain_length(links, first):
    """Count a chain of events: i4 indices, less than 0 after the last."""
    count, i = 0, first
    for _ in range(len(links)):
        if i < 0:
            break
        count, i = count + 1, links[i]
    return count


@entry
def gather(ring, slots, events, links, first, kind, out):
    """Follow a chain of events and copy what its TRADE or FILL events name; return how many, or LAPPED.

    links  i4[]: the event after an event, or less than 0
    kind   which events name items of this ring
    out    at least as long as the chain
    """
    n, i = 0, first
    for _ in range(len(events)):
        if i < 0:
            break
        if events[i].kind == kind:
            if not broadcast.peek(ring, slots, events[i].order, out[n : n + 1]):
                return broadcast.LAPPED
            n += 1
        i = links[i]
    return n


def warm():
    """Compile the entry points for memory that is mapped read-only."""
    markets, sides = np.zeros(1, layout.MARKET), np.zeros(2, layout.SIDE)
    levels, orders = np.zeros(1, layout.LEVEL), np.zeros(1, layout.ORDER)
    accounts, status = np.zeros(1, layout.ACCOUNT), np.zeros(1, layout.WORLD_STATUS)
    words, ring = np.zeros(2, layout.WORD), np.zeros(1, layout.BROADCAST)
    rings = {name: np.zeros(2, name) for name in (layout.TRADE, layout.FILL, layout.ENDED)}
    text = np.zeros(20, np.uint8)
    for array in (markets, sides, levels, orders, accounts, status, words, ring, text, *rings.values()):
        array.flags.writeable = False
    trades, fills, ended = rings.values()
    depth, found = np.zeros(1, layout.BOOK_LEVEL), np.zeros(3, layout.WORD)
    order = np.zeros(1, layout.ORDER)
    words_out = np.zeros(len(STATUS_WORDS), layout.WORD)
    read_status(status, words_out)
    command_sequence(status)
    read_market(markets, 0, words_out)
    read_depth(markets, sides, levels, 0, depth, depth, 0, 1, found, 1)
    read_orders(markets, sides, levels, orders, 0, order, found, 1)
    read_account_orders(accounts, orders, 0, order, 1)
    read_order(status, words, orders, 0, order, 1)
    account_row(words, accounts, text)
    read_trades(markets, ring, trades, 0, np.zeros(1, layout.TRADE))
    read_fills(accounts, ring, fills, 0, np.zeros(1, layout.FILL))
    out, events, links = np.zeros(1, layout.ENDED), np.zeros(1, layout.EVENT), np.full(1, -1, np.int32)
    read_closed(accounts, ring, ended, 0, out)
    read_rejected(accounts, ring, ended, 0, out)
    read_ended(ring, ended, words, 0, out)
    read_ended_cloid(ring, ended, words, text, 0, out)
    has_cloid(order[0], text)
    has_cloid(out[0], text)
    chain_length(links, 0)
    gather(ring, trades, events, links, 0, 0, np.zeros(1, layout.TRADE))
    gather(ring, fills, events, links, 0, 0, np.zeros(1, layout.FILL))
