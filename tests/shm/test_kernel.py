"""What a kernel's compiler leaves out."""

import numpy as np
from numba import njit

from shm.kernel import entry, inner


@inner
def _within(numbers, at):
    return numbers[at]


@entry
def read(numbers, at):
    return _within(numbers, at), numbers[at]


@njit
def read_by_anybody(numbers, at):
    return numbers[at]


def test_an_index_of_a_kernel_does_not_count_from_the_end():
    """It stands for itself, here for what is before the view; that of other compiled functions does count."""
    numbers = np.arange(8)
    view = numbers[2:6]
    assert read(view, 1) == (3, 3) and read(view, -1) == (1, 1)
    assert read_by_anybody(view, -1) == 5
