"""What an account's positions and orders come to at the mark, and whether it can bear more of them.

The sums over an account's positions (`used`, `profit`, `maintenance`, `notional`) are kept up, each change of
a position taking its share out and putting it in again, and counted anew when marks have moved since: no
command looks at more than the positions that it changes. Ask for none of them before `refresh`.

    value     cash and profit of cross positions           `equity`
    free      value less the margin in use
"""

from engine.exchange import funding
from engine.exchange.arithmetic import ceil_div, share
from engine.exchange.outcomes import touch_position
from shm.codes import Side
from shm.constants import LEVERAGE_DEFAULT, TRANSFER_PART
from shm.kernel import apart, inner


@inner
def position_of(state, account, market):
    """Return the row of the account's position in the market."""
    return account * len(state.markets) + market


@inner
def leverage_of(state, position, market):
    if position.leverage != 0:
        return position.leverage
    return min(LEVERAGE_DEFAULT, state.markets[market].max_leverage)


@inner
def exposure_of(value, buys, sells):
    """The notional that a position of `value` and the open orders of its worse side could come to."""
    return max(value + buys, sells - value)


@inner
def maintenance_of(market, notional):
    """The margin below which a position of this notional is taken away."""
    tier = 0
    for i in range(1, market.tier_count):
        if notional >= market.tier_from[i]:
            tier = i
    return ceil_div(notional, 2 * market.tier_leverage[tier]) - market.tier_deduction[tier]


@inner
def limit_of(market, leverage):
    """The largest exposure at this leverage; 0: any."""
    for i in range(1, market.tier_count):
        if market.tier_leverage[i] < leverage:
            return market.tier_from[i]
    return 0


# --- sums over an account's positions -----------------------------------------------------------------------


@inner
def count(state, account, market, sign):
    """Put a position into the sums of its account, or (-1) take it out as it was put in."""
    position, row = state.positions[position_of(state, account, market)], state.accounts[account]
    contract = state.markets[market]
    leverage = leverage_of(state, position, market)
    value = position.size * contract.mark
    margin = ceil_div(exposure_of(value, position.buys, position.sells), leverage)
    if position.is_isolated:
        row.used += sign * (margin - ceil_div(abs(value), leverage))
    else:
        row.used += sign * margin
        row.profit += sign * (value - position.entry)
        row.notional += sign * abs(value)
        row.maintenance += sign * maintenance_of(contract, abs(value))


@inner
def refresh(state, account):
    """Pay the funding that is due, and see to it that the sums are those at the marks as they are."""
    if funding.is_owed(state, account):
        funding.pay(state, account)
    if state.accounts[account].marks != state.heap[0].marks:
        _count_anew(state, account)


@apart
def _count_anew(state, account):
    row = state.accounts[account]
    row.marks = state.heap[0].marks
    row.used, row.profit, row.maintenance, row.notional = 0, 0, 0, 0
    held = row.first_held
    while held != 0:
        count(state, account, held - 1, 1)
        held = state.positions[position_of(state, account, held - 1)].next_held


@inner
def equity(state, account):
    row = state.accounts[account]
    return row.cash + row.profit


@inner
def free_of(state, account):
    return equity(state, account) - state.accounts[account].used


@inner
def withdrawable_of(state, account):
    row = state.accounts[account]
    return equity(state, account) - max(row.used, ceil_div(row.notional, TRANSFER_PART))


@inner
def bucket_of(state, at, market):
    """What an isolated position is worth, with the money that was put aside for it."""
    position = state.positions[at]
    return position.isolated + position.size * state.markets[market].mark - position.entry


# --- lists --------------------------------------------------------------------------------------------------


@inner
def list_position(state, account, market):
    """Keep the account's list of positions and orders, and the market's of holders, after a change."""
    position = state.positions[position_of(state, account, market)]
    is_held = position.size != 0 or position.buys != 0 or position.sells != 0
    if is_held != (position.is_held != 0):
        _change_list(state, account, market, is_held)


