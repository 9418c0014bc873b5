"""What does it cost to keep an exchange's commands, beyond writing their bytes to the disk?

stream    commands through an engine's ring, which another process never lets be empty, until they are called
          durable / one pwrite and one fdatasync for each of the records that the journaler made of them last,
          of as many bytes
kept      the same for one batch at a time: pushed, and waited for / one pwrite and one fdatasync of its
          record's bytes. Nothing can be done while the disk works

All write into room that was taken before, and never the same room twice.

answered  `noop` actions over one logged-in WebSocket, one after the other: an exchange that is journaled /
          one in memory. Both run at once, and are asked in turns

The journals lie in the directory that TMPDIR names: it is that disk which is measured.
"""

import asyncio
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from engine.exchange import durable
from engine.journal import record
from engine.journal.disk import Disk
from engine.journal.runner import Journaler, Settings, Source
from engine.journal.writer import SEGMENT_BYTES
from perf import mapped, ratio
from scripts import trading_client
from scripts.trading_client import TradingClient
from scripts.wallet import Wallet
from shm import stats, wait
from shm.control import Line
from shm.layout import COMMAND
from tests.e2e.instance import Exchange

BATCHES = (1, 16, 128, 1024, 4096)  # commands of one sync
TURN_BYTES, TURN_SYNCS = 8 << 20, 64  # of one turn, at most
STREAM, PUSHED = 1 << 17, 256  # commands of a turn, and of what is pushed at once
FULL_SECONDS = 0.0001  # between two looks of who pushes, while the ring is full
ROUNDS, PROCESSES = 21, 3
ACTIONS, ACTION_ROUNDS = 200, 15


class Noting(Disk):
    """Remembers how long the records were."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def write(self, fd: int, piece: memoryview, offset: int) -> None:
        super().write(fd, piece, offset)
        self.lengths.append(len(piece))


class Keeping:
    """The engine's end of a ring and a journaler on it, in one process."""

    def __init__(self, directory: Path):
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control, self.disk = control, Noting()
        self._engine = durable.Journal(1, 0)
        self._page, self._bell = stats.Stats(), wait.new_eventfd()
        self._journaler = Journaler(Settings(1, str(directory)), Line(theirs), self.disk)
        self._journaler._open(None)
        fds = [os.dup(fd) for fd in (self._engine.region.fd, self._page.region.fd, self._bell)]
        self._journaler.source = Source(fds, 1)

    def batches(self, size: int) -> Callable[[], None]:
        """Have one batch kept, until it is called durable."""
        commands = mapped.zeros(size, COMMAND)
        commands["sequence"] = np.arange(1, size + 1)

        def keep() -> None:
            self._engine.push(commands)
            self._journaler._turn()
            commands["sequence"] += size

        return keep

    def stream(self) -> int:
        """Have STREAM commands kept, of those that `feed` pushes."""
        self.disk.lengths.clear()
        end = self._engine.durable + STREAM
        while self._engine.durable < end:
            self._journaler._turn()
        return STREAM

    def feed(self) -> None:
        """In a process of its own, as long as this one lives: push whatever there is room for."""
        parent = os.getpid()
        if os.fork():
            return
        commands = np.zeros(PUSHED, COMMAND)
        commands["sequence"] = np.arange(1, PUSHED + 1)
        while os.getppid() == parent:
            if self._engine.room >= PUSHED:
                self._engine.push(commands)
                commands["sequence"] += PUSHED
            else:
                time.sleep(FULL_SECONDS)
        os._exit(0)


