"""Tells a running exchange what its markets' underlyings are worth, every few seconds, from one source.

    ringside feed --url URL                  the middles of the books of another: exchange, follower, venue
    ringside feed --file FILE [--speed N]    a recording: lines of SECONDS COIN PRICE [EXTERNAL]

A source is an asynchronous iterator of what is known at a moment: coin -> texts of prices. It says what it
knows and nothing else: when it has nothing new, nothing is submitted, the oracle ages, and after its bound
the market takes cancels alone. Coins that the exchange does not have are left out, and prices are cut to the
places of their market. Submitted is at the operator's desk, like all that is the operator's alone.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from decimal import ROUND_DOWN, Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

from scripts import operator, trading_client
from scripts.trading_client import Refused
from shm.constants import PERP_DECIMALS

EVERY_SECONDS = 3.0  # as the public venue's validators do
AGAIN_SECONDS = 1.0


class Price(NamedTuple):
    """Decimal texts, in USD. external: of such a contract elsewhere, if that is known."""

    oracle: str
    external: str | None = None


Prices = Mapping[str, Price]
Moment = tuple[float, Prices]  # seconds


class Unusable(Exception):
    """A recording that cannot be read; the text says where and why."""


# --- where prices come from ---------------------------------------------------------------------------------


async def of_url(url: str, every: float = EVERY_SECONDS) -> AsyncIterator[Prices]:
    """The middles of all books of who speaks the wire at `url`. Silent while nobody does."""
    while True:
        with suppress(OSError, Refused):
            async with trading_client.connect(url) as client:
                while True:
                    mids = await client.info({"type": "allMids"})
                    yield {coin: Price(mid) for coin, mid in mids.items()}
                    await asyncio.sleep(every)
        await asyncio.sleep(AGAIN_SECONDS)


async def of_recording(moments: Sequence[Moment], speed: float = 1.0) -> AsyncIterator[Prices]:
    """A recording at its own pace, or so many times that."""
    began = time.monotonic()
    for seconds, prices in moments:
        await asyncio.sleep(max(0.0, began + (seconds - moments[0][0]) / speed - time.monotonic()))
        yield prices


def recording(path: Path) -> list[Moment]:
    """What a file says, line by line. Raises Unusable."""
    found: list[Moment] = []
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, ValueError) as error:
        raise Unusable(f"{path}: {error}") from None
    for number, line in enumerate(lines, 1):
        match line.split():
            case [seconds, coin, oracle, *external] if len(external) <= 1:
                last = found[-1][0] if found else float("-inf")
                if not all(map(_is_price, [oracle, *external])) or not _is_later(seconds, last):
                    raise Unusable(f"{path}, line {number}: expected a later time, and prices above nothing")
                found.append((float(seconds), {coin: Price(oracle, *external)}))
            case []:
                pass
            case _:
                raise Unusable(f"{path}, line {number}: expected SECONDS COIN PRICE [EXTERNAL]")
    return found


def _is_price(text: str) -> bool:
    try:
        price = Decimal(text)
    except InvalidOperation:
        return False
    return price.is_finite() and price > 0


def _is_later(seconds: str, last: float) -> bool:
    try:
        return last <= float(seconds) < float("inf")
    except ValueError:
        return False


# --- where they go ------------------------------------------------------------------------------------------


class Desk:
    """The operator's desk of an exchange, for prices alone. places: of each market's prices, by coin."""

    def __init__(self, path: Path, places: Mapping[str, int]):
        self._path, self._places = path, places
        self.submitted = 0
        self.refused = ""  # the last refusal: it stands until a price is taken

    async def submit(self, prices: Prices) -> None:
        """Submit those that the exchange can have a use for. Raises operator.Unheard."""
        for coin, price in prices.items():
            if coin in self._places:
                message = {"kind": "oracle", "coin": coin, "price": self._cut(coin, price.oracle)}
                if price.external is not None:
                    message["external"] = self._cut(coin, price.external)
                answer = await asyncio.to_thread(operator.ask, self._path, message)
                self.submitted += bool(answer["ok"])
                self.refused = "" if answer["ok"] else f"{coin}: {answer['error']}"

    def _cut(self, coin: str, text: str) -> str:
        return f"{Decimal(text).quantize(Decimal(1).scaleb(-self._places[coin]), ROUND_DOWN):f}"


async def places_of(url: str) -> dict[str, int]:
    """How many places the prices of each market of the exchange at `url` have; waits for it to be there."""
    while True:
        with suppress(OSError, Refused):
            async with trading_client.connect(url) as client:
                universe = (await client.info({"type": "meta"}))["universe"]
                if universe:
                    return {market["name"]: PERP_DECIMALS - market["szDecimals"] for market in universe}
        await asyncio.sleep(AGAIN_SECONDS)


async def feed(source: AsyncIterator[Prices], desk: Desk) -> None:
    """Submit what the source says until it ends, and say when the desk stops or begins to take it."""
    said = None
    async for prices in source:
        try:
            await desk.submit(prices)
            told = desk.refused
        except operator.Unheard as unheard:
            told = str(unheard)
        if told != said:
            print(f"ringside feed: {told or 'prices are taken'}", flush=True)
            said = told


async def run(source: AsyncIterator[Prices], exchange_url: str, operator_socket: Path) -> int:
    """Feed the exchange until the source ends; give how many prices it took."""
    desk = Desk(operator_socket, await places_of(exchange_url))
    await feed(source, desk)
    return desk.submitted
