"""A disk in memory, for journals: it remembers every call, can fail at any of them, and can lose its power.

    disk = MemoryDisk(); ...; after = disk.crashed(len(disk.calls), random)

What was not synced when the power goes may be there or not, sector by sector, in any combination, and a
sector that was being written may hold anything that was in it before, zeros, or a part of both. A name that
its directory was not synced for may be gone, or still be there.
"""

import errno
from pathlib import Path

from engine.journal.record import SECTOR

Call = tuple  # its name and what it was given


class MemoryDisk:
    """fail: call number -> how (an errno; "short": a write is taken in part; a function that is called)."""

    def __init__(self):
        self.files: dict[Path, bytearray] = {}
        self.calls: list[Call] = []
        self.fail = {}
        self.open_files: dict[int, Path] = {}
        self._next_fd = 1000
        self.free = None  # bytes that may still be taken; None: as many as one likes

    def names(self, directory):
        return sorted(path.name for path in self.files if path.parent == directory)

    def make_directory(self, directory):
        self._called("make_directory", directory)

    def open(self, path, writable=False):
        self._called("open", path)
        if path not in self.files:
            raise FileNotFoundError(path)
        return self._descriptor(path)

    def create(self, path, size):
        if path in self.files:
            raise FileExistsError(path)
        self._called("create", path, size)
        if self.free is not None:
            if size > self.free:
                self.files[path] = bytearray()
                raise OSError(errno.ENOSPC, "no space")
            self.free -= size
        self.files[path] = bytearray(size)
        return self._descriptor(path)

    def close(self, fd):
        del self.open_files[fd]

    def size(self, fd):
        return len(self.files[self.open_files[fd]])

    def read(self, fd, into, offset):
        self._called("read", self.open_files[fd], offset)
        piece = self.files[self.open_files[fd]][offset : offset + len(into)]
        into[: len(piece)] = bytes(piece)
        return len(piece)

    def write(self, fd, piece, offset):
        path, piece = self.open_files[fd], bytes(piece)
        how = self._called("write", path, offset, piece)
        if how == "short":
            piece = piece[: len(piece) // 2]
        file = self.files[path]
        file[len(file) :] = bytes(max(0, offset + len(piece) - len(file)))
        file[offset : offset + len(piece)] = piece
        if how == "short":
            raise OSError(errno.EIO, "a short write")

    def sync(self, fd):
        self._called("sync", self.open_files[fd])

    def sync_directory(self, directory):
        self._called("sync_directory", directory)

    def cut(self, fd, size):
        self._called("cut", self.open_files[fd], size)
        file = self.files[self.open_files[fd]]
        if self.free is not None:
            self.free += len(file) - size
        del file[size:]

    def forget_cached(self, fd):
        pass

    def remove(self, path):
        self._called("remove", path)
        if self.free is not None:
            self.free += len(self.files[path])
        del self.files[path]

    def _descriptor(self, path):
        self._next_fd += 1
        self.open_files[self._next_fd] = path
        return self._next_fd

    def _called(self, *call):
        """Remember the call; fail if it is one that must."""
        self.calls.append(call)
        how = self.fail.get(len(self.calls) - 1)
        if isinstance(how, int):
            raise OSError(how, "made to fail")
        if callable(how):
            how()
        return how

    # --- what is left of it ---------------------------------------------------------------------------------

    def copy(self):
        other = MemoryDisk()
        other.files = {path: bytearray(file) for path, file in self.files.items()}
        return other

    def crashed(self, calls, random):
        """What may be there after power was lost, when `calls` calls had been made."""
        done = self.calls[:calls]
        last = {call[:2] if call[0] == "sync" else call[0]: i for i, call in enumerate(done)}
        synced_names = last.get("sync_directory", -1)
        after = MemoryDisk()
        for i, call in enumerate(done):
            name, path, *more = call
            is_safe = i < synced_names or random.random() < 0.5
            if name == "create" and is_safe:
                after.files[path] = bytearray(more[0])
            elif name == "remove" and is_safe:
                after.files.pop(path, None)
            elif path in after.files:
                _lose(after.files[path], name, more, last.get(("sync", path), -1) > i, random)
        return after


def _lose(file, name, more, synced, random):
    """Do to a file what may be left of one call."""
    if name == "cut" and (synced or random.random() < 0.5):
        del file[more[0] :]
    elif name == "write":
        offset, piece = more
        file[len(file) :] = bytes(max(0, offset + len(piece) - len(file)))
        for at in range(0, len(piece), SECTOR):
            sector = piece[at : at + SECTOR]
            what = "new" if synced else random.choice(["new", "new", "old", "zeros", "torn"])
            if what == "new":
                file[offset + at : offset + at + len(sector)] = sector
            elif what == "zeros":
                file[offset + at : offset + at + len(sector)] = bytes(len(sector))
            elif what == "torn":
                half = random.randrange(len(sector))
                file[offset + at : offset + at + half] = sector[:half]
