"""Who cannot keep a position, and who gets it, with numbers worked by hand from engine/exchange/README.md."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from engine.exchange import liquidation
from engine.exchange.records import Kind
from shm.codes import NAMES, Ask, Flag, Ledger, Method, Side, Trading
from shm.codes import Command as Kinds
from tests.exchange.alone import ANN, BOB, CAT, DAN, FUND, USD, Engine, of

COINS = 100  # lots of a coin
ratio = njit(lambda a, b: liquidation.ratio(a, b))


@pytest.fixture
def engine():
    """Ann is long 10 coins at 100, and has 100 USD; Bob is short."""
    engine = Engine()
    for who in (ANN, BOB):
        lever(engine, who, 50)
    engine.trade(ANN, BOB, 10 * COINS, 100_0000)
    engine.done(kind=Kinds.WITHDRAW, other=ANN, amount=900 * USD)
    engine.block()
    return engine


def lever(engine, who, times, cross=True):
    flags = Ask.SESSION | (Ask.IS_CROSS if cross else 0)
    engine.done(kind=Kinds.UPDATE_LEVERAGE, signer=who, amount=times, flags=flags)


def quote(engine, who, side, coins, price):
    return engine.done(**engine.order(who, side, coins * COINS, price))[0]["order"]


def fall(engine, price):
    """The mark is this, and a block ends."""
    engine.oracle(price)
    return engine.block()


def ends(rows):
    return [(row["order"], NAMES[row["status"]]) for row in of(rows, Kind.ENDED)]


def methods(rows):
    return [row["code"] for row in of(rows, Kind.LIQUIDATED)]


def test_who_has_the_maintenance_margin_is_left_alone(engine):
    quote(engine, CAT, Side.BUY, 10, 90_0000)
    # 1 % of 910 is 9.10; she has 100 - 90
    assert not of(fall(engine, 91_0000), Kind.LIQUIDATED)
    assert engine.held(ANN)[0] == 10 * COINS


def test_who_has_less_is_sold_on_the_book_and_loses_his_orders(engine):
    oid = engine.done(**engine.order(ANN, Side.BUY, 20, 80_0000))[0]["order"]
    quote(engine, CAT, Side.BUY, 10, 90_5000)
    rows = fall(engine, 90_8000)  # 8 left, 9.08 needed
    told = [Kind.ENDED, Kind.FILLED, Kind.FILLED, Kind.ENDED, Kind.LIQUIDATED]
    assert [row["kind"] for row in of(rows, *told)] == told
    maker, taker = of(rows, Kind.FILLED)
    assert (maker["code"], taker["code"], taker["price"]) == (Method.MARKET, Method.MARKET, 90_5000)
    assert maker["flags"] & taker["flags"] & Flag.LIQUIDATION
    assert ends(rows) == [(oid, "liquidatedCanceled"), (taker["order"], "filled")]
    (told,) = of(rows, Kind.LIQUIDATED)
    assert (told["price"], told["amount"], told["quantity"]) == (8 * USD, 9_080_000, 908 * USD)
    assert (told["market"], told["code"]) == (-1, Method.MARKET)
    assert (engine.cash(ANN), engine.held(ANN)) == (5 * USD, (0, 0))


def test_the_book_takes_no_more_than_leaves_him_something(engine):
    quote(engine, CAT, Side.BUY, 5, 90_0000)
    quote(engine, CAT, Side.BUY, 10, 89_7000)
    rows = fall(engine, 90_8000)
    # 5 coins lose 0.80 each, 5 more would lose 5.50 of the 4 that are left
    assert engine.held(ANN)[0] == 5 * COINS and engine.cash(ANN) == 50 * USD
    assert ends(rows)[-1][1] == "canceled" and methods(rows) == [Method.MARKET]


def test_where_nobody_buys_there_was_no_order(engine):
    oid = engine.state.heap[0]["orders"]
    rows = fall(engine, 90_8000)
    assert not of(rows, Kind.LIQUIDATED, Kind.ENDED, Kind.FILLED)
    assert engine.state.heap[0]["orders"] == oid and engine.state.heap[0]["circle_left"] == 0
    engine.done(kind=Kinds.MODE, amount=Trading.CANCEL_ONLY)
    assert not of(fall(engine, 90_7000), Kind.LIQUIDATED)


def large():
    """An engine in which ANN holds a million dollars' worth with little behind it, and CAT would buy."""
    engine = Engine()
    for who in (ANN, BOB, CAT):
        engine.deposit(who, 10**6)
        lever(engine, who, 50)
    engine.trade(ANN, BOB, 10_000 * COINS, 100_0000)
    engine.done(kind=Kinds.WITHDRAW, other=ANN, amount=901_000 * USD)
    quote(engine, CAT, Side.BUY, 10_000, 90_8000)
    return engine


