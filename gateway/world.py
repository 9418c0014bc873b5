"""One mapped world, and the questions that this process asks of it: answers are arrays, or the wire's JSON.

The engine writes this memory while we read. What cannot be read whole within its bound raises NotNow: a
client is told so, or is answered a moment later; nothing is ever guessed. A world belongs to one incarnation
of the engine; its rows and indices mean nothing in the next.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from gateway import encode, quotes
from gateway.encode import ELEMENT_BYTES_MAX
from gateway.errors import NotNow
from shm import layout, rows, seqlock
from shm.codes import Feed, MarketKind, Mode
from shm.constants import BOOK_DEPTH, READ_TRIES
from shm.region import Region

Array = np.ndarray[Any, Any]
Made = TypeVar("Made")

LOOKUP_TRIES = 4096  # pauses of some 40 ns: a look-up by oid waits out a small block
DEPTH_TRIES = 256  # of some 10 us at most
QUEUE_TRIES = 4  # copies of all of a market's orders, each some milliseconds
SLACK = 64  # orders that may come between counting them and copying them
CHUNK_BYTES = 256 * 1024  # of a text that is made in parts


class Status(NamedTuple):
    """rows.STATUS_WORDS by name."""

    height: int
    time_ns: int
    applied_ns: int
    seen_height: int
    state: int
    mode: int
    market_count: int
    account_count: int
    name_count: int
    order_count: int
    stale_count: int
    checked_height: int

    @property
    def time_ms(self) -> int:
        return self.time_ns // 1_000_000


assert Status._fields == rows.STATUS_WORDS


class MarketWords(NamedTuple):
    """rows.MARKET_WORDS by name."""

    height: int
    epoch: int
    stale: int
    order_count: int
    last_price: int


assert MarketWords._fields == rows.MARKET_WORDS


class Depth(NamedTuple):
    """The best levels of both sides, of one moment: BOOK_LEVEL arrays, overwritten by the next reading."""

    bids: Array
    asks: Array
    height: int
    time_ms: int


class World:
    def __init__(self, region: Region):
        arrays = region.arrays
        self.region = region
        self.epoch = region.epoch
        self.arrays = arrays
        self.coins: list[str] = []  # by market
        self._market_of: dict[str, int] = {}
        self._kinds: list[MarketKind] = []
        self._status = np.zeros(len(rows.STATUS_WORDS), layout.WORD)
        self._words = np.zeros(len(rows.MARKET_WORDS), layout.WORD)
        self._found = np.zeros(3, layout.WORD)
        self._book = np.zeros(1, layout.BOOK)
        self._bids = np.zeros(BOOK_DEPTH, layout.BOOK_LEVEL)
        self._asks = np.zeros(BOOK_DEPTH, layout.BOOK_LEVEL)
        self._out = np.zeros(CHUNK_BYTES, np.uint8)
        self._nonuser = np.zeros(len(arrays["names"]), np.bool_)  # by row of names
        self._names_known = 0
        self._wanted: dict[tuple[str, int], Array] = {}
        self._made: dict[Hashable, Any] = {}  # by `once_a_block`, at this height
        self._made_height = -1

    # what is there

    def look(self) -> Status:
        rows.read_status(self.arrays["status"], self._status)
        return Status(*self._status.tolist())

    def ready(self) -> bool:
        """Whether what is not here does not exist: false until the engine holds the state of a height."""
        status = self.look()
        return status.state != Feed.WAITING or status.height > 0

    @property
    def is_exchange(self) -> bool:
        """Whether the engine makes this world itself: then there are accounts, contracts and candles."""
        return self.look().mode == Mode.EXCHANGE

    def once_a_block(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives, made anew when there is a new block: it is no older than that. key: its name."""
        height = self.look().height
        if height != self._made_height:
            self._made.clear()
            self._made_height = height
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    def market(self, coin: str) -> int | None:
        """The index of the market that the wire calls `coin`."""
        market = self._market_of.get(coin)
        if market is None and self.look().market_count > len(self.coins):
            self.learn()
            market = self._market_of.get(coin)
        return market

    def learn(self) -> None:
        """Learn the names of markets that were added since the last time."""
        count = self.look().market_count
        for market in range(len(self.coins), count):
            row = self.arrays["markets"][market]
            coin = bytes(row["name"]).rstrip(b"\0").decode("ascii", "replace")
            self.coins.append(coin)
            self._market_of[coin] = market
            self._kinds.append(MarketKind(int(row["kind"])))

    def kind(self, market: int) -> MarketKind:
        return self._kinds[market]

    def size_decimals(self, market: int) -> int:
        return int(self.arrays["markets"]["size_decimals"][market])

    def words(self, market: int) -> MarketWords:
        rows.read_market(self.arrays["markets"], market, self._words)
        return MarketWords(*self._words.tolist())

    def account(self, address: bytes) -> int | None:
        """The row of an account, once it was seen."""
        arrays = self.arrays
        text = np.frombuffer(address, np.uint8)
        row = rows.account_row(arrays["account_index"], arrays["accounts"], text)
        return None if row == rows.MISSING else int(row)

    def wanted(self, dex: str) -> Array:
        """Which markets belong to a perp dex: b1 by market. The main one, "", has all that no builder has."""
        self.learn()
        key = dex, len(self.coins)
        mask = self._wanted.get(key)
        if mask is None:
            if len(self._wanted) > SLACK:
                self._wanted.clear()
            mask = self._wanted[key] = np.array([dex_of(coin) == dex for coin in self.coins], np.bool_)
        return mask

    def dexs(self) -> list[str]:
        """The builders' dexes, in the order in which their first market was seen."""
        self.learn()
        return [dex for dex in dict.fromkeys(map(dex_of, self.coins)) if dex]

    # books

    def depth(self, market: int, levels: int, figures: int | None = None, mantissa: int = 1) -> Depth:
        """The best levels, added up in buckets where `figures` are given. Raises NotNow."""
        status = self.look()  # before the book: what is read then is no older than this
        if figures is None:
            return self._whole_levels(market, levels, status)
        arrays, found = self.arrays, self._found
        bids, asks = self._bids[:levels], self._asks[:levels]
        tables = arrays["markets"], arrays["sides"], arrays["levels"]
        count = rows.read_depth(*tables, market, bids, asks, figures, mantissa, found, DEPTH_TRIES)
        if count < 0:
            raise NotNow
        return Depth(bids[: found[0]], asks[: found[1]], max(status.height, int(found[2])), status.time_ms)

    def _whole_levels(self, market: int, levels: int, status: Status) -> Depth:
        arrays, book = self.arrays, self._book
        sequence = seqlock.read_market(
            arrays["book_heads"], arrays["books"], market, book, levels, READ_TRIES
        )
        if sequence == seqlock.TORN:
            raise NotNow
        if sequence == seqlock.EMPTY:
            return Depth(self._bids[:0], self._asks[:0], status.height, status.time_ms)
        read = book[0]
        return Depth(
            read["bids"][: min(levels, int(read["bid_count"]))],
            read["asks"][: min(levels, int(read["ask_count"]))],
            max(status.height, int(read["height"])),
            max(status.time_ms, int(read["time_ms"])),
        )

    def levels_json(self, levels: Array, market: int) -> bytes:
        row = self.arrays["markets"][market]
        out = self._room(len(levels))
        places = int(row["price_places"]), int(row["quantity_places"])
        return self._text(quotes.write_levels(out, 0, levels, len(levels), *places))

    def mids_json(self, wanted: Array) -> bytes:
        """`"coin":"mid"` of every wanted market, joined by commas."""
        arrays = self.arrays
        return self._text(
            quotes.write_mids(
                self._room(len(wanted)), 0, arrays["book_heads"], arrays["books"], arrays["markets"],
                len(wanted), wanted, self._book,
            )
        )  # fmt: skip

    def mid_json(self, market: int) -> bytes | None:
        """The middle of a market's book as a JSON string."""
        wanted = np.zeros(market + 1, np.bool_)
        wanted[market] = True
        text = self.mids_json(wanted)
        return b'"' + text.rsplit(b'"', 2)[1] + b'"' if text else None

    # orders

    def queues(self, market: int) -> tuple[Array, int, int]:
        """All resting orders of a market (bids first, each side by priority), how many are bids, their
        height.

        Raises NotNow.
        """
        arrays, found, height = self.arrays, self._found, self.look().height
        out = np.empty(self.words(market).order_count + SLACK, layout.ORDER)
        for _ in range(QUEUE_TRIES):
            count = rows.read_orders(
                arrays["markets"], arrays["sides"], arrays["levels"], arrays["orders"], market, out, found, 1
            )
            if count >= 0:
                return out[:count], int(found[0]), max(height, int(found[2]))
            if count == rows.TOO_SMALL:
                out = np.empty(2 * len(out), layout.ORDER)
        raise NotNow

    def orders_of(self, account: int) -> Array:
        """All orders of an account, oldest first. Raises NotNow."""
        arrays = self.arrays
        out = np.empty(int(arrays["accounts"]["order_count"][account]) + SLACK, layout.ORDER)
        for _ in range(QUEUE_TRIES):
            count = rows.read_account_orders(arrays["accounts"], arrays["orders"], account, out, LOOKUP_TRIES)
            if count >= 0:
                return out[:count]
            if count == rows.TOO_SMALL:
                out = np.empty(2 * len(out), layout.ORDER)
        raise NotNow

    def order(self, oid: int) -> Array | None:
        """The open order with this oid: ORDER[1]. Raises NotNow."""
        arrays, out = self.arrays, np.zeros(1, layout.ORDER)
        count = rows.read_order(
            arrays["status"], arrays["order_index"], arrays["orders"], oid, out, LOOKUP_TRIES
        )
        if count == rows.TORN:
            raise NotNow
        return out if count > 0 else None

    def ended(self, oid: int, ring: str) -> Array | None:
        """The last word about an order, as far as it is kept: ENDED[1]. ring: closed or rejected."""
        arrays, out = self.arrays, np.zeros(1, layout.ENDED)
        count = rows.read_ended(arrays[f"{ring}_ring"], arrays[ring], arrays[f"{ring}_buckets"], oid, out)
        return out if count > 0 else None

    def ended_by_cloid(self, cloid: bytes, account: int) -> Array | None:
        arrays, out = self.arrays, np.zeros(1, layout.ENDED)
        text = np.frombuffer(cloid, np.uint8)
        count = rows.read_ended_cloid(
            arrays["closed_ring"], arrays["closed"], arrays["cloid_buckets"], text, account, out
        )
        return out if count > 0 else None

    def closed_of(self, account: int, most: int) -> Array:
        """An account's orders that ended last, newest first."""
        arrays, out = self.arrays, np.zeros(most, layout.ENDED)
        count = rows.read_closed(arrays["accounts"], arrays["closed_ring"], arrays["closed"], account, out)
        return out[:count]

    def rejected_of(self, account: int, most: int) -> Array:
        """An account's newest refusals, newest first."""
        arrays, out = self.arrays, np.zeros(most, layout.ENDED)
        count = rows.read_rejected(
            arrays["accounts"], arrays["rejected_ring"], arrays["rejected"], account, out
        )
        return out[:count]

    def orders_json(self, orders: Array, form: int) -> Iterable[bytes]:
        """Orders in a form of `encode`, joined by commas, in parts of at most CHUNK_BYTES."""
        arrays, at = self.arrays, 0
        while at < len(orders):
            end, at = encode.write_orders(
                self._out[:CHUNK_BYTES], 0, orders, at, len(orders), arrays["markets"], arrays["names"],
                arrays["accounts"], form,
            )  # fmt: skip
            yield self._text(end)

    def ended_json(self, ended: Array) -> bytes:
        arrays = self.arrays
        out = self._room(len(ended))
        return self._text(encode.write_ended(out, 0, ended, len(ended), arrays["markets"], arrays["names"]))

    # trades and fills

    def trades(self, market: int, most: int) -> Array:
        """A market's newest trades, newest first."""
        arrays, out = self.arrays, np.zeros(most, layout.TRADE)
        count = rows.read_trades(arrays["markets"], arrays["trade_ring"], arrays["trades"], market, out)
        return out[:count]

    def fills(self, account: int, most: int) -> Array:
        """An account's newest fills, newest first."""
        arrays, out = self.arrays, np.zeros(most, layout.FILL)
        count = rows.read_fills(arrays["accounts"], arrays["fill_ring"], arrays["fills"], account, out)
        return out[:count]

    def trades_json(self, trades: Array) -> bytes:
        out = self._room(len(trades))
        whole = np.ascontiguousarray(trades)  # a reversed one would be compiled for, while clients wait
        return self._text(encode.write_trades(out, 0, whole, len(whole), self.arrays["markets"]))

    def fills_json(self, fills: Array) -> bytes:
        arrays = self.arrays
        out = self._room(len(fills))
        whole = np.ascontiguousarray(fills)  # likewise
        return self._text(encode.write_fills(out, 0, whole, len(whole), arrays["markets"], arrays["names"]))

    def slice_fills_json(self, fills: Array) -> bytes:
        """Fills of TWAPs' slices, each with the id of its TWAP."""
        arrays = self.arrays
        out = self._room(len(fills))
        whole = np.ascontiguousarray(fills)  # likewise
        tables = arrays["markets"], arrays["names"]
        return self._text(encode.write_slice_fills(out, 0, whole, len(whole), *tables))

    def candles_json(self, candles: Array, ends_ms: Array, market: int, interval: str) -> bytes:
        """Candles (CANDLE[]) of a market and interval, joined by commas. ends_ms: the last of each."""
        row, name = self.arrays["markets"][market], np.frombuffer(interval.encode(), np.uint8)
        out = self._room(len(candles))
        return self._text(quotes.write_candles(out, 0, candles, ends_ms, len(candles), row, name))

    # events

    def queue_json(self, events: Array, links: Array, first: int) -> tuple[bytes, bytes]:
        """A market's statuses and book diffs, as l4Book tells them."""
        markets, names = self.arrays["markets"], self.arrays["names"]
        out = self._room(rows.chain_length(links, first))
        statuses = self._text(encode.write_statuses(out, 0, events, links, first, markets, names))
        return statuses, self._text(encode.write_diffs(out, 0, events, links, first, markets))

    def updates_json(self, events: Array, links: Array, first: int, form: int = encode.BASIC) -> bytes:
        """An account's statuses, each with its order in a form of `encode`."""
        markets, names = self.arrays["markets"], self.arrays["names"]
        out = self._room(rows.chain_length(links, first))
        return self._text(encode.write_updates(out, 0, events, links, first, markets, names, form))

    def nonuser_cancels_json(self, events: Array, links: Array, first: int) -> bytes:
        """Those of an account's orders that were cancelled by others than their user."""
        self._learn_cancels()
        out, markets = self._room(rows.chain_length(links, first)), self.arrays["markets"]
        return self._text(encode.write_nonuser_cancels(out, 0, events, links, first, markets, self._nonuser))

    def _learn_cancels(self) -> None:
        """Note which of the names that are new say so: `marginCanceled`, `siblingFilledCanceled`, ..."""
        count = self.look().name_count
        for row in range(self._names_known, count):
            text = bytes(self.arrays["names"]["text"][row]).rstrip(b"\0")
            self._nonuser[row] = text.endswith(b"Canceled") and text != b"canceled"
        self._names_known = count

    # text

    def _room(self, elements: int) -> Array:
        size = (elements + 1) * ELEMENT_BYTES_MAX
        if size > len(self._out):
            self._out = np.empty(size, np.uint8)
        return self._out

    def _text(self, end: int) -> bytes:
        return self._out[:end].tobytes()


def dex_of(coin: str) -> str:
    """The builder's dex of a coin; "" is the main one."""
    dex, colon, _ = coin.partition(":")
    return dex if colon else ""
