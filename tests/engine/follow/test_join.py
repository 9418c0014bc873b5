"""Three streams put together: against a plain sort, for every order in which their lines can come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.follow import join as joins
from engine.follow.join import (
    FILLS_PASS_NS,
    FINGERPRINT,
    IDLE_NS,
    JUMP_BLOCKS,
    LEAD_BLOCKS,
    OWED_BLOCKS,
    PASS_NS,
    REORDER_BLOCKS,
    REORDER_NS,
    STALL_NS,
    Join,
    Part,
    fingerprints,
)
from engine.follow.records import Kind
from engine.follow.tail import Mark
from shm.codes import EventKind, Flag
from shm.layout import EVENT, FILL

S, D, F = Kind
START = 1000
MS = 1_000_000


def rows(kind, height, *keys):
    """Records of one stream, told apart by their order id."""
    found = np.zeros(len(keys), FILL if kind == F else EVENT)
    found["order"], found["height"] = keys, height
    return found


def part(kind, height, *keys, offset=0):
    return Part(height, height * 10, [rows(kind, height, *keys)], Mark("20260505/1", 1, offset))


def fill_in(join, height, now_ns=1, keys=(1,)):
    for kind in Kind:
        join.add(kind, part(kind, height, *keys), now_ns)


def all_next(join, now_ns):
    out = []
    while (block := join.next(now_ns)) is not None:
        out.append(block)
    return out


def orders(block):
    return [found["order"].tolist() for found in (block.statuses, block.diffs, block.fills)]


@st.composite
def arrivals(draw, blocks=30, window=8, lag_max=24):
    """Lines of some blocks of each stream in an order of coming that a reader can know to be whole."""
    behind = draw(st.sets(st.sampled_from(list(Kind)), max_size=2))
    lags = {kind: draw(st.integers(0, lag_max)) for kind in behind}
    places = []
    for kind in Kind:
        for height in range(START + 1, START + 1 + blocks):
            shift = draw(st.integers(0, window)) if draw(st.booleans()) else 0
            places.append((height + lags.get(kind, 0) + shift, kind, height))
    return [(kind, height) for _, kind, height in sorted(places)]


@settings(max_examples=150, deadline=None)
@given(arrivals(), st.integers(0, 3))
def test_by_block_any_order_within_the_window_is_put_right(coming, repeats):
    join, out, now_ns = Join(START, by_block=True), [], 1
    for turn, (kind, height) in enumerate(coming):
        now_ns += MS
        for _ in range(1 + (turn % 5 < repeats)):
            join.add(kind, part(kind, height, height * 10, height * 10 + 1), now_ns)
        out += all_next(join, now_ns)
    assert [block.height for block in out] == list(range(START + 1, START + 31))
    for block in out:
        assert orders(block) == [[block.height * 10, block.height * 10 + 1]] * 3
        assert block.missing == () and block.skipped == 0 and block.time_ns == block.height * 10


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=25),
    st.integers(0, 24),
    st.sampled_from(list(Kind)),
)
def test_streaming_streams_apart_are_put_together(counts, lag, behind):
    """Quiet blocks, lines one by one, one stream behind the others: each block has all its rows, once.

    All lines come within FILLS_PASS_NS, so that none is given up for the time it takes.
    """
    lines = []
    for place, of_block in enumerate(counts):
        for kind, count in zip(Kind, of_block, strict=True):
            height = START + 1 + place
            for number in range(count):
                lines.append((height + (lag + 0.5) * (kind == behind), kind, height, number))
    join, out, now_ns = Join(START, by_block=False), [], 1
    for _, kind, height, number in sorted(lines):
        now_ns += FILLS_PASS_NS // (len(lines) + 1)
        join.add(kind, part(kind, height, height * 10 + number), now_ns)
        out += all_next(join, now_ns)
    out += all_next(join, now_ns + IDLE_NS + REORDER_NS)
    busy = [place for place, of_block in enumerate(counts) if any(of_block)]
    assert [block.height for block in out] == [START + 1 + place for place in busy]
    for block, place in zip(out, busy, strict=True):
        wanted = [[block.height * 10 + number for number in range(count)] for count in counts[place]]
        assert orders(block) == wanted and block.missing == ()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_streaming_whatever_is_read_again_is_handed_out_once(data):
    """Any earlier line may come again at any time: as its block waits, and after it has gone."""
    lines = [(kind, START + 1 + place, number) for place in range(12) for kind in Kind for number in range(2)]
    join, out, now_ns = Join(START, by_block=False), [], 1
    for turn, line in enumerate(lines):
        again = data.draw(st.lists(st.sampled_from(lines[: turn + 1]), max_size=3)) if turn % 3 == 0 else []
        for kind, height, number in [line, *again]:
            now_ns += MS
            join.add(kind, part(kind, height, height * 10 + number), now_ns)
        out += all_next(join, now_ns)
    out += all_next(join, now_ns + IDLE_NS + REORDER_NS)
    assert join.late_diffs == [] and not join.owes
    for block in out:
        assert orders(block) == [[block.height * 10, block.height * 10 + 1]] * 3


def test_streaming_a_late_fill_whose_diff_is_lost_is_told():
    """Of a resting order, that is: a taker has no diff. Also after a restart, and of no other fill."""
    join, now_ns = Join(START, by_block=False), MS
    join.add(S, part(S, START + 1, 1), now_ns)
    join.add(D, part(D, START + 1, 1), now_ns)
    join.add(D, part(D, START + 2, 2), now_ns)
    assert len(all_next(join, now_ns + IDLE_NS + REORDER_NS)) == 2
    join = Join(join.height, by_block=False, recent=join.recent())
    late = [rows(F, START + 1, 1, 5), rows(F, START + 1, 6)]
    late[1]["flags"] = Flag.CROSSED
    join.add(F, Part(START + 1, START + 1, late, Mark("20260505/1", 1, 0)), now_ns)
    assert [row["order"].tolist() for row in join.unmatched] == [[5]]


def test_by_block_a_missing_block_is_said_when_the_stream_has_gone_far_past_it():
    join = Join(START, by_block=True)
    for height in range(START + 1, START + REORDER_BLOCKS + 2):
        for kind in Kind:
            if (kind, height) != (D, START + 2):
                join.add(kind, part(kind, height, 1), MS)
        found = all_next(join, MS)
        if height == START + 1:
            assert [block.height for block in found] == [START + 1]
        elif height <= START + REORDER_BLOCKS:
            assert found == [] or height >= START + 2 + REORDER_BLOCKS - 1
    found += all_next(join, REORDER_NS + 2 * MS)
    assert found[0].height == START + 2 and found[0].missing == (D,) and len(found[0].diffs) == 0
    assert all(block.missing == () for block in found[1:])


def test_by_block_a_missing_block_is_said_after_a_time():
    join = Join(START, by_block=True)
    fill_in(join, START + 2, now_ns=MS)
    assert join.next(MS) is None and join.next(REORDER_NS) is None
    block = join.next(REORDER_NS + 2 * MS)
    assert (block.height, block.skipped, block.missing) == (START + 2, 1, ())


def test_by_block_fills_that_stall_are_done_without_and_the_others_are_not():
    join = Join(START, by_block=True)
    for kind in (S, D):
        join.add(kind, part(kind, START + 1, 1), 3 * STALL_NS)
    assert join.next(4 * STALL_NS) is None, "it may be about to say its first word"
    assert join.next(4 * STALL_NS + 1).missing == (F,)
    join.add(S, part(S, START + 2, 1), 4 * STALL_NS + 2)
    join.add(D, part(D, START + 2, 1), 4 * STALL_NS + 2)
    assert join.next(4 * STALL_NS + 3).missing == (F,), "who has never said a word is not waited for again"
    join = Join(START, by_block=True)
    for kind in (S, F):
        join.add(kind, part(kind, START + 1, 1), 1)
    assert join.next(100 * STALL_NS) is None, "a book without its diffs is none"


@pytest.mark.parametrize("restarted", [False, True])
def test_by_block_fills_that_come_after_their_block_go_out_with_the_next_one_and_once(restarted):
    join = Join(START, by_block=True)
    for height in (START + 1, START + 2):
        for kind in (S, D):
            join.add(kind, part(kind, height, height), MS)
    assert [block.missing for block in all_next(join, STALL_NS + 2 * MS)] == [(F,), (F,)]
    if restarted:
        join = Join(join.height, by_block=True, base=START, recent=join.recent())
    for height in (START + 1, START + 1, START, START + 2, START + 3):
        join.add(F, part(F, height, height), STALL_NS + 3 * MS)
    assert join.owes and join.repeats == 2
    for kind in (S, D):
        join.add(kind, part(kind, START + 3, 9), STALL_NS + 3 * MS)
    block = join.next(STALL_NS + 3 * MS)
    assert orders(block) == [[9], [9], [START + 1, START + 2, START + 3]] and not join.owes


def test_by_block_what_is_remembered_of_owed_fills_is_bounded():
    join = Join(START, by_block=True)
    for height in range(START + 1, START + OWED_BLOCKS + 11):
        for kind in (S, D):
            join.add(kind, part(kind, height, height), MS)
        assert join.next(2 * STALL_NS).height == height
    assert set(join.recent()["height"]) == set(range(START + 11, START + OWED_BLOCKS + 11))


def test_streaming_a_block_waits_for_a_stream_that_is_behind_but_not_for_ever():
    join = Join(START, by_block=False)
    for height in (START + 1, START + 2):
        for kind in (S, D):
            join.add(kind, part(kind, height, height), MS)
    assert join.next(MS) is None, "fills may still come"
    join.add(S, part(S, START + 3, 9), MS + PASS_NS)
    assert join.next(2 * MS + PASS_NS).height == START + 1


def test_streaming_silence_ends_the_newest_block():
    join = Join(START, by_block=False)
    join.add(D, part(D, START + 1, 5), MS)
    assert join.next(MS + IDLE_NS) is None
    assert join.next(2 * MS + IDLE_NS).diffs["order"].tolist() == [5]


def test_streaming_a_half_line_of_an_older_file_holds_its_stream():
    join = Join(START, by_block=False)
    for height in (START + 1, START + 2, START + 3):
        fill_in(join, height, now_ns=MS, keys=(height,))
    join.hold(D, True)
    assert join.next(2 * MS) is None
    join.add(D, part(D, START + 1, 77), 3 * MS)
    join.hold(D, False)
    assert join.next(4 * MS).diffs["order"].tolist() == [START + 1, 77]
    join.hold(D, True)
    assert join.next(4 * MS + REORDER_NS).height == START + 2, "but not for ever"


def test_streaming_rows_too_late():
    """Diffs are the caller's to judge; statuses and fills go out with the next block, once."""
    join = Join(START, by_block=False, base=START)
    for height in (START + 1, START + 2, START + 3):
        fill_in(join, height, now_ns=MS, keys=(height,))
    assert [block.height for block in all_next(join, MS)] == [START + 1, START + 2]
    for _ in range(2):
        for kind in Kind:
            join.add(kind, part(kind, START + 1, 55), 2 * MS)
            join.add(kind, part(kind, START, 66), 2 * MS)
    assert [found["order"].tolist() for found in join.late_diffs] == [[55]] and join.owes
    join.late_diffs.clear()
    fill_in(join, START + 4, now_ns=3 * MS)
    block = join.next(3 * MS)
    assert orders(block) == [[55, START + 3], [START + 3], [55, START + 3]] and not join.owes


