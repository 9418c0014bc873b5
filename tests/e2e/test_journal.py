"""SIGKILL of any process of an exchange at any moment: what was answered is kept, and nothing is done twice.

Traders place orders, each with a cloid of its own, and write down what they are told. The journal says what
became of all of them, and leads, applied again, to what every engine had known.

Each round kills each of five roles once: twenty rounds, and five hundred in the soak. Processes that recover
wrongly (broken.py) are caught by the same `check`.
"""

import asyncio
import os
import shutil
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from random import Random

import numpy as np
import pytest

from engine.exchange import recovery
from engine.exchange.apply import apply_commands
from engine.exchange.state import Capacity, allocate
from engine.journal.disk import held
from engine.journal.reader import Reader
from scripts import trading_client, verify
from scripts.trading_client import Lost, Refused
from scripts.wallet import Wallet
from shm.codes import Command
from shm.layout import COMMAND
from tests.e2e import broken
from tests.e2e.instance import Exchange, until
from tests.e2e.load import MIDDLE, order

pytestmark = pytest.mark.timeout(280)

ROLES = ("engine", "journaler", "replica", "gateway 0", "supervisor")
TRADERS, ORDERS_MAX = 6, 4
PARTS, SOAK_PARTS, ROUNDS = 2, 50, 10  # of an exchange each; every round kills every role once
CAPACITY = Capacity(orders=1 << 16, accounts=64)
CONFIG = """
[exchange]
snapshot_seconds = 0.5

[gateway.limits]
actions_per_minute_max = 100_000_000
messages_per_minute_max = 1_000_000
"""


class Trader:
    """Places orders until told to stop. said: cloid -> accepted's oid, or what else it was told."""

    def __init__(self, exchange, random):
        self.wallet, self.random, self.said = Wallet.new(), random, {}
        self.connections = 0
        exchange.deposit(self.wallet.address, "10000000")

    async def trade(self, exchange, stop):
        while not stop.is_set():
            with suppress(Lost, Refused, OSError):
                async with trading_client.connect(exchange.url) as client:
                    self.connections += 1
                    await client.login(self.wallet, time.time_ns() // 10**6)
                    while not stop.is_set():
                        await self._place(client)
            await asyncio.sleep(0.02)

    async def _place(self, client):
        cloids = [f"0x{self.random.getrandbits(128):032x}" for _ in range(self.random.randint(1, ORDERS_MAX))]
        orders = []
        for cloid in cloids:
            is_buy, away = self.random.random() < 0.5, self.random.randint(-30, 40)
            price = MIDDLE - away if is_buy else MIDDLE + away
            orders.append(order(is_buy, price, "0.001", self.random.choice(("Gtc", "Ioc", "Alo")), cloid))
        for cloid in cloids:
            self.said[cloid] = "unknown"
        try:
            answer = await client.act({"type": "order", "orders": orders, "grouping": "na"})
        except Refused:
            self.said.update(dict.fromkeys(cloids, "refused"))
            return
        for cloid, status in zip(cloids, answer["data"]["statuses"], strict=True):
            self.said[cloid] = "error" if "error" in status else next(iter(status.values()))["oid"]


class Traders:
    """All of them, on a thread of their own."""

    def __init__(self, exchange, seed):
        self.all = [Trader(exchange, Random(seed * 100 + n)) for n in range(TRADERS)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(exchange)))
        self._thread.start()

    async def _run(self, exchange):
        await asyncio.gather(*(trader.trade(exchange, self._stop) for trader in self.all))

    @property
    def accepted(self):
        return sum(isinstance(said, int) for trader in self.all for said in [*trader.said.values()])

    @property
    def connections(self):
        """How often they have connected: again after each action that was lost."""
        return sum(trader.connections for trader in self.all)

    def end(self):
        self._stop.set()
        self._thread.join()
        return {cloid: said for trader in self.all for cloid, said in trader.said.items()}


@pytest.fixture
def exchange(tmp_path):
    config = tmp_path / "exchange.toml"
    config.write_text(CONFIG)
    with Exchange(tmp_path, "--config", str(config)) as exchange:
        assert exchange.health()["durability"] == "journaled"
        with held(exchange.data / "journal"):  # `check` applies all of it
            yield exchange


def journaled(exchange):
    """All commands of the journal of an exchange that has ended."""
    reader, pieces = Reader(exchange.data / "journal", only_durable=False), []
    while len(piece := reader.read()):
        pieces.append(piece)
    end = reader.end()
    reader.close()
    return np.concatenate([piece.view("i8") for piece in pieces]).view(COMMAND), end


def replayed(commands):
    """The core that the commands lead to, and the ack of each."""
    core, acks = allocate(CAPACITY), []
    for at in range(0, len(commands), 4096):
        piece = commands[at : at + 4096]
        done = 0
        while done < len(piece):
            done += apply_commands(core, piece[done:], len(piece) - done)
            acks.append(core.acks[: int(core.heap[0]["acks"])].copy())
    return core, np.concatenate(acks)


def check(exchange, said):
    """What was said, with the journal; and the journal, with itself."""
    commands, end = journaled(exchange)
    core, acks = replayed(commands)
    assert core.heap[0]["diverged"] == 0, "an engine has known of another past"
    recovery.replay(allocate(CAPACITY), None, commands)
    asked = commands["kind"] == Command.ORDER
    cloids = [f"0x{bytes(text).hex()}" for text in commands["text"][asked]]
    times = Counter(cloids)
    assert max(times.values()) == 1, "an order was executed twice"
    oids = dict(zip(cloids, acks["order"][asked].tolist(), strict=True))
    lost = {cloid for cloid, what in said.items() if isinstance(what, int) and oids.get(cloid) != what}
    assert not lost, f"{len(lost)} that were accepted are not in the journal"
    refused = [cloid for cloid, what in said.items() if what == "refused" and cloid in times]
    assert not refused, "it was executed, and said to be refused"
    assert judged(exchange).damages == []
    return core, end


