"""The exchange as a process: its doors, its operator, its clock, and the order in which things are seen."""

import os
import socket
import tempfile
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from engine.exchange import recovery, runner
from engine.exchange.runner import Market, Runner, Settings
from engine.exchange.state import Capacity, allocate
from shm import layout, region, spsc, stats, wait
from shm.codes import Ack, Ask, Command, Feed, Mode, Refusal, Side, Tif
from shm.control import Line
from tests.engine.exchange.gate import BTC, Gate, action, order

pytestmark = pytest.mark.timeout(280)

START_SECONDS = 240  # kernels may have to be compiled first
DEADLINE_SECONDS = 60
RICH = b"\x11" * 20
MONEY = 10**12
CAPACITY = {"markets": 2, "accounts": 8, "orders": 1024, "levels": 1024, "agents": 4}
RINGS = {"events": 4096, "trades": 256, "fills": 256, "closed": 256, "rejected": 256, "buckets": 64}


def until(condition, what):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain for {what}")
        time.sleep(0.001)
    return found


class Running:
    """A Runner on a thread of this process, and what it has said."""

    def __init__(self, epoch=1, kept=False, **more):
        if kept:
            self.directory = tempfile.TemporaryDirectory()  # of a journal that holds nothing yet
            more["journal"] = more["snapshots"] = self.directory.name
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(START_SECONDS)
        deposits = {"0x" + RICH.hex(): MONEY}
        settings = Settings(
            epoch=epoch,
            markets=[
                Market("BTC", 5, 600_000, 40, 150, 450, [(10**12, 20)], 20_000),
                Market("ETH", 4, 350_000, 25, 150, 450),
            ],
            deposits=deposits,
            capacity=CAPACITY,
            rings=RINGS,
            **more,
        )
        self.runner = Runner(settings, Line(theirs))
        self.thread = threading.Thread(target=self.runner.run)
        self.thread.start()
        self.said = [self.receive()]
        self.stats, self.bell_fd = stats.attach(self.said[0][1][0]), self.said[0][1][1]
        if kept:
            self.journal = self.keep()
            self.first = popped_block(self.journal)
            self.journal["durable"]["tail"] = self.first["sequence"][-1]
            self.ring()
        self.said.append(self.receive())
        self.world = region.attach(self.said[1][1][0], layout.WORLD, epoch=epoch).arrays

    @property
    def visible(self):
        """The last command that the world shows."""
        return int(self.world["status"][0]["command_sequence"])

    def receive(self):
        return region.receive(self.control)

    def send(self, message, *fds):
        region.send(self.control, message, fds)

    def ring(self):
        wait.ring_bells([self.stats.arrays["bell"]], [self.bell_fd])

    def enter(self, index=0, **more):
        gate = Gate(**more)
        self.send({"kind": "door", "index": index, "epoch": 1}, gate.fd)
        return gate

    def ask(self, gate, commands):
        """Push one action; give its acks."""
        gate.push(commands)
        self.ring()
        acks = []
        until(lambda: sum(map(len, acks)) == len(commands) or acks.append(gate.acks()), "acks")
        return np.concatenate(acks)

    def keep(self, sequence=0):
        """Announce a journal that ends with this command; give the ring's arrays."""
        page, eventfd = stats.Stats(), wait.new_eventfd()
        self.send({"kind": "journal", "sequence": sequence}, page.region.fd, eventfd)
        message, (fd, _, _) = self.receive()
        assert message == {"kind": "journal", "epoch": 1}
        return region.attach(fd, layout.JOURNAL, writable=True, epoch=1).arrays

    def end(self):
        self.send({"kind": "drain"})
        self.thread.join(DEADLINE_SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def start():
    made = []

    def start(**more):
        made.append(Running(**more))
        return made[-1]

    yield start
    for one in made:
        one.end()


@pytest.fixture
def exchange(start):
    return start()


def level(exchange, side=0):
    """Price and quantity of the best level of BTC that the world shows; None where there is none."""
    book = exchange.world["books"][(int(exchange.world["book_heads"][BTC]["latest"]) - 1) % 4]
    sides = ("bid", "ask")
    if book[f"{sides[side]}_count"] == 0:
        return None
    return tuple(book[f"{sides[side]}s"][0][["price", "quantity"]].tolist())


def popped_block(journal):
    """Wait for the commands of a whole block."""
    pieces = []
    until(
        lambda: pieces.append(popped(journal)) or (pieces[-1]["kind"] == Command.END_BLOCK).any(),
        "the end of a block",
    )
    return np.concatenate(pieces)


def popped(journal):
    out = np.zeros(1024, layout.COMMAND)
    return out[: spsc.pop(journal["command_ring"], journal["commands"], out)]


def test_it_begins_with_its_markets_and_first_deposits_in_block_one(exchange):
    (first, (_, _)), (second, _) = exchange.said
    assert first == {"kind": "stats"}
    assert second == {"kind": "world", "epoch": 1, "height": 1}
    status = exchange.world["status"][0]
    assert (status["mode"], status["height"], status["market_count"]) == (Mode.EXCHANGE, 1, 2)
    until(lambda: exchange.world["status"][0]["state"] == Feed.LIVE, "a live feed")
    names = [bytes(name).rstrip(b"\0") for name in exchange.world["markets"]["name"][:2]]
    assert names == [b"BTC", b"ETH"]
    contracts = exchange.world["contracts"]
    assert contracts["tier_count"][:2].tolist() == [2, 1]
    assert contracts["impact_notional"][:2].tolist() == [20_000, 6_000]
    assert contracts["price_band"][:2].tolist() == [800, 800]
    assert (contracts["tier_from"][0, 1], contracts["tier_leverage"][0, 1]) == (10**12, 20)
    assert exchange.world["funds"]["cash"].sum() == MONEY


def test_an_ack_comes_when_the_world_shows_what_it_tells(exchange):
    gate = exchange.enter()
    (ack,) = exchange.ask(gate, order(RICH, request=7))
    assert exchange.visible >= ack["sequence"]
    assert (ack["request"], ack["outcome"], ack["order"]) == (7, Ack.RESTING, 1)
    assert level(exchange) == (600_000, 1000)


def test_the_gateway_is_woken_with_its_acks(exchange):
    page, eventfd = stats.Stats(), wait.new_eventfd()
    exchange.send({"kind": "gateway", "index": 0}, page.region.fd, eventfd)
    gate = exchange.enter()
    wait.will_sleep(page.bell)
    gate.push(order(RICH))
    exchange.ring()
    os.set_blocking(eventfd, True)
    os.eventfd_read(eventfd)
    until(lambda: len(gate.acks()), "acks")


def test_a_door_that_is_shown_again_loses_no_ack_and_has_nothing_done_twice(start):
    """As another supervisor does it, while commands wait for the disk."""
    exchange = start(kept=True)
    gate = exchange.enter()
    gate.push(order(RICH, request=7))
    exchange.ring()
    taken = popped_block(exchange.journal)
    assert (taken["kind"] == Command.ORDER).sum() == 1
    exchange.send({"kind": "door", "index": 0, "epoch": 1}, gate.fd)
    exchange.send({"kind": "operator", "id": 1, "command": {"kind": "mode", "coin": "NONE", "amount": 0}})
    assert not exchange.receive()[0]["ok"], "the door was heard before"
    exchange.journal["durable"]["tail"] = taken["sequence"][-1]
    exchange.ring()
    acks = []
    until(lambda: acks.extend(gate.acks()) or acks, "an ack")
    gate.push(order(RICH, request=8))
    exchange.ring()
    again = popped_block(exchange.journal)
    assert again["request"][again["kind"] == Command.ORDER].tolist() == [8]
    assert [ack["request"] for ack in acks] == [7]


def test_two_doors_trade_with_each_other(exchange):
    one, other = exchange.enter(0), exchange.enter(1)
    exchange.send(deposit(1, b"\x22" * 20, MONEY))
    assert exchange.receive()[0]["ok"]
    exchange.ask(one, order(RICH, request=1))
    (ack,) = exchange.ask(other, order(b"\x22" * 20, request=1, side=Side.SELL, quantity=400, tif=Tif.IOC))
    assert (ack["outcome"], ack["quantity"], ack["notional"]) == (Ack.FILLED, 400, 400 * 600_000)
    assert level(exchange) == (600_000, 600)
    assert len(one.acks()) == 0


def deposit(request, address, amount, kind="deposit"):
    command = {"kind": kind, "address": "0x" + address.hex(), "amount": amount}
    return {"kind": "operator", "id": request, "command": command}


def test_the_operator_gives_and_takes_and_is_told(exchange):
    for request, amount, kind, told in [
        (5, 1_000, "deposit", {"ok": True}),
        (6, 1_001, "withdraw", {"ok": False, "refusal": "balance"}),
        (7, 1_000, "withdraw", {"ok": True}),
        (8, 10**16, "deposit", {"ok": False, "refusal": "amount"}),
    ]:
        exchange.send(deposit(request, b"\x33" * 20, amount, kind))
        answer, _ = exchange.receive()
        assert exchange.visible >= answer.pop("sequence")
        assert answer == {"kind": "operator", "id": request, **told}


def test_a_gateway_is_not_the_operator(exchange):
    gate = exchange.enter()
    asked = action(1, kind=Command.DEPOSIT, other=b"\x44" * 20, amount=10**9)
    (ack,) = exchange.ask(gate, asked)
    assert (ack["outcome"], ack["code"]) == (Ack.REFUSED, Refusal.NOT_A_COMMAND)
    assert exchange.world["funds"]["cash"].sum() == MONEY


def test_a_door_of_another_engine_stays_shut_and_nobody_minds(exchange):
    shut = exchange.enter(0, epoch=9)
    shut.push(order(RICH))
    exchange.send({"kind": "nonsense"})
    exchange.ask(exchange.enter(1), order(RICH))
    assert len(shut.acks()) == 0 and exchange.world["status"][0]["order_count"] == 1


@pytest.mark.parametrize("tail", [-5, 2**62])
def test_a_gateway_whose_ring_is_damaged_harms_nobody_else(exchange, tail):
    liar, honest = exchange.enter(0, slots=8), exchange.enter(1)
    liar.arrays["command_ring"]["tail"] = tail
    exchange.ask(honest, order(RICH))
    assert exchange.world["status"][0]["order_count"] == 1
    exchange.enter(0)  # its successor


def test_a_new_door_takes_the_place_of_the_old_one(exchange):
    old = exchange.enter(0)
    exchange.ask(old, order(RICH))
    new = exchange.enter(0)
    exchange.ask(new, order(RICH, price=590_000))
    assert len(old.acks()) == 0


def test_commands_are_numbered_without_a_gap_and_time_never_falls(start, monkeypatch):
    clock = SimpleNamespace(now_ns=1_800_000_000 * 10**9)
    monkeypatch.setattr(
        runner,
        "time",
        SimpleNamespace(
            time_ns=lambda: clock.now_ns, time=lambda: clock.now_ns / 1e9, monotonic_ns=time.monotonic_ns
        ),
    )
    exchange = start(kept=True)
    journal, gate = exchange.journal, exchange.enter()
    first = exchange.visible + 1
    for step_ns in (10**9, -(10**12), 10**6, 2 * 10**12):
        clock.now_ns += step_ns
        gate.push(action(1, 1, signer=RICH, flags=Ask.SESSION))
        exchange.ring()
        until(lambda: not spsc.has_items(gate.arrays["command_ring"]), "the commands to be taken")
        time.sleep(0.01)
    commands = []
    until(lambda: sum(map(len, commands)) >= 12 or commands.append(popped(journal)), "a full journal")
    commands = np.concatenate(commands)
    assert commands["sequence"].tolist() == [*range(first, first + len(commands))]
    assert (np.diff(commands["time_ns"]) >= 0).all()
    assert commands["time_ns"][-1] == clock.now_ns and commands["kind"][-1] == Command.END_BLOCK


def test_the_end_of_a_block_tells_the_digest_at_the_end_of_the_block_before(start):
    exchange = start(kept=True)
    told, gate, core = [exchange.first], exchange.enter(), allocate(Capacity(**CAPACITY))
    for request in range(3):
        gate.push(order(RICH, request=request, price=500_000 + 10 * request))
        exchange.ring()
        told.append(popped_block(exchange.journal))
        exchange.journal["durable"]["tail"] = told[-1]["sequence"][-1]
    for commands in told:
        before = int(core.heap[0]["block_digest"])
        assert commands["amount"][-1] == before and commands["kind"][-1] == Command.END_BLOCK
        recovery.replay(core, None, commands)
    spoilt = told[-1].copy()
    spoilt["sequence"] += len(spoilt)
    with pytest.raises(recovery.Diverged, match=f"sequence {spoilt['sequence'][-1]} "):
        recovery.replay(core, None, spoilt)


def test_a_keeper_that_comes_later_gets_the_same_ring(start):
    exchange = start(kept=True)
    gate = exchange.enter()
    gate.push(order(RICH))
    exchange.ring()
    until(lambda: spsc.has_items(exchange.journal["command_ring"]), "commands")
    again = exchange.keep(sequence=int(exchange.first["sequence"][-1]))
    commands = popped_block(again)
    assert commands["kind"].tolist() == [Command.ORDER, Command.END_BLOCK]
    again["durable"]["tail"] = commands["sequence"][-1]
    exchange.ring()
    until(lambda: len(gate.acks()), "the ack")


def test_a_full_journal_is_told(start):
    exchange = start(kept=True)
    status = exchange.world["status"]
    for is_full, state in ((1, Feed.FULL), (0, Feed.LIVE)):
        exchange.journal["keeper"]["is_full"] = is_full
        until(lambda state=state: status["state"][0] == state, "word of it")


def test_with_a_journal_nothing_is_seen_before_it_is_safe(start):
    exchange = start(kept=True)
    journal, gate = exchange.journal, exchange.enter()
    before = exchange.visible
    gate.push(order(RICH))
    exchange.ring()
    commands = []
    until(lambda: sum(map(len, commands)) == 2 or commands.append(popped(journal)), "the journal's commands")
    commands = np.concatenate(commands)
    assert commands["kind"].tolist() == [Command.ORDER, Command.END_BLOCK]
    for safe in (before, int(commands["sequence"][0])):
        journal["durable"]["tail"] = safe
        exchange.ring()
        time.sleep(0.05)
        assert exchange.visible == before and len(gate.acks()) == 0
        assert exchange.world["status"][0]["order_count"] == 0
    journal["durable"]["tail"] = int(commands["sequence"][1])
    exchange.ring()
    (ack,) = until(lambda: [*gate.acks()], "the ack")
    assert ack["sequence"] == commands["sequence"][0] and exchange.visible == commands["sequence"][1]


def test_a_journal_that_stands_still_stops_the_exchange_and_not_more(start):
    exchange = start(kept=True)
    journal = exchange.journal
    gate = exchange.enter(slots=1 << 14)
    count = 10_000
    for request in range(count // 100):
        gate.push(*(action(request, signer=RICH, flags=Ask.SESSION) for _ in range(100)))
    exchange.ring()
    ring = journal["command_ring"]
    until(lambda: ring["tail"][0] > len(journal["commands"]) - 2 * runner.BATCH_COMMANDS, "a full ring")
    time.sleep(0.05)
    assert len(gate.acks()) == 0 and spsc.has_items(gate.arrays["command_ring"])
    acks = 0
    while acks < count:
        if len(commands := popped(journal)):
            journal["durable"]["tail"] = commands["sequence"][-1]
        exchange.ring()
        acks += len(gate.acks())


def test_a_scheduled_cancel_fires_while_nobody_asks(start, monkeypatch):
    late = SimpleNamespace(by_ns=0)
    monkeypatch.setattr(
        runner,
        "time",
        SimpleNamespace(
            time_ns=lambda: time.time_ns() + late.by_ns,
            time=lambda: time.time() + late.by_ns / 1e9,
            monotonic_ns=time.monotonic_ns,
        ),
    )
    exchange = start()
    gate = exchange.enter()
    exchange.ask(gate, order(RICH))
    at_ms = time.time_ns() // 10**6 + 60_000
    asked = action(1, kind=Command.SCHEDULE_CANCEL, signer=RICH, amount=at_ms, flags=Ask.SESSION)
    (ack,) = exchange.ask(gate, asked)
    assert ack["outcome"] == Ack.DONE and level(exchange) == (600_000, 1000)
    late.by_ns = 61 * 10**9
    until(lambda: level(exchange) is None, "the cancel")


def test_it_can_wait_without_sleeping(start):
    exchange = start(wait="spin")
    gate = exchange.enter()
    gate.push(order(RICH))
    until(lambda: len(gate.acks()), "acks that nobody rang for")


def test_what_it_has_done_is_counted(exchange):
    exchange.ask(exchange.enter(), action(1, 1, 1, signer=RICH, flags=Ask.SESSION))

    def counters():
        return stats.read(exchange.stats)["counters"]

    until(lambda: counters()["sequence"] == exchange.visible, "the counters")
    told = counters()
    assert (told["blocks"], told["doors"], told["lost_acks"]) == (2, 1, 0)
    assert told["commands"] == exchange.visible == told["durable"]
    assert told["accounts"] == 3, "the fee account, the insurance account and the rich one"
