"""Orders that wait for the mark, alone and in groups, worked by hand from engine/exchange/README.md."""

import pytest

from engine.exchange.records import Kind
from shm.codes import NAMES, Ack, Ask, Condition, Flag, Grouping, Refusal, Side, Tif
from shm.codes import Command as Kinds
from tests.exchange.alone import ANN, BOB, CAT, Engine, of

ABOVE, BELOW, BUY, SELL = Condition.ABOVE, Condition.BELOW, Side.BUY, Side.SELL
COINS = 100  # lots of a coin
STORY = (Kind.WAITING, Kind.TRIGGERED, Kind.OPENED, Kind.FILLED, Kind.ENDED)


@pytest.fixture
def engine():
    """Ann is long 2 coins at 100, Bob is short."""
    engine = Engine()
    engine.oracle(100_0000)
    engine.trade(ANN, BOB, 2 * COINS, 100_0000)
    engine.block()
    return engine


def quote(engine):
    """Cat bids and asks for 10 coins at 90 and 110."""
    for side, price in ((BUY, 90_0000), (SELL, 110_0000)):
        engine.done(**engine.order(CAT, side, 10 * COINS, price))


def withdraw_quotes(engine):
    engine.done(kind=Kinds.CANCEL_ALL, signer=CAT, flags=Ask.SESSION)


def trigger(engine, who, side, condition, at, coins=2, price=None, reduce=True, tif=Tif.MARKET, **fields):
    ask = engine.order(who, side, coins * COINS, price or at, tif=tif, reduce=reduce, **fields)
    return ask | {"flags": ask["flags"] | Ask.IS_TRIGGER, "trigger_price": at, "condition": int(condition)}


def wait(engine, *args, **fields):
    """Place one; its oid."""
    (told,) = of(engine.done(**trigger(engine, *args, **fields)), Kind.WAITING)
    return told["order"]


def family(engine, who, side, price, *children, coins=2, tif=Tif.GTC, modify=None):
    """A parent and its children, as one action: what became of each, and all that was told."""
    count = 1 + len(children)
    asks = [engine.order(who, side, coins * COINS, price, tif=tif)]
    asks += [trigger(engine, who, 1 - side, *child, coins=coins) for child in children]
    told, acks = [], []
    for place, ask in enumerate(asks):
        rows, ack = engine.do(**ask | {"place": place, "count": count, "grouping": int(Grouping.NORMAL)})
        told += rows
        acks.append(ack)
    return acks, told


def marked(engine, price):
    """The mark comes to this, and a block ends in which Cat quotes; what was told of orders."""
    engine.oracle(price)
    assert engine.market()["mark"] == price, "no book has two sides just now"
    quote(engine)
    rows = of(engine.block(), *STORY)
    withdraw_quotes(engine)
    return rows


def told(rows):
    return [(Kind(row["kind"]).name, row["order"]) for row in rows]


def ends(rows):
    return {row["order"]: NAMES[row["status"]] for row in of(rows, Kind.ENDED)}


def test_it_waits_apart_and_holds_no_margin(engine):
    before = engine.account(BOB)["used"]
    oid = wait(engine, BOB, BUY, BELOW, 95_0000, reduce=False, tif=Tif.GTC, coins=3)
    engine.block()
    assert engine.account(BOB)["used"] == before and engine.account(BOB)["order_count"] == 1
    assert engine.market()["order_count"] == 0
    assert marked(engine, 95_0100) == []
    rows = marked(engine, 95_0000)
    assert told(rows) == [("TRIGGERED", oid), ("OPENED", oid)]
    waited, rests = rows
    assert (waited["start"], waited["done"], waited["flags"] & Flag.IS_TRIGGER) == (95_0000, BELOW, 0)
    assert (rests["price"], rests["quantity"], rests["done"]) == (95_0000, 3 * COINS, BELOW)
    assert engine.market()["order_count"] == 1


def test_a_market_order_goes_as_far_as_its_price(engine):
    engine.done(**engine.order(BOB, BUY, 1 * COINS, 94_0000))
    oid = wait(engine, ANN, SELL, BELOW, 95_0000, price=92_0000)
    rows = marked(engine, 95_0000)
    assert [kind for kind, _ in told(rows)] == ["TRIGGERED", "FILLED", "FILLED", "ENDED"]
    assert rows[2]["price"] == 94_0000 and ends(rows) == {oid: "canceled"}
    assert engine.held(ANN)[0] == COINS


def test_what_finds_nobody_ends_as_it_would_have_been_refused(engine):
    oid = wait(engine, ANN, SELL, BELOW, 95_0000, price=92_0000)
    rows = marked(engine, 95_0000)
    assert told(rows) == [("TRIGGERED", oid), ("ENDED", oid)]
    assert ends(rows) == {oid: "iocCancelRejected"} and rows[1]["flags"] & Flag.CROSSED


def test_a_mark_that_is_there_already_is_refused(engine):
    for side, condition, at in ((SELL, BELOW, 100_0000), (SELL, ABOVE, 99_0000)):
        assert engine.refused(**trigger(engine, ANN, side, condition, at)) == Refusal.TRIGGER
    assert engine.refused(**trigger(engine, CAT, SELL, BELOW, 95_0000)) == Refusal.REDUCE_ONLY


def test_the_nearest_goes_first_and_then_the_oldest(engine):
    far = wait(engine, ANN, SELL, BELOW, 91_0000, coins=1, reduce=False)
    older = wait(engine, ANN, SELL, BELOW, 95_0000, coins=1, reduce=False)
    younger = wait(engine, BOB, SELL, BELOW, 95_0000, coins=1, reduce=False)
    rows = marked(engine, 90_5000)
    assert [row["order"] for row in of(rows, Kind.TRIGGERED)] == [older, younger, far]


