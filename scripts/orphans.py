"""Takes over what a killed supervisor has left: those who serve on and are as wanted; all others are ended.

Each orphan looks for a supervisor a few times a second (shm/control.py). It is let in for a short time, here:
the kernel says which process connects, and the locks of the places which processes there are. Whoever has not
come by then, or was told something else at its start than it would be told now, is ended, in the order in
which a supervisor ends its own. After that nobody else is there.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from scripts.places import Orphan, Place, taken
from shm import region
from shm.control import HELLO, short

NAME = "control.sock"  # below the data directory
COME_SECONDS = 2.0  # for an orphan to connect
NAMED_SECONDS = 1.0  # for one that was only just started to write down who it is
KILLED_SECONDS = 5.0  # for the kernel to end one: a write that waits for a disk is waited for
LOOK_SECONDS = 0.02
GATEWAY, JOURNALER = "gateway", "journaler"  # how the names of their places begin
# Who is told to end in which turn, and how long he has: as in `Supervisor._end_in_order`.
TURNS_SECONDS = (1.2, 0.8, 5.0)

Tell = Callable[..., None]


class Adopted:
    """An orphan that has come. The descriptors are whoever's takes it over."""

    def __init__(self, orphan: Orphan, control: socket.socket, output: int):
        self.orphan, self.control, self.output = orphan, control, output

    def close(self) -> None:
        self.orphan.close()
        self.control.close()
        os.close(self.output)


async def take_over(directory: Path, path: Path, wanted: Mapping[str, str], tell: Tell) -> list[Adopted]:
    """Let in at the socket `path` those who have a place below `directory`, and the mark that is `wanted`
    for its name. Nobody else has one after this, but who cannot be ended.
    """
    alive = await _alive(taken(directory), tell)
    welcome = [orphan for orphan in alive if wanted.get(orphan.name) == orphan.mark]
    others = [orphan for orphan in alive if orphan not in welcome]
    for orphan in others:
        tell(f"{orphan.name} is not what is to run now: it is ended", pid=orphan.pid)
    gate = Gate(path, welcome)
    try:
        await asyncio.gather(gate.wait(), _end(others))
    finally:
        gate.close()
    late = [orphan for orphan in welcome if orphan.pid not in gate.come and orphan.is_alive]
    for orphan in late:
        tell(f"{orphan.name} has not come: it is killed", level="warning", pid=orphan.pid)
        orphan.signal(signal.SIGKILL)
    await _gone(late, KILLED_SECONDS)
    for orphan in alive:
        if orphan.pid not in gate.come:
            orphan.close()
    return [*gate.come.values()]


class Gate:
    """Listens at `path` for these processes; `come`: those that have, by their pid."""

    def __init__(self, path: Path, welcome: Iterable[Orphan]):
        self._path, self._welcome = path, {orphan.pid: orphan for orphan in welcome}
        self.come: dict[int, Adopted] = {}
        self._unheard: set[socket.socket] = set()
        self._loop = asyncio.get_running_loop()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path.unlink(missing_ok=True)  # the instance's lock says that nobody listens there
        with short(path) as name:
            self._listener.bind(name)
        os.chmod(path, 0o600)
        self._listener.setblocking(False)
        self._listener.listen()
        self._loop.add_reader(self._listener, self._accept)

    async def wait(self) -> None:
        """Until all have come who are there, or their time is up."""
        deadline = self._loop.time() + COME_SECONDS
        while self._loop.time() < deadline and any(
            orphan.is_alive for pid, orphan in self._welcome.items() if pid not in self.come
        ):
            await asyncio.sleep(LOOK_SECONDS)

    def close(self) -> None:
        for one in [*self._unheard]:
            self._refuse(one)
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            one, _ = self._listener.accept()
        except OSError:
            return
        one.setblocking(False)
        self._unheard.add(one)
        pid, uid, _ = region.peer(one)
        if uid == os.geteuid() and pid in self._welcome and pid not in self.come:
            self._loop.add_reader(one, self._hear, pid, one)
        else:
            self._refuse(one)

    def _hear(self, pid: int, one: socket.socket) -> None:
        """What it says first. The rest waits in the socket."""
        try:
            message, fds = region.receive(one)
        except BlockingIOError:
            return
        except (OSError, region.Refused):
            self._refuse(one)
            return
        if message.get("kind") != HELLO or len(fds) != 1:
            for fd in fds:
                os.close(fd)
            self._refuse(one)
            return
        self._loop.remove_reader(one)
        self._unheard.discard(one)
        self.come[pid] = Adopted(self._welcome[pid], one, fds[0])

    def _refuse(self, one: socket.socket) -> None:
        self._loop.remove_reader(one)
        self._unheard.discard(one)
        one.close()


async def _alive(places: list[Place], tell: Tell) -> list[Orphan]:
    """The processes that have these places; one that does not say who it is can only be waited for."""
    found = []
    deadline = asyncio.get_running_loop().time() + NAMED_SECONDS
    for place in places:
        while (holder := place.holder()) is None and place.is_taken:
            if asyncio.get_running_loop().time() > deadline:
                tell(f"nobody knows who {place.name} is", level="warning")
                break
            await asyncio.sleep(LOOK_SECONDS)
        try:
            if holder is not None and place.is_taken:
                found.append(Orphan(place, holder))
        except ProcessLookupError:
            pass
    return found


async def _end(orphans: list[Orphan]) -> None:
    """First those who talk to clients, then those whom they read from, and last who keeps their commands."""
    for turn, seconds in enumerate(TURNS_SECONDS):
        those = [orphan for orphan in orphans if _turn_of(orphan.name) == turn]
        for orphan in those:
            orphan.signal(signal.SIGTERM)
        for orphan in await _gone(those, seconds):
            orphan.signal(signal.SIGKILL)
        await _gone(those, KILLED_SECONDS)


def _turn_of(name: str) -> int:
    if name.startswith(GATEWAY):
        return 0
    return 2 if name.startswith(JOURNALER) else 1


async def _gone(orphans: list[Orphan], seconds: float) -> list[Orphan]:
    """Wait for their ends, at most so long; those that are left."""
    deadline = asyncio.get_running_loop().time() + seconds
    while left := [orphan for orphan in orphans if orphan.is_alive]:
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(LOOK_SECONDS)
    return left