def test_of_a_large_position_a_fifth_is_sold_first_and_then_the_whole():
    engine = large()
    rows = fall(engine, 90_8000)  # 8,000 left, 9,080 needed; 100,000 USD is less than 908,000
    assert engine.held(ANN)[0] == 8000 * COINS and methods(rows) == [Method.MARKET]
    assert engine.state.heap[0]["circle_left"] > 0, "everyone is looked at again"
    assert not methods(engine.block()), "7,264 are needed now"
    rows = fall(engine, 90_7000)  # 7,200 left and 7,256 needed, within half a minute: all of it
    assert engine.held(ANN)[0] == 0 and methods(rows) == [Method.MARKET]


def test_after_half_a_minute_it_is_a_fifth_again():
    engine = large()
    fall(engine, 90_8000)
    engine.now_ms += 30_000
    fall(engine, 90_7000)
    assert engine.held(ANN)[0] == 6400 * COINS


# --- the insurance account ----------------------------------------------------------------------------------


def test_below_two_thirds_the_insurance_account_takes_position_and_margin(engine):
    engine.deposit(FUND, 100)
    quote(engine, CAT, Side.BUY, 10, 90_0000)
    rows = fall(engine, 90_6000)  # 6 left; two thirds of 9.06 are 6.04
    theirs, hers = of(rows, Kind.FILLED)
    assert (theirs["account"], hers["account"]) == (engine.row(FUND), engine.row(ANN))
    assert (hers["code"], hers["price"], hers["amount"]) == (Method.BACKSTOP, 90_6000, -94 * USD)
    assert hers["flags"] == Flag.LIQUIDATION | Flag.CROSSED and theirs["trade"] == hers["trade"]
    money = [(row["account"], row["amount"], row["code"]) for row in of(rows, Kind.MONEY)]
    assert money == [
        (engine.row(ANN), -6 * USD, Ledger.LIQUIDATION),
        (engine.row(FUND), 6 * USD, Ledger.LIQUIDATION),
    ]
    assert engine.cash(ANN) == 0 and engine.cash(FUND) == 106 * USD
    assert engine.held(FUND) == (10 * COINS, 906 * USD)
    assert engine.account(FUND)["volume"] == 0, "it was no trade"
    assert engine.market()["reference_price"] == 100_0000


def test_the_insurance_account_bears_what_is_less_than_nothing(engine):
    engine.deposit(FUND, 100)
    fall(engine, 88_0000)  # 20 missing; 80 left, 8.80 needed
    assert engine.cash(ANN) == 0 and engine.cash(FUND) == 80 * USD


def test_the_insurance_account_itself_is_closed_against_the_others(engine):
    engine.deposit(FUND, 100)
    fall(engine, 88_0000)
    assert methods(engine.block()) == []
    rows = fall(engine, 80_0000)  # 80 - 80
    assert methods(rows) == [Method.DELEVERAGING] and engine.held(FUND) == (0, 0)
    assert engine.cash(FUND) == 0 and engine.held(BOB) == (0, 0)


# --- the others ---------------------------------------------------------------------------------------------


def test_without_insurance_the_other_side_is_closed_at_the_mark(engine):
    rows = fall(engine, 90_6000)
    his, hers = of(rows, Kind.FILLED)
    assert (his["account"], his["price"], his["amount"]) == (engine.row(BOB), 90_6000, 94 * USD)
    assert (hers["code"], hers["fee"], methods(rows)) == (Method.DELEVERAGING, 0, [Method.DELEVERAGING])
    assert engine.cash(ANN) == 6 * USD and engine.cash(BOB) == 1094 * USD


def test_if_nothing_is_left_it_is_at_the_marks_that_were_sound(engine):
    fall(engine, 95_0000)
    engine.oracle(92_0000)
    rows = fall(engine, 80_0000)
    assert of(rows, Kind.FILLED)[1]["price"] == 95_0000
    assert engine.cash(ANN) == 50 * USD and engine.cash(BOB) == 1050 * USD


def test_who_gains_most_with_the_most_leverage_is_closed_first():
    engine = Engine()
    for who in (ANN, BOB, CAT, DAN):
        lever(engine, who, 50)
    engine.trade(ANN, BOB, 4 * COINS, 100_0000)
    engine.trade(ANN, CAT, 4 * COINS, 102_0000)
    engine.trade(ANN, DAN, 4 * COINS, 100_0000)
    for who, left in ((ANN, 130), (BOB, 500), (DAN, 400)):
        engine.done(kind=Kinds.WITHDRAW, other=who, amount=(1000 - left) * USD)
    # Cat has gained most, but with 1000 USD; Dan as much as Bob, with less
    rows = fall(engine, 90_4000)
    assert methods(rows) == [Method.DELEVERAGING]
    closed = [row["account"] for row in of(rows, Kind.FILLED)[::2]]
    assert closed == [engine.row(who) for who in (DAN, BOB, CAT)]


