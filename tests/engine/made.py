"""Blocks written by hand, and a book too simple to be wrong: a list of orders per market and side."""

import numpy as np

from engine import apply
from engine.state import Capacity, State, allocate
from shm import codes, index, seqlock
from shm.codes import EventKind, Flag, Side
from shm.layout import BOOK, ENDED, EVENT, FILL, NO_ACCOUNT, TRADE

SMALL = Capacity(
    markets=4, accounts=16, orders=64, levels=1 << 11, names=128,
    events=1 << 10, trades=64, fills=64, closed=64, rejected=64, buckets=16,
)  # fmt: skip
BUY, SELL = Side.BUY, Side.SELL
NAMES = {text: row for row, text in enumerate(codes.NAMES)}


def world(capacity: Capacity = SMALL, markets: int = 2, accounts: int = 4) -> State:
    """A state that knows some markets ("M0", ...) and accounts."""
    state = allocate(capacity)
    for market in range(markets):
        state.markets[market]["name"][:2] = np.frombuffer(f"M{market}".encode(), np.uint8)
    for account in range(accounts):
        state.accounts[account]["address"] = account + 1
        index.add_account(state.account_index, state.accounts[account]["address"], 0, account)
    state.status["market_count"], state.status["account_count"] = markets, accounts
    return state


def status(order, text="open", *, side=BUY, price=100, quantity=5, account=0, market=0, cloid=None, **more):
    """An EVENT of kind STATUS."""
    row = np.zeros(1, EVENT)
    row["kind"], row["order"], row["status"], row["side"] = EventKind.STATUS, order, NAMES[text], side
    row["price"], row["quantity"], row["original"] = price, quantity, quantity
    row["market"], row["account"] = market, account
    row["tif"], row["order_type"] = NAMES["Gtc"], NAMES["Limit"]
    if cloid is not None:
        row["cloid"], row["flags"] = cloid, Flag.HAS_CLOID
    for field, value in more.items():
        row[field] = row[field] | value if field == "flags" else value
    return row


def diff(kind, order, *, side=BUY, price=100, quantity=5, original=0, account=0, market=0):
    """An EVENT of kind NEW, UPDATE (original -> quantity) or REMOVE."""
    row = np.zeros(1, EVENT)
    row["kind"], row["order"], row["side"], row["price"] = kind, order, side, price
    row["quantity"], row["original"] = quantity, original
    row["account"], row["market"] = account, market
    return row


def new(order, **facts):
    return diff(EventKind.NEW, order, **facts)


def update(order, original, quantity, **facts):
    return diff(EventKind.UPDATE, order, original=original, quantity=quantity, **facts)


def remove(order, **facts):
    return diff(EventKind.REMOVE, order, quantity=0, **facts)


def fill(trade, *, side=BUY, account=0, market=0, crossed=False, price=100, quantity=5, order=1, height=0):
    row = np.zeros(1, FILL)
    row["height"] = height
    row["trade"], row["side"], row["account"], row["market"] = trade, side, account, market
    row["flags"] = Flag.CROSSED if crossed else 0
    row["price"], row["quantity"], row["order"] = price, quantity, order
    row["address"] = 0 if account == NO_ACCOUNT else account + 1
    return row


def block(state: State, height: int, statuses=(), diffs=(), fills=()) -> np.ndarray:
    """Apply one block; return what it told, EVENT[]."""
    before = int(state.work.event_ring[0]["tail"])
    apply.apply_block(
        state, _joined(statuses, EVENT), _joined(diffs, EVENT), _joined(fills, FILL), height,
        height * 1_000_000_000, np.zeros(1, ENDED), np.zeros(1, TRADE),
    )  # fmt: skip
    return told(state, before)


def _joined(rows, dtype):
    return np.concatenate([np.zeros(0, dtype), *rows])


def told(state: State, since: int) -> np.ndarray:
    """The events from position `since` on, as a reader of the ring that never was lapped sees them."""
    tail, slots = int(state.work.event_ring[0]["tail"]), state.work.events
    assert tail - since <= len(slots), "give the ring more room"
    out = np.array([slots[position % len(slots)] for position in range(since, tail)], EVENT)
    assert out["sequence"].tolist() == list(range(since + 1, tail + 1)), "the ring is whole"
    return out


def kinds(events: np.ndarray) -> list[str]:
    return [EventKind(kind).name for kind in events["kind"]]


def published(state: State, market: int) -> tuple[list, list]:
    """The newest published book: bids and asks of (price, quantity, count), best first."""
    out = np.zeros(1, BOOK)
    cells = state.work.books[4 * market : 4 * market + 4]
    assert seqlock.read(state.work.book_heads[market], cells, out, 1) > 0
    book = out[0]
    return tuple(
        [tuple(map(int, level)) for level in book[side][: book[f"{side[:3]}_count"]]]
        for side in ("bids", "asks")
    )


class NaiveBook:
    """Orders of all markets as a list in order of arrival: [order, market, side, price, quantity]."""

    def __init__(self):
        self.orders: list[list[int]] = []

    def take(self, events: np.ndarray) -> None:
        """Follow the events NEW, UPDATE and REMOVE of the ring."""
        for event in events:
            if event["kind"] == EventKind.NEW:
                facts = [event[name] for name in ("order", "market", "side", "price", "quantity")]
                self.orders.append([int(fact) for fact in facts])
            elif event["kind"] == EventKind.UPDATE:
                self._of(int(event["order"]))[4] = int(event["quantity"])
            elif event["kind"] == EventKind.REMOVE:
                self.orders.remove(self._of(int(event["order"])))

    def _of(self, order):
        return next(entry for entry in self.orders if entry[0] == order)

    def queue(self, market: int, side: int) -> list[list[int]]:
        """The side's orders, best price first, then by arrival."""
        sign = -1 if side == BUY else 1
        mine = [entry for entry in self.orders if entry[1:3] == [market, side]]
        return sorted(mine, key=lambda entry: sign * entry[3])

    def levels(self, market: int, side: int) -> list[tuple[int, int, int]]:
        sums: dict[int, list[int]] = {}
        for _, _, _, price, quantity in self.queue(market, side):
            held = sums.setdefault(price, [0, 0])
            held[0] += quantity
            held[1] += 1
        return [(price, quantity, count) for price, (quantity, count) in sums.items()]
