"""An account's figures: what they promise of one another holds to the last digit, whatever the rows say."""

import json
import random
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction

import pytest

from gateway import schema
from gateway.errors import NotNow, Refusal
from gateway.info import Info
from gateway.world import World as Mapped
from shm import codes, seqlock
from tests.exchange_world import Exchange
from tests.world import ALICE, BOB, CAROL, NOBODY
from tests.world import World as Followed

COINS = {"BTC": (5, "97123.4"), "ETH": (4, "2986.31"), "SOL": (2, "131.4279"), "DOGE": (0, "0.173321")}
DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000
SUB, OTHER_SUB = "0x" + "51" * 20, "0x" + "52" * 20
AGENT, NAMED, EXPIRED, REVOKED = ("0x" + digits * 20 for digits in ("e1", "e2", "e3", "e4"))


def asker(world):
    info = Info()
    info.world = Mapped(world.reader())
    return lambda type, **request: json.loads(info.answer(json.dumps({"type": type, **request}).encode()))


def exchange():
    world = Exchange()
    for coin, (decimals, price) in COINS.items():
        world.market(coin, decimals, max_leverage=40 if coin == "BTC" else 20, price=price)
    return world


def random_account(seed):
    """A world in which ALICE has some positions."""
    chance, world = random.Random(seed), exchange()
    with world.block(time_ms=NOW_MS) as block:
        block.funds(ALICE, cash=chance.randrange(-(10**9), 10**13), used=chance.randrange(10**12))
        for coin in chance.sample(sorted(COINS), chance.randrange(5)):
            size = chance.choice([-1, 0, 1]) * chance.randrange(1, 10**6)
            entry = size * chance.randrange(1, 10**8) + (chance.randrange(100) if size else 0)
            text = str(Decimal(size).scaleb(-COINS[coin][0]))
            is_cross = chance.random() < 0.5
            isolated = 0 if is_cross or not size else chance.randrange(10**10)
            leverage = chance.randrange(1, 21)
            block.position(ALICE, coin, text, entry, leverage, is_cross, isolated=isolated)
    return world


def figures(summary):
    return {key: Decimal(text) for key, text in summary.items()}


@pytest.mark.parametrize("seed", range(40))
def test_what_the_figures_promise_of_one_another(seed):
    world = random_account(seed)
    state = asker(world)("clearinghouseState", user=ALICE, dex="")
    funds = world.arrays["funds"][world.account(ALICE)]
    whole, cross = figures(state["marginSummary"]), figures(state["crossMarginSummary"])
    marks = {coin: Decimal(price) for coin, (_, price) in COINS.items()}
    positions = [item["position"] for item in state["assetPositions"]]
    assert [item["type"] for item in state["assetPositions"]] == ["oneWay"] * len(positions)
    of = {
        key: lambda p, key=key: Decimal(p[key])
        for key in ("szi", "positionValue", "unrealizedPnl", "marginUsed")
    }
    value = {p["coin"]: of["szi"](p) * marks[p["coin"]] for p in positions}
    isolated = [p for p in positions if p["leverage"]["type"] == "isolated"]
    crossed = [p for p in positions if p["leverage"]["type"] == "cross"]

    assert whole["accountValue"] == whole["totalRawUsd"] + sum(value.values())
    assert cross["accountValue"] == cross["totalRawUsd"] + sum(value[p["coin"]] for p in crossed)
    assert whole["totalNtlPos"] == sum(map(of["positionValue"], positions))
    assert whole["totalMarginUsed"] == sum(map(of["marginUsed"], positions))
    assert whole["accountValue"] - cross["accountValue"] == sum(map(of["marginUsed"], isolated))
    assert whole["totalNtlPos"] - cross["totalNtlPos"] == sum(map(of["positionValue"], isolated))
    assert cross["accountValue"] == cash_of(funds) + sum(map(of["unrealizedPnl"], crossed))
    for p in positions:
        assert of["positionValue"](p) == abs(value[p["coin"]])
        opened_at = of["szi"](p) * Decimal(p["entryPx"])
        assert abs(of["unrealizedPnl"](p) - (value[p["coin"]] - opened_at)) < Decimal("0.006")
        check_liquidation_price(p, value[p["coin"]], state, positions)
    for p in isolated:
        assert of["marginUsed"](p) == Decimal(p["leverage"]["rawUsd"]) + value[p["coin"]]
    for p in crossed:
        assert 0 <= of["marginUsed"](p) * p["leverage"]["value"] - of["positionValue"](p) < Decimal("0.001")
    kept = sum(of["positionValue"](p) / (2 * p["maxLeverage"]) for p in crossed)
    assert 0 <= Decimal(state["crossMaintenanceMarginUsed"]) - kept < Decimal("0.00001")
    used = max(cross["totalMarginUsed"], (cross["totalNtlPos"] / 10).quantize(Decimal("1e-6"), ROUND_CEILING))
    assert Decimal(state["withdrawable"]) == max(0, cross["accountValue"] - used)
    assert state["time"] == NOW_MS


