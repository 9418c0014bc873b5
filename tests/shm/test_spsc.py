"""What was pushed is popped: all of it, once, whole, in order, whoever dies in the middle."""

import os
import random
import signal
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numba import njit, types

from shm import layout, spsc
from shm.atomics import load_acquire_at
from tests.shm import mapped, single_step

SOAK_SECONDS_MAX = 1_800
sched_yield = types.ExternalFunction("sched_yield", types.int32())

CAPACITY = 8
WORDS = 15  # an item is a pair of lines


def ring(capacity=CAPACITY, dtype=None):
    return mapped.zeros(1, layout.RING), mapped.zeros(capacity, dtype or mapped.cell(WORDS))


def items(first, count, dtype=None):
    made = np.zeros(count, dtype or mapped.cell(WORDS))
    for i in range(count):
        made["sequence"][i] = made["words"][i] = first + i
    return made


def popped(header, slots, wanted):
    out = np.zeros(wanted, slots.dtype)
    count = spsc.pop(header, slots, out)
    assert (out["words"][:count] == out["sequence"][:count, None]).all()
    return out["sequence"][:count].tolist()


def test_a_full_ring_takes_no_more_and_an_empty_one_gives_nothing():
    header, slots = ring()
    assert popped(header, slots, 3) == []
    assert spsc.push(header, slots, items(1, 0)) == 0
    assert spsc.push(header, slots, items(1, CAPACITY + 3)) == CAPACITY
    before = header.tobytes()
    assert spsc.push(header, slots, items(90, 1)) == 0
    assert header.tobytes() == before, "a refused push dirties no line"
    assert popped(header, slots, CAPACITY + 3) == list(range(1, CAPACITY + 1))
    assert popped(header, slots, 1) == []


@pytest.mark.parametrize("seed", range(20))
def test_any_mixture_of_batches_is_a_queue(seed):
    chance, (header, slots), queue, pushed = random.Random(seed), ring(), deque(), 0
    for _ in range(400):
        size = chance.randrange(CAPACITY + 3)
        if chance.random() < 0.5:
            taken = spsc.push(header, slots, items(pushed, size))
            assert taken == min(size, CAPACITY - len(queue))
            queue.extend(range(pushed, pushed + taken))
            pushed += taken
        else:
            wanted = [queue.popleft() for _ in range(min(size, len(queue)))]
            assert popped(header, slots, size) == wanted


@pytest.mark.parametrize("dtype", [layout.EVENT, layout.TRADE, layout.FILL, layout.ENDED, layout.BOOK])
def test_a_record_is_handed_over_with_every_byte(dtype):
    header, slots = ring(4, dtype)
    noise = random.Random(5).randbytes(3 * dtype.itemsize)
    given, out = np.frombuffer(noise, dtype), np.zeros(3, dtype)
    for _ in range(3):  # at every place in the ring
        assert spsc.push(header, slots, given) == spsc.pop(header, slots, out) == 3
        assert out.tobytes() == given.tobytes()


@pytest.mark.parametrize(("tail", "seen"), [(-5, -5), (2**62, 2**62), (-(2**63), 0)])
def test_a_damaged_counter_leads_nowhere(tail, seen):
    header, slots = ring()
    header["tail"], header["tail_seen"] = tail, seen
    out = mapped.zeros(CAPACITY + 1, slots.dtype)
    assert 0 <= spsc.pop(header, slots, out[:CAPACITY]) <= CAPACITY
    assert not out[CAPACITY:].tobytes().strip(b"\0")


