"""Every answer of /info, from a world in which all kinds of orders, fills and markets are."""

import json

import pytest

from gateway import schema
from gateway.errors import NotNow, Refusal
from gateway.info import Info
from gateway.world import World as Mapped
from shm import codes, seqlock
from tests.world import ALICE, BOB, CAROL, NOBODY, World

CLOID, OTHER_CLOID, REFUSED_CLOID = ("0x" + digits * 16 for digits in ("12", "13", "14"))
START_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def world():
    world = World()
    with world.block() as block:
        world.market("PURR/USDC", codes.MarketKind.SPOT, size_decimals=0)
        world.market("@107", codes.MarketKind.SPOT, size_decimals=2)
        world.market("xyz:NVDA", codes.MarketKind.BUILDER, size_decimals=3)
        block.open("BTC", ALICE, "B", "100", "1", 1, cloid=CLOID)
        block.open("BTC", BOB, "A", "101", "2", 2)
        block.open("BTC", ALICE, "B", "99", "1", 3, cloid=OTHER_CLOID)
        block.open(
            "BTC", ALICE, "A", "90", "1", 4, state=codes.OrderState.UNTRIGGERED, trigger_px="95",
            condition=codes.Condition.BELOW, flags=codes.Flag.IS_TRIGGER, order_type="Stop Market", tif="",
        )  # fmt: skip
        block.open("xyz:NVDA", ALICE, "B", "10", "1", 5)
        block.open("xyz:NVDA", ALICE, "A", "12", "1", 6)
        block.status("BTC", ALICE, "B", "1", "1", 7, "badAloPxRejected", cloid=REFUSED_CLOID)
    with world.block() as block:
        block.remove(3)
        for tid in range(12):
            block.trade("BTC", ALICE, BOB, "B", "101", "0.1", tid=tid)
    with world.block() as block:
        block.trade("BTC", ALICE, BOB, "A", "100", "0.1", tid=12)
    return world


@pytest.fixture
def ask(world):
    info = Info()
    info.world = Mapped(world.reader())
    return lambda **request: json.loads(info.answer(json.dumps(request).encode()))


def test_the_universe_is_the_perps_in_the_order_of_their_rows(ask):
    assert ask(type="meta", dex="") == ask(type="meta") == ask(type="meta", dex=None)
    assert [asset["name"] for asset in ask(type="meta")["universe"]] == ["BTC"]
    assert [asset["name"] for asset in ask(type="meta", dex="xyz")["universe"]] == ["xyz:NVDA"]
    assert ask(type="meta", dex="nope") is None
    metas, dexs = ask(type="allPerpMetas"), ask(type="perpDexs")
    assert len(metas) == len(dexs) == 2
    assert (dexs[0], dexs[1]["name"]) == (None, "xyz")


def test_every_token_that_a_pair_names_is_there(ask):
    meta = ask(type="spotMeta")
    tokens = {token["index"]: token for token in meta["tokens"]}
    assert [(pair["name"], pair["index"]) for pair in meta["universe"]] == [("PURR/USDC", 0), ("@107", 107)]
    for pair in meta["universe"]:
        base, quote = pair["tokens"]
        assert tokens[quote]["name"] == "USDC"
        assert tokens[base]["szDecimals"] in (0, 2)


def test_contexts_are_as_many_as_assets_and_hold_the_mid(ask):
    meta, contexts = ask(type="metaAndAssetCtxs")
    assert len(contexts) == len(meta["universe"]) == 1
    assert (contexts[0]["midPx"], contexts[0]["premium"]) == ("100.5", None)
    meta, contexts = ask(type="spotMetaAndAssetCtxs")
    assert [context["coin"] for context in contexts] == [pair["name"] for pair in meta["universe"]]
    assert contexts[0]["midPx"] is None


def test_the_nodes_own_description_is_passed_on(world):
    meta, spot = {"universe": [{"name": "BTC", "szDecimals": 5}]}, {"universe": [], "tokens": []}
    info = Info(meta)
    info.world = Mapped(world.reader())
    assert json.loads(info.answer(b'{"type":"meta"}')) == meta
    info.learn({"not": "one"}, spot)
    assert json.loads(info.answer(b'{"type":"meta"}')) == meta
    assert json.loads(info.answer(b'{"type":"spotMeta"}')) == spot


def test_mids_of_each_dex(ask):
    assert ask(type="allMids") == {"BTC": "100.5"}
    assert ask(type="allMids", dex="xyz") == {"xyz:NVDA": "11.0"}


def test_a_book_and_one_in_buckets(ask):
    book = ask(type="l2Book", coin="BTC")
    assert book["levels"] == [[{"px": "100.0", "sz": "1.0", "n": 1}], [{"px": "101.0", "sz": "2.0", "n": 1}]]
    assert "spread" not in book
    book = ask(type="l2Book", coin="BTC", nSigFigs=2, mantissa=None)
    assert book["levels"][1] == [{"px": "110.0", "sz": "2.0", "n": 1}]
    assert book["spread"] == "10.0"
    assert ask(type="l2Book", coin="NOPE") is None


def test_recent_trades_newest_first(ask):
    assert [trade["tid"] for trade in ask(type="recentTrades", coin="BTC")] == list(range(12, 2, -1))
    assert ask(type="recentTrades", coin="NOPE") == []


