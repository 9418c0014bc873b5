"""A ring is the end of what was pushed, on message boundaries."""

import random

import pytest

from gateway import rings
from gateway.rings import Ring
from tests.gateway.wire import messages


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_frame_is_read_back(length):
    payload = b"x" * length
    assert messages(rings.frame(payload)) == [payload]
    assert len(rings.frame(payload)) <= length + rings.HEADER_BYTES_MAX


def test_fragments_are_one_message_and_none_is_long():
    parts = [b"a" * (3 * rings.FRAGMENT_BYTES_MAX + 7), b"", b"b", b"c" * rings.FRAGMENT_BYTES_MAX]
    frames = rings.fragments(parts)
    assert messages(b"".join(frames)) == [b"".join(parts)]
    assert max(map(len, frames)) <= rings.FRAGMENT_BYTES_MAX + rings.HEADER_BYTES_MAX
    assert rings.fragments([]) == []


def test_what_is_in_the_ring_is_the_end_of_what_was_pushed():
    chance = random.Random(1)
    for _ in range(200):
        ring, said = Ring(chance.choice([64, 100, 256]), 256), []
        for height in range(chance.randrange(1, 60)):
            payload = chance.randbytes(chance.randrange(0, 50))
            if chance.random() < 0.1:
                ring.grow(len(payload), chance.randrange(ring.oldest, ring.head + 1))
            ring.push(payload, height // 2)
            said.append((payload, height // 2))
            kept = messages(ring.take(ring.oldest, ring.head))
            assert kept == [payload for payload, _ in said[-len(kept) :]]
            assert len(kept) >= 1
            if len(kept) < len(said):
                assert ring.dropped_height == said[-len(kept) - 1][1]
            after = chance.randrange(-1, height // 2 + 2)
            later = [p for p, h in said[-len(kept) :] if h > after]
            assert messages(ring.take(ring.after(after), ring.head)) == later
            assert messages(ring.take(ring.newest, ring.head)) == [payload]


def test_a_part_ends_where_a_message_ends_and_holds_one_at_least():
    ring = Ring(1024, 1024)
    for i in range(9):
        ring.push(bytes([i]) * 10, i)
    assert messages(ring.take(0, ring.until(0, 25))) == [bytes([0]) * 10, bytes([1]) * 10]
    assert messages(ring.take(0, ring.until(0, 24))) == [bytes([0]) * 10, bytes([1]) * 10]
    assert messages(ring.take(0, ring.until(0, 1))) == [bytes([0]) * 10]
    assert ring.until(0, 10_000) == ring.head


def test_a_ring_grows_for_one_message_and_refuses_what_it_can_never_hold():
    ring = Ring(16, 256)
    ring.push(b"a" * 200, 0)
    assert messages(ring.take(ring.oldest, ring.head)) == [b"a" * 200]
    with pytest.raises(rings.TooLarge):
        ring.push(b"b" * 300, 1)
    assert messages(ring.take(ring.oldest, ring.head)) == [b"a" * 200]


def test_a_ring_keeps_what_it_grew_for():
    ring = Ring(64, 1024)
    for i in range(30):
        payload = bytes([i]) * 20
        if ring.overruns(len(payload), 0):
            ring.grow(len(payload), 0)
        ring.push(payload, i)
    assert messages(ring.take(0, ring.head)) == [bytes([i]) * 20 for i in range(30)]


def test_a_cleared_ring_may_begin_at_a_lower_height():
    ring = Ring(256, 256)
    ring.push(b"late", 100)
    ring.clear()
    ring.push(b"early", 3)
    assert messages(ring.take(ring.after(2), ring.head)) == [b"early"]
    assert ring.dropped_height == -1
