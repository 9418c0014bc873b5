"""One block applied: what the books are then, what is told, and what is doubted."""

from random import Random

import numpy as np
import pytest

from engine import apply, image, publish, verify
from shm.codes import Condition, EventKind, Flag, OrderState, Stale
from shm.layout import NO_ACCOUNT
from tests.engine import made
from tests.engine.made import BUY, SELL, block, fill, kinds, new, remove, status, update


def stale(state, market=0):
    return Stale(int(state.markets[market]["stale"]))


def order_of(state, oid):
    slots = np.flatnonzero((state.orders["order"] == oid) & (state.orders["state"] != OrderState.FREE))
    assert len(slots) == 1, f"order {oid} is known {len(slots)} times"
    return state.orders[slots[0]]


def random_block(random, naive, height, oids, markets=2):
    """Some diffs that fit the naive book, which follows them: (statuses, diffs)."""
    statuses, diffs = [], []
    for _ in range(random.randint(1, 6)):
        here = [entry for entry in naive.orders]
        if here and (random.random() < 0.55 or len(here) > 50):
            oid, market, side, price, quantity = random.choice(here)
            facts = {"side": side, "price": price, "market": market}
            if quantity > 1 and random.random() < 0.4:
                row = update(oid, quantity, random.randrange(1, quantity), **facts)
            else:
                row = remove(oid, **facts)
        else:
            oid, side, market = next(oids), random.choice((BUY, SELL)), random.randrange(markets)
            price = random.randrange(1, 90) + (100 if side == SELL else 0)
            facts = {"side": side, "price": price, "market": market, "quantity": random.randrange(1, 9)}
            facts["account"] = random.randrange(4)
            if random.random() < 0.8:
                statuses.append(status(oid, cloid=oid % 250, **facts))
            row = new(oid, **facts)
        naive.take(row)
        diffs.append(row)
    return statuses, diffs


@pytest.mark.parametrize("seed", range(6))
def test_random_blocks_against_the_naive_book(seed):
    """Books, published cells and the story the ring tells are those of a list of orders, at every block."""
    random, state = Random(seed), made.world()
    naive, told, oids = made.NaiveBook(), made.NaiveBook(), iter(range(1, 10_000))
    for height in range(1, 120):
        statuses, diffs = random_block(random, naive, height, oids)
        events = block(state, height, statuses, diffs)
        told.take(events)
        verify.verify(state, crossed_allowed=True)
        assert told.orders == naive.orders
        for market in range(2):
            queues = naive.queue(market, BUY) + naive.queue(market, SELL)
            mine = image.resting(state, market)
            assert [list(map(int, (row["order"], row["price"], row["quantity"]))) for row in mine] == [
                [entry[0], entry[3], entry[4]] for entry in queues
            ]
            if state.work.book_heads[market]["latest"]:
                levels = tuple(naive.levels(market, side) for side in (BUY, SELL))
                assert made.published(state, market) == levels
        assert events[-1]["kind"] == EventKind.BLOCK and state.status[0]["height"] == height
    assert state.markets["stale"][:2].tolist() == [0, 0]
    assert (state.heap[0]["unknown"], state.heap[0]["wrong"], state.heap[0]["full"]) == (0, 0, 0)


def test_sides_outgrow_their_extents_and_leave_them_to_others():
    """200 levels need three doublings; what a side has left, another takes."""
    state = made.world(made.SMALL._replace(orders=1024, levels=2048), markets=4)
    for market in range(4):
        rows = [new(1000 * market + price, price=price, market=market) for price in range(1, 201)]
        block(state, market + 1, diffs=rows)
        verify.verify(state)
    assert state.heap[0]["full"] == 0 and state.sides["count"].sum() == 800
    assert state.heap[0]["levels_top"] == 4 * 256 + 32 + 64 + 128, "three of four took what others left"
    assert len(made.published(state, 3)[0]) == 100, "a published book is 100 levels deep"
    assert made.published(state, 3)[0][0] == (200, 5, 1)


