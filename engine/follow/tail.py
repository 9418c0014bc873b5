"""Read a growing directory of hourly log files: whole lines, once each, wherever the writer is.

The node appends to `<stream>/hourly/<YYYYMMDD>/<H>` (the hour without a leading zero) and goes on in a new
file at the hour. A file may appear late, be replaced under its name, shrink and grow again; its visible end
is often half a line. A tail keeps that half in memory and never parses it, reads an old file to its end
before it forgets it, and starts a file again from the top if what lay before its offset is not what it read.
Repeats are the join's to drop: every line carries its block.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

READ_BYTES = 4 << 20  # one read; a longer line is gathered over several
LINE_BYTES_MAX = 64 << 20  # a longer line is no line of a node
GUARD_BYTES = 64  # what must still lie before the offset
DIGEST_BYTES = 8  # of the guard, in a mark
HALF_NS = 2_000_000_000  # how long the half line of a file that was renamed may take to become whole
LINGER_NS = 10_000_000_000  # an old file without news for so long, with a newer one there, is closed
LIST_NS = 1_000_000_000  # directories are listed at least so often, whatever their times say
HEAD_BYTES = 512  # a line's block number stands within these
DISORDER_BLOCKS = 64  # lines of a later block may stand so far before those of an earlier one

_BLOCK_NUMBER = re.compile(rb'"block_number":(\d{1,18})\b')


class Mark(NamedTuple):
    """A place in a stream: the line that begins at `offset` of the file `name` ("20260505/17") has not
    been applied.
    """

    name: str
    inode: int
    offset: int
    digest: str = ""  # of what lies before the offset, once sealed: another content is read from its top


class Chunk(NamedTuple):
    """Whole lines of one file."""

    name: str
    inode: int
    start: int  # file offset of the first byte
    lines: bytes


class Tail:
    """The files of one stream, in order of their hours.

    directory  the stream's `hourly` directory; it need not exist yet
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.rewinds = 0  # times a file was started again from its top
        self.oversized = 0  # lines beyond LINE_BYTES_MAX, dropped
        self.cut = 0  # half lines whose file shrank or went away before they were whole
        self._files: dict[tuple[str, int], _File] = {}
        self._first: tuple[str, int] | None = None  # older files are not read
        self._marks: dict[tuple[str, int], Mark] = {}
        self._starts: dict[tuple[str, int], int] = {}  # offsets at which files are to be begun
        self._listed_ns = -LIST_NS
        self._stamp: tuple[int, ...] = ()

    def poll(self, now_ns: int) -> tuple[list[Chunk], bool]:
        """Return what is new, oldest file first, and whether anything was read again from a file's top."""
        self._discover(now_ns)
        chunks, rewound = [], False
        for key in sorted(self._files):
            file = self._files[key]
            while True:
                half = len(file.half)
                again, read = file.read()
                rewound = rewound or again
                self.rewinds += again
                self.cut += again and half > 0
                if file.overlong:
                    file.overlong, self.oversized = False, self.oversized + 1
                chunk = file.take()
                if chunk is not None:
                    chunks.append(chunk)
                    return chunks, rewound  # one chunk at a time: the caller bounds what it holds
                if read == 0:
                    break
            self._retire(key, file, now_ns)
        return chunks, rewound

    def start_at(self, marks: list[Mark]) -> None:
        """Begin at these sealed marks (a checkpoint's): each file from its offset, if what lies before it is
        still the same.
        """
        self.close()
        self._marks = {_key(mark.name): mark for mark in marks}
        self._first = min(self._marks, default=None)

    def start_before(self, height: int) -> None:
        """Begin before all lines of the blocks after `height`, or at the first line there is."""
        height -= DISORDER_BLOCKS
        self.close()
        keys = self._list()
        self._first = None
        for key in reversed(keys):
            path = self._path(key)
            first = _first_height(path)
            if first is not None and first <= height:
                self._first = key
                self._starts = {key: _find_height(path, height)}
                return

    def marks(self) -> list[Mark]:
        """Where reading goes on: the first byte of each file that has not been handed over."""
        waiting = [mark for mark in self._marks.values()]
        return waiting + [Mark(file.name, file.inode, file.handed) for file in self._files.values()]

    def sealed(self, mark: Mark) -> Mark:
        """The mark with the digest of what lies before it, so that a later process knows the place again."""
        file = self._files.get(_key(mark.name))
        if mark.digest or file is None or file.inode != mark.inode:
            return mark
        return mark._replace(digest=file.digest_before(mark.offset))

    @property
    def waits(self) -> bool:
        """Whether a file that is not the newest ends in half a line: its end may still come."""
        newest = max(self._files, default=None)
        return any(file.half and key != newest for key, file in self._files.items())

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files, self._marks, self._starts, self._stamp = {}, {}, {}, ()
        self._listed_ns = -LIST_NS

    def _path(self, key: tuple[str, int]) -> Path:
        return self.directory / _name(key)

    def _list(self) -> list[tuple[str, int]]:
        keys = []
        for day in _names(self.directory):
            if len(day) == 8 and day.isdigit():
                keys += [(day, int(hour)) for hour in _names(self.directory / day) if _is_hour(hour)]
        return sorted(keys)

    def _discover(self, now_ns: int) -> None:
        """Open files that are new, or new under an old name."""
        stamp = self._times()
        if stamp == self._stamp and now_ns - self._listed_ns < LIST_NS:
            return
        self._stamp, self._listed_ns = stamp, now_ns
        for key in self._list():
            if self._first is not None and key < self._first:
                continue
            file = self._files.get(key)
            if file is None:
                self._open(key)
            elif file.replaced() and file.at_end():
                self._succeed(key, file, now_ns)

    def _succeed(self, key: tuple[str, int], former: "_File", now_ns: int) -> None:
        """Go on in the file that has taken the place of `former`, which has been read to its end."""
        self._open(key)
        file = self._files[key]
        if file is former:
            return
        if not file.follow(former) and former.half:
            if now_ns - former.moved_ns <= HALF_NS:  # who holds the former file may still write to it
                file.close()
                self._files[key] = former
                return
            self.cut += 1
        former.close()

    def _times(self) -> tuple[int, ...]:
        """The modification times of the directories: they change when a file comes, goes or is renamed."""
        days = sorted(name for name in _names(self.directory) if name.isdigit())[-2:]
        return tuple(_modified(path) for path in (self.directory, *(self.directory / day for day in days)))

    def _open(self, key: tuple[str, int]) -> None:
        try:
            file = _File(self._path(key), _name(key))
        except OSError:
            return  # gone again, or not ours to read: the next listing tries once more
        mark = self._marks.pop(key, None)
        if mark is not None and mark.inode == file.inode and mark.digest == file.digest_before(mark.offset):
            file.skip_to(mark.offset)
        elif mark is None:
            file.skip_to(self._starts.pop(key, 0))
        self._files[key] = file

    def _retire(self, key: tuple[str, int], file: "_File", now_ns: int) -> None:
        """Close an old file that has long been silent; what is read later begins after it."""
        if file.moved(now_ns) or key == max(self._files):
            return
        if now_ns - file.moved_ns > LINGER_NS and not file.half:
            file.close()
            del self._files[key]
            self._first = min(self._files)


