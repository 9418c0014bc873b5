"""Every system call that a journal makes, in one place: so that a test can make any one of them fail.

All are whole or an OSError: a write that the kernel has taken in part is one, too. Nobody tries again on the
same descriptor: after a failed sync the kernel calls pages clean that the disk has never seen.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Disk:
    """The machine's own."""

    def names(self, directory: Path) -> list[str]:
        """What is in there; nothing, if it does not exist."""
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []

    def make_directory(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)

    def open(self, path: Path, writable: bool = False) -> int:
        return os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)

    def create(self, path: Path, size: int) -> int:
        """Make a file of so many zeros, whose room on the disk is taken."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def close(self, fd: int) -> None:
        os.close(fd)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def read(self, fd: int, into: memoryview, offset: int) -> int:
        """Fill `into` from `offset` on; return how many bytes there were."""
        filled = 0
        while filled < len(into):
            count = os.preadv(fd, [into[filled:]], offset + filled)
            if count == 0:
                break
            filled += count
        return filled

    def write(self, fd: int, piece: memoryview, offset: int) -> None:
        written = os.pwrite(fd, piece, offset)
        if written != len(piece):
            raise OSError(errno.EIO, f"a short write: {written} of {len(piece)} bytes")

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def sync_directory(self, directory: Path) -> None:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def cut(self, fd: int, size: int) -> None:
        """Give back what is behind the first `size` bytes."""
        os.ftruncate(fd, size)

    def forget_cached(self, fd: int) -> None:
        """Have the next read come from the disk: memory may only believe that it was written."""
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def remove(self, path: Path) -> None:
        os.unlink(path)


@contextmanager
def held(directory: Path, alone: bool = False) -> Iterator[bool]:
    """Hold a journal's directory; gives whether it is held. As long as anyone does, nothing is removed there.

    alone  to remove something: not at all while others hold it; else it waits until that is done
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
            yield True
        except BlockingIOError:
            yield False
    finally:
        os.close(fd)
