"""The engine's process in follow mode: time, sockets, files and signals around a Follower.

One loop: poll the follower, ring the gateways' bells, beat the heart, and sleep until a log file changes,
someone writes on the control socket, or a short time has passed. Checkpoints are copied between two blocks
and written by a thread. It ends when the supervisor says so, never because of its input.
"""

import math
import select
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec

from engine import process
from engine.bells import Bells
from engine.follow import checkpoint, meta
from engine.follow.bootstrap import FileSource, NodeSource, NoSource, Source
from engine.follow.follower import STREAMS, Follower
from engine.follow.watch import Watch
from engine.state import Capacity, allocate, world_counts
from shm import region, stats
from shm.codes import Feed
from shm.control import Line

PARK_SECONDS = 0.020  # the longest sleep: files on some filesystems change without a word
PACED_SECONDS = 0.002  # while a replay waits for a block's time
BEAT_NS = 50_000_000
RENEW_NS = 500_000_000
COUNTERS = (
    "blocks", "checks", "repairs", "quarantined", "oversized", "late_diffs", "snapshot_failures",
    "skipped_blocks", "missing_statuses", "missing_diffs", "missing_fills",
    "statuses_bytes", "diffs_bytes", "fills_bytes",
)  # fmt: skip
KERNEL_COUNTERS = ("duplicates", "synthetic", "unknown", "wrong", "full", "trades", "fills", "unpaired_fills")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the supervisor says at start. Paths are absolute."""

    node_data: str
    data: str  # our own directory: checkpoints, snapshots on their way
    epoch: int
    snapshot: str | None = None
    node_info: str | None = None
    replay_speed: str | float = "live"  # "live" and "max": as lines come; a number: block time runs so fast
    capacity: dict[str, int] = {}
    wait: str = "park"  # or "spin"
    cpu: int | None = None
    check_seconds: float = 60.0  # between comparisons with a snapshot, where there is a node to ask
    checkpoint_seconds: float = 5.0
    silent_ms: int = 2000


class Runner:
    """The follower, its world, and everyone it talks to."""

    def __init__(self, settings: Settings, control: Line):
        self.settings, self.control = settings, control
        self.capacity = Capacity(**settings.capacity)
        self.world = region.create("ringside-world", world_counts(self.capacity), settings.epoch)
        self.state = allocate(self.capacity, self.world.arrays)
        self.world.seal()
        self.stats = stats.Stats(
            (*COUNTERS, *KERNEL_COUNTERS, "bells"), ("poll_ns",), settings.epoch, "engine-stats"
        )
        data = Path(settings.data)
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.checkpoints = data / "checkpoints"
        speed = {"live": None, "max": math.inf}.get(settings.replay_speed, settings.replay_speed)
        self.follower = Follower(
            self.state,
            self.capacity,
            Path(settings.node_data),
            _source(settings, data),
            speed=speed,
            check_ns=int(settings.check_seconds * 1e9) if settings.node_info else 0,
            silent_ns=settings.silent_ms * 1_000_000,
            log=_log,
        )
        self.watch = Watch([Path(settings.node_data) / f"{name}_{form}"
                            for name in STREAMS.values() for form in ("by_block", "streaming")])  # fmt: skip
        self.bells = Bells()  # of gateways
        self.ending = self._announced = False
        self._meta: meta.Meta | None = None
        self._described: Path | None = None  # the file of what was told of the markets
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self._beat_ns = self._renewed_ns = self._saved_ns = 0
        self._saved_height = -1

    def run(self) -> None:
        """Serve until told to end."""
        self._introduce()
        self.follower.resume(self.checkpoints)
        self._saved_height = int(self.state.status[0]["height"])
        self._announce()
        if self.settings.node_info:
            self._meta = meta.Meta(self.settings.node_info, Path(self.settings.data))
        waiter = select.poll()
        waiter.register(self.control, select.POLLIN)
        if self.watch.fd >= 0:
            waiter.register(self.watch.fd, select.POLLIN)
        while not self.ending:
            applied = self._turn()
            self._sleep(waiter, 0.0 if applied or self.settings.wait == "spin" else PARK_SECONDS)
        self._last_checkpoint()

    def _turn(self) -> int:
        now_ns = time.monotonic_ns()
        applied = self.follower.poll(now_ns)
        self._announce()
        feed = self.follower.feed(now_ns)
        changed = int(self.state.status[0]["state"]) != feed
        if changed:
            self.state.status["state"] = feed
            _log("feed", {"state": Feed(feed).name.lower(), "height": int(self.state.status[0]["height"])})
        if applied or changed:
            self.state.status["applied_ns"] = time.time_ns()
            self.stats.add("bells", self.bells.ring())
            self.stats.observe("poll_ns", time.monotonic_ns() - now_ns)
        if now_ns - self._beat_ns >= BEAT_NS:
            self._beat_ns = now_ns
            self.world.beat(now_ns)
            self._count()
        if now_ns - self._renewed_ns >= RENEW_NS:
            self._renewed_ns = now_ns
            self.watch.renew()
            described = self._meta.collect(self.state) if self._meta else None
            if described is not None:
                self._described = described
                self._describe()
        self._maybe_checkpoint(now_ns)
        return applied

    def _introduce(self) -> None:
        """Tell a supervisor what there is: at the start, and whenever another one has taken over."""
        self.control.send({"kind": "stats"}, [self.stats.region.fd])
        if self._announced:
            self._tell_world()
        self._describe()

    def _describe(self) -> None:
        if self._described is not None:
            self.control.send({"kind": "meta", "path": str(self._described)})

    def _tell_world(self) -> None:
        height = int(self.state.status[0]["height"])
        self.control.send({"kind": "world", "epoch": self.settings.epoch, "height": height}, [self.world.fd])

    def _announce(self) -> None:
        """Show the world once it holds a state: from empty tables a gateway would deny what there is."""
        if int(self.state.status[0]["height"]) > 0 and not self._announced:
            self._announced = True
            self.world.beat(time.monotonic_ns())
            self._tell_world()

    def _sleep(self, waiter: select.poll, seconds: float) -> None:
        if seconds and self.follower.paced:
            seconds = PACED_SECONDS
        for fd, _ in waiter.poll(seconds * 1000):
            if fd == self.control.fileno():
                self._hear()
            else:
                self.watch.drain()
        if not self.control.tend(self._introduce):
            self.ending = True

    def _hear(self) -> None:
        """Take one message of the supervisor."""
        heard = process.hear(self.control)
        if heard is None:
            return
        message, fds = heard
        if message.get("kind") == "gateway" and len(fds) == 2:
            self._meet(f"gateway {int(message['index'])}", fds)
        elif message.get("kind") == "drain":
            self.ending = True
        else:
            process.close(fds)

    def _meet(self, name: str, fds: list[int]) -> None:
        """A gateway has started: here is its bell, and the descriptor that wakes it."""
        try:
            self.bells.meet(name, fds)
        except region.Refused as refused:
            _log("bell_refused", {"of": name, "why": str(refused)})
            process.close(fds)

    def _count(self) -> None:
        for name in COUNTERS:
            self.stats.set(name, self.follower.counts[name])
        for name in KERNEL_COUNTERS:
            self.stats.set(name, int(self.state.heap[0][name]))

    # --- checkpoints ----------------------------------------------------------------------------------------

    def _maybe_checkpoint(self, now_ns: int) -> None:
        """Copy the state out now and then, and have a thread write it."""
        if self._writing is not None and self._writing.done():
            writing, self._writing = self._writing, None
            if writing.exception() is not None:
                _log("checkpoint_failed", {"why": str(writing.exception())})
        due = now_ns - self._saved_ns >= self.settings.checkpoint_seconds * 1e9
        height = int(self.state.status[0]["height"])
        if self._writing is None and due and height != self._saved_height:
            self._saved_ns = now_ns
            taken = self.follower.checkpoint()
            if taken is not None:
                self._saved_height = height
                self._writing = self._pool.submit(checkpoint.save, taken, self.checkpoints)

    def _last_checkpoint(self) -> None:
        self._pool.shutdown()
        taken = self.follower.checkpoint()
        if taken is not None and taken.head.height != self._saved_height:
            checkpoint.save(taken, self.checkpoints)


def _source(settings: Settings, data: Path) -> Source:
    if settings.node_info is not None:
        return NodeSource(settings.node_info, data / "node-snapshot.json")
    return FileSource(Path(settings.snapshot)) if settings.snapshot is not None else NoSource()


_log = partial(process.log, "engine")


def main(arguments: Sequence[str]) -> int:
    """Run until the end; the exit code."""
    process.run(Runner(*process.begin(arguments, Settings)))
    return 0
