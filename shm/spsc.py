"""A bounded queue from one producer to one consumer, in shared memory, without locks or waiting.

`tail` counts items ever pushed and `head` items ever popped; the difference is what the ring holds, so full
and empty differ and no slot is wasted. Each side keeps the last value it saw of the other's counter
(`head_seen`, `tail_seen`) and takes the other's cache line only when that is not enough.

ring   RING[1]
slots  any record, [capacity]; capacity is a power of two
"""

import numpy as np

from shm import layout
from shm.atomics import load_acquire, store_release
from shm.kernel import entry


@entry
def push(ring, slots, items):
    """Copy as many of `items` as fit; return how many. Only the producer may call this."""
    header, mask = ring[0], len(slots) - 1
    tail = header.tail
    if len(items) > len(slots) - (tail - header.head_seen):
        header.head_seen = load_acquire(header, "head")
    count = min(len(items), len(slots) - (tail - header.head_seen))
    for i in range(count):
        slots[(tail + i) & mask] = items[i]
    if count > 0:  # a refused push must not dirty the line that the consumer watches
        store_release(header, "tail", tail + count)
    return max(count, 0)


@entry
def pop(ring, slots, out):
    """Move as many items as `out` takes; return how many. Only the consumer may call this."""
    header, mask = ring[0], len(slots) - 1
    head = header.head
    if len(out) > header.tail_seen - head:
        header.tail_seen = load_acquire(header, "tail")
    count = min(len(out), header.tail_seen - head)
    for i in range(count):
        out[i] = slots[(head + i) & mask]
    if count > 0:
        store_release(header, "head", head + count)
    return max(count, 0)  # a damaged counter of the other side may say less than nothing


@entry
def reach(ring, slots, place):
    """How many items stand in the slots side by side from slots[place & mask] on, that of the `place`-th ever
    pushed. Only the consumer may call this. It leaves them there: `drop` gives them up.
    """
    at = place & (len(slots) - 1)
    count = min(load_acquire(ring[0], "tail") - place, len(slots) - at)
    return max(count, 0)


@entry
def drop(ring, count):
    """Give up the first `count` items, which `reach` has found. Only the consumer may call this."""
    header = ring[0]
    store_release(header, "head", header.head + count)


@entry
def has_items(ring):
    """Whether there is something to pop. Only the consumer may call this."""
    header = ring[0]
    return load_acquire(header, "tail") != header.head


def warm():
    """Compile both sides for an EVENT."""
    ring, slots, items = np.zeros(1, layout.RING), np.zeros(2, layout.EVENT), np.zeros(1, layout.EVENT)
    push(ring, slots, items)
    reach(ring, slots, 0)
    drop(ring, 0)
    pop(ring, slots, items)
    has_items(ring)