class _File:
    """One open file: how far it has been read, and the half line at its end."""

    def __init__(self, path: Path, name: str):
        self._path = path
        self.name = name
        self._fd = -1  # until it is open
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.inode = os.fstat(self._fd).st_ino
        self._offset = 0  # bytes read
        self.half = bytearray()  # read, but no newline yet
        self._lines = b""
        self._guard = b""
        self._skipping = False
        self.overlong = False
        self.moved_ns = 0
        self._moved = True

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def skip_to(self, offset: int) -> None:
        self._offset = offset
        self._guard = os.pread(self._fd, min(GUARD_BYTES, offset), max(0, offset - GUARD_BYTES))

    def follow(self, former: "_File") -> bool:
        """Go on where `former` ends, if what lies before that place is the same here."""
        offset, guard = former._offset, former._guard
        if self.size() < offset or os.pread(self._fd, len(guard), offset - len(guard)) != guard:
            return False
        self._offset, self._guard, self._skipping = offset, guard, former._skipping
        self.half, self.moved_ns = former.half, former.moved_ns
        return True

    def digest_before(self, offset: int) -> str:
        """Name the bytes before `offset`; "" if the file does not reach so far."""
        guard = os.pread(self._fd, min(GUARD_BYTES, offset), max(0, offset - GUARD_BYTES))
        if len(guard) < min(GUARD_BYTES, offset):
            return ""
        return hashlib.blake2b(guard, digest_size=DIGEST_BYTES).hexdigest()

    def replaced(self) -> bool:
        """Whether another file stands under this one's name."""
        try:
            return os.stat(self._path).st_ino != self.inode
        except FileNotFoundError:
            return False

    @property
    def handed(self) -> int:
        """Offset of the first byte that `take` has not handed over."""
        return self._offset - len(self.half) - len(self._lines)

    def at_end(self) -> bool:
        return self._offset >= self.size()

    def moved(self, now_ns: int) -> bool:
        """Whether anything came since the last call; if so, when."""
        moved, self._moved = self._moved, False
        if moved:
            self.moved_ns = now_ns
        return moved

    def read(self) -> tuple[bool, int]:
        """Read on. Return whether the file was started again from its top, and how many bytes came."""
        size, again = self.size(), False
        if size < self._offset or (size > self._offset and not self._guarded()):
            self._offset, self.half, self._guard, self._skipping = 0, bytearray(), b"", False
            again = True
        if size <= self._offset:
            return again, 0
        fresh = os.pread(self._fd, READ_BYTES, self._offset)
        self._offset += len(fresh)
        self._guard = (
            (self._guard + fresh)[-GUARD_BYTES:] if len(fresh) < GUARD_BYTES else fresh[-GUARD_BYTES:]
        )
        self._moved = self._moved or len(fresh) > 0
        self._split(fresh)
        return again, len(fresh)

    def _guarded(self) -> bool:
        return os.pread(self._fd, len(self._guard), self._offset - len(self._guard)) == self._guard

    def _split(self, fresh: bytes) -> None:
        """Move whole lines from `half` and `fresh` to `_lines`; keep the rest as the new half."""
        cut = fresh.rfind(b"\n") + 1
        if self._skipping:
            first = fresh.find(b"\n") + 1
            if first == 0:
                return
            self._skipping = False
            self._lines, self.half = fresh[first:cut], bytearray(fresh[cut:])
        elif cut:
            self._lines = bytes(self.half) + fresh[:cut] if self.half else fresh[:cut]
            self.half = bytearray(fresh[cut:])
        else:
            self.half += fresh
        if len(self.half) > LINE_BYTES_MAX:
            self.half, self._skipping, self.overlong = bytearray(), True, True

    def take(self) -> Chunk | None:
        """Hand over the whole lines read so far, once."""
        if not self._lines:
            return None
        start, lines, self._lines = self.handed, self._lines, b""
        return Chunk(self.name, self.inode, start, lines)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def __del__(self) -> None:
        self.close()


def _key(name: str) -> tuple[str, int]:
    day, hour = name.split("/")
    return day, int(hour)


def _name(key: tuple[str, int]) -> str:
    return f"{key[0]}/{key[1]}"


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_hour(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= 2 and int(name) < 24


def _modified(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def line_height(head: bytes) -> int | None:
    """The block number in the head of a line, if it can be told."""
    found = _BLOCK_NUMBER.search(head[:HEAD_BYTES])
    return int(found[1]) if found else None


def _first_height(path: Path) -> int | None:
    try:
        with open(path, "rb") as file:
            return line_height(file.read(HEAD_BYTES))
    except OSError:
        return None


def _find_height(path: Path, height: int) -> int:
    """The offset of a line of a block at or before `height`, near the last such line, by bisection."""
    with open(path, "rb") as file:
        low, high = 0, os.fstat(file.fileno()).st_size
        while high - low > READ_BYTES:
            middle = (low + high) // 2
            file.seek(middle)
            file.readline()
            start = file.tell()
            found = line_height(file.read(HEAD_BYTES))
            if start < high and found is not None and found <= height:
                low = start
            else:
                high = middle
        return low
