"""The replica's process: reads commands as they become durable, and does with them what others ask for later.

One loop: take what the source has, block by block; compare; commit to the archive, and take a snapshot when
one is due; sleep until the supervisor says something or a short time has passed. Both are written only of
states that are known to be right. A divergence is an alarm: from then on nothing is written any more, and
what there is stays. Whatever ends this process, the next one goes on where the files say.
"""

import os
import select
import sqlite3
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from engine import process
from engine.exchange import snapshot
from engine.exchange.state import Capacity
from engine.journal.reader import Corrupt
from engine.replica.archive import Archive
from engine.replica.copy import Copy, Diverged, blocks
from engine.replica.source import Journal, Source
from shm.control import Line
from shm.layout import COMMAND, WORD

PARK_SECONDS = 0.020
COMMIT_NS = 1_000_000_000  # the longest that rows wait for each other: many together cost less
COMMIT_ROWS = 200_000
TOLD_NS = 60_000_000_000  # between two lines that say how far it is
NICE = 10
EXIT_CORRUPT = 65  # the journal has lost what it had called durable: no restart mends that


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the supervisor says at start."""

    journal: str  # directories
    snapshots: str
    archive: str  # a file
    capacity: dict[str, int] = {}  # those of the engine
    rings: dict[str, int] = {}
    snapshot_seconds: float = 30.0  # a snapshot is due after either
    snapshot_commands: int = 1_000_000


class Runner:
    """The copy, its archive and its snapshots."""

    def __init__(self, settings: Settings, source: Source, control: Line):
        self._settings, self._source, self._control = settings, source, control
        self._snapshots, self._file = Path(settings.snapshots), Path(settings.archive)
        self.copy = Copy(Capacity(**settings.capacity), settings.rings)
        self.archive = _opened(self._file)
        self.ending = self.halted = False
        self._left = np.zeros(0, COMMAND)  # of a block that is not whole yet
        self._saved = (0, 0)  # the newest snapshot: its sequence, and when it was taken
        self._committed_ns = self._told_ns = 0

    def run(self) -> None:
        """Follow until told to end."""
        self.begin()
        waiter = select.poll()
        waiter.register(self._control, select.POLLIN)
        while not self.ending:
            worked = not self.halted and self.turn(time.monotonic_ns())
            if waiter.poll(0 if worked else PARK_SECONDS * 1000):
                self._hear()
            if not self._control.tend(_say_nothing):
                self.ending = True
        self.archive.close()

    def begin(self) -> None:
        """Go on from the newest snapshot from which the archive can go on, too; else from the first command.

        Where neither is there any more, the archive begins anew with what there is.
        """
        wanted = self.archive.last
        taken, complaints = self.copy.load(self._snapshots, wanted)
        if taken is None and self._source.first > 1:
            kept = self.copy.kept(self._snapshots)
            taken, complaints = self.copy.load(self._snapshots, kept[-1].sequence if kept else 0)
            if wanted:
                self.archive.close()
                self.archive = _anew(self._file, f"it ends with sequence {wanted}")
        for complaint in complaints:
            _log("snapshot_passed_over", {"why": complaint})
        self.archive.begin(self.copy.world, self.copy.sequence)
        self._source.begin(self.copy.sequence + 1)
        kept = self.copy.kept(self._snapshots)
        self._saved = (kept[0].sequence if kept else 0, time.monotonic_ns())
        _log("replica", {"from_sequence": self.copy.sequence + 1, "archive": self.archive.last})

    def turn(self, now_ns: int) -> bool:
        """Take what has come; whether there was anything."""
        commands = self._source.read()
        if len(commands) == 0:
            self._commit_if_due(now_ns)
            return False
        if len(self._left):
            commands = np.concatenate([self._left.view(WORD), commands.view(WORD)]).view(COMMAND)
        whole, self._left = blocks(commands)
        for block in whole:
            try:
                self.copy.check(block)
            except Diverged as diverged:
                self.halted = True
                _log("diverged", {"level": "error", "why": str(diverged)})
                return True
            self.archive.settle(self.copy.sequence)
            self._write_what_is_due(now_ns)
            self.copy.take(block, self.archive.take)
        return True

    # --- what is written: between two blocks, the first of which is known to be right -----------------------

    def _write_what_is_due(self, now_ns: int) -> None:
        sequence, (saved, saved_ns) = self.copy.sequence, self._saved
        is_due = (
            now_ns - saved_ns >= self._settings.snapshot_seconds * 1e9
            or sequence - saved >= self._settings.snapshot_commands
        )
        if is_due and sequence > saved:
            self._save(now_ns)
        else:
            self._commit_if_due(now_ns)

    def _commit_if_due(self, now_ns: int) -> None:
        if now_ns - self._committed_ns >= COMMIT_NS or self.archive.row_count >= COMMIT_ROWS:
            self.archive.commit()
            self._committed_ns = now_ns

    def _save(self, now_ns: int) -> None:
        """A snapshot, of which the archive holds everything: first the archive."""
        self.archive.commit()
        self.archive.sync()
        self._saved = (self.copy.sequence, now_ns)
        try:
            path = self.copy.save(self._snapshots)
            kept = self.copy.kept(self._snapshots)
        except OSError as error:
            _log("snapshot_failed", {"level": "error", "why": str(error)})
            return
        if len(kept) >= snapshot.KEPT:
            self._source.forget(kept[-1].sequence)
        _log("snapshot", {"file": path.name, "bytes": path.stat().st_size, "sequence": self.copy.sequence})

    def _hear(self) -> None:
        """The supervisor has nothing to say but, by its end, that it is gone."""
        heard = process.hear(self._control)
        if heard is not None:
            process.close(heard[1])


def _say_nothing() -> None:
    """A supervisor need not know more of a replica than that it is there."""


def _opened(path: Path) -> Archive:
    """The archive, or a new one beside what cannot be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return Archive(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # it is not the file that is at fault
        return _anew(path, str(error))


def _anew(path: Path, why: str) -> Archive:
    """A new archive; the old one is put aside."""
    aside = path.with_suffix(".old")
    for suffix in ("", "-wal", "-shm"):
        if (of := Path(f"{path}{suffix}")).exists():
            os.replace(of, f"{aside}{suffix}")
    _log("archive_begins_anew", {"level": "error", "why": why, "kept_as": aside.name})
    return Archive(path)


_log = partial(process.log, "replica")


def main(arguments: Sequence[str]) -> int:
    """Run until the end; the exit code."""
    settings, control = process.begin(arguments, Settings)
    os.nice(NICE)
    try:
        process.run(Runner(settings, Journal(Path(settings.journal)), control))
    except Corrupt as corrupt:
        _log("corrupt", {"level": "error", "why": str(corrupt), "exit": EXIT_CORRUPT})
        return EXIT_CORRUPT
    return 0
