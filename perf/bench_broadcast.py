"""What does it cost the writer that readers read along? And what beyond copying, when nobody does?

R = 0 readers are compared with the bare copy of the same events. For R > 0 the writer's time with R threads
that read all the time stands over its time without. The writer has a core of its own, the readers share the
others: what is added is the cache lines that they take from it. Run it on a machine that does nothing else:
the readers push whoever else runs onto the writer's core.
"""

import os
import threading
from functools import partial

import numpy as np
from numba import njit

from perf import mapped, ratio
from shm import broadcast, layout
from shm.atomics import load_acquire_at, pause, store_release_at

CAPACITY = 1 << 15
BATCH, BATCHES = 16, 100_000
READERS = (1, 2, 4)
CORES = sorted(os.sched_getaffinity(0))
PAUSES = 20  # between two looks of a reader: about a microsecond, as in a loop that does something with it


@njit(nogil=True)
def publish_many(ring, slots, items):
    for _ in range(BATCHES):
        broadcast.publish(ring, slots, items, BATCH)
    return slots[(ring[0].tail - 1) & (len(slots) - 1)].order


@njit(nogil=True)
def copy_many(slots, items):
    at = 0
    for _ in range(BATCHES):
        for i in range(BATCH):
            slots[at] = items[i]
            at = (at + 1) & (len(slots) - 1)
    return slots[(at - 1) & (len(slots) - 1)].order


@njit(nogil=True)
def read_along(ring, slots, out, stop):
    """Read everything, until told to stop; return how many items."""
    cursor, taken = broadcast.tail(ring), 0
    while load_acquire_at(stop, 0) == 0:
        count = broadcast.read(ring, slots, cursor, out)
        if count == broadcast.LAPPED:
            cursor = broadcast.tail(ring)
        else:
            cursor, taken = cursor + count, taken + count
        for _ in range(PAUSES):
            pause()
    return taken


@njit(nogil=True)
def tell(stop, value):
    store_release_at(stop, 0, value)


def memory() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    items = mapped.zeros(BATCH, layout.EVENT)
    items["order"] = np.arange(BATCH)
    return mapped.zeros(1, layout.BROADCAST), mapped.zeros(CAPACITY, layout.EVENT), items


def alone() -> tuple[ratio.Work, ratio.Work]:
    ring, slots, items = memory()
    return lambda: publish_many(ring, slots, items), lambda: copy_many(slots, items)


def watched(readers: int) -> tuple[ratio.Work, ratio.Work]:
    (ring, slots, items), stop = memory(), mapped.zeros(16, layout.WORD)
    publish_many(ring, slots, items)
    tell(stop, 1)
    read_along(ring, slots, mapped.zeros(BATCH, layout.EVENT), stop)

    def read_pinned() -> None:
        os.sched_setaffinity(0, CORES[1:] or CORES)
        read_along(ring, slots, mapped.zeros(BATCH, layout.EVENT), stop)

    def with_readers() -> int:
        tell(stop, 0)
        threads = [threading.Thread(target=read_pinned) for _ in range(readers)]
        for thread in threads:
            thread.start()
        last = publish_many(ring, slots, items)
        tell(stop, 1)
        for thread in threads:
            thread.join()
        return last

    os.sched_setaffinity(0, CORES[:1])
    return with_readers, lambda: publish_many(ring, slots, items)


if __name__ == "__main__":
    ratio.report("broadcast, R = 0 / the bare copy", alone)
    for readers in READERS:
        name = f"broadcast, R = {readers} on {max(len(CORES) - 1, 1)} other cores / R = 0"
        ratio.report(name, partial(watched, readers))
