"""A later snapshot against the live books: brought to one height, compared whole, repaired one by one."""

import json

import numpy as np
import pytest

from engine import image, verify
from engine.follow import check, intern
from engine.follow.check import Check, Kept, Past
from engine.follow.records import Corrupt
from engine.state import allocate
from shm.codes import Stale
from shm.layout import EVENT, FILL
from tests.engine import made
from tests.engine.made import block, new, remove
from tests.following import SMALL, books_of

ALICE, BOB = "0x" + "a1" * 20, "0x" + "b0" * 20
NONE, NO_FILLS = np.zeros(0, EVENT), np.zeros(0, FILL)


def order(oid, coin="BTC", side="B", px="10.0", sz="1.0", trigger=False):
    return {
        "coin": coin, "side": side, "limitPx": px, "sz": sz, "oid": oid, "timestamp": 5,
        "triggerCondition": "Price above 9" if trigger else "N/A", "isTrigger": trigger,
        "triggerPx": "9.0" if trigger else "0.0", "children": [], "isPositionTpsl": False,
        "reduceOnly": False, "orderType": "Stop Limit" if trigger else "Limit", "origSz": sz, "tif": "Gtc",
        "cloid": None,
    }  # fmt: skip


def snapshot(height, *entries):
    """[height, books]; entries: (user, order)."""
    coins = {}
    for user, facts in entries:
        coins.setdefault(facts["coin"], [[], []])["BA".index(facts["side"])].append([user, facts])
    return [height, [[coin, sides] for coin, sides in coins.items()]]


def live_of(value):
    """A live state from a snapshot, and its tables."""
    state = allocate(SMALL)
    tables = intern.tables(state.markets, state.names, state.accounts, state.account_index, state.status)
    height, orders, _ = check.parse.parse_snapshot(text_of(value), tables)
    assert image.load(state, orders) == 0
    state.status["height"] = height
    return state


def text_of(value):
    return np.frombuffer(json.dumps(value, separators=(",", ":")).encode(), np.uint8)


def compared(state, value, past=None, trusted_from=None):
    comparing = Check(SMALL)
    comparing.begin(text_of(value))
    if past is None:
        past = Past()
        past.begin(value[0])
    trusted = np.zeros(SMALL.markets, np.int64) if trusted_from is None else trusted_from
    return advanced(comparing, state, past, trusted)


def advanced(comparing, state, past, trusted):
    """Advance as often as something is done in the background."""
    report = comparing.advance(state, past, trusted)
    while report is None and comparing.working:
        for work in (comparing._parsing, comparing._building):
            if work is not None:
                work.exception()
        report = comparing.advance(state, past, trusted)
    return report


FIRST = [(ALICE, order(1)), (BOB, order(2, px="9.0")), (BOB, order(3, side="A", px="11.0")),
         (ALICE, order(4, coin="HYPE")), (BOB, order(5, coin="HYPE", side="A", px="12.0")),
         (ALICE, order(6, coin="HYPE", side="A", px="13.0", trigger=True))]  # fmt: skip


def test_equal_books_are_left_alone():
    state = live_of(snapshot(50, *FIRST))
    sequences = state.markets["sequence"].copy()
    report = compared(state, snapshot(50, *FIRST))
    assert (report.height, report.markets, report.orders, report.repaired) == (50, 2, 5, {})
    assert (state.markets["sequence"] == sequences).all() and state.status[0]["checked_height"] == 50


@pytest.mark.parametrize(
    "wrong",
    [
        [(ALICE, order(1, sz="2.0"))], [(BOB, order(1))], [(ALICE, order(7))], [(ALICE, order(1, px="10.5"))],
        [],
        [(ALICE, order(1)), (ALICE, order(8, px="1.0"))],
        [(ALICE, order(1)), (ALICE, order(8, side="A", px="99.0"))],
    ],
)  # fmt: skip
def test_the_market_that_differs_is_repaired_alone(wrong):
    """Another size, user, oid, price; one order less, one more at the very end."""
    state = live_of(snapshot(50, *wrong, *FIRST[1:]))
    before, tail = int(state.markets[1]["sequence"]), int(state.work.event_ring[0]["tail"])
    report = compared(state, snapshot(50, *FIRST))
    assert list(report.repaired) == ["BTC"] and "fresh" in report.repaired["BTC"]
    assert state.markets["epoch"][:2].tolist() == [1, 0] and int(state.markets[1]["sequence"]) == before
    assert made.kinds(made.told(state, tail)) == ["RESET"]
    verify.verify(state)
    again = compared(state, snapshot(50, *FIRST))
    assert again.repaired == {}


def test_a_doubted_market_that_is_equal_is_fresh_again():
    state = live_of(snapshot(50, *FIRST))
    state.markets["stale"][0], state.status[0]["stale_count"] = Stale.UNKNOWN_ORDER, 1
    assert compared(state, snapshot(50, *FIRST)).repaired == {"BTC": "unknown_order: equal"}
    assert state.markets["stale"][0] == Stale.FRESH and state.status[0]["stale_count"] == 0


def test_a_market_with_a_log_that_was_not_whole_waits_for_a_later_snapshot():
    state = live_of(snapshot(50, *FIRST[1:]))
    state.markets["stale"][0], state.status[0]["stale_count"] = Stale.CORRUPT, 1
    trusted = np.zeros(SMALL.markets, np.int64)
    trusted[0] = 51
    assert compared(state, snapshot(50, *FIRST), trusted_from=trusted).repaired == {}
    trusted[0] = 50
    assert list(compared(state, snapshot(50, *FIRST), trusted_from=trusted).repaired) == ["BTC"]


