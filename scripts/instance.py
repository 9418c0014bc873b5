"""One data directory belongs to one running instance: its lock, its epochs, and the port it serves.

The lock is the supervisor's alone. Those that write below the directory have locks of their own
(scripts/places.py), by which the next supervisor finds those that it takes over. Their gateways still listen
then, so the port is written down: it is theirs if one of them lives.
"""

import errno
import fcntl
import os
import signal
import socket
import time
from pathlib import Path

from scripts.places import DIRECTORY, Orphan, Place, taken

WAIT_SECONDS = 1.0  # for another one that is about to end
DRAINED_SECONDS = 1.5  # for gateways that serve what is not wanted any more
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

    def place(self, name: str) -> Place:
        """The place of the role of that name."""
        return Place(self.directory(DIRECTORY) / name)

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

    def hold(self, host: str, port: int) -> socket.socket:
        """Hold the port as `reserve` does, or the one at which gateways of a killed supervisor serve.

        Such gateways are ended if they serve elsewhere than they should: nobody is to connect to them.
        """
        gateways = [place for place in taken(self.data / DIRECTORY) if place.name.startswith("gateway")]
        served_host, served_port = self._served()
        if gateways and served_host == host and port in (0, served_port):
            holder = _share(host, served_port)
        else:
            _dismiss(gateways)
            holder = reserve(host, port)
        (self.data / "port").write_text(f"{host} {holder.getsockname()[1]}\n")
        return holder

    def _served(self) -> tuple[str, int]:
        try:
            host, port = (self.data / "port").read_text().split()
            return host, int(port)
        except (OSError, ValueError):
            return "", 0

    def close(self) -> None:
        os.close(self.lock)


def _dismiss(places: list[Place]) -> None:
    """Have these processes end, and wait for it."""
    found = []
    for place in places:
        try:
            if (holder := place.holder()) is not None:
                found.append(Orphan(place, holder))
        except ProcessLookupError:
            pass
    for orphan in found:
        orphan.signal(signal.SIGTERM)
    deadline = time.monotonic() + DRAINED_SECONDS
    while any(orphan.is_alive for orphan in found) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    for orphan in found:
        orphan.signal(signal.SIGKILL)
        orphan.close()


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
            return _share(*address[:2])
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if time.monotonic() > deadline:
                raise Busy(f"{host}:{port} is in use by another program; give --port") from None
        time.sleep(_LOOK_SECONDS)


def _share(host: str, port: int) -> socket.socket:
    """Hold a port that others of this user share already, or may share from now on."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    holder = socket.socket(family)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(address)
    except OSError:
        holder.close()
        raise
    return holder


def free_port() -> int:
    """A loopback port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
