"""The doors through which gateways ask: commands are taken from them in turn, and acks go back.

A door is a region that a gateway has made for this engine (layout.DOOR): a ring of commands, which it fills,
and a ring of acks, which the engine fills. A gateway is believed in nothing but what it asks for. What
is not a whole action, or asks for what only the operator may, is turned into commands that nobody knows; and
each command says which door it came through, so that its ack finds home.

Whole: the places of an action stand one after the other from 0 on, and nobody else's between them. The core
decides at place 0 who acts, so that place is never missing.
"""

import os

import numpy as np

from shm import constants as c
from shm import layout, region, spsc
from shm.atomics import load_acquire, store_release
from shm.codes import Command
from shm.kernel import entry, inner

TURN_COMMANDS = 256  # taken through one door before the next one has its turn; its last action is taken whole
UNKNOWN = 255  # a kind that is no codes.Command: it is refused with NOT_A_COMMAND
OPERATOR = -1  # in place of a door

assert UNKNOWN not in [*Command] and TURN_COMMANDS >= c.BATCH_MAX
_FIRST_OPERATOR_KIND = int(Command.ADD_MARKET)


@inner
def _copy_action(slots, head, available, batch, at):
    """Copy the action that begins at `head` to batch[at:]; return how many commands it is.

    0: it does not fit. -1: the first of them is in no action, or in one that asks for what only the operator
    may. Only the copy is looked at: the gateway can still write the ring.
    """
    mask = len(slots) - 1
    if at == len(batch):
        return 0
    batch[at] = slots[head & mask]
    count = np.int64(batch[at].count)
    if count < 1 or count > min(available, c.BATCH_MAX):
        return -1
    if count > len(batch) - at:
        return 0
    for place in range(count):
        if place > 0:
            batch[at + place] = slots[(head + place) & mask]
        command = batch[at + place]
        if command.place != place or command.count != count or command.kind >= _FIRST_OPERATOR_KIND:
            return -1
    return count


@entry
def take(ring, slots, batch, filled, most, door):
    """Move whole actions to batch[filled:] until `most` commands are moved, or no more are there or fit.

    Returns how many were moved. A command that is in no proper action becomes an unknown one by itself.
    """
    header = ring[0]
    head = header.head
    available = load_acquire(header, "tail") - head  # the gateway's word: nothing outside the ring is read
    moved = 0
    while moved < min(most, available):
        first = filled + moved
        count = _copy_action(slots, head + moved, available - moved, batch, first)
        if count == 0:
            break
        if count < 0:
            count = 1
            batch[first].kind, batch[first].place, batch[first].count = UNKNOWN, 0, 1
        for i in range(first, first + count):
            batch[i].gateway = door
        moved += count
    if moved > 0:
        store_release(header, "head", head + moved)
    return moved


@entry
def has_commands(ring):
    """Whether `take` would find something. A tail that lies behind the head is nothing."""
    return load_acquire(ring[0], "tail") > ring[0].head


@entry
def stamp(batch, sequence, time_ns):
    """Number the commands, from the one after `sequence` on, and time them."""
    for i in range(len(batch)):
        batch[i].sequence, batch[i].time_ns = sequence + 1 + i, time_ns


@entry
def of_door(acks, door, out):
    """Copy the acks of one door to `out`; return how many."""
    count = 0
    for i in range(len(acks)):
        if acks[i].gateway == door:
            out[count] = acks[i]
            count += 1
    return count


class Door:
    """The engine's side of one. It owns `fd`. Raises region.Refused, and then `fd` is still the caller's."""

    def __init__(self, fd: int, epoch: int):
        self.region = region.attach(fd, layout.DOOR, writable=True, epoch=epoch)
        arrays = self.region.arrays
        self.command_ring, self.commands = arrays["command_ring"], arrays["commands"]
        self.ack_ring, self.acks = arrays["ack_ring"], arrays["acks"]
        for name in layout.DOOR:
            count = len(arrays[name])
            if count < 1 or count & (count - 1) or (name.endswith("_ring") and count != 1):
                self.region.fd = -1  # still the caller's
                raise region.Refused(
                    f"section {name}: found {count}, expected a power of two, rings one each"
                )

    @property
    def has_commands(self) -> bool:
        return bool(has_commands(self.command_ring))


class Doors:
    """All of them, by the gateway's index.

    A door has a number that no other has had: acks for a gateway that has ended do not reach its successor.
    """

    def __init__(self) -> None:
        self._open: dict[int, tuple[int, Door]] = {}  # index -> number, door
        self._numbers = 0
        self._first = 0  # who has the first turn
        self._mail = np.zeros(c.COMMANDS_MAX, layout.ACK)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def have_commands(self) -> bool:
        return any(door.has_commands for _, door in self._open.values())

    def knows(self, index: int, fd: int) -> bool:
        """Whether gateway `index` asks through the door behind `fd` already. It is to stay as it is then: its
        number is in commands that were not answered yet."""
        return index in self._open and os.path.sameopenfile(self._open[index][1].region.fd, fd)

    def open(self, index: int, door: Door) -> None:
        """Gateway `index` asks through this door from now on; one that it had is closed."""
        if index in self._open:
            self._open[index][1].region.close()
        self._open[index] = (self._numbers, door)
        self._numbers += 1

    def take(self, batch: np.ndarray) -> int:
        """Fill `batch` (COMMAND[], at least BATCH_MAX) with whole actions, the doors in turn.

        Returns how many commands there are: 0 if nobody asks for anything.
        """
        doors = [*self._open.values()]
        doors = doors[self._first :] + doors[: self._first]
        self._first = (self._first + 1) % max(len(doors), 1)
        filled, moved = 0, 1
        while moved:
            moved = 0
            for number, door in doors:
                moved += take(door.command_ring, door.commands, batch, filled + moved, TURN_COMMANDS, number)
            filled += moved
        return filled

    def answer(self, acks: np.ndarray) -> int:
        """Give each door its acks; return how many. Those of closed doors are lost, and what finds no room in
        a ring, which its gateway must not let happen.
        """
        given = 0
        for number, door in self._open.values():
            count = of_door(acks, number, self._mail)
            given += spsc.push(door.ack_ring, door.acks, self._mail[:count])
        return given

    def of_operator(self, acks: np.ndarray) -> np.ndarray:
        """The acks that are for no door; good until the next call."""
        return self._mail[: of_door(acks, OPERATOR, self._mail)]


def warm() -> None:
    """Compile the entry points."""
    ring, commands = np.zeros(1, layout.RING), np.zeros(2, layout.COMMAND)
    take(ring, commands, commands, 0, 1, 0)
    stamp(commands, 0, 0)
    has_commands(ring)
    acks = np.zeros(2, layout.ACK)
    of_door(acks, 1, acks)
    spsc.push(ring, acks, acks)
