"""Where a replica's commands come from: today the journal on this machine's disk."""

from pathlib import Path
from typing import Protocol

import numpy as np

from engine.journal.disk import Disk, held
from engine.journal.reader import NOTHING, Reader, head_of, path_of, segments


class Source(Protocol):
    """Gives each durable command once, in order."""

    @property
    def first(self) -> int:
        """The earliest sequence that it can still give."""

    def begin(self, sequence: int) -> None:
        """Give what `read` gives from this sequence on."""

    def read(self) -> np.ndarray:
        """The next commands that are durable (COMMAND[]); empty: there are no more yet."""

    def forget(self, sequence: int) -> None:
        """Nobody will ask for commands up to this one again."""


class Journal:
    """A journal that another process writes. Raises Corrupt, OSError."""

    def __init__(self, directory: Path):
        self._directory, self._disk = directory, Disk()
        self._reader: Reader | None = None

    @property
    def first(self) -> int:
        for segment in segments(self._directory, self._disk):
            if head := head_of(self._directory, segment, self._disk):
                return head.sequence
        return 1

    def begin(self, sequence: int) -> None:
        self._reader = Reader(self._directory, sequence)

    def read(self) -> np.ndarray:
        return NOTHING if self._reader is None else self._reader.read()

    def forget(self, sequence: int) -> None:
        """Remove the segments that hold nothing later, oldest first, unless someone holds the directory."""
        with held(self._directory, alone=True) as is_held:
            numbers = segments(self._directory, self._disk) if is_held else []
            for segment, successor in zip(numbers, numbers[1:], strict=False):
                head = head_of(self._directory, successor, self._disk)
                if head is None or head.sequence > sequence + 1:
                    return
                self._disk.remove(path_of(self._directory, segment))
