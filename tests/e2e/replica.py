"""What a client makes of l4Book messages: a book of orders, by the rule that clients of this wire follow.

A Snapshot is the whole book; Updates of its height or below are old, and later ones rise. An order enters by
a diff of its own oid, described by the status of the same block. It is plain dicts and Decimals, and raises
AssertionError at anything that does not fit.
"""

from decimal import Decimal
from typing import Any

Best = tuple[Decimal, Decimal, int]  # price, size, orders
ENTERS = ("open", "triggered")  # statuses of orders that may rest in the same block


class Replica:
    """orders: oid -> (user, side, price, size, cloid); queues: side -> price -> oids by arrival."""

    def __init__(self, coin: str) -> None:
        self.coin = coin
        self.height = -1  # nothing was seen yet
        self.time_ms = 0
        self.orders: dict[int, tuple[str, str, Decimal, Decimal, str | None]] = {}
        self.queues: dict[str, dict[Decimal, dict[int, None]]] = {"B": {}, "A": {}}

    def take(self, data: dict[str, Any]) -> bool:
        """Take the data of one l4Book message; give whether it has moved the book."""
        if "Snapshot" in data:
            self._load(data["Snapshot"])
            return True
        return self._apply(data["Updates"])

    def _load(self, snapshot: dict[str, Any]) -> None:
        assert snapshot["coin"] == self.coin
        self.height, self.time_ms = snapshot["height"], snapshot["time"]
        self.orders, self.queues = {}, {"B": {}, "A": {}}
        for side, orders in zip("BA", snapshot["levels"], strict=True):
            for order in orders:
                assert order["side"] == side and not order["isTrigger"]
                self._rest(order["oid"], order["user"], side, order["limitPx"], order["sz"], order["cloid"])
        bids, asks = list(self.queues["B"]), list(self.queues["A"])
        assert bids == sorted(bids, reverse=True) and asks == sorted(asks), "not best first"

    def _apply(self, updates: dict[str, Any]) -> bool:
        height = updates["height"]
        if height <= self.height:
            return False
        self.height, self.time_ms = height, updates["time"]
        statuses = updates["order_statuses"]
        entering = {status["order"]["oid"]: status for status in statuses if status["status"] in ENTERS}
        for diff in updates["book_diffs"]:
            assert diff["coin"] == self.coin
            self._change(diff, entering)
        return True

    def _change(self, diff: dict[str, Any], entering: dict[int, dict[str, Any]]) -> None:
        oid, change = diff["oid"], diff["raw_book_diff"]
        if change != "remove" and "new" in change:
            status = entering[oid]
            order = status["order"]
            assert status["user"] == diff["user"]
            self._rest(oid, diff["user"], order["side"], diff["px"], change["new"]["sz"], order["cloid"])
            return
        user, side, price, size, cloid = self.orders[oid]
        assert (user, price) == (diff["user"], Decimal(diff["px"])), f"{diff} at {self.height}"
        if change == "remove":
            del self.orders[oid]
            del self.queues[side][price][oid]
            if not self.queues[side][price]:
                del self.queues[side][price]
        else:
            assert size == Decimal(change["update"]["origSz"]), f"{diff} at {self.height} against {size}"
            self.orders[oid] = user, side, price, Decimal(change["update"]["newSz"]), cloid

    def _rest(self, oid: int, user: str, side: str, price: str, size: str, cloid: str | None) -> None:
        assert oid not in self.orders, f"order {oid} rests twice at {self.height}"
        self.orders[oid] = user, side, Decimal(price), Decimal(size), cloid
        self.queues[side].setdefault(Decimal(price), {})[oid] = None

    def best(self) -> tuple[Best | None, Best | None]:
        """Best bid and ask."""
        bids, asks = self.queues["B"], self.queues["A"]
        return self._level("B", max(bids, default=None)), self._level("A", min(asks, default=None))

    def _level(self, side: str, price: Decimal | None) -> Best | None:
        if price is None:
            return None
        oids = self.queues[side][price]
        return price, sum((self.orders[oid][3] for oid in oids), Decimal(0)), len(oids)

    def book(self) -> list[list[tuple[Any, ...]]]:
        """[bids, asks] of (oid, user, side, price, size, cloid), best price first, then by arrival."""
        return [
            [
                (oid, *self.orders[oid])
                for price in sorted(self.queues[side], reverse=side == "B")
                for oid in self.queues[side][price]
            ]
            for side in "BA"
        ]

    def depth(self) -> tuple[tuple[Best, ...], ...]:
        """(bids, asks): all levels, best first."""
        return tuple(
            tuple(self._level(side, price) for price in sorted(self.queues[side], reverse=side == "B"))
            for side in "BA"
        )
