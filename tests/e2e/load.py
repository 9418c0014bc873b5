"""Traders who send all they can: each has an account, a connection and a login of its own.

    with Load(exchange, traders=6, seed=1) as load:
        load.pause()  # everything that was sent has been answered
    # the connections have ended, and with them all orders

They place, modify and cancel orders of one market, close to its middle, and trade with each other. What an
answer says of their orders they believe; what is unknown they leave alone.
"""

import asyncio
import threading
import time
from collections import Counter
from random import Random
from typing import Any, Self

from scripts import trading_client
from scripts.trading_client import Lost, Refused, TradingClient
from scripts.wallet import Wallet
from tests.e2e.instance import Exchange, until

MARKET, MIDDLE = 0, 100_000  # BTC; USD
REACH = 40  # whole dollars from the middle, at which orders are placed
OPEN_MAX = 120  # orders of one trader
ORDERS_MAX = 8  # of one action
AT_ONCE = 4  # actions of one trader that wait for their answers
LONG_SECONDS = 60


def order(is_buy: bool, price: int, size: str, tif: str, cloid: str | None = None) -> dict[str, Any]:
    """An order as the wire has it."""
    terms = {"a": MARKET, "b": is_buy, "p": str(price), "s": size, "r": False, "t": {"limit": {"tif": tif}}}
    return terms if cloid is None else terms | {"c": cloid}


class Trader:
    """One of them. `counts`: what became of orders and actions, by its name."""

    def __init__(self, random: Random) -> None:
        self.wallet = Wallet.new()
        self.counts: Counter[str] = Counter()
        self._random = random
        self._open: list[int] = []  # oids, as far as answers tell

    async def trade(self, client: TradingClient) -> None:
        """Do one thing."""
        draw = self._random.random()
        if len(self._open) > OPEN_MAX or (draw < 0.2 and self._open):
            await self._cancel(client)
        elif draw < 0.4 and self._open:
            await self._modify(client)
        else:
            tifs = ("Ioc",) if draw > 0.85 else ("Gtc", "Gtc", "Alo")
            orders = [self._order(tifs) for _ in range(self._random.randint(1, ORDERS_MAX))]
            await self._act(client, {"type": "order", "orders": orders, "grouping": "na"})

    def _order(self, tifs: tuple[str, ...]) -> dict[str, Any]:
        """A bid or an ask; every fourth one may meet one of the other side."""
        is_buy, away = self._random.random() < 0.5, self._random.randint(-REACH // 3, REACH)
        price = MIDDLE - away if is_buy else MIDDLE + away
        return order(is_buy, price, f"0.00{self._random.randint(1, 9)}", self._random.choice(tifs))

    async def _cancel(self, client: TradingClient) -> None:
        gone = [self._taken() for _ in range(min(len(self._open), self._random.randint(1, 2 * ORDERS_MAX)))]
        await self._act(client, {"type": "cancel", "cancels": [{"a": MARKET, "o": oid} for oid in gone]})

    async def _modify(self, client: TradingClient) -> None:
        oids = [self._taken() for _ in range(min(len(self._open), self._random.randint(1, ORDERS_MAX)))]
        modifies = [{"oid": oid, "order": self._order(("Gtc", "Alo"))} for oid in oids]
        await self._act(client, {"type": "batchModify", "modifies": modifies})

    def _taken(self) -> int:
        return self._open.pop(self._random.randrange(len(self._open)))

    async def _act(self, client: TradingClient, action: dict[str, Any]) -> None:
        self.counts[action["type"]] += 1
        try:
            statuses = (await client.act(action))["data"]["statuses"]
        except Refused:
            self.counts["refused"] += 1
        except Lost:
            self.counts["unknown"] += 1
        else:
            for status in statuses:
                (said,) = status if isinstance(status, dict) else (status,)
                self.counts[said] += 1
                if said == "resting":
                    self._open.append(status["resting"]["oid"])


class Load(threading.Thread):
    """Runs them in a thread of its own. `traders` have money when it begins."""

    def __init__(self, exchange: Exchange, traders: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.traders = [Trader(Random(f"{seed} {number}")) for number in range(traders)]
        self._url = exchange.url
        self._works, self._ends = True, False
        self._idle = 0  # traders who do nothing any more
        self._fault: BaseException | None = None
        for trader in self.traders:
            exchange.deposit(trader.wallet.address, "10000000")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._works, self._ends = False, True
        self.join(LONG_SECONDS)
        self.check()

    @property
    def addresses(self) -> list[str]:
        return [trader.wallet.address for trader in self.traders]

    @property
    def counts(self) -> Counter[str]:
        """Of all traders together."""
        return sum((trader.counts for trader in self.traders), Counter())

    @property
    def sent(self) -> int:
        """How many actions, answered or not."""
        return sum(self.counts[kind] for kind in ("order", "cancel", "batchModify"))

    def check(self) -> None:
        """Raise what has gone wrong in the thread."""
        if self._fault is not None:
            raise AssertionError(f"a trader has found: {self._fault!r}") from self._fault

    def pause(self) -> None:
        """Send nothing more; return when all that was sent is answered."""
        self._works = False

        def all_idle() -> bool:
            self.check()
            return self._idle == len(self.traders)

        until(all_idle, "traders with all their answers", LONG_SECONDS)

    def run(self) -> None:
        try:
            asyncio.run(self._trade())
        except BaseException as fault:  # noqa: BLE001 (it is for the test to raise)
            self._fault = fault

    async def _trade(self) -> None:
        async with asyncio.TaskGroup() as group:
            for trader in self.traders:
                group.create_task(self._live(trader))

    async def _live(self, trader: Trader) -> None:
        async with trading_client.connect(self._url) as client:
            await client.login(trader.wallet, time.time_ns() // 1_000_000)
            while self._works:
                await asyncio.gather(*(trader.trade(client) for _ in range(AT_ONCE)))
            self._idle += 1
            while not self._ends:
                await asyncio.sleep(0.02)
