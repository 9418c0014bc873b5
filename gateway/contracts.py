"""What the markets of an exchange of our own are: their description, their rates, and their day so far.

A price is in its market's units of 10**-price_places, a quantity in 10**-quantity_places; price x quantity is
an amount of money, in 10**-USD_PLACES USD, exactly. Every reader raises NotNow when the engine was met at
work at every try.
"""

from typing import Any, NamedTuple

import numpy as np

from gateway import candles
from gateway.codec import encode as json
from gateway.errors import NotNow
from gateway.world import World
from shm import account_rows, layout
from shm.constants import MARKET_ORDERS_MAX, USD_PLACES
from shm.units import format_decimal

TRIES = 4096  # of some 40 ns, as for any row
DAY_MS = 86_400_000
SINGLE_TIER_MAX = 49  # a margin table with an id up to this is one tier: the id is its leverage


class Contract(NamedTuple):
    """A CONTRACT row: what its fields are is said in shm/layout.py."""

    max_leverage: int
    maker_rate: int
    taker_rate: int
    reference_price: int
    open_interest: int
    trade_count: int
    mark: int
    oracle: int
    external: int
    oracle_ms: int
    oracle_state: int
    mode: int
    impact_bid: int
    impact_ask: int
    premium: int
    samples: int
    funding_rate: int
    interest_cap: int
    price_band: int
    mark_step: int
    impact_notional: int
    tier_count: int
    tier_from: list[int]
    tier_leverage: list[int]
    tier_deduction: list[int]


assert Contract._fields == layout.CONTRACT.names


class Places(NamedTuple):
    """Of a market's prices and quantities."""

    price: int
    quantity: int


def contract(world: World, market: int) -> Contract:
    """A market's contract, as of the last block."""
    return world.once_a_block(("contract", market), lambda: _read(world, market))


def _read(world: World, market: int) -> Contract:
    arrays, out = world.arrays, np.zeros(1, layout.CONTRACT)
    if account_rows.read_contract(arrays["markets"], arrays["contracts"], market, out, TRIES) < 0:
        raise NotNow
    return Contract(*out[0].tolist())


def places(world: World, market: int) -> Places:
    """How many decimals a market's prices and quantities have."""
    row = world.arrays["markets"][market]
    return Places(int(row["price_places"]), int(row["quantity_places"]))


def usd(amount: int) -> str:
    """An amount of money as the wire's text."""
    return format_decimal(amount, USD_PLACES)


def rate(parts: int) -> str:
    """A rate in 10**-6 as the wire's text."""
    return format_decimal(parts, USD_PLACES)


# --- what there is to trade --------------------------------------------------------------------------------


def meta(world: World) -> dict[str, Any]:
    """The universe: every market, in the order of their rows."""
    world.learn()
    leverages = [contract(world, market).max_leverage for market in range(len(world.coins))]
    universe = [
        {"szDecimals": world.size_decimals(market), "name": coin, "maxLeverage": most, "marginTableId": most}
        for market, (coin, most) in enumerate(zip(world.coins, leverages, strict=True))
    ]
    tables = [[most, tiers(most)] for most in sorted(set(leverages)) if most > SINGLE_TIER_MAX]
    return {"universe": universe, "marginTables": tables, "collateralToken": 0}


def tiers(max_leverage: int) -> dict[str, Any]:
    """A margin table of one tier."""
    return {"description": "", "marginTiers": [{"lowerBound": "0.0", "maxLeverage": max_leverage}]}


def margin_table(world: World, id: int) -> dict[str, Any] | None:
    """The margin table of this id: there is one for each leverage that a market allows at most."""
    if 1 <= id <= SINGLE_TIER_MAX or [id, tiers(id)] in meta(world)["marginTables"]:
        return tiers(id)
    return None


def max_market_orders() -> list[list[Any]]:
    """How much one market order may be worth, by the most leverage that its market allows."""
    return [[leverage, usd(value * 10**USD_PLACES)] for leverage, value in MARKET_ORDERS_MAX]


def fees(world: World) -> dict[str, Any]:
    """What trading costs everybody: the rates of the first market, no tiers, no discounts."""
    world.learn()
    first = contract(world, 0) if world.coins else None
    cross, add, none = rate(first.taker_rate if first else 0), rate(first.maker_rate if first else 0), rate(0)
    no_discount = {"bpsOfMaxSupply": none, "discount": none}
    return {
        "dailyUserVlm": [],
        "feeSchedule": {
            "cross": cross,
            "add": add,
            "spotCross": none,
            "spotAdd": none,
            "tiers": {"vip": [], "mm": []},
            "referralDiscount": none,
            "stakingDiscountTiers": [],
        },
        "userCrossRate": cross,
        "userAddRate": add,
        "userSpotCrossRate": none,
        "userSpotAddRate": none,
        "activeReferralDiscount": none,
        "trial": None,
        "feeTrialEscrow": none,
        "nextTrialAvailableTimestamp": None,
        "stakingLink": None,
        "activeStakingDiscount": no_discount,
    }


# --- contexts ----------------------------------------------------------------------------------------------


def context(world: World, market: int) -> bytes:
    """A market's context. The mark stands for the oracle; there is no funding yet, and so no premium."""
    terms, (price_places, quantity_places) = contract(world, market), places(world, market)
    day = _day(world, market)
    mark = format_decimal(terms.mark, price_places)
    return json(
        {
            "funding": "0.0",
            "openInterest": format_decimal(terms.open_interest, quantity_places),
            "prevDayPx": format_decimal(int(day["open"]) or terms.mark, price_places),
            "dayNtlVlm": usd(day["notional"]),
            "premium": None,
            "oraclePx": mark,
            "markPx": mark,
            "midPx": _mid(world, market, price_places),
            "impactPxs": None,
            "dayBaseVlm": format_decimal(day["volume"], quantity_places),
        }
    )


def contexts(world: World) -> bytes:
    """The contexts of all markets, as a JSON list."""
    return world.once_a_block("contexts", lambda: _all_contexts(world))


def _all_contexts(world: World) -> bytes:
    world.learn()
    return b"[%b]" % b",".join(context(world, market) for market in range(len(world.coins)))


def _day(world: World, market: int) -> np.void:
    """What was traded within a day of the last block, to the minute: account_rows.read_day."""
    arrays, out = world.arrays, np.zeros(1, layout.CANDLE)
    since_ms = world.look().time_ms - DAY_MS
    tables = arrays["markets"], arrays["candle_heads"], arrays["candles"]
    if account_rows.read_day(*tables, market, candles.series(market, "1m"), since_ms, out, TRIES) < 0:
        raise NotNow
    day: np.void = out[0]
    return day


def _mid(world: World, market: int, price_places: int) -> str | None:
    """The middle of the book, if it has two sides."""
    depth = world.depth(market, 1)
    if not len(depth.bids) or not len(depth.asks):
        return None
    total = int(depth.bids["price"][0]) + int(depth.asks["price"][0])
    return format_decimal(5 * total, price_places + 1)
