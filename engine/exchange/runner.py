"""The engine's process in exchange mode: time, sockets, descriptors and signals around the core.

One loop. A block: take what gateways and the operator ask for, number and time it, apply it, until nobody
asks for more or the block is old enough; then end it. What it gave is shown as soon as its commands are safe
(`durable`): first the world, then the acks, so that nobody knows of an order that cannot be looked up; then
bells. With nothing to do it sleeps until a gateway rings, someone writes on the control socket, or a
scheduled cancel is due. It ends when the supervisor says so, never because of its input. A supervisor that is
gone is not missed: the next one is told the same as the first.

With a journal it begins where that ends: when the journaler has announced itself, and all of the journal was
applied (`recovery`). Then it gives the journaler its ring; a journaler that comes later gets the same one.
"""

import os
import select
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine import process
from engine.bells import Bells
from engine.exchange import apply, doors, durable, operating, project, recovery, snapshot, world
from engine.exchange.apply import apply_commands
from engine.exchange.doors import Door, Doors, stamp
from engine.exchange.state import Capacity, State, allocate
from engine.journal import record
from engine.journal.reader import Corrupt
from engine.state import world_counts
from shm import layout, region, spsc, stats, wait
from shm.codes import Ack, Command, Feed, Refusal
from shm.constants import IMPACT_USD, PRICE_BAND
from shm.control import Line

BATCH_COMMANDS = 512  # taken and applied at once, under one look at the clock
BLOCK_COMMANDS_MAX = 1 << 13
PARK_SECONDS = 0.050  # the longest sleep: a heartbeat is due
BEAT_NS = 50_000_000
EPOCH_HEIGHTS = 1 << 32  # an exchange that begins anew counts its blocks from above those of all before it
EXIT_CORRUPT = 65  # the journal cannot be gone on with: no restart mends that
LOOK_NS = 1_000_000  # between two looks at the control socket while there is work
COUNTERS = (
    "blocks", "commands", "operator_commands", "outcomes", "acks", "lost_acks", "sequence", "durable",
    "applying", "doors", "accounts", "orders", "bells",
)  # fmt: skip
HISTOGRAMS = ("apply_ns", "show_ns", "batch_commands")


