"""The journaler: takes an engine's commands from its ring, makes them durable together, and says so.

Whatever has come while the last sync ran is the next record: there is no timer, and the slower the disk, the
larger the records. What comes is copied, checked and chained while that sync runs, so that the disk hardly
waits: a record has half of what the ring holds at most, and is taken on while the other half is made durable.
Commands stay in the ring until they are durable, so that who comes after this process finds those that it had
not written.

One failed write or sync is the last thing this process does (exit 74): it says nothing of what it has not
made sure of, and its successor reads the disk. A disk without room is no failure: the room of what is
written was taken before. It says `is_full`, so that orders are refused; cancels go on in the segments that
were made before, and it looks for room once a second.
"""

import errno
import os
import select
import time
from collections.abc import Sequence
from concurrent import futures
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from engine import process
from engine.journal import record, writer
from engine.journal.disk import Disk
from engine.journal.reader import Corrupt
from engine.journal.writer import Writer
from shm import constants as c
from shm import layout, region, spsc, stats, wait
from shm.atomics import store_release
from shm.control import Line
from shm.kernel import entry

EXIT_FAILED, EXIT_CORRUPT = 74, 65
PARK_SECONDS = 0.050
TAKE_SECONDS = 0.0005  # between two looks for commands, while a sync runs
RECORD_COMMANDS = c.COMMANDS_MAX // 2  # of one record, at most
PIECE_COMMANDS = 1024  # taken on at once: at the end of a sync, that long it may have to wait
MARK_SECONDS = 0.005  # without commands, until what is durable is written down by itself
FULL_SECONDS = 1.0  # between two looks for room
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
COUNTERS = ("records", "commands", "marks", "durable", "spares", "is_full")
HISTOGRAMS = ("sync_ns", "record_commands")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the supervisor says at start."""

    epoch: int
    data: str  # the journal's directory
    segment_bytes: int = writer.SEGMENT_BYTES
    cpu: int | None = None


class Source:
    """The engine whose commands are kept: its ring, and its bell."""

    def __init__(self, fds: list[int], epoch: int):
        ring, page, self._bell_fd = fds
        self.region = region.attach(ring, layout.JOURNAL, writable=True, epoch=epoch)
        arrays = self.region.arrays
        self._ring, self._commands, self._durable, self._keeper = (arrays[name] for name in layout.JOURNAL)
        self._page = stats.attach(page)
        self._place = int(self._ring["head"][0])  # of the next command that was not taken, of all ever pushed

    @property
    def durable(self) -> int:
        return int(self._durable["tail"][0])

    @property
    def is_empty(self) -> bool:
        """Whether all that has come was taken."""
        return int(spsc.reach(self._ring, self._commands, self._place)) == 0

    def come(self) -> np.ndarray:
        """What was not taken yet, where it stands in the ring: as many as stand there side by side."""
        first = self._place % len(self._commands)
        return self._commands[first : first + int(spsc.reach(self._ring, self._commands, self._place))]

    def take(self, count: int) -> None:
        """The first `count` of what has come are taken; they stay where they are."""
        self._place += count

    def drop(self, count: int) -> None:
        """The first `count` of what was taken are in safety, and their room is the engine's again."""
        spsc.drop(self._ring, count)

    def say(self, durable: int, is_full: bool) -> None:
        """Everything up to `durable` is safe."""
        tell(self._durable, self._keeper, durable, is_full)
        wait.ring_bells([self._page.arrays["bell"]], [self._bell_fd])

    def close(self) -> None:
        self.region.close()
        self._page.close()
        os.close(self._bell_fd)


