"""The intrinsics reach the right word, and nothing that is not an aligned int64."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from shm import atomics, layout


@njit
def touch_fields(ring, value):
    header = ring[0]
    atomics.store_release(header, "tail", value)
    atomics.store_relaxed(header, "head", atomics.load_acquire(header, "tail") + 1)
    atomics.fence_acquire()
    atomics.fence_release()
    atomics.fence_full()
    atomics.pause()
    return atomics.load_relaxed(header, "head")


def test_a_field_is_reached_by_its_name():
    ring = np.zeros(1, layout.RING)
    assert touch_fields(ring, 2**62) == 2**62 + 1
    assert (ring["tail"][0], ring["head"][0]) == (2**62, 2**62 + 1)
    ring["tail"] = ring["head"] = 0
    assert not ring.tobytes().strip(b"\0"), "and nothing else"


@njit
def touch_words(words, i, value):
    atomics.store_relaxed_at(words, i, value)
    atomics.store_release_at(words, i, atomics.load_acquire_at(words, i) + 1)
    return atomics.load_relaxed_at(words, i)


@pytest.mark.parametrize("step", [1, 2])
def test_a_word_is_reached_by_its_index_also_in_a_view(step):
    words = np.zeros(10, np.int64)
    assert touch_words(words[1::step], 3, -7) == -6
    assert np.flatnonzero(words).tolist() == [1 + 3 * step]


def test_a_field_of_another_kind_is_refused_by_the_compiler():
    fields = [("sequence", "i8"), ("small", "i4"), ("other", "i4"), ("large", "u8"), ("real", "f8")]
    records = np.zeros(1, np.dtype(fields, align=True))
    unaligned = np.zeros(1, np.dtype([("odd", "u1"), ("word", "i8")]))

    def loading(name):
        return njit(lambda array: atomics.load_acquire(array[0], name))

    assert loading("sequence")(records) == 0
    for name in ("small", "large", "real", "absent"):
        with pytest.raises(TypingError):
            loading(name)(records)
    with pytest.raises(TypingError):
        loading("word")(unaligned)
    for words in (np.zeros(2, np.int32), np.zeros(2, np.uint64), np.zeros((2, 2), np.int64)):
        with pytest.raises(TypingError):
            njit(lambda array: atomics.load_acquire_at(array, 0))(words)


@njit
def copy_rest(target, source):
    atomics.copy_rest(target[0], source[0])


@njit
def copy_whole(target, source):
    target[0] = source[0]


@pytest.mark.parametrize(
    "dtype",
    [layout.EVENT, layout.TRADE, layout.FILL, layout.ENDED, layout.BOOK, layout.ORDER],
)
def test_records_are_copied_to_the_last_byte_and_no_further(dtype):
    size = dtype.itemsize
    noise = np.random.default_rng(1).integers(1, 256, 3 * size, np.uint8).view(dtype)
    for copy, kept in ((copy_rest, 8), (copy_whole, 0)):
        target = np.zeros(3, dtype)
        copy(target[1:2], noise[1:2])
        wanted = bytes(size + kept) + noise[1:2].tobytes()[kept:] + bytes(size)
        assert target.tobytes() == wanted


def test_only_records_of_one_kind_that_begin_with_a_word_are_copied():
    with pytest.raises(TypingError):
        copy_rest(np.zeros(1, layout.EVENT), np.zeros(1, layout.TRADE))
    with pytest.raises(TypingError):
        copy_rest(np.zeros(1, layout.NAME), np.zeros(1, layout.NAME))
