"""A role: a place that some process always fills, one after the other, and how soon the next one does."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.child import Child
from shm import layout

PAUSE_FIRST_SECONDS = 0.1  # before a restart; doubled at each quick end
PAUSE_MAX_SECONDS = 5.0
STEADY_SECONDS = 10.0  # a process that lived so long did not end quickly

Message = dict[str, Any]
Arguments = Callable[[], list[str]]


def mark_of(arguments: list[str]) -> str:
    """Names what a process is told at its start, and the memory that it shares: who bears another mark cannot
    serve in the place of this one.
    """
    shared = layout.digest(layout.WORLD | layout.DOOR | layout.JOURNAL)
    return hashlib.blake2b(json.dumps([arguments, shared]).encode(), digest_size=16).hexdigest()


class Backoff:
    """How long to wait before the next start: longer after each quick end, and short again after a steady
    life.
    """

    def __init__(self) -> None:
        self.quick_ends = 0

    def after(self, lived_seconds: float) -> float:
        self.quick_ends = 0 if lived_seconds >= STEADY_SECONDS else self.quick_ends + 1
        return min(PAUSE_MAX_SECONDS, PAUSE_FIRST_SECONDS * 2.0 ** min(max(self.quick_ends - 1, 0), 16))


@dataclass
class Role:
    """One of them, and what its present process has told of itself."""

    name: str
    arguments: Arguments  # of the next process
    hear: Callable[["Role", Message, list[int]], None] | None = None
    greet: Callable[["Role"], None] | None = None  # runs once the next process has started
    mourn: Callable[["Role"], None] | None = None  # runs once it has ended
    mark: str = ""  # of what its processes are told, but for what is new each time; "": they are not adopted
    epoch: int = 0  # of the present process, where it has one
    child: Child | None = None
    starts: int = 0
    code: int | None = 0  # how the last process ended: its exit code, or minus the signal, or nobody knows
    fds: dict[str, list[int]] = field(default_factory=dict)  # by the kind of message they came with
    is_ready: bool = False

    @property
    def place(self) -> str:
        """The name of the file that its process locks."""
        return self.name.partition(" (")[0].replace(" ", "-")

    def keep(self, kind: str, fds: list[int]) -> None:
        """Hold `fds` in place of those of an earlier message of that kind."""
        self.drop(kind)
        self.fds[kind] = fds

    def drop(self, kind: str) -> None:
        for fd in self.fds.pop(kind, []):
            os.close(fd)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        if self.child is not None:
            self.child.send(message, fds)
