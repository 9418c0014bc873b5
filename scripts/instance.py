"""One data directory belongs to one running instance: its lock, its epochs, and the port it serves.

The lock is inherited on purpose by the children that write below the directory: when the supervisor is
killed, the next one gets in only after the last of them is gone, and two engines never write one
checkpoint.
"""

import errno
import fcntl
import os
import socket
import time
from pathlib import Path

WAIT_SECONDS = 1.0  # for the children of a killed supervisor to follow it
_LOOK_SECONDS = 0.02


class Busy(Exception):
    """Another process has what this instance needs. The text says what, for the user."""


class Instance:
    """The data directory, made with mode 0700 if it is not there. Raises Busy, and OSError with its file's
    name.
    """

    def __init__(self, data: Path):
        self.data = data
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(self.lock, data)
        except Busy:
            os.close(self.lock)
            raise
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"{os.getpid()}\n".encode(), 0)
        self.epoch_was_damaged = False

    def directory(self, name: str) -> Path:
        """Give the directory of that name below the data directory, made if it is not there."""
        path = self.data / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def next_epoch(self) -> int:
        """Give a number higher than any that this directory has given before. It is on disk before it is
        used.
        """
        path = self.data / "epoch"
        epoch = self._last_epoch(path) + 1
        fresh = self.data / "epoch.new"
        with fresh.open("w") as file:
            file.write(f"{epoch}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        directory = os.open(self.data, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
        return epoch

    def _last_epoch(self, path: Path) -> int:
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return 0
        if text.strip().isdigit() and len(text) < 20:
            return int(text)
        self.epoch_was_damaged = True
        return int(time.time())  # no count of restarts has come so far

    def close(self) -> None:
        os.close(self.lock)


def _take(lock: int, data: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                owner = os.pread(lock, 20, 0).decode(errors="replace").strip()
                text = f"{data} is in use by another ringside (process {owner or 'unknown'}); give --data DIR"
                raise Busy(text) from None
        time.sleep(_LOOK_SECONDS)


def reserve(host: str, port: int) -> socket.socket:
    """Hold `port` (0: a free one) without listening, so that gateways of this user may share it. Raises
    Busy, OSError.

    Gateways listen with SO_REUSEPORT, and so would those of another instance: the kernel would deal out the
    clients of both among them. Hence the port must be free of everyone first. The holder itself is no
    listener and is never given a client.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            with socket.socket(family) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections do not count
                alone.bind(address)
                address = alone.getsockname()
            holder = socket.socket(family)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(address)
            return holder
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if time.monotonic() > deadline:
                raise Busy(f"{host}:{port} is in use by another program; give --port") from None
        time.sleep(_LOOK_SECONDS)


def free_port() -> int:
    """A loopback port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
