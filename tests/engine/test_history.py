"""Chains through the rings: the newest of an account, a market, an order, for as long as they are kept."""

import numpy as np
import pytest

from shm import index
from shm.codes import Flag
from shm.layout import NO_ACCOUNT
from tests.engine import made
from tests.engine.made import BUY, SELL, block, fill, status


def chain(slots, head, link):
    """Positions from `head` (a position plus one) along `link`, until one is overwritten."""
    found = []
    while head > 0 and slots[(head - 1) % len(slots)]["sequence"] == head:
        found.append(int(head) - 1)
        head = int(slots[(head - 1) % len(slots)][link])
    return found


def bucket_of(buckets, oid):
    return int(buckets[index.mix(oid) & (len(buckets) - 1)])


def pair(trade, market=0, account=0, crossed=BUY):
    return [
        fill(trade, side=side, market=market, account=account + side, crossed=side == crossed)
        for side in (BUY, SELL)
    ]


@pytest.mark.parametrize("blocks", [20, 100])
def test_trades_of_each_market_and_fills_of_each_account(blocks):
    """Also when the rings (64 entries) have been overwritten several times."""
    state = made.world()
    trades, fills = {0: [], 1: []}, {0: [], 1: [], 2: []}
    for height in range(1, blocks + 1):
        market, account = height % 3 == 0, height % 2
        block(state, height, fills=pair(height, int(market), account))
        trades[int(market)].append(height - 1)
        for place in (0, 1):
            fills[account + place].append(2 * (height - 1) + place)
    history = state.history
    for market, positions in trades.items():
        kept = [position for position in positions if position >= blocks - 64]
        mine = chain(history.trades, state.markets[market]["last_trade"], "market_prior")
        assert mine == kept[::-1]
        assert all(history.trades[position % 64]["trade"] == position + 1 for position in mine)
    for account, positions in fills.items():
        kept = [position for position in positions if position >= 2 * blocks - 64]
        mine = chain(history.fills, state.accounts[account]["last_fill"], "account_prior")
        assert mine == kept[::-1]
        assert {int(history.fills[position % 64]["account"]) for position in mine} <= {account}


def ended(state, oid, refused):
    """The last word on an order, found as a gateway finds it."""
    history = state.history
    buckets, slots = (
        (history.rejected_buckets, history.rejected) if refused else (history.closed_buckets, history.closed)
    )
    for position in chain(slots, bucket_of(buckets, oid), "bucket_prior"):
        if slots[position % len(slots)]["order"] == oid:
            return slots[position % len(slots)]
    return None


@pytest.mark.parametrize("word,refused", [("filled", False), ("canceled", False), ("badAloPxRejected", True)])
def test_the_last_word_on_an_order_is_found_by_its_oid(word, refused):
    state = made.world()
    for oid in range(1, 151):
        block(state, oid, [status(oid, word, account=oid % 4, price=1000 + oid)])
    for oid in range(1, 151):
        found = ended(state, oid, refused)
        assert (found is not None) == (oid > 150 - 64)
        if found is not None:
            assert (found["price"], found["status"]) == (1000 + oid, made.NAMES[word])
        assert ended(state, oid, not refused) is None
    for account in range(4):
        head = state.accounts[account]["last_rejected" if refused else "last_closed"]
        slots = state.history.rejected if refused else state.history.closed
        mine = [int(slots[position % 64]["order"]) for position in chain(slots, head, "account_prior")]
        assert mine == [oid for oid in range(150, 86, -1) if oid % 4 == account]
        assert state.accounts[account]["last_closed" if refused else "last_rejected"] == 0


def test_a_closed_order_is_found_by_its_cloid_and_a_rejected_one_is_not():
    state = made.world()
    for oid in range(1, 31):
        block(state, oid, [status(oid, "filled" if oid % 2 else "tickRejected", cloid=oid)])
    for oid in range(1, 31):
        cloid = np.full(16, oid, np.uint8)
        buckets = state.history.cloid_buckets
        head = int(buckets[index.key_of(cloid, 0, 16) & (len(buckets) - 1)])
        closed = state.history.closed
        orders = [int(closed[position % 64]["order"]) for position in chain(closed, head, "cloid_prior")]
        assert (oid in orders) == (oid % 2 == 1)


def test_an_entry_keeps_every_fact_of_its_status():
    state = made.world()
    word = status(7, "canceled", side=SELL, cloid=9, price=3, quantity=2, account=3, market=1,
                  trigger_price=4, timestamp_ms=5, condition=2, time_ns=6, height=8, address=11,
                  flags=Flag.REDUCE_ONLY)  # fmt: skip
    block(state, 8, [word])
    entry = state.history.closed[0]
    for field in word.dtype.names:
        if field != "sequence":
            assert np.array_equal(entry[field], word[0][field]), field


def test_fills_and_words_of_nobody_are_kept_without_a_chain():
    state = made.world()
    block(state, 1, [status(1, "filled", account=NO_ACCOUNT)], fills=[fill(1, account=NO_ACCOUNT)])
    assert state.history.fill_ring[0]["tail"] == state.history.closed_ring[0]["tail"] == 1
    assert state.history.fills[0]["account_prior"] == state.history.closed[0]["account_prior"] == 0
    assert not state.accounts["last_fill"].any() and not state.accounts["last_closed"].any()


@pytest.mark.parametrize("second", [{"market": 1, "side": SELL}, {"trade": 9, "side": SELL}, {"side": BUY}])
def test_two_fills_that_are_no_trade(second):
    state = made.world()
    facts = {"trade": 5, "market": 0} | second
    block(state, 1, fills=[fill(5, side=BUY), fill(facts.pop("trade"), **facts)])
    assert state.history.trade_ring[0]["tail"] == 0 and state.heap[0]["unpaired_fills"] == 2
