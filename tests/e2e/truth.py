"""What the engine itself shows: the world that it writes, mapped read-only by a test.

truth = Truth(exchange, "BTC")
height = truth.look()
truth.seen()[height] == replica.book()
"""

import os
from decimal import Decimal
from typing import Any

from gateway.world import World
from shm import broadcast, layout, region
from shm.constants import BOOK_DEPTH
from tests.e2e.instance import Exchange
from tests.e2e.replica import Best


class Truth:
    """One market's orders, looked at again and again."""

    def __init__(self, exchange: Exchange, coin: str) -> None:
        self.world = World(region.attach(_world_of(exchange.pid("engine")), layout.WORLD))
        market = self.world.market(coin)
        assert market is not None
        self._market = market
        self._looked: dict[int, tuple[Any, int]] = {}  # height -> ORDER[], how many of them are bids
        words = self.world.arrays["markets"][market]
        self._units = Decimal(10) ** int(words["price_places"]), Decimal(10) ** int(words["quantity_places"])

    def look(self) -> int:
        """Keep all orders as they are now; give their height. Raises gateway.errors.NotNow."""
        orders, bids, height = self.world.queues(self._market)
        self._looked[height] = orders.copy(), bids
        return height

    def seen(self) -> dict[int, list[list[tuple[Any, ...]]]]:
        """height -> the book at its end, in the form of Replica.book."""
        return {height: self._book(*looked) for height, looked in self._looked.items()}

    def depth(self) -> tuple[tuple[Best, ...], ...]:
        """The book that the engine has published, in the form of Replica.depth."""
        depth = self.world.depth(self._market, BOOK_DEPTH)
        price, size = self._units
        return tuple(
            tuple((int(it["price"]) / price, int(it["quantity"]) / size, int(it["count"])) for it in side)
            for side in (depth.bids, depth.asks)
        )

    @property
    def events(self) -> int:
        """How many there have been, in all markets."""
        return int(broadcast.tail(self.world.arrays["event_ring"]))

    @property
    def trades(self) -> int:
        """Likewise."""
        return int(broadcast.tail(self.world.arrays["trade_ring"]))

    def _book(self, orders: Any, bids: int) -> list[list[tuple[Any, ...]]]:
        rows = [self._order(it, "B" if place < bids else "A") for place, it in enumerate(orders)]
        return [rows[:bids], rows[bids:]]

    def _order(self, it: Any, side: str) -> tuple[Any, ...]:
        price, size = self._units
        user = "0x" + bytes(self.world.arrays["accounts"]["address"][it["account"]]).hex()
        cloid = "0x" + bytes(it["cloid"]).hex() if any(it["cloid"]) else None
        return int(it["order"]), user, side, int(it["price"]) / price, int(it["quantity"]) / size, cloid


def _world_of(pid: int) -> int:
    """A descriptor of the world that this engine writes."""
    for entry in os.scandir(f"/proc/{pid}/fd"):
        if "ringside-world" in os.readlink(entry.path):
            return os.open(entry.path, os.O_RDONLY)
    raise AssertionError("the engine has no world")