def test_of_those_who_gain_alike_the_older_account_is_closed_first():
    engine = Engine()
    for who in (ANN, BOB, CAT, DAN):
        lever(engine, who, 50)
    for who in (DAN, CAT, BOB):
        engine.trade(ANN, who, 4 * COINS, 100_0000)
    engine.done(kind=Kinds.WITHDRAW, other=ANN, amount=880 * USD)
    closed = [row["account"] for row in of(fall(engine, 90_4000), Kind.FILLED)[::2]]
    assert closed == [engine.row(who) for who in (BOB, CAT, DAN)]


def test_reduce_only_orders_of_who_was_closed_go(engine):
    oid = engine.done(**engine.order(BOB, Side.BUY, 10 * COINS, 85_0000, reduce=True))[0]["order"]
    rows = fall(engine, 80_0000)
    assert (oid, "reduceOnlyCanceled") in ends(rows)


def test_they_go_before_what_is_owed_is_made_good(engine):
    """Dan is short one coin at 80, with 1.60 put aside, when Ann is closed at 95, the mark that was sound."""
    fall(engine, 95_0000)
    lever(engine, DAN, 50, cross=False)
    engine.oracle(80_0000)
    engine.trade(CAT, DAN, COINS, 80_0000)
    oid = engine.done(**engine.order(DAN, Side.BUY, COINS, 79_0000, reduce=True))[0]["order"]
    rows = of(engine.block(), Kind.FILLED, Kind.ENDED, Kind.MONEY)
    assert [row["kind"] for row in rows[:5]] == [Kind.FILLED, Kind.FILLED, Kind.ENDED, Kind.MONEY, Kind.MONEY]
    assert (rows[0]["account"], rows[0]["price"], rows[2]["order"]) == (engine.row(DAN), 95_0000, oid)
    made_good, borne = rows[3:5]
    assert (made_good["account"], made_good["amount"]) == (engine.row(DAN), 13_400_000)
    assert (borne["account"], borne["amount"]) == (engine.row(FUND), -13_400_000)


@given(st.integers(0, 10**17), st.integers(-(10**17), 10**17))
def test_a_ratio_is_exact_up_to_its_bound(a, b):
    assert ratio(a, b) == (10**9 if b <= 0 else min(10**9, a * 10**6 // b))


# --- isolated -----------------------------------------------------------------------------------------------


def isolated():
    """Ann is long 10 coins at 100, with 20 USD aside and 980 in cash; Bob is short."""
    engine = Engine()
    lever(engine, ANN, 50, cross=False)
    engine.trade(ANN, BOB, 10 * COINS, 100_0000)
    engine.add_market(b"B")
    engine.block()
    return engine


def test_an_isolated_position_falls_alone_and_the_cash_stays():
    engine = isolated()
    here = engine.done(**engine.order(ANN, Side.BUY, 20, 90_0000))[0]["order"]
    there = engine.done(**engine.order(ANN, Side.BUY, 20, 90_0000, market=1))[0]["order"]
    rows = fall(engine, 98_5000)  # 5 left of 9.85: less than two thirds
    assert ends(rows) == [(here, "liquidatedCanceled")] and there
    (told,) = of(rows, Kind.LIQUIDATED)
    assert (told["market"], told["code"], told["price"]) == (0, Method.DELEVERAGING, 5 * USD)
    assert engine.cash(ANN) == 985 * USD and engine.held(ANN) == (0, 0)


def test_what_an_isolated_position_owes_is_not_taken_from_the_cash():
    engine = isolated()
    engine.deposit(FUND, 1000)
    fall(engine, 97_0000)  # 10 missing
    assert engine.cash(ANN) == 980 * USD and engine.cash(FUND) == 990 * USD
    assert engine.held(FUND)[0] == 10 * COINS


def test_its_bucket_goes_with_it_to_the_insurance_account():
    engine = isolated()
    engine.deposit(FUND, 1000)
    fall(engine, 98_5000)
    assert engine.cash(ANN) == 980 * USD and engine.cash(FUND) == 1005 * USD


# --- circles ------------------------------------------------------------------------------------------------


def test_so_many_accounts_are_looked_at_in_one_block_and_the_rest_in_the_next(monkeypatch):
    engine = Engine()
    lever(engine, BOB, 50)
    engine.deposit(BOB, 10**6)
    names = [bytes([7]) * 19 + bytes([n]) for n in range(70)]
    for who in names:
        engine.deposit(who, 10)
        lever(engine, who, 50)
        engine.trade(who, BOB, 1 * COINS, 100_0000)
    rows = fall(engine, 90_5000)  # 0.50 left of 10; 0.905 needed
    assert len(methods(rows)) == liquidation.LIQUIDATIONS_A_BLOCK
    assert engine.state.heap[0]["due_ms"] == engine.now_ms, "the next block ends at once"
    assert len(methods(engine.block())) == 70 - liquidation.LIQUIDATIONS_A_BLOCK
    assert not methods(engine.block()) and engine.state.heap[0]["circle_left"] == 0
    assert all(engine.held(who) == (0, 0) for who in names)
