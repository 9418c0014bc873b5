"""A reader gets one whole publication, however it meets the writer, and whether the writer lives or not."""

import os
import random
import signal
import time

import numpy as np
import pytest
from numba import njit

from shm import layout, seqlock
from shm.atomics import copy_rest, store_release_at
from shm.constants import BOOK_DEPTH, BOOK_SLOTS, READ_TRIES
from tests.shm import machine_code, mapped, seqlock_race, single_step
from tests.shm.seqlock_race import MUTANTS, SOUND, Race

SOAK_SECONDS_MAX = 1_800
LONG = layout.BOOK.itemsize // 8 - 1  # words: as long as a book
VERY_LONG = 8_191  # words: a copy takes so long that the writer often comes round


def ring(dtype=layout.BOOK):
    return mapped.zeros(1, layout.BOOK_HEAD), mapped.zeros(BOOK_SLOTS, dtype)


def publish(heads, cells, height):
    index = seqlock.begin(heads[0], cells)
    cells[index]["height"] = height
    seqlock.end(heads[0], cells, index)


def read(heads, cells, tries=1):
    """The sequence that `read` gives, and the height in the copy."""
    out = np.zeros(1, cells.dtype)
    return seqlock.read(heads[0], cells, out, tries), int(out["height"][0])


# --- interleavings, written out ---------------------------------------------------------------------------


def test_nothing_was_published():
    heads, cells = ring()
    assert read(heads, cells)[0] == seqlock.EMPTY
    seqlock.begin(heads[0], cells)
    assert read(heads, cells)[0] == seqlock.EMPTY


def test_a_publication_is_seen_when_it_has_ended_and_not_before():
    heads, cells = ring()
    for height in range(1, 3 * BOOK_SLOTS):
        before = read(heads, cells)
        index = seqlock.begin(heads[0], cells)
        assert index == (height - 1) % BOOK_SLOTS
        assert cells["sequence"][index] == 2 * height - 1
        cells[index]["height"] = height
        assert read(heads, cells) == before
        seqlock.end(heads[0], cells, index)
        assert read(heads, cells) == (2 * height, height)


def test_a_reader_that_was_overtaken_by_a_whole_round_tries_again_and_then_says_torn():
    heads, cells = ring()
    for height in range(1, 3):
        publish(heads, cells, height)
    late = np.array(heads)  # what a reader knows that was held up between its look at `latest` and the cell
    for height in range(3, 3 + BOOK_SLOTS - 2):
        publish(heads, cells, height)
    assert read(late, cells) == (4, 2), "three publications later its cell is still untouched"
    seqlock.begin(heads[0], cells)
    assert read(late, cells) == (4, 2)
    publish(heads, cells, 5)
    seqlock.begin(heads[0], cells)
    assert read(late, cells, tries=READ_TRIES)[0] == seqlock.TORN, "its cell is being written"
    publish(heads, cells, 6)
    assert read(late, cells, tries=READ_TRIES)[0] == seqlock.TORN, "its cell holds a later publication"
    assert read(heads, cells) == (12, 6)


def test_a_new_writer_goes_on_where_a_dead_one_was():
    heads, cells = ring()
    publish(heads, cells, 1)
    cells[seqlock.begin(heads[0], cells)]["height"] = 99  # dies here
    publish(heads, cells, 2)
    assert read(heads, cells) == (4, 2)


def test_a_row_is_in_doubt_from_open_to_close():
    rows = np.zeros(1, layout.MARKET)
    row = rows[0]
    before = seqlock.row_begin(row)
    assert before == 0 and seqlock.row_unchanged(row, before)
    seqlock.open_row(row)
    assert seqlock.row_begin(row) == seqlock.TORN
    assert not seqlock.row_unchanged(row, before)
    seqlock.close_row(row)
    assert not seqlock.row_unchanged(row, before)
    assert seqlock.row_begin(row) == 2 and seqlock.row_unchanged(row, 2)


# --- what is copied ---------------------------------------------------------------------------------------


