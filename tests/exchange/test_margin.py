"""What an account can bear at the mark, with numbers worked by hand from engine/exchange/README.md."""

import pytest

from engine.exchange.records import Kind
from shm.codes import NAMES, Ask, Refusal, Side, Tif
from shm.codes import Command as Kinds
from tests.exchange.alone import ANN, BOB, CAT, USD, Engine, of

COINS = 100  # lots of a coin


@pytest.fixture
def engine():
    return Engine()


def withdraw(who, micros):
    return {"kind": Kinds.WITHDRAW, "other": who, "amount": micros}


def leverage(who, times, cross=True):
    return {
        "kind": Kinds.UPDATE_LEVERAGE,
        "signer": who,
        "amount": times,
        "flags": Ask.SESSION | (Ask.IS_CROSS if cross else 0),
    }


def aside(who, micros):
    return {"kind": Kinds.ISOLATED_MARGIN, "signer": who, "amount": micros, "flags": Ask.SESSION}


def statuses(rows):
    return [NAMES[row["status"]] for row in of(rows, Kind.ENDED)]


def test_profit_at_the_mark_can_be_used_and_taken_out_but_for_a_tenth(engine):
    engine.trade(ANN, BOB, 10 * COINS, 100_0000)
    engine.oracle(110_0000)
    # Ann has 1000 + 100; her position of 1100 needs 55 at twenty times, but 110 must stay
    assert engine.refused(**withdraw(ANN, 990 * USD + 1)) == Refusal.BALANCE
    engine.done(**withdraw(ANN, 990 * USD))
    assert engine.cash(ANN) == 10 * USD
    # Bob has lost as much: 900 - 110
    assert engine.refused(**withdraw(BOB, 790 * USD + 1)) == Refusal.BALANCE


def test_an_order_is_measured_by_what_the_position_is_worth_now(engine):
    engine.trade(ANN, BOB, 100 * COINS, 100_0000)
    engine.oracle(105_0000)
    # Bob: 1000 - 500, short 10,500; at twenty times there is nothing left to open, and all to close
    more = engine.order(BOB, Side.SELL, 1 * COINS, 105_0000)
    assert engine.refused(**more) == Refusal.MARGIN
    engine.done(**engine.order(BOB, Side.BUY, 200 * COINS, 105_0000))
    # Ann: 1000 + 500, long 10,500 which need 525: 195 coins more
    assert engine.refused(**engine.order(ANN, Side.BUY, 185 * COINS + 80, 105_3000)) == Refusal.MARGIN
    engine.done(**engine.order(ANN, Side.BUY, 185 * COINS + 18, 104_9000))


def test_a_maker_who_can_bear_his_order_no_more_loses_it(engine):
    engine.trade(ANN, BOB, 100 * COINS, 100_0000)
    oid = engine.done(**engine.order(BOB, Side.SELL, 90 * COINS, 101_0000))[0]["order"]
    engine.done(**engine.order(CAT, Side.SELL, 10 * COINS, 101_0000))
    engine.oracle(104_0000)
    rows = engine.done(**engine.order(ANN, Side.BUY, 20 * COINS, 101_0000, Tif.IOC))
    assert statuses(rows)[0] == "marginCanceled" and of(rows, Kind.ENDED)[0]["order"] == oid
    assert engine.held(CAT)[0] == -10 * COINS, "who came next could"


def test_a_taker_who_would_lose_too_much_at_once_stops(engine):
    engine.deposit(BOB, 10**6)
    engine.oracle(100_0000)
    for price in (101_0000, 104_0000):
        engine.done(**engine.order(BOB, Side.SELL, 100 * COINS, price))
    engine.done(**leverage(ANN, 50))
    # 100 coins at 101 and 100 at 104 lose 500 at once, and 500 are left for 20,000 at fifty times
    rows = engine.done(**engine.order(ANN, Side.BUY, 200 * COINS, 104_0000, Tif.IOC))
    assert engine.held(ANN)[0] == 200 * COINS and statuses(rows) == ["filled"]
    engine.done(**engine.order(BOB, Side.SELL, 10 * COINS, 130_0000))
    rows, ack = engine.do(**engine.order(ANN, Side.BUY, 10 * COINS, 130_0000, Tif.IOC))
    # 300 would be lost of the 500, and 420 needed
    assert ack["code"] == Refusal.MARGIN and not of(rows, Kind.FILLED)


def test_what_only_closes_must_keep_the_maintenance_margin(engine):
    engine.trade(ANN, BOB, 100 * COINS, 100_0000)
    engine.done(**engine.order(CAT, Side.BUY, 99 * COINS, 91_0000))
    engine.done(**engine.order(CAT, Side.BUY, 1 * COINS, 89_0000))
    engine.oracle(100_0000)
    closing = engine.order(ANN, Side.SELL, 99 * COINS, 89_0000, Tif.IOC, reduce=True)
    rows = engine.done(**closing)  # 891 lost, 109 left; the last coin needs 1
    assert statuses(rows) == ["filled"]
    engine.done(**engine.order(CAT, Side.BUY, 9 * COINS, 85_0000))
    engine.done(**engine.order(ANN, Side.SELL, 1 * COINS, 89_0000, Tif.IOC, reduce=True))
    assert engine.cash(ANN) == 98 * USD and engine.held(ANN) == (0, 0)


