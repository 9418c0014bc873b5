"""The gateway process: its loop, its listener, how it waits for the engine, and how it ends.

    python -m gateway --control-fd N --settings JSON

Over the control socket (SOCK_SEQPACKET, shm.region.send) it says `gateway` with its stats region (which holds
its bell) and an eventfd, then `ready` with its port. It is told `world` with a descriptor, `meta`,
`engine_lost`, `drain`. With the world of an exchange come its engine's stats (which hold its bell) and
eventfd, and the answer is `door` with a descriptor. A supervisor that has taken over from one that was killed
is told the same, and tells the same: a world that is served already changes nothing, and is answered with the
door that there is. SIGTERM drains; a second one ends it at once.

The only module that reads clocks. A fault of ours ends the process: whoever started it starts it again.
"""

import asyncio
import dataclasses
import gc
import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import uvloop

from gateway import door, encode, interest, quotes, signing
from gateway.application import Application
from gateway.archive import Archive
from gateway.exchange import Exchange, ExchangeLimits
from gateway.fanout import FanoutLimits
from gateway.feed import Feed, FeedLimits
from gateway.front import Front
from gateway.http import Limits
from gateway.info import Info
from gateway.session import SessionLimits
from gateway.world import World
from shm import broadcast, control, layout, region, rows, seqlock, spsc, stats, wait

BACKLOG = 4096  # connections that the kernel holds for us
DRAIN_SECONDS = 0.85
ANSWER_SECONDS = 0.15  # for the engine, before that: together less than the 1.2 that the supervisor waits
TURN_SECONDS = 0.05  # the longest sleep: the bell may not be known to the engine yet
RETRY_SECONDS = 0.005  # while something could not be read
TICK_NS = 500_000_000
EXIT_FAULT, EXIT_AT_ONCE = 1, 130

COUNTERS = (
    "connections", "websockets", "accepted", "requests", "messages_received", "messages_encoded",
    "messages_sent", "events", "blocks", "laps", "slow_clients", "streams", "faults", "height",
)  # fmt: skip
HISTOGRAMS = ("turn_ns",)

WARM = (broadcast, seqlock, spsc, rows, wait, stats, region, encode, quotes, interest, door)


class Settings(msgspec.Struct, frozen=True):
    """What the supervisor gives. limits: any field of the Limits classes, by its name.

    sources: the letters of the networks whose signatures are taken in exchange mode (signing.NETWORKS).
    """

    host: str = "127.0.0.1"
    port: int = 3001
    index: int = 0
    count: int = 1
    wait: Literal["park", "spin"] = "park"
    cpu: int | None = None
    limits: dict[str, int | float] = {}
    mode: Literal["follow", "exchange"] = "follow"
    sources: Annotated[str, msgspec.Meta(pattern=r"\A(a|b|ab|ba)\Z")] = signing.OURS
    durability: Literal["journaled", "memory"] = "memory"
    archive: str | None = None  # a file: what an exchange's rings forget
    data: str | None = None
    meta: dict[str, Any] | None = None
    spot_meta: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class AllLimits:
    rim: Limits
    feed: FeedLimits
    session: SessionLimits
    exchange: ExchangeLimits


def limits_of(given: dict[str, int | float]) -> AllLimits:
    """Spread limits over the classes that have them. Raises ValueError for a name that none has."""
    left = dict(given)

    def take(kind: type[Any], **more: Any) -> Any:
        names = {field.name for field in dataclasses.fields(kind)} & left.keys()
        return kind(**{name: left.pop(name) for name in names}, **more)

    fanout = take(FanoutLimits)
    limits = AllLimits(
        take(Limits), take(FeedLimits, fanout=fanout), take(SessionLimits), take(ExchangeLimits)
    )
    if left:
        raise ValueError(f"unknown limits: {', '.join(sorted(left))}")
    return limits


def _exchange(settings: Settings, limits: ExchangeLimits) -> Exchange | None:
    if settings.mode == "follow":
        return None
    if "a" in settings.sources:
        log("mainnet signatures are taken", why="each of them is a valid order on the public exchange too")
    return Exchange(settings.sources, limits, time.monotonic_ns, time.time_ns, settings.durability)


