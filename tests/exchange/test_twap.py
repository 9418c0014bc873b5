"""Orders in slices, with numbers worked by hand from engine/exchange/README.md."""

import pytest

from engine.exchange.records import Kind
from shm.codes import NAMES, Ask, Refusal, Side, Twap
from shm.codes import Command as Kinds
from tests.exchange.alone import ANN, BOB, USD, Engine, of

BUY, SELL = Side.BUY, Side.SELL
COINS = 100  # lots of a coin
SLICE_MS = 30_000


@pytest.fixture
def engine():
    """The mark is 100; Bob bids 10 coins at 97 and asks 10 at 103, which is as far as a slice goes."""
    engine = Engine()
    engine.oracle(100_0000)
    for side, price in ((BUY, 97_0000), (SELL, 103_0000)):
        engine.done(**engine.order(BOB, side, 10 * COINS, price))
    engine.block()
    return engine


def twap(who, side, quantity, minutes=5, flags=0):
    fields = {"signer": who, "side": int(side), "quantity": quantity, "amount": minutes, "market": 0}
    return {"kind": Kinds.TWAP, "flags": Ask.SESSION | flags, **fields}


def begin(engine, *args, **fields):
    """Its id."""
    rows, ack = engine.do(**twap(*args, **fields))
    assert of(rows, Kind.TWAP)[0]["order"] == ack["order"]
    return ack["order"]


def slices(engine, count, after_ms=SLICE_MS):
    """What the next blocks execute, one after the other, and the last that was told of it."""
    executed, told = [], []
    for at in range(count):
        engine.oracle(100_0000)
        rows = engine.block(after_ms if at else 0)
        executed.append(sum(row["quantity"] for row in of(rows, Kind.FILLED)) // 2)
        told += of(rows, Kind.TWAP)
    return executed, told


def test_ten_slices_in_five_minutes(engine):
    number = begin(engine, ANN, BUY, 105)
    executed, told = slices(engine, 10)
    assert executed == [10, 11, 10, 11, 10, 11, 10, 11, 10, 11], "105 k / 10, rounded down"
    last = told[-1]
    assert (last["order"], last["done"], last["original"]) == (number, Twap.FINISHED, 105)
    assert last["amount"] == 105 * 103_0000 and engine.held(ANN)[0] == 105
    assert slices(engine, 2)[1] == []


def test_what_a_slice_did_not_find_comes_with_the_next_up_to_three(engine):
    engine.done(kind=Kinds.CANCEL_ALL, signer=BOB, flags=Ask.SESSION)
    begin(engine, ANN, BUY, 1000)
    assert slices(engine, 5)[0] == [0] * 5
    engine.done(**engine.order(BOB, SELL, 10 * COINS, 103_0000))
    # due are 500, 600, 700, 800, 900, and at once not more than 300
    assert slices(engine, 5)[0] == [0, 300, 300, 200, 100]


def test_nobody_near_enough_is_nobody(engine):
    engine.done(kind=Kinds.CANCEL_ALL, signer=BOB, flags=Ask.SESSION)
    engine.done(**engine.order(BOB, SELL, 10 * COINS, 103_0100))
    begin(engine, ANN, BUY, 1000)
    assert slices(engine, 3) == ([0, 0, 0], [])


def test_a_slice_is_an_order_of_its_own(engine):
    number = begin(engine, ANN, SELL, 100)
    rows = engine.block()
    story = of(rows, Kind.SLICE, Kind.FILLED, Kind.ENDED, Kind.TWAP)
    assert [row["kind"] for row in story] == [Kind.SLICE, Kind.FILLED, Kind.FILLED, Kind.ENDED, Kind.TWAP]
    told, _, fill, end, _ = story
    assert (told["trade"], told["price"], told["quantity"]) == (number, 97_0000, 10)
    assert told["order"] == fill["order"] == end["order"] and NAMES[end["status"]] == "filled"


def test_when_its_time_is_over_it_ends_with_what_it_has(engine):
    begin(engine, ANN, BUY, 100)
    executed, told = slices(engine, 3)
    engine.done(kind=Kinds.CANCEL_ALL, signer=BOB, flags=Ask.SESSION)
    assert slices(engine, 8)[1][-1:] == []
    last = slices(engine, 2)[1]
    assert [(row["done"], row["original"]) for row in last] == [(Twap.FINISHED, sum(executed))]


def test_it_can_be_ended_by_its_owner_alone(engine):
    number = begin(engine, ANN, BUY, 100)
    ask = {"kind": Kinds.TWAP_CANCEL, "order": number, "market": 0, "flags": Ask.SESSION}
    assert engine.refused(**ask, signer=BOB) == Refusal.TWAP_GONE
    rows, ack = engine.do(**ask, signer=ANN)
    assert of(rows, Kind.TWAP)[0]["done"] == Twap.TERMINATED and ack["order"] == number
    assert engine.refused(**ask, signer=ANN) == Refusal.TWAP_GONE
    assert slices(engine, 2) == ([0, 0], [])


def test_one_that_reduces_ends_with_the_position(engine):
    engine.trade(ANN, BOB, 50, 100_0000)
    begin(engine, ANN, SELL, 100, flags=Ask.REDUCE_ONLY)
    executed, told = slices(engine, 6)
    assert executed == [10, 10, 10, 10, 10, 0] and told[-1]["done"] == Twap.TERMINATED
    assert engine.held(ANN) == (0, 0)


def test_chance_makes_slices_smaller_and_later_and_the_last_one_whole(engine):
    begin(engine, ANN, BUY, 900, flags=Ask.RANDOMIZE)
    executed, told = slices(engine, 10)
    assert sum(executed) == 900 and told[-1]["done"] == Twap.FINISHED
    sums = [sum(executed[: k + 1]) for k in range(9)]
    assert all(90 * (k + 1) - 36 <= total <= 90 * (k + 1) for k, total in enumerate(sums))
    assert len(set(executed)) > 3


def test_what_may_not_run(engine):
    assert engine.refused(**twap(ANN, BUY, 100, minutes=4)) == Refusal.TWAP_MINUTES
    assert engine.refused(**twap(ANN, BUY, 100, minutes=1441)) == Refusal.TWAP_MINUTES
    assert engine.refused(**twap(ANN, BUY, 49, minutes=5)) == Refusal.TWAP_VALUE
    assert engine.refused(**twap(ANN, BUY, 0)) == Refusal.SIZE
    assert engine.refused(**twap(ANN, BUY, 100, flags=Ask.REDUCE_ONLY)) == Refusal.REDUCE_ONLY
    for _ in range(20):
        begin(engine, ANN, BUY, 50)
    assert engine.refused(**twap(ANN, BUY, 50)) == Refusal.OPEN_ORDERS
    engine.done(kind=Kinds.KILL, other=ANN, amount=1)
    assert engine.refused(**twap(ANN, BUY, 50)) == Refusal.KILLED
    assert {row["done"] for row in of(engine.block(), Kind.TWAP)} == {Twap.TERMINATED}
    assert engine.cash(ANN) == 1000 * USD