def test_an_order_is_told_by_its_status_and_its_diff_together():
    state = made.world()
    facts = {"price": 7, "side": SELL, "account": 2}
    opened = status(1, quantity=9, cloid=3, timestamp_ms=44, **facts)
    assert kinds(block(state, 1, [opened], [new(1, quantity=4, **facts)])) == ["STATUS", "NEW", "BLOCK"]
    order = order_of(state, 1)
    assert (order["price"], order["quantity"], order["original"]) == (7, 4, 9), "the diff knows what rests"
    assert (order["timestamp_ms"], order["account"], order["flags"]) == (44, 2, Flag.HAS_CLOID)
    assert order["cloid"].tolist() == [3] * 16


def test_an_order_without_a_status_is_synthetic_until_the_status_comes():
    state = made.world()
    block(state, 1, diffs=[new(1, account=1)])
    assert order_of(state, 1)["flags"] == Flag.SYNTHETIC and state.heap[0]["synthetic"] == 1
    block(state, 2, [status(1, account=1, cloid=8, quantity=6)])
    order = order_of(state, 1)
    assert (order["flags"], order["original"], order["quantity"]) == (Flag.HAS_CLOID, 6, 5)
    assert state.accounts[1]["sequence"] == 4 and state.markets[0]["sequence"] == 4, "its readers were told"
    verify.verify(state)


@pytest.mark.parametrize("lie", [{"account": 2}, {"side": SELL}, {"market": 1}])
def test_a_late_status_of_another_order_completes_nothing(lie):
    state = made.world()
    block(state, 1, diffs=[new(1, account=1)])
    block(state, 2, [status(1, **({"account": 1, "cloid": 8} | lie))])
    assert order_of(state, 1)["flags"] == Flag.SYNTHETIC
    verify.verify(state)


@pytest.mark.parametrize("row", [remove(9), update(9, 5, 3)])
def test_a_diff_of_an_unknown_order_puts_its_market_in_doubt_and_no_other(row):
    state = made.world()
    assert kinds(block(state, 1, diffs=[new(1, market=1), row])) == ["NEW", "STALE", row_kind(row), "BLOCK"]
    assert (stale(state), stale(state, 1)) == (Stale.UNKNOWN_ORDER, Stale.FRESH)
    assert state.status[0]["stale_count"] == 1 and state.heap[0]["unknown"] == 1
    block(state, 2, diffs=[remove(10)])
    assert state.status[0]["stale_count"] == 1, "doubt is counted once"


def row_kind(row):
    return EventKind(int(row["kind"][0])).name


@pytest.mark.parametrize(
    "row", [update(1, 4, 3), remove(1, price=99), remove(1, side=SELL), remove(1, market=1), new(1, price=3)]
)
def test_a_diff_that_disagrees_puts_its_market_in_doubt(row):
    state = made.world()
    block(state, 1, diffs=[new(1)])
    block(state, 2, diffs=[row])
    assert stale(state, int(row["market"][0])) == Stale.WRONG_SIZE and state.heap[0]["wrong"] == 1
    assert stale(state) == Stale.WRONG_SIZE
    verify.verify(state)


@pytest.mark.parametrize(
    "rows",
    [
        [new(1), new(1)],
        [new(1), update(1, 5, 3), update(1, 5, 3)],
        [new(1), remove(1), remove(1)],
        [new(1), remove(1), new(1)],
        [new(1), remove(1), update(1, 5, 3)],
    ],
)
def test_what_is_said_twice_in_a_block_is_told_once(rows):
    state = made.world()
    events = block(state, 1, diffs=rows)
    assert len(events) == len(rows) and state.heap[0]["duplicates"] == 1
    assert stale(state) == Stale.FRESH
    verify.verify(state)


def test_a_removed_order_is_forgotten_with_its_block():
    """The marks of one block must not hide what another says of the same order."""
    state = made.world()
    block(state, 1, diffs=[new(1), remove(1)])
    block(state, 2, diffs=[remove(1)])
    assert stale(state) == Stale.UNKNOWN_ORDER


def test_a_status_twice_is_told_once():
    state = made.world()
    events = block(state, 1, [status(1, "badAloPxRejected"), status(1, "badAloPxRejected"), status(2)])
    assert kinds(events) == ["STATUS", "STATUS", "BLOCK"] and state.heap[0]["duplicates"] == 1
    assert state.history.rejected_ring[0]["tail"] == 1


def waiting(oid, **more):
    return status(
        oid, flags=Flag.IS_TRIGGER, trigger_price=90, condition=Condition.BELOW, cloid=6, quantity=5, **more
    )


