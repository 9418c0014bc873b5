"""A ring with one writer that never looks at its readers, and readers that know exactly when they were
overrun.

`tail` counts items ever published; an item's position is its number from 0, and it stays in the ring until
capacity more have come. The first word of every slot is its `sequence`: position + 1 while the slot holds
that item whole, NOT_WHOLE while it is being overwritten. A reader keeps its own cursor, a position. It is
lapped when the item at its cursor is no longer there; then it resumes from a snapshot and takes `tail` for
its cursor.

ring   BROADCAST[1]
slots  any record whose first field is `sequence`, [capacity]; capacity is a power of two, 2 or more
"""

import numpy as np

from shm import layout
from shm.atomics import (
    copy_rest,
    fence_acquire,
    fence_release,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
)
from shm.kernel import entry, inner

LAPPED = -1
NOT_WHOLE = 0


@entry
def publish(ring, slots, items, count):
    """Publish items[:count]; return the position of the first. Only the writer may call this.

    The items' own `sequence` is not read: it is their position plus one in the ring. A batch is seen when all
    of it is whole; one larger than half the ring is seen in parts, so that a reader at its heels is not
    lapped at once.
    """
    header, mask, part = ring[0], len(slots) - 1, len(slots) // 2
    first, until = header.tail, min(part, count)
    for i in range(count):
        slot = slots[(first + i) & mask]
        store_relaxed(slot, "sequence", NOT_WHOLE)
        fence_release()  # who sees any of the new fields sees the mark as well
        copy_rest(slot, items[i])
        store_release(slot, "sequence", first + i + 1)
        if i + 1 == until:
            store_release(header, "tail", first + until)
            until = min(until + part, count)
    return first


@inner
def open_slot(ring, slots, ahead):
    """Mark the slot `ahead` places behind the last published item as being written; return it, to be filled.

    For a batch that is built in the ring itself: nobody sees it before `publish_open`. ahead is less than
    half the ring.
    """
    slot = slots[(ring[0].tail + ahead) & (len(slots) - 1)]
    store_relaxed(slot, "sequence", NOT_WHOLE)
    fence_release()  # who sees any of the new fields sees the mark as well
    return slot


@inner
def publish_open(ring, slots, count):
    """Publish the first `count` open slots, all at once; return the position of the first."""
    header, mask = ring[0], len(slots) - 1
    first = header.tail
    for i in range(count):
        store_release(slots[(first + i) & mask], "sequence", first + i + 1)
    store_release(header, "tail", first + count)
    return first


@entry
def tail(ring):
    """Return how many items were ever published: the cursor of a reader that wants only what comes."""
    return load_acquire(ring[0], "tail")


@entry
def oldest(ring, slots):
    """Return the least position that may still be in the ring. It is the next to be overwritten."""
    return max(load_acquire(ring[0], "tail") - len(slots), 0)


@entry
def read(ring, slots, cursor, out):
    """Copy the items from position `cursor` on into `out`; return how many (0: nothing new), or LAPPED.

    The caller adds the count to its cursor. What was copied is whole and without a gap; when the writer
    overruns the reader in the middle, what came before is returned, and the next call says LAPPED.
    """
    count = min(load_acquire(ring[0], "tail") - cursor, len(out))
    for i in range(count):
        if not _take(slots, cursor + i, out, i):
            return i if i > 0 else LAPPED
    return max(count, 0)


@entry
def peek(ring, slots, position, out):
    """Copy the item at `position` into out[0]; False if it is overwritten or not published."""
    return 0 <= position < load_acquire(ring[0], "tail") and _take(slots, position, out, 0)


@inner
def _take(slots, position, out, i):
    """Copy the published item at `position` into out[i]; say whether it was there, whole, all along."""
    slot = slots[position & (len(slots) - 1)]
    if load_acquire(slot, "sequence") != position + 1:
        return False
    copy_rest(out[i], slot)
    fence_acquire()  # the copy is finished before the second look
    out[i].sequence = position + 1
    return load_relaxed(slot, "sequence") == position + 1


def warm():
    """Compile the entry points for each ring of the world: also with read-only memory."""
    for dtype in (layout.EVENT, layout.TRADE, layout.FILL, layout.ENDED):
        ring, slots, items = np.zeros(1, layout.BROADCAST), np.zeros(2, dtype), np.zeros(1, dtype)
        publish(ring, slots, items, 1)
        for _ in range(2):
            tail(ring)
            oldest(ring, slots)
            read(ring, slots, 0, items)
            peek(ring, slots, 0, items)
            ring.flags.writeable = slots.flags.writeable = False
