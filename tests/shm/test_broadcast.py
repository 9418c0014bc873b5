"""A reader gets every item, whole and in order, or is told that it was lapped: never wrongly."""

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from numba import njit, types

from shm import broadcast, layout
from shm.atomics import (
    copy_rest,
    fence_release,
    load_acquire,
    load_acquire_at,
    pause,
    store_relaxed,
    store_release,
    store_release_at,
)
from tests.shm import machine_code, mapped, single_step

SOAK_SECONDS_MAX = 1_800
sched_yield = types.ExternalFunction("sched_yield", types.int32())

CAPACITY = 8
WORDS = 8


def ring(capacity=CAPACITY, words=WORDS):
    return mapped.zeros(1, layout.BROADCAST), mapped.zeros(capacity, mapped.cell(words))


def items(first, count, words=WORDS):
    """Items for the positions from `first` on; each word is the position plus one."""
    made = np.zeros(count, mapped.cell(words))
    made["words"] = np.arange(first + 1, first + count + 1)[:, None]
    return made


def publish(header, slots, count):
    first = broadcast.tail(header)
    assert broadcast.publish(header, slots, items(first, count), count) == first


def read(header, slots, cursor, wanted):
    """The positions read, or LAPPED."""
    out = np.zeros(wanted, slots.dtype)
    count = broadcast.read(header, slots, cursor, out)
    return count if count < 0 else positions(out[:count])


def positions(out):
    assert (out["words"] == out["sequence"][:, None]).all(), "a mixture"
    return (out["sequence"] - 1).tolist()


def peeked(header, slots, position):
    out = np.zeros(1, slots.dtype)
    return positions(out) if broadcast.peek(header, slots, position, out) else None


# --- interleavings, written out ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_any_history_reads_as_the_naive_ring_says(seed):
    chance, (header, slots), published, cursor = random.Random(seed), ring(), 0, 0
    for _ in range(300):
        count = chance.choice([0, 1, 1, 2, 5, CAPACITY, 3 * CAPACITY])
        publish(header, slots, count)
        published += count
        oldest = max(published - CAPACITY, 0)
        assert (broadcast.tail(header), broadcast.oldest(header, slots)) == (published, oldest)
        at, wanted = chance.randrange(published + 3), chance.randrange(1, 2 * CAPACITY)
        assert peeked(header, slots, at) == ([at] if oldest <= at < published else None)
        expected = list(range(cursor, min(cursor + wanted, published)))
        got = read(header, slots, cursor, wanted)
        assert got == (broadcast.LAPPED if cursor < oldest else expected)
        cursor = broadcast.tail(header) if got == broadcast.LAPPED else cursor + len(got)


def test_a_cursor_from_elsewhere_reads_nothing():
    header, slots = ring()
    publish(header, slots, 3)
    assert read(header, slots, 4, 5) == []
    assert peeked(header, slots, -1) is None
    assert read(header, slots, 0, 0) == []


def test_what_is_being_overwritten_is_lapped_and_what_is_not_is_not():
    header, slots = ring()
    publish(header, slots, CAPACITY)
    slots["sequence"][0], slots["words"][0, :3] = broadcast.NOT_WHOLE, 99  # position CAPACITY has begun
    assert read(header, slots, 0, 1) == broadcast.LAPPED
    assert peeked(header, slots, 0) is None
    assert read(header, slots, 1, CAPACITY) == list(range(1, CAPACITY))
    assert peeked(header, slots, 1) == [1]


def test_what_is_whole_but_not_published_is_not_read():
    header, slots = ring()
    publish(header, slots, 2)
    slots["sequence"][2], slots["words"][2] = 3, 3
    assert read(header, slots, 0, CAPACITY) == [0, 1]
    assert peeked(header, slots, 2) is None


def test_the_items_sequence_is_not_believed():
    header, slots = ring()
    given = items(0, 1)
    given["sequence"] = 77
    broadcast.publish(header, slots, given, 1)
    assert read(header, slots, 0, 1) == [0]
    assert given["sequence"] == 77


@pytest.mark.parametrize("dtype", [layout.EVENT, layout.TRADE, layout.FILL, layout.ENDED])
def test_a_record_is_published_with_every_byte(dtype):
    header, slots, out = mapped.zeros(1, layout.BROADCAST), mapped.zeros(4, dtype), np.zeros(3, dtype)
    given = np.frombuffer(random.Random(7).randbytes(3 * dtype.itemsize), dtype).copy()
    for first in (0, 3, 6):  # at every place in the ring
        broadcast.publish(header, slots, given, 3)
        given["sequence"] = np.arange(first + 1, first + 4)
        assert broadcast.read(header, slots, first, out) == 3
        assert out.tobytes() == given.tobytes()
        assert broadcast.peek(header, slots, first, out[2:])
        assert out[2:].tobytes() == given[:1].tobytes()


