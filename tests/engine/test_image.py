"""Images of a market: taken, put back, compared."""

import numpy as np
import pytest

from engine import image, verify
from shm.codes import EventKind, Flag, OrderState, Stale
from tests.engine import made
from tests.engine.made import SELL, block, kinds, new, status


def filled(capacity=made.SMALL):
    """Some orders on both sides of both markets, and one that waits."""
    state = made.world(capacity)
    rows = [new(oid, side=oid % 2, price=50 + oid % 5 + 50 * (oid % 2), market=oid % 3 % 2, account=oid % 4)
            for oid in range(1, 31)]  # fmt: skip
    words = [status(oid, cloid=oid, side=oid % 2, market=oid % 3 % 2, account=oid % 4)
             for oid in range(1, 21)]  # fmt: skip
    block(state, 1, [*words, status(99, flags=Flag.IS_TRIGGER, account=1)], rows)
    verify.verify(state)
    return state


def test_an_image_loaded_elsewhere_is_the_same_image():
    state, other = filled(), made.world()
    for market in range(2):
        assert image.load(other, image.resting(state, market)) == 0
    assert image.load(other, image.untriggered(state)) == 0
    verify.verify(other)
    for market in range(2):
        mine, theirs = image.resting(state, market), image.resting(other, market)
        assert image.first_difference(mine, theirs) == -1 and len(mine) > 9
        assert (theirs["quantity"] == mine["quantity"]).all()
    assert image.untriggered(other)["order"].tolist() == [99]
    assert image.untriggered(other)["state"].tolist() == [OrderState.UNTRIGGERED]


@pytest.mark.parametrize("field", ["order", "price", "quantity", "side", "account"])
def test_every_field_of_a_diff_makes_a_difference(field):
    mine = image.resting(filled(), 0)
    theirs = mine.copy()
    theirs["flags"] |= np.uint8(Flag.SYNTHETIC)
    assert image.first_difference(mine, theirs) == -1
    theirs[field][4] ^= 1
    assert image.first_difference(mine, theirs) == 4
    assert image.first_difference(theirs, mine) == 4


def test_a_cloid_makes_a_difference_unless_only_a_diff_told_the_order():
    mine = image.resting(filled(), 0)
    known = np.flatnonzero(mine["flags"] & Flag.HAS_CLOID)
    theirs = mine.copy()
    theirs["cloid"][known[2], 15] ^= 1
    assert image.first_difference(mine, theirs) == known[2]
    theirs = mine.copy()
    theirs["flags"][known[1]] ^= Flag.HAS_CLOID
    assert image.first_difference(mine, theirs) == known[1]
    theirs["flags"][known[1]] |= Flag.SYNTHETIC
    assert image.first_difference(mine, theirs) == -1


def test_lengths_make_a_difference():
    """The bug of a known follower: it compared as many as both had."""
    mine = image.resting(filled(), 0)
    assert image.first_difference(mine, mine[:-1]) == len(mine) - 1
    assert image.first_difference(mine[:-2], mine) == len(mine) - 2
    assert image.first_difference(mine[:0], mine) == 0
    assert image.first_difference(mine[:0], mine[:0]) == -1


def test_a_replaced_market_is_told_and_the_other_untouched():
    state = filled()
    other, sequence = image.resting(state, 1), int(state.markets[1]["sequence"])
    theirs = image.resting(state, 0)[2:]
    theirs["quantity"][0] += 3
    before = int(state.work.event_ring[0]["tail"])
    state.markets[0]["stale"], state.status[0]["stale_count"] = Stale.GAP, 1
    assert image.replace_market(state, 0, theirs, 5, 5) == 0
    verify.verify(state)
    assert image.first_difference(image.resting(state, 0), theirs) == -1
    assert image.first_difference(image.resting(state, 1), other) == -1
    assert state.markets[1]["sequence"] == sequence
    assert (state.markets[0]["epoch"], state.markets[0]["stale"], state.status[0]["stale_count"]) == (1, 0, 0)
    events = made.told(state, before)
    assert kinds(events) == ["RESET"] and (events[0]["market"], events[0]["status"]) == (0, Stale.FRESH)
    cell = state.work.books[(int(state.work.book_heads[0]["latest"]) - 1) % 4]
    assert (cell["epoch"], cell["stale"]) == (1, 0)


def test_a_replacement_that_finds_no_room_leaves_the_market_in_doubt():
    state = filled(made.SMALL._replace(orders=32))
    theirs = np.concatenate([image.resting(state, 0), image.resting(state, 0)])
    theirs["order"][len(theirs) // 2 :] += 1000
    assert image.replace_market(state, 0, theirs, 5, 5) > 0
    assert state.markets[0]["stale"] == Stale.CAPACITY and state.status[0]["stale_count"] == 1
    verify.verify(state)
    assert image.replace_market(state, 0, theirs[:5], 6, 6) == 0
    assert state.markets[0]["stale"] == Stale.FRESH and state.status[0]["stale_count"] == 0
    verify.verify(state)


def test_an_untriggered_order_gives_way_to_the_image_that_has_it_resting():
    state = filled()
    theirs = image.resting(state, 0)
    theirs["order"][0], theirs["side"][0], theirs["price"][0] = 99, SELL, 777
    assert image.replace_market(state, 0, theirs, 5, 5) == 0
    verify.verify(state)
    assert len(image.untriggered(state)) == 0


def test_untriggered_orders_are_replaced_by_their_ids():
    state = filled()
    missing = image.untriggered(state).copy()
    missing["order"] = 100
    known = image.resting(state, 0)[:1].copy()
    known["state"] = OrderState.UNTRIGGERED
    image.replace_untriggered(state, np.array([99, 1, 12345]), np.concatenate([missing, known]))
    verify.verify(state)
    assert image.untriggered(state)["order"].tolist() == [100], "who rests is neither gone nor added"
    assert state.accounts["sequence"][1] % 2 == 0


def test_a_reset_of_an_empty_market_is_a_reset():
    state = made.world()
    before = int(state.work.event_ring[0]["tail"])
    assert image.replace_market(state, 1, image.resting(state, 0), 5, 5) == 0
    assert made.told(state, before)["kind"].tolist() == [EventKind.RESET]
