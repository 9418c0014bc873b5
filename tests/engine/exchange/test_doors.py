"""What comes through a door: whole actions, in order, in turn, and nothing that a gateway may not ask for."""

import os

import numpy as np
import pytest

from engine.exchange.doors import OPERATOR, TURN_COMMANDS, UNKNOWN, Door, Doors
from shm import constants as c
from shm import layout, region
from shm.codes import Command
from tests.engine.exchange.gate import Gate, action

BATCH = 512


@pytest.fixture
def doors():
    return Doors()


def enter(doors, index, **more):
    gate = Gate(**more)
    doors.open(index, Door(gate.fd, 1))
    return gate


def taken(doors, size=BATCH):
    batch = np.zeros(size, layout.COMMAND)
    return batch[: doors.take(batch)]


def test_actions_come_whole_and_in_order_and_say_through_which_door(doors):
    gate = enter(doors, 0)
    assert not doors.have_commands and len(taken(doors)) == 0
    gate.push(action(1), action(2, 2, 2, gateway=77), action(3, 3))
    assert doors.have_commands
    commands = taken(doors)
    assert commands["request"].tolist() == [1, 2, 2, 2, 3, 3]
    assert commands["place"].tolist() == [0, 0, 1, 2, 0, 1]
    assert len({*commands["gateway"].tolist()}) == 1
    assert not doors.have_commands


def test_the_doors_have_their_turns_and_each_is_first_at_times(doors):
    gates = [enter(doors, index, slots=2048) for index in range(3)]
    for index, gate in enumerate(gates):
        gate.push(*(action(index) for _ in range(1000)))
    firsts = []
    for _ in range(3):
        commands = taken(doors, 3 * TURN_COMMANDS)
        firsts.append(int(commands["request"][0]))
        counts = np.bincount(commands["request"], minlength=3)
        assert counts.tolist() == [TURN_COMMANDS] * 3
    assert sorted(firsts) == [0, 1, 2]


def test_an_action_that_does_not_fit_waits_and_is_not_cut(doors):
    gate = enter(doors, 0, slots=1024)
    gate.push(action(*[1] * 150), action(*[2] * 150), action(3))
    assert taken(doors, 299)["request"].tolist() == [1] * 150
    assert taken(doors, 299)["request"].tolist() == [2] * 150 + [3]


def test_a_turn_ends_after_a_whole_action(doors):
    one, other = enter(doors, 0, slots=1024), enter(doors, 1)
    one.push(*(action(*[1] * 150) for _ in range(4)))
    other.push(action(2))
    assert taken(doors, 1024)["request"].tolist() == [1] * 300 + [2] + [1] * 300


@pytest.mark.parametrize("kind", [Command.ADD_MARKET, Command.DEPOSIT, Command.END_BLOCK, 200])
@pytest.mark.parametrize("place", [0, 2])
def test_what_only_the_operator_may_ask_for_is_unknown_and_so_is_its_action(doors, kind, place):
    gate = enter(doors, 0)
    bad = action(1, 1, 1, kind=Command.ORDER)
    bad["kind"][place] = kind
    gate.push(bad, action(2, 2, kind=Command.CANCEL))
    commands = taken(doors)
    assert commands["kind"].tolist() == [UNKNOWN] * 3 + [Command.CANCEL] * 2
    assert commands["place"].tolist() == [0, 0, 0, 0, 1]
    assert commands["count"].tolist() == [1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "shape",
    [
        [(0, 0)],
        [(1, 2)],
        [(0, 2), (0, 2)],
        [(0, 3), (1, 3), (1, 3)],
        [(0, 2), (1, 3)],
        [(0, c.BATCH_MAX + 1)],
        [(0, 65_535)],
    ],
)
def test_what_has_not_the_shape_of_an_action_cannot_act_for_whoever_was_before(doors, shape):
    """The core decides at place 0 who acts: a place 1 without one would act for somebody else."""
    gate = enter(doors, 0)
    bad = action(*[9] * len(shape), kind=Command.ORDER)
    bad["place"], bad["count"] = zip(*shape, strict=True)
    gate.push(action(1))
    gate.push_as_it_is(bad)
    commands = taken(doors)
    assert commands["request"].tolist() == [1] + [9] * len(shape)
    assert (commands["kind"][1:] == UNKNOWN).all()
    assert (commands["place"] == 0).all() and (commands["count"] == 1).all()


def test_an_action_of_which_a_part_was_pushed_is_not_made_whole_by_what_stood_there_before(doors):
    gate = enter(doors, 0, slots=2)
    gate.push(action(1, 1))
    assert len(taken(doors)) == 2
    part = action(2, 2)
    part["count"], part["place"] = 2, [0, 1]
    gate.push_as_it_is(part[:1])
    commands = taken(doors)
    assert (commands["request"].tolist(), commands["kind"].tolist()) == ([2], [UNKNOWN])


def test_an_action_of_the_largest_size_is_one(doors):
    gate = enter(doors, 0)
    gate.push(action(*[1] * c.BATCH_MAX))
    assert taken(doors)["count"].tolist() == [c.BATCH_MAX] * c.BATCH_MAX


@pytest.mark.parametrize("tail", [-5, 2**62, -(2**63)])
def test_a_tail_that_lies_harms_nobody(doors, tail):
    liar, honest = enter(doors, 0, slots=8), enter(doors, 1)
    liar.arrays["command_ring"]["tail"] = tail
    assert doors.have_commands == (tail > 0)
    honest.push(action(5))
    for _ in range(3):
        commands = taken(doors)
        if 5 in commands["request"]:
            return
    raise AssertionError("the honest one was not served")


def test_acks_find_their_door_and_never_a_successor(doors):
    one, other = enter(doors, 0), enter(doors, 1)
    one.push(action(11, 11))
    other.push(action(22))
    commands = taken(doors)
    acks = np.zeros(len(commands), layout.ACK)
    acks["request"], acks["gateway"] = commands["request"], commands["gateway"]
    assert doors.answer(acks) == 3
    assert one.acks()["request"].tolist() == [11, 11]
    assert other.acks()["request"].tolist() == [22]
    successor = enter(doors, 1)
    assert doors.answer(acks) == 2, "who asked the third is gone"
    assert len(one.acks()) == 2 and len(successor.acks()) == 0 and len(other.acks()) == 0


def test_a_gateway_that_does_not_empty_its_ring_loses_its_own_acks(doors):
    full, other = enter(doors, 0, slots=2), enter(doors, 1)
    full.push(action(1))
    other.push(action(2))
    numbers = {int(command["request"]): int(command["gateway"]) for command in taken(doors)}
    acks = np.zeros(4, layout.ACK)
    acks["gateway"] = [numbers[1]] * 3 + [numbers[2]]
    assert doors.answer(acks) == 3
    assert (len(full.acks()), len(other.acks())) == (2, 1)


def test_what_no_door_asked_for_is_the_operators(doors):
    gate = enter(doors, 0)
    acks = np.zeros(3, layout.ACK)
    acks["gateway"], acks["request"] = [OPERATOR, 0, OPERATOR], [1, 2, 3]
    assert doors.of_operator(acks)["request"].tolist() == [1, 3]
    assert doors.answer(acks) == 1 and gate.acks()["request"].tolist() == [2]


def test_a_door_of_another_epoch_or_size_stays_shut():
    for gate in (Gate(epoch=2), Gate(slots=3)):
        fd = gate.fd
        with pytest.raises(region.Refused):
            Door(fd, 1)
        os.close(fd)  # it is still ours