# --- mutants ----------------------------------------------------------------------------------------------


MUTANT_DWELL = 5  # pauses


@njit(nogil=True)
def pauses(count):
    for _ in range(count):
        pause()


@njit(nogil=True)
def publish_in_place(ring, slots, items, count):
    """What `publish` does, by building the items in their slots, as the engine does with a block's events."""
    first, opened = ring[0].tail, 0
    for i in range(count):
        if opened == max(len(slots) // 2, 1):
            broadcast.publish_open(ring, slots, opened)
            opened = 0
        copy_rest(broadcast.open_slot(ring, slots, opened), items[i])
        opened += 1
    broadcast.publish_open(ring, slots, opened)
    return first


@njit(nogil=True)
def publish_unmarked(ring, slots, items, count):
    header = ring[0]
    first = header.tail
    for i in range(count):
        slot = slots[(first + i) & (len(slots) - 1)]
        copy_rest(slot, items[i])
        pauses(MUTANT_DWELL)  # as if it were preempted here
        store_release(slot, "sequence", first + i + 1)
        store_release(header, "tail", first + i + 1)
    return first


@njit(nogil=True)
def read_once(ring, slots, cursor, out):
    count = min(load_acquire(ring[0], "tail") - cursor, len(out))
    for i in range(count):
        slot = slots[(cursor + i) & (len(slots) - 1)]
        if load_acquire(slot, "sequence") != cursor + i + 1:
            return i if i > 0 else broadcast.LAPPED
        copy_rest(out[i], slot)
        out[i].sequence = cursor + i + 1
    return max(count, 0)


@njit(nogil=True)
def publish_plain(ring, slots, items, count):
    header = ring[0]
    first = header.tail
    for i in range(count):
        slot = slots[(first + i) & (len(slots) - 1)]
        word = items[i].words[0]
        slot.sequence = broadcast.NOT_WHOLE
        slot.words[0] = word
        slot.sequence = first + i + 1
    header.tail = first + count
    return first


@njit(nogil=True)
def publish_one_word(ring, slots, items, count):
    header = ring[0]
    first = header.tail
    for i in range(count):
        slot = slots[(first + i) & (len(slots) - 1)]
        word = items[i].words[0]
        store_relaxed(slot, "sequence", broadcast.NOT_WHOLE)
        fence_release()
        slot.words[0] = word
        store_release(slot, "sequence", first + i + 1)
    store_release(header, "tail", first + count)
    return first


SOUND = (broadcast.publish, broadcast.read)
IN_PLACE = (publish_in_place, broadcast.read)
MUTANTS = {
    "the writer does not mark the slot": (publish_unmarked, broadcast.read),
    "the reader does not look twice": (broadcast.publish, read_once),
}


def test_the_machine_code_looks_at_the_sequence_on_both_sides_of_the_copy():
    header, slots = ring(words=machine_code.COPIED_WORDS)
    given = items(0, 1, machine_code.COPIED_WORDS)
    both = machine_code.looks_on_both_sides
    assert both("store", broadcast.publish, header, slots, given, 1)
    assert both("load", broadcast.read, header, slots, 0, given)
    assert both("load", broadcast.peek, header, slots, 0, given)
    assert not both("store", publish_unmarked, header, slots, given, 1)
    assert not both("load", read_once, header, slots, 0, given)
    sound, plain = (
        machine_code.count("store", kernel, header, slots, given, 1)
        for kernel in (publish_one_word, publish_plain)
    )
    assert sound > plain, "LLVM keeps the mark only because it is atomic"


# --- races ------------------------------------------------------------------------------------------------


RACES_MAX = 10  # until a reader is lapped: who is never interrupted may keep up with a slow writer
BURST, BURST_EVERY = 4, 16  # of 16 publications 4 come without a gap, and lap whoever is behind


@cache
def kernels(publish, read):
    """Compile (publish_until, read_many) over the functions under test."""

    @njit(nogil=True)
    def publish_until(header, slots, given, stop, gap):
        size, turn = 0, 0
        while load_acquire_at(stop, 0) == 0:
            size = size % len(given) + 1
            for i in range(size):
                given[i].words[:] = header[0].tail + i + 1
            publish(header, slots, given, size)
            turn += 1
            pauses(gap if turn % BURST_EVERY >= BURST else 0)

    @njit(nogil=True)
    def read_many(header, slots, out, wanted, reads_max):
        """Read `wanted` items; count items that are wrong, laps, and laps that were told without need."""
        due, taken, wrong, lapped, needless = broadcast.tail(header), 0, 0, 0, 0
        for _ in range(reads_max):
            if taken >= wanted:
                break
            count = read(header, slots, due, out)
            if count == broadcast.LAPPED:
                lapped += 1
                newest = broadcast.tail(header)  # no item beyond half a ring behind it can have been begun
                needless += due + len(slots) >= newest + len(slots) // 2
                due = newest if lapped % 2 == 0 else broadcast.oldest(header, slots)  # at the edge
                continue
            if count == 0:
                sched_yield()
            for i in range(count):
                right = out[i].sequence == due + i + 1
                for word in out[i].words:
                    right = right and word == due + i + 1
                wrong += not right
            due += count
            taken += count
        return taken, wrong, lapped, needless

    return publish_until, read_many


def race(functions, capacity, words, wanted, gap, readers=1):
    """Let one writer and some readers run against each other; return what the readers counted, in all."""
    (header, slots), (publish_until, read_many) = ring(capacity, words), kernels(*functions)
    given, stop = np.zeros(max(capacity // 2, 1), slots.dtype), mapped.zeros(1, np.int64)
    stop[0] = 1
    publish_until(header, slots, given, stop, gap)
    outs = [np.zeros(3, slots.dtype) for _ in range(readers)]
    read_many(header, slots, outs[0], 0, 0)
    stop[0] = 0
    with ThreadPoolExecutor(readers + 1) as pool:
        pool.submit(publish_until, header, slots, given, stop, gap)
        try:
            counts = list(
                pool.map(lambda out: read_many(header, slots, out, wanted // readers, 50 * wanted), outs)
            )
        finally:
            stop[0] = 1
    return np.sum(counts, axis=0).tolist()


@pytest.mark.timeout(SOAK_SECONDS_MAX)
@pytest.mark.parametrize(
    ("capacity", "words", "gap", "wanted"),
    [(8, 15, 50, 200_000), (64, 23, 50, 300_000), (8, 600, 100, 40_000)],
)
@pytest.mark.parametrize("functions", [SOUND, IN_PLACE], ids=["publish", "in place"])
def test_racing_readers_are_never_given_a_mixture_and_always_told(
    functions, capacity, words, gap, wanted, pytestconfig
):
    wanted *= 20 if pytestconfig.getoption("--soak") else 1
    for readers in (1, 2):
        for _ in range(RACES_MAX):
            taken, wrong, lapped, needless = race(functions, capacity, words, wanted // 2, gap, readers)
            assert taken >= wanted // 2 - readers and (wrong, needless) == (0, 0)
            if lapped > 0:
                break
        else:
            pytest.fail("no reader was ever lapped: this run proves nothing")


@pytest.mark.parametrize("name", MUTANTS)
def test_the_race_catches_what_is_wrong(name):
    for _ in range(30):
        if any(race(MUTANTS[name], 2, 600, 3_000, gap)[1] > 0 for gap in (0, 20)):
            return
    pytest.fail("the race lets a broken ring pass")


@pytest.mark.timeout(SOAK_SECONDS_MAX)
def test_a_writer_killed_anywhere_leaves_all_it_published(pytestconfig):
    (header, slots), (publish_until, _) = ring(CAPACITY, 600), kernels(*SOUND)
    given, stop, chance, inside = np.zeros(3, slots.dtype), mapped.zeros(1, np.int64), random.Random(8), 0
    stop[0] = 1
    publish_until(header, slots, given, stop, 0)
    stop[0] = 0
    for _ in range(1_000 if pytestconfig.getoption("--soak") else 40):
        before, pid = broadcast.tail(header), os.fork()
        if pid == 0:
            try:
                publish_until(header, slots, given, stop, 0)
            finally:
                os._exit(0)
        while broadcast.tail(header) == before:
            time.sleep(0.0005)
        time.sleep(chance.random() / 1_000)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        tail = broadcast.tail(header)
        begun = int((slots["sequence"] == broadcast.NOT_WHOLE).sum())
        whole = int((slots["sequence"] > tail).sum())  # of a batch whose tail was never released
        oldest = tail - CAPACITY + begun + whole
        assert begun <= 1
        assert read(header, slots, oldest, CAPACITY) == list(range(oldest, tail))
        assert read(header, slots, oldest - 1, CAPACITY) == broadcast.LAPPED
        inside += begun
    assert inside > 0, "no writer died inside a slot: this run proves nothing"


# --- every instruction ------------------------------------------------------------------------------------


def stepped_publisher(publish):
    @njit(nogil=True)
    def stepped_publish(header, slots, given, marks):
        single_step.stop_here(marks)
        publish(header, slots, given, len(given))
        single_step.end_here(marks)

    return stepped_publish


def seen_while_publishing(publish_it, words, count, before):
    """The ring, read from each position it may hold, at every stop of a publication of `count` items.

    It stops at each instruction, of long items at each seventh, and after the last.
    """
    stepped_publish = stepped_publisher(publish_it)
    stepped_publish(*ring(words=words), items(0, count, words), np.zeros(2, np.int64))
    header, slots = ring(words=words)
    broadcast.publish(header, slots, items(0, before, words), before)
    seen, out = [], np.zeros(CAPACITY, slots.dtype)

    def look():
        for cursor in range(max(before - CAPACITY, 0), before + count):
            got = broadcast.read(header, slots, cursor, out)
            seen.append((cursor, got, out["words"][: max(got, 0)].tolist()))

    with single_step.Stepped(stepped_publish, header, slots, items(before, count, words)) as child:
        for instruction in child.steps():
            if words <= WORDS or instruction % 7 == 0:
                look()
        look()
    return seen


def is_mixed(cursor, got, words):
    return any(set(item) != {cursor + i + 1} for i, item in enumerate(words))


@pytest.mark.parametrize(
    ("words", "count", "before"), [(1, 1, 0), (8, 1, 13), (8, 4, 13), (8, 6, 13), (600, 1, 13)]
)
@pytest.mark.parametrize("publish_it", [broadcast.publish, publish_in_place], ids=["publish", "in place"])
def test_at_every_instruction_of_a_publication_readers_get_whole_items_or_are_lapped(
    publish_it, words, count, before
):
    seen = seen_while_publishing(publish_it, words, count, before)
    assert not any(is_mixed(*each) for each in seen)
    lapped = {cursor for cursor, got, _ in seen if got == broadcast.LAPPED}
    assert lapped == set(range(max(before - CAPACITY, 0), before + count - CAPACITY)), (
        "only what is overwritten"
    )
    assert {cursor for cursor, got, _ in seen if got > 0} == set(
        range(max(before - CAPACITY, 0), before + count)
    )


def test_a_publication_without_marks_is_caught_at_every_instruction():
    assert any(is_mixed(*each) for each in seen_while_publishing(publish_unmarked, 8, 1, 13))


def overrun_at_every_instruction(read_it):
    """Stop a reader of two items at each of its instructions, let the writer run; yield what it then returns.

    The writer publishes 0 to CAPACITY items, and is left in the middle of the next.
    """

    @njit(nogil=True)
    def stepped_read(header, slots, out, result, marks):
        single_step.stop_here(marks)
        count = read_it(header, slots, 5, out)
        single_step.end_here(marks)
        store_release_at(result, 0, count)

    for instruction in range(single_step.STEPS_MAX):
        for published in (0, CAPACITY - 3, CAPACITY - 2, CAPACITY):
            (header, slots), result = ring(), mapped.zeros(1, np.int64)
            out = mapped.zeros(2, slots.dtype)
            publish(header, slots, 8)
            stepped_read(header, slots, out, result, np.zeros(2, np.int64))
            with single_step.Stepped(stepped_read, header, slots, out, result) as child:
                if not all(child.step() for _ in range(instruction)):
                    return
                publish(header, slots, published)
                slot = slots[broadcast.tail(header) % CAPACITY : broadcast.tail(header) % CAPACITY + 1]
                slot["sequence"], slot["words"][0, ::2] = broadcast.NOT_WHOLE, 99
                child.run_to_end()
            yield published, int(result[0]), out["words"][: max(result[0], 0)].tolist()


def test_a_reader_overrun_at_any_instruction_gets_whole_items_or_is_told():
    met = list(overrun_at_every_instruction(broadcast.read))
    assert not any(is_mixed(5, got, words) for _, got, words in met)
    assert {got for published, got, _ in met if published == 0} == {2}, "never lapped without need"
    assert {got for published, got, _ in met if published == CAPACITY} == {broadcast.LAPPED, 1, 2}


def test_a_reader_that_looks_once_is_caught_at_some_instruction():
    assert any(is_mixed(5, got, words) for _, got, words in overrun_at_every_instruction(read_once))
