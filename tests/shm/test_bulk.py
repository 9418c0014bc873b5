"""Rows moved at once are moved as a loop moves them, compiled or not; a fetch is free of effects."""

import numpy as np
import pytest
from numba import njit

from shm import bulk
from shm.kernel import same_bytes
from shm.layout import LEVEL


@njit
def shifted(rows, to, of, count):
    bulk.shift(rows, to, of, count)


@njit
def fetched(rows, at):
    bulk.prefetch(rows, at)


@njit
def same(one, other):
    return same_bytes(one, other)


@pytest.fixture
def rows():
    made = np.zeros(12, LEVEL)
    made["price"] = np.arange(1, 13)
    made["tail"] = np.arange(12) * 7
    return made


@pytest.mark.parametrize("shift", [shifted, bulk.shift], ids=["compiled", "plain"])
@pytest.mark.parametrize(
    ("to", "of", "count"), [(3, 2, 9), (2, 3, 9), (0, 6, 6), (6, 0, 6), (5, 5, 3), (1, 4, 0)]
)
def test_a_shift_moves_whole_rows_also_where_they_overlap(rows, shift, to, of, count):
    expected = rows.copy()
    expected[to : to + count] = rows[of : of + count].copy()
    shift(rows, to, of, count)
    assert (rows == expected).all()


def test_a_fetch_changes_nothing_wherever_it_looks(rows):
    before = rows.copy()
    for at in (0, 11, 12, -1, 1 << 40, -(1 << 40)):
        fetched(rows, at)
        bulk.prefetch(rows, at)
    assert (rows == before).all()


def test_bytes_are_the_same_only_if_all_are():
    one = np.arange(20, dtype=np.uint8)
    assert same(one, one.copy())
    for at in range(20):
        other = one.copy()
        other[at] ^= 128
        assert not same(one, other)


@njit
def checksum(words):
    crc = np.uint64(0xFFFFFFFF)
    for word in words:
        crc = bulk.crc32c_word(crc, word)
    return crc ^ np.uint64(0xFFFFFFFF)


@pytest.mark.parametrize("checksum", [checksum, checksum.py_func], ids=["compiled", "plain"])
def test_a_checksum_is_the_one_that_everybody_knows(checksum):
    for text, known in [  # of RFC 3720, B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ]:
        assert checksum(np.frombuffer(text, np.uint64)) == known
