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
from gateway.world import Array, World
from shm import account_rows, layout
from shm.constants import FUNDING_PLACES, MARKET_ORDERS_MAX, RATES_KEPT, USD_PLACES
from shm.units import format_decimal

TRIES = 4096  # of some 40 ns, as for any row
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
RATES_ANSWERED = 500  # hours in one answer, as on the wire
VENUE = "HlPerp"  # what this venue is called among those whose funding is predicted
SINGLE_TIER_MAX = 50  # a margin table with an id up to this is one tier: the id is its leverage
TIERED_FROM = 100  # the id of the first market's table, where a market has more than one tier


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
    rate_count: int

    def tiers(self) -> list[tuple[int, int]]:
        """(from which notional, the most leverage), the largest positions last."""
        most = max(self.tier_count, 1)
        return list(zip(self.tier_from[:most], self.tier_leverage[:most], strict=True))

    @property
    def is_capped(self) -> bool:
        """Whether its open interest is at its cap: then nobody may open more."""
        return 0 < self.interest_cap <= self.open_interest * self.mark


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
    fields = (field.tolist() if isinstance(field, np.ndarray) else field for field in out[0].tolist())
    return Contract(*fields)


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
    terms = [contract(world, market) for market in range(len(world.coins))]
    universe = [
        {
            "szDecimals": world.size_decimals(market),
            "name": coin,
            "maxLeverage": of.max_leverage,
            "marginTableId": _table_id(market, of),
        }
        for market, (coin, of) in enumerate(zip(world.coins, terms, strict=True))
    ]
    tables = [
        [TIERED_FROM + market, _table(of.tiers())] for market, of in enumerate(terms) if len(of.tiers()) > 1
    ]
    return {"universe": universe, "marginTables": tables, "collateralToken": 0}


def _table_id(market: int, terms: Contract) -> int:
    return TIERED_FROM + market if len(terms.tiers()) > 1 else terms.max_leverage


def _table(tiers: list[tuple[int, int]]) -> dict[str, Any]:
    lines = [{"lowerBound": usd(start), "maxLeverage": leverage} for start, leverage in tiers]
    return {"description": "", "marginTiers": lines}


def margin_table(world: World, id: int) -> dict[str, Any] | None:
    """The margin table of this id: one tier of that leverage, or those of a market that has more."""
    if 1 <= id <= SINGLE_TIER_MAX:
        return _table([(0, id)])
    return next((table for known, table in meta(world)["marginTables"] if known == id), None)


def at_interest_cap(world: World) -> list[str]:
    """The coins whose open interest is at its cap."""
    world.learn()
    return [coin for market, coin in enumerate(world.coins) if contract(world, market).is_capped]


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


# --- funding -----------------------------------------------------------------------------------------------


def rates(world: World, market: int) -> tuple[Array, bool]:
    """A market's hours of funding (RATE[]), oldest first, as far as they are kept; whether that is all."""
    arrays, out = world.arrays, np.zeros(RATES_KEPT, layout.RATE)
    count = account_rows.read_rates(
        arrays["markets"], arrays["contracts"], arrays["rates"], market, out, TRIES
    )
    if count < 0:
        raise NotNow
    return out[:count][::-1], count < len(arrays["rates"]) // len(arrays["contracts"])


def hour(world: World, market: int, of: np.void) -> dict[str, Any]:
    """An hour of a market's funding (RATE) as fundingHistory tells it."""
    return {
        "coin": world.coins[market],
        "fundingRate": format_decimal(int(of["rate"]), FUNDING_PLACES),
        "premium": format_decimal(int(of["premium"]), FUNDING_PLACES),
        "time": int(of["time_ms"]),
    }


def predicted(world: World) -> list[list[Any]]:
    """What each market's next hour of funding would be, were it over now."""
    world.learn()
    next_ms = (world.look().time_ms // HOUR_MS + 1) * HOUR_MS
    return [
        [
            coin,
            [
                [
                    VENUE,
                    {
                        "fundingRate": format_decimal(contract(world, market).funding_rate, FUNDING_PLACES),
                        "nextFundingTime": next_ms,
                        "fundingIntervalHours": 1,
                    },
                ]
            ],
        ]
        for market, coin in enumerate(world.coins)
    ]


# --- contexts ----------------------------------------------------------------------------------------------


def context(world: World, market: int) -> bytes:
    """A market's context. Until it has heard of an oracle, its mark stands for it."""
    terms, (price_places, quantity_places) = contract(world, market), places(world, market)
    day = _day(world, market)
    mark = format_decimal(terms.mark, price_places)
    impacts = [terms.impact_bid, terms.impact_ask]
    return json(
        {
            "funding": format_decimal(terms.funding_rate, FUNDING_PLACES),
            "openInterest": format_decimal(terms.open_interest, quantity_places),
            "prevDayPx": format_decimal(int(day["open"]) or terms.mark, price_places),
            "dayNtlVlm": usd(day["notional"]),
            "premium": format_decimal(terms.premium, FUNDING_PLACES) if all(impacts) else None,
            "oraclePx": format_decimal(terms.oracle, price_places) if terms.oracle else mark,
            "markPx": mark,
            "midPx": _mid(world, market, price_places),
            "impactPxs": [format_decimal(price, price_places) for price in impacts] if all(impacts) else None,
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
