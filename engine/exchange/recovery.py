"""From a journal to the exchange that it tells of: the newest snapshot, and every command after it, applied.

By the same `apply` as ever, and shown by the same `project`: what comes out is the exchange that was, or
nothing. Each END_BLOCK carries the digest that the engine had known; the first that differs ends it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.exchange import project, snapshot
from engine.exchange.apply import apply_commands
from engine.exchange.state import State
from engine.exchange.world import World
from engine.journal.disk import held
from engine.journal.reader import Corrupt, Reader
from shm.constants import COMMANDS_MAX

SUSPECTS = COMMANDS_MAX  # no engine is further ahead of its journal
Told = Callable[[int], object]  # of the sequence that is about to be applied; 0: nothing is


class Diverged(Exception):
    """The commands do not lead to what the engine had that numbered them. The text says where."""


class Recovered(NamedTuple):
    """What it was made of."""

    snapshot: int  # its last sequence; 0: none
    commands: int  # applied after that
    complaints: list[str]  # of snapshots that were passed over


def recover(
    journal: Path, snapshots: Path, core: State, shown: World, until: int, suspect: int, told: Told
) -> Recovered:
    """Fill core and world, as they were allocated, up to command `until`, where the journal ends.

    suspect  some commands from here on are applied one by one, each told before: one ended an engine

    Raises Corrupt, Diverged, OSError.
    """
    with held(journal):  # what follows the snapshot stays, whatever snapshots are taken meanwhile
        return _recover(journal, snapshots, core, shown, until, suspect, told)


def _recover(
    journal: Path, snapshots: Path, core: State, shown: World, until: int, suspect: int, told: Told
) -> Recovered:
    taken, complaints = snapshot.newest(snapshots, core, shown, until)
    heap = core.heap[0]
    began = int(heap["sequence"])
    reader = Reader(journal, began + 1)
    try:
        while heap["sequence"] < until and len(commands := reader.read()):
            bounds = (suspect, suspect + SUSPECTS if suspect > 0 else suspect)
            first, end = (int(at) for at in np.searchsorted(commands["sequence"], bounds))
            replay(core, shown, commands[:first], told)
            for at in range(first, end):
                replay(core, shown, commands[at : at + 1], told)
            replay(core, shown, commands[end:], told)
    finally:
        reader.close()
    if heap["sequence"] != until:
        raise Corrupt(f"{journal}: expected commands up to {until}, found the last at {heap['sequence']}")
    return Recovered(taken.sequence if taken else 0, until - began, complaints)


def replay(
    core: State, shown: World | None, commands: np.ndarray, told: Told = lambda sequence: None
) -> None:
    """Apply commands (COMMAND[], those that come next) and show what they did. Raises Diverged."""
    for outcomes in applied(core, commands, told):
        if shown is not None:
            project.project(shown, outcomes, len(outcomes))


def applied(core: State, commands: np.ndarray, told: Told = lambda sequence: None) -> Iterator[np.ndarray]:
    """Apply commands (COMMAND[], those that come next); give the outcomes of a call before the next one.

    Raises Diverged.
    """
    heap, done = core.heap[0], 0
    while done < len(commands):
        told(int(commands["sequence"][done]))
        done += apply_commands(core, commands[done:], len(commands) - done)
        if heap["diverged"]:
            at = int(heap["diverged"])
            said = int(commands["amount"][at - int(commands["sequence"][0])])
            raise Diverged(
                f"sequence {at} ends a block after one whose digest was {said & _WORD:016x}; "
                f"found {int(heap['diverged_digest']) & _WORD:016x}"
            )
        yield core.outcomes[: int(heap["outcomes"])]
    told(0)


_WORD = (1 << 64) - 1
