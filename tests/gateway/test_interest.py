"""The sieve against plain Python: what is wanted is chained, in order, and nothing else is."""

import random

import numpy as np
import pytest

from gateway import interest
from gateway.interest import (
    BOOK,
    END,
    FILLS,
    FUNDS,
    LEDGER,
    OPEN,
    ORDERS,
    PRICE,
    QUEUE,
    TRADES,
    TWAPS,
    Sieve,
)
from shm import layout
from shm.codes import EventKind

TELLS = {  # kind -> what it tells of a market, and of an account
    EventKind.STATUS: (QUEUE, ORDERS | OPEN),
    EventKind.NEW: (QUEUE | BOOK, OPEN),
    EventKind.UPDATE: (QUEUE | BOOK, OPEN),
    EventKind.REMOVE: (QUEUE | BOOK, OPEN),
    EventKind.TRADE: (TRADES | PRICE, 0),
    EventKind.FILL: (0, FILLS | OPEN),
    EventKind.FUNDS: (0, FUNDS),
    EventKind.LEDGER: (0, LEDGER),
    EventKind.TWAP: (0, TWAPS),
    EventKind.BLOCK: (0, 0),
}
WHOLE = BOOK | PRICE  # likewise OPEN and FUNDS: of these it is told what there is, and not each event
MARKETS, ACCOUNTS, EVENTS = 6, 9, 60


def chained(table, row):
    found, i = [], int(table.first[row])
    while i != END:
        found.append(i)
        i = int(table.links[i])
    return found


@pytest.mark.parametrize("seed", range(20))
def test_what_is_wanted_is_chained_in_order(seed):
    chance = random.Random(seed)
    sieve, events = Sieve(MARKETS, ACCOUNTS, EVENTS), np.zeros(EVENTS, layout.EVENT)
    for wanted in (sieve.markets.wanted, sieve.accounts.wanted):
        wanted[:] = [chance.choice([0, 0, chance.randrange(64)]) for _ in wanted]
    for _ in range(3):  # each block after the one before was cleared
        for event in events:
            event["kind"] = chance.choice(list(TELLS))
            event["market"], event["account"] = (
                chance.randrange(-1, MARKETS),
                chance.randrange(-1, ACCOUNTS + 2),
            )
        start = chance.randrange(EVENTS)
        touched = sieve.sift(events, start, EVENTS)
        for half, rows, part in ((sieve.markets, touched[0], 0), (sieve.accounts, touched[1], 1)):
            marks, chains = {}, {}
            for i in range(start, EVENTS):
                row = int(events["account" if part else "market"][i])
                if not 0 <= row < len(half.wanted):
                    continue
                told = int(half.wanted[row]) & TELLS[EventKind(events["kind"][i])][part]
                if told:
                    marks[row] = marks.get(row, 0) | told
                if told & ~WHOLE:
                    chains.setdefault(row, []).append(i)
            assert sorted(rows) == sorted(marks)
            assert {row: int(half.marks[row]) for row in rows} == marks
            assert {row: chained(half, row) for row in rows} == {row: chains.get(row, []) for row in marks}
        sieve.clear()
        assert not sieve.markets.marks.any() and not sieve.accounts.marks.any()


def test_where_a_block_ends():
    events = np.zeros(7, layout.EVENT)
    kinds = [EventKind.NEW, EventKind.BLOCK, EventKind.STALE, EventKind.RESET, EventKind.NEW, EventKind.STALE]
    events["kind"] = [*kinds, EventKind.NEW]
    ends = {start: int(interest.next_block(events, start, 7)) for start in range(7)}
    assert ends == {0: 2, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 6}
