"""Writes a journal: one record for whatever came together, and one sync for each.

    writer = Writer(directory, epoch)    # reads where the journal ends, and begins a segment there
    writer.take(commands)                # COMMAND[], those that come next; again and again
    writer.write()                       # all that was taken
    writer.sync()                        # now they are durable

Nothing is written before all that was written earlier is durable, so at most the last record is ever torn.
The next one may be taken on while a `sync` runs on another thread: that is all which two may do at once.
The first OSError is the last: nobody tries again, and who goes on is another writer that has read the disk.

A segment's room is taken before it is used, and its name is safe before it holds anything: a full disk stops
a journal between two commands and not within one. `has_room` says whether a record would still fit; if not,
`make_spares` is to be called until it has made one.
"""

from pathlib import Path

import numpy as np

from engine.journal import record
from engine.journal.disk import Disk
from engine.journal.reader import Corrupt, End, Reader, head_of, path_of, segments
from engine.journal.record import RECORD_BYTES_MAX, SECTOR, Draft, Kind
from shm.layout import COMMAND

SEGMENT_BYTES = 1 << 26
SPARES = 2  # segments whose room is taken beyond the one in use

_NONE = np.zeros(0, COMMAND)


class Writer:
    """Raises Corrupt, and writes nothing, if the journal has lost what it called durable; OSError."""

    def __init__(
        self,
        directory: Path,
        epoch: int,
        disk: Disk | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ):
        if segment_bytes % SECTOR or segment_bytes < SECTOR + RECORD_BYTES_MAX:
            raise ValueError(
                f"a segment of {segment_bytes} bytes: whole sectors, and the largest record fits"
            )
        self._directory, self._epoch, self._disk = directory, epoch, disk or Disk()
        self._segment_bytes = segment_bytes
        self._next, self._empty = Draft(), Draft(SECTOR)  # of commands, and of none
        self._fd = -1
        self._spares: list[int] = []  # descriptors, of the segments that follow
        self.began = self._recover()  # where the journal ended before
        self.sequence = self.began.sequence  # of the next command to be taken
        self.durable = self._written = self.sequence - 1
        self._next.begin(self.began.chain)
        self._empty.begin(self.began.chain)
        self._segment, self._offset = self.began.segment, self._segment_bytes  # nothing more fits in there
        try:
            self.make_spares(1)
            self._next_segment()
            self.sync()
        except BaseException:
            self.drop()
            raise

    @property
    def taken(self) -> int:
        """How many commands the next record has."""
        return self._next.count

    def has_room(self, count: int) -> bool:
        """Whether so many commands can be written beside those that were taken."""
        return self._fits(record.length_of(self.taken + count)) or len(self._spares) > 0

    @property
    def spares(self) -> int:
        return len(self._spares)

    def make_spares(self, count: int = SPARES) -> None:
        """Take the room of so many segments in all. Raises OSError; those that were made are good."""
        while len(self._spares) < count:
            segment = self._segment + len(self._spares) + 1
            path = path_of(self._directory, segment)
            try:
                fd = self._disk.create(path, self._segment_bytes)
            except OSError:
                if segment in segments(self._directory, self._disk):
                    self._disk.remove(path)  # made, and without its room
                raise
            self._spares.append(fd)
            self._disk.sync_directory(self._directory)

    def take(self, commands: np.ndarray) -> None:
        """Take commands on to the next record (COMMAND[], at least one, those that come next)."""
        first, count = int(commands["sequence"][0]), len(commands)
        if first != self.sequence or int(commands["sequence"][-1]) != first + count - 1:
            raise ValueError(f"expected sequence {self.sequence}, found {first} and {count - 1} more")
        self._next.take(commands)
        self.sequence += count

    def write(self, commands: np.ndarray = _NONE) -> None:
        """Write the record of all that was taken, and of these. It is durable after `sync`."""
        if len(commands):
            self.take(commands)
        self._append(Kind.COMMANDS, self._next)
        self._written, chain = self.sequence - 1, self._next.chain
        self._next.begin(chain)
        self._empty.begin(chain)

    def mark(self) -> None:
        """Write what is durable, where no commands follow to say it."""
        self._append(Kind.MARK, self._empty)

    def sync(self) -> None:
        """Make all that was written durable."""
        written = self._written
        self._disk.sync(self._fd)
        self.durable = written

    def close(self) -> None:
        """End between two commands: what was written is durable and says so, and no room is kept."""
        self.sync()
        if self.has_room(0):
            self.mark()
            self.sync()
        self._disk.cut(self._fd, self._offset)
        for segment in range(self._segment + 1, self._segment + 1 + len(self._spares)):
            self._disk.remove(path_of(self._directory, segment))
        self.drop()

    def drop(self) -> None:
        """Give the descriptors back, and leave the files as they are."""
        for fd in (self._fd, *self._spares):
            if fd >= 0:
                self._disk.close(fd)
        self._fd, self._spares = -1, []

    # --- one record after the other -------------------------------------------------------------------------

    def _append(self, kind: Kind, draft: Draft) -> None:
        if not self._fits(record.length_of(draft.count)):
            self._next_segment()
        self._put(kind, draft)

    def _fits(self, length: int) -> bool:
        return self._offset + length <= self._segment_bytes

    def _next_segment(self) -> None:
        """Go on in the first spare; what the last segment has not used is given back."""
        if not self._spares:
            raise OSError(f"{self._directory}: no spare segment")
        old, end = self._fd, self._offset
        self._fd, self._segment, self._offset = self._spares.pop(0), self._segment + 1, 0
        self._put(Kind.SEGMENT, self._empty)
        if old >= 0:
            self._disk.cut(old, end)
            self._disk.close(old)

    def _put(self, kind: Kind, draft: Draft) -> None:
        out = draft.close(kind, self._epoch, self._written + 1)
        record.seal(out, self._segment, self._offset, self.durable)
        self._disk.write(self._fd, out.data, self._offset)
        self._offset += len(out)

    # --- where to begin -------------------------------------------------------------------------------------

    def _recover(self) -> End:
        """Find the end of the journal, as the disk has it, and make sure of it."""
        self._disk.make_directory(self._directory)
        self._disk.sync_directory(self._directory)
        heads = {
            segment: head
            for segment in segments(self._directory, self._disk)
            if (head := head_of(self._directory, segment, self._disk))
        }
        newest = max(heads, default=0)
        for segment in (newest - 1, newest):
            if segment in heads:
                self._settle(segment)
        first = heads[newest].sequence if heads else 1
        reader = Reader(self._directory, first, only_durable=False, disk=self._disk)
        try:
            while len(reader.read()):
                pass
            end = reader.end()
        finally:
            reader.close()
        if end.epoch > self._epoch:
            raise Corrupt(f"{self._directory} was written in epoch {end.epoch}; this is only {self._epoch}")
        for segment in segments(self._directory, self._disk):
            if segment > end.segment:
                self._disk.remove(path_of(self._directory, segment))
        self._disk.sync_directory(self._directory)
        return end

    def _settle(self, segment: int) -> None:
        """What will be read of it is what the disk has: a crash may have left it to the kernel's memory."""
        fd = self._disk.open(path_of(self._directory, segment), writable=True)
        try:
            self._disk.sync(fd)
            self._disk.forget_cached(fd)
        finally:
            self._disk.close(fd)
