"""Orders in slices over time: what is asked about them, and what their channels say of each step."""

import pytest

from gateway import twaps
from gateway.errors import NotNow
from shm import codes, seqlock
from shm.codes import Twap
from tests.exchange_world import Exchange
from tests.gateway.test_accounts import asker
from tests.gateway.test_feed import Reader, feed_of
from tests.world import ALICE, BOB, CAROL

NOW_MS = 1_700_000_000_999
MINUTES = 30
STATE = {
    "coin": "ETH", "user": ALICE, "side": "B", "sz": "10.0", "executedSz": "0.0", "executedNtl": "0.0",
    "minutes": MINUTES, "reduceOnly": False, "randomize": False, "timestamp": NOW_MS, "stopPx": None,
    "trigger": None,
}  # fmt: skip
EXECUTED = {"executedSz": "0.5", "executedNtl": "1500.25"}
FACTS = {"sz": "10", "minutes": MINUTES, "began_ms": NOW_MS}
NO_HASH = "0x" + "00" * 32


def at(seconds):
    return {"time_ms": NOW_MS + 1000 * seconds}


def begin(world, id, user=ALICE, **more):
    with world.block(**at(0)) as block:
        block.twap(user, id, "ETH", **FACTS | more)


def execute(world, id, seconds=30, tid=1):
    """A slice of half an ETH is bought of Bob."""
    with world.block(**at(seconds)) as block:
        block.fill("ETH", BOB, "A", "3000.5", "0.5", tid, 1, crossed=False)
        block.fill("ETH", ALICE, "B", "3000.5", "0.5", tid, 2, twap=id, hash=0)
        block.twap(ALICE, id, "ETH", done="0.5", notional=1_500_250_000, **FACTS)
        block.funds(ALICE, cash=5)


def end(world, id, state=Twap.TERMINATED, seconds=60):
    with world.block(**at(seconds)) as block:
        block.twap(ALICE, id, "ETH", state, done="0.5", notional=1_500_250_000, **FACTS)


@pytest.fixture
def world():
    world = Exchange()
    world.market("BTC", 5, price="60000")
    world.market("ETH", 4, price="3000")
    with world.block(time_ms=NOW_MS) as block:
        for user in (ALICE, BOB):
            block.funds(user, cash=10**12)
    return world


def entry(id, status, seconds, state=STATE):
    return {
        "time": NOW_MS // 1000 + seconds, "state": state, "status": {"status": status}, "twapId": id,
    }  # fmt: skip


# --- what is asked ------------------------------------------------------------------------------------------


def test_what_runs_is_on_the_screen_oldest_first_and_as_it_stands(world):
    ask = asker(world)
    begin(world, 7)
    begin(world, 8, side="A", flags=codes.Flag.REDUCE_ONLY, is_randomized=1)
    begin(world, 9, user=BOB)
    execute(world, 7)
    states = ask("webData2", user=ALICE)["twapStates"]
    other = STATE | {"side": "A", "reduceOnly": True, "randomize": True}
    assert states == [[7, STATE | EXECUTED], [8, other]]
    assert [id for id, _ in ask("webData2", user=BOB)["twapStates"]] == [9]
    end(world, 7)
    assert ask("webData2", user=ALICE)["twapStates"] == [[8, other]]
    assert ask("webData2", user=CAROL)["twapStates"] == []


def test_the_history_has_each_beginning_and_each_end_newest_first(world):
    ask = asker(world)
    begin(world, 7)
    execute(world, 7)
    begin(world, 8)
    end(world, 7)
    end(world, 8, Twap.FINISHED, seconds=61)
    ended = STATE | EXECUTED
    assert ask("twapHistory", user=ALICE) == [
        entry(8, "finished", 61, ended), entry(7, "terminated", 60, ended), entry(8, "activated", 0),
        entry(7, "activated", 0),
    ]  # fmt: skip
    assert ask("twapHistory", user=BOB) == ask("twapHistory", user=CAROL) == []


def test_fills_of_slices_are_told_apart_and_among_all_others(world):
    ask = asker(world)
    with world.block(**at(1)) as block:
        block.trade("ETH", ALICE, BOB, "B", "3000", "1", tid=50)
    execute(world, 7, seconds=30, tid=1)
    execute(world, 8, seconds=60, tid=2)
    newest, older, plain = ask("userFills", user=ALICE)
    assert [fill["twapId"] for fill in (newest, older, plain)] == [8, 7, None]
    assert newest["hash"] == older["hash"] == NO_HASH != plain["hash"]
    slices = [{"fill": newest, "twapId": 8}, {"fill": older, "twapId": 7}]
    assert ask("userTwapSliceFills", user=ALICE) == slices
    span = {"startTime": 0}
    assert ask("userTwapSliceFillsByTime", user=ALICE, **span) == slices[::-1]
    span = {"startTime": NOW_MS + 30_001, "endTime": NOW_MS + 60_000}
    assert ask("userTwapSliceFillsByTime", user=ALICE, **span) == slices[:1]
    assert ask("userTwapSliceFillsByTime", user=ALICE, endTime=NOW_MS + 59_999) == slices[1:]
    assert ask("userFillsByTime", user=ALICE, startTime=0) == [plain, older, newest]
    for user in (BOB, CAROL):
        assert ask("userTwapSliceFills", user=user) == ask("userTwapSliceFillsByTime", user=user) == []