def test_a_sale_that_leaves_less_than_nothing_is_not_made(engine):
    engine.trade(ANN, BOB, 100 * COINS, 100_0000)
    engine.done(**engine.order(CAT, Side.BUY, 60 * COINS, 89_0000))
    engine.oracle(100_0000)
    closing = engine.order(ANN, Side.SELL, 100 * COINS, 89_0000, Tif.IOC, reduce=True)
    engine.done(**closing)  # 660 lost, 340 left, and 40 coins that need 40
    assert engine.held(ANN)[0] == 40 * COINS
    engine.done(**engine.order(CAT, Side.BUY, 40 * COINS, 85_0000))
    rows, ack = engine.do(**engine.order(ANN, Side.SELL, 40 * COINS, 85_0000, Tif.IOC, reduce=True))
    assert ack["code"] == Refusal.MARGIN, "600 would be lost of 340"


def test_tiers_bound_what_may_be_held_at_a_leverage(engine):
    engine.done(kind=Kinds.TIER, quantity=2000 * USD, amount=10)
    assert engine.refused(**engine.order(ANN, Side.BUY, 20 * COINS + 1, 100_0000)) == Refusal.TIER
    engine.done(**engine.order(ANN, Side.BUY, 20 * COINS, 100_0000))
    assert engine.refused(**engine.order(ANN, Side.BUY, 1 * COINS, 90_0000)) == Refusal.TIER
    engine.done(**leverage(ANN, 10))
    engine.done(**engine.order(ANN, Side.BUY, 1 * COINS, 90_0000))
    assert engine.refused(**leverage(ANN, 11)) == Refusal.LEVERAGE_VALUE


def test_maintenance_goes_up_where_a_tier_begins_without_a_step(engine):
    engine.done(kind=Kinds.TIER, quantity=2000 * USD, amount=10)
    engine.done(**leverage(ANN, 10))
    engine.done(**leverage(BOB, 10))
    engine.trade(ANN, BOB, 30 * COINS, 100_0000)
    engine.block()
    # 2000 at 1/100, and the 1000 above at 1/20
    assert engine.account(ANN)["maintenance"] == 20 * USD + 50 * USD


def test_an_isolated_position_has_what_was_put_aside_for_it_and_no_more(engine):
    engine.done(**leverage(ANN, 10, cross=False))
    engine.trade(ANN, BOB, 10 * COINS, 100_0000)
    assert (engine.cash(ANN), int(engine.position(ANN)["isolated"])) == (900 * USD, 100 * USD)
    engine.oracle(105_0000)
    # 150 in the bucket; 105 must stay
    assert engine.refused(**aside(ANN, -45 * USD - 1)) == Refusal.BALANCE
    engine.done(**aside(ANN, -45 * USD))
    engine.done(**aside(ANN, 945 * USD))
    assert engine.refused(**aside(ANN, 1)) == Refusal.BALANCE
    assert engine.cash(ANN) == 0 and int(engine.position(ANN)["isolated"]) == 1000 * USD


def test_closing_a_part_gives_back_its_part_of_the_bucket_and_its_profit(engine):
    engine.done(**leverage(ANN, 10, cross=False))
    engine.trade(ANN, BOB, 10 * COINS, 100_0000)
    engine.oracle(104_0000)
    engine.trade(CAT, ANN, 4 * COINS, 104_0000)
    # 40 of the 100 aside, and 16 won
    assert (engine.cash(ANN), int(engine.position(ANN)["isolated"])) == (956 * USD, 60 * USD)
    engine.trade(CAT, ANN, 6 * COINS, 101_0000)
    assert (engine.cash(ANN), int(engine.position(ANN)["isolated"])) == (956 * USD + 66 * USD, 0)


def test_less_leverage_takes_what_is_missing_from_the_cash(engine):
    engine.done(**leverage(ANN, 10, cross=False))
    engine.trade(ANN, BOB, 10 * COINS, 100_0000)
    engine.oracle(98_0000)
    # 80 in the bucket; 980 at five times need 196
    engine.done(**leverage(ANN, 5, cross=False))
    assert (engine.cash(ANN), int(engine.position(ANN)["isolated"])) == (784 * USD, 216 * USD)
    engine.done(**leverage(ANN, 20, cross=False))
    assert engine.cash(ANN) == 784 * USD, "more leverage gives nothing back by itself"
    assert engine.refused(**leverage(ANN, 20, cross=True)) == Refusal.LEVERAGE_SWITCH
    assert engine.refused(**leverage(ANN, 51, cross=False)) == Refusal.LEVERAGE_VALUE


def test_all_deposits_together_have_a_bound(engine):
    for _ in range(99):
        engine.deposit(CAT, 10**9)
    engine.deposit(ANN, 10**9 - 4000)
    assert engine.refused(kind=Kinds.DEPOSIT, other=ANN, amount=1) == Refusal.AMOUNT
    engine.done(**withdraw(CAT, 5))
    engine.done(kind=Kinds.DEPOSIT, other=ANN, amount=5)
