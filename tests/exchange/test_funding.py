"""What is paid every hour, with numbers worked by hand from engine/exchange/README.md."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from engine.exchange import funding
from engine.exchange.records import Kind
from shm.codes import Ask, Side
from shm.codes import Command as Kinds
from tests.exchange.alone import ANN, BOB, CAT, FUND, USD, Engine, of

COINS, HOUR_MS = 100, 3_600_000
payment = njit(lambda size, price, rate: funding.payment(size, price, rate))


@pytest.fixture
def engine():
    engine = Engine()
    engine.trade(ANN, BOB, 10 * COINS, 100_0000)
    engine.oracle(100_0000)
    engine.block()
    return engine


def hour(engine, price=100_0000):
    """The first block of the next hour, with the oracle heard just before."""
    engine.now_ms = (engine.now_ms // HOUR_MS + 1) * HOUR_MS
    engine.oracle(price)
    return engine.block()


def test_longs_pay_shorts_what_the_rate_says(engine):
    rows = hour(engine)
    (rate,) = of(rows, Kind.RATE)
    # a premium of 0 is drawn to 0.01 % of eight hours: 0.00125 % of 1000 USD
    assert (rate["trade"], rate["amount"], rate["order"]) == (125_000, 0, 1)
    assert rate["placed_ms"] % HOUR_MS == 0
    hers, his = of(rows, Kind.FUNDING)
    assert (hers["account"], hers["amount"], hers["quantity"]) == (engine.row(ANN), -12_500, 10 * COINS)
    assert (his["account"], his["amount"], his["price"]) == (engine.row(BOB), 12_500, 100_0000)
    assert (engine.cash(ANN), engine.cash(BOB)) == (1000 * USD - 12_500, 1000 * USD + 12_500)
    assert not of(engine.block(1000), Kind.FUNDING), "once an hour"


def test_what_rounding_leaves_over_is_the_insurance_accounts():
    engine = Engine()
    for who, lots in ((ANN, 33), (CAT, 34)):
        engine.trade(who, BOB, lots, 100_0000)
    engine.oracle(101_1237)
    engine.block()
    rows = of(hour(engine, 101_1237), Kind.FUNDING)
    exact = [Fraction(lots * 101_1237 * 125_000, 10**10) for lots in (33, -67, 34)]
    assert [-row["amount"] for row in rows] == [ceil(each) for each in exact]
    assert engine.cash(FUND) == sum(ceil(each) for each in exact) > 0


def test_an_isolated_position_pays_from_its_bucket():
    engine = Engine()
    flags = Ask.SESSION
    engine.done(kind=Kinds.UPDATE_LEVERAGE, signer=ANN, amount=10, flags=flags)
    engine.trade(ANN, BOB, 10 * COINS, 100_0000)
    engine.oracle(100_0000)
    engine.block()
    hour(engine)
    assert engine.cash(ANN) == 900 * USD and int(engine.position(ANN)["isolated"]) == 100 * USD - 12_500


def test_without_a_sample_nobody_pays(engine):
    hour(engine)
    engine.now_ms += 2 * HOUR_MS
    # the block of this hour has the samples of the last one: one, at its beginning
    assert of(engine.block(), Kind.RATE)
    engine.now_ms += HOUR_MS
    assert not of(engine.block(), Kind.RATE, Kind.FUNDING), "the oracle has stopped"


def test_who_is_paid_later_pays_for_the_position_that_he_had(engine):
    """An hour's round that is still under way: who trades pays first."""
    engine.block()
    engine.now_ms = (engine.now_ms // HOUR_MS + 1) * HOUR_MS
    heap = engine.state.heap[0]
    hour(engine)
    before = engine.cash(ANN)
    # as if the round had not come to anybody yet
    heap["funding_round"] += 1
    heap["funding_left"] = engine.state.status[0]["account_count"]
    heap["funding_next"] = 0
    rows = engine.done(**engine.order(ANN, Side.SELL, 10 * COINS, 100_0000))
    assert [row["account"] for row in of(rows, Kind.FUNDING)] == [engine.row(ANN)]
    engine.done(**engine.order(CAT, Side.BUY, 10 * COINS, 100_0000))
    assert engine.cash(ANN) == before - 12_500 and engine.held(ANN) == (0, 0)
    rows = of(engine.block(), Kind.FUNDING)
    assert [row["account"] for row in rows] == [engine.row(BOB)], "Cat had nothing then"


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**10), st.integers(-4 * 10**8, 4 * 10**8))
def test_a_payment_is_rounded_up(size, price, rate):
    assert payment(size, price, rate) == ceil(Fraction(size * price * rate, 10**10))
