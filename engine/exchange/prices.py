"""What a contract is worth: the oracle's word, the mark that is made of it and of the book, the premium.

A mark moves when an oracle speaks and at no other time, but in a market that never had one, which marks
itself by its last trade. Averages over time are whole numbers as well: they decay by span / (span + elapsed),
which any processor computes alike.
"""

from engine.exchange.arithmetic import clamp, share
from engine.exchange.outcomes import emit, move_marks
from engine.exchange.records import Kind
from shm.codes import Oracle, Refusal, Side, Trading
from shm.constants import FUNDING_PLACES, INTEREST_VALUE_MAX, USD_PLACES
from shm.kernel import inner
from shm.layout import NO_ACCOUNT

PRICE_MAX = 10**15
FINE = 1000  # an average is in thousandths
BASIS_MS, SMOOTH_MS = 150_000, 30_000
ELAPSED_MS_MAX = HOUR_MS = 3_600_000
MARK_MS = 3000  # between two marks of a market that marks itself
OLD_MS, STOPPED_MS = 10_000, 60_000
SAMPLE_MS = 5000
PREMIUM_UNIT = 10**FUNDING_PLACES
DECIMAL_USD = 10**USD_PLACES
PER_MILLE = 1000
CALM, CALM_SPAN = 10**6, 5 * 10**6  # a rate of 8 hours is drawn so far towards 0.01 %
HOURS = 8  # that a rate is quoted for; it is paid every hour
RATE_MAX = 4 * 10**8  # of one hour


@inner
def best_price(state, market, side):
    """The best price of a side; 0 if it is empty."""
    row = state.sides[2 * market + side]
    return state.levels[row.offset + row.count - 1].price if row.count > 0 else 0


@inner
def reference_of(market):
    """What an order's price is compared with."""
    return market.oracle if market.oracle > 0 else market.reference_price


@inner
def is_open(market):
    """Whether the market takes orders."""
    return market.mode == Trading.OPEN and market.oracle_state != Oracle.STOPPED


# --- the mark -----------------------------------------------------------------------------------------------


