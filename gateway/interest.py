"""Which events anybody here waits for: the compiled sieve between the event ring and the channels.

Nine of ten events are refusals that nobody asked about. One pass over a block marks the markets and accounts
that have something new, and chains the events that will be told, so that nothing else is ever looked at
again.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from shm import layout
from shm.codes import EventKind

Array = np.ndarray[Any, Any]

END = -1  # of a chain

# what somebody wants of a market: its levels, its trades, every order, or to know that there was a trade
BOOK, TRADES, QUEUE, PRICE = 1, 2, 4, 8
# of an account: the list of its orders, every status, every fill, its funds, every entry of its ledger, every
# beginning and end of a TWAP
OPEN, ORDERS, FILLS, FUNDS, LEDGER, TWAPS = 1, 2, 4, 8, 16, 32
_CHAINED = TRADES | QUEUE | LEDGER | TWAPS
assert _CHAINED == ORDERS | FILLS | LEDGER | TWAPS, "what is told event by event, of either"


class Wants(NamedTuple):
    """One table's half of the sieve: bits by row, and the chains of the block in hand."""

    wanted: Array  # u1 by row: what somebody wants
    marks: Array  # u1 by row: what of it is new
    first: Array  # i4 by row: its first event, or END
    last: Array  # i4 by row
    touched: Array  # i4: the rows that have marks
    links: Array  # i4 by event: the next of the same row, or END


def wants(rows: int, events: int) -> Wants:
    return Wants(
        np.zeros(rows, np.uint8),
        np.zeros(rows, np.uint8),
        np.full(rows, END, np.int32),
        np.zeros(rows, np.int32),
        np.zeros(rows, np.int32),
        np.full(events, END, np.int32),
    )


class Sieve:
    """The wants of a world's markets and accounts. `sift` a block, use the chains, `clear`."""

    def __init__(self, markets: int, accounts: int, events: int):
        self.markets = wants(markets, events)
        self.accounts = wants(accounts, events)
        self._counts = np.zeros(2, np.int64)

    def sift(self, events: Array, start: int, end: int) -> tuple[list[int], list[int]]:
        """Chain events[start:end] (EVENT[]); return the markets and the accounts that were touched."""
        sift(events, start, end, self.markets, self.accounts, self._counts)
        markets, accounts = self._counts.tolist()
        return self.markets.touched[:markets].tolist(), self.accounts.touched[:accounts].tolist()

    def clear(self) -> None:
        for table, count in zip((self.markets, self.accounts), self._counts.tolist(), strict=True):
            touched = table.touched[:count]
            table.marks[touched] = 0
            table.first[touched] = END
        self._counts[:] = 0


@njit(cache=True, nogil=True)
def _mark(table: Wants, row: int, bits: int, i: int, count: int) -> int:
    """Note that event `i` tells `bits` of `row`, if they are wanted; return the rows touched so far."""
    if row < 0 or row >= len(table.wanted):
        return count
    told = table.wanted[row] & bits
    if told == 0:
        return count
    if table.marks[row] == 0:
        table.touched[count] = row
        count += 1
    table.marks[row] |= told
    if told & _CHAINED != 0:
        table.links[i] = END
        if table.first[row] == END:
            table.first[row] = i
        else:
            table.links[table.last[row]] = i
        table.last[row] = i
    return count


@njit(cache=True, nogil=True)
def sift(events: Array, start: int, end: int, markets: Wants, accounts: Wants, counts: Array) -> None:
    """Chain events[start:end] by market and by account (Wants). counts i8[2]: rows touched of each."""
    market_count, account_count = counts[0], counts[1]
    for i in range(start, end):
        event = events[i]
        of_market, of_account = 0, 0
        if event.kind == EventKind.STATUS:
            of_market, of_account = QUEUE, ORDERS | OPEN
        elif EventKind.NEW <= event.kind <= EventKind.REMOVE:
            of_market, of_account = QUEUE | BOOK, OPEN
        elif event.kind == EventKind.TRADE:
            of_market = TRADES | PRICE
        elif event.kind == EventKind.FILL:
            of_account = FILLS | OPEN
        elif event.kind == EventKind.FUNDS:
            of_account = FUNDS
        elif event.kind == EventKind.LEDGER:
            of_account = LEDGER
        elif event.kind == EventKind.TWAP:
            of_account = TWAPS
        if of_market != 0:
            market_count = _mark(markets, event.market, of_market, i, market_count)
        if of_account != 0:
            account_count = _mark(accounts, event.account, of_account, i, account_count)
    counts[0], counts[1] = market_count, account_count


@njit(cache=True, nogil=True)
def next_block(events: Array, start: int, end: int) -> int:
    """Return the index after the block that begins at `start`, or `start` if its BLOCK event has not come
    yet.

    An event that stands between blocks (STALE, RESET) is a block of its own, and ends one that it interrupts.
    """
    for i in range(start, end):
        kind = events[i].kind
        if kind == EventKind.BLOCK:
            return i + 1
        if kind == EventKind.STALE or kind == EventKind.RESET:
            return i + 1 if i == start else i
    return start


def warm() -> None:
    """Compile the sieve."""
    events = np.zeros(1, layout.EVENT)
    sieve = Sieve(1, 1, 1)
    sieve.sift(events, 0, 1)
    sieve.clear()
    next_block(events, 0, 1)
