"""What holds between any two blocks. Slow and plain: for tests, which call it at every step."""

import numpy as np

from engine.state import State
from shm.codes import OrderState, Side
from shm.layout import NO_ACCOUNT, NO_SLOT


def verify(state: State, crossed_allowed: bool = False) -> None:
    """Raise AssertionError, naming the law, if the state contradicts itself.

    crossed_allowed  a market in doubt may look crossed until it is repaired; so may a venue in an auction
    """
    heap, orders = state.heap[0], state.orders
    known = np.flatnonzero(orders["state"] != OrderState.FREE)
    assert len(known) + heap["free_orders"] == len(orders), "a slot is known or free"
    assert len(np.unique(orders["order"][known])) == len(known), "an order id is known once"
    assert state.status[0]["order_count"] == len(known), "the world counts its orders"
    assert np.count_nonzero(state.rows.order_index) == len(known), (
        "the index holds every order and nothing else"
    )
    resting = known[orders["state"][known] == OrderState.RESTING]
    assert (orders["quantity"][resting] > 0).all(), "a filled order has left the book"
    for market in range(int(state.status[0]["market_count"])):
        _verify_market(state, market, resting[orders["market"][resting] == market], crossed_allowed)
    _verify_accounts(state, known)
    assert not state.work.fact_index.any() and not state.work.removed_index.any(), (
        "a block's indexes are emptied"
    )


def _verify_market(state, market, resting, crossed_allowed):
    row, orders = state.markets[market], state.orders
    assert row["sequence"] % 2 == 0, "a market's bracket is closed between blocks"
    assert row["order_count"] == len(resting), "a market counts its orders"
    touch = {}
    for side in Side:
        extent = state.sides[2 * market + side]
        levels = state.levels[extent["offset"] : extent["offset"] + extent["count"]]
        mine = resting[orders["side"][resting] == side]
        assert extent["order_count"] == len(mine), "a side counts its orders"
        steps = np.diff(levels["price"])
        assert ((steps > 0) if side == Side.BUY else (steps < 0)).all(), "levels run from worst to best"
        walked = [slot for level in levels for slot in _walk(state, level, side, market)]
        assert sorted(walked) == sorted(mine.tolist()), "the levels link every order of the side"
        if len(levels):
            touch[side] = levels[-1]["price"]
    if len(touch) == 2 and not crossed_allowed and row["stale"] == 0:
        assert touch[Side.BUY] < touch[Side.SELL], "a book is never crossed"


def _walk(state, level, side, market):
    """Yield the slots of a level's queue, first in first out, checking each link against the one before."""
    prior, slot, quantity, count = NO_SLOT, int(level["head"]), 0, 0
    while slot != NO_SLOT:
        order = state.orders[slot]
        assert order["prior"] == prior, "a queue's links agree both ways"
        assert order["price"] == level["price"] and order["side"] == side and order["market"] == market
        quantity, count = quantity + int(order["quantity"]), count + 1
        yield slot
        prior, slot = slot, int(order["next"])
    assert level["tail"] == prior and count > 0, "a level is never empty"
    assert (level["quantity"], level["count"]) == (quantity, count), "a level sums its orders"


def _verify_accounts(state, known):
    counts = np.bincount(state.orders["account"][known][state.orders["account"][known] != NO_ACCOUNT])
    for account in range(int(state.status[0]["account_count"])):
        row = state.accounts[account]
        prior, slot, count = NO_SLOT, int(row["first_order"]), 0
        while slot != NO_SLOT:
            order = state.orders[slot]
            assert order["account"] == account and order["account_prior"] == prior, (
                "an account lists its orders"
            )
            prior, slot, count = slot, int(order["account_next"]), count + 1
        assert row["last_order"] == prior and row["order_count"] == count
        assert count == (counts[account] if account < len(counts) else 0), (
            "every order is in its account's list"
        )
