"""Wake when a log directory changes: inotify, or nothing where it is not to be had (then the caller
polls).
"""

import ctypes
import os
from pathlib import Path

IN_MODIFY, IN_MOVED_TO, IN_CREATE = 0x2, 0x80, 0x100
IN_NONBLOCK, IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
EVENT_BYTES = 64 << 10
DEPTH = 3  # stream/hourly/day: files are written below

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """A file descriptor that turns readable when something below the given directories changes."""

    def __init__(self, roots: list[Path]):
        self._roots = roots
        self._watched: set[str] = set()
        self.fd = _libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        self.renew()

    def renew(self) -> None:
        """Watch directories that have appeared."""
        if self.fd < 0:
            return
        for root in self._roots:
            self._add(root, DEPTH)

    def _add(self, directory: Path, depth: int) -> None:
        name = str(directory)
        if name not in self._watched:
            if _libc.inotify_add_watch(self.fd, os.fsencode(name), IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0:
                return
            self._watched.add(name)
        if depth > 1:
            try:
                below = [entry.path for entry in os.scandir(directory) if entry.is_dir()]
            except OSError:
                return
            for path in below:
                self._add(Path(path), depth - 1)

    def drain(self) -> None:
        """Forget what woke us."""
        try:
            while len(os.read(self.fd, EVENT_BYTES)) == EVENT_BYTES:
                pass
        except (BlockingIOError, OSError):
            pass

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
