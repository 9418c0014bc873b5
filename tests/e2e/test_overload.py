"""An exchange that is asked for five times what it takes: an answer says what became of its order.

  an error   it was not executed: nobody has heard of it, or all that was heard is that it was refused
  accepted   it was executed once, under the oid that the answer names
  unknown    it was executed once or never

The engine is made slow by stopping it, so that the gateway's door is full, always and everywhere. Orders that
rested before are cancelled meanwhile: there is room for that.
"""

import asyncio
import os
import signal
import time
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from decimal import Decimal
from random import Random

import pytest

from gateway.door import KEPT_FOR_CANCELS
from scripts import trading_client
from scripts.trading_client import Lost, Refused
from scripts.wallet import Wallet
from shm.constants import BATCH_MAX, COMMANDS_MAX, USER_FILLS_MAX
from tests.e2e.client import Client
from tests.e2e.instance import Exchange, until
from tests.e2e.load import MARKET, MIDDLE, order

pytestmark = pytest.mark.timeout(280)

ROOM = COMMANDS_MAX - KEPT_FOR_CANCELS  # orders that a gateway has under way at most
TIMES = 5  # what it takes, as much it is asked for
TRADERS, BATCH = 24, 50
BATCHES = -(-TIMES * ROOM // (TRADERS * BATCH))  # of each trader in a round
RESTING = 40  # orders of each trader that are cancelled in a round
QUIET = 30_000  # the price of those: nobody trades there
ANSWER_SECONDS = 3
SOAK_ROUNDS = 15
CONFIG = f"""
[gateway.limits]
answer_ns = {ANSWER_SECONDS * 10**9}
actions_per_minute_max = 100_000_000
messages_per_minute_max = 1_000_000
"""
assert TRADERS * RESTING <= KEPT_FOR_CANCELS, "all of them are let in, whatever else is under way"


class Order:
    """said: `refused` with its action, an `error` of its own, `accepted` or `unknown`. filled: its size."""

    def __init__(self, user, cloid):
        self.user, self.cloid = user, cloid
        self.said, self.oid, self.filled = "", None, Decimal(0)

    def hear(self, said, status=None):
        assert not self.said, "answered twice"
        self.said = said
        if said == "accepted":
            ((_, told),) = status.items()
            self.oid, self.filled = told["oid"], Decimal(told.get("totalSz", 0))


class Trader:
    """One connection, and all the orders that it has sent."""

    def __init__(self, exchange, random):
        self.wallet, self.random = Wallet.new(), random
        self.user = self.wallet.address
        self.orders, self.resting = [], []  # resting: those to be cancelled in this round
        self.canceled = {}  # oid -> what was said: success or unknown
        self.waiting = 0  # orders without an answer
        exchange.deposit(self.user, "1000000")

    async def begin(self, stack, url):
        self.client = await stack.enter_async_context(trading_client.connect(url))
        await self.client.login(self.wallet, time.time_ns() // 10**6)

    async def rest(self):
        """Place the orders that are going to be cancelled."""
        self.resting = await self.place([(True, QUIET + at, "0.001", "Gtc") for at in range(RESTING)])
        assert {it.said for it in self.resting} == {"accepted"}

    async def place(self, wanted):
        """Ask for some orders in one action; give them with their answers."""
        orders = [Order(self.user, f"0x{self.random.getrandbits(128):032x}") for _ in wanted]
        asked = [order(*terms, cloid=it.cloid) for terms, it in zip(wanted, orders, strict=True)]
        self.orders += orders
        self.waiting += len(orders)
        try:
            answer = await self.client.act({"type": "order", "orders": asked, "grouping": "na"})
        except Refused as refused:
            assert str(refused).startswith("busy: the action was not accepted"), refused
            for it in orders:
                it.hear("refused")
        except Lost as lost:
            assert str(lost).startswith(trading_client.UNKNOWN), lost
            for it in orders:
                it.hear("unknown")
        else:
            for it, status in zip(orders, answer["data"]["statuses"], strict=True):
                it.hear("error" if "error" in status else "accepted", status)
        self.waiting -= len(orders)
        return orders

    async def cancel(self, it):
        """Cancel a resting order, by its oid or its cloid. Being refused is an error of the test's."""
        if self.random.random() < 0.5:
            action = {"type": "cancel", "cancels": [{"a": MARKET, "o": it.oid}]}
        else:
            action = {"type": "cancelByCloid", "cancels": [{"asset": MARKET, "cloid": it.cloid}]}
        try:
            answer = await self.client.act(action)
        except Lost as lost:
            assert str(lost).startswith(trading_client.UNKNOWN), lost
            self.canceled[it.oid] = "unknown"
        else:
            (self.canceled[it.oid],) = answer["data"]["statuses"]

    async def overload(self):
        """All at once: far too many orders, and a cancel of each that rests."""
        asked = [self.place([self.terms() for _ in range(BATCH)]) for _ in range(BATCHES)]
        asked += [self.cancel(it) for it in self.resting]
        self.random.shuffle(asked)
        await asyncio.gather(*asked)

    async def ask(self, kind, **more):
        """Ask for something of this user, again while the engine is at work."""
        while True:
            try:
                return await self.client.info({"type": kind, "user": self.user, **more})
            except Refused as refused:
                assert str(refused).startswith("503"), refused

    async def leave(self):
        """Cancel what the round has left."""
        left = await self.ask("openOrders")
        for start in range(0, len(left), BATCH_MAX):
            cancels = [{"a": MARKET, "o": it["oid"]} for it in left[start : start + BATCH_MAX]]
            await self.client.act({"type": "cancel", "cancels": cancels})

    def terms(self):
        """Most of them rest or trade, some are too small."""
        is_buy, away = self.random.random() < 0.5, self.random.randint(-5, 15)
        price = MIDDLE - away if is_buy else MIDDLE + away
        size = self.random.choice(("0.001", "0.001", "0.002", "0.005", "0.00005"))
        return is_buy, price, size, self.random.choice(("Gtc", "Gtc", "Ioc", "Alo"))


class Engine:
    """Its process, and when it may run."""

    def __init__(self, exchange):
        self._pid = exchange.pid("engine")

    def stop(self):
        os.kill(self._pid, signal.SIGSTOP)

    def go(self):
        os.kill(self._pid, signal.SIGCONT)

    async def while_full(self, traders):
        """Stand still until all that there is no room for is refused."""
        self.stop()
        await asyncio.sleep(0)  # they begin to send
        while sum(trader.waiting for trader in traders) > ROOM:
            await asyncio.sleep(0.005)
        self.go()

    async def until_given_up(self, traders):
        """Stand still until nobody waits any more: what is under way is called unknown, and done later."""
        self.stop()
        await asyncio.sleep(0)
        while any(trader.waiting for trader in traders):
            await asyncio.sleep(0.005)
        self.go()

    async def by_chance(self, traders, random):
        """Stand still, and go on for a moment, again and again."""
        await asyncio.sleep(0)
        while any(trader.waiting for trader in traders):
            self.stop()
            await asyncio.sleep(random.uniform(0, 0.1))
            self.go()
            await asyncio.sleep(random.uniform(0, 0.01))


@pytest.fixture
def exchange(tmp_path):
    config = tmp_path / "exchange.toml"
    config.write_text(CONFIG)
    with Exchange(tmp_path, "--config", str(config)) as exchange:
        yield exchange


def test_no_order_is_executed_that_was_answered_with_an_error_and_cancels_are_let_in(request, exchange):
    heard, random = [], Random(3)
    traders = [Trader(exchange, Random(random.random())) for _ in range(TRADERS)]
    with Client(exchange.port, {"type": "l4Book", "coin": "BTC"}, hear=heard.append) as witness:
        until(lambda: witness.snapshots, "a snapshot")
        rounds = SOAK_ROUNDS if request.config.getoption("--soak") else 1
        asyncio.run(trade(exchange, traders, random, rounds))
        exchange.wait(lambda: not witness.books["BTC"].orders, "the end of all orders of those who have left")
        assert witness.snapshots == 1, "it has heard everything"
    stories = stories_of(heard)
    for it in (it for trader in traders for it in trader.orders):
        compare(it, stories.get(it.cloid, {}))


async def trade(exchange, traders, random, rounds):
    """Go through the rounds, and ask what became of the orders of each."""
    engine = Engine(exchange)
    async with AsyncExitStack() as stack:
        stack.callback(engine.go)
        for trader in traders:
            await trader.begin(stack, exchange.url)
        for _ in range(rounds):
            before = {trader: len(trader.orders) for trader in traders}
            said = await overloaded(traders, engine.while_full(traders))
            taken = said.total() - said["refused"]
            assert said.total() >= TIMES * taken > 0 and said["accepted"], said
            said = await overloaded(traders, engine.until_given_up(traders))
            assert said["unknown"] and not said["accepted"], said
            said = await overloaded(traders, engine.by_chance(traders, random))
            assert said["accepted"], said
            await asyncio.gather(*(look_up(it, it.orders[before[it] :]) for it in traders))


async def overloaded(traders, engine):
    """All send at once, and the engine does as it is told; give how many orders were answered how."""
    await asyncio.gather(*(trader.rest() for trader in traders))
    before = {trader: len(trader.orders) for trader in traders}
    await asyncio.gather(*(trader.overload() for trader in traders), engine)
    said = Counter(it.said for trader in traders for it in trader.orders[before[trader] :])
    print(said)
    await asyncio.gather(*(trader.leave() for trader in traders))
    return said


def stories_of(heard):
    """cloid -> oid -> all statuses of that order, in the order in which l4Book tells them."""
    stories = defaultdict(lambda: defaultdict(list))
    for message in heard:
        updates = message["data"].get("Updates", {}) if message["channel"] == "l4Book" else {}
        for it in updates.get("order_statuses", ()):
            stories[it["order"]["cloid"]][it["order"]["oid"]].append(it["status"])
    return stories


def compare(it, story):
    """An order's answer with all that was ever said of its cloid."""
    assert len(story) <= 1, f"{it.said}, and it came twice: {story}"
    executed = [oid for oid, statuses in story.items() if not statuses[0].endswith("Rejected")]
    if it.said == "accepted":
        assert executed == [it.oid], f"accepted as {it.oid}: {story}"
    elif it.said == "refused":
        assert not story, f"refused, and yet {story}"
    else:
        assert it.said == "unknown" or not executed, f"{it.said}, and yet {story}"


async def look_up(trader, orders):
    """Ask what a client asks of his orders: for those that are open, fills, and the status of some."""
    open_cloids = {it["cloid"] for it in await trader.ask("openOrders")}
    fills = await trader.ask("userFills")
    filled = Counter()
    for fill in fills:
        filled[fill["cloid"]] += Decimal(fill["sz"])
    for it in orders:
        if it.said in ("refused", "error"):
            assert it.cloid not in open_cloids and it.cloid not in filled
        elif it.filled and len(fills) < USER_FILLS_MAX:
            assert filled[it.cloid] == it.filled
    for it in orders[:: BATCH // 2]:
        told = await trader.ask("orderStatus", oid=it.cloid)
        if it.said == "refused":
            assert told == {"status": "unknownOid"}
        elif it.said == "error":
            assert told["status"] == "unknownOid" or told["order"]["status"].endswith("Rejected"), told
        elif it.said == "accepted":
            assert told["order"]["order"]["oid"] == it.oid, told
            assert not told["order"]["status"].endswith("Rejected"), told
    for oid, said in trader.canceled.items():
        told = await trader.ask("orderStatus", oid=oid)
        assert said in ("success", "unknown") and told["order"]["status"] == "canceled", (said, told)
    trader.canceled.clear()