def test_a_trigger_order_waits_apart_and_rests_when_it_has_fired():
    state = made.world()
    block(state, 1, [waiting(1)])
    verify.verify(state)
    assert order_of(state, 1)["state"] == OrderState.UNTRIGGERED and len(image.resting(state, 0)) == 0
    assert state.accounts[0]["order_count"] == 1
    block(state, 2, [status(1, "triggered", cloid=6, time_ns=77_000_000)], [new(1, quantity=3)])
    verify.verify(state)
    order = order_of(state, 1)
    assert (order["state"], order["trigger_price"]) == (OrderState.RESTING, 0)
    assert (order["condition"], order["timestamp_ms"]) == (Condition.TRIGGERED, 77)
    assert order["flags"] == Flag.HAS_CLOID and order["quantity"] == 3


def test_a_trigger_order_that_rests_without_a_word_is_still_itself():
    """Its status may be late: the order that waits is taken onto the book by the diff alone."""
    state = made.world()
    block(state, 1, [waiting(1)])
    block(state, 2, diffs=[new(1, quantity=3)])
    verify.verify(state)
    order = order_of(state, 1)
    assert (order["state"], order["cloid"][0]) == (OrderState.RESTING, 6)
    assert not order["flags"] & Flag.SYNTHETIC


@pytest.mark.parametrize("word", ["canceled", "filled", "triggered"])
def test_a_trigger_order_ends_apart(word):
    state = made.world()
    block(state, 1, [waiting(1)])
    block(state, 2, [status(1, word)])
    assert state.status[0]["order_count"] == 0 and state.accounts[0]["order_count"] == 0
    assert state.heap[0]["free_orders"] == len(state.orders)
    verify.verify(state)


def test_too_many_orders_put_the_market_in_doubt_and_nothing_else():
    state = made.world(made.SMALL._replace(orders=4))
    block(state, 1, diffs=[new(oid, price=oid) for oid in range(1, 7)])
    assert stale(state) == Stale.CAPACITY and state.heap[0]["full"] == 2
    verify.verify(state)
    block(state, 2, diffs=[remove(1, price=1), new(9, market=1)])
    assert stale(state, 1) == Stale.FRESH, "there is room again"
    verify.verify(state)


def test_too_many_trigger_orders_are_counted():
    state = made.world(made.SMALL._replace(orders=2))
    block(state, 1, [waiting(oid) for oid in (1, 2, 3)])
    assert state.heap[0]["full"] == 1 and state.status[0]["order_count"] == 2
    verify.verify(state)


def test_too_many_levels_put_the_market_in_doubt_and_leave_it_whole():
    state = made.world(made.SMALL._replace(levels=64 + 32))
    block(state, 1, diffs=[new(1, market=1), *(new(oid, price=oid) for oid in range(2, 40))])
    assert (stale(state), stale(state, 1)) == (Stale.CAPACITY, Stale.FRESH)
    assert len(image.resting(state, 0)) == 32
    verify.verify(state)


def test_orders_of_nobody_are_in_no_list():
    state = made.world()
    block(state, 1, diffs=[new(1, account=NO_ACCOUNT)])
    block(state, 2, diffs=[update(1, 5, 2, account=NO_ACCOUNT)])
    verify.verify(state)
    block(state, 3, diffs=[remove(1, account=NO_ACCOUNT)])
    verify.verify(state)
    assert state.status[0]["order_count"] == 0


def test_a_diff_of_an_older_node_has_its_side_from_the_status():
    state = made.world()
    block(state, 1, [status(1, side=SELL)], [new(1, side=apply.NO_SIDE)])
    assert order_of(state, 1)["side"] == SELL and stale(state) == Stale.FRESH
    block(state, 2, diffs=[update(1, 5, 4, side=apply.NO_SIDE)])
    assert order_of(state, 1)["quantity"] == 4 and stale(state) == Stale.FRESH
    block(state, 3, diffs=[new(2, side=apply.NO_SIDE)])
    assert stale(state) == Stale.CORRUPT, "nobody knows on which side"
    verify.verify(state)


