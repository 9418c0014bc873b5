"""Find a row by its key: open addressing over int64 words that hold row + 1, zero where empty.

orders are found by oid and accounts by address; the rows hold the keys, so a word is all an entry costs. The
writer keeps an index at most half full. A removal closes its gap by moving later entries back (no
tombstones), so a reader in another process may miss an entry that is being moved: it brackets its look-up by
the world's `sequence` (shm/rows.py).
"""

import numpy as np
from numba import njit

from shm.constants import ADDRESS_BYTES
from shm.layout import NO_SLOT

_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: spreads keys that rise by small steps
_SHIFT = np.uint64(29)


@njit(cache=True, nogil=True)
def mix(key):
    """Spread an int64 key over 63 bits."""
    word = np.uint64(key) * _MIX
    return np.int64((word ^ (word >> _SHIFT)) >> np.uint64(1))


@njit(cache=True, nogil=True)
def key_of(text, start, length):
    """Fold text[start:start+length] (u1[]) into an int64 key."""
    word = np.uint64(length)
    for i in range(start, start + length):
        word = (word ^ np.uint64(text[i])) * _MIX
        word ^= word >> _SHIFT
    return np.int64(word >> np.uint64(1))


@njit(cache=True, nogil=True)
def find_order(words, orders, order):
    """Return the slot of the order with oid `order`, or NO_SLOT."""
    mask = len(words) - 1
    at = mix(order) & mask
    for _ in range(len(words)):
        slot = words[at] - 1
        if slot < 0:
            return NO_SLOT
        if orders[slot].order == order:
            return slot
        at = (at + 1) & mask
    return NO_SLOT


@njit(cache=True, nogil=True)
def add_order(words, order, slot):
    """Enter `slot` under `order`, which is not in the index."""
    mask = len(words) - 1
    at = mix(order) & mask
    while words[at] != 0:
        at = (at + 1) & mask
    words[at] = slot + 1


@njit(cache=True, nogil=True)
def remove_order(words, orders, order):
    """Take `order` out. It is in the index, and its row still holds it."""
    mask = len(words) - 1
    hole = mix(order) & mask
    while orders[words[hole] - 1].order != order:
        hole = (hole + 1) & mask
    at = (hole + 1) & mask
    while words[at] != 0:
        home = mix(orders[words[at] - 1].order) & mask
        if (at - home) & mask >= (at - hole) & mask:
            words[hole] = words[at]
            hole = at
        at = (at + 1) & mask
    words[hole] = 0


@njit(cache=True, nogil=True)
def find_account(words, accounts, text, start):
    """Return the row of the account whose address is the 20 bytes text[start:], or NO_SLOT."""
    mask = len(words) - 1
    at = key_of(text, start, ADDRESS_BYTES) & mask
    for _ in range(len(words)):
        row = words[at] - 1
        if row < 0:
            return NO_SLOT
        address = accounts[row].address
        same = True
        for i in range(ADDRESS_BYTES):
            same = same and address[i] == text[start + i]
        if same:
            return row
        at = (at + 1) & mask
    return NO_SLOT


@njit(cache=True, nogil=True)
def add_account(words, text, start, row):
    """Enter `row` under the address text[start:], which is not in the index. Accounts are never removed."""
    mask = len(words) - 1
    at = key_of(text, start, ADDRESS_BYTES) & mask
    while words[at] != 0:
        at = (at + 1) & mask
    words[at] = row + 1
