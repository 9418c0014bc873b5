"""What do publishing and reading the latest book cost beyond copying it?

publish    begin, copy, end of a whole BOOK / the bare copy
read       20 levels a side by a kernel / the bare copy of the same bytes
from Python  one `read_market` of 20 levels a side / a compiled call that takes the same arguments and does
nothing
"""

import numpy as np
from numba import njit

from perf import mapped, ratio
from shm import layout, seqlock
from shm.atomics import copy_rest, fence_acquire
from shm.constants import BOOK_SLOTS, READ_TRIES
from shm.kernel import entry

DEPTH = 20
TIMES = 100_000
CALLS = 50_000


def books() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Heads and books of one market with one publication, the book published, and room for a copy."""
    heads, cells = mapped.zeros(1, layout.BOOK_HEAD), mapped.zeros(BOOK_SLOTS, layout.BOOK)
    book, out = mapped.zeros(1, layout.BOOK), mapped.zeros(1, layout.BOOK)
    book["bid_count"] = book["ask_count"] = DEPTH
    book["bids"]["price"] = np.arange(layout.BOOK["bids"].shape[0])
    publish_many(heads, cells, book, 1)
    return heads, cells, book, out


@njit(nogil=True)
def publish_many(heads, cells, book, times):
    for i in range(times):
        book[0].height = i
        index = seqlock.begin(heads[0], cells)
        copy_rest(cells[index], book[0])
        seqlock.end(heads[0], cells, index)
    return cells[(heads[0].latest - 1) % BOOK_SLOTS].height


@njit(nogil=True)
def copy_many(cells, book, times):
    for i in range(times):
        book[0].height = i
        copy_rest(cells[i % BOOK_SLOTS], book[0])
    return cells[(times - 1) % BOOK_SLOTS].height


def publish() -> tuple[ratio.Work, ratio.Work]:
    heads, cells, book, _ = books()
    return lambda: publish_many(heads, cells, book, TIMES), lambda: copy_many(cells, book, TIMES)


@njit(nogil=True)
def read_many(heads, cells, out, times):
    total = 0
    for _ in range(times):
        seqlock.read_book(heads[0], cells, out, DEPTH, READ_TRIES)
        total += out[0].bids[DEPTH - 1].price
    return total


@njit(nogil=True)
def copy_levels_many(cells, out, times):
    total = 0
    for _ in range(times):
        fence_acquire()  # so that each round copies again
        cell, to = cells[0], out[0]
        to.height, to.time_ms, to.epoch, to.stale = cell.height, cell.time_ms, cell.epoch, cell.stale
        to.last_price, to.bid_count, to.ask_count = cell.last_price, cell.bid_count, cell.ask_count
        for i in range(min(to.bid_count, DEPTH)):
            to.bids[i] = cell.bids[i]
        for i in range(min(to.ask_count, DEPTH)):
            to.asks[i] = cell.asks[i]
        total += to.bids[DEPTH - 1].price
    return total


def read() -> tuple[ratio.Work, ratio.Work]:
    heads, cells, _, out = books()
    copied = mapped.zeros(1, layout.BOOK)
    return lambda: read_many(heads, cells, out, TIMES), lambda: copy_levels_many(cells, copied, TIMES)


@entry
def nothing(heads, books, market, out, depth, tries):
    return 2


def from_python() -> tuple[ratio.Work, ratio.Work]:
    heads, cells, _, out = books()
    for array in (heads, cells):
        array.flags.writeable = False

    def calls(kernel):
        for _ in range(CALLS):
            sequence = kernel(heads, cells, 0, out, DEPTH, READ_TRIES)
        return sequence

    return lambda: calls(seqlock.read_market), lambda: calls(nothing)


if __name__ == "__main__":
    ratio.report("seqlock, publish a book / copy it", publish)
    ratio.report("seqlock, read 20 levels a side / copy them", read)
    ratio.report("seqlock, read 20 levels a side from Python / an empty compiled call", from_python)
