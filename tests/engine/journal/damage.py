"""A small journal, damaged in every way, and what a recovery must say of each: worked out twice.

`Judge` is the reader's own rule on the record kernels alone, compiled and in a loop: half a million cases
take seconds. `recovered` is the reader itself, on files that are only read: a share of the cases, or all in a
soak. What either must say follows from where the records stand, which a `Journal` knows.
"""

from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from numba import njit

from engine.journal import record
from engine.journal.reader import Corrupt, Reader, path_of
from engine.journal.record import CURSOR, HEADER, PLACE, SECTOR
from engine.journal.writer import Writer
from shm.kernel import inner
from shm.layout import COMMAND
from tests.engine.journal.made import DIRECTORY, SMALLEST, commands
from tests.engine.journal.memory_disk import MemoryDisk

BYTES = 1 << 16
CORRUPT, WRONG = -1, -2  # it refuses to go on; it goes on with other commands than were written
RECORDS_MAX = BYTES // SECTOR
MOST = 40  # commands of one record
HEADER_BYTES, HEADER_WORDS = HEADER.itemsize, HEADER.itemsize // 8
COMMAND_WORDS = COMMAND.itemsize // 8


class Journal(NamedTuple):
    """One segment. expected: for each sector, what is to be said when a bit of it is another."""

    text: bytearray
    commands: np.ndarray  # all that it holds
    ends: list[tuple[int, int]]  # of each record: its end, and the last command up to there
    expected: np.ndarray


def made(is_marked: bool, size: int = BYTES, seed: int = 1) -> Journal:
    """Records of random sizes that fill `size` bytes. is_marked: a mark calls the last of them durable."""
    disk, random = MemoryDisk(), Random(seed)
    writer = Writer(DIRECTORY, 1, disk, SMALLEST)
    ends, left = [(SECTOR, 0)], size - SECTOR * (1 + is_marked)
    while left:
        counts = [count for count in range(1, MOST) if record.length_of(count) <= left]
        count = random.choice(counts) if left > record.length_of(2 * MOST) else counts[-1]
        writer.write(commands(writer.sequence, count))
        writer.sync()
        left -= record.length_of(count)
        ends.append((ends[-1][0] + record.length_of(count), writer.sequence - 1))
    if is_marked:
        writer.mark()
        ends.append((size, writer.sequence - 1))
    writer.drop()
    text = disk.files[path_of(DIRECTORY, 1)][:size]
    assert len(text) == size == ends[-1][0]
    return Journal(text, commands(1, ends[-1][1]), ends, _expected(ends, is_marked))


