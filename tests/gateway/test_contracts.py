"""Markets of an exchange as the wire describes them: their universe, their contexts, their tables."""

import pytest

from shm import codes
from tests.exchange_world import Exchange
from tests.gateway.test_accounts import DAY_MS, NOW_MS, asker
from tests.world import ALICE, BOB


@pytest.fixture
def world():
    world = Exchange()
    world.market("BTC", 5, max_leverage=40, price="60000")
    world.market("ETH", 4, max_leverage=50, price="3000.5", maker=-10, taker=200)
    return world


def test_the_universe_is_the_markets_in_their_order(world):
    meta = asker(world)("meta", dex="")
    assert meta == {
        "universe": [
            {"szDecimals": 5, "name": "BTC", "maxLeverage": 40, "marginTableId": 40},
            {"szDecimals": 4, "name": "ETH", "maxLeverage": 50, "marginTableId": 50},
        ],
        "marginTables": [],
        "collateralToken": 0,
    }
    assert asker(world)("allPerpMetas") == [meta]
    assert asker(world)("meta", dex="nope") is None
    assert asker(world)("metaAndAssetCtxs", dex="nope") is None


def test_a_market_of_more_tiers_has_a_table_of_its_own(world):
    with world.block() as block:
        block.contract(
            "ETH", tier_count=2, tier_from=[0, 150_000_000_000_000, 0, 0], tier_leverage=[50, 20, 0, 0]
        )
    ask = asker(world)
    assert [market["marginTableId"] for market in ask("meta", dex="")["universe"]] == [40, 101]
    table = ask("marginTable", id=101)
    assert table["marginTiers"] == [
        {"lowerBound": "0.0", "maxLeverage": 50},
        {"lowerBound": "150000000.0", "maxLeverage": 20},
    ]
    assert ask("meta", dex="")["marginTables"] == [[101, table]] and ask("marginTable", id=100) is None


def test_markets_whose_open_interest_is_at_its_cap(world):
    with world.block() as block:
        block.contract("BTC", interest_cap=60_000_000_000, open_interest=99_999)
        block.contract("ETH", interest_cap=60_000_000_000, open_interest=199_967)
    assert asker(world)("perpsAtOpenInterestCap") == ["ETH"]
    assert asker(world)("webData2", user=ALICE)["perpsAtOpenInterestCap"] == ["ETH"]


def test_hours_of_funding_oldest_first_and_the_next(world):
    for hour in range(3):
        with world.block(time_ms=NOW_MS + hour * 3_600_000) as block:
            block.rate("ETH", 100_000 + hour, premium=-hour)
    with world.block(time_ms=NOW_MS + 2 * 3_600_000 + 5) as block:
        block.contract("ETH", funding_rate=-250_000)
    ask = asker(world)
    told = ask("fundingHistory", coin="ETH", startTime=NOW_MS + 1)
    assert told == [
        {
            "coin": "ETH",
            "fundingRate": "0.0000100001",
            "premium": "-0.0000000001",
            "time": NOW_MS + 3_600_000,
        },
        {
            "coin": "ETH",
            "fundingRate": "0.0000100002",
            "premium": "-0.0000000002",
            "time": NOW_MS + 7_200_000,
        },
    ]
    assert ask("fundingHistory", coin="ETH", startTime=0, endTime=NOW_MS)[0]["premium"] == "0.0"
    assert (
        ask("fundingHistory", coin="BTC", startTime=0) == ask("fundingHistory", coin="NO", startTime=0) == []
    )
    (btc, _), (eth, ((venue, next_hour),)) = ask("predictedFundings")
    assert (btc, eth, venue) == ("BTC", "ETH", "HlPerp")
    assert next_hour == {
        "fundingRate": "-0.000025", "fundingIntervalHours": 1,
        "nextFundingTime": (NOW_MS // 3_600_000 + 3) * 3_600_000,
    }  # fmt: skip


def test_a_context_tells_of_the_oracle_and_of_funding_to_come(world):
    prices = {"mark": 600_005, "oracle": 600_012, "funding_rate": 125_000, "premium": -2_824_061}
    with world.block() as block:
        block.contract("BTC", impact_bid=600_001, impact_ask=600_009, **prices)
        block.contract("ETH", impact_bid=300_049, **prices)
    _, (btc, eth) = asker(world)("metaAndAssetCtxs")
    told = [btc[name] for name in ("markPx", "oraclePx", "funding", "premium", "impactPxs")]
    assert told == ["60000.5", "60001.2", "0.0000125", "-0.0002824061", ["60000.1", "60000.9"]]
    assert (eth["premium"], eth["impactPxs"]) == (None, None), "a side was too thin"


def test_a_margin_table_is_one_tier(world):
    ask = asker(world)
    for id in (1, 40, 50):
        assert ask("marginTable", id=id)["marginTiers"] == [{"lowerBound": "0.0", "maxLeverage": id}]
    assert ask("marginTable", id=51) is ask("marginTable", id=0) is None
    assert ask("maxMarketOrderNtls")[0] == [25, "15000000.0"]


def test_rates_are_the_first_markets_also_where_it_pays_makers():
    world = Exchange()
    assert asker(world)("userFees", user=ALICE)["userCrossRate"] == "0.0"
    world.market("ETH", 4, maker=-10, taker=200)
    fees = asker(world)("userFees", user=ALICE)
    assert (fees["userCrossRate"], fees["userAddRate"]) == ("0.0002", "-0.00001")
    assert (fees["feeSchedule"]["cross"], fees["feeSchedule"]["add"]) == ("0.0002", "-0.00001")


def test_a_market_before_its_first_trade(world):
    _, (btc, eth) = asker(world)("metaAndAssetCtxs")
    assert btc == {
        "funding": "0.0", "openInterest": "0.0", "prevDayPx": "60000.0", "dayNtlVlm": "0.0", "premium": None,
        "oraclePx": "60000.0", "markPx": "60000.0", "midPx": None, "impactPxs": None, "dayBaseVlm": "0.0",
    }  # fmt: skip
    assert eth["markPx"] == "3000.5"


def test_a_context_adds_up_the_last_day(world):
    for age_ms, price, size in (
        (DAY_MS + 60_000, "59000", "9"),
        (DAY_MS // 2, "61000", "0.5"),
        (0, "62000", "1"),
    ):
        with world.block(time_ms=NOW_MS - age_ms) as block:
            block.trade("BTC", ALICE, BOB, "B", price, size, tid=age_ms)
            block.open_interest("BTC", "1.25")
    with world.block(time_ms=NOW_MS) as block:
        block.open("BTC", ALICE, "B", "61999", "1", 1)
    assert asker(world)("metaAndAssetCtxs")[1][0]["midPx"] is None, "one side is no middle"
    with world.block(time_ms=NOW_MS) as block:
        block.open("BTC", BOB, "A", "62000", "1", 2)
    context = asker(world)("metaAndAssetCtxs")[1][0]
    assert context == {
        "funding": "0.0", "openInterest": "1.25", "prevDayPx": "59000.0", "dayNtlVlm": "92500.0", "premium":
        None, "oraclePx": "62000.0", "markPx": "62000.0", "midPx": "61999.5", "impactPxs": None, "dayBaseVlm":
        "1.5",
    }  # fmt: skip


def test_what_comes_from_elsewhere_does_not_hide_a_market(world):
    """A description of a node's markets is not one of ours."""
    ask = asker(world)
    assert world.status["mode"][0] == codes.Mode.EXCHANGE
    assert len(ask("spotMeta")["universe"]) == 0
    assert ask("perpDexs") == [None]
    assert ask("spotMetaAndAssetCtxs")[1] == []
