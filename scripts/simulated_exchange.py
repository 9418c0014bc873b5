"""A SIMULATION of those who trade: invented makers and takers on a running exchange, by its public door.

    python -m scripts.simulated_exchange --operator DATA/operator.sock [--url URL] [--seed N] [--rate R]

The prices that they trade around are told to the exchange as its oracle's, by the operator's socket.
Each account has a connection of its own and trades every market that `meta` names; one more connection
watches the best quotes of all. Accounts and their keys follow from the seed, so they are the same when it is
started again: they hold nothing but what the operator's socket gives them. A connection that ends is made
again, and an account that is gone or poor is given money again. When it ends, its orders are canceled.
"""

import argparse
import asyncio
import hashlib
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from math import ceil
from pathlib import Path
from random import Random
from typing import Any

from scripts import operator, oracle_feed, trading_client
from scripts.simulated_market import Spec
from scripts.simulated_prices import STEP_SECONDS, Prices
from scripts.simulated_quotes import Action, Maker, Market, Picture, Style, Taker, View, scaled
from scripts.trading_client import Lost, Refused, TradingClient
from scripts.wallet import Wallet

RATE = 200.0  # messages a second, of all accounts together
RATE_OF_ONE_MAX = 20.0  # of one connection: a gateway takes 2,000 messages a minute
ROLES = ("maker", "noise", "maker", "informed", "maker", "noise")  # of one account after the other
GIFT_USD = 1_000_000
POOR_USD = 200_000
AGAIN_SECONDS, AGAIN_SECONDS_MAX = 0.2, 5.0  # between two tries to connect
LIVED_SECONDS = 10.0  # a connection that held so long was no failure
RESYNC_SECONDS = 30.0  # after so long an account asks again what it has
REFUSALS_MAX = 3  # whole actions, one after the other; then the account begins anew
REPORT_SECONDS = 60.0
STEPS_MAX = 50  # of the prices at once, when this process has been held up


class Pace:
    """At most `rate` turns a second; those not taken are kept for one second."""

    def __init__(self, rate: float):
        self._rate = rate
        self._next = 0.0  # monotonic seconds when one more turn is free

    async def turn(self) -> None:
        now = time.monotonic()
        self._next = max(self._next, now - 1) + 1 / self._rate
        if self._next > now:
            await asyncio.sleep(self._next - now)


class Scene:
    """What all accounts share: the markets, their fair prices, the best quotes, and what is counted."""

    def __init__(self, seed: int, markets: list[Market]):
        self.markets = markets
        self.specs = {market.spec.coin: market.spec for market in markets}
        self.prices = Prices(Random(f"{seed} prices"), self.specs.values())
        self.counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._best: dict[str, tuple[int, int]] = {}

    def view(self, coin: str) -> View:
        bid, ask = self._best.get(coin, (0, 0))
        prices = self.prices
        return View(prices.fair(coin), bid, ask, prices.volatility, prices.excitement[coin])

    def hear(self, channel: str, data: Any) -> None:
        """Take a message of bbo."""
        if channel == "bbo":
            places = self.specs[data["coin"]].price_decimals
            bid, ask = (level and scaled(level["px"], places) or 0 for level in data["bbo"])
            self._best[data["coin"]] = bid, ask

    def forget_quotes(self) -> None:
        self._best.clear()

    def note(self, error: str) -> None:
        """Count a refusal or a failure by its first words, those without numbers."""
        self._errors[error.partition(",")[0].partition(" asset=")[0]] += 1

    async def walk(self) -> None:
        """Let the prices go by the clock."""
        seen = time.monotonic()
        while True:
            await asyncio.sleep(STEP_SECONDS)
            steps = int((time.monotonic() - seen) / STEP_SECONDS)
            seen += steps * STEP_SECONDS
            for _ in range(min(steps, STEPS_MAX)):
                self.prices.step()

    def report(self) -> str:
        counts = ", ".join(f"{count:,} {what}" for what, count in self.counts.most_common())
        errors = "".join(f"; {count:,} x {text!r}" for text, count in self._errors.most_common(3))
        return f"SIMULATED traders: {counts or 'nothing yet'}{errors}"