@inner
def hear_oracle(state, command):
    """Take the oracle's price of a market, and perhaps a perp's price elsewhere; return a Refusal."""
    price, external, now_ms = command.price, command.trigger_price, command.time_ns // 1_000_000
    if price < 1 or price > PRICE_MAX or external < 0 or external > PRICE_MAX:
        return Refusal.AMOUNT
    market = state.markets[command.market]
    if price > INTEREST_VALUE_MAX // max(market.open_interest, 1):
        return Refusal.AMOUNT
    market.oracle, market.external, market.oracle_ms = price, external, now_ms
    if market.oracle_state != Oracle.LIVE:
        market.oracle_state, market.is_touched = Oracle.LIVE, 1
    bid, ask = best_price(state, command.market, Side.BUY), best_price(state, command.market, Side.SELL)
    inside = 0
    if bid > 0 and ask > 0:
        inside = clamp(market.reference_price, bid, ask)
        elapsed = clamp(now_ms - market.book_ms, 0, ELAPSED_MS_MAX)
        market.book_ms = now_ms
        _smooth(market, FINE // 2 * (bid + ask) - FINE * price, FINE * inside, elapsed)
    if market.mode != Trading.HALTED:
        set_mark(state, command.market, _within_step(market, _mark_of(market, inside)), now_ms)
    tell_prices(state, command.market)
    return Refusal.NONE


@inner
def _smooth(market, basis, inside, elapsed):
    market.basis, market.basis_weight = moved(market.basis, market.basis_weight, basis, elapsed, BASIS_MS)
    market.smooth, market.smooth_weight = moved(
        market.smooth, market.smooth_weight, inside, elapsed, SMOOTH_MS
    )


@inner
def moved(value, weight, sample, elapsed, span):
    """Move an average and its weight (ms; 0: no sample yet) by a sample; return both."""
    if weight == 0:
        return sample, 1
    weight = weight * span // (span + elapsed) + elapsed
    gap = sample - value
    step = share(abs(gap), elapsed, weight)
    return value + (step if gap > 0 else -step), weight


@inner
def _mark_of(market, inside):
    """The median of what there is: oracle and basis; the book (0: none); a price elsewhere (0: none)."""
    fair = max(1, market.oracle + market.basis // FINE)
    external = market.external
    if inside > 0 and external > 0:
        return clamp(external, min(fair, inside), max(fair, inside))
    other = inside + external
    if other == 0:
        return fair
    if market.smooth_weight == 0:
        return (fair + other) // 2
    smooth = max(1, market.smooth // FINE)
    return clamp(smooth, min(fair, other), max(fair, other))


@inner
def _within_step(market, mark):
    if market.mark_step == 0:
        return mark
    step = max(1, share(market.mark, market.mark_step, PER_MILLE))
    return clamp(mark, market.mark - step, market.mark + step)


@inner
def set_mark(state, market, mark, now_ms):
    """Value positions at `mark` from here on, or as near as their number allows."""
    row = state.markets[market]
    mark = max(1, min(mark, INTEREST_VALUE_MAX // max(row.open_interest, 1)))
    if mark != row.mark:
        row.mark, row.mark_ms = mark, now_ms
        move_marks(state)


@inner
def mark_themselves(state, now_ms):
    """At the end of a block: markets without an oracle are marked by their last trade, now and then."""
    for market in range(state.status[0].market_count):
        row = state.markets[market]
        is_due = row.oracle_state == Oracle.NEVER and row.mode != Trading.HALTED
        if is_due and row.mark != row.reference_price and now_ms - row.mark_ms >= MARK_MS:
            before = row.mark
            set_mark(state, market, row.reference_price, now_ms)
            if row.mark != before:
                tell_prices(state, market)


@inner
def let_age(state, now_ms):
    """At the end of a block: oracles that have not been heard for long are old, and then stopped."""
    for market in range(state.status[0].market_count):
        row = state.markets[market]
        if row.oracle_state == Oracle.NEVER:
            continue
        age = Oracle.LIVE
        if now_ms - row.oracle_ms > STOPPED_MS:
            age = Oracle.STOPPED
        elif now_ms - row.oracle_ms > OLD_MS:
            age = Oracle.OLD
        if age != row.oracle_state:
            row.oracle_state, row.is_touched = age, 1


# --- the premium --------------------------------------------------------------------------------------------


@inner
def sample_premiums(state, now_ms):
    """At the end of a block, every SAMPLE_MS: how far each market's book is from its oracle."""
    heap = state.heap[0]
    slot = now_ms // SAMPLE_MS
    if slot <= heap.sample_slot:
        return
    heap.sample_slot = slot
    for market in range(state.status[0].market_count):
        row = state.markets[market]
        heard = row.oracle_state == Oracle.LIVE or row.oracle_state == Oracle.OLD
        if heard and row.mode != Trading.HALTED:
            row.impact_bid = impact_price(state, market, Side.BUY)
            row.impact_ask = impact_price(state, market, Side.SELL)
            row.premium = premium_of(row.oracle, row.impact_bid, row.impact_ask)
            row.premiums += row.premium
            row.samples += 1
            tell_prices(state, market)


@inner
def impact_price(state, market, side):
    """The mean price of trading the market's impact notional with a side of its book; 0: it is too thin."""
    row = state.sides[2 * market + side]
    left, quantity, notional = state.markets[market].impact_notional * DECIMAL_USD, 0, 0
    for i in range(row.count - 1, -1, -1):
        level = state.levels[row.offset + i]
        taken = min(level.quantity, left // level.price)
        quantity, notional, left = (
            quantity + taken,
            notional + taken * level.price,
            left - taken * level.price,
        )
        if taken < level.quantity:
            return notional // quantity if quantity > 0 else level.price
    return 0


@inner
def premium_of(oracle, impact_bid, impact_ask):
    """How much more (or less) than the oracle the book pays, in PREMIUM_UNIT, toward zero."""
    over = max(0, impact_bid - oracle) if impact_bid > 0 else 0
    under = max(0, oracle - impact_ask) if impact_ask > 0 else 0
    gap = clamp(over - under, -oracle, oracle)
    premium = share(PREMIUM_UNIT, abs(gap), oracle)
    return premium if gap > 0 else -premium


@inner
def rate_of(premiums, samples):
    """The rate of an hour whose premiums sum to this, in PREMIUM_UNIT: positive, longs pay shorts."""
    if samples == 0:
        return 0
    mean = premiums // samples
    return clamp((mean + clamp(CALM - mean, -CALM_SPAN, CALM_SPAN)) // HOURS, -RATE_MAX, RATE_MAX)


@inner
def tell_prices(state, market):
    row = state.markets[market]
    outcome = emit(state, Kind.PRICES, NO_ACCOUNT, market)
    outcome.price, outcome.quantity, outcome.original = row.mark, row.oracle, row.external
    outcome.placed_ms, outcome.trade = row.oracle_ms, rate_of(row.premiums, row.samples)
    outcome.amount, outcome.start, outcome.fee = row.premium, row.impact_bid, row.impact_ask
    outcome.order = row.samples