class Market(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One that trading begins with. price: 10**-(6 - size_decimals) USD; rates: 10**-6 of a notional."""

    name: str
    size_decimals: int
    price: int
    max_leverage: int
    maker_rate: int
    taker_rate: int
    tiers: list[tuple[int, int]] = []  # further ones: notional in 10**-USD_PLACES USD, the most leverage
    impact_notional: int = IMPACT_USD


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the supervisor says at start."""

    epoch: int
    markets: list[Market]
    deposits: dict[str, int] = {}  # address -> 10**-USD_PLACES USD, before anyone can trade
    journal: str = ""  # its directory; empty: nothing is kept
    snapshots: str = ""  # their directory
    suspect: int = 0  # a command that may have ended an engine before
    block_ms: int = 1
    capacity: dict[str, int] = {}  # of the core (exchange.state.Capacity)
    rings: dict[str, int] = {}  # of the world (engine.state.Capacity)
    wait: str = "park"  # or "spin"
    cpu: int | None = None


class Runner:
    """The exchange, its world, and everyone it talks to."""

    def __init__(self, settings: Settings, control: Line):
        self.settings, self.control = settings, control
        capacity = Capacity(**settings.capacity)
        shown = world.capacity_for(capacity, **settings.rings)
        self.region = region.create("ringside-world", world_counts(shown), settings.epoch)
        self.world = world.allocate(shown, self.region.arrays)
        self.region.seal()
        self.status = self.world.state.status
        self.core = allocate(capacity)
        self.stats = stats.Stats(COUNTERS, HISTOGRAMS, settings.epoch, "engine-stats")
        self.bell_fd = wait.new_eventfd()
        self.doors = Doors()
        self.kept: durable.Memory | durable.Journal = durable.Memory()
        self.held = durable.Held()
        self.bells = Bells()  # of gateways, and of who keeps the commands
        self.ending = self._is_shown = False
        self._recorded: int | None = None  # the last sequence of the journal, once it is known
        self.counts = dict.fromkeys(COUNTERS, 0)  # told at each heartbeat
        self._batch = np.zeros(BATCH_COMMANDS + 1, layout.COMMAND)  # and an END_BLOCK
        self._operator: list[tuple[int, np.ndarray]] = []  # id, COMMAND[1]
        self._beat_ns = self._looked_ns = 0

    def run(self) -> None:
        """Serve until told to end."""
        self._introduce()
        waiter = select.poll()
        waiter.register(self.control, select.POLLIN)
        waiter.register(self.bell_fd, select.POLLIN)
        if self.settings.journal:
            self._recover(waiter)
        else:
            self.core.heap["height"] = (self.settings.epoch - 1) * EPOCH_HEIGHTS
            _log("empty_exchange", {"kept_in": self.kept.name, "lost_with": "this process"})
        if not self.ending:
            self._begin(waiter)
        while not self.ending:
            worked = self._turn()
            self._rest(waiter, worked)

    def _introduce(self) -> None:
        """Tell a supervisor what there is: at the start, and whenever another one has taken over."""
        self.control.send({"kind": "stats"}, [self.stats.region.fd, self.bell_fd])
        if self._is_shown:
            self._announce()

    def _announce(self) -> None:
        made = {"kind": "world", "epoch": self.settings.epoch, "height": int(self.status[0]["height"])}
        self.control.send(made, [self.region.fd])

    def _recover(self, waiter: select.poll) -> None:
        """Become what the journal tells of, and hand its keeper the ring. Raises Corrupt, Diverged."""
        while self._recorded is None and not self.ending:
            self._look(waiter, PARK_SECONDS)
        if self.ending:
            return
        began_ns, settings = time.monotonic_ns(), self.settings
        places = (Path(settings.journal), Path(settings.snapshots))
        made = recovery.recover(
            *places, self.core, self.world, self._recorded, settings.suspect, self._tell_applying
        )
        spent_ms = (time.monotonic_ns() - began_ns) // 1_000_000
        _log("recovered", {"sequence": self._recorded, "spent_ms": spent_ms, **made._asdict()})
        self.kept = durable.Journal(settings.epoch, self._recorded)
        self._offer_ring()

    def _begin(self, waiter: select.poll) -> None:
        """End a block, of the markets and first deposits, or of what an engine has left; and show it."""
        for command in _genesis(self.settings, self.core):
            self._batch[0] = command[0]
            self._apply(1)
        self._apply(0, ends_block=True)
        while not self._show(time.monotonic_ns()) and not self.ending:
            self.counts["bells"] += self.bells.ring()
            self._look(waiter, PARK_SECONDS)
        self.status["state"] = Feed.LIVE
        self.region.beat(time.monotonic_ns())
        self._is_shown = True
        self._announce()

    # --- one turn -------------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Apply a block if anyone asks for something, show what may be seen; whether there was anything."""
        now_ns = time.monotonic_ns()
        applied, shown = self._block(now_ns), self._show(now_ns)
        if applied or shown:
            self.counts["bells"] += self.bells.ring()
        if now_ns - self._beat_ns >= BEAT_NS:
            self._beat_ns = now_ns
            self.status["state"] = Feed.FULL if self.kept.is_full else Feed.LIVE
            self.region.beat(now_ns)
            self._count()
        return applied or shown

    def _block(self, began_ns: int) -> bool:
        count, is_open = 0, True
        while is_open:
            filled = self._fill()
            count += filled
            if count == 0 and not self._is_due():
                return False
            is_old = time.monotonic_ns() - began_ns >= self.settings.block_ms * 1_000_000
            is_open = filled > 0 and not is_old and count < BLOCK_COMMANDS_MAX and self._has_commands
            self._apply(filled, ends_block=not is_open)
        return True

    def _fill(self) -> int:
        """Take a batch of commands: the operator's first, then the gateways'."""
        if not self._has_room:
            return 0
        filled = min(len(self._operator), BATCH_COMMANDS)
        for at, (request, command) in enumerate(self._operator[:filled]):
            self._batch[at] = command[0]
            self._batch[at]["request"] = request
        del self._operator[:filled]
        self.counts["operator_commands"] += filled
        return filled or self.doors.take(self._batch[:BATCH_COMMANDS])

    def _apply(self, count: int, ends_block: bool = False) -> None:
        """Number and time the first `count` commands of the batch, and apply them; and end the block.

        Time never falls: where the wall clock steps back, it stands until the clock has caught up.
        """
        began_ns, heap = time.monotonic_ns(), self.core.heap[0]
        if ends_block:
            self._batch[count] = _END_BLOCK[0]
            self._batch[count]["amount"] = heap["block_digest"]
        batch = self._batch[: count + ends_block]
        stamp(batch, heap["sequence"], max(time.time_ns(), int(heap["time_ns"])))
        self.kept.push(batch)
        self._tell_applying(int(batch["sequence"][0]))
        done = 0
        while done < len(batch):
            done += apply_commands(self.core, batch[done:], len(batch) - done)
            outcomes, acks = int(heap["outcomes"]), int(heap["acks"])
            self.held.add(self.core.outcomes[:outcomes], self.core.acks[:acks])
            self.counts["outcomes"] += outcomes
        self._tell_applying(0)
        if ends_block:
            self.held.close(int(heap["sequence"]))
        self.counts["commands"] += len(batch)
        self.counts["blocks"] += ends_block
        self.stats.observe("batch_commands", len(batch))
        self.stats.observe("apply_ns", time.monotonic_ns() - began_ns)

    @property
    def _has_room(self) -> bool:
        return self.kept.room > BATCH_COMMANDS  # an END_BLOCK must still fit

    @property
    def _has_commands(self) -> bool:
        return self._has_room and (bool(self._operator) or self.doors.have_commands)

    def _is_due(self) -> bool:
        """Whether the core must be told the time, which END_BLOCK does."""
        return 0 < self._due_ms() <= time.time_ns() // 1_000_000

    def _due_ms(self) -> int:
        """When a scheduled cancel or a market's own work is due; 0: never."""
        heap = self.core.heap[0]
        due = [int(heap[name]) for name in ("schedule_ms", "due_ms") if heap[name] > 0]
        return min(due, default=0)

    def _show(self, now_ns: int) -> bool:
        """Let everyone see the blocks whose commands are safe: the world, then the acks, then the bells."""
        blocks = self.held.release(self.kept.durable)
        for block in blocks:
            for outcomes in block.outcomes:
                project.project(self.world, outcomes, len(outcomes))
        if not blocks:
            return False
        self.status["applied_ns"] = time.time_ns()
        for block in blocks:
            for acks in block.acks:
                given, of_operator = self.doors.answer(acks), self.doors.of_operator(acks)
                self._answer_operator(of_operator)
                self.counts["acks"] += len(acks)
                self.counts["lost_acks"] += len(acks) - given - len(of_operator)
        self.stats.observe("show_ns", time.monotonic_ns() - now_ns)
        return True

    def _count(self) -> None:
        status, counts = self.core.status[0], self.counts
        counts["sequence"], counts["durable"] = int(self.core.heap[0]["sequence"]), self.kept.durable
        counts["doors"] = len(self.doors)
        counts["accounts"], counts["orders"] = int(status["account_count"]), int(status["order_count"])
        for name in COUNTERS:
            self.stats.set(name, counts[name])

    # --- who is waited for ----------------------------------------------------------------------------------

    def _rest(self, waiter: select.poll, worked: bool) -> None:
        """Hear what there is to hear, and sleep first if there is nothing to do and sleep is allowed."""
        now_ns = time.monotonic_ns()
        if worked or self.settings.wait == "spin":
            if now_ns - self._looked_ns >= LOOK_NS:
                self._looked_ns = now_ns
                self._look(waiter, 0.0)
        elif wait.sleep(self.stats.bell, self._has_work):
            self._look(waiter, self._park_seconds())
            wait.woke(self.stats.bell)

    def _has_work(self) -> bool:
        return self._has_commands or self.held.may_release(self.kept.durable)

    def _park_seconds(self) -> float:
        due_ms = self._due_ms()
        return min(PARK_SECONDS, max(due_ms / 1000 - time.time(), 0.0)) if due_ms else PARK_SECONDS

    def _look(self, waiter: select.poll, seconds: float) -> None:
        for fd, _ in waiter.poll(seconds * 1000):
            if fd == self.control.fileno():
                self._hear()
            else:
                wait.drain(self.bell_fd)
        if not self.control.tend(self._introduce):
            self.ending = True

    def _hear(self) -> None:
        """Take one message of the supervisor."""
        heard = process.hear(self.control)
        if heard is None:
            return
        message, fds = heard
        match message:
            case {"kind": "gateway", "index": int(index)} if len(fds) == 2:
                self._meet(f"gateway {index}", fds)
            case {"kind": "door", "index": int(index)} if len(fds) == 1:
                self._open(index, fds[0])
            case {"kind": "journal", "sequence": int(sequence)} if len(fds) == 2:
                self._keep(fds, sequence)
            case {"kind": "operator", "id": int(request), "command": dict(asked)} if not fds:
                self._ask(request, asked)
            case {"kind": "drain"}:
                self.ending = True
            case _:
                process.close(fds)

    def _ask(self, request: int, message: dict[str, Any]) -> None:
        """Take a command of the operator's, or answer why it is none."""
        try:
            self._operator.append((request, operating.asked(self.core, message)))
        except operating.Refused as refused:
            answer = {"kind": "operator", "id": request, "ok": False, "refusal": refused.code.name.lower()}
            self.control.send(answer)

    def _meet(self, name: str, fds: list[int]) -> bool:
        """Someone has started: here is its bell, and the descriptor that wakes it."""
        try:
            self.bells.meet(name, fds)
        except region.Refused as refused:
            _log("bell_refused", {"of": name, "why": str(refused)})
            process.close(fds)
            return False
        return True

    def _open(self, index: int, fd: int) -> None:
        """A gateway has made a door for this engine; one for an earlier engine stays shut."""
        if self.doors.knows(index, fd):
            os.close(fd)
            return
        try:
            self.doors.open(index, Door(fd, self.settings.epoch))
        except region.Refused as refused:
            _log("door_refused", {"index": index, "why": str(refused)})
            os.close(fd)

    def _keep(self, fds: list[int], sequence: int) -> None:
        """There is a keeper of a journal, whose last command is `sequence`; he is new, or another one."""
        if not self._meet("journal", fds):
            return
        self._recorded = sequence
        if isinstance(self.kept, durable.Journal):
            self._offer_ring()

    def _offer_ring(self) -> None:
        """Hand the keeper what he needs: the ring of commands, and our bell."""
        _log("journal", {"sequence": self._recorded})
        fds = [self.kept.region.fd, self.stats.region.fd, self.bell_fd]
        self.control.send({"kind": "journal", "epoch": self.settings.epoch}, fds)

    def _tell_applying(self, sequence: int) -> None:
        """Say which command comes next: if it ends this process, that is how others know."""
        self.stats.set("applying", sequence)

    def _answer_operator(self, acks: np.ndarray) -> None:
        for ack in acks:
            if ack["request"] > 0:
                is_done = int(ack["outcome"]) == Ack.DONE
                why = {} if is_done else {"refusal": Refusal(int(ack["code"])).name.lower()}
                answer = {"kind": "operator", "id": int(ack["request"]), "ok": is_done, **why}
                self.control.send({**answer, "sequence": int(ack["sequence"])})


# --- the operator's commands --------------------------------------------------------------------------------


_END_BLOCK = operating.command(Command.END_BLOCK)


def _genesis(settings: Settings, core: State) -> Iterator[np.ndarray]:
    """What there must be and is not there yet: markets; and the first deposits, if nothing has ever been."""
    known = {bytes(row["name"]).rstrip(b"\0").decode() for row in _markets(core)}
    deposits = settings.deposits if core.heap[0]["sequence"] == 0 else {}
    for market in settings.markets:
        if market.name in known:
            continue
        yield operating.command(
            Command.ADD_MARKET,
            text=market.name.encode("ascii"),
            side=market.size_decimals,
            price=market.price,
            amount=market.max_leverage,
            quantity=market.maker_rate,
            order=market.taker_rate,
        )
        row = len(_markets(core)) - 1
        for notional, leverage in market.tiers:
            yield operating.command(Command.TIER, market=row, quantity=notional, amount=leverage)
        if market.impact_notional != IMPACT_USD:
            yield operating.command(
                Command.LIMITS, market=row, quantity=PRICE_BAND, order=market.impact_notional
            )
    for address, amount in deposits.items():
        yield operating.command(Command.DEPOSIT, other=bytes.fromhex(address[2:]), amount=amount)


def _markets(core: State) -> np.ndarray:
    return core.markets[: int(core.status[0]["market_count"])]


_log = partial(process.log, "engine")


def _load() -> None:
    """Read the machine code of what an engine runs."""
    for module in (apply, doors, durable, project, snapshot, record, region, stats, spsc, wait):
        module.warm()


def main(arguments: Sequence[str]) -> int:
    """Run until the end; the exit code."""
    try:
        process.run(Runner(*process.begin(arguments, Settings, _load)))
    except (Corrupt, recovery.Diverged) as why:
        _log("corrupt", {"why": str(why), "exit": EXIT_CORRUPT})
        return EXIT_CORRUPT
    return 0