def test_two_fills_are_a_trade_and_one_alone_is_none():
    state = made.world()
    pair = [fill(5, side=BUY, account=0), fill(5, side=SELL, account=1, crossed=True)]
    odd = [fill(6, side=BUY), fill(7, side=BUY), fill(7, side=BUY), fill(8, side=SELL, market=1)]
    events = block(state, 1, fills=[*pair, *odd])
    assert kinds(events) == ["FILL", "TRADE", "FILL", "FILL", "FILL", "FILL", "FILL", "BLOCK"]
    heap = state.heap[0]
    assert (heap["fills"], heap["trades"], heap["unpaired_fills"]) == (6, 1, 4)
    trade = state.history.trades[0]
    assert (trade["side"], trade["buyer"][0], trade["seller"][0]) == (SELL, 1, 2), "the taker's side"
    assert state.markets[0]["last_price"] == 100
    assert state.work.books["last_price"].max() == 100, "a trade publishes its book"


def test_rows_are_open_while_and_only_while_a_block_changes_them():
    state = made.world()
    block(state, 1, diffs=[new(1, account=1)])
    assert state.markets["sequence"][:2].tolist() == [2, 0]
    assert state.accounts["sequence"][:3].tolist() == [0, 2, 0]
    assert state.status[0]["sequence"] == 2
    assert not state.work.market_dirty.any() and not state.work.account_dirty.any()


def test_a_block_larger_than_half_the_ring_is_told_in_parts_and_whole():
    state = made.world(made.SMALL._replace(events=64))
    rows = [new(oid, price=oid) for oid in range(1, 51)]
    events = block(state, 1, diffs=rows)
    assert events["order"][:50].tolist() == list(range(1, 51)) and len(events) == 51


def test_doubt_between_blocks_is_told_and_keeps_the_height():
    state = made.world()
    block(state, 5)
    before = int(state.work.event_ring[0]["tail"])
    publish.doubt_markets(state, np.array([1]), int(Stale.GAP), 5, 5)
    events = made.told(state, before)
    assert kinds(events) == ["STALE"] and (events[0]["market"], events[0]["status"]) == (1, Stale.GAP)
    assert state.work.books[4]["stale"] == Stale.GAP and state.status[0]["height"] == 5


def test_the_same_blocks_give_the_same_bytes():
    """No chance, no clock: two runs leave equal rows, history and events."""
    runs = []
    for _ in range(2):
        random, state, naive, oids = Random(3), made.world(), made.NaiveBook(), iter(range(1, 9999))
        for height in range(1, 40):
            block(state, height, *random_block(random, naive, height, oids))
        runs.append(state)
    for part in ("rows", "history", "work"):
        for one, other in zip(getattr(runs[0], part), getattr(runs[1], part), strict=True):
            assert one.tobytes() == other.tobytes()


def test_what_one_stream_has_lost_another_tells():
    """An order that is opened, or ends, or is filled, without a diff in its block: the diff is lost."""
    for words, fills in (
        ([status(9, height=2)], []),
        ([status(1, "canceled", height=2)], []),
        ([status(1, "filled", height=2)], []),
        ([], [fill(5, order=1, side=BUY, height=2), fill(5, order=7, side=SELL, crossed=True, height=2)]),
    ):
        state = made.world()
        block(state, 1, diffs=[new(1), new(2, market=1)])
        block(state, 2, words, fills=fills)
        assert (stale(state), stale(state, 1)) == (Stale.GAP, Stale.FRESH)


def test_streams_that_agree_leave_no_doubt():
    state = made.world()
    block(state, 1, [status(1, height=1), waiting(2, height=1)], [new(1)])
    pair = [fill(5, order=1, side=BUY, height=2), fill(5, order=7, side=SELL, crossed=True, height=2)]
    at_once = [status(7, side=SELL, height=2), status(7, "filled", side=SELL, height=2)]
    block(state, 2, at_once, [update(1, 5, 3)], pair)
    block(state, 3, [status(3, height=3), status(3, "canceled", height=3)], [new(3), remove(3)])
    block(state, 4, [status(2, "triggered", height=4), status(2, "filled", height=4)])
    block(state, 5, [status(8, "iocCancelRejected", height=5)], [], [fill(6, order=77, height=5)])
    block(state, 6, [status(1, "canceled", height=6)], [remove(1)])
    assert stale(state) == Stale.FRESH


def test_words_that_come_late_speak_of_a_book_that_is_no_more():
    state = made.world()
    block(state, 1, diffs=[new(1)])
    block(state, 2, [status(9, height=1)], fills=[fill(5, order=1, height=1)])
    assert stale(state) == Stale.FRESH