@apart
def _change_list(state, account, market, is_held):
    """Put the market into the account's list, by its number, or take it out."""
    row, position = state.accounts[account], state.positions[position_of(state, account, market)]
    position.is_held = 1 if is_held else 0
    before, held = 0, row.first_held
    while held != 0 and held - 1 < market:
        before, held = held, state.positions[position_of(state, account, held - 1)].next_held
    if is_held:
        following = market + 1
        position.next_held = held
    else:
        following = position.next_held
    if before == 0:
        row.first_held = following
    else:
        state.positions[position_of(state, account, before - 1)].next_held = following


@apart
def change_holders(state, account, market, holds):
    """The account has a position in the market now, or none any more."""
    contract, position = state.markets[market], state.positions[position_of(state, account, market)]
    state.heap[0].positions += 1 if holds else -1
    contract.holders += 1 if holds else -1
    if holds:
        position.prior_holder, position.next_holder = 0, contract.first_holder
        if contract.first_holder != 0:
            state.positions[position_of(state, contract.first_holder - 1, market)].prior_holder = account + 1
        contract.first_holder = account + 1
        return
    if position.prior_holder == 0:
        contract.first_holder = position.next_holder
    else:
        state.positions[
            position_of(state, position.prior_holder - 1, market)
        ].next_holder = position.next_holder
    if position.next_holder != 0:
        state.positions[
            position_of(state, position.next_holder - 1, market)
        ].prior_holder = position.prior_holder


# --- orders -------------------------------------------------------------------------------------------------


@apart
def reserve(state, account, market, buys, sells):
    """Set what the open orders beside a position come to: of its sums, only the margin can change."""
    refresh(state, account)
    at = position_of(state, account, market)
    position = state.positions[at]
    value = position.size * state.markets[market].mark
    before, after = exposure_of(value, position.buys, position.sells), exposure_of(value, buys, sells)
    if after != before:
        leverage = leverage_of(state, position, market)
        state.accounts[account].used += ceil_div(after, leverage) - ceil_div(before, leverage)
    position.buys, position.sells = buys, sells
    list_position(state, account, market)
    touch_position(state, at)


@inner
def open_interest(state, account, market, side, value):
    """Count an open order's value (negative: no more) beside a position."""
    position = state.positions[position_of(state, account, market)]
    if side == Side.BUY:
        reserve(state, account, market, position.buys + value, position.sells)
    else:
        reserve(state, account, market, position.buys, position.sells + value)


@inner
def margin_with(state, account, market, buys, sells, leverage):
    """The margin of a position with other orders beside it, or another leverage."""
    value = state.positions[position_of(state, account, market)].size * state.markets[market].mark
    return ceil_div(exposure_of(value, buys, sells), leverage)


@inner
def covers(state, account, market, buys, sells, fee):
    """Whether the account can bear these orders beside a position, and a fee. It can if they are no more."""
    position = state.positions[position_of(state, account, market)]
    value, leverage = position.size * state.markets[market].mark, leverage_of(state, position, market)
    before, after = exposure_of(value, position.buys, position.sells), exposure_of(value, buys, sells)
    if after <= before:
        return True
    more = ceil_div(after, leverage) - ceil_div(before, leverage)
    return more == 0 or free_of(state, account) >= more + fee


@apart
def exceeds_tier(state, account, market, buys, sells):
    """Whether orders of this value would make too large a position for the account's leverage."""
    position, contract = state.positions[position_of(state, account, market)], state.markets[market]
    value = position.size * contract.mark
    limit = limit_of(contract, leverage_of(state, position, market))
    before = exposure_of(value, position.buys, position.sells)
    return 0 < limit < exposure_of(value, buys, sells) > before


@inner
def freed(state, account, market, buys, sells):
    """The margin that comes free when open orders of this value leave the side of a position."""
    position = state.positions[position_of(state, account, market)]
    leverage = leverage_of(state, position, market)
    before = margin_with(state, account, market, position.buys, position.sells, leverage)
    return before - margin_with(
        state, account, market, position.buys - buys, position.sells - sells, leverage
    )


# --- fills --------------------------------------------------------------------------------------------------