def test_a_late_line_without_events_is_nothing():
    join = Join(START, by_block=False)
    for height in (START + 1, START + 2):
        fill_in(join, height)
    assert join.next(MS).height == START + 1
    fill_in(join, START + 1, keys=())
    assert not join.owes


def test_by_block_rows_too_late_are_repeats():
    join = Join(START, by_block=True)
    fill_in(join, START + 1)
    assert join.next(1).height == START + 1
    fill_in(join, START + 1, keys=(9,))
    assert join.repeats == 3 and join.next(10**12) is None and not join.owes


@pytest.mark.parametrize("by_block", [True, False])
def test_a_wild_block_number_needs_a_second(by_block):
    join = Join(START, by_block)
    fill_in(join, START + 1)
    for kind in Kind:
        join.add(kind, part(kind, START + 10 * JUMP_BLOCKS, 8), 1)
    for height in (START + 2, START + 3):
        fill_in(join, height)
    assert join.refused == 3 and join.seen_height == START + 3
    assert [block.height for block in all_next(join, 1)][:2] == [START + 1, START + 2]


@pytest.mark.parametrize("by_block", [True, False])
def test_a_jump_that_the_next_line_confirms_is_a_gap(by_block):
    join, far = Join(START, by_block), START + 3 * JUMP_BLOCKS
    fill_in(join, START + 1)
    for height in (far, far + 1, far + 2):
        fill_in(join, height)
    found = all_next(join, 2 * REORDER_NS)
    assert [block.height for block in found][:2] == [START + 1, far]
    assert found[1].skipped == far - START - 2


