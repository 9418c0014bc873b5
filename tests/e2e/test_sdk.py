"""Existing clients, unchanged: the published Python SDK, and the rules by which the TypeScript one matches.

The recorded log is written while they listen. What they are told of a user is what the log says of him.
"""

import json
import time
import urllib.error
from contextlib import closing

import pytest
from hyperliquid.info import Info
from hyperliquid.utils.types import Cloid
from websockets.sync.client import connect

from tests import recorded, reference_book
from tests.e2e import node_log
from tests.e2e.instance import Instance

pytestmark = pytest.mark.timeout(280)

MAKER = "0x17c3c8fdbcb7d1b240ce08965e09b1fc91cba868"  # six fills of one resting order
TRADER = "0x0fd468a73084daa6ea77a9261e40fdec3e67e0c7"  # orders come, go, and are refused
NOBODY = "0x" + "12" * 20
OF_A_COIN = ("l2Book", "trades", "bbo")
OF_A_USER = {"orderUpdates": TRADER, "userFills": MAKER, "userEvents": MAKER}
CHANNELS = {"userEvents": "user"}  # of a subscription whose channel has another name


class Listening:
    """The SDK's Info with one subscription of each kind, and what its callbacks were given."""

    def __init__(self, url):
        self.info = Info(url)
        self.heard = {}
        wanted = [{"type": kind, "coin": "BTC"} for kind in OF_A_COIN]
        wanted += [{"type": kind, "user": user} for kind, user in OF_A_USER.items()] + [{"type": "allMids"}]
        for subscription in wanted:
            self.heard[subscription["type"]] = messages = []
            self.info.subscribe(subscription, messages.append)

    def data(self, kind):
        messages = list(self.heard[kind])
        assert {message["channel"] for message in messages} == {CHANNELS.get(kind, kind)}
        return [message["data"] for message in messages]

    def close(self):
        self.info.disconnect_websocket()


@pytest.fixture(scope="module")
def played(story, tmp_path_factory):
    """An instance that has followed the whole log, and an SDK that has listened to it."""
    folder = tmp_path_factory.mktemp("sdk")
    with Instance(folder, "--snapshot", str(story.snapshot)) as ringside:
        with closing(Listening(ringside.url)) as sdk:
            ringside.wait(
                lambda: all(map(sdk.heard.get, ("l2Book", "bbo", "allMids", "userFills"))), "snapshots"
            )
            for pieces in node_log.blocks(story.logs["by_block"], "by_block").values():
                node_log.append(ringside.node_data, pieces)
                time.sleep(0.01)
            ringside.wait_for_height(recorded.LAST_HEIGHT)
            ringside.wait(lambda: len(fills_told(sdk)) >= 6, "six fills")
            ringside.wait(lambda: len(sdk.heard["trades"]) >= 11, "eleven trades")
            yield ringside, sdk


@pytest.fixture
def ringside(played):
    return played[0]


@pytest.fixture
def sdk(played):
    return played[1]


@pytest.fixture
def info(sdk):
    return sdk.info


@pytest.fixture(scope="module")
def statuses(story):
    """All order statuses of the log, in its order."""
    blocks = reference_book.read_blocks(story.logs["by_block"], "by_block")
    return [status for block in blocks for status in block["order_statuses"]]


@pytest.fixture(scope="module")
def fills(story):
    """What the log says of the maker's fills, oldest first."""
    blocks = reference_book.read_blocks(story.logs["by_block"], "by_block")
    return [fill for block in blocks for user, fill in block["fills"] if user == MAKER]


def fills_told(sdk):
    return [fill for data in sdk.data("userFills") for fill in data["fills"]]


# --- what is asked ------------------------------------------------------------------------------------------


def test_the_sdk_knows_the_markets(info):
    assert info.name_to_coin["BTC"] == "BTC" and info.coin_to_asset["BTC"] == 0
    assert info.meta()["universe"][0]["name"] == "BTC"
    assert info.spot_meta()["universe"] == [] and info.spot_meta()["tokens"][0]["name"] == "USDC"
    assert [len(part) for part in (info.meta_and_asset_ctxs(), info.meta_and_asset_ctxs()[1])] == [2, 1]