def check_liquidation_price(told, value, state, positions):
    """There what stands behind the position is its maintenance margin; without one, it is never so."""
    size, others = Fraction(told["szi"]), [p for p in positions if p["leverage"]["type"] == "cross"]
    worth = Fraction(told["marginUsed"])
    if told["leverage"]["type"] == "cross":
        worth = Fraction(state["crossMarginSummary"]["accountValue"])
        worth -= sum(Fraction(p["positionValue"]) / (2 * p["maxLeverage"]) for p in others if p is not told)

    def over(price):
        return worth + size * price - Fraction(value) - abs(size) * price / (2 * told["maxLeverage"])

    if told["liquidationPx"] is None:
        assert over(0) >= 0 if size > 0 else over(0) <= Fraction(1, 10**5)
    else:
        rounded = abs(size) * Fraction(1, 10**8) + Fraction(len(positions) + 1, 10**6)
        assert abs(over(Fraction(told["liquidationPx"]))) <= rounded


def cash_of(funds):
    return Decimal(int(funds["cash"])).scaleb(-6)


def test_a_known_position_is_told_as_the_wire_tells_it():
    """A captured isolated position of the wire, in our rows."""
    world = exchange()
    world.market("CAP", 4, max_leverage=50, price="2985.9")
    with world.block() as block:
        block.funds(ALICE, cash=13_104_514_502, used=0)
        block.position(ALICE, "CAP", "0.0335", 100_041_050, 20, False, isolated=4_981_226)
    (told,) = asker(world)("clearinghouseState", user=ALICE)["assetPositions"]
    assert told["position"] == {
        "coin": "CAP", "szi": "0.0335", "leverage": {"type": "isolated", "value": 20, "rawUsd": "-95.059824"},
        "entryPx": "2986.3", "positionValue": "100.02765", "unrealizedPnl": "-0.0134", "returnOnEquity":
        "-0.0026789", "liquidationPx": "2866.26936529", "marginUsed": "4.967826", "maxLeverage": 50,
        "cumFunding": {"allTime": "0.0", "sinceOpen": "0.0", "sinceChange": "0.0"},
    }  # fmt: skip


def test_an_account_that_is_not_known_has_nothing():
    ask = asker(exchange())
    state = ask("clearinghouseState", user=NOBODY)
    assert set(state["marginSummary"].values()) | {state["withdrawable"]} == {"0.0"}
    assert state["assetPositions"] == []
    assert ask("userRole", user=NOBODY) == {"role": "missing"}
    assert ask("subAccounts", user=NOBODY) is None
    assert ask("userRateLimit", user=NOBODY)["nRequestsCap"] == 10_000
    for type in ("extraAgents", "historicalOrders", "userNonFundingLedgerUpdates"):
        assert ask(type, user=NOBODY) == []
    assert ask("webData2", user=NOBODY)["openOrders"] == []
    assert [name for name, _ in ask("portfolio", user=NOBODY)][:4] == ["day", "week", "month", "allTime"]


# --- what may be opened ------------------------------------------------------------------------------------


