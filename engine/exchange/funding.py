"""What longs pay shorts every hour, or shorts longs, so that a contract stays near what it is of.

A rate is the mean of an hour's premiums. An hour makes a round: accounts pay for it one after another, so
many a block, and one whose margin is asked for pays first; so it makes no difference when an account's turn
comes. What rounding leaves over is the insurance account's.
"""

from engine.exchange.outcomes import emit, look_at_all, touch_account, touch_position
from engine.exchange.prices import HOUR_MS, PREMIUM_UNIT, rate_of
from engine.exchange.records import Kind
from engine.exchange.state import INSURANCE
from shm.kernel import apart, inner
from shm.layout import NO_ACCOUNT

ACCOUNTS_A_BLOCK = 4096


@inner
def payment(size, price, rate):
    """What a position of `size` pays at a rate (PREMIUM_UNIT), rounded up; less than 0: it is paid."""
    notional, parts = abs(size) * price, abs(rate)
    whole, rest = notional // PREMIUM_UNIT * parts, notional % PREMIUM_UNIT * parts
    least = whole + rest // PREMIUM_UNIT
    if (size > 0) == (rate > 0):
        return least + (rest % PREMIUM_UNIT != 0)
    return -least


@apart
def begin(state, now_ms):
    """At the end of a block: when an hour is over, and the one before is paid, say what is due for it."""
    heap, hour = state.heap[0], now_ms // HOUR_MS
    if heap.funding_hour == 0:
        heap.funding_hour = hour
    if hour == heap.funding_hour or heap.funding_left > 0:
        return
    heap.funding_hour = hour
    heap.funding_round += 1
    heap.funding_next, heap.funding_left = 0, state.status[0].account_count
    for market in range(state.status[0].market_count):
        row = state.markets[market]
        row.funding_samples = row.samples
        if row.samples == 0:
            continue
        row.funding_price, row.funding_rate = row.oracle, rate_of(row.premiums, row.samples)
        outcome = emit(state, Kind.RATE, NO_ACCOUNT, market)
        outcome.price, outcome.trade, outcome.order = row.oracle, row.funding_rate, row.samples
        outcome.amount, outcome.placed_ms = row.premiums // row.samples, hour * HOUR_MS
        row.premiums, row.samples = 0, 0


@inner
def is_owed(state, account):
    return state.accounts[account].funding_round != state.heap[0].funding_round


@apart
def pay(state, account):
    """Let the account pay for the last round, in all of its markets."""
    heap, row = state.heap[0], state.accounts[account]
    row.funding_round = heap.funding_round
    held = row.first_held
    while held != 0:
        market, at = state.markets[held - 1], account * len(state.markets) + held - 1
        position = state.positions[at]
        if position.size != 0 and market.funding_samples > 0:
            paid = payment(position.size, market.funding_price, market.funding_rate)
            if position.is_isolated:
                position.isolated -= paid
            else:
                row.cash -= paid
            row.funding -= paid
            state.accounts[INSURANCE].cash += paid
            state.accounts[INSURANCE].funding += paid
            touch_position(state, at)
            touch_account(state, INSURANCE)
            look_at_all(state)
            outcome = emit(state, Kind.FUNDING, account, held - 1)
            outcome.price, outcome.quantity, outcome.trade = (
                market.funding_price,
                position.size,
                market.funding_rate,
            )
            outcome.amount, outcome.order = -paid, market.funding_samples
            outcome.placed_ms = heap.funding_hour * HOUR_MS
        held = position.next_held
