"""A journaler in a process of its own, which makes its system calls through a gate: the n-th can be made to
fail, to be done in part, or to be its last.

It is a fork of the test's process, so that its kernels are there: a hundred of them take seconds.
"""

import errno
import mmap
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum

import msgspec
import numpy as np

from engine.exchange import durable
from engine.journal import disk, runner
from engine.journal.record import SECTOR
from engine.journal.runner import Settings
from shm import region, stats, wait
from tests.engine.journal.made import commands

CALLS = {  # of the operating system; a close says nothing of what is on the disk
    *("listdir", "mkdir", "open", "posix_fallocate", "fstat", "preadv", "pwrite", "fdatasync", "fsync"),
    *("ftruncate", "posix_fadvise", "unlink"),
}
HOWS = ("EIO", "ENOSPC", "short", "killed before", "killed within", "killed after")
PARTIAL = ("short", "killed within")  # only a write is done in part
RECORD_BYTES, SEGMENT_BYTES = 64 * SECTOR, 80 * SECTOR
SECONDS = 60


class Met(IntEnum):
    """Where the call stood that was to fail."""

    NOWHERE = 0  # there is no call of that number
    ALONE = 1
    BESIDE = 2  # on the thread that waits for the disk


class Gate:
    """Stands for `os` in engine/journal/disk.py. met: called at the fault, before anything else."""

    def __init__(self, number: int, how: str, met: Callable[[], None]):
        self._left, self._how, self._met = number, how, met

    def __getattr__(self, name):
        call = getattr(os, name)
        return (lambda *of, **more: self._called(name, call, *of, **more)) if name in CALLS else call

    def _called(self, name, call, *of, **more):
        if name == "pwrite" or self._how not in PARTIAL:
            self._left -= 1
            if self._left == -1:
                return self._fail(call, *of, **more)
        return call(*of, **more)

    def _fail(self, call, *of, **more):
        self._met()
        if self._how in ("EIO", "ENOSPC"):
            raise OSError(getattr(errno, self._how), "made to fail")
        done = None
        with suppress(OSError):
            if self._how in PARTIAL:
                fd, piece, offset = of
                done = call(fd, piece[: len(piece) // 2], offset)
            elif self._how == "killed after":
                call(*of, **more)
        if self._how != "short":
            os.kill(os.getpid(), signal.SIGKILL)
        return done


class Engine:
    """The other end of the ring, in the test's process."""

    def __init__(self):
        self.kept, self.page, self.bell_fd = durable.Journal(1, 0), stats.Stats(), wait.new_eventfd()
        self.sequence = 0

    def push(self, count: int) -> None:
        self.kept.push(commands(self.sequence + 1, count))
        self.sequence += count

    def close(self) -> None:
        self.kept.region.close()
        self.page.region.close()
        os.close(self.bell_fd)


class Forked:
    """A journaler of the journal in `directory`; `met_at` is what was durable when its fault came, or -1."""

    def __init__(self, directory, engine: Engine, epoch: int, number: int = -2, how: str = ""):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(SECONDS)
        self._note = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.int64)
        self._note[:2] = -1, Met.NOWHERE
        self.code: int | None = None
        self._met_engine = engine
        self.bell: tuple[stats.Stats, int] | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self.control.close()
            self._live(directory, engine, epoch, theirs, number, how)
        theirs.close()

    def _live(self, directory, engine, epoch, control, number, how):
        """In the child; never returns."""
        try:

            def met():
                is_alone = threading.current_thread() is threading.main_thread()
                self._note[:2] = engine.kept.durable, Met.ALONE if is_alone else Met.BESIDE

            disk.os = Gate(number, how, met)
            runner.FULL_SECONDS = 0.01
            settings = Settings(epoch, str(directory), SEGMENT_BYTES)
            given = msgspec.json.encode(settings).decode()
            os._exit(runner.main(["--settings", given, "--control-fd", str(control.detach())]))
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    @property
    def met_at(self) -> int:
        return int(self._note[0])

    @property
    def met(self) -> Met:
        return Met(int(self._note[1]))

    def is_alive(self) -> bool:
        """Whether it has not ended; `code` is how it did: its exit code, or less than 0 for a signal."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def meet(self) -> int | None:
        """Hand it the engine's ring; what its journal holds already. None: it has ended before."""
        engine = self._met_engine
        try:
            message, (page, bell_fd) = region.receive(self.control)
            fds = [engine.kept.region.fd, engine.page.region.fd, engine.bell_fd]
            region.send(self.control, {"kind": "journal", "epoch": 1}, fds)
        except (ConnectionError, OSError):
            return None
        self.bell = stats.attach(page), bell_fd
        return message["sequence"]

    def ring(self) -> None:
        page, bell_fd = self.bell
        wait.ring_bells([page.arrays["bell"]], [bell_fd])

    def end(self) -> int:
        """Tell it to end, and wait; its code."""
        with suppress(OSError):  # it has ended
            region.send(self.control, {"kind": "drain"})
        while self.is_alive():
            time.sleep(0.001)
        self.control.close()
        if self.bell is not None:
            os.close(self.bell[1])
        return self.code
