"""The door: what goes in comes back, nothing is sent that has no room, and nobody is told twice."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.door import KEPT_FOR_CANCELS
from shm import layout, region, spsc, wait
from shm.codes import Command
from shm.constants import COMMANDS_MAX
from tests.gateway.engine import Engine, Heard
from tests.world import World


def action(count=1, kind=Command.ORDER):
    commands = np.zeros(count, layout.COMMAND)
    commands["kind"], commands["count"], commands["place"] = kind, count, np.arange(count)
    return commands


@pytest.fixture
def engine():
    return Engine(World())


def submit(engine, commands, waiter=None, deadline_ns=1, is_cancel=False):
    return engine.door.submit(commands, waiter or Heard(), deadline_ns, is_cancel)


def test_an_action_is_answered_once_with_all_its_acks_in_order(engine):
    one, two = Heard(), Heard()
    assert submit(engine, action(3), one) and submit(engine, action(2), two)
    commands = engine.pop()
    assert commands["request"].tolist() == [1, 1, 1, 2, 2]
    engine.ack(commands[:2])
    engine.show()
    engine.door.take(), engine.door.answer()
    assert one.told == [], "one of three is missing"
    engine.ack(commands[2:])
    engine.door.take(), engine.door.answer()
    assert [ack.place for ack in one.told[0]] == [0, 1, 2]
    assert [ack.sequence for ack in two.told[0]] == [4, 5]
    engine.door.answer(), engine.door.expire(10), engine.door.close()
    assert len(one.told) == len(two.told) == 1


def test_an_answer_waits_until_the_world_shows_it(engine):
    waiter = Heard()
    submit(engine, action(), waiter)
    engine.ack(engine.pop())
    engine.door.take(), engine.door.answer()
    assert waiter.told == [] and engine.door.in_flight == 1
    engine.show()
    engine.door.answer()
    assert len(waiter.told) == 1 and engine.door.in_flight == 0


def test_no_room_is_said_at_once_and_cancels_have_an_eighth(engine):
    rest = COMMANDS_MAX - KEPT_FOR_CANCELS
    assert submit(engine, action(rest - 1))
    assert not submit(engine, action(2))
    assert submit(engine, action(1))
    assert not submit(engine, action(1))
    assert submit(engine, action(KEPT_FOR_CANCELS, Command.CANCEL), is_cancel=True)
    assert not submit(engine, action(1, Command.CANCEL), is_cancel=True)
    commands = engine.pop(COMMANDS_MAX + 1)
    assert len(commands) == COMMANDS_MAX, "nothing of what was refused was sent"
    assert not submit(engine, action(1)), "their acks are still to come"
    engine.ack(commands)
    engine.door.take()
    assert submit(engine, action(rest))


def test_a_full_door_takes_all_acks_at_once_and_its_rings_go_round(engine):
    for _ in range(3):
        waiters = [Heard() for _ in range(COMMANDS_MAX)]
        for waiter in waiters:
            assert submit(engine, action(1, Command.CANCEL), waiter, is_cancel=True)
        engine.answer_all()
        engine.door.take(), engine.door.answer()
        assert all(len(waiter.told) == 1 for waiter in waiters)
        assert not engine.door.has_news


def test_who_waits_too_long_hears_unknown_and_late_acks_are_dropped(engine):
    early, late = Heard(), Heard()
    submit(engine, action(2), early, deadline_ns=10)
    submit(engine, action(2), late, deadline_ns=20)
    engine.door.expire(10)
    assert (early.told, late.told) == (["unknown"], [])
    engine.door.expire(11)
    engine.answer_all()
    engine.door.take(), engine.door.answer()
    assert early.told == ["unknown"] and len(late.told) == 1
    assert engine.door.in_flight == 0 and engine.door.admits(COMMANDS_MAX, is_cancel=True)


def test_a_lost_engine_leaves_everything_unknown(engine):
    waiters = [Heard() for _ in range(3)]
    for waiter in waiters:
        submit(engine, action(), waiter)
    engine.ack(engine.pop(1))
    engine.door.take()  # acknowledged, but never shown
    engine.door.close()
    assert [waiter.told for waiter in waiters] == [["unknown"]] * 3
    assert not submit(engine, action(), waiters[0]) and not submit(engine, action(), is_cancel=True)
    engine.door.take(), engine.door.answer(), engine.door.expire(99)
    assert waiters[0].told == ["unknown"]


def test_the_engine_is_rung_when_it_sleeps(engine):
    submit(engine, action())
    with pytest.raises(BlockingIOError):
        os.eventfd_read(engine.bell_fd)
    wait.will_sleep(engine.bell)
    submit(engine, action())
    assert os.eventfd_read(engine.bell_fd) == 1


def test_a_door_is_of_its_epoch_and_of_this_layout():
    engine = Engine(World(), epoch=7)
    fd = os.dup(engine.door.region.fd)
    with pytest.raises(region.Refused, match="epoch"):
        region.attach(fd, layout.DOOR, writable=True, epoch=8)
    other = region.attach(fd, layout.DOOR, writable=True, epoch=7)
    submit(engine, action(2))
    out = np.zeros(9, layout.COMMAND)
    assert spsc.pop(other.arrays["command_ring"], other.arrays["commands"], out) == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("spatex"), st.integers(1, 3000), st.booleans()), max_size=40))
def test_every_action_is_told_exactly_once_whatever_happens(steps):
    """Nobody is told before the world shows it, and no ring ever overflows (the door asserts it)."""
    engine, waiters, popped, now_ns = Engine(World()), [], [], 0
    for step, count, is_cancel in steps:
        if step == "s":
            waiter = Heard()
            if submit(engine, action(count), waiter, now_ns + count, is_cancel):
                waiters.append((waiter, count))
        elif step == "p":
            popped.append(engine.pop(count))
        elif step == "a" and popped:
            engine.ack(popped.pop(0))
        elif step == "t":
            engine.door.take(), engine.door.answer()
        elif step == "e":
            now_ns += count
            engine.door.expire(now_ns)
        elif step == "x":
            engine.show()
    shown = int(engine.world.status["command_sequence"][0])
    for waiter, count in waiters:
        assert len(waiter.told) <= 1
        for told in waiter.told:
            assert told == "unknown" or (len(told) == count and told[-1].sequence <= shown)
    engine.door.close()
    assert all(len(waiter.told) == 1 for waiter, _ in waiters)
