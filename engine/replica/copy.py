"""The exchange once more: the same commands through the same `apply`, and its own world that shows them.

Whole blocks come in. Each ends with an END_BLOCK, whose `amount` is the engine's digest at the end of the
block before: so every block is compared, one block late, and a state is only known to be right when the next
block has come.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.exchange import snapshot, world
from engine.exchange.apply import apply_commands
from engine.exchange.project import project
from engine.exchange.snapshot import Taken
from engine.exchange.state import Capacity, allocate
from engine.exchange.world import World
from engine.replica.archive import sections_of
from shm.archived import RINGS
from shm.codes import Command

Shown = Callable[[World, int], None]  # the world, the sequence of its last command


class Diverged(Exception):
    """The engine and this copy do not agree on what the same commands do. The text says since when."""


class Copy:
    """core, world: as the last whole block has left them."""

    def __init__(self, capacity: Capacity, rings: dict[str, int]):
        self.core = allocate(capacity)
        self.world = world.allocate(world.capacity_for(capacity, **rings))
        sections, kept = sections_of(self.world), len(self.world.candles) // len(self.world.candle_heads)
        self._shown_at_once = min(kept, *(len(sections[table.name]) for table in RINGS))

    @property
    def sequence(self) -> int:
        """Of the last command."""
        return int(self.core.heap[0]["sequence"])

    def load(self, directory: Path, until: int = snapshot.ALWAYS) -> tuple[Taken | None, list[str]]:
        """Begin with the newest good snapshot that is not later than `until`, instead of with nothing."""
        return snapshot.newest(directory, self.core, self.world, until)

    def kept(self, directory: Path) -> list[Taken]:
        """The good snapshots that are kept, newest first; older ones are removed."""
        return snapshot.prune(directory, self.core, self.world)

    def save(self, directory: Path) -> Path:
        """Take a snapshot. Raises OSError."""
        return snapshot.save(directory, self.core, self.world)

    def check(self, block: np.ndarray) -> None:
        """Compare with what the engine had before this block (COMMAND[]). Raises Diverged."""
        told, mine = int(block[-1]["amount"]), int(self.core.heap[0]["block_digest"])
        if told not in (0, mine):
            raise Diverged(
                f"after sequence {self.sequence}, height {int(self.core.heap[0]['height'])}: "
                f"the engine's digest is {told}, mine {mine}"
            )

    def take(self, block: np.ndarray, shown: Shown) -> None:
        """Apply a block (COMMAND[], its END_BLOCK last). shown: called before any ring has gone round."""
        done = 0
        while done < len(block):
            done += apply_commands(self.core, block[done:], len(block) - done)
            outcomes = self.core.outcomes[: int(self.core.heap[0]["outcomes"])]
            for at in range(0, len(outcomes), self._shown_at_once):
                part = outcomes[at : at + self._shown_at_once]
                project(self.world, part, len(part))
                shown(self.world, self.sequence)


def blocks(commands: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Cut COMMAND[] into whole blocks, and what is left."""
    ends = np.flatnonzero(commands["kind"] == Command.END_BLOCK) + 1
    pieces = np.split(commands, ends)
    return pieces[:-1], pieces[-1]
