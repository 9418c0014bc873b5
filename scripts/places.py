"""Who fills which role: one file for each, locked for as long as a process of that role lives.

The lock is the process's own. It inherits the descriptor, which nobody else keeps, and writes into the file
who it is before it becomes what it is to be (scripts/child.py). So the kernel says who is there, whatever has
become of the supervisor that started it; and no role is ever filled twice.
"""

import fcntl
import os
import signal
from pathlib import Path
from typing import NamedTuple

from shm import region

DIRECTORY = "children"  # below the data directory


class Holder(NamedTuple):
    """The process that has a place, as it has written it down. mark: of what it was told at its start."""

    pid: int
    start_time: int
    epoch: int
    mark: str


class Place:
    def __init__(self, path: Path):
        self.path = path
        self.name = path.name

    def take(self) -> int:
        """Lock it for a process that is about to be started, and is to inherit this descriptor.

        Raises BlockingIOError while another one lives, and OSError.
        """
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
        except OSError:
            os.close(fd)
            raise
        return fd

    @property
    def is_taken(self) -> bool:
        """Only whoever has the lock of the data directory may ask: for a moment he holds this one, too."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def holder(self) -> Holder | None:
        """Who has taken it. None: he has not written it down yet."""
        try:
            pid, start_time, epoch, mark = self.path.read_text().split()
            return Holder(int(pid), int(start_time), int(epoch), mark)
        except (OSError, ValueError):
            return None


class Orphan:
    """A process whose supervisor was killed. It is signalled by pidfd: nobody else is meant by mistake.

    Raises ProcessLookupError when it has gone.
    """

    def __init__(self, place: Place, holder: Holder):
        self.place, self.name, self.pid = place, place.name, holder.pid
        self.epoch, self.mark = holder.epoch, holder.mark
        self.pidfd = os.pidfd_open(holder.pid)
        try:
            if region.process_start_time(holder.pid) != holder.start_time:
                raise ProcessLookupError(f"another process has the number {holder.pid}")
        except ProcessLookupError:
            os.close(self.pidfd)
            raise

    @property
    def is_alive(self) -> bool:
        return self.place.is_taken

    def signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        os.close(self.pidfd)


def taken(directory: Path) -> list[Place]:
    """The places below the directory that some process has."""
    if not directory.is_dir():
        return []
    return [place for path in sorted(directory.iterdir()) if (place := Place(path)).is_taken]
