"""The latest value of something, from one writer to any number of readers; nobody waits for anybody.

A value has BOOK_SLOTS cells and a head, whose `latest` counts the publications. Publication n goes into cell
(n - 1) % BOOK_SLOTS: its `sequence` is 2n - 1 while it is written and 2n when it is whole, and only then
`latest` becomes n. A reader copies the cell that `latest` names and looks at its sequence again. So a writer
that dies inside a cell leaves the newest whole one untouched, and a reader must try again only if it was
overtaken BOOK_SLOTS - 1 times during one copy.

Rows that are too many to be kept four times (markets, accounts, the world's status) have a `sequence` alone,
odd while the writer is at work on what belongs to them: `open_row`, `close_row`. Their readers bracket what
they copy.

heads  BOOK_HEAD[n], head = heads[i]
cells  any record whose first field is `sequence`, [BOOK_SLOTS] for each head
"""

import numpy as np

from shm import layout
from shm.atomics import (
    copy_rest,
    fence_acquire,
    fence_release,
    load_acquire,
    load_relaxed,
    pause,
    store_relaxed,
    store_release,
)
from shm.constants import BOOK_SLOTS, READ_TRIES
from shm.kernel import entry, inner

TORN = -1  # the writer was met at every try, or died inside
EMPTY = 0  # nothing was published yet


# --- the ring of cells --------------------------------------------------------------------------------------


@entry
def begin(head, cells):
    """Open the cell of the next publication; return its index.

    Its sequence is odd before any field changes.
    """
    index = head.latest % BOOK_SLOTS
    store_relaxed(cells[index], "sequence", 2 * head.latest + 1)
    fence_release()
    return index


@entry
def end(head, cells, index):
    """Publish cell `index`, which `begin` has opened: every field is written before anyone is led to it."""
    latest = head.latest + 1
    store_release(cells[index], "sequence", 2 * latest)
    store_release(head, "latest", latest)


@entry
def read(head, cells, out, tries):
    """Copy the newest whole publication into out[0]; return its sequence, EMPTY or TORN.

    `tries` bounds the looks; the caller decides what to do about a writer that is too fast, not this loop.
    After TORN or EMPTY, out[0] holds nothing of meaning.
    """
    for _ in range(tries):
        latest = load_acquire(head, "latest")
        if latest <= 0:
            return EMPTY
        cell = cells[(latest - 1) % BOOK_SLOTS]
        sequence = load_acquire(cell, "sequence")
        if sequence == 2 * latest:
            copy_rest(out[0], cell)
            fence_acquire()  # the copy is finished before the second look
            if load_relaxed(cell, "sequence") == sequence:
                out[0].sequence = sequence
                return sequence
        pause()
    return TORN


@entry
def read_book(head, cells, out, depth, tries):
    """Like `read`, for a BOOK of which only the header and the best min(count, depth) levels a side are
    copied.

    out[0].bid_count and .ask_count still say how many levels are published, which may be more than `depth`;
    what lies beyond the copied levels is as it was.
    """
    for _ in range(tries):
        latest = load_acquire(head, "latest")
        if latest <= 0:
            return EMPTY
        cell = cells[(latest - 1) % BOOK_SLOTS]
        sequence = load_acquire(cell, "sequence")
        if sequence == 2 * latest:
            _copy_book(out[0], cell, depth)
            fence_acquire()
            if load_relaxed(cell, "sequence") == sequence:
                out[0].sequence = sequence
                return sequence
        pause()
    return TORN


@inner
def _copy_book(to, cell, depth):
    to.height = cell.height
    to.time_ms = cell.time_ms
    to.epoch = cell.epoch
    to.stale = cell.stale
    to.last_price = cell.last_price
    to.bid_count = cell.bid_count
    to.ask_count = cell.ask_count
    _copy_levels(to.bids, cell.bids, min(to.bid_count, depth))
    _copy_levels(to.asks, cell.asks, min(to.ask_count, depth))


@inner
def _copy_levels(to, levels, count):
    for i in range(min(count, len(levels))):  # a torn count must not lead out of the cell
        to[i] = levels[i]


@entry
def read_market(heads, books, market, out, depth, tries):
    """`read_book` of the market with index `market`, over the whole sections: for callers in Python."""
    first = market * BOOK_SLOTS
    return read_book(heads[market], books[first : first + BOOK_SLOTS], out, depth, tries)


# --- rows ---------------------------------------------------------------------------------------------------


@entry
def open_row(row):
    """Tell the readers that `row`, and what belongs to it, is about to change: its sequence turns odd."""
    store_relaxed(row, "sequence", row.sequence + 1)
    fence_release()


@entry
def close_row(row):
    """Tell the readers that `row` is whole again: its sequence turns even, after all that was written."""
    store_release(row, "sequence", row.sequence + 1)


@entry
def row_begin(row):
    """Return the row's sequence, for `row_unchanged` after the copy; TORN while the writer is inside."""
    sequence = load_acquire(row, "sequence")
    return TORN if sequence % 2 != 0 else sequence


@entry
def row_unchanged(row, sequence):
    """Say whether all that was read since `row_begin` gave `sequence` is of one state."""
    fence_acquire()
    return load_relaxed(row, "sequence") == sequence


# --- compilation --------------------------------------------------------------------------------------------


@entry
def _publish_nothing(heads, books, rows):
    index = begin(heads[0], books[:BOOK_SLOTS])
    end(heads[0], books[:BOOK_SLOTS], index)
    open_row(rows[0])
    close_row(rows[0])


@entry
def _read_nothing(heads, books, rows, out):
    read(heads[0], books[:BOOK_SLOTS], out, READ_TRIES)
    return row_unchanged(rows[0], row_begin(rows[0]))


def warm():
    """Compile the entry points for a BOOK: the writer's, and the reader's on memory that it cannot write."""
    heads, books = np.zeros(1, layout.BOOK_HEAD), np.zeros(BOOK_SLOTS, layout.BOOK)
    rows, out = np.zeros(1, layout.MARKET), np.zeros(1, layout.BOOK)
    _publish_nothing(heads, books, rows)
    for array in (heads, books, rows):
        array.flags.writeable = False
    _read_nothing(heads, books, rows, out)
    read_market(heads, books, 0, out, 1, READ_TRIES)