def test_the_consumer_reaches_all_that_was_pushed_and_leaves_it_there():
    header, slots = ring()
    place = 0
    for size in (3, CAPACITY, 1, 5, 2) * 4:
        pushed = spsc.push(header, slots, items(place, size))
        for at in range(place, place + pushed):
            side_by_side = min(place + pushed, -(-(at + 1) // CAPACITY) * CAPACITY) - at
            assert spsc.reach(header, slots, at) == side_by_side
            assert slots["sequence"][at % CAPACITY] == at
        assert spsc.reach(header, slots, place + pushed) == 0
        assert spsc.push(header, slots, items(0, CAPACITY)) == CAPACITY - pushed, "nothing is given up"
        header["tail"] -= CAPACITY - pushed
        spsc.drop(header, pushed)
        place += pushed
        assert int(header["head"][0]) == place and not spsc.has_items(header)


@pytest.mark.parametrize("tail", [-5, 2**62, -(2**63)])
def test_what_is_reached_lies_in_the_ring_whatever_is_said_to_be_pushed(tail):
    header, slots = ring()
    header["tail"] = tail
    assert all(0 <= spsc.reach(header, slots, at) <= CAPACITY - at % CAPACITY for at in range(3 * CAPACITY))


# --- a race -----------------------------------------------------------------------------------------------


@njit(nogil=True)
def push_all(header, slots, batch, count):
    """Push items 0..count-1 in batches of 1 to len(batch); return how often the ring was full."""
    done, size, full = 0, 0, 0
    while done < count:
        size = size % len(batch) + 1
        for i in range(size):
            batch[i].sequence = done + i
            batch[i].words[:] = done + i
        start = 0
        while start < size:
            pushed = spsc.push(header, slots, batch[start:size])
            start += pushed
            if pushed == 0:
                full += 1
                sched_yield()
        done += size
    return full


@njit(nogil=True)
def pop_all(header, slots, out, count):
    """Pop until item count-1; return how many were wrong, and how often the ring was empty."""
    due, wrong, empty = 0, 0, 0
    while due < count:
        popped = spsc.pop(header, slots, out)
        if popped == 0:
            empty += 1
            sched_yield()
        for i in range(popped):
            wrong += out[i].sequence != due
            for word in out[i].words:
                wrong += word != due
            due += 1
    return wrong, empty


@pytest.mark.timeout(SOAK_SECONDS_MAX)
@pytest.mark.parametrize("batch", [1, 5, 100])
def test_two_threads_lose_nothing(batch, pytestconfig):
    count = 2_000_000 if pytestconfig.getoption("--soak") else 300_000
    header, slots = ring(64)
    given, out = np.zeros(batch, slots.dtype), np.zeros(7, slots.dtype)
    push_all(header, slots, given, 0), pop_all(header, slots, out, 0)
    with ThreadPoolExecutor(2) as pool:
        pushing = pool.submit(push_all, header, slots, given, count)
        wrong, empty = pool.submit(pop_all, header, slots, out, count).result()
        full = pushing.result()
    assert wrong == 0
    assert full + empty > 0, "neither side ever waited for the other: this run proves nothing"


# --- deaths -----------------------------------------------------------------------------------------------


@njit(nogil=True)
def push_for_ever(header, slots, given, stop):
    value = header[0].tail
    while load_acquire_at(stop, 0) == 0:
        given[0].sequence = value
        given[0].words[:] = value
        value += spsc.push(header, slots, given)


@pytest.mark.timeout(SOAK_SECONDS_MAX)
def test_a_producer_killed_anywhere_leaves_whole_items(pytestconfig):
    header, slots = ring(64)
    given, stop, due, chance = np.zeros(1, slots.dtype), mapped.zeros(1, np.int64), 0, random.Random(6)
    stop[0] = 1
    push_for_ever(header, slots, given, stop)
    stop[0] = 0
    for _ in range(1_000 if pytestconfig.getoption("--soak") else 20):
        pid = os.fork()
        if pid == 0:
            try:
                push_for_ever(header, slots, given, stop)
            finally:
                os._exit(0)
        until = due + 1_000
        while due < until:
            for value in popped(header, slots, 64):
                assert value == due
                due += 1
        time.sleep(chance.random() / 5_000)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert popped(header, slots, 64) == list(range(due, int(header["tail"][0])))
        due = int(header["tail"][0])


# --- every instruction ------------------------------------------------------------------------------------


def stepped(push_or_pop):
    @njit(nogil=True)
    def step_through(header, slots, items, marks):
        single_step.stop_here(marks)
        push_or_pop(header, slots, items)
        single_step.end_here(marks)

    return step_through


@njit(nogil=True)
def push_hastily(ring, slots, items):
    """Without room to spare, and published before it is copied."""
    header = ring[0]
    count, tail = len(items), header.tail
    spsc.store_release(header, "tail", tail + count)
    for i in range(count):
        slots[(tail + i) % len(slots)] = items[i]


@njit(nogil=True)
def pop_hastily(ring, slots, out):
    """Given back before it is copied."""
    header = ring[0]
    count, head = len(out), header.head
    spsc.store_release(header, "head", head + count)
    for i in range(count):
        out[i] = slots[(head + i) % len(slots)]


def filled(held):
    """A ring that holds `held` items, in the middle of its fourth round, and the number of the next."""
    header, slots = ring()
    for first in range(3 * CAPACITY + 5):
        spsc.push(header, slots, items(first, 1))
        popped(header, slots, 1)
    spsc.push(header, slots, items(3 * CAPACITY + 5, held))
    return header, slots, 3 * CAPACITY + 5


def found_while_pushing(push, held, count):
    """What a consumer finds at each instruction of a push of `count` onto `held`, and the first's number."""
    step_through = stepped(push)
    step_through(*filled(held)[:2], items(0, count), np.zeros(2, np.int64))
    header, slots, first = filled(held)
    with single_step.Stepped(step_through, header, slots, items(first + held, count)) as child:
        return [popped_copies(header, slots) for _ in child.steps()], first


def popped_copies(header, slots):
    """What is in the ring, as (sequence, its last word), without taking it out."""
    out = np.zeros(CAPACITY, slots.dtype)
    count = spsc.pop(header.copy(), slots, out)
    return [(int(item["sequence"]), int(item["words"][-1])) for item in out[:count]]


@pytest.mark.parametrize(("held", "count"), [(0, 1), (2, 1), (2, 4), (6, 4)])
def test_at_every_instruction_of_a_push_the_consumer_finds_all_of_it_or_nothing(held, count):
    found, first = found_while_pushing(spsc.push, held, count)
    after = held + min(count, CAPACITY - held)
    assert all(each == [(first + i, first + i) for i in range(len(each))] for each in found)
    lengths = [len(each) for each in found]
    assert set(lengths) == {held, after} and lengths == sorted(lengths)


def test_a_hasty_push_is_caught():
    found, first = found_while_pushing(push_hastily, 2, 4)
    assert any(each != [(first + i, first + i) for i in range(len(each))] for each in found)


def kept_while_popping(pop, held, wanted):
    """At each instruction of a pop, let a producer fill the ring; what both sides then have of the old."""
    out, step_through = mapped.zeros(wanted, mapped.cell(WORDS)), stepped(pop)
    step_through(*filled(held)[:2], out, np.zeros(2, np.int64))
    (header, slots, first), kept, room = filled(held), [], []
    out["words"] = -1
    with single_step.Stepped(step_through, header, slots, out) as child:
        for _ in child.steps():
            overwritten, header_then = slots.copy(), header.copy()
            fitted = spsc.push(header_then, overwritten, items(900, CAPACITY))
            taken = out["words"][:, -1].tolist() if fitted > CAPACITY - held else []
            left = [word for _, word in popped_copies(header_then, overwritten)]
            kept.append([value - first for value in taken + left[: len(left) - fitted]])
            room.append(fitted)
    return kept, room


@pytest.mark.parametrize(("held", "wanted"), [(1, 1), (5, 1), (5, 3), (CAPACITY, CAPACITY)])
def test_at_every_instruction_of_a_pop_the_producer_overwrites_nothing_that_is_needed(held, wanted):
    kept, room = kept_while_popping(spsc.pop, held, wanted)
    assert all(each == list(range(held)) for each in kept)
    assert set(room) == {CAPACITY - held, CAPACITY - held + wanted} and room == sorted(room)


def test_a_hasty_pop_is_caught():
    kept, _ = kept_while_popping(pop_hastily, 5, 3)
    assert any(each != list(range(5)) for each in kept)