def judged(exchange):
    """What `ringside verify` finds."""
    return verify.verify(exchange.data / "journal", exchange.data / "snapshots", lambda done, total: None)


def kill(exchange, role):
    if role == "supervisor":
        worlds = len(exchange.logged("the engine has a world"))
        exchange.kill_supervisor()
        exchange.start()
        exchange.wait(
            lambda: len(exchange.logged("the engine has a world")) > worlds, "one who has taken over"
        )
    else:
        pid = exchange.kill(role)
        until(lambda: exchange.pids().get(role, pid) != pid, "its successor")


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        parts = SOAK_PARTS if metafunc.config.getoption("--soak") else PARTS
        metafunc.parametrize("seed", range(7, 7 + parts))


def test_killed_at_any_moment_nothing_that_was_accepted_is_lost_or_done_twice(exchange, seed):
    random = Random(seed)
    traders = Traders(exchange, seed)
    for _ in range(ROUNDS):
        for role in random.sample(ROLES, len(ROLES)):
            before = traders.accepted
            exchange.wait(lambda before=before: traders.accepted > before + 20, "orders that are accepted")
            time.sleep(random.uniform(0, 0.1))
            kill(exchange, role)
    before = traders.accepted
    exchange.wait(lambda: traders.accepted > before + 20, "orders that are accepted at the end")
    said = traders.end()
    height = exchange.health()["height"]
    assert exchange.end() == 0
    core, end = check(exchange, said)
    assert core.heap[0]["height"] == height and end.torn == ""
    print(Counter("accepted" if isinstance(what, int) else what for what in said.values()), end)


@pytest.mark.parametrize("name", broken.WAYS)
def test_who_recovers_wrongly_is_caught(tmp_path, monkeypatch, name):
    monkeypatch.setenv("PYTHONPATH", broken.path(tmp_path, name))
    with Exchange(tmp_path) as exchange, held(exchange.data / "journal"):
        traders = Traders(exchange, seed=5)
        exchange.wait(lambda: traders.accepted > 50, "orders that are accepted")
        exchange.kill_all()
        exchange.start()
        exchange.wait_until_serving()
        before = traders.accepted
        exchange.wait(lambda: traders.accepted > before + 20, "orders that are accepted again")
        said = traders.end()
        assert exchange.end() == 0
        with pytest.raises(AssertionError, match=broken.WAYS[name].caught):
            check(exchange, said)


def test_a_journaler_that_stands_still_lets_nothing_be_seen_and_its_end_loses_nothing(exchange):
    traders = Traders(exchange, seed=2)
    exchange.wait(lambda: traders.accepted > 50, "orders")
    pid = exchange.pid("journaler")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.3)
    accepted, height = traders.accepted, exchange.health()["height"]
    time.sleep(0.5)
    assert (traders.accepted, exchange.health()["height"]) == (accepted, height)
    engine = exchange.pid("engine")
    os.kill(pid, signal.SIGKILL)
    exchange.wait(lambda: traders.accepted > accepted + 50, "orders after it")
    assert exchange.pid("engine") == engine, "only the journaler is new"
    said = traders.end()
    assert exchange.end() == 0
    check(exchange, said)


def test_an_engine_begins_with_a_snapshot(exchange):
    traders = Traders(exchange, seed=4)
    exchange.wait(lambda: len(exchange.logged("snapshot")) >= 3, "snapshots")
    for _ in range(5):
        verdict = judged(exchange)
        assert verdict.is_good and verdict.snapshots, "while all of it is being written"
    exchange.kill("engine")
    before = traders.accepted
    exchange.wait(lambda: traders.accepted > before + 20, "orders that are accepted again")
    said = traders.end()
    made = exchange.logged("recovered")[-1]
    assert made["snapshot"] > 0 and made["commands"] < made["sequence"]
    assert not exchange.logged("diverged")
    assert exchange.end() == 0
    check(exchange, said)


def test_an_exchange_comes_back_with_all_it_had_and_a_damaged_one_does_not(exchange):
    traders = Traders(exchange, seed=3)
    exchange.wait(lambda: traders.accepted > 50, "orders")
    traders.end()
    users = [trader.wallet.address for trader in traders.all]

    def told():
        """What does not change with the mark, which goes on by itself."""
        kinds = ("openOrders", "userFills")
        answers = [exchange.info({"type": kind, "user": user}) for kind in kinds for user in users]
        for user in users:
            state = exchange.info({"type": "clearinghouseState", "user": user})
            held = [item["position"] for item in state["assetPositions"]]
            answers.append([(one["coin"], one["szi"], one["entryPx"]) for one in held])
            answers.append(state["marginSummary"]["totalRawUsd"])
        return answers

    before = told()
    assert any(position for answer in before if isinstance(answer, list) for position in answer)
    assert exchange.end() == 0
    exchange.start()
    exchange.wait_until_serving()
    assert told() == before
    assert exchange.end() == 0
    shutil.rmtree(exchange.data / "snapshots")  # what lies before one is not read again
    first = min((exchange.data / "journal").iterdir())
    damaged = bytearray(first.read_bytes())
    damaged[1000] ^= 1
    first.write_bytes(damaged)
    exchange.start()
    exchange.wait(lambda: exchange.logged("engine ended with code 65"), "word of the damage")
    (line,) = exchange.logged("engine ended with code 65")
    assert "halted" in line["text"]
    assert exchange.end() == 0