class Account:
    """One trader: its key, what it knows of itself, and what it does in each market."""

    def __init__(self, scene: Scene, number: int, seed: int, role: str, rate: float):
        name = f"{role} {number}"
        self.role = role
        self.wallet = Wallet(hashlib.sha256(f"ringside simulated {seed} {name}".encode()).digest())
        self.picture = Picture(scene.specs)
        self._scene, self._rate = scene, rate
        self._random = Random(f"{seed} {name}")
        style = Style(
            spread=Style.spread * self._random.uniform(0.8, 2.5),
            level_usd=int(Style.level_usd * self._random.uniform(0.5, 2)),
            by_cloid=number // 2 % 2 == 0,
        )
        self._traders: list[Maker | Taker] = [
            Maker(market, style)
            if role == "maker"
            else Taker(market, self._random, informed=role == "informed")
            for market in scene.markets
        ]

    def hear(self, channel: str, data: Any) -> None:
        if channel == "orderUpdates":
            self.picture.take_updates(data)
        elif channel == "userFills" and not data.get("isSnapshot"):
            self._scene.counts["fills"] += len(data["fills"])
            self.picture.take_fills(data["fills"])

    async def begin(self, client: TradingClient, operator_socket: Path) -> None:
        """Have money, log in, and know what one has. Raises Refused, Lost, operator.Unheard."""
        state = await client.info({"type": "clearinghouseState", "user": self.wallet.address})
        if scaled(state["marginSummary"]["accountValue"], 0) < POOR_USD:
            gift = {"kind": "deposit", "address": self.wallet.address, "amount": str(GIFT_USD)}
            answer = await asyncio.to_thread(operator.ask, operator_socket, gift)
            if not answer["ok"]:
                raise Refused(answer["error"])
            self._scene.counts["deposits"] += 1
        await client.login(self.wallet, time.time_ns() // 1_000_000)
        client.subscribe(type="orderUpdates", user=self.wallet.address)
        client.subscribe(type="userFills", user=self.wallet.address)
        await self.look(client)

    async def look(self, client: TradingClient) -> None:
        """Ask what one has."""
        user = self.wallet.address
        orders = await client.info({"type": "frontendOpenOrders", "user": user})
        self.picture.begin(orders, await client.info({"type": "clearinghouseState", "user": user}))

    async def trade(self, client: TradingClient) -> None:
        """Decide and act, market after market, until something ends it. Raises Refused, Lost."""
        pace, draw = Pace(self._rate), self._random
        looked, refusals = time.monotonic(), 0
        while True:
            trader = draw.choice(self._traders)
            view = self._scene.view(trader.market.spec.coin)
            for action in trader.decide(self.picture, view):
                await pace.turn()
                refusals = 0 if await self._act(client, action) else refusals + 1
                if refusals > REFUSALS_MAX:
                    raise Refused("one action after the other is refused")
            if time.monotonic() - looked > RESYNC_SECONDS:
                looked = time.monotonic()
                await self.look(client)
            excited = 1 + view.excitement
            await asyncio.sleep(min(draw.expovariate(self._rate / 2 * excited), 5 / self._rate))

    async def _act(self, client: TradingClient, action: Action) -> bool:
        """Send one action; give whether it was taken as a whole."""
        counts = self._scene.counts
        try:
            response = await client.act(action)
        except Refused as refusal:
            counts["actions refused"] += 1
            self._scene.note(str(refusal))
            return False
        counts[f"{action['type']} actions"] += 1
        statuses = response.get("data", {}).get("statuses", [])
        for error in (s["error"] for s in statuses if isinstance(s, dict) and "error" in s):
            counts["orders refused"] += 1
            self._scene.note(error)
        return True


# --- connections --------------------------------------------------------------------------------------------


class Again:
    """How long to wait before the next try: longer after each failure, shorter once something held."""

    def __init__(self) -> None:
        self._seconds = AGAIN_SECONDS
        self._began = time.monotonic()

    def begin(self) -> None:
        self._began = time.monotonic()

    async def wait(self) -> None:
        if time.monotonic() - self._began > LIVED_SECONDS:
            self._seconds = AGAIN_SECONDS
        await asyncio.sleep(self._seconds)
        self._seconds = min(2 * self._seconds, AGAIN_SECONDS_MAX)


async def until_ended(client: TradingClient) -> None:
    """Raises Lost when the connection ends."""
    await client.ended.wait()
    raise Lost("the connection has ended")


async def markets_of(client: TradingClient) -> list[Market]:
    """The perps that the exchange has, each with its present price for reference."""
    meta, contexts = await client.info({"type": "metaAndAssetCtxs"})
    markets = []
    for asset, (told, context) in enumerate(zip(meta["universe"], contexts, strict=True)):
        decimals = told["szDecimals"]
        reference = scaled(context["markPx"], 6 - decimals)
        spec = Spec(told["name"], decimals, 6 - decimals, reference, told["maxLeverage"])
        markets.append(Market(spec, asset))
    return markets


async def find_markets(url: str) -> list[Market]:
    """Wait for an exchange that has markets."""
    again = Again()
    while True:
        again.begin()
        with suppress(OSError, Refused):
            async with trading_client.connect(url) as client:
                if markets := await markets_of(client):
                    return markets
        await again.wait()


async def watch(url: str, scene: Scene) -> None:
    """Keep the scene's best quotes, for ever."""
    again = Again()
    while True:
        again.begin()
        with suppress(OSError):
            async with trading_client.connect(url, scene.hear) as client:
                for coin in scene.specs:
                    client.subscribe(type="bbo", coin=coin)
                await until_ended(client)
        scene.forget_quotes()
        await again.wait()


async def live(url: str, operator_socket: Path, scene: Scene, account: Account) -> None:
    """Let one account trade, for ever."""
    again = Again()
    while True:
        again.begin()
        try:
            async with trading_client.connect(url, account.hear) as client:
                await account.begin(client, operator_socket)
                async with asyncio.TaskGroup() as group:
                    group.create_task(until_ended(client))
                    group.create_task(account.trade(client))
        except* (OSError, Refused, operator.Unheard) as failures:
            scene.counts["new beginnings"] += 1
            scene.note(str(failures.exceptions[0]))
        await again.wait()


async def fair_prices(scene: Scene) -> AsyncIterator[oracle_feed.Prices]:
    """What the markets are worth here, as a source of an oracle."""
    while True:
        yield {
            coin: oracle_feed.Price(spec.price_text(scene.prices.fair(coin)))
            for coin, spec in scene.specs.items()
        }
        await asyncio.sleep(oracle_feed.EVERY_SECONDS)


async def report(scene: Scene) -> None:
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        print(scene.report(), flush=True)


def accounts_of(scene: Scene, seed: int, rate: float) -> list[Account]:
    """As many as it takes to send `rate` messages a second, at least one of each role."""
    count = max(ceil(rate / RATE_OF_ONE_MAX), len(set(ROLES)) + 1)
    roles = [ROLES[number % len(ROLES)] for number in range(count)]
    return [Account(scene, number, seed, role, rate / count) for number, role in enumerate(roles)]


async def simulate(url: str, operator_socket: Path, seed: int, rate: float) -> None:
    """Trade until SIGTERM or SIGINT."""
    loop, ending = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    trading = asyncio.create_task(_trade(url, operator_socket, seed, rate))
    waiting = asyncio.create_task(ending.wait())
    await asyncio.wait((trading, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    trading.cancel()
    with suppress(asyncio.CancelledError):
        await trading


async def _trade(url: str, operator_socket: Path, seed: int, rate: float) -> None:
    scene = Scene(seed, await find_markets(url))
    desk = oracle_feed.Desk(
        operator_socket, {coin: spec.price_decimals for coin, spec in scene.specs.items()}
    )
    accounts = accounts_of(scene, seed, rate)
    print(f"SIMULATED traders: {len(accounts)} accounts in {', '.join(scene.specs)} at {url}", flush=True)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(scene.walk())
            group.create_task(report(scene))
            group.create_task(watch(url, scene))
            group.create_task(oracle_feed.feed(fair_prices(scene), desk))
            for account in accounts:
                group.create_task(live(url, operator_socket, scene, account))
    finally:
        print(scene.report(), flush=True)


def arguments_of(line: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="simulated_exchange", description="Invented traders on an exchange."
    )
    parser.add_argument("--url", default="http://127.0.0.1:3001", help="of the exchange")
    parser.add_argument("--operator", type=Path, required=True, help="the operator's socket")
    parser.add_argument("--seed", type=int, default=0, help="of accounts, prices and decisions")
    parser.add_argument("--rate", type=float, default=RATE, help="messages a second at most, in total")
    return parser.parse_args(line)


def main(line: list[str] | None = None) -> None:
    given = arguments_of(line)
    asyncio.run(simulate(given.url, given.operator, given.seed, given.rate))


if __name__ == "__main__":
    main()