def ceil_div(amount, divisor):
    return -(-amount // divisor)


def is_margined(world, a, m, side, value):
    """The engine's rule, in its own words."""
    funds, contract = world.arrays["funds"][a], world.arrays["contracts"][m]
    row = world.arrays["positions"][world.positions[a, m]]
    entry, leverage = int(row["entry"]), int(row["leverage"])
    mine = [o for o in world.orders.values() if (o["account"], o["market"]) == (a, m)]
    buys, sells = (sum(o["price"] * o["quantity"] for o in mine if o["side"] == s) for s in (0, 1))

    def used(buys, sells):
        return ceil_div(max(0, entry + buys, sells - entry), leverage)

    old = used(buys, sells)
    new = used(buys + value * (side == 0), sells + value * (side == 1))
    fee = ceil_div(value * max(int(contract["taker_rate"]), 0), 10**6)
    return new <= old or int(funds["cash"]) - (int(funds["used"]) - old + new) - fee >= 0


@pytest.mark.parametrize("seed", range(30))
def test_what_may_be_traded_is_what_the_engine_would_take(seed):
    chance, world = random.Random(seed), exchange()
    coin = chance.choice(sorted(COINS))
    m, a = world.market(coin), world.account(ALICE)
    mark = int(world.arrays["contracts"]["mark"][m])
    with world.block() as block:
        leverage = chance.randrange(1, 21)
        for oid in range(chance.randrange(3)):
            side, price = chance.choice(["B", "A"]), COINS[coin][1]
            block.open(coin, ALICE, side, price, chance.randrange(1, 5), oid + 1)
        size = chance.choice([-3, -1, 0, 1, 2])
        entry = size * 10 ** COINS[coin][0] * mark
    mine = [(o["side"], o["price"] * o["quantity"]) for o in world.orders.values()]
    buys, sells = (sum(value for s, value in mine if s == side) for side in (0, 1))
    used = ceil_div(max(0, entry + buys, sells - entry), leverage)
    with world.block() as block:
        block.funds(ALICE, cash=used + chance.choice([0, 10**6, 10**9, 10**11]), used=used)
        block.position(ALICE, coin, size, entry, leverage, used=used, buys=buys, sells=sells)
    told = asker(world)("activeAssetData", user=ALICE, coin=coin)
    assert told["markPx"] == str(Decimal(COINS[coin][1]))
    for side, (size, margin) in enumerate(zip(told["maxTradeSzs"], told["availableToTrade"], strict=True)):
        units = int(Decimal(size).scaleb(COINS[coin][0]))
        assert is_margined(world, a, m, side, units * mark), "what it says may be traded"
        assert not is_margined(world, a, m, side, (units + 1) * mark + 100), "and no more"
        assert 0 <= units * mark - int(Decimal(margin).scaleb(6)) * leverage < leverage


def test_whoever_holds_a_position_may_trade_more_against_it():
    world = exchange()
    with world.block() as block:
        block.funds(ALICE, cash=1_000_000_000, used=100_000_000)
        block.position(ALICE, "ETH", "-0.7", -2_000_000_000, 20, used=100_000_000)
    buy, sell = map(Decimal, asker(world)("activeAssetData", user=ALICE, coin="ETH")["maxTradeSzs"])
    assert buy > sell > 0
    assert asker(world)("activeAssetData", user=ALICE, coin="NOPE") is None


# --- who it is, and what it did ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ask():
    world = exchange()
    with world.block(time_ms=NOW_MS - 2 * DAY_MS) as block:
        block.funds(ALICE, cash=3_000_000_000, deposited=2_500_000_000, volume=7_999_999, actions=12)
        block.sub(ALICE, SUB, "first sub")
        block.sub(ALICE, OTHER_SUB, "second")
        block.agent(ALICE, AGENT)
        block.agent(ALICE, NAMED, "bot", valid_until_ms=NOW_MS + 1)
        block.agent(ALICE, EXPIRED, "old", valid_until_ms=NOW_MS)
        block.agent(ALICE, REVOKED, "gone", is_live=False)
        block.money(ALICE, codes.Ledger.DEPOSIT, 3_000_000_000)
        block.open("ETH", ALICE, "B", "2900", "1", 1)
        block.open("ETH", ALICE, "B", "2901", "1", 2)
        block.status("ETH", ALICE, "B", "1", "1", 3, "badAloPxRejected")
        block.trade("ETH", ALICE, CAROL, "B", "2900", "0.5", tid=1)
    with world.block(time_ms=NOW_MS) as block:
        block.funds(BOB, cash=0, created_ms=NOW_MS, deposited=0, volume=5_000_000)
        block.funds(ALICE, cash=3_000_000_000, created_ms=NOW_MS - 2 * DAY_MS)
        block.money(ALICE, codes.Ledger.WITHDRAW, -100_000_000, nonce=5)
        block.money(ALICE, codes.Ledger.SEND, -250_000_000, BOB)
        block.money(BOB, codes.Ledger.SEND, 250_000_000, ALICE)
        block.money(ALICE, codes.Ledger.SUB_TRANSFER, -150_000_000, SUB)
        block.money(SUB, codes.Ledger.SUB_TRANSFER, 150_000_000, ALICE)
        block.remove(2)
        block.trade("ETH", ALICE, CAROL, "B", "3000", "0.001", tid=2)
    return asker(world)


def test_roles(ask):
    assert ask("userRole", user=ALICE) == {"role": "user"}
    assert ask("userRole", user=SUB) == {"role": "subAccount", "data": {"master": ALICE}}
    for agent in (AGENT, NAMED):
        assert ask("userRole", user=agent) == {"role": "agent", "data": {"user": ALICE}}
    for agent in (EXPIRED, REVOKED):
        assert ask("userRole", user=agent) == {"role": "missing"}


def test_agents_are_those_that_may_trade(ask):
    assert ask("extraAgents", user=ALICE) == [{"name": "bot", "address": NAMED, "validUntil": NOW_MS + 1}]
    screen = ask("webData2", user=ALICE)
    assert (screen["agentAddress"], screen["agentValidUntil"]) == (AGENT, None)


def test_sub_accounts_oldest_first(ask):
    subs = ask("subAccounts", user=ALICE)
    assert [(sub["name"], sub["subAccountUser"], sub["master"]) for sub in subs] == [
        ("first sub", SUB, ALICE), ("second", OTHER_SUB, ALICE),
    ]  # fmt: skip
    assert subs[0]["clearinghouseState"] == ask("clearinghouseState", user=SUB)
    (dex, state), *others = ask("subAccounts2", user=ALICE)[0]["dexToClearinghouseState"]
    assert (dex, state, others) == ("", subs[0]["clearinghouseState"], [])
    assert ask("subAccounts", user=SUB) is None


def test_the_ledger_oldest_first_and_from_both_sides(ask):
    entries = ask("userNonFundingLedgerUpdates", user=ALICE, startTime=0, endTime=None)
    assert [entry["time"] for entry in entries] == [NOW_MS - 2 * DAY_MS] + 3 * [NOW_MS]
    assert [entry["delta"] for entry in entries] == [
        {"type": "deposit", "usdc": "3000.0"},
        {"type": "withdraw", "usdc": "100.0", "nonce": 5, "fee": "0.0"},
        {"type": "internalTransfer", "usdc": "250.0", "user": ALICE, "destination": BOB, "fee": "0.0"},
        {"type": "subAccountTransfer", "usdc": "150.0", "user": ALICE, "destination": SUB},
    ]
    assert ask("userNonFundingLedgerUpdates", user=BOB)[0]["delta"] == entries[2]["delta"]
    assert ask("userNonFundingLedgerUpdates", user=SUB)[0]["delta"] == entries[3]["delta"]
    assert len(ask("userNonFundingLedgerUpdates", user=ALICE, startTime=NOW_MS)) == 3
    assert len(ask("userNonFundingLedgerUpdates", user=ALICE, endTime=NOW_MS - 1)) == 1


def test_funding_and_liquidations_in_the_ledger():
    world = exchange()
    with world.block(time_ms=NOW_MS) as block:
        block.money(ALICE, codes.Ledger.DEPOSIT, 9_000_000)
        paid = {"size": -150_000, "rate": 125_000, "samples": 720, "price": 971_234}
        block.money(ALICE, codes.Ledger.FUNDING, 1_820_000, coin="BTC", **paid)
        block.money(ALICE, codes.Ledger.TAKEN, 0, BOB, price=-7_500_000, size=400_000_000)
    ask = asker(world)
    (hour,) = ask("userFunding", user=ALICE, startTime=0)
    assert hour["time"] == NOW_MS and hour["hash"].startswith("0x0001")
    assert hour["delta"] == {
        "type": "funding", "coin": "BTC", "usdc": "1.82", "szi": "-1.5", "fundingRate": "0.0000125",
        "nSamples": 720,
    }  # fmt: skip
    assert (
        ask("userFunding", user=ALICE, startTime=NOW_MS + 1)
        == ask("userFunding", user=BOB, startTime=0)
        == []
    )
    deposit, taken = ask("userNonFundingLedgerUpdates", user=ALICE, startTime=0)
    assert deposit["delta"]["type"] == "deposit"
    assert taken["delta"] == {
        "type": "liquidation", "liquidatedNtlPos": "400.0", "accountValue": "-7.5", "leverageType": "Cross",
        "liquidatedPositions": [],
    }  # fmt: skip


def test_every_order_once_with_its_last_word_newest_first(ask):
    orders = ask("historicalOrders", user=ALICE)
    assert [(order["order"]["oid"], order["status"]) for order in orders] == [
        (2, "canceled"), (3, "badAloPxRejected"), (1, "open"),
    ]  # fmt: skip
    assert orders[0]["statusTimestamp"] == NOW_MS


def test_rates_and_limits(ask):
    limit = ask("userRateLimit", user=ALICE)
    assert limit == {"cumVlm": "7.999999", "nRequestsUsed": 12, "nRequestsCap": 10_007, "nRequestsSurplus": 0}
    fees = ask("userFees", user=ALICE)
    assert (fees["userCrossRate"], fees["userAddRate"]) == ("0.00045", "0.00015")
    assert ask("referral", user=ALICE)["cumVlm"] == "7.999999"


def test_a_portfolio_tells_what_was_kept(ask):
    periods = dict(ask("portfolio", user=ALICE))
    assert periods["perpAllTime"] == periods["allTime"]
    assert periods["day"] == {"accountValueHistory": [[NOW_MS, "3000.0"]], "pnlHistory": [], "vlm": "3.0"}
    assert periods["week"] == periods["month"] == periods["allTime"]
    assert periods["week"]["pnlHistory"] == [[NOW_MS - 2 * DAY_MS, "0.0"], [NOW_MS, "500.0"]]
    assert periods["week"]["vlm"] == "7.999999"
    assert dict(ask("portfolio", user=BOB))["day"]["vlm"] == "5.0"


def test_a_screen_is_its_parts(ask):
    screen = ask("webData2", user=ALICE.upper().replace("X", "x"))
    assert screen["user"] == ALICE
    assert screen["clearinghouseState"] == ask("clearinghouseState", user=ALICE)
    assert screen["openOrders"] == ask("frontendOpenOrders", user=ALICE)
    assert [screen["meta"], screen["assetCtxs"]] == ask("metaAndAssetCtxs")
    assert (screen["cumLedger"], screen["serverTime"]) == ("2500.0", NOW_MS)


def test_what_there_is_not_has_its_empty_form(ask):
    span = {"startTime": 0}
    for type in (
        "userFunding", "userTwapSliceFills", "userTwapSliceFillsByTime", "twapHistory", "userVaultEquities",
        "approvedBuilders",
    ):  # fmt: skip
        assert ask(type, user=ALICE, **span) == []
    assert ask("fundingHistory", coin="BTC", **span) == ask("liquidatable") == []
    assert ask("perpsAtOpenInterestCap") == []
    assert ask("maxBuilderFee", user=ALICE, builder=BOB) == 0
    assert ask("userToMultiSigSigners", user=ALICE) is None
    assert ask("spotClearinghouseState", user=ALICE) == {"balances": []}


# --- when it is not answered -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", schema.exchange.INFO_REQUESTS, ids=lambda kind: kind.__name__)
def test_whoever_follows_a_node_refuses_it(kind):
    tag = kind.__struct_config__.tag
    request = {
        "type": tag, "user": ALICE, "coin": "BTC", "startTime": 0, "builder": BOB, "id": 1,
        "req": {"coin": "BTC", "interval": "1m", "startTime": 0},
    }  # fmt: skip
    with pytest.raises(Refusal):
        asker(Followed())(**request)
    asker(exchange())(**request)


def test_an_engine_at_work_is_not_waited_for():
    world = random_account(3)
    ask, row = asker(world), world.arrays["accounts"][world.account(ALICE)]
    seqlock.open_row(row)
    try:
        for type in ("clearinghouseState", "activeAssetData", "extraAgents", "subAccounts", "userRole"):
            with pytest.raises(NotNow):
                ask(type, user=ALICE, coin="BTC")
    finally:
        seqlock.close_row(row)
    assert ask("clearinghouseState", user=ALICE)["time"] == NOW_MS
