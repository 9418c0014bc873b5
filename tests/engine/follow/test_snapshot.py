"""Reading an L4 snapshot: every order in its place, other forms, damage; and reading up to the edge of
memory.
"""

import json
import random
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from engine.follow import snapshot
from engine.follow.records import Corrupt, Why
from shm import codes, layout
from tests import recorded
from tests.engine.follow import node_text
from tests.engine.follow.test_parse import ALICE, BOB, order_text

BID, ASK = (
    order_text(side="B", price="99.0"),
    order_text(side="A", price="101.0", oid=10, cloid="0x" + "c1" * 16),
)
STOP = order_text(
    side="A", price="90.0", oid=11, triggerCondition="Price below 95.0", isTrigger=True, triggerPx="95.0",
    orderType="Stop Market", tif=None, reduceOnly=True,
)  # fmt: skip


def listed(*pairs):
    return "[" + ",".join(f'["{user}",{order}]' for user, order in pairs) + "]"


def market_text(bids="[]", asks="[]", coin="BTC"):
    return f'["{coin}",[{bids},{asks}]]'


def snapshot_text(*markets, height=5):
    return f"[{height},[{','.join(markets)}]]".encode()


def example():
    bids, asks = listed((ALICE, BID), (BOB, BID)), listed((ALICE, ASK), (BOB, STOP))
    return snapshot_text(
        market_text(bids, asks), market_text(coin="ETH"), market_text(bids.replace("BTC", "@1"), coin="@1")
    )


def test_nothing_of_a_recorded_snapshot_is_lost(tmp_path):
    raw, tables = recorded.snapshot_path(tmp_path).read_bytes(), node_text.shared()
    height, orders, rows = snapshot.parse_snapshot(raw, tables)
    assert (height, rows, len(orders)) == (recorded.FIRST_HEIGHT - 1, [0], 51_351)
    ((_, sides),) = msgspec.json.decode(raw)[1]
    pairs = sides[0] + sides[1]
    for row, (user, order) in zip(orders, pairs, strict=True):
        del order["children"]
        assert node_text.order(row, tables) == msgspec.json.encode(order).decode()
        assert bytes(tables.accounts[row["account"]]["address"]).hex() == user[2:]
    assert tables.markets[0]["size_decimals"] == 5


def test_every_market_is_named_and_every_order_stands_in_the_files_order():
    tables = node_text.shared()
    height, orders, rows = snapshot.parse_snapshot(example(), tables)
    assert (height, orders["order"].tolist()) == (5, [9, 9, 10, 11, 9, 9])
    assert [node_text.text_of(tables.markets[row]["name"]) for row in rows] == ["BTC", "ETH", "@1"]
    assert orders["market"].tolist() == [rows[0]] * 4 + [rows[2]] * 2
    assert orders["side"].tolist() == [0, 0, 1, 1, 0, 0]
    resting, waiting = codes.OrderState.RESTING, codes.OrderState.UNTRIGGERED
    assert orders["state"].tolist() == [resting, resting, resting, waiting, resting, resting]
    for field in ("prior", "next", "account_prior", "account_next"):
        assert (orders[field] == layout.NO_SLOT).all()


@pytest.mark.parametrize("text", [snapshot_text(), snapshot_text(market_text()), snapshot_text() + b"\n"])
def test_a_snapshot_may_hold_nothing(text):
    height, orders, rows = snapshot.parse_snapshot(text, node_text.shared())
    assert (height, len(orders)) == (5, 0)
    assert len(rows) == text.count(b"BTC")


def test_a_snapshot_without_its_height_is_given_one():
    tables = node_text.shared()
    _, expected, rows = snapshot.parse_snapshot(example(), tables)
    bare = example()[len(b"[5,") : -1]
    height, orders, same_rows = snapshot.parse_snapshot(bare, tables, height=8)
    assert (height, rows) == (8, same_rows)
    assert (orders == expected).all()
    with pytest.raises(Corrupt, match="no height"):
        snapshot.parse_snapshot(bare, tables)