@apart
def fill_of(state, account, market, side, price, quantity, fee):
    """What a fill would make of a position: (size, entry, bucket, to cash, pnl, to cash by what it closes).

    An isolated position pays into its bucket for what it opens, and takes from it for what it closes; then
    the fee is the bucket's, too.
    """
    position = state.positions[position_of(state, account, market)]
    size, entry, isolated = position.size, position.entry, position.isolated
    sign = 1 if side == Side.BUY else -1
    closes, pnl = 0, 0
    if size * sign < 0:
        closes = min(abs(size), quantity)
        part = share(abs(entry), closes, abs(size))
        if size < 0:
            part = -part
        pnl = -sign * price * closes - part
        entry -= part
    opens = quantity - closes
    out = pnl - fee
    if position.is_isolated:
        if closes == abs(size) and closes > 0:
            out, isolated = isolated + out, 0
        elif closes > 0:
            out = max(0, share(max(isolated, 0), closes, abs(size)) + out)
            isolated += pnl - fee - out
    closed = out
    if position.is_isolated and opens > 0:
        moved = ceil_div(price * opens, leverage_of(state, position, market))
        isolated, out = isolated + moved, out - moved
    return size + sign * quantity, entry + sign * price * opens, isolated, out, pnl, closed


@apart
def bears(state, account, market, fill, buys, sells):
    """Whether an account may have this fill, with these orders left beside it. Its sums are refreshed.

    Who closes must keep the maintenance margin, or lose no more than what he needs less of it; who opens, the
    initial one.
    """
    position, contract = state.positions[position_of(state, account, market)], state.markets[market]
    row, leverage = state.accounts[account], leverage_of(state, position, market)
    size, entry, isolated, out, _, closed = fill
    before, value = position.size * contract.mark, size * contract.mark
    kept, keeps = maintenance_of(contract, abs(before)), maintenance_of(contract, abs(value))
    same_side = (size > 0) == (position.size > 0)
    closes_only = abs(size) < abs(position.size) and (size == 0 or same_side)
    margin = ceil_div(exposure_of(value, buys, sells), leverage)
    had = ceil_div(exposure_of(before, position.buys, position.sells), leverage)
    worth = row.cash + out + row.profit
    if position.is_isolated == 0:
        worth += value - entry - (before - position.entry)
        if closes_only:
            over = worth - (row.maintenance - kept + keeps)
            return over >= 0 or over >= row.cash + row.profit - row.maintenance
        return worth >= row.used - had + margin
    bucket = isolated + value - entry
    if closes_only:
        if size == 0:
            return closed >= 0
        over = bucket - keeps
        return over >= 0 or over >= position.isolated + before - position.entry - kept
    if position.size != 0 and not same_side and closed < 0:
        return False
    used = row.used - (had - ceil_div(abs(before), leverage)) + margin - ceil_div(abs(value), leverage)
    return worth >= used and bucket >= keeps


@inner
def survives(state, account, market, fill):
    """Whether an account, or an isolated position of it, would be left with nothing less than nothing."""
    position, mark = state.positions[position_of(state, account, market)], state.markets[market].mark
    size, entry, isolated, out, _, closed = fill
    if position.is_isolated:
        return closed >= 0 if size == 0 else isolated + size * mark - entry >= 0
    change = size * mark - entry - (position.size * mark - position.entry)
    return equity(state, account) + out + change >= 0


@apart
def settle(state, account, market, fill):
    """Change a position and its account's cash by a fill; return the closed pnl."""
    at = position_of(state, account, market)
    position, row, contract = state.positions[at], state.accounts[account], state.markets[market]
    size, entry, isolated, out, pnl, _ = fill
    count(state, account, market, -1)
    contract.open_interest += max(size, 0) - max(position.size, 0)
    contract.is_touched = 1
    had = position.size != 0
    position.size, position.entry, position.isolated = size, entry, isolated
    position.realised += pnl
    row.realised += pnl
    row.cash += out
    count(state, account, market, 1)
    list_position(state, account, market)
    if had != (size != 0):
        change_holders(state, account, market, size != 0)
    touch_position(state, at)
    return pnl
