"""Nonces against a set that forgets all but its highest."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.exchange import records, signers
from shm.codes import Refusal

DAY = signers.DAY_MS
NOW = 1_700_000_000_000
use = signers.use_nonce.py_func


class Naive:
    def __init__(self):
        self.kept = set()

    def use(self, nonce, now_ms):
        if not now_ms - 2 * DAY < nonce < now_ms + DAY:
            return Refusal.NONCE_WINDOW
        if nonce in self.kept:
            return Refusal.NONCE_DUPLICATE
        if len(self.kept) == records.NONCES_KEPT:
            if nonce < min(self.kept):
                return Refusal.NONCE_TOO_LOW
            self.kept.remove(min(self.kept))
        self.kept.add(nonce)
        return Refusal.NONE


@given(st.lists(st.integers(-150, 150), min_size=50, max_size=400), st.integers(0, 3 * DAY))
def test_nonces_are_those_of_a_naive_set(offsets, later):
    row, naive = np.zeros(1, records.SIGNER).view(np.recarray), Naive()
    for turn, offset in enumerate(offsets):
        now = NOW + (later if turn > len(offsets) // 2 else 0)
        assert use(row[0], NOW + offset, now) == naive.use(NOW + offset, now)
    count = int(row[0]["nonce_count"])
    assert row[0]["nonces"][:count].tolist() == sorted(naive.kept)


def test_the_window_ends_exactly():
    row = np.zeros(1, records.SIGNER).view(np.recarray)
    assert use(row[0], NOW - 2 * DAY, NOW) == Refusal.NONCE_WINDOW
    assert use(row[0], NOW + DAY, NOW) == Refusal.NONCE_WINDOW
    assert use(row[0], NOW - 2 * DAY + 1, NOW) == Refusal.NONE
    assert use(row[0], NOW + DAY - 1, NOW) == Refusal.NONE
