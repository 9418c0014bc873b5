"""The checker is checked: each law broken by hand is named."""

import pytest

from engine import verify
from shm.codes import Stale
from shm.layout import NO_SLOT
from tests.engine import made
from tests.engine.made import BUY, SELL, block, new


def whole():
    state = made.world()
    rows = [new(oid, price=40 + oid // 3, account=oid % 3) for oid in range(1, 10)]
    block(state, 1, diffs=[*rows, new(20, side=SELL, price=90), new(21, side=SELL, price=91)])
    verify.verify(state)
    return state


def slot_of(state, oid):
    return state.orders["order"].tolist().index(oid)


def breaks(state, oid, field, value):
    state.orders[slot_of(state, oid)][field] = value


BROKEN = {
    "a slot is known or free": lambda s: s.heap.__setitem__("free_orders", 3),
    "an order id is known once": lambda s: breaks(s, 4, "order", 5),
    "the world counts its orders": lambda s: s.status.__setitem__("order_count", 1),
    "the index holds every order and nothing else": lambda s: s.rows.order_index.fill(0),
    "a filled order has left the book": lambda s: breaks(s, 4, "quantity", 0),
    "a market's bracket is closed between blocks": lambda s: s.markets["sequence"].__setitem__(0, 5),
    "a market counts its orders": lambda s: s.markets["order_count"].__setitem__(0, 5),
    "a side counts its orders": lambda s: s.sides["order_count"].__setitem__(BUY, 2),
    "levels run from worst to best": lambda s: s.levels["price"].__setitem__(s.sides[BUY]["offset"], 999),
    "a queue's links agree both ways": lambda s: breaks(s, 4, "prior", slot_of(s, 5)),
    "a level is never empty": lambda s: s.levels["tail"].__setitem__(s.sides[BUY]["offset"], slot_of(s, 20)),
    "a level sums its orders": lambda s: s.levels["quantity"].__setitem__(s.sides[BUY]["offset"], 1),
    "a book is never crossed": lambda s: _cross(s),
    "an account lists its orders": lambda s: breaks(s, 4, "account_prior", NO_SLOT),
    "a block's indexes are emptied": lambda s: s.work.removed_index.__setitem__(3, 3),
}


def _cross(state):
    state.levels["price"][state.sides[SELL]["offset"] : state.sides[SELL]["offset"] + 2] = 3, 2
    state.orders["price"][slot_of(state, 20)], state.orders["price"][slot_of(state, 21)] = 2, 3


@pytest.mark.parametrize("law", BROKEN)
def test_a_broken_law_is_named(law):
    state = whole()
    BROKEN[law](state)
    with pytest.raises(AssertionError, match=law.replace("'", ".")):
        verify.verify(state)


def test_an_order_in_no_list_of_its_account_is_missed():
    state = whole()
    last = int(state.accounts[1]["last_order"])
    prior = int(state.orders[last]["account_prior"])
    state.orders[prior]["account_next"], state.accounts[1]["last_order"] = NO_SLOT, prior
    state.accounts[1]["order_count"] -= 1
    with pytest.raises(AssertionError, match="in its account's list"):
        verify.verify(state)


def test_a_market_in_doubt_may_look_crossed():
    state = whole()
    _cross(state)
    verify.verify(state, crossed_allowed=True)
    state.markets["stale"][0] = Stale.GAP
    verify.verify(state)
