"""What the naive exchange does about funding: impact prices, premiums, the hour's rate, and who pays whom."""

from fractions import Fraction
from math import ceil, floor

from shm.codes import Oracle, Side, Trading

MICRO = 10**6
UNIT = 10**10
SAMPLE_MS = 5000
INTEREST, INTEREST_MOST, RATE_MOST = 10**6, 5 * 10**6, 4 * 10**8


def impact_price(market, side):
    """The mean price of the impact notional on a side of the book; 0 if it is not there."""
    levels = {}
    for order in market.sides[side].values():
        levels[order.price] = levels.get(order.price, 0) + order.quantity
    left, quantity, notional = market.impact_notional * MICRO, 0, 0
    best_first = sorted(levels, reverse=side == Side.BUY)
    for price in best_first:
        take = min(levels[price], floor(Fraction(left, price)))
        left, quantity, notional = left - take * price, quantity + take, notional + take * price
        if take < levels[price]:
            return floor(Fraction(notional, quantity)) if quantity else best_first[0]
    return 0


def sample(market):
    """Take a premium, if the market has an oracle that is heard. Return whether it was taken."""
    if market.mode == Trading.HALTED or market.oracle_state not in (Oracle.LIVE, Oracle.OLD):
        return False
    oracle = market.oracle
    market.impact_bid, market.impact_ask = (impact_price(market, side) for side in (Side.BUY, Side.SELL))
    apart = max(0, market.impact_bid - oracle) if market.impact_bid else 0
    apart -= max(0, oracle - market.impact_ask) if market.impact_ask else 0
    apart = max(-oracle, min(oracle, apart))
    market.premium = int(Fraction(apart * UNIT, oracle))  # toward zero
    market.premiums.append(market.premium)
    return True


def mean_of(premiums):
    return floor(Fraction(sum(premiums), len(premiums)))


def rate_of(premiums):
    """The rate of an hour with these samples; 0 without any."""
    if not premiums:
        return 0
    mean = mean_of(premiums)
    eight_hours = mean + max(-INTEREST_MOST, min(INTEREST_MOST, INTEREST - mean))
    return max(-RATE_MOST, min(RATE_MOST, floor(Fraction(eight_hours, 8))))


def payment(size, price, rate):
    """What who holds so much pays; negative: gets."""
    return ceil(Fraction(size * price * rate, UNIT))
