"""A follower too simple to be wrong: what a node's logs say, as dicts and lists of the node's own texts.

It reads whole files, sorts nothing but levels, forgives nothing, and keeps every number as the text it came
as; sums are Decimals. The fast follower must agree with it on every book, level, trade and open order.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

STREAMS = ("order_statuses", "raw_book_diffs", "fills")
SILENT = {"0x" + "f" * 40, "0x" + "fe" * 20}  # users whose orders have diffs but no statuses
Level = tuple[str, str, int]  # price, size, orders


class Unexplained(Exception):
    """The logs contradict themselves or the book: an order that is not there, a size that differs."""


class ReferenceBook:
    """Books of all coins after the last block applied.

    orders: oid -> the node's order object plus `user`, for resting orders, in no order that matters.
    queues: coin -> side -> list of oids in arrival order (all prices together).
    triggers: oid -> the same, for untriggered trigger orders. trades: see `_trade`.
    """

    def __init__(self) -> None:
        self.height = 0
        self.time_ms = 0
        self.orders: dict[int, dict[str, Any]] = {}
        self.queues: dict[str, dict[str, list[int]]] = {}
        self.triggers: dict[int, dict[str, Any]] = {}
        self.trades: list[dict[str, Any]] = []
        self.unpaired: list[tuple[str, dict[str, Any]]] = []  # fills without a partner

    def load(self, snapshot: list[Any]) -> None:
        """Take the state of `[height, [[coin, [bids, asks]], ...]]` with users and maybe trigger orders."""
        self.height = snapshot[0]
        for coin, sides in snapshot[1]:
            self.queues[coin] = {"B": [], "A": []}
            for user, order in (entry for side in sides for entry in side):
                if order.get("isTrigger"):  # a synthesised one does not say
                    self.triggers[order["oid"]] = {"user": user, **order}
                else:
                    self._rest({"user": user, **order})

    def apply(self, block: dict[str, Any]) -> None:
        """Apply a block: {height, time, order_statuses, raw_book_diffs, fills}, events as they were written.

        Raises Unexplained if the height is not the next, or an event does not fit the book.
        """
        if block["height"] != self.height + 1:
            raise Unexplained(f"block {block['height']} after {self.height}")
        self.height, self.time_ms = block["height"], milliseconds(block["time"])
        opening = self._take_statuses(block["order_statuses"])
        for diff in block["raw_book_diffs"]:
            self._take_diff(diff, opening)
        self._take_fills(block["fills"])

    def _take_statuses(self, statuses: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """Keep the trigger orders; return the orders that may enter the book in this block, by oid."""
        opening = {}
        for status in statuses:
            order, oid = {"user": status["user"], **status["order"]}, status["order"]["oid"]
            if status["status"] == "open" and order["isTrigger"]:
                self.triggers[oid] = order
            elif status["status"] == "triggered":
                self.triggers.pop(oid, None)
                opening[oid] = order | {
                    "isTrigger": False,
                    "triggerPx": "0.0",
                    "triggerCondition": "Triggered",
                    "tif": "Gtc",
                    "timestamp": milliseconds(status["time"]),
                }
            elif status["status"] == "open":
                opening[oid] = order
            else:
                self.triggers.pop(oid, None)
        return opening

    def _take_diff(self, diff: dict[str, Any], opening: dict[int, dict[str, Any]]) -> None:
        oid, change = diff["oid"], diff["raw_book_diff"]
        if change != "remove" and "new" in change:
            opened = opening.get(oid) or self._synthesised(diff)
            self._rest(opened | {"limitPx": diff["px"], "sz": change["new"]["sz"]})
            return
        order = self.orders.get(oid)
        if order is None or order["limitPx"] != diff["px"] or order["user"] != diff["user"]:
            raise Unexplained(f"{diff} at {self.height} against {order}")
        if change == "remove":
            del self.orders[oid]
            self.queues[order["coin"]][order["side"]].remove(oid)
        else:
            if order["sz"] != change["update"]["origSz"]:
                raise Unexplained(f"{diff} at {self.height} against {order}")
            order["sz"] = change["update"]["newSz"]

    def _synthesised(self, diff: dict[str, Any]) -> dict[str, Any]:
        if diff["user"] not in SILENT:
            raise Unexplained(f"{diff} at {self.height}: no status opens this order")
        side = {"Bid": "B", "Ask": "A"}.get(diff["side"], diff["side"])
        return {"user": diff["user"], "coin": diff["coin"], "side": side, "oid": diff["oid"]}

    def _rest(self, order: dict[str, Any]) -> None:
        if order["oid"] in self.orders:
            raise Unexplained(f"order {order['oid']} rests twice")
        self.orders[order["oid"]] = order
        self.queues.setdefault(order["coin"], {"B": [], "A": []})[order["side"]].append(order["oid"])

    def _take_fills(self, fills: list[list[Any]]) -> None:
        position = 0
        while position < len(fills):
            pair = fills[position : position + 2]
            if (
                len(pair) == 2
                and pair[0][1]["tid"] == pair[1][1]["tid"]
                and pair[0][1]["side"] != pair[1][1]["side"]
            ):
                self.trades.append(_trade(*pair))
                position += 2
            else:
                self.unpaired.append((pair[0][0], pair[0][1]))
                position += 1

    def book(self, coin: str) -> list[list[dict[str, Any]]]:
        """L4: [bids, asks], orders best price first, then by arrival."""
        sides = self.queues.get(coin, {"B": [], "A": []})
        bids = sorted(map(self.orders.__getitem__, sides["B"]), key=lambda order: -Decimal(order["limitPx"]))
        asks = sorted(map(self.orders.__getitem__, sides["A"]), key=lambda order: Decimal(order["limitPx"]))
        return [bids, asks]

    def snapshot(self) -> list[Any]:
        """The state as the node's own snapshot has it, with users and with trigger orders."""
        coins = []
        for coin in self.queues:
            waiting = [order for order in self.triggers.values() if order["coin"] == coin]
            sides = [
                [
                    [order["user"], {key: value for key, value in order.items() if key != "user"}]
                    for order in orders
                ]
                for orders in self.book(coin)
            ]
            for order in waiting:
                bare = {key: value for key, value in order.items() if key != "user"}
                sides["BA".index(order["side"])].append([order["user"], bare])
            coins.append([coin, sides])
        return [self.height, coins]

    def levels(
        self, coin: str, depth: int | None = None, figures: int | None = None, mantissa: int = 1
    ) -> list[list[Level]]:
        """L2: [bids, asks] of (price, size, orders), best first; bucketed by nSigFigs `figures` if given."""
        sides = []
        for orders, away in zip(self.book(coin), (ROUND_FLOOR, ROUND_CEILING), strict=True):
            sums: dict[Decimal, tuple[Decimal, int]] = {}
            for order in orders:
                price = Decimal(order["limitPx"])
                if figures is not None:
                    price = bucket(price, figures, mantissa, away)
                size, count = sums.get(price, (Decimal(0), 0))
                sums[price] = size + Decimal(order["sz"]), count + 1
            sides.append([(text(price), text(size), count) for price, (size, count) in sums.items()][:depth])
        return sides

    def best(self, coin: str) -> tuple[Level | None, Level | None]:
        """The best level of either side, None where it is empty."""
        sides = self.queues.get(coin, {"B": [], "A": []})
        return self._best_of(sides["B"], max), self._best_of(sides["A"], min)

    def _best_of(self, oids: list[int], of: Callable[..., str]) -> Level | None:
        if not oids:
            return None
        best = of((self.orders[oid]["limitPx"] for oid in oids), key=Decimal)
        sizes = [Decimal(self.orders[oid]["sz"]) for oid in oids if self.orders[oid]["limitPx"] == best]
        return best, text(sum(sizes, Decimal(0))), len(sizes)

    def open_orders(self, user: str) -> dict[int, dict[str, Any]]:
        """oid -> order for all that rest or wait for their trigger."""
        return {oid: order for oid, order in (self.orders | self.triggers).items() if order["user"] == user}


