"""What the published Python SDK, unchanged, is told of accounts, contexts and candles while others trade."""

from contextlib import closing
from decimal import Decimal

import pytest
from hyperliquid.info import Info

from tests.e2e.instance import Exchange

pytestmark = pytest.mark.timeout(280)

COIN = "BTC"
OF_A_USER = ("webData2", "userFundings", "userNonFundingLedgerUpdates")


class Listening:
    """The SDK's Info, one of the traders, and what the callbacks of each channel were given of him."""

    def __init__(self, exchange):
        self.info = Info(exchange.url)
        self.user = exchange.wait(self._trader, "a trader")
        self.heard = {}
        wanted = [{"type": kind, "user": self.user} for kind in OF_A_USER]
        wanted.append({"type": "activeAssetData", "user": self.user, "coin": COIN})
        wanted.append({"type": "activeAssetCtx", "coin": COIN})
        wanted.append({"type": "candle", "coin": COIN, "interval": "1h"})
        for subscription in wanted:
            self.heard[subscription["type"]] = messages = []
            self.info.subscribe(subscription, messages.append)

    def _trader(self):
        trades = self.info.post("/info", {"type": "recentTrades", "coin": COIN})
        return trades and trades[0]["users"][0]

    def data(self, kind):
        return [message["data"] for message in list(self.heard[kind])]

    def close(self):
        self.info.disconnect_websocket()


@pytest.fixture(scope="module")
def sdk(tmp_path_factory):
    with Exchange(tmp_path_factory.mktemp("accounts"), simulation=True) as exchange:
        with closing(Listening(exchange)) as sdk:
            often = ("webData2", "activeAssetData", "activeAssetCtx", "candle")
            exchange.wait(lambda: all(len(sdk.heard[kind]) > 1 for kind in often), "updates")
            exchange.wait(lambda: all(sdk.heard.values()), "a first message on each channel")
            yield sdk


def test_an_account_adds_up_wherever_it_is_told(sdk):
    states = [sdk.info.user_state(sdk.user), *(data["clearinghouseState"] for data in sdk.data("webData2"))]
    for state in states:
        told = {key: Decimal(text) for key, text in state["marginSummary"].items()}
        positions = [item["position"] for item in state["assetPositions"]]
        values = {
            p["coin"]: Decimal(p["positionValue"]) * (-1 if p["szi"][0] == "-" else 1) for p in positions
        }
        assert told["accountValue"] == told["totalRawUsd"] + sum(values.values())
        assert told["totalNtlPos"] == sum(map(abs, values.values()))
        assert 0 <= Decimal(state["withdrawable"]) <= told["totalRawUsd"] + told["totalNtlPos"]
    assert sdk.info.spot_user_state(sdk.user) == {"balances": []}


def test_a_screen_lists_what_there_is_to_trade(sdk):
    meta, contexts = sdk.info.meta_and_asset_ctxs()
    for screen in sdk.data("webData2"):
        assert (screen["user"], screen["meta"]) == (sdk.user, meta)
        assert len(screen["assetCtxs"]) == len(contexts) == len(meta["universe"])


def test_what_may_be_traded_is_told_of_the_coin_and_the_user(sdk):
    for told in sdk.data("activeAssetData"):
        assert (told["user"], told["coin"]) == (sdk.user, COIN)
        assert all(Decimal(size) >= 0 for size in told["maxTradeSzs"])


def test_a_candle_only_grows_and_is_the_one_that_is_kept(sdk):
    heard = sdk.data("candle")
    moments = [(candle["t"], candle["n"]) for candle in heard]
    assert moments == sorted(set(moments))
    last = heard[-1]
    (kept,) = sdk.info.candles_snapshot(COIN, "1h", last["t"], last["t"])
    assert (kept["o"], kept["T"]) == (last["o"], last["T"])
    assert kept["n"] >= last["n"] and Decimal(kept["v"]) >= Decimal(last["v"])


def test_what_a_trader_was_given_stands_in_its_ledger(sdk):
    (first, *_) = sdk.data("userNonFundingLedgerUpdates")
    assert first["isSnapshot"] is True
    entries = sdk.info.user_non_funding_ledger_updates(sdk.user, 0)
    assert [entry["delta"]["type"] for entry in entries] == ["deposit"]
    assert first["nonFundingLedgerUpdates"] == entries
    assert sdk.data("userFundings") == [{"isSnapshot": True, "user": sdk.user, "fundings": []}]


def test_every_question_of_the_sdk_has_its_answer(sdk):
    info, user = sdk.info, sdk.user
    assert Decimal(info.user_fees(user)["userCrossRate"]) > 0
    assert dict(info.portfolio(user))["allTime"]["accountValueHistory"]
    assert info.user_role(user) == {"role": "user"}
    assert info.query_sub_accounts(user) is None
    assert info.extra_agents(user) == []
    assert info.user_rate_limit(user)["nRequestsUsed"] > 0
    assert info.historical_orders(user)[0]["order"]["coin"]
    assert info.funding_history(COIN, 0) == info.user_funding_history(user, 0) == []
    assert info.query_referral_state(user)["referredBy"] is None
    assert info.user_twap_slice_fills(user) == info.user_vault_equities(user) == []
    assert info.query_user_to_multi_sig_signers(user) is None