def random_book(seed):
    book = np.frombuffer(random.Random(seed).randbytes(layout.BOOK.itemsize), layout.BOOK).copy()
    book["bid_count"], book["ask_count"] = 7, BOOK_DEPTH
    return book


def publish_book(heads, cells, book):
    index = seqlock.begin(heads[0], cells)
    for name in layout.BOOK.names[1:]:
        cells[index][name] = book[0][name]
    seqlock.end(heads[0], cells, index)


def test_a_whole_read_copies_every_byte():
    heads, cells = ring()
    book, out = random_book(1), np.zeros(1, layout.BOOK)
    publish_book(heads, cells, book)
    book["sequence"] = seqlock.read(heads[0], cells, out, 1)
    assert all((out[name] == book[name]).all() for name in layout.BOOK.names)


@pytest.mark.parametrize("depth", [0, 1, 7, 20, BOOK_DEPTH, BOOK_DEPTH + 1])
def test_a_read_of_a_book_copies_the_header_and_the_levels_asked_for(depth):
    heads, cells = mapped.zeros(3, layout.BOOK_HEAD), mapped.zeros(3 * BOOK_SLOTS, layout.BOOK)
    book = random_book(2)
    publish_book(heads[1:2], cells[BOOK_SLOTS : 2 * BOOK_SLOTS], book)
    for read_it in (
        lambda out: seqlock.read_book(heads[1], cells[BOOK_SLOTS : 2 * BOOK_SLOTS], out, depth, 1),
        lambda out: seqlock.read_market(heads, cells, 1, out, depth, 1),
    ):
        out = np.zeros(1, layout.BOOK)
        assert read_it(out) == 2
        for name in ("height", "time_ms", "epoch", "stale", "last_price", "bid_count", "ask_count"):
            assert out[name] == book[name]
        for side, count in (("bids", 7), ("asks", BOOK_DEPTH)):
            copied = min(count, depth)
            assert (out[side][0, :copied] == book[side][0, :copied]).all()
            assert not out[side][0, copied:].tobytes().strip(b"\0")


@pytest.mark.parametrize("count", [-1, BOOK_DEPTH + 1, 2**62])
def test_a_damaged_count_leads_nowhere(count):
    heads, cells = ring()
    book, out = random_book(3), mapped.zeros(2, layout.BOOK)
    book["bid_count"] = book["ask_count"] = count
    publish_book(heads, cells, book)
    assert seqlock.read_book(heads[0], cells, out, BOOK_DEPTH, 1) == 2
    assert not out[1:].tobytes().strip(b"\0")


# --- machine code -----------------------------------------------------------------------------------------


def publisher(begin, end):
    @njit
    def publish_copy(heads, cells, items):
        index = begin(heads[0], cells)
        copy_rest(cells[index], items[0])
        end(heads[0], cells, index)

    return publish_copy


def test_the_machine_code_looks_at_the_sequence_on_both_sides_of_the_copy():
    heads, cells = ring(mapped.cell(machine_code.COPIED_WORDS))
    items = np.zeros(1, cells.dtype)
    writer, reader = (heads, cells, items), (heads[0], cells, items, 1)
    assert machine_code.looks_on_both_sides("store", publisher(seqlock.begin, seqlock.end), *writer)
    assert machine_code.looks_on_both_sides("load", seqlock.read, *reader)
    unmarked = publisher(seqlock_race.begin_unmarked, seqlock.end)
    assert not machine_code.looks_on_both_sides("store", unmarked, *writer)
    assert not machine_code.looks_on_both_sides("load", seqlock_race.read_once, *reader)


@njit
def write_plain(cells, value):
    """The seqlock of an afternoon: of its two stores, and of its two looks below, LLVM keeps one."""
    cell = cells[0]
    cell.sequence += 1
    cell.words[0] = value
    cell.words[1] = value
    cell.sequence += 1


