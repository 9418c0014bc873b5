"""Rows moved at once are moved as a loop moves them, and so are fields of bytes, compiled or not; a fetch is
free of effects.
"""

import numpy as np
import pytest
from numba import njit

from shm import bulk
from shm.layout import LEVEL, record

NAMED = record(("number", "i4"), ("name", "u1", 20), ("other", "u1", 20), ("after", "i4"))


@njit
def shifted(rows, to, of, count):
    bulk.shift(rows, to, of, count)


@njit
def fetched(rows, at, line):
    bulk.prefetch(rows, at, line)


# of fields of rows, whose length the compiler knows, and of arrays
@njit
def copied(rows):
    bulk.copy_bytes(rows[1].name, rows[0].name)


@njit
def cleared(rows):
    bulk.clear_bytes(rows[0].name)


@njit
def same(rows):
    return bulk.same_bytes(rows[0].name, rows[0].other)


@njit
def copied_array(to, of):
    bulk.copy_bytes(to, of)


@njit
def cleared_array(to):
    bulk.clear_bytes(to)


@njit
def same_array(one, other):
    return bulk.same_bytes(one, other)


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
        for line in (0, 1, 1 << 20):
            fetched(rows, at, line)
            bulk.prefetch(rows, at, line)
    assert (rows == before).all()


@pytest.fixture
def named():
    made = np.zeros(2, NAMED)
    made["number"], made["after"] = -1, -1
    made["name"] = np.arange(40, dtype=np.uint8).reshape(2, 20)
    made["other"] = made["name"]
    return made


def test_a_field_is_copied_and_nothing_beside_it(named):
    expected = named.copy()
    expected["name"][1] = named["name"][0]
    copied(named)
    assert (named == expected).all()


def test_a_field_is_cleared_and_nothing_beside_it(named):
    expected = named.copy()
    expected["name"][0] = 0
    cleared(named)
    assert (named == expected).all()


@pytest.mark.parametrize("copy", [copied_array, bulk.copy_bytes], ids=["compiled", "plain"])
@pytest.mark.parametrize("clear", [cleared_array, bulk.clear_bytes], ids=["compiled", "plain"])
def test_so_are_arrays(copy, clear):
    to, of = np.zeros(20, np.uint8), np.arange(20, dtype=np.uint8)
    copy(to, of)
    assert (to == of).all()
    clear(to)
    assert not to.any()


@pytest.mark.parametrize("compare", [same_array, bulk.same_bytes], ids=["compiled", "plain"])
def test_bytes_are_the_same_only_if_all_are(named, compare):
    field, other = named["name"][0], named["other"][0]
    assert same(named) and compare(field, other)
    for at in range(20):
        other[at] ^= 128
        assert not same(named) and not compare(field, other)
        other[at] ^= 128
