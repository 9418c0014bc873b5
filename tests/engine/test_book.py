"""The queues, levels, extents and lists, one operation at a time, against plain lists."""

from random import Random

import numpy as np
import pytest

from engine import book, verify
from shm.kernel import entry
from shm.layout import NO_SLOT, ORDER
from tests.engine import made
from tests.engine.made import BUY, SELL

CAPACITY = made.SMALL._replace(orders=300, levels=1 << 11)


@entry
def rest(rows, order):
    """Rest order[0]; its slot, or NO_SLOT."""
    slot = book.take_slot(rows)
    if slot == NO_SLOT:
        return NO_SLOT
    rows.orders[slot] = order[0]
    if book.rest(rows, slot):
        return slot
    rows.free_orders[rows.heap[0].free_orders] = slot
    rows.heap[0].free_orders += 1
    return NO_SLOT


@entry
def leave(rows, slot):
    book.leave(rows, slot)


@entry
def resize(rows, slot, quantity):
    book.resize(rows, slot, quantity)


@entry
def replace(rows, slot, order_id, price, quantity):
    book.replace(rows, slot, order_id, price, quantity)


@entry
def find(rows, market, side, price):
    return book.find_level(rows, market, side, price)


def order(oid, *, side=BUY, price=100, quantity=5, account=0, market=0):
    row = np.zeros(1, ORDER)
    row["order"], row["side"], row["price"], row["quantity"] = oid, side, price, quantity
    row["account"], row["market"] = account, market
    return row


def levels(state, market, side):
    row = state.sides[2 * market + side]
    mine = state.levels[row["offset"] : row["offset"] + row["count"]][::-1]
    return [(int(level["price"]), int(level["quantity"]), int(level["count"])) for level in mine]


def accounts_orders(state, account):
    slot, listed = int(state.accounts[account]["first_order"]), []
    while slot != NO_SLOT:
        listed.append(int(state.orders[slot]["order"]))
        slot = int(state.orders[slot]["account_next"])
    return listed


@pytest.mark.parametrize("seed", range(4))
def test_random_operations(seed):
    """Every order in its queue, level, side, market, account and the index, after every operation."""
    random, state, naive, slots = Random(seed), made.world(CAPACITY), made.NaiveBook(), {}
    spread = random.choice((6, 400))  # long queues, or many levels that outgrow their extents
    for oid in range(1, 500):
        if slots and random.random() < 0.45:
            gone = random.choice(list(slots))
            leave(state.rows, slots.pop(gone))
            naive.orders = [entry for entry in naive.orders if entry[0] != gone]
        elif slots and random.random() < 0.2:
            held, quantity = random.choice(naive.orders), random.randrange(1, 9)
            resize(state.rows, slots[held[0]], quantity)
            held[4] = quantity
        elif slots and random.random() < 0.4:
            held = random.choice(naive.orders)
            market, side = held[1:3]
            near, first = random.choice((1, spread)), spread if side == SELL else 0
            price = min(max(held[3] + random.randint(-near, near), first), first + spread - 1)
            slots[oid] = slots.pop(held[0])
            replace(state.rows, slots[oid], oid, price, 7)
            naive.orders.remove(held)
            naive.orders.append([oid, market, side, price, 7])
        else:
            facts = [random.randrange(2), random.choice((BUY, SELL)), random.randrange(spread), 5]
            market, side, price, quantity = facts
            price += spread if side == SELL else 0
            row = order(oid, side=side, price=price, account=random.randrange(3), market=market)
            slots[oid] = rest(state.rows, row)
            naive.orders.append([oid, market, side, price, quantity])
        if oid % 5 == 0:
            verify.verify(state)
        for market in range(2):
            for side in (BUY, SELL):
                assert levels(state, market, side) == naive.levels(market, side)
    assert sorted(sum((accounts_orders(state, account) for account in range(3)), [])) == sorted(slots)


@pytest.mark.parametrize("side", [BUY, SELL])
def test_a_level_is_found_wherever_it_stands(side):
    state = made.world(CAPACITY)
    prices = list(range(10, 600, 7))
    for price in prices:
        rest(state.rows, order(price, side=side, price=price))
    offset = int(state.sides[side]["offset"])
    worst_first = prices if side == BUY else prices[::-1]
    for price in range(5, 610):
        at, found = find(state.rows, 0, side, price)
        assert found == (price in prices)
        before = [other for other in worst_first if (other < price if side == BUY else other > price)]
        assert at - offset == len(before), f"{price} stands, or would stand, behind all that are worse"


def test_an_account_lists_its_orders_in_the_order_of_their_coming():
    state = made.world(CAPACITY)
    slots = [rest(state.rows, order(oid, price=oid, account=1)) for oid in (1, 2, 3, 4)]
    leave(state.rows, slots[1])
    assert accounts_orders(state, 1) == [1, 3, 4]
    leave(state.rows, slots[3])
    leave(state.rows, slots[0])
    rest(state.rows, order(5, account=1))
    assert accounts_orders(state, 1) == [3, 5] and state.accounts[1]["order_count"] == 2
    verify.verify(state)


def test_a_queue_is_first_come_first_and_a_resize_keeps_the_place():
    state = made.world(CAPACITY)
    slots = [rest(state.rows, order(oid)) for oid in (1, 2, 3)]
    resize(state.rows, slots[0], 1)
    level = state.levels[state.sides[0]["offset"]]
    assert (level["head"], level["tail"], level["quantity"]) == (slots[0], slots[2], 11)
    leave(state.rows, slots[0])
    assert state.levels[state.sides[0]["offset"]]["head"] == slots[1]


def test_no_room_changes_nothing():
    state = made.world(CAPACITY._replace(levels=32, orders=40))
    for price in range(1, 33):
        assert rest(state.rows, order(price, price=price)) != NO_SLOT
    before = [array.tobytes() for array in (state.levels, state.sides, state.orders["state"])]
    assert rest(state.rows, order(99, price=99)) == NO_SLOT, "the 33rd level"
    assert before == [array.tobytes() for array in (state.levels, state.sides, state.orders["state"])]
    for oid in range(100, 108):
        assert rest(state.rows, order(oid, price=5)) != NO_SLOT, "an old level takes more orders"
    assert rest(state.rows, order(200, price=5)) == NO_SLOT, "all slots are taken"
    verify.verify(state)
