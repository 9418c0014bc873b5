"""Long reads, against plain Python over the same orders; and while the writer is at work."""

import random
import threading
from collections import Counter
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm import codes, layout, rows, seqlock
from shm.constants import PLACES
from tests.world import ALICE, BOB, CAROL, NOBODY, World, amount, raw

TRIES = 3


def random_world(chance, orders=60):
    world, oids = World(), iter(range(1, 10_000))
    for _ in range(4):
        with world.block() as block:
            for _ in range(orders // 4):
                side = chance.choice("BA")
                price = chance.randrange(50, 100) if side == "B" else chance.randrange(100, 150)
                user = chance.choice([ALICE, BOB])
                block.open(chance.choice(["BTC", "ETH"]), user, side, f"{price}.{price}", "1.5", next(oids))
            for oid in [oid for oid in world.orders if chance.random() < 0.2]:
                block.remove(oid)
    return world


def mine(world, **facts):
    return [o for o in world.orders.values() if all(o[key] == value for key, value in facts.items())]


def depth(world, market, size, figures=0, mantissa=1):
    arrays = world.reader().arrays
    bids, asks = (np.zeros(size, layout.BOOK_LEVEL) for _ in range(2))
    found = np.zeros(3, layout.WORD)
    count = rows.read_depth(
        arrays["markets"],
        arrays["sides"],
        arrays["levels"],
        market,
        bids,
        asks,
        figures,
        mantissa,
        found,
        TRIES,
    )
    assert count == found[rows.BIDS] + found[rows.ASKS]
    return [
        [tuple(level) for level in side[:count].tolist()]
        for side, count in ((bids, found[rows.BIDS]), (asks, found[rows.ASKS]))
    ]


def expected_depth(world, market, rounded):
    """Every level of both sides: (price, quantity, orders), best first."""
    sides = []
    for side in codes.Side:
        quantity, count = Counter(), Counter()
        for order in mine(world, market=market, side=side):
            price = rounded(order["price"], side)
            quantity[price] += order["quantity"]
            count[price] += 1
        prices = sorted(quantity, reverse=side == codes.Side.BUY)
        sides.append([(price, quantity[price], count[price]) for price in prices])
    return sides


@pytest.mark.parametrize("seed", range(3))
def test_depth_is_the_sum_of_the_orders(seed):
    world = random_world(random.Random(seed))
    for coin in ("BTC", "ETH"):
        m = world.markets[coin]
        whole = expected_depth(world, m, lambda price, side: price)
        assert depth(world, m, 200) == whole
        assert depth(world, m, 3) == [side[:3] for side in whole]


@pytest.mark.parametrize(("figures", "mantissa"), [(2, 1), (3, 1), (4, 1), (5, 1), (5, 2), (5, 5)])
def test_buckets_add_up_what_rounds_to_them(figures, mantissa):
    world = random_world(random.Random(figures))
    m = world.markets["BTC"]
    rounded = expected_depth(world, m, lambda price, side: in_bucket(price, figures, mantissa, side))
    assert depth(world, m, 200, figures, mantissa) == rounded
    assert depth(world, m, 2, figures, mantissa) == [side[:2] for side in rounded]


def in_bucket(price, figures, mantissa, side):
    """The rule of the wire, in decimal: increment = mantissa x 10**(digits before the point - figures)."""
    value = Decimal(price).scaleb(-PLACES)
    step = mantissa * Decimal(10) ** (value.adjusted() + 1 - figures)
    step = max(step, Decimal(1).scaleb(-PLACES))
    rounding = ROUND_FLOOR if side == codes.Side.BUY else ROUND_CEILING
    return int(((value / step).to_integral_value(rounding) * step).scaleb(PLACES))


@given(st.integers(1, 10**16), st.sampled_from([2, 3, 4, 5]), st.sampled_from([1, 2, 5]), st.booleans())
def test_a_bucket_is_the_wires_rule(price, figures, mantissa, up):
    if len(str(price)) < figures:
        return  # finer than the unit: nothing to round
    side = codes.Side.SELL if up else codes.Side.BUY
    assert rows.bucket(price, figures, mantissa, up) == in_bucket(price, figures, mantissa, side)


def test_a_bucket_of_known_prices():
    for price, figures, mantissa, up, expected in [
        ("106217.5", 5, 1, False, "106210"), ("106217.5", 5, 1, True, "106220"),
        ("106217.5", 5, 5, False, "106200"), ("106217.5", 2, 1, True, "110000"),
        ("0.012345", 3, 1, False, "0.0123"), ("0.012345", 3, 1, True, "0.0124"),
    ]:  # fmt: skip
        assert rows.bucket(amount(price), figures, mantissa, up) == amount(expected)


@pytest.mark.parametrize("seed", range(3))
def test_queues_are_by_price_then_time(seed):
    world = random_world(random.Random(seed))
    arrays, found = world.reader().arrays, np.zeros(3, layout.WORD)
    m = world.markets["BTC"]
    out = np.zeros(100, layout.ORDER)
    tables = (arrays["markets"], arrays["sides"], arrays["levels"], arrays["orders"])
    count = rows.read_orders(*tables, m, out, found, TRIES)
    bids = sorted(mine(world, market=m, side=codes.Side.BUY), key=lambda o: (-o["price"], o["order"]))
    asks = sorted(mine(world, market=m, side=codes.Side.SELL), key=lambda o: (o["price"], o["order"]))
    assert out["order"][:count].tolist() == [o["order"] for o in bids + asks]
    assert found.tolist() == [len(bids), len(asks), int(world.status["height"][0])]
    assert rows.read_orders(*tables, m, out[: count - 1], found, TRIES) == rows.TOO_SMALL


def test_an_accounts_orders_and_look_ups():
    world = random_world(random.Random(4))
    arrays, out = world.reader().arrays, np.zeros(100, layout.ORDER)
    a = world.accounts[ALICE]
    count = rows.read_account_orders(arrays["accounts"], arrays["orders"], a, out, TRIES)
    expected = sorted(o["order"] for o in mine(world, account=a))
    assert sorted(out["order"][:count].tolist()) == expected
    few = out[: count - 1]
    assert rows.read_account_orders(arrays["accounts"], arrays["orders"], a, few, TRIES) == rows.TOO_SMALL
    for oid in (*world.orders, 5555):
        found = rows.read_order(arrays["status"], arrays["order_index"], arrays["orders"], oid, out, TRIES)
        assert found == (1 if oid in world.orders else rows.MISSING)
        assert found == rows.MISSING or out["order"][0] == oid
    for address, row in ((ALICE, a), (BOB, world.accounts[BOB]), (NOBODY, rows.MISSING)):
        assert rows.account_row(arrays["account_index"], arrays["accounts"], raw(address)) == row


def test_a_writer_at_work_is_met_and_told():
    world = random_world(random.Random(5))
    arrays, found = world.reader().arrays, np.zeros(3, layout.WORD)
    out, level = np.zeros(100, layout.ORDER), np.zeros(9, layout.BOOK_LEVEL)
    m, a = world.markets["BTC"], world.accounts[ALICE]
    open_rows = (world.arrays["markets"][m], world.arrays["accounts"][a], world.status[0])
    for row in open_rows:
        seqlock.open_row(row)
    tables = (arrays["markets"], arrays["sides"], arrays["levels"])
    assert rows.read_depth(*tables, m, level, level.copy(), 0, 1, found, TRIES) == rows.TORN
    assert rows.read_orders(*tables, arrays["orders"], m, out, found, TRIES) == rows.TORN
    assert rows.read_account_orders(arrays["accounts"], arrays["orders"], a, out, TRIES) == rows.TORN
    assert (
        rows.read_order(arrays["status"], arrays["order_index"], arrays["orders"], 1, out, TRIES) == rows.TORN
    )
    for row in open_rows:
        seqlock.close_row(row)
    assert rows.read_orders(*tables, arrays["orders"], m, out, found, TRIES) > 0


def test_nonsense_in_the_rows_leads_nowhere():
    """Between two looks anything may stand in a link: it must not lead out of the tables, or in circles."""
    chance = random.Random(6)
    world = random_world(chance)
    arrays, found = world.reader().arrays, np.zeros(3, layout.WORD)
    out, level = np.zeros(100, layout.ORDER), np.zeros(9, layout.BOOK_LEVEL)
    m, a = world.markets["BTC"], world.accounts[ALICE]
    tables = (arrays["markets"], arrays["sides"], arrays["levels"])
    words = [-(2**40), -2, -1, 0, 1, 5, 2**30]
    for _ in range(300):
        for table, field in (
            ("sides", "offset"), ("sides", "count"), ("levels", "head"), ("orders", "next"),
            ("orders", "account_next"), ("accounts", "first_order"),
        ):  # fmt: skip
            column = world.arrays[table][field]
            if chance.random() < 0.5:
                column[chance.randrange(len(column))] = np.clip(chance.choice(words), -(2**31), 2**31 - 1)
        world.arrays["sides"]["count"][2 * m] = chance.choice(words)
        results = (
            rows.read_depth(*tables, m, level, level.copy(), 3, 1, found, TRIES),
            rows.read_orders(*tables, arrays["orders"], m, out, found, TRIES),
            rows.read_account_orders(arrays["accounts"], arrays["orders"], a, out, TRIES),
        )
        assert all(rows.TOO_SMALL <= result <= 200 for result in results)


def test_chains_are_newest_first_and_end_where_the_ring_has_forgotten():
    world = World()
    for tid in range(300):  # of which the ring keeps the last 256 trades, and 128 fills of each user
        with world.block() as block:
            coin = "BTC" if tid % 3 else "ETH"
            block.trade(coin, ALICE, BOB, "B", "101", "1", tid=tid)
            block.status("BTC", ALICE, "B", "1", "1", 1000 + tid, "canceled")
            block.status("BTC", CAROL, "B", "1", "1", 5000 + tid, "badAloPxRejected")
    arrays = world.reader().arrays
    trades, fills, ended = (np.zeros(400, dtype) for dtype in (layout.TRADE, layout.FILL, layout.ENDED))
    m, a = world.markets["BTC"], world.accounts[ALICE]
    count = rows.read_trades(arrays["markets"], arrays["trade_ring"], arrays["trades"], m, trades)
    assert trades["trade"][:count].tolist() == [t for t in range(299, 43, -1) if t % 3]
    assert rows.read_trades(arrays["markets"], arrays["trade_ring"], arrays["trades"], m, trades[:5]) == 5
    count = rows.read_fills(arrays["accounts"], arrays["fill_ring"], arrays["fills"], a, fills)
    assert fills["trade"][:count].tolist() == list(range(299, 171, -1))
    count = rows.read_closed(arrays["accounts"], arrays["closed_ring"], arrays["closed"], a, ended)
    assert ended["order"][:count].tolist() == list(range(1299, 1043, -1))
    carol = world.accounts[CAROL]
    ring = arrays["rejected_ring"], arrays["rejected"]
    assert rows.read_rejected(arrays["accounts"], *ring, carol, ended[:7]) == 7
    for oid, found in ((5299, 1), (5100, 1), (5001, rows.MISSING), (77, rows.MISSING)):
        assert rows.read_ended(*ring, arrays["rejected_buckets"], oid, ended) == found
        assert found == rows.MISSING or ended["order"][0] == oid


def test_a_cloid_is_found_among_those_of_its_account():
    world, cloid, other = World(), "0x" + "5a" * 16, "0x" + "5b" * 16
    with world.block() as block:
        block.status("BTC", ALICE, "B", "1", "1", 1, "canceled", cloid=cloid)
        block.status("BTC", BOB, "B", "1", "1", 2, "canceled", cloid=cloid)
        block.status("BTC", ALICE, "B", "1", "1", 3, "filled", cloid=cloid)
    arrays, out = world.reader().arrays, np.zeros(1, layout.ENDED)
    ring = arrays["closed_ring"], arrays["closed"], arrays["cloid_buckets"]
    for text, user, oid in ((cloid, ALICE, 3), (cloid, BOB, 2), (other, ALICE, None), (cloid, CAROL, None)):
        found = rows.read_ended_cloid(*ring, raw(text), world.account(user), out)
        assert found == (rows.MISSING if oid is None else 1)
        assert oid is None or out["order"][0] == oid


RACE_BLOCKS_MIN, RACE_BLOCKS_MAX = 60, 20_000  # the writer goes on until the reader has met it


def test_what_is_read_during_a_race_is_of_one_moment():
    """A writer moves orders between two levels; whoever believes what he read has seen every order once."""
    world = World()
    with world.block() as block:
        for oid in range(1, 41):
            block.open("BTC", ALICE, "B", "50", "1", oid)
    arrays, found, out = world.reader().arrays, np.zeros(3, layout.WORD), np.zeros(64, layout.ORDER)
    tables = (arrays["markets"], arrays["sides"], arrays["levels"], arrays["orders"])
    met, done, chance = threading.Event(), threading.Event(), random.Random(7)

    def write():
        for number in range(RACE_BLOCKS_MAX):
            with world.block() as block:
                for oid in chance.sample(sorted(world.orders), 10):
                    world.orders[oid]["price"] = amount(chance.choice([49, 50]))
                block.markets.add(0)
            if number >= RACE_BLOCKS_MIN and met.is_set():
                break
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    whole = torn = 0
    while not done.is_set():
        count = rows.read_orders(*tables, 0, out, found, 1)
        if count == rows.TORN:
            torn += 1
            continue
        whole += 1
        if torn > 0:
            met.set()
        assert sorted(out["order"][:count].tolist()) == list(range(1, 41))
        assert (np.diff(out["price"][:count]) <= 0).all()
    writer.join()
    assert whole > 0 and torn > 0, "the reader has met the writer"


def test_status_words_are_in_their_order():
    world = World()
    out = np.zeros(len(rows.STATUS_WORDS), layout.WORD)
    for i, name in enumerate(rows.STATUS_WORDS):
        world.status[name] = 100 + i
    rows.read_status(world.reader().arrays["status"], out)
    assert out.tolist() == [100 + i for i in range(len(out))]
    world.market("BTC")
    out = np.zeros(len(rows.MARKET_WORDS), layout.WORD)
    for i, name in enumerate(rows.MARKET_WORDS):
        world.arrays["markets"][name][0] = 7 + i
    rows.read_market(world.reader().arrays["markets"], 0, out)
    assert out.tolist() == [7 + i for i in range(len(out))]