def _expected(ends: list[tuple[int, int]], is_marked: bool) -> np.ndarray:
    """What a later record calls durable is missed; the last one was being written; a mark is not missed."""
    said = np.full(ends[-1][0] // SECTOR, CORRUPT)
    (before, last), (end, _) = ends[-2:]
    said[before // SECTOR : end // SECTOR] = last
    return said


def whole(journal: Journal, size: int) -> int:
    """How many commands stand in the first `size` bytes."""
    return max((last for end, last in journal.ends if end <= size), default=0)


# --- the reader itself --------------------------------------------------------------------------------------


class Still:
    """Files that nobody writes. A descriptor is a file's place among them."""

    def __init__(self, files):
        self._names, self._texts = [path.name for path in files], [*map(memoryview, files.values())]

    def names(self, directory):
        return self._names

    def open(self, path, writable=False):
        try:
            return self._names.index(path.name)
        except ValueError:
            raise FileNotFoundError(path) from None

    def close(self, fd):
        pass

    def size(self, fd):
        return len(self._texts[fd])

    def read(self, fd, into, offset):
        piece = self._texts[fd][offset : offset + len(into)]
        into[: len(piece)] = piece
        return len(piece)


def recovered(disk: Still, written: np.ndarray) -> int:
    """How many commands a recovery has; CORRUPT, WRONG."""
    reader, words = Reader(DIRECTORY, only_durable=False, disk=disk), written.view(np.uint64)
    had, each = 0, COMMAND.itemsize // 8
    try:
        while len(piece := reader.read()):
            if not np.array_equal(piece.view(np.uint64), words[had * each : (had + len(piece)) * each]):
                return WRONG
            had += len(piece)
        reader.end()
        return had
    except Corrupt:
        return CORRUPT
    finally:
        reader.close()


# --- its rule, compiled -------------------------------------------------------------------------------------


class Judge:
    """What is said of a journal's text, damaged again and again. The kernels: of `record`, or worse ones."""

    def __init__(self, journal: Journal, walk=record.walk, highest_durable=record.highest_durable):
        text = np.frombuffer(bytes(journal.text), np.uint8).copy()
        self._views = text, text.view(HEADER), text.view(np.uint64)
        self._written = journal.commands.view(np.uint64)
        self._room = (
            np.zeros(1, CURSOR),
            np.zeros(len(text) // 8, np.uint64),
            np.zeros(RECORDS_MAX + 1, PLACE),
        )
        self._flips, self._cuts = _kernels(walk, highest_durable)

    def flips(self, first: int = 0, step: int = 1) -> np.ndarray:
        """Of every step-th bit, when it is another."""
        text, headers, words = self._views
        said = np.zeros(len(range(first, 8 * len(text), step)), np.int64)
        self._flips(text, headers, words, self._written, self._room, first, step, said)
        return said

    def cuts(self) -> np.ndarray:
        """Of every length, when the text ends there."""
        text, headers, words = self._views
        said = np.zeros(len(text) + 1, np.int64)
        self._cuts(headers, words, self._written, self._room, said)
        return said


@cache
def _kernels(walk, highest_durable):
    @njit
    def judge(headers, words, size, written, room):
        cursor, found, places = room
        here = cursor[0]
        here.at, here.offset, here.epoch, here.segment, here.sequence = 0, 0, 0, 1, 1
        count = walk(headers, words, size, cursor, found, places)
        durable, first = 0, here.at // HEADER_BYTES
        for i in range(count):
            durable = max(durable, places[i].durable)
        rest = highest_durable(headers[first:], words[first * HEADER_WORDS :], size - here.at)
        if max(durable, rest) >= here.sequence:
            return CORRUPT
        for i in range((here.sequence - 1) * COMMAND_WORDS):
            if found[i] != written[i]:
                return WRONG
        return here.sequence - 1

    @njit
    def flips(text, headers, words, written, room, first, step, said):
        for at in range(len(said)):
            bit = first + at * step
            text[bit // 8] ^= 1 << (bit % 8)
            said[at] = judge(headers, words, len(text), written, room)
            text[bit // 8] ^= 1 << (bit % 8)

    @njit
    def cuts(headers, words, written, room, said):
        for size in range(len(said)):
            said[size] = judge(headers, words, size, written, room)

    return flips, cuts


# --- kernels that do not look -------------------------------------------------------------------------------

MUTANTS = {  # a line of record.py, and what stands there instead
    "no checksum of what a record holds": (
        "if header.body_crc != _body_crc(headers, words, here.at):",
        "if False:",
    ),
    "no checksum of its header": (
        "return headers[at // _HEADER_BYTES].crc == _header_crc(words, at)",
        "return True",
    ),
    "nothing is called durable": ("highest = max(highest, header.durable)", "pass"),
}


def mutated(line: str, instead: str):
    """walk and highest_durable of a module with a line changed, which must stand there once."""
    text = Path(record.__file__).read_text()
    assert text.count(line) == 1, line
    text = text.replace(line, instead).replace("import entry, inner", "import inner")
    module = {"__name__": "mutated", "entry": inner}
    exec(compile(text, "mutated", "exec"), module)
    return module["walk"], module["highest_durable"]
