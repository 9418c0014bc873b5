"""The arithmetic of money against plain Python integers, which never overflow."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from numba import njit

from engine.exchange import arithmetic, margin, money
from engine.exchange.markets import RATE_MAX, USD
from engine.exchange.records import MARKET
from shm.constants import LIMIT_ORDERS_MAX_TIMES, MARKET_ORDERS_MAX

share = arithmetic.share.py_func
exceeds = njit(lambda a, b, limit: arithmetic.exceeds(a, b, limit))
fees_of = njit(lambda markets, notional: money.fees_of(markets[0], notional))
exposure_of = njit(lambda value, buys, sells: margin.exposure_of(value, buys, sells))
WIDE = st.integers(1, 2**62 - 1)
RATES = st.integers(-RATE_MAX, RATE_MAX)
VALUE_MAX = max(dollars for _, dollars in MARKET_ORDERS_MAX) * LIMIT_ORDERS_MAX_TIMES * USD


@given(st.integers(0, 2**62), WIDE, WIDE)
@example(2**62, 2**62 - 2, 2**62 - 1)
@example(10**15, 1, 3)
def test_a_share_is_exact_at_any_size(total, one, other):
    part, whole = min(one, other), max(one, other)
    assert share(total, part, whole) == total * part // whole


@given(st.integers(-(10**18), 10**18), st.integers(1, 10**6))
def test_rounding_is_up_for_either_sign(a, b):
    rounded = arithmetic.ceil_div.py_func(a, b)
    assert rounded * b >= a > (rounded - 1) * b


@given(st.integers(0, 2**62), st.integers(0, 2**62), st.integers(0, 2**62))
@example(2**31, 2**31, 2**62)
@example(2**31, 2**31, 2**62 - 1)
@example(2**62, 2**62, 2**62)
@example(3 * 2**60, 2, 2**62)
@example(2**62, 4, 2**62)
def test_a_product_exceeds_its_limit_also_where_it_is_wider_than_a_word(a, b, limit):
    assert exceeds(a, b, limit) == (a * b > limit)


@given(st.integers(0, VALUE_MAX), RATES, RATES)
def test_a_rebate_is_never_more_than_the_fee_that_pays_for_it(notional, maker_rate, taker_rate):
    market = np.zeros(1, MARKET)
    market["maker_rate"], market["taker_rate"] = maker_rate, taker_rate
    maker, taker = fees_of(market, notional)
    assert taker == -(-notional * taker_rate // 10**6)
    assert maker == max(-(-notional * maker_rate // 10**6), -taker)


@given(st.integers(-(10**15), 10**15), st.integers(0, 10**15), st.integers(0, 10**15))
def test_exposure_is_that_of_the_worse_side(value, buys, sells):
    worst = max(abs(x) for x in (max(value + buys, 0), min(value - sells, 0)))
    assert exposure_of(value, buys, sells) == worst >= abs(value)
    assert exposure_of(-value, sells, buys) == exposure_of(value, buys, sells), "long and short are alike"
