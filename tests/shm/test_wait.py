"""Who parks is woken by the next publication, and who does not park is not rung for."""

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from numba import njit, types

from shm import layout, wait
from shm.atomics import (
    load_acquire_at,
    load_relaxed,
    load_relaxed_at,
    pause,
    store_relaxed,
    store_relaxed_at,
    store_release_at,
)
from tests.shm import mapped

SOAK_SECONDS_MAX = 1_800
SECOND_NS = 1_000_000_000
sched_yield = types.ExternalFunction("sched_yield", types.int32())


def bell_and_ring():
    return mapped.zeros(1, layout.BELL), mapped.zeros(1, layout.BROADCAST)


@pytest.mark.parametrize("waiting", [wait.spin, wait.yielding])
@pytest.mark.parametrize("dtype", [layout.BROADCAST, layout.RING])
def test_a_look_is_bounded_and_sees_what_is_new(waiting, dtype):
    ring = np.zeros(1, dtype)
    assert not waiting(ring, 0, 0)
    assert not waiting(ring, 0, 100)
    ring["tail"] = 1
    assert waiting(ring, 0, 1)
    assert not waiting(ring, 1, 100)


def test_a_bell_rings_for_sleepers_alone():
    (asleep, _), (awake, _) = bell_and_ring(), bell_and_ring()
    fds = [wait.new_eventfd(), wait.new_eventfd()]
    assert wait.sleep(asleep, lambda: False)
    assert not wait.sleep(awake, lambda: True), "found something at the last look"
    assert [bool(wait.is_sleeping(bell)) for bell in (asleep, awake)] == [True, False]
    assert wait.ring_bells([asleep, awake], fds) == 1
    assert os.eventfd_read(fds[0]) == 1
    with pytest.raises(BlockingIOError):
        os.eventfd_read(fds[1])
    wait.woke(asleep)
    assert wait.ring_bells([asleep, awake], fds) == 0
    for fd in fds:
        wait.drain(fd)
        os.close(fd)


def test_a_bell_that_was_rung_to_the_brim_does_not_block_the_writer():
    bell, _ = bell_and_ring()
    wait.will_sleep(bell)
    fd = wait.new_eventfd()
    os.eventfd_write(fd, 2**64 - 2)
    assert wait.ring_bells([bell], [fd]) == 1
    wait.drain(fd)
    wait.drain(fd)
    os.close(fd)


def test_park_ends_at_its_timeout_and_leaves_the_bell_silent():
    bell, ring = bell_and_ring()
    assert not wait.park(bell, ring, 0, 1_000_000)
    assert bell["sleeping"][0] == 0
    ring["tail"] = 2**32  # its low half is as before
    assert wait.park(bell, ring, 0, 60 * SECOND_NS)
    assert not wait.unpark(bell, ring)


def test_a_reader_parks_on_memory_that_it_cannot_write():
    fd = os.memfd_create("ring")
    os.ftruncate(fd, layout.BROADCAST.itemsize)
    mine = np.memmap(os.fdopen(os.dup(fd), "r+b"), layout.BROADCAST, "r+", shape=1)
    theirs = np.memmap(os.fdopen(fd, "rb"), layout.BROADCAST, "r", shape=1)
    bell, _ = bell_and_ring()
    with ThreadPoolExecutor(1) as pool:
        parked = pool.submit(wait.park, bell, theirs, 0, 60 * SECOND_NS)
        while not wait.is_sleeping(bell):
            time.sleep(0.001)
        mine["tail"] = 1
        wait.unpark(bell, mine)
        assert parked.result()


def test_a_wake_up_without_news_ends_no_sleep():
    bell, ring = bell_and_ring()
    with ThreadPoolExecutor(1) as pool:
        parked = pool.submit(wait.park, bell, ring, 0, 60 * SECOND_NS)
        for _ in range(50):
            wait.unpark(bell, ring)
            time.sleep(0.001)
        assert not parked.done()
        ring["tail"] = 1
        wait.unpark(bell, ring)
        assert parked.result()


# --- no wake-up is lost -----------------------------------------------------------------------------------


