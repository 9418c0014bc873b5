"""A process's line to its supervisor, which it outlives.

A supervisor that is killed leaves its children at work. Each tries a few times a second to connect to the
socket at which the next supervisor listens, and tells it there all that it has told at its own start; so
nobody needs to know the one case from the other. Who finds nobody for long enough ends as if it had been
told to. Who was given no such socket ends with its supervisor.

What a process prints goes to a pipe of which it holds both ends: nothing breaks while nobody reads, and the
next supervisor is handed the reading end with what waits in it. The pipe never makes its writer wait: lines
for which it has no room are counted, and the count is told before the next line.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shm import region

HELLO = "orphan"  # the kind of what is said first at the socket, with the reading end of the pipe
SPARE, BECOME = "spare", "become"  # what one says who stands by, and what he is told when he is needed
SEEK_NS = 100_000_000  # between two tries to find a supervisor
STDERR = 2

Message = dict[str, Any]


class Line:
    """Takes the place of `control`, whose number stays the line's over all supervisors.

    path: where the next supervisor listens; "": there will be none. alone_ms: how long to look for it.
    output: the reading end of the pipe.
    """

    def __init__(self, control: socket.socket, path: str = "", alone_ms: int = 0, output: int = -1):
        self._control, self._path, self._output = control, Path(path) if path else None, output
        self._alone_ns = alone_ms * 1_000_000 if path else 0
        self._lost_ns = self._seek_ns = 0
        self.is_lost = False  # nobody is at the other end

    @classmethod
    def of(cls, arguments: Mapping[str, str]) -> "Line":
        """What a supervisor has given on the command line (scripts/child.py)."""
        return cls(
            socket.socket(fileno=int(arguments["--control-fd"])),
            arguments.get("--control-path", ""),
            int(arguments.get("--alone-ms", 0)),
            int(arguments.get("--output-fd", -1)),
        )

    def fileno(self) -> int:
        return self._control.fileno()

    def setblocking(self, blocks: bool) -> None:
        self._control.setblocking(blocks)

    def send(self, message: Mapping[str, Any], fds: Iterable[int] = ()) -> None:
        """Say something to the supervisor. Without one it is dropped: the next one hears all that counts."""
        if not self.is_lost:
            with suppress(ConnectionError):  # whoever listens to the line will see its end
                region.send(self._control, message, fds)

    def receive(self) -> tuple[Message, list[int]] | None:
        """Take one message and its descriptors. None: the supervisor is gone, which `lose` is to be told."""
        try:
            return region.receive(self._control)
        except ConnectionError:
            return None

    def lose(self) -> None:
        """Be silent from now on, and let `tend` look for the next supervisor. Nobody may poll the line now by
        anything that knows more of it than its number.
        """
        self.is_lost, self._lost_ns, self._seek_ns = True, time.monotonic_ns(), 0
        silence = os.eventfd(0, os.EFD_CLOEXEC)
        os.dup2(silence, self.fileno(), inheritable=False)
        os.close(silence)

    def tend(self, introduce: Callable[[], None]) -> bool:
        """Look for a supervisor if there is none and it is time to; `introduce` runs when one was found.

        False: nobody has come for so long that it is over.
        """
        if not self.is_lost:
            return True
        now_ns = time.monotonic_ns()
        if now_ns - self._lost_ns >= self._alone_ns:
            return False
        if now_ns >= self._seek_ns:
            self._seek_ns = now_ns + SEEK_NS
            if self._connect():
                introduce()
        return True

    def _connect(self) -> bool:
        assert self._path is not None
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as found:
            found.setblocking(False)
            try:
                with short(self._path) as path:
                    found.connect(path)
                region.send(found, {"kind": HELLO}, [self._output] if self._output >= 0 else [])
            except OSError:
                return False
            os.set_blocking(found.fileno(), self._control.getblocking())
            os.dup2(found.fileno(), self.fileno(), inheritable=False)
        self.is_lost = False
        return True


@contextmanager
def short(path: Path) -> Iterator[str]:
    """Another name of `path`, that fits the 108 bytes of a socket's address wherever the directory lies."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


_untold = 0  # lines that found no room


def say(line: bytes) -> None:
    """Print one line for the supervisor's log."""
    global _untold
    notice = b'{"event":"lines_lost","count":%d}\n' % _untold if _untold else b""
    try:
        os.write(STDERR, notice + line + b"\n")
        _untold = 0
    except OSError:
        _untold += 1
