"""The commands of a journal, in order, from its files: of a finished one, or of one that is still written.

    reader = Reader(directory, sequence)    # the first command that is wanted
    commands = reader.read()                # COMMAND[], those that come next; empty: there are no more yet
    reader.end()                            # nothing more will come: was a write torn, or is it damaged?

A reader never waits and never writes. What it gives is durable: a later record says so.

A segment goes on in its successor as soon as that one begins with the very next sequence and the same chain;
whatever its predecessor holds behind that place is a write that was torn. So nothing is ever cut in order to
be right, and whoever writes a journal again begins a new segment.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.journal import record
from engine.journal.disk import Disk
from engine.journal.record import CURSOR, HEADER, PLACE, RECORD_BYTES_MAX, SECTOR, Found, Kind
from shm.layout import COMMAND, WORD

SUFFIX = ".journal"
BUFFER_BYTES = 1 << 22
RECORDS_MAX = 1 << 12  # in one look
NOTHING = np.zeros(0, COMMAND)
COMMANDS_MAX = BUFFER_BYTES // COMMAND.itemsize

assert BUFFER_BYTES >= 2 * RECORD_BYTES_MAX, "a record that a buffer cuts is whole in the next one"

_WHAT = {  # stands where a record was expected
    Found.PART: "the file ends",
    Found.BLANK: "zeros",
    Found.NOT_A_RECORD: "no record",
    Found.HEADER_DAMAGED: "a header with another checksum",
    Found.OTHER_VERSION: "another version",
    Found.ELSEWHERE: "a record of another place",
    Found.FORM: "a record of a form that nobody writes",
    Found.EPOCH: "a record of an earlier epoch",
    Found.SEQUENCE: "a record of another sequence",
    Found.BODY_DAMAGED: "a record with another checksum",
}


class Corrupt(Exception):
    """The journal has lost what it had called durable, or holds what it never wrote. The text says where."""


class End(NamedTuple):
    """Where a journal ends, and what of it is only a write that was torn."""

    segment: int  # 0: there is none
    offset: int  # behind the last whole record
    sequence: int  # of the next command
    chain: bytes
    epoch: int
    durable: int
    torn: str  # what stands there; empty: nothing was ever written


class Head(NamedTuple):
    """The first record of a segment."""

    sequence: int
    chain: bytes
    epoch: int
    durable: int


def path_of(directory: Path, segment: int) -> Path:
    return directory / f"{segment:010d}{SUFFIX}"


def segments(directory: Path, disk: Disk) -> list[int]:
    """The numbers of all segments, spare ones too, ascending."""
    stems = (name[: -len(SUFFIX)] for name in disk.names(directory) if name.endswith(SUFFIX))
    return [int(stem) for stem in stems if stem.isdigit()]


def head_of(directory: Path, segment: int, disk: Disk) -> Head | None:
    """The first record of a segment; None: there is no whole one. Raises Corrupt: of another version."""
    path = path_of(directory, segment)
    try:
        fd = disk.open(path)
    except FileNotFoundError:
        return None
    sector = np.zeros(SECTOR, np.uint8)
    try:
        size = disk.read(fd, sector.data, 0)
    finally:
        disk.close(fd)
    header, words, cursor = sector.view(HEADER)[0], sector.view(np.uint64), np.zeros(1, CURSOR)
    cursor["segment"], cursor["sequence"] = segment, header["sequence"]
    count = record.walk(sector.view(HEADER), words, size, cursor, words[:0], np.zeros(1, PLACE))
    if cursor["found"] == Found.OTHER_VERSION:
        raise Corrupt(f"{path}: expected version {record.VERSION}, found {header['version']}")
    if count == 0 or header["kind"] != Kind.SEGMENT:
        return None
    layout = sector[HEADER.itemsize :][: len(record.LAYOUT)].tobytes()
    if layout != record.LAYOUT:
        expected = f"expected commands of layout {record.LAYOUT.decode()}"
        raise Corrupt(f"{path}: {expected}, found {layout.decode('ascii', 'replace')}")
    epoch, durable = int(header["epoch"]), int(header["durable"])
    return Head(int(header["sequence"]), header["chain"].tobytes(), epoch, durable)


class Reader:
    """Reads from `sequence` on. `only_durable` False: all that is whole, which is for who recovers."""

    def __init__(
        self, directory: Path, sequence: int = 1, *, only_durable: bool = True, disk: Disk | None = None
    ):
        self.sequence = sequence  # of the next command that `read` gives
        self.durable = 0  # the highest that the journal calls so, as far as it was read
        self._directory, self._only_durable, self._disk = directory, only_durable, disk or Disk()
        self._buffer = np.empty(BUFFER_BYTES, np.uint8)
        self._headers, self._words = self._buffer.view(HEADER), self._buffer.view(np.uint64)
        self._commands = np.empty(COMMANDS_MAX, COMMAND)
        self._places = np.zeros(RECORDS_MAX, PLACE)
        self._cursor = np.zeros(1, CURSOR)
        self._cursor["sequence"] = sequence
        self._chain = record.NO_CHAIN
        self._waiting: list[np.ndarray] = []  # read, and not called durable yet
        self._fd = -1

    def read(self) -> np.ndarray:
        """The next commands, up to some megabytes of them. Raises Corrupt, OSError."""
        is_open = self._fd >= 0 or self._begin()
        given = NOTHING
        while is_open and not len(given) and (self._look() or self._go_on()):
            given = self._given()
        return given

    @property
    def place(self) -> tuple[int, int]:
        """Segment and offset up to which it has read; a segment of 0: it has found none."""
        return int(self._cursor["segment"][0]), int(self._cursor["offset"][0])

    def end(self) -> End:
        """Where the journal ends, when everything has been read. Raises Corrupt: it has lost something."""
        here = self._cursor[0]
        torn = ""
        self._judge()
        if self._fd >= 0:
            found = Found(int(here["found"]))
            torn = "" if found is Found.BLANK or self._is_at_eof() else _WHAT[found]
        place = (int(here["segment"]), int(here["offset"]), int(here["sequence"]))
        return End(*place, self._chain, int(here["epoch"]), self.durable, torn)

    def close(self) -> None:
        if self._fd >= 0:
            self._disk.close(self._fd)
        self._fd = -1

    def __del__(self) -> None:
        self.close()

    # --- from one record to the next ------------------------------------------------------------------------

    def _look(self) -> bool:
        """Walk over the records that are there; whether there was one."""
        here = self._cursor[0]
        size = self._disk.read(self._fd, self._buffer.data, int(here["offset"]))
        here["at"] = 0
        began = int(here["sequence"])
        words = self._commands.view(np.uint64)
        count = record.walk(self._headers, self._words, size, self._cursor, words, self._places)
        self._link(self._places[:count])
        commands = self._commands[: int(here["sequence"]) - began]
        if len(commands):
            self._waiting.append(_copy([commands]))
        if count and self._places["durable"][:count].max() > self.durable:
            self.durable = int(self._places["durable"][:count].max())
        return count > 0

    def _link(self, places: np.ndarray) -> None:
        """See that each record goes on with the chain of the one before."""
        chains = self._headers["chain"]
        for at, words, _, kind in places.tolist():
            if kind == Kind.COMMANDS:
                first = at + HEADER.itemsize
                self._chain = record.link(self._chain, self._buffer[first : first + words * WORD.itemsize])
            found = chains[at // HEADER.itemsize].tobytes()
            if found != self._chain:
                header = self._headers[at // HEADER.itemsize]
                raise Corrupt(
                    f"{self._place(int(header['offset']))}, sequence {header['sequence']}: "
                    f"expected chain {self._chain.hex()}, found {found.hex()}"
                )

    def _given(self) -> np.ndarray:
        """What was read and may be given: all that is wanted of it, and durable."""
        most = self.durable if self._only_durable else int(self._cursor["sequence"][0]) - 1
        given = []
        while self._waiting and int(self._waiting[0]["sequence"][0]) <= most:
            commands = self._waiting.pop(0)
            count = int(np.searchsorted(commands["sequence"], most, "right"))
            if count < len(commands):
                self._waiting.insert(0, commands[count:])
            first = int(np.searchsorted(commands["sequence"][:count], self.sequence))
            if first < count:
                given.append(commands[first:count])
                self.sequence = int(commands["sequence"][count - 1]) + 1
        return _copy(given) if len(given) > 1 else given[0] if given else NOTHING

    # --- from one segment to the next -----------------------------------------------------------------------

    def _begin(self) -> bool:
        """Find the segment that holds the first command that is wanted; whether there is one."""
        found = False
        for segment in reversed(segments(self._directory, self._disk)):
            head = head_of(self._directory, segment, self._disk)
            if head is not None and head.sequence <= self.sequence:
                self._open(segment, head)
                return True
            found |= head is not None
        if found:
            raise Corrupt(f"{self._directory}: no segment holds sequence {self.sequence}")
        return False

    def _open(self, segment: int, head: Head) -> None:
        self.close()
        self._fd = self._disk.open(path_of(self._directory, segment))
        here = self._cursor[0]
        here["segment"], here["offset"], here["epoch"] = segment, 0, head.epoch
        here["sequence"], self._chain = head.sequence, head.chain

    def _go_on(self) -> bool:
        """Nothing more can be read here: the journal goes on in the next segment, or ends, or is damaged."""
        here = self._cursor[0]
        head = head_of(self._directory, int(here["segment"]) + 1, self._disk)
        if head is None:
            return here["found"] not in (Found.BLANK, Found.PART) and self._judge()
        if (head.sequence, head.chain) != (here["sequence"], self._chain) or head.epoch < here["epoch"]:
            return self._judge()
        self._open(int(here["segment"]) + 1, head)
        return True

    # --- what is not a record -------------------------------------------------------------------------------

    def _judge(self) -> bool:
        """Raise Corrupt if some record, wherever it is, calls durable what cannot be read here.

        Returns whether it can be read by now: it may have been written since the last look.
        """
        here = self._cursor[0]
        segment, offset, sequence = (int(here[name]) for name in ("segment", "offset", "sequence"))
        durable = max(self.durable, self._highest(segment, offset))
        for later in segments(self._directory, self._disk):
            if later > segment:
                durable = max(durable, self._highest(later, 0))
        if self._fd >= 0 and self._look():
            return True
        if durable >= sequence:
            found = _WHAT.get(Found(int(here["found"])), "no segment that begins there")
            raise Corrupt(
                f"{self._place(offset)}: expected sequence {sequence}, which was durable up to {durable}; "
                f"found {found}{self._found_numbers()}"
            )
        return False

    def _found_numbers(self) -> str:
        """What the header that stands there says of itself, for a person to read."""
        here = self._cursor[0]
        if here["found"] in (Found.RECORD, Found.PART, Found.BLANK, Found.NOT_A_RECORD):
            return ""
        header = self._headers[int(here["at"]) // HEADER.itemsize]
        fields = ("version", "kind", "length", "epoch", "segment", "offset", "sequence", "count")
        return ": " + ", ".join(f"{name} {header[name]}" for name in fields)

    def _highest(self, segment: int, offset: int) -> int:
        """The highest `durable` of a segment's records from `offset` on."""
        try:
            fd = self._disk.open(path_of(self._directory, segment))
        except FileNotFoundError:
            return -1
        buffer, highest = np.empty(BUFFER_BYTES, np.uint8), -1
        try:
            while size := self._disk.read(fd, buffer.data, offset):
                found = record.highest_durable(buffer.view(HEADER), buffer.view(np.uint64), size)
                highest, offset = max(highest, int(found)), offset + BUFFER_BYTES
        finally:
            self._disk.close(fd)
        return highest

    def _is_at_eof(self) -> bool:
        return self._disk.size(self._fd) <= int(self._cursor["offset"][0])

    def _place(self, offset: int) -> str:
        return f"{path_of(self._directory, int(self._cursor['segment'][0]))}, offset {offset}"


def _copy(rows: list[np.ndarray]) -> np.ndarray:
    """One array of them all, copied as whole words: numpy copies records field by field."""
    return np.concatenate([each.view(WORD) for each in rows]).view(COMMAND)
