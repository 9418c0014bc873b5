"""A writer and readers of the latest value, and three ways to get it wrong.

Publication e writes e into the first, the middle and the last word of its cell. So a copy is whole if the
three agree with its sequence, and the longer the record, the longer the reader takes and the more often it
is overrun.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numba import njit

from shm import layout, seqlock
from shm.atomics import copy_rest, load_acquire_at, pause, store_release_at
from shm.constants import BOOK_SLOTS
from tests.shm import mapped


class Lock(NamedTuple):
    """The three functions under test."""

    begin: object
    end: object
    read: object


class Count(NamedTuple):
    """What a reader met: whole copies; copies of more than one publication; steps back; refusals."""

    whole: int
    mixed: int
    back: int
    refused: int


# --- the right one, and the mutants -----------------------------------------------------------------------


@njit(nogil=True)
def begin_unmarked(head, cells):
    return head.latest % BOOK_SLOTS


@njit(nogil=True)
def read_once(head, cells, out, tries):
    """Without the second look."""
    latest = seqlock.load_acquire(head, "latest")
    cell = cells[(latest - 1) % BOOK_SLOTS]
    sequence = seqlock.load_acquire(cell, "sequence")
    if sequence != 2 * latest:
        return seqlock.TORN
    copy_rest(out[0], cell)
    return sequence


@njit(nogil=True)
def begin_plain(head, cells):
    index = head.latest % BOOK_SLOTS
    cells[index].sequence = 2 * head.latest + 1
    return index


@njit(nogil=True)
def end_plain(head, cells, index):
    cells[index].sequence = 2 * head.latest + 2
    head.latest += 1


@njit(nogil=True)
def read_plain(head, cells, out, tries):
    """Like one that sums a depth: as nothing is written in between, LLVM sees no reason to look twice."""
    latest = head.latest
    cell = cells[(latest - 1) % BOOK_SLOTS]
    sequence, words, total = cell.sequence, cell.words, 0
    first = words[0]
    for i in range(len(words)):
        total += words[i]
    middle, last = words[len(words) // 2], words[len(words) - 1]
    if sequence != 2 * latest or cell.sequence != sequence:
        return seqlock.TORN
    copied = out[0].words
    copied[1] = total
    copied[0], copied[len(words) // 2], copied[len(words) - 1] = first, middle, last
    return sequence


SOUND = Lock(seqlock.begin, seqlock.end, seqlock.read)
MUTANTS = {
    "the reader does not look twice": SOUND._replace(read=read_once),
    "the writer does not mark the cell": SOUND._replace(begin=begin_unmarked),
    "plain loads and stores": Lock(begin_plain, end_plain, read_plain),
}


# --- the two parties --------------------------------------------------------------------------------------


@njit(nogil=True)
def pauses(count):
    for _ in range(count):
        pause()


def kernels(lock):
    """Compile (publish, publish_until, read_many) over the functions of `lock`."""
    begin, end, read = lock

    @njit(nogil=True)
    def publish(heads, cells, dwell):
        index = begin(heads[0], cells)
        words = cells[index].words
        value = heads[0].latest + 1
        words[0] = value
        words[len(words) // 2] = value
        pauses(dwell)
        words[len(words) - 1] = value
        end(heads[0], cells, index)

    @njit(nogil=True)
    def publish_until(heads, cells, stop, dwell, gap):
        while load_acquire_at(stop, 0) == 0:
            publish(heads, cells, dwell)
            pauses(gap)

    @njit(nogil=True)
    def read_many(heads, cells, out, wanted, tries_max):
        whole, mixed, back, refused, newest = 0, 0, 0, 0, 0
        for _ in range(tries_max):
            if whole + mixed == wanted:
                break
            sequence = read(heads[0], cells, out, 1)
            if sequence == seqlock.TORN:
                refused += 1
                continue
            value, words = sequence // 2, out[0].words
            right = words[0] == value and words[len(words) // 2] == value and words[len(words) - 1] == value
            whole, mixed = whole + right, mixed + (not right)
            back += value < newest
            newest = value
        return whole, mixed, back, refused

    return publish, publish_until, read_many


class Race:
    """Shared memory for a race over `lock`, with records of `words` words; its kernels are compiled."""

    def __init__(self, lock, words):
        self.heads, self.cells = (
            mapped.zeros(1, layout.BOOK_HEAD),
            mapped.zeros(BOOK_SLOTS, mapped.cell(words)),
        )
        self.stop = mapped.zeros(1, np.int64)
        self.publish, self._publish_until, self._read_many = kernels(lock)
        self.publish(self.heads, self.cells, 0)
        self.stop[0] = 1
        self.write(0, 0)
        self.read(1)

    def write(self, dwell, gap):
        """Publish until told to stop, with `dwell` pauses inside of a publication, and `gap` between two."""
        self._publish_until(self.heads, self.cells, self.stop, dwell, gap)

    def read(self, wanted):
        """Copy the value `wanted` times."""
        out = np.zeros(1, self.cells.dtype)
        return Count(*self._read_many(self.heads, self.cells, out, wanted, 1_000 * wanted + 1_000_000))

    def in_threads(self, dwell, gap, wanted, readers=1):
        """Let one writer and `readers` run against each other; return the sum of what the readers met."""
        self.stop[0] = 0
        with ThreadPoolExecutor(readers + 1) as pool:
            pool.submit(self.write, dwell, gap)
            try:
                counts = list(pool.map(self.read, [wanted // readers] * readers))
            finally:
                store_stop(self.stop)
        return Count(*np.sum(counts, axis=0).tolist())


@njit(nogil=True)
def store_stop(stop):
    store_release_at(stop, 0, 1)