def test_streaming_quiet_blocks_are_none_missing_but_too_many_are():
    for quiet in (1, REORDER_BLOCKS, REORDER_BLOCKS + 1):
        join = Join(START, by_block=False)
        for height in (START + quiet + 1, START + quiet + 2):
            fill_in(join, height)
        assert join.next(MS).skipped == (quiet if quiet > REORDER_BLOCKS else 0)


def test_what_waits_is_bounded():
    join = Join(START, by_block=True)
    for height in range(START + 2, START + 2 + LEAD_BLOCKS):
        assert join.wants(S)
        join.add(S, part(S, height, 1), 1)
    assert not join.wants(S) and join.wants(D)


def test_marks_are_the_first_waiting_line_of_each_file():
    join = Join(START, by_block=True)
    for height, offset in ((START + 3, 70), (START + 2, 90), (START + 4, 110)):
        join.add(S, part(S, height, 1, offset=offset), 1)
    far = Part(START + 3 * JUMP_BLOCKS, 1, [rows(S, 1, 1)], Mark("20260505/2", 2, 5))
    join.add(S, far, 1)
    found = sorted((mark.name, mark.offset) for mark in join.marks(S))
    assert found == [("20260505/1", 70), ("20260505/2", 5)]
    assert join.marks(D) == []


