"""Find an open order by its account and cloid: open addressing over slot + 1, zero where empty."""

from shm import index
from shm.constants import CLOID_BYTES
from shm.kernel import inner
from shm.layout import NO_SLOT


@inner
def find(state, account, cloid):
    """Return the slot of the account's open order with this cloid (u1[16]), or NO_SLOT."""
    words, mask = state.cloid_index, len(state.cloid_index) - 1
    at = _home(account, cloid) & mask
    while words[at] != 0:
        slot = words[at] - 1
        if state.orders[slot].account == account:
            held, same = state.facts[slot].cloid, True
            for i in range(CLOID_BYTES):
                same = same and held[i] == cloid[i]
            if same:
                return slot
        at = (at + 1) & mask
    return NO_SLOT


@inner
def add(state, slot):
    """Enter the order in `slot`, whose cloid is not in the index."""
    words, mask = state.cloid_index, len(state.cloid_index) - 1
    at = _home_of(state, slot) & mask
    while words[at] != 0:
        at = (at + 1) & mask
    words[at] = slot + 1


@inner
def remove(state, slot):
    """Take the order in `slot` out, and move later entries back over the gap."""
    words, mask = state.cloid_index, len(state.cloid_index) - 1
    hole = _home_of(state, slot) & mask
    while words[hole] != slot + 1:
        hole = (hole + 1) & mask
    at = (hole + 1) & mask
    while words[at] != 0:
        home = _home_of(state, words[at] - 1) & mask
        if (at - home) & mask >= (at - hole) & mask:
            words[hole] = words[at]
            hole = at
        at = (at + 1) & mask
    words[hole] = 0


@inner
def _home(account, cloid):
    return index.mix(index.key_of(cloid, 0, CLOID_BYTES) ^ account)


@inner
def _home_of(state, slot):
    return _home(state.orders[slot].account, state.facts[slot].cloid)
