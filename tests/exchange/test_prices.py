"""Marks, premiums and the operator's switches, with numbers worked by hand from engine/exchange/README.md."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from engine.exchange import prices
from engine.exchange.records import Kind
from shm.codes import NAMES, Ask, Oracle, Refusal, Side, Trading
from shm.codes import Command as Kinds
from tests.exchange.alone import ANN, BOB, USD, Engine, of

HOUR_MS = 3_600_000
WIDE = st.integers(-(10**18), 10**18)
moved = njit(lambda value, weight, sample, elapsed, span: prices.moved(value, weight, sample, elapsed, span))
premium_of = njit(lambda oracle, bid, ask: prices.premium_of(oracle, bid, ask))
rate_of = njit(lambda premiums, samples: prices.rate_of(premiums, samples))


@pytest.fixture
def engine():
    return Engine()


def quote(engine, bid, ask, quantity=100):
    engine.done(**engine.order(ANN, Side.BUY, quantity, bid))
    engine.done(**engine.order(BOB, Side.SELL, quantity, ask))


def mark(rows):
    (told,) = of(rows, Kind.PRICES)
    return told["price"]


# --- the mark -----------------------------------------------------------------------------------------------


def test_a_market_without_an_oracle_is_marked_by_its_trades_every_three_seconds(engine):
    engine.trade(ANN, BOB, 100, 101_0000)
    assert not of(engine.block(2999), Kind.PRICES)
    assert engine.market()["mark"] == 100_0000
    assert mark(engine.block(1)) == 101_0000
    engine.trade(ANN, BOB, 100, 99_0000)
    assert not of(engine.block(2999), Kind.PRICES)
    assert mark(engine.block(1)) == 99_0000
    assert not of(engine.block(10_000), Kind.PRICES), "a price that is the same is not told again"


def test_an_oracle_alone_is_the_mark(engine):
    assert mark(engine.oracle(123_4567)) == 123_4567


def test_a_mark_is_the_median_of_the_fair_price_the_book_and_elsewhere(engine):
    quote(engine, 99_0000, 103_0000)
    # the middle is 101: 1 above the oracle, so the fair price is 101; the book's own is its last trade, 100
    assert mark(engine.oracle(100_0000, external=100_4000)) == 100_4000
    assert mark(engine.oracle(100_0000, external=150_0000)) == 101_0000
    assert mark(engine.oracle(100_0000, external=50_0000)) == 100_0000


def test_with_two_parts_a_mean_of_half_a_minute_decides(engine):
    quote(engine, 99_0000, 103_0000)
    engine.oracle(100_0000)
    engine.now_ms += 3000
    # fair 101, the book's 100, and the mean of the latter between them: 100
    assert mark(engine.oracle(100_0000)) == 100_0000
    engine.trade(ANN, BOB, 100, 102_0000)  # the book's own price is 102 now
    engine.now_ms += 3000
    # its mean weighs 3000 ms (1 of them 30/33 of what it was); now 3000 x 30/33 + 3000 = 5727
    rows = engine.oracle(100_0000)
    smooth = 100_0000_000 + 2_0000_000 * 3000 // 5727
    assert engine.market()["smooth"] == smooth
    assert mark(rows) == sorted([101_0000, 102_0000, smooth // 1000])[1]


def test_a_mean_counts_its_time_from_its_own_last_sample(engine):
    """An oracle that finds no book gives no sample, and takes no time from the next one."""
    quote(engine, 99_0000, 103_0000)
    engine.oracle(100_0000)
    for who in (ANN, BOB):
        engine.done(kind=Kinds.CANCEL_ALL, signer=who, flags=Ask.SESSION)
    engine.now_ms += 3000
    engine.oracle(100_0000)
    quote(engine, 101_0000, 105_0000)
    engine.now_ms += 3000
    engine.oracle(100_0000)
    # the book's own price goes from 100 to 101, its least; 1 x 30/36 + 6000
    assert engine.market()["smooth"] == 100_0000_000 + 1_0000_000 * 6000 // 6000


def test_without_a_book_the_mark_keeps_its_distance_from_the_oracle(engine):
    quote(engine, 99_0000, 103_0000)
    engine.oracle(100_0000)
    for who in (ANN, BOB):
        engine.done(kind=Kinds.CANCEL_ALL, signer=who, flags=Ask.SESSION)
    engine.now_ms += 3000
    assert mark(engine.oracle(90_0000)) == 91_0000


def test_two_that_have_no_mean_meet_in_the_middle(engine):
    assert mark(engine.oracle(100_0000, external=100_0003)) == 100_0001


def test_a_mark_moves_no_farther_than_its_step(engine):
    limit(engine, price=10)
    assert mark(engine.oracle(120_0000)) == 101_0000
    assert mark(engine.oracle(120_0000)) == 102_0100
    assert mark(engine.oracle(50_0000)) == 100_9899


@given(WIDE, st.integers(1, 10**7), WIDE, st.integers(0, HOUR_MS), st.sampled_from([30_000, 150_000]))
def test_an_average_moves_toward_its_sample_by_its_share_of_the_weight(value, weight, sample, elapsed, span):
    now, heavy = moved(value, weight, sample, elapsed, span)
    assert heavy == weight * span // (span + elapsed) + elapsed
    exact = value + Fraction((sample - value) * elapsed, heavy) if heavy else value
    assert min(value, sample) <= now <= max(value, sample) and abs(now - exact) < 1


def test_a_first_sample_is_the_average():
    assert moved(0, 0, 17, 5, 30_000) == (17, 1)


# --- the age of an oracle -----------------------------------------------------------------------------------


def test_a_market_whose_oracle_stops_takes_cancels_alone(engine):
    engine.oracle(100_0000)
    oid = engine.done(**engine.order(ANN, Side.BUY, 100, 99_0000))[0]["order"]
    states = []
    for after in (10_000, 1, 49_999, 1):
        rows = of(engine.block(after), Kind.MARKET)
        states += [row["done"] for row in rows]
    assert states == [Oracle.LIVE, Oracle.OLD, Oracle.STOPPED]
    order = engine.order(ANN, Side.BUY, 100, 99_0000)
    assert engine.refused(**order) == Refusal.CLOSED
    engine.done(kind=Kinds.CANCEL, signer=ANN, flags=Ask.SESSION, order=oid)
    engine.oracle(100_0000)
    engine.done(**order)


# --- the premium --------------------------------------------------------------------------------------------


def test_premiums_are_sampled_every_five_seconds_while_the_oracle_is_heard(engine):
    engine.oracle(100_0000)
    told = [len(of(engine.block(1250), Kind.PRICES)) for _ in range(8)]
    assert told == [1, 0, 0, 1, 0, 0, 0, 1], "in the first block of every five seconds"
    assert engine.market()["samples"] == 3
    engine.now_ms += 60_001
    engine.block()
    assert not of(engine.block(5000), Kind.PRICES), "a stopped oracle has no premium"


def test_an_impact_price_is_the_mean_of_what_it_takes(engine):
    limit(engine, order=250)
    engine.oracle(100_0000)
    for price, quantity in ((101_0000, 100), (102_0000, 100), (105_0000, 100)):
        engine.done(**engine.order(ANN, Side.BUY, quantity, price))
    (told,) = of(engine.block(5000), Kind.PRICES)
    # 250 USD: 1.00 at 105, 1.00 at 102, and for the 43 that are left 0.42 at 101
    spent, bought = 105_0000 * 100 + 102_0000 * 100 + 101_0000 * 42, 242
    assert (told["start"], told["fee"]) == (spent // bought, 0)
    assert told["amount"] == (spent // bought - 100_0000) * 10**10 // 100_0000


def test_a_side_too_thin_for_the_impact_has_none(engine):
    engine.oracle(100_0000)
    engine.done(**engine.order(ANN, Side.BUY, 1000, 101_0000))
    (told,) = of(engine.block(5000), Kind.PRICES)
    assert (told["start"], told["fee"], told["amount"]) == (0, 0, 0)


@given(st.integers(1, 10**15), st.integers(0, 10**15), st.integers(0, 10**15))
def test_a_premium_is_rounded_toward_zero(oracle, bid, ask):
    gap = (max(0, bid - oracle) if bid else 0) - (max(0, oracle - ask) if ask else 0)
    exact = Fraction(max(-oracle, min(oracle, gap)) * 10**10, oracle)
    assert premium_of(oracle, bid, ask) == (floor(exact) if exact >= 0 else -floor(-exact))


@pytest.mark.parametrize(
    ("premium", "rate"),
    [
        (2_900_500, 125_000),  # 0.00029005: within the clamp, 0.01 % of eight hours
        (0, 125_000),
        (10**8, (10**8 - 5 * 10**6) // 8),
        (-(10**8), (-(10**8) + 5 * 10**6) // 8),
        (10**10, 4 * 10**8),
        (-(10**10), -4 * 10**8),
    ],
)
def test_a_rate_is_drawn_to_its_calm_and_capped(premium, rate):
    assert rate_of(3 * premium, 3) == rate
    assert rate_of(0, 0) == 0


# --- the operator -------------------------------------------------------------------------------------------


def limit(engine, **changes):
    fields = {"amount": 0, "quantity": 800, "price": 0, "order": 6000, **changes}
    return engine.done(kind=Kinds.LIMITS, **fields)


def test_a_price_must_lie_within_the_band_around_the_oracle(engine):
    engine.oracle(200_0000)
    limit(engine, quantity=50)
    assert engine.refused(**engine.order(ANN, Side.BUY, 20, 189_9900)) == Refusal.PRICE_FAR
    assert engine.refused(**engine.order(ANN, Side.SELL, 20, 210_0100)) == Refusal.PRICE_FAR
    engine.done(**engine.order(ANN, Side.BUY, 20, 190_0000))
    engine.done(**engine.order(ANN, Side.SELL, 20, 210_0000))


def test_at_the_cap_of_open_interest_positions_shrink_only(engine):
    engine.trade(ANN, BOB, 1000, 100_0000)
    limit(engine, amount=1000 * USD)
    flips, opens = engine.order(ANN, Side.SELL, 1001, 100_0000), engine.order(ANN, Side.BUY, 100, 100_0000)
    rows, ack = engine.do(**flips)
    assert ack["code"] == Refusal.INTEREST_FLIP
    assert NAMES[rows[0]["status"]] == "positionFlipAtOpenInterestCapRejected"
    assert engine.refused(**opens) == Refusal.INTEREST_CAP
    engine.done(**engine.order(ANN, Side.SELL, 1000, 100_0000))
    limit(engine, amount=1000 * USD + 1)
    engine.done(**opens)


def test_a_halted_market_takes_cancels_and_its_mark_stands(engine):
    oid = engine.done(**engine.order(ANN, Side.BUY, 100, 99_0000))[0]["order"]
    (told,) = of(engine.done(kind=Kinds.MODE, amount=Trading.HALTED), Kind.MARKET)
    assert told["code"] == Trading.HALTED
    assert engine.refused(**engine.order(ANN, Side.BUY, 100, 99_0000)) == Refusal.CLOSED
    modify = engine.order(ANN, Side.BUY, 100, 98_0000, kind=Kinds.MODIFY)
    assert engine.refused(**modify | {"order": oid}) == Refusal.CLOSED
    assert mark(engine.oracle(120_0000)) == 100_0000
    engine.done(kind=Kinds.CANCEL, signer=ANN, flags=Ask.SESSION, order=oid)
    engine.done(kind=Kinds.MODE, amount=Trading.CANCEL_ONLY)
    assert mark(engine.oracle(120_0000)) == 120_0000
    assert engine.refused(**engine.order(ANN, Side.BUY, 100, 99_0000)) == Refusal.CLOSED
    engine.done(kind=Kinds.MODE, amount=Trading.OPEN)
    engine.done(**engine.order(ANN, Side.BUY, 100, 99_0000))


def test_who_is_killed_has_no_orders_and_places_none(engine):
    quote(engine, 99_0000, 103_0000)
    rows = engine.done(kind=Kinds.KILL, other=ANN, amount=1)
    assert [NAMES[row["status"]] for row in of(rows, Kind.ENDED)] == ["internalCancel"]
    assert engine.refused(**engine.order(ANN, Side.BUY, 100, 99_0000)) == Refusal.KILLED
    engine.done(**engine.order(BOB, Side.BUY, 100, 99_0000))
    (told,) = [row for row in of(engine.block(), Kind.FUNDS) if row["account"] == engine.row(ANN)]
    assert told["done"] == 1
    engine.done(kind=Kinds.KILL, other=ANN, amount=0)
    engine.done(**engine.order(ANN, Side.BUY, 100, 99_0000))


def test_everyone_is_killed_at_once_and_revived_at_once(engine):
    quote(engine, 99_0000, 103_0000)
    engine.done(kind=Kinds.KILL, other=BOB, amount=1)
    assert len(of(engine.done(kind=Kinds.KILL, amount=1), Kind.ENDED)) == 1
    assert engine.state.status[0]["order_count"] == 0
    for who in (ANN, BOB):
        assert engine.refused(**engine.order(who, Side.BUY, 100, 99_0000)) == Refusal.KILLED
    engine.done(kind=Kinds.KILL, amount=0)
    engine.done(**engine.order(ANN, Side.BUY, 100, 99_0000))
    assert engine.refused(**engine.order(BOB, Side.BUY, 100, 99_0000)) == Refusal.KILLED


def test_tiers_rise_in_notional_and_fall_in_leverage(engine):
    def tier(notional, leverage):
        return {"kind": Kinds.TIER, "quantity": notional, "amount": leverage}

    (told,) = of(engine.done(**tier(1001, 20)), Kind.TIER)
    # 1001 / 40 and 1001 / 100, both rounded up: 26 - 11
    assert (told["order"], told["price"], told["trade"], told["amount"]) == (1, 1001, 20, 15)
    for wrong in (tier(1001, 10), tier(2000, 20), tier(2000, 0), tier(10**16 + 1, 10)):
        assert engine.refused(**wrong) == Refusal.AMOUNT
    engine.done(**tier(2000, 10))
    (told,) = of(engine.done(**tier(3000, 5)), Kind.TIER)
    assert told["amount"] == 15 + (100 - 50) + (300 - 150)
    assert engine.refused(**tier(4000, 4)) == Refusal.TABLE_FULL
    assert engine.refused(**tier(3000, 4)) == Refusal.AMOUNT, "what cannot be meant is said first"


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": Kinds.ORACLE, "price": 0},
        {"kind": Kinds.ORACLE, "price": 10**15 + 1},
        {"kind": Kinds.ORACLE, "price": 1, "trigger_price": -1},
        {"kind": Kinds.LIMITS, "amount": -1, "quantity": 800, "order": 6000},
        {"kind": Kinds.LIMITS, "quantity": 0, "order": 6000},
        {"kind": Kinds.LIMITS, "quantity": 1001, "order": 6000},
        {"kind": Kinds.LIMITS, "quantity": 800, "price": 1001, "order": 6000},
        {"kind": Kinds.LIMITS, "quantity": 800, "order": 0},
        {"kind": Kinds.MODE, "amount": 3},
        {"kind": Kinds.MODE, "amount": -1},
        {"kind": Kinds.KILL, "amount": 2},
    ],
)
def test_what_cannot_be_meant_changes_nothing(engine, wrong):
    before = engine.state.markets.tobytes()
    assert engine.refused(**wrong) == Refusal.AMOUNT
    assert engine.state.markets.tobytes() == before


def test_only_what_is_there_can_be_spoken_of(engine):
    for kind in (Kinds.ORACLE, Kinds.LIMITS, Kinds.TIER, Kinds.MODE):
        assert engine.refused(kind=kind, market=1, price=1, quantity=1, amount=1, order=1) == (
            Refusal.UNKNOWN_MARKET
        )
    assert engine.refused(kind=Kinds.KILL, other=bytes([9]) * 20, amount=1) == Refusal.BALANCE


def test_open_interest_is_bounded_so_that_no_product_wraps(engine):
    engine.add_market(b"B", price=10**9, decimals=0)
    for who in (ANN, BOB):
        engine.deposit(who, 10**9)
    for _ in range(66):  # 150,000,000 USD each
        engine.trade(ANN, BOB, 150_000, 10**9, market=1)
    most = 10**16 // 10**9 - 66 * 150_000
    more = engine.order(ANN, Side.BUY, most + 1, 10**9, market=1)
    assert engine.refused(**more) == Refusal.INTEREST_FAST
    engine.done(**engine.order(ANN, Side.BUY, most, 10**9, market=1))
    largest = 10**16 // (66 * 150_000)
    assert engine.refused(kind=Kinds.ORACLE, market=1, price=largest + 1) == Refusal.AMOUNT
    engine.oracle(largest, market=1)


def test_open_interest_is_bounded_by_the_oracle_as_well_which_funding_is_paid_by(engine):
    engine.add_market(b"B", price=10**9, decimals=0)
    for who in (ANN, BOB):
        engine.deposit(who, 10**9)
    for _ in range(16):
        engine.trade(ANN, BOB, 150_000, 10**9, market=1)
    engine.done(kind=Kinds.LIMITS, market=1, quantity=800, price=1, order=6000)  # a mark that hardly moves
    engine.done(kind=Kinds.ORACLE, market=1, price=4 * 10**9)
    more = 10**16 // (4 * 10**9) - 16 * 150_000
    refused = engine.refused(**engine.order(ANN, Side.BUY, more + 1, 10**9, market=1))
    assert refused == Refusal.INTEREST_FAST
    engine.done(**engine.order(ANN, Side.BUY, more, 10**9, market=1))