def test_open_orders_in_both_forms(ask):
    assert [order["oid"] for order in ask(type="openOrders", user=ALICE)] == [1, 4]
    assert [order["oid"] for order in ask(type="openOrders", user=ALICE, dex="xyz")] == [5, 6]
    orders = ask(type="frontendOpenOrders", user=ALICE.upper().replace("X", "x"))
    assert [order["triggerCondition"] for order in orders] == ["N/A", "Price below 95"]
    assert ask(type="openOrders", user=NOBODY) == []


def test_the_children_of_an_order_are_listed_twice():
    """And under a dex that has none of them, not at all; the shorter form knows no children."""
    own, info = World(), Info()
    with own.block() as block:
        own.market("xyz:NVDA", codes.MarketKind.BUILDER, size_decimals=3)
        block.open("BTC", ALICE, "B", "100", "1", 1, group=1)
        stop = {
            "state": codes.OrderState.UNTRIGGERED, "trigger_px": "95", "condition": codes.Condition.BELOW,
            "flags": codes.Flag.IS_TRIGGER, "order_type": "Stop Market", "tif": "",
        }  # fmt: skip
        block.open("BTC", ALICE, "A", "90", "1", 2, cloid=CLOID, group=1, **stop)
        block.open("xyz:NVDA", ALICE, "B", "10", "1", 3)
    info.world = Mapped(own.reader())

    def ask(**request):
        return json.loads(info.answer(json.dumps(request | {"user": ALICE}).encode()))

    parent, child = ask(type="frontendOpenOrders")
    assert (parent["oid"], child["oid"], parent["children"]) == (1, 2, [child])
    assert [order["children"] for order in ask(type="frontendOpenOrders", dex="xyz")] == [[]]
    assert [order["oid"] for order in ask(type="openOrders")] == [1, 2]
    for named in 2, CLOID:
        assert ask(type="orderStatus", oid=named)["order"] == {
            "order": child, "status": "open", "statusTimestamp": child["timestamp"]
        }  # fmt: skip


@pytest.mark.parametrize(
    ("oid", "found"),
    [
        (1, "open"),
        (4, "open"),
        (3, "canceled"),
        (7, "badAloPxRejected"),
        (CLOID, "open"),
        (OTHER_CLOID, "canceled"),
        (REFUSED_CLOID, "badAloPxRejected"),
        (2, None),  # another's
        (999, None),
        ("0x" + "99" * 16, None),
    ],
)
def test_an_order_is_found_wherever_it_is(ask, oid, found):
    answer = ask(type="orderStatus", user=ALICE, oid=oid)
    if found is None:
        assert answer == {"status": "unknownOid"}
        return
    assert (answer["status"], answer["order"]["status"]) == ("order", found)
    order = answer["order"]["order"]
    assert oid in (order["oid"], order["cloid"])
    assert answer["order"]["statusTimestamp"] >= START_MS


def test_fills_newest_first_and_by_time(ask):
    assert [fill["tid"] for fill in ask(type="userFills", user=ALICE)] == list(range(12, -1, -1))
    by_time = {"type": "userFillsByTime", "user": ALICE}
    assert [fill["tid"] for fill in ask(**by_time, startTime=0)] == list(range(13))
    assert [fill["tid"] for fill in ask(**by_time, startTime=START_MS + 300, endTime=None)] == [12]
    assert len(ask(**by_time, startTime=0, endTime=START_MS + 200)) == 12
    assert ask(**by_time, startTime=0, reversed=True)[0]["tid"] == 12
    assert ask(type="userFills", user=NOBODY) == []


def test_what_the_logs_do_not_hold_is_empty_and_well_formed(ask):
    state = ask(type="clearinghouseState", user=CAROL)
    assert (state["marginSummary"]["accountValue"], state["assetPositions"]) == ("0.0", [])
    assert state["time"] == START_MS + 300
    assert ask(type="spotClearinghouseState", user=CAROL) == {"balances": []}
    assert ask(type="outcomeMeta") == {"outcomes": [], "questions": []}
    assert ask(type="exchangeStatus") == {"time": START_MS + 300, "specialStatuses": None}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"\xff", b"null", b'{"type":"nope"}', b'{"type":"l2Book"}', b'{"type":1}',
        b'{"type":"openOrders","user":"0x12"}', b'{"type":"orderStatus","user":"%s"}' % ALICE.encode(),
        b'{"type":"l2Book","coin":"BTC","nSigFigs":9}', b"[" * 100_000, b'{"type":"allMids","\xff":1}',
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(world, body):
    info = Info()
    info.world = Mapped(world.reader())
    with pytest.raises(Refusal):
        info.answer(body)


def test_without_a_world_it_is_too_early():
    with pytest.raises(NotNow):
        Info().answer(b'{"type":"meta"}')
    said = []
    Info().post(b'{"type":"meta"}', lambda *answer: said.append(answer))
    ((kind, payload),) = said
    assert (kind, json.loads(payload)) == ("error", "503 Service Unavailable: not ready: no market data yet")


def test_an_engine_at_work_is_not_waited_for(world):
    info = Info()
    info.world = Mapped(world.reader())
    rows = [world.status[0], world.arrays["accounts"][world.accounts[ALICE]]]
    for row in rows:
        seqlock.open_row(row)
    try:
        for request in ({"type": "openOrders"}, {"type": "orderStatus", "oid": 1}):
            with pytest.raises(NotNow):
                info.answer(json.dumps({**request, "user": ALICE}).encode())
    finally:
        for row in rows:
            seqlock.close_row(row)


def test_every_request_of_the_schema_has_its_answer():
    answered = Info()._answers_of_exchange
    assert answered.keys() == set(schema.InfoRequest.__args__)