@njit
def read_plain(cells):
    cell = cells[0]
    sequence = cell.sequence
    total = cell.words[0] + cell.words[1]
    return total if sequence % 2 == 0 and cell.sequence == sequence else seqlock.TORN


@njit
def write_row(cells, value):
    cell = cells[0]
    seqlock.open_row(cell)
    cell.words[0] = value
    cell.words[1] = value
    seqlock.close_row(cell)


@njit
def read_row(cells):
    cell = cells[0]
    sequence = seqlock.row_begin(cell)
    total = cell.words[0] + cell.words[1]
    return total if sequence != seqlock.TORN and seqlock.row_unchanged(cell, sequence) else seqlock.TORN


def test_llvm_drops_a_plain_store_and_a_plain_look_and_keeps_the_atomic_ones():
    cells = np.zeros(1, mapped.cell(2))
    assert (
        machine_code.count("store", write_row, cells, 1)
        == machine_code.count("store", write_plain, cells, 1) + 1
    )
    assert machine_code.count("load", read_row, cells) == machine_code.count("load", read_plain, cells) + 1


# --- races ------------------------------------------------------------------------------------------------

# words, pauses inside a publication, between two, reads: 1e8 in all
RACES = [
    (8, 0, 50, 60_000_000),
    (64, 0, 50, 25_000_000),
    (LONG, 1, 0, 14_800_000),
    (VERY_LONG, 1, 0, 200_000),
]
SOAK = 20  # times as many