def test_untriggered_orders_are_made_the_same():
    state = live_of(snapshot(50, *FIRST[:-1], (BOB, order(9, coin="HYPE", trigger=True))))
    compared(state, snapshot(50, *FIRST))
    assert image.untriggered(state)["order"].tolist() == [6]
    verify.verify(state)


def test_an_older_snapshot_is_brought_to_the_live_height():
    """Rows of its own tables are rewritten as rows of the live ones, users in another order and all."""
    state, past = live_of(snapshot(50, *FIRST)), Past()
    past.begin(50)
    bob = account_of(state, BOB)
    diffs = [
        remove(1, price=10 * 10**8, account=account_of(state, ALICE)),
        new(20, price=8 * 10**8, quantity=10**8, account=bob),
    ]
    for height, rows in zip((51, 52), diffs, strict=True):
        block(state, height, diffs=[rows])
        past.keep(Kept(height, height, NONE, rows, NO_FILLS, True))
    mixed = snapshot(50, *FIRST[::-1])
    for coin, sides in mixed[1]:
        for side, sign in zip(sides, (-1, 1), strict=True):
            side.sort(key=lambda entry, sign=sign: (entry[1]["isTrigger"], sign * float(entry[1]["limitPx"])))
        assert coin in books_of(mixed)
    assert compared(state, mixed, past).repaired == {}
    block(state, 53, diffs=[remove(20, price=8 * 10**8, account=bob)])
    assert list(compared(state, mixed, past).repaired) == ["BTC"], "53 was not kept here: they differ"


def test_a_block_that_has_lost_a_diff_repairs_nothing():
    """The second state, brought up by the same block, would be as wrong, and the two would agree."""
    state, past = live_of(snapshot(50, *FIRST)), Past()
    past.begin(50)
    alice = account_of(state, ALICE)
    fills = made.fill(1, order=1, price=10 * 10**8, quantity=10**8 // 2, account=alice, height=51)
    block(state, 51, fills=[fills])
    past.keep(Kept(51, 51, NONE, NONE, fills, True))
    assert state.markets[0]["stale"] == Stale.GAP
    assert compared(state, snapshot(50, *FIRST), past).repaired == {}
    assert state.markets[0]["stale"] == Stale.GAP
    assert list(compared(state, snapshot(51, *FIRST)).repaired) == ["BTC"], "a snapshot after it does"


def account_of(state, user):
    addresses = [bytes(row).hex() for row in state.accounts["address"]]
    return addresses.index(user[2:])


def test_a_snapshot_ahead_waits_until_the_live_state_is_there():
    state, comparing, past = live_of(snapshot(50, *FIRST)), Check(SMALL), Past()
    past.begin(50)
    trusted = np.zeros(SMALL.markets, np.int64)
    comparing.begin(text_of(snapshot(52, *FIRST)))
    for height in (51, 52):
        assert advanced(comparing, state, past, trusted) is None and comparing.busy
        block(state, height)
        past.keep(Kept(height, height, NONE, NONE, NO_FILLS, True))
    assert advanced(comparing, state, past, trusted).repaired == {} and not comparing.busy


def test_a_corrupt_snapshot_raises_once():
    comparing = Check(SMALL)
    comparing.begin(np.frombuffer(b"[5,[[", np.uint8))
    with pytest.raises(Corrupt):
        advanced(comparing, allocate(SMALL), Past(), np.zeros(SMALL.markets, np.int64))
    assert not comparing.busy


def test_a_market_that_the_snapshot_adds_is_taken():
    state = live_of(snapshot(50, *FIRST[:3]))
    assert list(compared(state, snapshot(50, *FIRST)).repaired) == ["HYPE"]
    assert state.status[0]["market_count"] == 2


# --- the past ---------------------------------------------------------------------------------------------


def kept(height, whole=True, count=0):
    return Kept(height, height, NONE, np.zeros(count, EVENT), NO_FILLS, whole)


def heights(blocks):
    return None if blocks is None else [one.height for one in blocks]


def test_the_past_says_what_came_after_and_how_far_back_it_reaches():
    past = Past()
    past.begin(100)
    assert heights(past.after(100)) == [] and past.after(99) is None, "nothing is kept of before"
    for height in (101, 102, 105):  # 103 and 104 were quiet
        past.keep(kept(height))
    assert heights(past.after(100)) == [101, 102, 105] and past.after(99) is None
    assert heights(past.after(103)) == [105] and heights(past.after(200)) == []


def test_the_past_does_not_lead_over_a_gap():
    past = Past()
    for height in (1, 2, 3):
        past.keep(kept(height, whole=height != 2))
    assert past.after(1) is None and heights(past.after(2)) == [3]


@pytest.mark.parametrize("bound", ["KEPT_BLOCKS", "KEPT_BYTES"])
def test_the_past_is_bounded(bound, monkeypatch):
    monkeypatch.setattr(check, bound, 5 if bound == "KEPT_BLOCKS" else 5 * EVENT.itemsize)
    past = Past()
    for height in range(1, 21):
        past.keep(kept(height, count=1))
    assert len(past.blocks) == 5 and past.after(14) is None and len(past.after(15)) == 5
    past.begin(50)
    assert past.after(49) is None and past.after(50) == []
