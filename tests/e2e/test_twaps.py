"""An order in slices over time on an exchange of our own, from the signed action to its terminated entry."""

import time
from contextlib import ExitStack

import pytest
from hyperliquid.utils.signing import sign_l1_action

from tests.e2e.client import Client
from tests.e2e.instance import Exchange, until
from tests.e2e.test_exchange_sdk import IOC, Trader, statuses

pytestmark = pytest.mark.timeout(280)

NO_HASH = "0x" + "00" * 32
CHANNELS = ("userTwapHistory", "userTwapSliceFills", "twapStates", "userEvents")


@pytest.fixture
def market(tmp_path):
    with Exchange(tmp_path) as market:
        yield market


@pytest.fixture
def traders(market):
    """Alice, with an ear on her TWAPs; and Bob, who has sold her one ETH at 3500 and asks that for more."""
    with ExitStack() as stack:
        alice, bob = Trader(market, stack), Trader(market, stack)
        streams = ({"type": kind, "user": alice.address} for kind in CHANNELS)
        ear = stack.enter_context(Client(market.port, *streams))
        until(lambda: len(ear.of("subscriptionResponse")) == len(CHANNELS), "subscriptions")
        bob.rests("ETH", False, 10, 3500)
        assert "filled" in statuses(alice.sdk.order("ETH", True, 1, 3500, IOC))[0]
        yield alice, bob, ear


def send(trader, action):
    """Post a signed action, for which the SDK has no method; its status."""
    nonce = int(time.time() * 1000)
    signature = sign_l1_action(trader.wallet, action, None, nonce, None, False)
    answer = trader.sdk._post_action(action, signature, nonce)
    assert answer["status"] == "ok" and answer["response"]["type"] == action["type"], answer
    return answer["response"]["data"]["status"]


def twap(trader, **more):
    """Ask for a tenth of an ETH in ten slices."""
    asset = trader.info.name_to_asset("ETH")
    facts = {"a": asset, "b": True, "s": "0.1", "r": False, "m": 5, "t": False}
    return {"type": "twapOrder", "twap": facts | more}


def told(ear, channel, key):
    """What a channel's list has told after its snapshot."""
    return [each for data in ear.of(channel) if not data.get("isSnapshot") for each in data.get(key, ())]


def ask(trader, kind):
    return trader.info.post("/info", {"type": kind, "user": trader.address})


def test_a_twap_buys_slice_after_slice_until_it_is_cancelled(traders):
    alice, bob, ear = traders
    assert send(alice, twap(alice, m=4)) == {"error": "Invalid TWAP duration: 4 min(s)"}
    assert send(alice, twap(alice, s="0.01")) == {
        "error": "TWAP order value too small. Min is $50, which is $10 per minute."
    }
    id = send(alice, twap(alice))["running"]["twapId"]
    until(lambda: len(told(ear, "userTwapSliceFills", "twapSliceFills")) >= 2, "two slices")
    asset = alice.info.name_to_asset("ETH")
    assert send(alice, {"type": "twapCancel", "a": asset, "t": id}) == "success"
    until(lambda: len(told(ear, "userTwapHistory", "history")) == 2, "its end on the stream")
    slices = ask(alice, "userTwapSliceFills")
    assert (
        slices
        == told(ear, "userTwapSliceFills", "twapSliceFills")[::-1]
        == ask(alice, "userTwapSliceFillsByTime")[::-1]
    )
    for entry in slices:
        fill = entry["fill"]
        assert (entry["twapId"], fill["twapId"], fill["hash"], fill["crossed"]) == (id, id, NO_HASH, True)
        assert (fill["coin"], fill["side"], fill["px"], fill["sz"]) == ("ETH", "B", "3500.0", "0.01")
        status = alice.info.query_order_by_oid(alice.address, fill["oid"])["order"]
        assert (status["status"], status["order"]["orderType"]) == ("filled", "Twap Slice")
    maker = bob.info.user_fills(bob.address)[0]
    assert maker["twapId"] is None and maker["hash"] != NO_HASH and maker["tid"] == slices[0]["fill"]["tid"]
    _is_history(ear, alice, id, slices)
    gone = {"error": "TWAP was never placed, already canceled, or filled."}
    assert send(alice, {"type": "twapCancel", "a": asset, "t": id}) == gone


def _is_history(ear, alice, id, slices):
    """Its beginning and its end, everywhere the same; and nothing runs any more."""
    history = ask(alice, "twapHistory")
    assert [(entry["twapId"], entry["status"]["status"]) for entry in history] == [
        (id, "terminated"), (id, "activated"),
    ]  # fmt: skip
    last = history[0]["state"]
    assert (last["coin"], last["user"], last["sz"], last["minutes"]) == ("ETH", alice.address, "0.1", 5)
    assert float(last["executedSz"]) == pytest.approx(0.01 * len(slices))
    assert float(last["executedNtl"]) == pytest.approx(35 * len(slices))
    assert told(ear, "userTwapHistory", "history") == history[::-1]
    assert told(ear, "user", "twapHistory") == history[::-1]
    assert told(ear, "user", "twapSliceFills") == slices[::-1]
    until(lambda: ear.of("twapStates")[-1]["states"] == [], "no state on the stream")
    running = [data["states"] for data in ear.of("twapStates") if data["states"]]
    assert {states[0][0] for states in running} == {id} and running[-1][0][1] == last
    assert ask(alice, "webData2")["twapStates"] == []


def test_a_twap_goes_on_although_its_engine_was_killed(market, traders):
    alice, _, _ = traders
    id = send(alice, twap(alice))["running"]["twapId"]
    until(lambda: len(ask(alice, "userTwapSliceFills")) == 1, "a slice")
    before = ask(alice, "webData2")["twapStates"]
    killed = market.kill("engine")
    until(lambda: market.pid("engine") != killed and market.health()["state"] == "live", "a new engine")
    assert ask(alice, "webData2")["twapStates"] == before
    until(lambda: len(ask(alice, "userTwapSliceFills")) == 2, "the next slice")
    assert len({entry["fill"]["oid"] for entry in ask(alice, "userTwapSliceFills")}) == 2
    ((running, state),) = ask(alice, "webData2")["twapStates"]
    assert running == id and float(state["executedSz"]) == pytest.approx(0.02)