@pytest.mark.timeout(SOAK_SECONDS_MAX)
@pytest.mark.parametrize(("words", "dwell", "gap", "wanted"), RACES)
def test_racing_readers_get_whole_publications_in_order(words, dwell, gap, wanted, pytestconfig):
    wanted *= SOAK if pytestconfig.getoption("--soak") else 1
    race = Race(SOUND, words)
    for readers in (1, 2):
        count = race.in_threads(dwell, gap, wanted // 2, readers)
        assert count.whole == wanted // 2 and (count.mixed, count.back) == (0, 0)
        if words >= LONG:
            assert count.refused > 0, "the reader never met the writer: this run proves nothing"


@pytest.mark.parametrize("name", MUTANTS)
def test_the_race_catches_what_is_wrong(name):
    races = [Race(MUTANTS[name], LONG), Race(MUTANTS[name], VERY_LONG)]
    for _ in range(20):
        for race in races:
            if any(race.in_threads(dwell, 0, 20_000).mixed > 0 for dwell in (0, 1, 5, 20)):
                return
    pytest.fail("the race lets a broken lock pass")


def forked_writer(race, dwell=1):
    race.stop[0] = 0
    pid = os.fork()
    if pid == 0:
        try:
            race.write(dwell, 0)
        finally:
            os._exit(0)
    return pid


def test_two_processes_race_over_one_mapping():
    race = Race(SOUND, LONG)
    pid = forked_writer(race)
    try:
        count = race.read(2_000_000)
    finally:
        race.stop[0] = 1
        os.waitpid(pid, 0)
    assert count.whole == 2_000_000 and (count.mixed, count.back) == (0, 0)
    assert count.refused > 0, "the reader never met the writer: this run proves nothing"


@pytest.mark.timeout(SOAK_SECONDS_MAX)
def test_a_writer_killed_anywhere_leaves_a_whole_publication(pytestconfig):
    race, inside = Race(SOUND, LONG), 0
    out, chance = np.zeros(1, race.cells.dtype), random.Random(4)
    kills = 2_000 if pytestconfig.getoption("--soak") else 50
    for _ in range(kills):
        published, pid = race.heads["latest"][0], forked_writer(race, dwell=20)
        while race.heads["latest"][0] == published:
            time.sleep(0.0005)
        time.sleep(chance.random() / 1_000)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        latest = int(race.heads["latest"][0])
        assert seqlock.read(race.heads[0], race.cells, out, 1) == 2 * latest, "one look is enough"
        assert out["words"][0, [0, LONG // 2, LONG - 1]].tolist() == [latest] * 3
        inside += race.cells["sequence"][latest % BOOK_SLOTS] % 2
    assert inside > 0, "no writer died inside a cell: this run proves nothing"


# --- every instruction ------------------------------------------------------------------------------------


@njit(nogil=True)
def stepped_publish(heads, cells, items, marks):
    single_step.stop_here(marks)
    index = seqlock.begin(heads[0], cells)
    copy_rest(cells[index], items[0])
    seqlock.end(heads[0], cells, index)
    single_step.end_here(marks)


@pytest.mark.parametrize("words", [1, 8, LONG])
def test_at_every_instruction_of_a_publication_a_reader_gets_the_old_or_the_new(words):
    heads, cells = ring(mapped.cell(words))
    items, out, ended = np.zeros(1, cells.dtype), np.zeros(1, cells.dtype), np.zeros(2, np.int64)
    for value in range(1, BOOK_SLOTS + 2):
        items["words"] = value
        stepped_publish(heads, cells, items, ended)
    old = BOOK_SLOTS + 1
    items["words"], seen, odd = old + 1, [], 0
    with single_step.Stepped(stepped_publish, heads, cells, items) as child:
        for _ in child.steps():
            sequence = seqlock.read(heads[0], cells, out, 1)
            assert (out["words"] == sequence // 2).all()
            seen.append(sequence)
            odd += cells["sequence"][old % BOOK_SLOTS] == 2 * old + 1
    assert set(seen) == {2 * old, 2 * old + 2} and seen == sorted(seen)
    assert odd > 0, "the mark was never seen: the cell is written unprotected"


def stepped_reader(read_it):
    @njit(nogil=True)
    def stepped_read(heads, cells, out, result, marks):
        single_step.stop_here(marks)
        sequence = read_it(heads[0], cells, out, READ_TRIES)
        single_step.end_here(marks)
        store_release_at(result, 0, sequence)

    return stepped_read


def overrun_at_every_instruction(lock, words=8):
    """Stop a reader at each of its instructions, let the writer run, then the reader; yield (sequence,
    copied words).

    The writer runs for 0 to BOOK_SLOTS + 1 publications, and is left in the middle of the next.
    """
    stepped_read = stepped_reader(lock.read)
    for instruction in range(single_step.STEPS_MAX):
        for publications in range(BOOK_SLOTS + 2):
            heads, cells = ring(mapped.cell(words))
            out, result = mapped.zeros(1, cells.dtype), mapped.zeros(1, np.int64)
            write_some(lock, heads, cells, 2)
            stepped_read(heads, cells, out, result, np.zeros(2, np.int64))
            out[:], result[0] = 0, 0
            with single_step.Stepped(stepped_read, heads, cells, out, result) as child:
                if not all(child.step() for _ in range(instruction)):
                    return
                write_some(lock, heads, cells, publications)
                leave_half_written(lock, heads, cells)
                child.run_to_end()
            yield int(result[0]), out["words"][0].tolist()


def write_some(lock, heads, cells, publications):
    for _ in range(publications):
        index = lock.begin(heads[0], cells)
        cells["words"][index] = heads["latest"][0] + 1
        lock.end(heads[0], cells, index)


def leave_half_written(lock, heads, cells):
    index = lock.begin(heads[0], cells)
    cells["words"][index, ::2] = heads["latest"][0] + 1


def is_mixed(sequence, copied):
    return sequence != seqlock.TORN and set(copied) != {sequence // 2}


def test_a_reader_overrun_at_any_instruction_takes_one_whole_publication():
    met = list(overrun_at_every_instruction(SOUND))
    assert not any(is_mixed(*each) for each in met)
    assert {sequence for sequence, _ in met} == {2 * n for n in range(2, 2 + BOOK_SLOTS + 2)}, (
        "and is never refused"
    )


@pytest.mark.parametrize("name", MUTANTS)
def test_the_overrun_catches_what_is_wrong(name):
    assert any(is_mixed(*each) for each in overrun_at_every_instruction(MUTANTS[name]))
