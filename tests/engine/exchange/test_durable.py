"""Nothing is released before its commands are safe, and then all of it, oldest first."""

import os

import numpy as np
import pytest

from engine.exchange import records
from engine.exchange.durable import Held, Journal, Memory
from shm import constants as c
from shm import layout, region, spsc


def commands(first, count):
    made = np.zeros(count, layout.COMMAND)
    made["sequence"] = np.arange(first, first + count)
    return made


def add(held, *orders):
    """What one call gave; its arrays are used again at once."""
    outcomes, acks = np.zeros(len(orders), records.OUTCOME), np.zeros(1, layout.ACK)
    outcomes["order"] = orders
    held.add(outcomes, acks)
    outcomes["order"], acks["request"] = -1, -1


def test_blocks_are_released_whole_in_order_and_not_too_soon():
    held = Held()
    add(held, 1, 2)
    add(held, 3)
    assert held.release(10**9) == [], "the block under way has not ended"
    held.close(5)
    add(held, 4)
    held.close(9)
    assert held.release(4) == [] and not held.may_release(4)
    (first,) = held.release(8)
    assert [outcomes["order"].tolist() for outcomes in first.outcomes] == [[1, 2], [3]]
    assert first.sequence == 5 and all((acks["request"] == 0).all() for acks in first.acks)
    (second,) = held.release(9)
    assert second.outcomes[0]["order"].tolist() == [4]
    assert not held.may_release(10**9)


def test_in_memory_everything_is_as_safe_as_it_will_be():
    kept = Memory()
    kept.push(commands(1, 3))
    assert kept.durable == 3


def test_a_keeper_gets_every_command_once_in_order_and_its_word_counts():
    kept = Journal(epoch=3, sequence=10)
    theirs = region.attach(os.dup(kept.region.fd), layout.JOURNAL, writable=True, epoch=3).arrays
    assert kept.durable == 10 and kept.room == c.COMMANDS_MAX
    kept.push(commands(11, 5))
    kept.push(commands(16, 2))
    out = np.zeros(100, layout.COMMAND)
    assert spsc.pop(theirs["command_ring"], theirs["commands"], out) == 7
    assert out["sequence"][:7].tolist() == [*range(11, 18)]
    assert (kept.durable, kept.room) == (10, c.COMMANDS_MAX - 7), "popped is not safe"
    theirs["durable"]["tail"] = 15
    assert (kept.durable, kept.room) == (15, c.COMMANDS_MAX - 2)


def test_what_does_not_fit_is_a_fault_and_no_silent_gap():
    kept = Journal(epoch=1, sequence=0)
    kept.push(commands(1, c.COMMANDS_MAX))
    assert kept.room == 0
    with pytest.raises(RuntimeError):
        kept.push(commands(c.COMMANDS_MAX + 1, 1))