def test_an_engine_at_work_is_not_waited_for(world):
    begin(world, 7)
    ask, row = asker(world), world.arrays["accounts"][world.account(ALICE)]
    seqlock.open_row(row)
    try:
        with pytest.raises(NotNow):
            ask("webData2", user=ALICE)
    finally:
        seqlock.close_row(row)
    assert ask("webData2", user=ALICE)["twapStates"] == [[7, STATE]]


# --- what is told -------------------------------------------------------------------------------------------

KINDS = ("userTwapHistory", "userTwapSliceFills", "twapStates", "userEvents")


def reader_of(feed, user=ALICE):
    return Reader(feed, *({"type": kind, "user": user} for kind in KINDS))


def told(feed, reader):
    feed.turn(1)
    return reader.take()


def by_channel(heard):
    """What was heard on each channel in its order, and the channels by name."""
    return sorted(heard, key=lambda message: message[0])


def test_each_step_is_told_on_its_channels(world):
    feed = feed_of(world)
    reader = reader_of(feed)
    assert dict(reader.take()) == {
        "userTwapHistory": {"isSnapshot": True, "user": ALICE, "history": []},
        "userTwapSliceFills": {"isSnapshot": True, "user": ALICE, "twapSliceFills": []},
        "twapStates": {"dex": "", "user": ALICE, "states": []},
    }
    begin(world, 7)
    began = entry(7, "activated", 0)
    assert by_channel(told(feed, reader)) == [
        ("twapStates", {"dex": "", "user": ALICE, "states": [[7, STATE]]}),
        ("user", {"twapHistory": [began]}),
        ("userTwapHistory", {"user": ALICE, "history": [began]}),
    ]
    execute(world, 7)
    (fill,) = asker(world)("userFills", user=ALICE)
    slices = [{"fill": fill, "twapId": 7}]
    assert by_channel(told(feed, reader)) == [
        ("twapStates", {"dex": "", "user": ALICE, "states": [[7, STATE | EXECUTED]]}),
        ("user", {"fills": [fill]}),
        ("user", {"twapSliceFills": slices}),
        ("userTwapSliceFills", {"user": ALICE, "twapSliceFills": slices}),
    ]
    end(world, 7)
    ended = entry(7, "terminated", 60, STATE | EXECUTED)
    assert by_channel(told(feed, reader)) == [
        ("twapStates", {"dex": "", "user": ALICE, "states": []}),
        ("user", {"twapHistory": [ended]}),
        ("userTwapHistory", {"user": ALICE, "history": [ended]}),
    ]


def test_who_comes_later_begins_with_what_there_was(world):
    begin(world, 7)
    execute(world, 7)
    begin(world, 8)
    end(world, 7)
    ask = asker(world)
    first = dict(reader_of(feed_of(world)).take())
    assert first["userTwapHistory"]["history"] == ask("twapHistory", user=ALICE)
    assert len(first["userTwapHistory"]["history"]) == 3
    assert first["userTwapSliceFills"]["twapSliceFills"] == ask("userTwapSliceFills", user=ALICE)
    assert first["twapStates"]["states"] == ask("webData2", user=ALICE)["twapStates"]


def test_others_hear_nothing_of_it_but_their_own_fills(world):
    feed = feed_of(world)
    reader = reader_of(feed, BOB)
    reader.take()
    begin(world, 7)
    execute(world, 7)
    end(world, 7)
    ((channel, data),) = told(feed, reader)
    assert channel == "user" and [fill["twapId"] for fill in data["fills"]] == [None]


def test_another_dex_has_none(world):
    begin(world, 7)
    reader = Reader(feed_of(world), {"type": "twapStates", "user": ALICE, "dex": "x"})
    assert reader.take() == [("twapStates", {"dex": "x", "user": ALICE, "states": []})]


def test_no_answer_is_longer_than_the_wires(world, monkeypatch):
    monkeypatch.setattr(twaps, "ANSWER_MAX", 3)
    for id in range(1, 6):
        begin(world, id)
    assert [each["twapId"] for each in asker(world)("twapHistory", user=ALICE)] == [5, 4, 3]