def listen(host: str, port: int) -> socket.socket:
    """Share a port with the other gateways: the kernel spreads the connections."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.listen(BACKLOG)
    return listener


class Server:
    """One gateway from its first message to its last. Made inside the running loop."""

    def __init__(self, line: control.Line, settings: Settings):
        limits = limits_of(settings.limits)
        self._settings = settings
        self._line = line
        self._port = 0  # until it listens
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._feed = Feed(limits.feed)
        self._info = Info(settings.meta, settings.spot_meta)
        self._archive = Archive(settings.archive) if settings.archive is not None else None
        self._info.older = self._archive
        self._exchange = _exchange(settings, limits.exchange)
        self._application = Application(
            self._feed, self._info, limits.session, time.monotonic_ns, time.time_ns, self._exchange
        )
        self._front = Front(self._application, log_fault, limits.rim)
        self._stats = stats.Stats(COUNTERS, HISTOGRAMS, name=f"gateway {settings.index}")
        self._bell_fd = wait.new_eventfd()
        self._engine: tuple[region.Region, int] | None = None  # an exchange's: its stats, its eventfd
        self._door: door.Door | None = None
        self._ticked_ns = 0
        self._turns = False  # a turn is scheduled
        self._spins = self._guarded(self._spin)

    async def run(self) -> None:
        """Serve until told to end. Raises what ended it, if it was a fault."""
        self._line.setblocking(False)
        self._listen_to_line()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._told_to_end)
        self._introduce()
        listener = listen(self._settings.host, self._settings.port)
        self._front.serve(listener)
        self._port = listener.getsockname()[1]
        self._tell_port()
        if self._settings.wait == "spin":
            self._spins()
        else:
            self._loop.add_reader(self._bell_fd, self._guarded(self._woken))
            self._guarded(self._turn)()
        self._guarded(self._timer)()
        try:
            await self._ended
        finally:
            self._loop.remove_reader(self._line.fileno())
            self._loop.remove_reader(self._bell_fd)
            if self._ended.exception() is None:
                await self._answer_the_last()
            await self._front.drain(DRAIN_SECONDS)
            if self._archive is not None:
                self._archive.close()

    # how it is told

    def _listen_to_line(self) -> None:
        self._loop.add_reader(self._line.fileno(), self._guarded(self._hear))

    def _introduce(self) -> None:
        """Tell a supervisor who this is: at the start, and whenever another one has taken over."""
        self._line.send({"kind": "gateway", "pid": os.getpid()}, [self._stats.region.fd, self._bell_fd])
        if self._port:
            self._tell_port()

    def _tell_port(self) -> None:
        self._line.send({"kind": "ready", "port": self._port})

    def _hear(self) -> None:
        while not self._ended.done():
            try:
                heard = self._line.receive()
            except BlockingIOError:
                return
            if heard is None:
                self._loop.remove_reader(self._line.fileno())
                self._line.lose()
                self._look_for_supervisor()
                return
            self._obey(*heard)

    def _look_for_supervisor(self) -> None:
        if not self._line.tend(self._introduce):
            self._end()
        elif not self._line.is_lost:
            self._listen_to_line()

    def _obey(self, message: dict[str, Any], fds: list[int]) -> None:
        kind = message.get("kind")
        if kind == "world":
            self._adopt(fds, message.get("epoch"))
        elif kind == "meta":
            self._learn(message)
        elif kind == "engine_lost":
            self._application.lost_engine()
        elif kind == "drain":
            self._end()
        for fd in fds:
            os.close(fd)

    def _adopt(self, fds: list[int], epoch: int | None) -> None:
        """Take over a world, and the way to its engine if it is an exchange's. What is left in `fds` is not
        ours."""
        if self._info.world is not None and self._info.world.epoch == epoch:
            self._show_door()
            return
        try:
            if len(fds) != (1 if self._exchange is None else 3):
                raise region.Refused(f"{len(fds)} descriptors in mode {self._settings.mode}")
            world = World(region.attach(fds[0], layout.WORLD, epoch=epoch))
            fds.pop(0)
            engine = stats.attach(fds[0]) if fds else None
        except region.Refused as refused:
            log("world refused", why=str(refused))
            return
        old = self._info.world
        if engine is None:
            self._application.adopt(world)
        else:
            fds.pop(0)
            self._open_door(world, engine, fds.pop())
        if old is not None:
            old.region.close()
        self._schedule()

    def _open_door(self, world: World, engine: region.Region, bell_fd: int) -> None:
        old, self._engine = self._engine, (engine, bell_fd)
        opened = door.Door(world.epoch, world.arrays["status"], engine.arrays["bell"], bell_fd)
        self._application.adopt(world, opened)
        self._door = opened
        self._show_door()
        if old is not None:
            old[0].close()
            os.close(old[1])

    def _show_door(self) -> None:
        """Have the engine let in the door that was made for it. One that it has it knows again."""
        if self._door is not None and not self._door.is_closed:
            self._line.send({"kind": "door", "epoch": self._door.region.epoch}, [self._door.region.fd])

    def _learn(self, message: dict[str, Any]) -> None:
        """What the node says of its markets: in the message, or in a file that it names."""
        told = message
        if isinstance(message.get("path"), str):
            try:
                told = json.loads(Path(message["path"]).read_bytes())
            except (OSError, ValueError) as error:
                log("meta refused", why=str(error))
                return
        self._info.learn(told.get("meta"), told.get("spotMeta", told.get("spot_meta")))

    # how it waits

    def _spin(self) -> None:
        """Look at the rings in every turn of the loop, which never sleeps."""
        if not self._ended.done():
            self._loop.call_soon(self._spins)
        if self._application.has_news:
            self._take()

    def _woken(self) -> None:
        wait.drain(self._bell_fd)
        self._schedule()

    def _schedule(self) -> None:
        if not self._turns and self._settings.wait == "park" and not self._ended.done():
            self._turns = True
            self._loop.call_soon(self._guarded(self._turn))

    def _turn(self) -> None:
        """Take what is new; go on after the loop's other work while there is more, else let it sleep."""
        self._turns = False
        wait.woke(self._stats.bell)
        if self._application.has_news or self._application.pending:
            self._take()
        if not wait.sleep(self._stats.bell, lambda: self._application.has_news):
            self._schedule()

    def _take(self) -> None:
        began_ns = time.monotonic_ns()
        if self._application.turn(began_ns):
            self._stats.observe(0, time.monotonic_ns() - began_ns)

    def _timer(self) -> None:
        """The safety net under the bell, and what happens by the clock."""
        if self._ended.done():
            return
        if self._line.is_lost:
            self._look_for_supervisor()
        now_ns = time.monotonic_ns()
        if now_ns - self._ticked_ns >= TICK_NS:
            self._ticked_ns = now_ns
            self._application.tick(now_ns)
            self._count()
            self._stats.region.beat(now_ns)
        if self._application.has_news or self._application.pending:
            self._take()
        pause = RETRY_SECONDS if self._application.pending else TURN_SECONDS
        self._loop.call_later(pause, self._guarded(self._timer))

    def _count(self) -> None:
        rim, told, fanout = self._front.counts, self._feed.counts, self._feed.fanout
        figures = (
            rim.open, rim.websockets, rim.accepted, rim.requests, rim.messages, told.messages,
            fanout.writes, told.events, told.blocks, told.laps, told.slow_clients,
            len(fanout.streams), rim.faults, self._feed.height,
        )  # fmt: skip
        for name, figure in zip(COUNTERS, figures, strict=True):
            self._stats.set(name, figure)

    # how it ends

    async def _answer_the_last(self) -> None:
        """Take no more actions, and wait a little for the engine's word on those that it has."""
        until = self._loop.time() + ANSWER_SECONDS
        self._application.stop()
        while self._application.in_flight and self._loop.time() < until:
            await asyncio.sleep(RETRY_SECONDS)
            self._take()
        self._application.give_up()

    def _told_to_end(self) -> None:
        if self._ended.done():
            os._exit(EXIT_AT_ONCE)
        self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _guarded(self, step: Callable[[], None]) -> Callable[[], None]:
        """A callback whose exception ends the process, instead of being logged by the loop."""

        def guarded() -> None:
            try:
                step()
            except Exception as fault:
                if not self._ended.done():
                    self._ended.set_exception(fault)

        return guarded


def log(event: str, **facts: Any) -> None:
    """One line of JSON for whoever started us."""
    control.say(json.dumps({"event": event, **facts}).encode())


def log_fault(fault: Exception) -> None:
    """Something of ours failed in one client's service; that client was closed."""
    log("fault", what=repr(fault), where=traceback.format_exception(fault)[-3:])


def main(words: Sequence[str]) -> int:
    arguments = dict(zip(words[::2], words[1::2], strict=True))
    settings = msgspec.json.decode(arguments["--settings"], type=Settings)
    if settings.cpu is not None:
        os.sched_setaffinity(0, {settings.cpu})
    for module in WARM:
        module.warm()
    gc.collect()
    gc.freeze()  # what is here now stays: it need not be looked at again
    line = control.Line.of(arguments)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(line, settings))
        except Exception as fault:
            log_fault(fault)
            return EXIT_FAULT
    return 0


async def _serve(line: control.Line, settings: Settings) -> None:
    await Server(line, settings).run()