@pytest.mark.parametrize("bare", [False, True])
def test_an_unusual_form_is_read_the_same(bare):
    tables = node_text.shared()
    _, expected, rows = snapshot.parse_snapshot(example(), tables)
    value = json.loads(example())
    for _, sides in value[1]:
        for side in sides:
            for pair in side:
                pair[1] = dict(reversed(pair[1].items()))
    text = json.dumps(value[1] if bare else value).encode()
    height, orders, same_rows = snapshot.parse_snapshot(text, tables, height=5 if bare else None)
    assert (height, rows) == (5, same_rows)
    assert (orders == expected).all()


def test_more_orders_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(snapshot, "ORDER_BYTES_MIN", 10**6)
    bids = listed(*[(ALICE, order_text(oid=oid)) for oid in range(100)])
    orders = snapshot.parse_snapshot(snapshot_text(market_text(bids)), node_text.shared())[1]
    assert orders["order"].tolist() == list(range(100))


def test_damage_is_told_with_the_place_of_the_order():
    raw = example().replace(b'"oid":10', b'"oid":-1')
    with pytest.raises(Corrupt) as caught:
        snapshot.parse_snapshot(raw, node_text.shared())
    assert raw[caught.value.offset :].startswith(
        listed((ALICE, ASK)).replace('"oid":10', '"oid":-1')[1:-1].encode()
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"coin":"@1"', b'"coin":"@2"'), (b'"side":"B"', b'"side":"A"'), (b"@1", b""), (b"]]]", b"]]"),
        (b"[5,", b"[-5,"), (b"[5,", b"[-1,"), (b"[5,", b"[5.5,"), (b'"99.0"', b'"9e9"'),
        (b"ETH", b"E\\u0000"), (b"0xa1", b"0xg1"),
    ],
)  # fmt: skip
def test_a_damaged_snapshot_is_corrupt(old, new):
    with pytest.raises(Corrupt):
        snapshot.parse_snapshot(example().replace(old, new), node_text.shared(), height=5)


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[" * 10**6, b"[5,[]", b"\xff[5,[]]", b"[5,[]]]", b'[5,["BTC"]]']
)
def test_anything_else_is_corrupt(raw):
    with pytest.raises(Corrupt):
        snapshot.parse_snapshot(np.frombuffer(raw, np.uint8), node_text.shared())


def test_a_full_table_of_markets_is_told():
    text = snapshot_text(*(market_text(coin=f"C{i}") for i in range(3)))
    with pytest.raises(Corrupt) as caught:
        snapshot.parse_snapshot(text, node_text.shared(markets=2))
    assert caught.value.why == Why.CAPACITY


def test_wounds_are_read_as_the_general_decode_reads_them_or_refused(monkeypatch):
    """The kernel, whose answer `_generally` would otherwise hide, gives the same orders as that."""
    chance, tables = random.Random(11), node_text.shared(names=1 << 13, markets=1 << 10)
    general, read = snapshot._generally, 0
    monkeypatch.setattr(snapshot, "_generally", lambda *_: (0, None, None))
    for _ in range(400):
        raw = example()
        at = chance.randrange(len(raw))
        raw = raw[:at] + chance.choice((b"", b"0", b'"', b"9", b"]", b"a", b",[]")) + raw[at + 1 :]
        height, orders, rows = snapshot.parse_snapshot(raw, tables)
        if orders is not None:
            read += 1
            expected = general(raw, tables, None, 0)
            assert (height, rows) == (expected[0], expected[2])
            assert (orders == expected[1]).all()
    assert read > 20


def test_no_kernel_reads_behind_the_end_of_its_text():
    """The text ends where a page ends, behind which lies memory that may not be read: a step too far is
    fatal.
    """
    command = [sys.executable, "-m", "tests.engine.follow.edge_of_memory"]
    done = subprocess.run(command, cwd=recorded.ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "stayed inside\n"), done.stderr


def test_no_kernel_reads_outside_of_its_arrays(pytestconfig, tmp_path):
    if not pytestconfig.getoption("--soak"):
        pytest.skip("compiles every kernel with bounds checks: with --soak")
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.engine.follow.edge_of_memory"]
    done = subprocess.run(command, cwd=recorded.ROOT, capture_output=True, text=True, env=checked)
    assert (done.returncode, done.stdout) == (0, "stayed inside\n"), done.stderr
