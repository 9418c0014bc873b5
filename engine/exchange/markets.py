"""What the operator says of markets and accounts: what there is to trade, within which bounds, and whether.

Every word of his is a command like any other, so that a journal holds who was halted, and when.
"""

from engine.exchange import matching
from engine.exchange.outcomes import emit, move_marks, touch_account
from engine.exchange.prices import PRICE_MAX
from engine.exchange.records import Kind
from engine.exchange.signers import find_account
from shm.bulk import copy_bytes
from shm.codes import NAMES, Refusal, Trading
from shm.constants import (
    IMPACT_USD,
    INTEREST_VALUE_MAX,
    LIMIT_ORDERS_MAX_TIMES,
    MARKET_ORDERS_MAX,
    PERP_DECIMALS,
    PRICE_BAND,
    TIERS_MAX,
)
from shm.kernel import apart, inner
from shm.layout import NO_ACCOUNT, NO_SLOT

LEVERAGE_MAX = 50
RATE_MAX = 50_000  # times the largest order still in int64
USD = 10**6
BAND_MAX = STEP_MAX = 1000  # per mille
IMPACT_USD_MAX = 10**6
KILLED = NAMES.index("internalCancel")


@inner
def add(state, command):
    """Add a market; return a Refusal."""
    status = state.status[0]
    decimals, leverage, maker, taker = command.side, command.amount, command.quantity, command.order
    if decimals > PERP_DECIMALS or leverage < 1 or leverage > LEVERAGE_MAX:
        return Refusal.AMOUNT
    if maker < -RATE_MAX or maker > RATE_MAX or taker < -RATE_MAX or taker > RATE_MAX:
        return Refusal.AMOUNT
    if command.price < 1 or command.price > PRICE_MAX:
        return Refusal.AMOUNT
    if status.market_count == len(state.markets):
        return Refusal.TABLE_FULL
    market = status.market_count
    status.market_count += 1
    row = state.markets[market]
    row.price_unit, row.size_decimals = 10 ** (PERP_DECIMALS - decimals), decimals
    row.max_leverage, row.maker_rate, row.taker_rate = leverage, maker, taker
    row.reference_price, row.mark, row.sound_mark = command.price, command.price, command.price
    row.mark_ms = command.time_ns // 1_000_000
    row.price_band, row.impact_notional, row.value_max = PRICE_BAND, IMPACT_USD, 0
    row.tier_count, row.tier_leverage[0] = 1, leverage
    for least, dollars in MARKET_ORDERS_MAX:
        if row.value_max == 0 and leverage >= least:
            row.value_max = dollars * LIMIT_ORDERS_MAX_TIMES * USD
    copy_bytes(row.name, command.text)
    tell(state, market)
    return Refusal.NONE


@inner
def limit(state, command):
    """Set the bounds of a market, all of them; return a Refusal."""
    band, step, impact = command.quantity, command.price, command.order
    if command.amount < 0 or band < 1 or band > BAND_MAX or step < 0 or step > STEP_MAX:
        return Refusal.AMOUNT
    if impact < 1 or impact > IMPACT_USD_MAX:
        return Refusal.AMOUNT
    row = state.markets[command.market]
    row.interest_cap, row.price_band, row.mark_step, row.impact_notional = command.amount, band, step, impact
    tell(state, command.market)
    return Refusal.NONE


@inner
def add_tier(state, command):
    """Ask more margin of positions from a notional on; return a Refusal."""
    row, notional, leverage = state.markets[command.market], command.quantity, command.amount
    last = row.tier_count - 1
    if notional <= row.tier_from[last] or notional > INTEREST_VALUE_MAX:
        return Refusal.AMOUNT
    if leverage < 1 or leverage >= row.tier_leverage[last]:
        return Refusal.AMOUNT
    if row.tier_count == TIERS_MAX:
        return Refusal.TABLE_FULL
    before, after = 2 * row.tier_leverage[last], 2 * leverage
    deduction = row.tier_deduction[last] + -(-notional // after) - -(-notional // before)
    row.tier_from[last + 1], row.tier_leverage[last + 1] = notional, leverage
    row.tier_deduction[last + 1] = deduction
    row.tier_count += 1
    move_marks(state)
    outcome = emit(state, Kind.TIER, NO_ACCOUNT, command.market)
    outcome.order, outcome.price, outcome.trade, outcome.amount = last + 1, notional, leverage, deduction
    return Refusal.NONE


@inner
def set_mode(state, command):
    """Open a market, halt it, or let it take nothing but cancels; return a Refusal."""
    if command.amount < Trading.OPEN or command.amount > Trading.HALTED:
        return Refusal.AMOUNT
    state.markets[command.market].mode = command.amount
    tell(state, command.market)
    return Refusal.NONE


@inner
def tell(state, market):
    row = state.markets[market]
    outcome = emit(state, Kind.MARKET, NO_ACCOUNT, market)
    outcome.order, outcome.price, outcome.quantity = row.size_decimals, row.reference_price, row.open_interest
    outcome.original, outcome.placed_ms, outcome.trade = row.maker_rate, row.taker_rate, row.max_leverage
    outcome.amount, outcome.start, outcome.fee = row.interest_cap, row.price_band, row.mark_step
    outcome.other, outcome.code, outcome.done = row.impact_notional, row.mode, row.oracle_state
    copy_bytes(outcome.text, row.name)


# --- the kill switch ----------------------------------------------------------------------------------------


@apart
def kill(state, command):
    """Let an account, or nobody (an address of zeros), place orders, or let them again; return a Refusal."""
    if command.amount != 0 and command.amount != 1:
        return Refusal.AMOUNT
    first, end = 0, state.status[0].account_count
    if is_everyone(command.other):
        state.heap[0].is_killed = command.amount
    else:
        first = find_account(state, command.other)
        if first == NO_SLOT:
            return Refusal.BALANCE
        end = first + 1
        state.accounts[first].is_killed = command.amount
        touch_account(state, first)
    if command.amount == 1:
        for account in range(first, end):
            matching.end_all(state, account, KILLED)
    return Refusal.NONE


@inner
def is_everyone(address):
    """Whether it is the address of zeros."""
    total = 0
    for i in range(len(address)):
        total |= address[i]
    return total == 0