class Bare:
    """The same bytes into files of the same kind."""

    def __init__(self, directory: Path):
        self._directory, self._files, self._fd = directory, 0, -1
        self._bytes = memoryview(np.ones(record.RECORD_BYTES_MAX, np.uint8))
        self._offset = SEGMENT_BYTES

    def keep(self, length: int) -> None:
        if self._offset + length > SEGMENT_BYTES:
            if self._fd >= 0:
                os.close(self._fd)
            self._files += 1
            self._fd = os.open(self._directory / str(self._files), os.O_RDWR | os.O_CREAT, 0o600)
            os.posix_fallocate(self._fd, 0, SEGMENT_BYTES)
            self._offset = 0
        os.pwrite(self._fd, self._bytes[:length], self._offset)
        os.fdatasync(self._fd)
        self._offset += length


_kept: list[Any] = []  # directories, until the process ends


def both() -> tuple[Keeping, Bare]:
    folder = tempfile.TemporaryDirectory()
    _kept.append(folder)
    (Path(folder.name) / "bare").mkdir()
    return Keeping(Path(folder.name) / "journal"), Bare(Path(folder.name) / "bare")


def stream() -> tuple[ratio.Work, ratio.Work]:
    ours, bare = both()
    ours.feed()

    def written() -> int:
        for length in ours.disk.lengths:
            bare.keep(length)
        return STREAM

    return ours.stream, written


def kept(batch: int) -> tuple[ratio.Work, ratio.Work]:
    ours, bare = both()
    length = record.length_of(batch)
    syncs = min(TURN_SYNCS, TURN_BYTES // length)

    def turn(keep: Callable[[], None]) -> int:
        for _ in range(syncs):
            keep()
        return syncs

    return partial(turn, ours.batches(batch)), partial(turn, partial(bare.keep, length))


# --- answers ------------------------------------------------------------------------------------------------


class Asked:
    """One exchange, and a client of it on a loop of its own."""

    def __init__(self, folder: Path, durability: str):
        folder.mkdir()
        config = folder / "exchange.toml"
        config.write_text(
            f'[exchange]\ndurability = "{durability}"\n'
            "[gateway.limits]\nactions_per_minute_max = 100_000_000\nmessages_per_minute_max = 100_000_000\n"
        )
        self.exchange = Exchange(folder, "--config", str(config))
        self.exchange.start()
        self.exchange.wait_until_serving()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.client: TradingClient = self._do(self._connect())
        self.spent: list[float] = []

    async def _connect(self) -> TradingClient:
        wallet = Wallet.new()
        self.exchange.deposit(wallet.address)
        self._connection = trading_client.connect(self.exchange.url)
        client = await self._connection.__aenter__()
        await client.login(wallet, time.time_ns() // 10**6)
        return client

    def _do(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result()

    def ask(self) -> int:
        """ACTIONS actions, one after the other."""

        async def all_of_them() -> None:
            for _ in range(ACTIONS):
                began = time.perf_counter()
                await self.client.act({"type": "noop"})
                self.spent.append(time.perf_counter() - began)

        self._do(all_of_them())
        return ACTIONS

    def told(self) -> str:
        each = self.spent[ACTIONS:]
        return f"p50 {median(each) * 1e6:.0f} us, p99 {quantiles(each, n=100)[98] * 1e6:.0f} us"


def answers() -> None:
    """Ask both in turns, and say how they compare."""
    with tempfile.TemporaryDirectory() as name:
        journaled, memory = (Asked(Path(name) / kind, kind) for kind in ("journaled", "memory"))
        try:
            compared = ratio.ratio(journaled.ask, memory.ask, ACTION_ROUNDS)
            print(f"an action answered, journaled / in memory: {compared}", flush=True)
            print(f"  journaled {journaled.told()}; in memory {memory.told()}", flush=True)
        finally:
            for one in (journaled, memory):
                one.exchange.end()


if __name__ == "__main__":
    ratio.report(f"{STREAM:,} commands in a stream / as many records and bytes", stream, PROCESSES, ROUNDS)
    for batch in BATCHES:
        name = f"{batch} commands kept / pwrite and fdatasync of {record.length_of(batch):,} bytes"
        ratio.report(name, partial(kept, batch), PROCESSES, ROUNDS)
    answers()