def test_books_and_mids(info, story):
    book = info.l2_snapshot("BTC")
    told = [[(level["px"], level["sz"], level["n"]) for level in side] for side in book["levels"]]
    assert told == story.end.levels("BTC", 20)
    assert info.all_mids() == {"BTC": "81307.5"}


def test_an_unknown_user_is_no_error(info):
    state = info.user_state(NOBODY)
    assert state["assetPositions"] == [] and state["marginSummary"]["accountValue"] == "0.0"
    assert info.open_orders(NOBODY) == info.frontend_open_orders(NOBODY) == info.user_fills(NOBODY) == []
    assert info.query_order_by_oid(NOBODY, 1) == {"status": "unknownOid"}


@pytest.mark.parametrize("user", [MAKER, TRADER])
def test_open_orders_are_those_of_the_book(info, story, user):
    open_now = story.end.open_orders(user)
    assert open_now
    assert {order["oid"]: order["sz"] for order in info.open_orders(user)} == {
        oid: order["sz"] for oid, order in open_now.items()
    }
    for order in info.frontend_open_orders(user):
        wanted = open_now[order["oid"]]
        shared = order.keys() & wanted.keys() - {"limitPx", "sz", "triggerPx"}
        assert {key: order[key] for key in shared} == {key: wanted[key] for key in shared}
        assert {
            "triggerCondition",
            "isTrigger",
            "children",
            "reduceOnly",
            "orderType",
            "tif",
            "cloid",
        } <= shared


def test_orders_are_found_by_their_number_and_by_the_clients_name(info, story, statuses):
    resting = next(order for order in story.end.orders.values() if order["cloid"])
    rejected = next(status for status in statuses if status["status"] == "badAloPxRejected")
    cancelled = next(s for s in reversed(statuses) if s["status"] == "canceled" and s["order"]["cloid"])
    for user, order, status in [
        (resting["user"], resting, "open"),
        (rejected["user"], rejected["order"], "badAloPxRejected"),
        (cancelled["user"], cancelled["order"], "canceled"),
    ]:
        for found in [
            info.query_order_by_oid(user, order["oid"]),
            info.query_order_by_cloid(user, Cloid.from_str(order["cloid"])),
        ]:
            assert found["status"] == "order"
            assert (found["order"]["status"], found["order"]["order"]["oid"]) == (status, order["oid"])


def test_fills_are_those_of_the_log_newest_first(info, fills):
    assert len(fills) == 6
    assert info.user_fills(MAKER) == fills[::-1]
    assert info.user_fills(MAKER.upper().replace("0X", "0x")) == fills[::-1]
    assert info.user_fills_by_time(MAKER, fills[1]["time"], fills[4]["time"]) == fills[1:5]


# --- what is told -------------------------------------------------------------------------------------------


def test_books_trades_and_mids_are_told(sdk, story):
    assert len(sdk.data("l2Book")) > 10 and len(sdk.data("bbo")) > 5
    last = sdk.data("l2Book")[-1]["levels"]
    assert [[(o["px"], o["sz"], o["n"]) for o in side] for side in last] == story.end.levels("BTC", 20)
    assert [trade for batch in sdk.data("trades") for trade in batch] == story.end.trades
    assert sdk.data("allMids")[-1] == {"mids": {"BTC": "81307.5"}}


def test_a_users_fills_are_told_by_two_channels(sdk, fills):
    first, *later = sdk.data("userFills")
    assert first == {"user": MAKER, "fills": [], "isSnapshot": True}
    assert all(data["user"] == MAKER and not data.get("isSnapshot") for data in later)
    assert fills_told(sdk) == fills
    assert [fill for data in sdk.data("userEvents") for fill in data["fills"]] == fills


