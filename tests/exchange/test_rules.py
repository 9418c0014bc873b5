"""The naive rules of risk, held to what was captured from the public venue, and to their own promises."""

from fractions import Fraction

import pytest

from tests.exchange import funding, margin
from tests.exchange.storms import Storm
from tests.exchange.things import Account, Market, Position
from tests.exchange.witness import Witness

USD = 10**6


def market(leverage, decimals, mark, *tiers):
    made = Market(0, b"", decimals, leverage, 0, 0, mark, mark=mark, tiers=[(0, leverage, 0)])
    for notional, highest in tiers:
        margin.add_tier(made, notional, highest)
    return made


@pytest.fixture
def captured():
    """An isolated long of 0.0335 ETH at 20 times, bought at 2986.3, when the mark was 2985.9."""
    eth = market(50, 4, 2985_90)
    account = Account(0, b"", 0, cash=13_104_514_502)
    account.positions[0] = Position(eth, 20, False, 335, 335 * 2986_30, 4_981_226)
    return margin.Whole(account)


def test_a_captured_position_comes_out_equal(captured):
    held = captured.held[0]
    assert held.value == 100_027_650, "positionValue"
    assert held.profit == -13_400, "unrealizedPnl"
    assert held.bucket == 4_967_826, "marginUsed"
    assert held.bucket - held.value == -95_059_824, "rawUsd"
    assert round(Fraction(held.profit, Fraction(held.entry, 20)), 7) == Fraction(-26789, 10**7), (
        "returnOnEquity"
    )
    assert captured.withdrawable == captured.value == 13_104_514_502, (
        "it draws on nothing of the cross account"
    )


def test_its_liquidation_price_comes_out_equal(captured):
    """To what a millionth of a dollar in its bucket, which the capture rounds, makes of it."""
    told = Fraction(2866_26936529, 10**8)
    price = captured.liquidation_price(0) / 100
    assert abs(price - told) < Fraction(1, 10**6) / (Fraction(335, 10**4) * Fraction(99, 100))


def test_the_venues_tiers_come_out_equal():
    """BTC: 40 times, 20 above 150,000,000: 1.25 % of a notional, above that 2.5 % less 1,875,000."""
    btc = market(40, 5, 100_000_0, (150_000_000 * USD, 20))
    assert btc.tiers[1] == (150_000_000 * USD, 20, 1_875_000 * USD)
    for dollars, maintenance in ((1_000_000, 12_500), (150_000_000, 1_875_000), (200_000_000, 3_125_000)):
        assert margin.maintenance_of(btc, dollars * USD) == maintenance * USD
    assert margin.limit_of(btc, 40) == 150_000_000 * USD and margin.limit_of(btc, 20) == margin.inf


def test_a_captured_premium_gives_the_captured_rate():
    """0.00029005 over eight hours: 0.0000125 an hour."""
    assert funding.rate_of([2_900_500]) == 125_000


@pytest.mark.parametrize("seed", range(12))
def test_at_its_liquidation_price_a_position_has_just_its_maintenance(seed):
    storm, met = Storm(seed), 0
    for at, _ in enumerate(storm.steps(1200)):
        if at % 60:
            continue
        for account in storm.model.accounts.values():
            met += sum(
                meets_at_its_price(account, number) for number, p in account.positions.items() if p.size
            )
    assert met > 0 or storm.account_count < 7


def meets_at_its_price(account, number):
    whole = margin.Whole(account)
    price, market = whole.liquidation_price(number), whole.held[number].market
    if price is None:
        return False
    mark, tier = market.mark, margin.tier_of(market, whole.held[number].notional)
    market.mark = price
    try:
        held = whole.held[number]
        if margin.tier_of(market, held.notional) != tier:
            return False
        worth = (whole.value, whole.maintenance) if held.is_cross else (held.bucket, held.maintenance)
        assert abs(worth[0] - worth[1]) <= len(whole.held), "but for the rounding of each maintenance"
    finally:
        market.mark = mark
    return True


@pytest.mark.parametrize("seed", range(24))
def test_the_rules_keep_their_promises(seed):
    """After every command: collateral conserved, positions net to zero; and what the witness is told."""
    storm, witness = Storm(seed), Witness()
    for step in storm.steps(1500):
        accounts = list(storm.model.accounts.values())
        held = [position for account in accounts for position in account.positions.values()]
        wealth = sum(account.cash for account in accounts) + sum(p.isolated - p.entry for p in held)
        assert wealth == storm.model.deposited, "collateral is conserved"
        assert sum(account.funded for account in accounts) == 0, "funding sums to zero"
        for market in storm.model.markets:
            sizes = [p.size for p in held if p.market is market]
            assert sum(sizes) == 0 and market.interest == sum(max(0, size) for size in sizes)
        witness.hear(step.outcomes)


@pytest.mark.parametrize("seed", range(24))
def test_when_a_circle_is_over_nobody_is_left_below_the_second_threshold(seed):
    """Above it he may wait for somebody to trade with; below it there is always somebody to take it."""
    storm, over = Storm(seed), 0
    for step in storm.steps(1500):
        if step.standing and storm.model.circle.left == 0:
            over += 1
            for account in list(storm.model.accounts.values())[2:]:
                whole = margin.Whole(account)
                assert 3 * whole.value >= 2 * whole.maintenance or not any(p.size for p in whole.cross)
                for held in whole.held.values():
                    assert held.is_cross or not held.size or 3 * held.bucket >= 2 * held.maintenance
    assert over > 0