def test_a_closed_market_lets_nothing_go(engine):
    oid = wait(engine, ANN, SELL, BELOW, 95_0000, price=89_0000)
    engine.done(kind=Kinds.MODE, market=0, amount=1)
    engine.oracle(94_0000)
    assert of(engine.block(), *STORY) == []
    engine.done(kind=Kinds.MODE, market=0, amount=0)
    quote(engine)
    assert ends(of(engine.block(), *STORY)) == {oid: "filled"}


def test_children_wait_for_their_parent_and_one_ends_the_other(engine):
    acks, rows = family(engine, ANN, BUY, 97_0000, (ABOVE, 105_0000), (BELOW, 93_0000))
    parent, profit, loss = (ack["order"] for ack in acks)
    assert [ack["outcome"] for ack in acks] == [Ack.RESTING, Ack.WAITS_FOR_FILL, Ack.WAITS_FOR_FILL]
    assert [(row["amount"], row["code"]) for row in of(rows, Kind.WAITING)] == [(parent, 1), (parent, 1)]
    assert marked(engine, 106_0000) == [], "they wait for more than the mark"
    engine.done(**engine.order(BOB, SELL, 2 * COINS, 97_0000, tif=Tif.IOC))
    rows = of(engine.block(), *STORY)
    assert told(rows)[:2] == [("TRIGGERED", profit), ("ENDED", loss)]
    assert ends(rows) == {loss: "siblingFilledCanceled", profit: "marketOrderNoLiquidityRejected"}


def test_children_of_a_parent_that_is_filled_at_once_wait_for_the_mark(engine):
    quote(engine)
    acks, _ = family(engine, ANN, BUY, 110_0000, (BELOW, 93_0000), tif=Tif.IOC)
    withdraw_quotes(engine)
    assert [ack["outcome"] for ack in acks] == [Ack.FILLED, Ack.WAITS_FOR_TRIGGER]
    assert told(marked(engine, 93_0000))[0] == ("TRIGGERED", acks[1]["order"])


def test_children_end_with_their_parent(engine):
    acks, _ = family(engine, ANN, BUY, 97_0000, (ABOVE, 105_0000), (BELOW, 93_0000))
    parent, profit, loss = (ack["order"] for ack in acks)
    rows = engine.done(kind=Kinds.CANCEL, signer=ANN, order=parent, market=0, flags=Ask.SESSION)
    assert [*ends(rows).items()] == [(parent, "canceled"), (profit, "canceled"), (loss, "canceled")]


def test_who_has_no_parent_or_is_no_child_is_refused(engine):
    acks, _ = family(engine, ANN, BUY, 109_0000, (BELOW, 93_0000), tif=Tif.IOC)
    assert [ack["code"] for ack in acks] == [Refusal.IOC, Refusal.PARENT]
    acks, _ = family(engine, ANN, BUY, 97_0000, (ABOVE, 105_0000), (BELOW, 93_0000), (BELOW, 92_0000))
    assert [ack["code"] for ack in acks] == [0, 0, 0, Refusal.GROUPING]
    lone = trigger(engine, ANN, SELL, BELOW, 95_0000, reduce=False) | {"grouping": int(Grouping.POSITION)}
    assert engine.refused(**lone) == Refusal.GROUPING


def test_a_modified_parent_keeps_its_children_and_a_modified_child_its_parent(engine):
    acks, _ = family(engine, ANN, BUY, 97_0000, (BELOW, 93_0000))
    parent, loss = (ack["order"] for ack in acks)
    ask = engine.order(ANN, BUY, 2 * COINS, 96_0000)
    moved = engine.done(**ask | {"kind": Kinds.MODIFY, "order": parent})
    assert ends(moved) == {parent: "canceled"}, "and not its child"
    ask = trigger(engine, ANN, SELL, BELOW, 92_0000)
    rows, ack = engine.do(**ask | {"kind": Kinds.MODIFY, "order": loss})
    assert ack["outcome"] == Ack.WAITS_FOR_FILL and of(rows, Kind.WAITING)[0]["amount"] == parent
    engine.done(**engine.order(BOB, SELL, 2 * COINS, 96_0000, tif=Tif.IOC))
    assert told(marked(engine, 92_0000))[0] == ("TRIGGERED", ack["order"])


def test_one_of_a_position_is_all_of_it_and_ends_with_it(engine):
    whole = trigger(engine, ANN, SELL, BELOW, 95_0000, coins=0, price=89_0000)
    rows, ack = engine.do(**whole | {"grouping": int(Grouping.POSITION)})
    assert ack["outcome"] == Ack.WAITS_FOR_TRIGGER and rows[0]["quantity"] == 0
    engine.trade(ANN, BOB, 1 * COINS, 100_0000)
    rows = marked(engine, 95_0000)
    assert rows[0]["quantity"] == 3 * COINS and ends(rows) == {ack["order"]: "filled"}
    assert engine.held(ANN) == (0, 0)


def test_with_the_position_goes_what_would_reduce_it(engine):
    loss = wait(engine, ANN, SELL, BELOW, 95_0000)
    quote(engine)
    rows = engine.done(**engine.order(ANN, SELL, 2 * COINS, 90_0000, tif=Tif.IOC))
    assert ends(rows)[loss] == "reduceOnlyCanceled"
    assert engine.account(ANN)["order_count"] == engine.account(ANN)["reduce_count"] == 0