def bucket(price: Decimal, figures: int, mantissa: int, away: str) -> Decimal:
    """Round a price to a multiple of mantissa x 10^(digits - figures): bids down, asks up (`away`)."""
    increment = mantissa * Decimal(10) ** (price.adjusted() + 1 - figures)
    return (price / increment).to_integral_value(away) * increment


def text(value: Decimal) -> str:
    """Shortest decimal, integers with `.0`, as the node writes."""
    plain = f"{value:f}"
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return plain if "." in plain else f"{plain}.0"


def milliseconds(time: str) -> int:
    """Milliseconds since 1970 of an ISO time in UTC with nine digits, rounded down."""
    seconds = datetime.strptime(time[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return int(seconds.timestamp()) * 1000 + int(time[20:23])


def _trade(one: list[Any], other: list[Any]) -> dict[str, Any]:
    """A trade as printed: side is the taker's, users are buyer and seller."""
    fill = one[1]
    taker = one[1] if one[1]["crossed"] else other[1]
    buyer, seller = (one[0], other[0]) if fill["side"] == "B" else (other[0], one[0])
    keys = ("coin", "px", "sz", "time", "hash", "tid")
    return {key: fill[key] for key in keys} | {"side": taker["side"], "users": [buyer, seller]}


def read_blocks(root: Path, form: str) -> Iterator[dict[str, Any]]:
    """Yield the blocks below a directory in height order, for `apply`; all files are read whole, first.

    A height without a line in any stream is a block without events (streaming logs leave those out).
    """
    blocks: dict[int, dict[str, Any]] = {}
    for stream in STREAMS:
        for line in read_lines(root, stream, form):
            record = json.loads(line)
            height = record["block_number"]
            block = blocks.setdefault(
                height, {"height": height, "time": record["block_time"]} | dict.fromkeys(STREAMS)
            )
            block[stream] = (block[stream] or []) + record["events"]
    for height in range(min(blocks, default=0), max(blocks, default=-1) + 1):
        block = blocks.get(height) or {"height": height, "time": blocks[height - 1]["time"]}
        yield block | {stream: block.get(stream) or [] for stream in STREAMS}
        blocks[height] = block


def read_lines(root: Path, stream: str, form: str) -> Iterable[bytes]:
    """Yield all lines of a stream, hour by hour."""
    folder = root / f"node_{stream}_{form}" / "hourly"
    for path in sorted(folder.glob("*/*"), key=lambda path: (path.parent.name, int(path.name))):
        yield from path.read_bytes().splitlines(keepends=True)


def followed(snapshot: list[Any], root: Path, form: str) -> ReferenceBook:
    """The state after all blocks of the logs that come after the snapshot."""
    book = ReferenceBook()
    book.load(snapshot)
    for block in read_blocks(root, form):
        if block["height"] > book.height:
            book.apply(block)
    return book