def test_a_later_join_knows_what_an_earlier_one_has_handed_out():
    join = Join(START, by_block=False, base=START)
    for height in range(START + 1, START + 100):
        fill_in(join, height, now_ns=MS, keys=(height, height * 2))
    last = all_next(join, MS)[-1].height
    recent = join.recent()
    assert recent.dtype == FINGERPRINT
    assert set(recent["height"]) == set(range(last - REORDER_BLOCKS + 1, last + 1))
    later = Join(last, by_block=False, base=START, recent=recent)
    for height in range(last - 20, last + 1):
        fill_in(later, height, now_ns=MS, keys=(height * 2,))
    assert not later.owes
    later.add(D, part(D, last - 3, 7), MS)
    assert later.late_diffs[0]["order"].tolist() == [7]


def test_every_byte_of_a_row_is_in_its_fingerprint():
    for dtype in (EVENT, FILL):
        blank = np.zeros(1, dtype)
        if dtype == EVENT:
            blank["kind"] = EventKind.STATUS
        names = {int(fingerprints(blank)[0])}
        for place in range(dtype.itemsize):
            for bit in (2, 128):
                other = blank.copy()
                other.view(np.uint8)[place] ^= bit
                names.add(int(fingerprints(other)[0]))
        assert len(names) == 2 * dtype.itemsize + 1
    assert len(fingerprints(np.zeros(0, EVENT))) == 0


def test_a_diff_that_is_told_again_with_another_time_of_its_block_is_a_repeat():
    """A fault script's seed: a line written twice, the second time with the stamps of another year."""
    join = Join(START, by_block=False)
    once, again = part(D, START + 1, 7), part(D, START + 1, 7)
    for one, time_ns in ((once, 5), (again, 99)):
        one.records[0]["kind"], one.records[0]["time_ns"] = EventKind.NEW, time_ns
    join.add(D, once, 1)
    fill_in(join, START + 2)
    join.add(D, again, 1)
    assert join.next(10**12).diffs["time_ns"].tolist() == [5]
    join.add(D, part(D, START + 1, 7)._replace(records=[again.records[0].copy()]), 1)
    assert not join.owes


def test_times_are_taken_from_the_lines_and_order_from_the_heights():
    join = Join(START, by_block=True)
    for height, time_ns in ((START + 1, 500), (START + 2, 3)):
        for kind in Kind:
            join.add(kind, part(kind, height, 1)._replace(time_ns=time_ns), 1)
    found = [(block.height, block.time_ns) for block in all_next(join, 1)]
    assert found == [(START + 1, 500), (START + 2, 3)]


def test_the_factors_are_odd_and_differ():
    assert (joins._FACTORS % 2 == 1).all() and len(set(joins._FACTORS.tolist())) == len(joins._FACTORS)
