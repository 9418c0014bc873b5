"""What a block changes becomes visible: rows under their brackets, then books, then its events, all at once.

A market's or an account's row is opened when a block first touches it and closed at the block's end
(shm/seqlock.py); each touched market's book is published once; the events are built in the ring itself and
seen together, after everything they speak of.
"""

import numpy as np

from engine.state import TINY, allocate
from shm import atomics, broadcast, seqlock
from shm.bulk import clear_bytes
from shm.codes import EventKind, Side, Stale
from shm.constants import BOOK_DEPTH, BOOK_SLOTS
from shm.kernel import entry, inner
from shm.layout import NO_ACCOUNT, NO_MARKET

NS_PER_MS = 1_000_000


# --- brackets ---------------------------------------------------------------------------------------------


@inner
def touch_market(state, market):
    """Open the market's row, once a block."""
    if state.work.market_dirty[market] == 0:
        heap = state.rows.heap[0]
        state.work.market_dirty[market] = 1
        state.work.dirty_markets[heap.dirty_markets] = market
        heap.dirty_markets += 1
        seqlock.open_row(state.rows.markets[market])


@inner
def touch_account(state, account):
    """Open the account's row, once a block."""
    if account != NO_ACCOUNT and state.work.account_dirty[account] == 0:
        heap = state.rows.heap[0]
        state.work.account_dirty[account] = 1
        state.work.dirty_accounts[heap.dirty_accounts] = account
        heap.dirty_accounts += 1
        seqlock.open_row(state.rows.accounts[account])


@inner
def begin_block(state):
    seqlock.open_row(state.rows.status[0])


@inner
def end_block(state, height, time_ns):
    """Publish what the block changed: books, then rows, then the height, then all its events at once."""
    heap, status = state.rows.heap[0], state.rows.status[0]
    for i in range(heap.dirty_markets):
        market = state.work.dirty_markets[i]
        state.rows.markets[market].height = height
        publish_book(state, market, height, time_ns)
        seqlock.close_row(state.rows.markets[market])
        state.work.market_dirty[market] = 0
    for i in range(heap.dirty_accounts):
        account = state.work.dirty_accounts[i]
        seqlock.close_row(state.rows.accounts[account])
        state.work.account_dirty[account] = 0
    heap.dirty_markets, heap.dirty_accounts = 0, 0
    atomics.store_relaxed(status, "time_ns", time_ns)
    atomics.store_release(status, "height", height)
    seqlock.close_row(status)
    publish_events(state)


@inner
def publish_book(state, market, height, time_ns):
    """Put the best BOOK_DEPTH levels of both sides into the market's seqlock ring."""
    head = state.work.book_heads[market]
    cells = state.work.books[BOOK_SLOTS * market : BOOK_SLOTS * (market + 1)]
    row = state.rows.markets[market]
    at = seqlock.begin(head, cells)
    cell = cells[at]
    cell.height, cell.time_ms = height, time_ns // NS_PER_MS
    cell.epoch, cell.stale, cell.last_price = row.epoch, row.stale, row.last_price
    cell.bid_count = _copy_levels(state, 2 * market + Side.BUY, cell.bids)
    cell.ask_count = _copy_levels(state, 2 * market + Side.SELL, cell.asks)
    seqlock.end(head, cells, at)


@inner
def _copy_levels(state, side, out):
    row = state.rows.sides[side]
    count = min(row.count, BOOK_DEPTH)
    best = row.offset + row.count - 1
    for i in range(count):
        level = state.rows.levels[best - i]
        out[i].price, out[i].quantity, out[i].count = level.price, level.quantity, level.count
    return count


# --- events -----------------------------------------------------------------------------------------------


@inner
def next_event(state):
    """Open the slot of the block's next event; whoever asked fills it."""
    heap, work = state.rows.heap[0], state.work
    if heap.block_events == len(work.events) // 2:
        publish_events(state)
    heap.block_events += 1
    return broadcast.open_slot(work.event_ring, work.events, heap.block_events - 1)


@inner
def emit(state):
    """Return the next event of the block, blank but for its sequence, to be filled in."""
    event = next_event(state)
    event.height, event.time_ns, event.order, event.price, event.quantity = 0, 0, 0, 0, 0
    event.original, event.trigger_price, event.timestamp_ms = 0, 0, 0
    clear_bytes(event.cloid)
    clear_bytes(event.address)
    event.market, event.account = NO_MARKET, NO_ACCOUNT
    event.kind, event.side, event.condition, event.flags = 0, 0, 0, 0
    event.status, event.tif, event.order_type, event.reserved = 0, 0, 0, 0
    return event


@inner
def emit_copy(state, event):
    """Tell `event` as it is."""
    atomics.copy_rest(next_event(state), event)


@inner
def publish_events(state):
    """Let everyone see the events of the block so far, all at once."""
    heap = state.rows.heap[0]
    broadcast.publish_open(state.work.event_ring, state.work.events, heap.block_events)
    heap.block_events = 0


@inner
def doubt(state, market, reason, height, time_ns):
    """Say, once, that the market's book cannot be trusted any more."""
    row = state.rows.markets[market]
    if row.stale != Stale.FRESH:
        return
    touch_market(state, market)
    atomics.store_release(row, "stale", np.int64(reason))
    state.rows.status[0].stale_count += 1
    event = emit(state)
    event.kind, event.market, event.status = EventKind.STALE, market, reason
    event.height, event.time_ns = height, time_ns


# --- between two blocks -------------------------------------------------------------------------------------


@entry
def doubt_markets(state, markets, reason, height, time_ns):
    """Put each of `markets` (i8[]) in doubt, between two blocks."""
    begin_block(state)
    for i in range(len(markets)):
        doubt(state, markets[i], reason, height, time_ns)
    end_block(state, height, time_ns)


@entry
def publish_markets(state, height, time_ns):
    """Publish the books of all markets, after rows were loaded without a block."""
    begin_block(state)
    for market in range(state.rows.status[0].market_count):
        touch_market(state, market)
    end_block(state, height, time_ns)


def warm() -> None:
    """Compile the entry points."""
    state = allocate(TINY)
    doubt_markets(state, np.zeros(0, np.int64), 0, 1, 1)
    publish_markets(state, 1, 1)
