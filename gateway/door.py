"""This gateway's way to the engine: whole actions go out, and every command of theirs comes back as an ack.

A door is a region of two rings, made for one epoch of the engine and never used for another: what the engine
did not take from it before it died is never executed. There is room for an ack before its command is sent,
so neither ring can overflow; when there is no room the answer is no, at once, and nothing was sent. The last
eighth of the room is kept for cancels: who wants to get out can.

An action is answered when all its acks have come and the world shows what they tell. One whose time is up is
answered *unknown*, as are all of them when the engine is lost; acks that come later are dropped.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from shm import layout, region, rows, spsc, wait
from shm.constants import COMMANDS_MAX

KEPT_FOR_CANCELS = COMMANDS_MAX // 8
_POPPED_MAX = 1024  # acks in one look

Array = np.ndarray[Any, Any]


class Ack(NamedTuple):
    """layout.ACK."""

    request: int
    sequence: int
    order: int
    quantity: int
    notional: int
    gateway: int
    place: int
    count: int  # type: ignore[assignment]  # not tuple.count
    code: int
    outcome: int
    market: int
    time_ms: int


assert Ack._fields == layout.ACK.names


class Waiter(Protocol):
    """Who waits for one action: told once, in one of these ways."""

    def acknowledged(self, acks: Sequence[Ack]) -> None:
        """What became of each command, in order."""

    def unknown(self) -> None:
        """The action may have been executed, or may yet be: nobody here can tell."""


class _Sent:
    """An action that the engine has been given. `waiter` is None when nobody waits any more."""

    __slots__ = ("waiter", "count", "deadline_ns", "acks")

    def __init__(self, waiter: Waiter, count: int, deadline_ns: int):
        self.waiter: Waiter | None = waiter
        self.count = count
        self.deadline_ns = deadline_ns
        self.acks: list[Ack] = []


class Door:
    """`status`: the world's (WORLD_STATUS[1]); `bell`, `bell_fd`: how the engine is woken (not owned)."""

    def __init__(self, epoch: int, status: Array, bell: Array, bell_fd: int):
        sections = {
            name: (dtype, 1 if dtype == layout.RING else COMMANDS_MAX) for name, dtype in layout.DOOR.items()
        }
        self.region = region.create("ringside-door", sections, epoch)
        self._arrays = self.region.arrays
        for ring in ("command_ring", "ack_ring"):
            self._arrays[ring]["epoch"], self._arrays[ring]["capacity"] = epoch, COMMANDS_MAX
        self._status = status
        self._bells, self._bell_fds = (bell,), (bell_fd,)
        self._room = COMMANDS_MAX  # commands that can be sent before an ack comes
        self._requests = 0
        self._sent: dict[int, _Sent] = {}  # by request number: oldest first
        self._whole: deque[_Sent] = deque()  # all acks are here; what they tell may not be visible yet
        self._popped = np.zeros(_POPPED_MAX, layout.ACK)

    @property
    def in_flight(self) -> int:
        """Actions that were sent and are not answered."""
        return len(self._sent)

    @property
    def is_closed(self) -> bool:
        return self.region.fd < 0

    @property
    def has_news(self) -> bool:
        """Whether there are acks that were not taken."""
        return bool(spsc.has_items(self._arrays["ack_ring"]))

    def admits(self, count: int, is_cancel: bool = False) -> bool:
        """Whether there is room for so many commands."""
        return count <= self._room - (0 if is_cancel else KEPT_FOR_CANCELS)

    def submit(self, commands: Array, waiter: Waiter, deadline_ns: int, is_cancel: bool = False) -> bool:
        """Send the commands (COMMAND[], at least one) of one action; false, and nothing is sent, if there is
        no room."""
        count = len(commands)
        if not self.admits(count, is_cancel):
            return False
        self._requests += 1
        commands["request"] = self._requests
        self._sent[self._requests] = _Sent(waiter, count, deadline_ns)
        self._room -= count
        pushed = spsc.push(self._arrays["command_ring"], self._arrays["commands"], commands)
        assert pushed == count, "a command in the ring has no ack, so there was room"
        wait.ring_bells(self._bells, self._bell_fds)
        return True

    def take(self) -> None:
        """Take the acks that have come."""
        count = _POPPED_MAX
        while count == _POPPED_MAX:
            count = spsc.pop(self._arrays["ack_ring"], self._arrays["acks"], self._popped)
            self._room += count
            for words in self._popped[:count].tolist():
                ack = Ack._make(words)
                sent = self._sent[ack.request]
                sent.acks.append(ack)
                if len(sent.acks) == sent.count:
                    self._whole.append(sent)

    def answer(self) -> None:
        """Tell those whose acks were taken, as far as the world shows what they tell."""
        if not self._whole:
            return
        visible = int(rows.command_sequence(self._status))
        while self._whole and self._whole[0].acks[-1].sequence <= visible:
            sent = self._whole.popleft()
            del self._sent[sent.acks[0].request]
            if sent.waiter is not None:
                sent.waiter.acknowledged(sent.acks)

    def expire(self, now_ns: int) -> None:
        """Tell those whose time is up."""
        for sent in tuple(self._sent.values()):
            if sent.deadline_ns <= now_ns:
                _let_go(sent)

    def close(self) -> None:
        """The engine behind it is lost: tell everyone. Nothing may be submitted any more."""
        self._room = 0
        self._whole.clear()
        left, self._sent = self._sent, {}
        self.region.close()
        for sent in left.values():
            _let_go(sent)


def _let_go(sent: _Sent) -> None:
    waiter, sent.waiter = sent.waiter, None
    if waiter is not None:
        waiter.unknown()


def warm() -> None:
    """Compile the two rings' ends for their records."""
    ring, commands, acks = np.zeros(1, layout.RING), np.zeros(2, layout.COMMAND), np.zeros(2, layout.ACK)
    spsc.push(ring, commands, commands[:1])
    spsc.pop(ring, acks, acks[:1])
