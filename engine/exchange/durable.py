"""When what a block gave may be seen: once its commands are safe. The one rule of it is `Held.release`.

Memory   nobody keeps the commands: they are as safe as they will be, and every block is seen at once
Journal  a keeper takes every command from a ring, and says up to which sequence they are safe
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from shm import constants as c
from shm import layout, region, spsc
from shm.atomics import load_acquire
from shm.kernel import entry


@dataclass
class Block:
    """What the calls of `apply_commands` between two END_BLOCKs gave, in order: OUTCOME[] and ACK[] each."""

    outcomes: list[np.ndarray] = field(default_factory=list)
    acks: list[np.ndarray] = field(default_factory=list)
    sequence: int = 0  # of its last command


class Held:
    """Blocks that were applied and not yet seen, oldest first, and the one under way."""

    def __init__(self) -> None:
        self._whole: deque[Block] = deque()
        self._current = Block()

    def add(self, outcomes: np.ndarray, acks: np.ndarray) -> None:
        """Keep a copy of what one call gave: the next one overwrites it."""
        self._current.outcomes.append(_copy(outcomes))
        self._current.acks.append(_copy(acks))

    def close(self, sequence: int) -> None:
        """The block under way is whole; `sequence` was its END_BLOCK."""
        self._current.sequence = sequence
        self._whole.append(self._current)
        self._current = Block()

    def may_release(self, durable: int) -> bool:
        return bool(self._whole) and self._whole[0].sequence <= durable

    def release(self, durable: int) -> list[Block]:
        """Give up the blocks whose commands are all safe when those up to `durable` are."""
        released = []
        while self.may_release(durable):
            released.append(self._whole.popleft())
        return released


def _copy(rows: np.ndarray) -> np.ndarray:
    """As whole words: numpy copies records field by field."""
    return rows.view(layout.WORD).copy().view(rows.dtype)


class Memory:
    """Nobody keeps the commands: a restarted engine begins an empty exchange."""

    name = "memory"
    room = 1 << 40
    is_full = False

    def __init__(self) -> None:
        self.durable = 0

    def push(self, commands: np.ndarray) -> None:
        """Take commands that are about to be applied (COMMAND[], stamped)."""
        self.durable = int(commands["sequence"][-1])


class Journal:
    """Commands go to a keeper, in the region that it is handed. All up to `sequence` were before its time.

    What was pushed and is not safe yet never exceeds the ring: this bounds what is held back, too.
    """

    name = "journal"

    def __init__(self, epoch: int, sequence: int):
        sizes = {"command_ring": 1, "commands": c.COMMANDS_MAX, "durable": 1, "keeper": 1}
        sections = {name: (dtype, sizes[name]) for name, dtype in layout.JOURNAL.items()}
        self.region = region.create("ringside-journal", sections, epoch)
        arrays = self.region.arrays
        self._ring, self._commands, self._durable, self._keeper = (arrays[name] for name in layout.JOURNAL)
        self._ring["epoch"], self._ring["capacity"] = epoch, c.COMMANDS_MAX
        self._durable["epoch"], self._durable["tail"] = epoch, sequence
        self._pushed = sequence

    @property
    def durable(self) -> int:
        return int(tail(self._durable))

    @property
    def is_full(self) -> bool:
        """Whether the keeper cannot make sure of room: what can be refused is to be refused."""
        return bool(is_full(self._keeper))

    @property
    def room(self) -> int:
        """How many commands may be pushed, and applied, now."""
        return c.COMMANDS_MAX - (self._pushed - self.durable)

    def push(self, commands: np.ndarray) -> None:
        """Take commands that are about to be applied (COMMAND[], stamped, no more than there is room for)."""
        pushed = spsc.push(self._ring, self._commands, commands)
        if pushed != len(commands):
            raise RuntimeError(f"the journal's ring took {pushed} of {len(commands)} commands")
        self._pushed = int(commands["sequence"][-1])


@entry
def tail(ring):
    """The last sequence that the keeper calls safe."""
    return load_acquire(ring[0], "tail")


@entry
def is_full(keeper):
    return load_acquire(keeper[0], "is_full") != 0


def warm() -> None:
    """Compile the entry points."""
    is_full(np.zeros(1, layout.KEEPER))
    ring, commands = np.zeros(1, layout.RING), np.zeros(1, layout.COMMAND)
    spsc.push(ring, commands, commands)
    tail(np.zeros(1, layout.BROADCAST))
