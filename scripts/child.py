"""One process of the supervisor's: its end is seen, and its words are heard.

A child is executed, not forked: it shares no Python state with the supervisor. It gets the lock of its place,
its end of a control socket (SOCK_SEQPACKET, `--control-fd`), and a pipe for what it prints. It is waited for
and signalled by pidfd: a number that the kernel reuses is never mistaken for it.

Most outlive a supervisor that is killed (`Afterlife`), and are `adopted` by the next one, which is not their
parent: how such a process ends it cannot know. A child without an afterlife is killed by the kernel when the
supervisor dies (PR_SET_PDEATHSIG).
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.orphans import Adopted
from shm import region

ROOT = Path(__file__).resolve().parents[1]

LINE_BYTES_MAX = 4_096  # of what a child prints without a newline
CLOSED_SECONDS = 2.0  # that a child may live on after it has closed its control socket
_READ_BYTES = 1 << 16

# Runs in the child before its own program. (preexec_fn would run in a copy of this process instead.)
_LAUNCH = """
import ctypes, os, sys
PR_SET_PDEATHSIG, SIGKILL = 1, 9
parent, dies_with_it, place, note, *program = sys.argv[1:]
if int(dies_with_it):
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
if os.getppid() != int(parent):
    sys.exit("the supervisor has died")
with open("/proc/self/stat") as file:
    start_time = file.read().rpartition(")")[2].split()[19]
os.pwrite(int(place), f"{os.getpid()} {start_time} {note}".encode(), 0)
os.execv(sys.executable, [sys.executable, *program])
"""

_THREADS = ("MALLOC_ARENA_MAX", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


OnLine = Callable[[str], None]  # gets each line that the child prints
# Gets each message of the control socket and the descriptors that came with it, which are its own from then
# on. None: the child has no control socket.
OnMessage = Callable[[dict[str, Any], list[int]], None] | None


class Afterlife(NamedTuple):
    """What a process needs that outlives its supervisor (shm/control.py)."""

    path: Path  # of the socket at which the next one will listen
    alone_seconds: float  # how long to look for it


def start(
    arguments: Sequence[str],
    on_line: OnLine,
    on_message: OnMessage,
    place: int,
    note: str,
    afterlife: Afterlife | None = None,
) -> "Child":
    """Run `python arguments...`. place: the lock that it inherits; note: what it adds to its name there."""
    control = theirs = None
    output, printed = os.pipe()
    inherited = [place]
    if on_message is not None:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inherited.append(theirs.fileno())
        arguments = [*arguments, "--control-fd", str(theirs.fileno())]
    if afterlife is not None:
        inherited.append(output)
        os.set_blocking(printed, False)
        path, seconds = afterlife
        alone_ms = str(int(seconds * 1000))
        words = ("--control-path", str(path), "--alone-ms", alone_ms, "--output-fd", str(output))
        arguments = [*arguments, *words]
    launched = [str(os.getpid()), str(int(afterlife is None)), str(place), note, *arguments]
    try:
        popen = _spawn(launched, printed, inherited)
    except OSError:
        os.close(output)
        if control is not None:
            control.close()
        raise
    finally:
        os.close(printed)
        if theirs is not None:
            theirs.close()
    return Child(popen.pid, os.pidfd_open(popen.pid), control, output, on_line, on_message, popen.wait)


def adopt(found: Adopted, on_line: OnLine, on_message: OnMessage) -> "Child":
    """Take over a process of a supervisor that was killed."""
    pid, pidfd = found.orphan.pid, found.orphan.pidfd
    return Child(pid, pidfd, found.control, found.output, on_line, on_message, None)


class Child:
    """wait: gives the exit code of a process that has ended; None: nobody here can know it.

    The descriptors are the child's own from now on.
    """

    def __init__(
        self,
        pid: int,
        pidfd: int,
        control: socket.socket | None,
        output: int,
        on_line: OnLine,
        on_message: OnMessage,
        wait: Callable[[], int] | None,
    ):
        self._loop = asyncio.get_running_loop()
        self._on_line, self._on_message = on_line, on_message
        self._partial = b""
        self.pid, self._pidfd, self._control, self._output, self._wait = pid, pidfd, control, output, wait
        os.set_blocking(output, False)
        if control is not None:
            control.setblocking(False)
        self._ended: asyncio.Future[int | None] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._on_end)
        self._loop.add_reader(self._output, self._read_output)
        if self._control is not None:
            self._loop.add_reader(self._control.fileno(), self._receive)

    @property
    def is_alive(self) -> bool:
        return not self._ended.done()

    async def ended(self) -> int | None:
        """Wait for the end; give the exit code, or minus the signal that killed it. None: it is not known."""
        return await asyncio.shield(self._ended)

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> bool:
        """Say `message`, without waiting. False: the child has ended, or is so far behind that it is
        killed.
        """
        if self._control is None or not self.is_alive:
            return False
        try:
            region.send(self._control, message, fds)
        except BlockingIOError:
            self._on_line("has stopped reading its control socket: killed")
            self.signal(signal.SIGKILL)
            return False
        except OSError:
            return False  # it is ending; the pidfd will tell
        return True

    def become(self, on_line: OnLine, on_message: OnMessage) -> None:
        """What it prints and says is somebody else's from now on."""
        self._on_line, self._on_message = on_line, on_message

    def signal(self, number: int) -> None:
        if self.is_alive:
            signal.pidfd_send_signal(self._pidfd, number)

    def _receive(self) -> None:
        assert self._control is not None and self._on_message is not None
        try:
            received = region.receive(self._control)
        except BlockingIOError:
            return
        except region.Refused as refusal:
            self._on_line(f"sent what is not a message: {refusal}")
            return
        except OSError:
            self._close_control()
            self._loop.call_later(CLOSED_SECONDS, self.signal, signal.SIGKILL)
            return
        self._on_message(*received)

    def _read_output(self) -> bool:
        """Hand on the lines that are there. Gives whether more may come at once."""
        try:
            chunk = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return False
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        if not chunk or len(self._partial) > LINE_BYTES_MAX:
            lines, self._partial = [*lines, self._partial], b""
        if not chunk:
            self._loop.remove_reader(self._output)
        for line in lines:
            if text := line.decode(errors="replace").rstrip():
                self._on_line(text)
        return len(chunk) > 0

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        code = self._wait() if self._wait is not None else None  # it has ended: this does not wait
        while self._control is not None and self._is_readable():
            self._receive()
        self._close_control()
        while self._read_output():
            pass
        if self._partial:  # a process of its own still holds the pipe
            self._on_line(self._partial.decode(errors="replace"))
        self._loop.remove_reader(self._output)
        os.close(self._output)
        self._ended.set_result(code)
        os.close(self._pidfd)

    def _is_readable(self) -> bool:
        assert self._control is not None
        try:
            self._control.recv(1, socket.MSG_PEEK)
        except OSError:
            return False
        return True

    def _close_control(self) -> None:
        if self._control is not None:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None


def _spawn(launched: Sequence[str], output: int, inherited: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start the interpreter in a session of its own, so that ^C on the terminal reaches the supervisor
    alone.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LAUNCH, *launched],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=inherited,
        start_new_session=True,
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    """Ours, so that modules are found wherever the command was given, and no thread is made that nobody
    asked for.
    """
    environment = dict.fromkeys(_THREADS, "1") | os.environ
    places = [str(ROOT), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(places))
    return environment | {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