def test_thousands_of_hand_overs_through_park_lose_none():
    (bell, ring), (bell_back, back), rounds = bell_and_ring(), bell_and_ring(), 3_000

    def other():
        for turn in range(rounds):
            assert wait.park(bell, ring, turn, 20 * SECOND_NS), "a lost wake-up"
            back["tail"] += 1
            wait.unpark(bell_back, back)

    thread = threading.Thread(target=other)
    thread.start()
    for turn in range(rounds):
        ring["tail"] += 1
        wait.unpark(bell, ring)
        assert wait.park(bell_back, back, turn, 20 * SECOND_NS), "a lost wake-up"
    thread.join()


def test_a_loop_asleep_on_an_eventfd_hears_every_publication():
    bell, ring = bell_and_ring()
    fd, rounds = wait.new_eventfd(), 2_000
    seen = mapped.zeros(1, np.int64)

    def write():
        for turn in range(rounds):
            while seen[0] < turn:
                time.sleep(0)
            ring["tail"] = turn + 1
            wait.ring_bells([bell], [fd])

    async def read():
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(fd, woken.set)
        while seen[0] < rounds:
            if wait.sleep(bell, lambda: ring["tail"][0] > seen[0]):
                await asyncio.wait_for(woken.wait(), 20)  # a lost wake-up is a TimeoutError
                wait.drain(fd)
                woken.clear()
                wait.woke(bell)
            seen[0] = ring["tail"][0]
        loop.remove_reader(fd)

    writer = threading.Thread(target=write)
    writer.start()
    asyncio.run(read())
    writer.join()
    os.close(fd)


LINE = layout.LINE // 8  # words: each of those below is on a line of its own
TAIL, FOUND, SLEEPER, WRITER, LOOKED, DONE = (i * LINE for i in range(6))


@njit(nogil=True)
def meet(words, mine, theirs, turn):
    store_release_at(words, mine, turn)
    await_word(words, theirs, turn)


@njit(nogil=True)
def await_word(words, i, turn):
    while load_acquire_at(words, i) != turn:
        for _ in range(1_000):
            pause()
            if load_acquire_at(words, i) == turn:
                return
        sched_yield()  # the other one has no core


@cache
def parties(announce, look):
    """Compile the last step of both sides: each says its part, then looks for the part of the other."""

    @njit(nogil=True)
    def sleeper(bell, words, rounds):
        for turn in range(1, rounds + 1):
            meet(words, SLEEPER, WRITER, turn)
            announce(bell)
            store_relaxed_at(words, FOUND, load_relaxed_at(words, TAIL) == turn)
            store_release_at(words, LOOKED, turn)
            await_word(words, DONE, turn)

    @njit(nogil=True)
    def writer(bell, words, rounds):
        """Return in how many rounds neither saw the other."""
        lost = 0
        for turn in range(1, rounds + 1):
            meet(words, WRITER, SLEEPER, turn)
            store_relaxed_at(words, TAIL, turn)
            rung = look(bell)
            await_word(words, LOOKED, turn)
            lost += not rung and load_relaxed_at(words, FOUND) == 0
            wait.woke(bell)
            store_release_at(words, DONE, turn)
        return lost

    return sleeper, writer


@njit(nogil=True)
def announce_unfenced(bell):
    store_relaxed(bell[0], "sleeping", 1)


@njit(nogil=True)
def look_unfenced(bell):
    return load_relaxed(bell[0], "sleeping") != 0


def lost_wake_ups(announce, look, rounds):
    sleeper, writer = parties(announce, look)
    bell, words = mapped.zeros(1, layout.BELL), mapped.zeros(6 * LINE, np.int64)
    sleeper(bell, words, 0), writer(bell, words, 0)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(sleeper, bell, words, rounds)
        return pool.submit(writer, bell, words, rounds).result()


@pytest.mark.timeout(SOAK_SECONDS_MAX)
def test_with_a_full_fence_on_both_sides_one_always_sees_the_other(pytestconfig):
    rounds = 20_000_000 if pytestconfig.getoption("--soak") else 100_000
    assert lost_wake_ups(wait.will_sleep, wait.is_sleeping, rounds) == 0


@pytest.mark.parametrize(
    ("announce", "look"),
    [
        (announce_unfenced, look_unfenced),
        (announce_unfenced, wait.is_sleeping),
        (wait.will_sleep, look_unfenced),
    ],
    ids=["no fence", "the sleeper has none", "the writer has none"],
)
def test_without_a_fence_wake_ups_are_lost(announce, look):
    if not any(lost_wake_ups(announce, look, 20_000) > 0 for _ in range(30)):
        pytest.skip("this machine never passed a load before a store: this run proves nothing")