class Journaler:
    """One journal, and whoever writes to it."""

    def __init__(self, settings: Settings, control: Line, disk: Disk | None = None):
        self.control = control
        self.stats = stats.Stats(COUNTERS, HISTOGRAMS, settings.epoch, "journaler-stats")
        self.bell_fd = wait.new_eventfd()
        self.source: Source | None = None
        self.ending = False
        self.is_full = False
        self._settings, self._disk = settings, disk
        self._beside = futures.ThreadPoolExecutor(1)  # waits for the disk, while commands are taken
        self._look_ns = 0  # for room, not before
        self._wrote_ns = 0
        self._is_marked = True
        self._writer: Writer | None = None

    def run(self) -> None:
        """Serve until told to end, and close the journal. Raises OSError, Corrupt: it is not closed then."""
        waiter = select.poll()
        waiter.register(self.control, select.POLLIN)
        waiter.register(self.bell_fd, select.POLLIN)
        while self._writer is None and not self.ending:
            self._open(waiter)
        while not self.ending:
            self._rest(waiter, self._turn())
        if self._writer is not None:
            self._drain()
            self._writer.close()

    def _open(self, waiter: select.poll) -> None:
        """Begin where the journal ends, as soon as there is room for that."""
        settings = self._settings
        try:
            self._writer = Writer(Path(settings.data), settings.epoch, self._disk, settings.segment_bytes)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            log("no_room", {"directory": settings.data, "next_look_seconds": FULL_SECONDS})
            self._look(waiter, FULL_SECONDS)
            return
        began = self._writer.began
        facts = {"torn": began.torn} if began.torn else {}
        log("journal", {"sequence": began.sequence - 1, "durable_before": began.durable, **facts})
        self._make_room(time.monotonic_ns())
        self._announce()

    def _announce(self) -> None:
        """All that there is in the journal is durable, and an engine may begin with it.

        While the ring of one is held (`holds`: its epoch) more may come from there: only that one may go on.
        """
        made = {"kind": "journal", "sequence": self._writer.durable}
        if self.source is not None:
            made["holds"] = self.source.region.epoch
        self.control.send(made, [self.stats.region.fd, self.bell_fd])

    def _introduce(self) -> None:
        """Tell another supervisor the same as the first."""
        if self._writer is not None:
            self._announce()

    # --- one turn -------------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Make durable what has come; whether there was anything."""
        now_ns = time.monotonic_ns()
        wrote = self.source is not None and self._keep()
        if wrote:
            self._wrote_ns, self._is_marked = time.monotonic_ns(), False
        elif not self._is_marked and now_ns - self._wrote_ns >= MARK_SECONDS * 1e9:
            self._mark()
        if self._writer.spares < writer.SPARES and (not wrote or self._writer.spares == 0):
            self._make_room(now_ns)
        return wrote

    def _keep(self) -> bool:
        source, journal = self.source, self._writer
        while self._take():
            pass
        if journal.taken == 0:
            return False
        count = journal.taken
        journal.write()
        began_ns = time.monotonic_ns()
        self._sync()
        self.stats.observe("sync_ns", time.monotonic_ns() - began_ns)
        source.drop(count)
        source.say(journal.durable, self.is_full)
        self.stats.observe("record_commands", count)
        self.stats.add("records", 1)
        self.stats.add("commands", count)
        self.stats.set("durable", journal.durable)
        return True

    def _take(self) -> int:
        """Take a piece of what has come on to the next record, as far as there is room; how many they are."""
        come, journal = self.source.come(), self._writer
        count = min(len(come), PIECE_COMMANDS, RECORD_COMMANDS - journal.taken)
        while count > 0 and not journal.has_room(count):
            count //= 2
        if count > 0:
            journal.take(come[:count])
            self.source.take(count)
        return count

    def _sync(self) -> None:
        """Make durable what was written, and take on what comes until it is. Raises OSError."""
        if self.source.is_empty:
            self._writer.sync()
            return
        syncing = self._beside.submit(self._writer.sync)
        while not futures.wait([syncing], 0 if self._take() else TAKE_SECONDS).done:
            pass
        syncing.result()

    def _mark(self) -> None:
        if self._writer.has_room(0) and not self.is_full:  # the room that is left is for commands
            self._writer.mark()
            self._writer.sync()
            self.stats.add("marks", 1)
        self._is_marked = True

    def _make_room(self, now_ns: int) -> None:
        """Take the room of segments to come, if there is some."""
        if now_ns < self._look_ns:
            return
        was_full, self.is_full = self.is_full, False
        try:
            self._writer.make_spares()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self.is_full = True
            self._look_ns = now_ns + int(FULL_SECONDS * 1e9)
        if was_full != self.is_full:
            log("full" if self.is_full else "room_again", {"spares": self._writer.spares})
        if self.source is not None and was_full != self.is_full:
            self.source.say(self._writer.durable, self.is_full)
        self.stats.set("spares", self._writer.spares)
        self.stats.set("is_full", self.is_full)

    def _drain(self) -> None:
        """Make durable what is left in the ring of an engine that is not there any more."""
        while self.source is not None and self._keep():
            pass

    # --- who is waited for ----------------------------------------------------------------------------------

    def _rest(self, waiter: select.poll, worked: bool) -> None:
        if worked:
            self._look(waiter, 0.0)
        elif wait.sleep(self.stats.bell, self._has_work):
            self._look(waiter, PARK_SECONDS if self._is_marked else MARK_SECONDS)
            wait.woke(self.stats.bell)

    def _has_work(self) -> bool:
        return self.source is not None and not self.source.is_empty and self._writer.has_room(1)

    def _look(self, waiter: select.poll, seconds: float) -> None:
        for fd, _ in waiter.poll(seconds * 1000):
            if fd == self.control.fileno():
                self._hear()
            else:
                wait.drain(self.bell_fd)
        if not self.control.tend(self._introduce):
            self.ending = True

    def _hear(self) -> None:
        """Take one message of the supervisor."""
        heard = process.hear(self.control)
        if heard is None:
            return
        message, fds = heard
        match message:
            case {"kind": "journal", "epoch": int(epoch)} if len(fds) == 3 and self._writer is not None:
                self._attach(fds, epoch)
            case {"kind": "engine_lost"}:
                self._let_go()
            case {"kind": "drain"}:
                self.ending = True
            case _:
                process.close(fds)

    def _attach(self, fds: list[int], epoch: int) -> None:
        """An engine hands over its ring, or, at the word of another supervisor, the one that is held already.

        Raises Corrupt: it is not the one that this journal goes on with.
        """
        if self.source is not None and self.source.region.epoch == epoch:
            process.close(fds)
            return
        self._drain()
        self._forget_source()
        try:
            source = Source(fds, epoch)
        except region.Refused as refused:
            log("ring_refused", {"why": str(refused)})
            process.close(fds)
            return
        skipped = self._skip(source)
        self.source = source
        log("engine", {"epoch": epoch, "sequence": self._writer.durable, "known_before": skipped})
        source.say(self._writer.durable, self.is_full)

    def _skip(self, source: Source) -> int:
        """Drop from the ring what the journal holds already; how many those are."""
        expected = self._writer.sequence
        if source.durable >= expected:
            raise Corrupt(
                f"the engine knows {source.durable} to be durable; the journal ends before {expected}"
            )
        known = 0
        while len(come := source.come()):
            count = int(np.searchsorted(come["sequence"], expected))
            if count < len(come) and (found := come["sequence"][count]) != expected:
                raise Corrupt(f"the engine goes on with {found}, the journal with {expected}")
            if count == 0:
                break
            source.take(count)
            known += count
        source.drop(known)
        return known

    def _let_go(self) -> None:
        """The engine has ended: keep what it has left, and be ready for the next one."""
        self._drain()
        self._forget_source()
        if self._writer is not None:
            self._mark()
            self._announce()

    def _forget_source(self) -> None:
        if self.source is not None:
            self.source.close()
            self.source = None


@entry
def tell(durable, keeper, sequence, is_full):
    store_release(keeper[0], "is_full", np.int64(is_full))
    store_release(durable[0], "tail", sequence)


log = partial(process.log, "journaler")


def main(arguments: Sequence[str]) -> int:
    """Run until the end; the exit code."""
    try:
        process.run(Journaler(*process.begin(arguments, Settings)))
    except OSError as error:
        log("failed", {"why": str(error), "exit": EXIT_FAILED})
        return EXIT_FAILED
    except Corrupt as corrupt:
        log("corrupt", {"why": str(corrupt), "exit": EXIT_CORRUPT})
        return EXIT_CORRUPT
    return 0


def warm() -> None:
    """Compile the entry points, and the ring's ends for commands."""
    record.warm()
    tell(np.zeros(1, layout.BROADCAST), np.zeros(1, layout.KEEPER), 0, False)
    ring, commands = np.zeros(1, layout.RING), np.zeros(1, layout.COMMAND)
    spsc.reach(ring, commands, 0)
    spsc.drop(ring, 0)
