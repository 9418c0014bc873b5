"""What a gateway says of accounts and markets, over the world of a real exchange, is what its core knows."""

import json
from decimal import Decimal
from types import SimpleNamespace

import pytest
from numba import njit

from engine.exchange import margin
from gateway.info import Info
from gateway.world import World as Mapped
from shm.codes import INTERVALS_MS, Side
from tests.engine.exchange.test_project import swarm, world_sections

SEEDS = (1, 4, 6)  # in which somebody has money to spare
ROUNDED = 4  # micro-dollars of margin that what may be traded leaves out


@pytest.fixture(scope="module", params=SEEDS)
def served(request):
    """A core, and how to ask a gateway that serves its world."""
    running = swarm(request.param)
    info = Info()
    info.world = Mapped(SimpleNamespace(arrays=world_sections(running.world), epoch=1))  # type: ignore[arg-type]
    return running.core, lambda **asked: json.loads(info.answer(json.dumps(asked).encode()))


def accounts_of(core):
    for row in range(int(core.status[0]["account_count"])):
        yield row, "0x" + bytes(core.accounts[row]["address"]).hex()


def markets_of(core):
    for row in range(int(core.status[0]["market_count"])):
        yield row, bytes(core.markets[row]["name"]).rstrip(b"\0").decode()


def usd(amount):
    return Decimal(int(amount)).scaleb(-6)


def test_an_account_has_what_the_core_says(served):
    core, ask = served
    for row, user in accounts_of(core):
        state, account = ask(type="clearinghouseState", user=user), core.accounts[row]
        mine = core.positions[row * len(core.markets) : (row + 1) * len(core.markets)]
        marks = core.markets["mark"]
        value = sum(
            int(p["isolated"]) + int(p["size"]) * int(mark) - int(p["entry"])
            for p, mark in zip(mine, marks, strict=True)
        )
        assert Decimal(state["marginSummary"]["accountValue"]) == usd(int(account["cash"]) + value)
        assert Decimal(state["withdrawable"]) == usd(max(0, withdrawable(core, row)))
        told = {p["position"]["coin"]: Decimal(p["position"]["szi"]) for p in state["assetPositions"]}
        assert told == {
            coin: Decimal(int(mine[m]["size"])).scaleb(-int(core.markets[m]["size_decimals"]))
            for m, coin in markets_of(core)
            if mine[m]["size"]
        }
        limit = ask(type="userRateLimit", user=user)
        assert Decimal(limit["cumVlm"]) == usd(account["volume"])
        assert limit["nRequestsUsed"] == account["actions"]


@njit
def withdrawable(state, account):
    margin.refresh(state, account)
    return margin.withdrawable_of(state, account)


@njit
def covers(state, account, market, buys, sells, fee):
    return margin.covers(state, account, market, buys, sells, fee)


@njit
def leverage_of(state, at, market):
    return margin.leverage_of(state, state.positions[at], market)


def is_covered(core, account, market, side, size):
    """Whether the core would let an account open so much more at the mark."""
    at = account * len(core.markets) + market
    value = size * int(core.markets[market]["mark"])
    position = core.positions[at]
    buys, sells = int(position["buys"]), int(position["sells"])
    fee = -(-value * max(int(core.markets[market]["taker_rate"]), 0) // 10**6)
    buys, sells = (buys + value, sells) if side == Side.BUY else (buys, sells + value)
    return covers(core, account, market, buys, sells, fee)


def test_what_may_be_traded_is_what_the_core_covers(served):
    core, ask = served
    some = 0
    for account, user in accounts_of(core):
        for market, coin in markets_of(core):
            told = ask(type="activeAssetData", user=user, coin=coin)
            assert told["leverage"]["value"] == leverage_of(
                core, account * len(core.markets) + market, market
            )
            for side, text in zip(Side, told["maxTradeSzs"], strict=True):
                size = int(Decimal(text).scaleb(int(core.markets[market]["size_decimals"])))
                assert size == 0 or is_covered(core, account, market, side, size)
                more = 2 + ROUNDED * told["leverage"]["value"] // int(core.markets[market]["mark"])
                assert not is_covered(core, account, market, side, size + more)
                some += size > 0
    assert some > 0


def test_markets_are_those_of_the_core(served):
    core, ask = served
    meta, contexts = ask(type="metaAndAssetCtxs")
    for (market, coin), asset, context in zip(markets_of(core), meta["universe"], contexts, strict=True):
        row, decimals = core.markets[market], int(core.markets[market]["size_decimals"])
        assert (asset["name"], asset["szDecimals"], asset["maxLeverage"]) == (
            coin,
            decimals,
            row["max_leverage"],
        )
        assert Decimal(context["openInterest"]) == Decimal(int(row["open_interest"])).scaleb(-decimals)
        assert Decimal(context["markPx"]) == Decimal(int(row["mark"])).scaleb(decimals - 6)


def test_every_interval_adds_up_to_the_same(served):
    core, ask = served
    for _, coin in markets_of(core):
        sums = set()
        for interval in INTERVALS_MS:
            candles = ask(type="candleSnapshot", req={"coin": coin, "interval": interval, "startTime": 0})
            assert all(a["T"] < b["t"] for a, b in zip(candles, candles[1:], strict=False))
            if candles and len(candles) < 64:  # else the first are forgotten
                sums.add(
                    (sum(Decimal(c["v"]) for c in candles), sum(c["n"] for c in candles), candles[-1]["c"])
                )
        assert len(sums) <= 1


def test_a_ledger_explains_what_was_deposited(served):
    core, ask = served
    for row, user in accounts_of(core):
        entries = ask(type="userNonFundingLedgerUpdates", user=user)
        if len(entries) == 500:
            continue  # there are more
        total = Decimal(0)
        for delta in (entry["delta"] for entry in entries if entry["delta"]["type"] != "liquidation"):
            gives = delta["type"] == "withdraw" or delta.get("user") == user
            total += -Decimal(delta["usdc"]) if gives else Decimal(delta["usdc"])
        assert total == usd(core.accounts[row]["deposited"])


def test_everybody_who_may_act_has_a_role(served):
    core, ask = served
    roles = [ask(type="userRole", user=user)["role"] for _, user in accounts_of(core)]
    masters = core.accounts["master"][: len(roles)]
    assert roles == ["user" if master < 0 else "subAccount" for master in masters]
    now_ms = int(core.heap[0]["time_ns"]) // 1_000_000
    live = 0
    for signer in core.signers[: int(core.status[0]["signer_count"])]:
        if not signer["is_agent"]:
            continue
        until_ms = int(signer["valid_until_ms"])
        may = signer["is_live"] and (until_ms == 0 or until_ms > now_ms)
        told = ask(type="userRole", user="0x" + bytes(signer["address"]).hex())
        assert told["role"] == ("agent" if may else "missing")
        live += bool(may)
    named = sum(len(ask(type="extraAgents", user=user)) for _, user in accounts_of(core))
    assert named <= live
