"""Who sleeps is woken by his bell, the newest one of his name; who is awake is left alone."""

import os

import numpy as np
import pytest

from engine.bells import Bells
from shm import region, stats, wait


class Sleeper:
    def __init__(self):
        self.page, self.eventfd = stats.Stats(), wait.new_eventfd()

    @property
    def fds(self):
        """As they are handed over: the receiver's own."""
        return [os.dup(self.page.region.fd), os.dup(self.eventfd)]

    def rung(self):
        """How often since the last look."""
        try:
            return os.eventfd_read(self.eventfd)
        except BlockingIOError:
            return 0


def test_only_who_sleeps_is_rung():
    bells, asleep, awake = Bells(), Sleeper(), Sleeper()
    bells.meet("gateway 0", asleep.fds)
    bells.meet("gateway 1", awake.fds)
    assert bells.ring() == 0
    wait.will_sleep(asleep.page.bell)
    assert bells.ring() == 1
    assert (asleep.rung(), awake.rung()) == (1, 0)


def test_a_successor_is_rung_in_place_of_who_was_there_and_nothing_is_left_of_that_one():
    bells, first, second = Bells(), Sleeper(), Sleeper()
    for one in (first, second):
        wait.will_sleep(one.page.bell)
    bells.meet("gateway 0", first.fds)
    before = len(os.listdir("/proc/self/fd"))
    bells.meet("gateway 0", second.fds)
    assert bells.ring() == 1
    assert (first.rung(), second.rung()) == (0, 1)
    bells.meet("gateway 0", second.fds)  # the same again, as another supervisor introduces it
    assert bells.ring() == 1 and second.rung() == 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_no_page_is_refused_and_the_one_before_stays():
    bells, one = Bells(), Sleeper()
    wait.will_sleep(one.page.bell)
    bells.meet("gateway 0", one.fds)
    wrong = region.create("wrong", {"words": (np.dtype("i8"), 1)}, 1)
    fds = [wrong.fd, one.eventfd]
    with pytest.raises(region.Refused):
        bells.meet("gateway 0", fds)
    assert all(os.fstat(fd) for fd in fds), "they are still the caller's"
    assert bells.ring() == 1 and one.rung() == 1