def test_a_users_orders_are_told_as_the_log_says(sdk, statuses):
    told = [update for data in sdk.data("orderUpdates") for update in data]
    wanted = [status for status in statuses if status["user"] == TRADER]
    assert [(u["order"]["oid"], u["status"], u["statusTimestamp"]) for u in told] == [
        (s["order"]["oid"], s["status"], reference_book.milliseconds(s["time"])) for s in wanted
    ]
    for update, status in zip(told, wanted, strict=True):
        order = status["order"]
        assert all(update["order"][key] == order[key] for key in ("coin", "side", "limitPx", "oid", "origSz"))
    assert {update["status"] for update in told} == {"open", "canceled", "iocCancelRejected"}


# --- the rules of the TypeScript client ---------------------------------------------------------------------

ECHOED = [
    {"type": "l2Book", "coin": "BTC", "nSigFigs": None, "mantissa": None},
    {"type": "l2Book", "coin": "BTC", "nSigFigs": 5, "mantissa": 2, "fast": True},
    {"type": "openOrders", "user": MAKER, "dex": ""},
    {"type": "userFills", "user": MAKER, "aggregateByTime": False},
    {"type": "orderUpdates", "user": MAKER},
    {"type": "trades", "coin": "BTC"},
]


def test_an_echo_holds_every_key_that_was_sent(ringside):
    with connect(f"ws://127.0.0.1:{ringside.port}/ws", max_size=None) as socket:
        for method in ("subscribe", "unsubscribe"):
            for wanted in ECHOED:
                socket.send(json.dumps({"method": method, "subscription": wanted}))
                echo = next_of(socket, "subscriptionResponse")
                assert echo["method"] == method
                assert wanted.items() <= echo["subscription"].items()


def test_mistakes_are_answered_and_the_connection_goes_on(ringside):
    wanted = {"type": "trades", "coin": "BTC"}
    unknown = {"type": "trades", "coin": "NONE"}
    with connect(f"ws://127.0.0.1:{ringside.port}/ws", max_size=None) as socket:
        for message, prefix in [
            ({"method": "unsubscribe", "subscription": wanted}, "Already unsubscribed: {"),
            ({"method": "subscribe", "subscription": unknown}, "Invalid subscription"),
            ({"method": "subscribe", "subscription": {"type": "none"}}, "Error parsing JSON"),
            ({"method": "none"}, "Error parsing JSON into valid websocket request: {"),
        ]:
            socket.send(json.dumps(message))
            error = next_of(socket, "error")
            assert error.startswith(prefix)
            json.loads(error[error.index("{") :])  # clients read what is in the braces
        socket.send('{"method":"ping"}')
        assert next_of(socket, "pong") is None


def test_posts_are_answered_by_their_number(ringside, fills):
    with connect(f"ws://127.0.0.1:{ringside.port}/ws", max_size=None) as socket:
        asked = {"type": "info", "payload": {"type": "userFills", "user": MAKER}}
        socket.send(json.dumps({"method": "post", "id": 7, "request": asked}))
        payload = {"type": "userFills", "data": fills[::-1]}
        assert next_of(socket, "post") == {"id": 7, "response": {"type": "info", "payload": payload}}
        order = {"type": "action", "payload": {"action": {"type": "noop"}, "nonce": 1, "signature": {}}}
        socket.send(json.dumps({"method": "post", "id": 8, "request": order}))
        answer = next_of(socket, "post")
        assert answer["id"] == 8 and answer["response"]["payload"]["status"] == "err"


def test_orders_are_refused_in_the_wires_form(ringside):
    signature = {"r": "0x1", "s": "0x1", "v": 27}
    answer = ringside.post("/exchange", {"action": {"type": "noop"}, "nonce": 1, "signature": signature})
    assert answer["status"] == "err" and isinstance(answer["response"], str)
    with pytest.raises(urllib.error.HTTPError, match="422"):
        ringside.info({"type": "none"})


def next_of(socket, channel):
    """The data of the next message of a channel, None if it has none; others are passed over."""
    while True:
        message = json.loads(socket.recv(20))
        if message["channel"] == channel:
            return message.get("data")
