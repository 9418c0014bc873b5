"""Who cannot keep his positions, and who gets them: the book, then the insurance account, then the others.

Marks move, and then everyone's margin is looked at once (a circle), so many accounts at the end of a block;
until a circle has found nothing to do, another follows. The marks at which one has ended are sound: whoever
is closed against the will of both closes there, if nothing is left of him at the present ones.
"""

from engine.exchange import funding, margin, matching, money
from engine.exchange.arithmetic import ceil_div, share
from engine.exchange.outcomes import emit, look_at_all
from engine.exchange.prices import is_open
from engine.exchange.records import Kind, Role
from engine.exchange.state import FEE_ACCOUNT, INSURANCE
from shm.codes import NAMES, Flag, Ledger, Method, Side, Status, Tif
from shm.kernel import apart, inner
from shm.layout import NO_SLOT

ACCOUNTS_A_BLOCK = 4096  # looked at
LIQUIDATIONS_A_BLOCK = 64  # accounts for whom something was done
CLOSINGS_MAX = 4096  # of one account at once
PARTIAL_VALUE = 100_000 * 10**6  # of a position that is sold in parts
PARTS = 5
PARTIAL_MS = 30_000  # within which what follows a part is the whole
RATIO_UNIT, RATIO_MAX = 10**6, 10**9
CROSS = -1
CANCELED = NAMES.index("liquidatedCanceled")
CLOSING_OUTCOMES = 10  # two fills, two pairs of entries, and what a block's end tells of the two


@inner
def outcomes_needed(state):
    """How many outcomes the liquidation of one account can have, with what a block's end tells of it."""
    status, heap = state.status[0], state.heap[0]
    closings = min(CLOSINGS_MAX, heap.positions) + status.market_count
    return 8 * status.order_count + CLOSING_OUTCOMES * closings + 8 * status.market_count + 64


@inner
def room(state):
    """How many more outcomes fit, besides those that the end of this block has to tell."""
    heap = state.heap[0]
    owed = heap.touched_accounts + heap.touched_positions + 4 * state.status[0].market_count
    return len(state.outcomes) - heap.outcomes - owed


@apart
def pay_funding(state):
    """At the end of a block: the next accounts pay for the hour that is over, if they have not yet."""
    heap, looked = state.heap[0], 0
    while heap.funding_left > 0 and looked < funding.ACCOUNTS_A_BLOCK:
        if room(state) < 4 * state.status[0].market_count + 2:
            return
        if funding.is_owed(state, heap.funding_next):
            funding.pay(state, heap.funding_next)
        heap.funding_next += 1
        heap.funding_left -= 1
        looked += 1


@apart
def look(state):
    """At the end of a block: look at the next accounts of the circle, and take what they cannot keep."""
    heap, count = state.heap[0], state.status[0].account_count
    looked, acted = 0, 0
    while heap.circle_left > 0 and looked < ACCOUNTS_A_BLOCK and acted < LIQUIDATIONS_A_BLOCK:
        if room(state) < outcomes_needed(state):
            break
        account = heap.circle_next % count
        heap.circle_next = (account + 1) % count
        heap.circle_left -= 1
        looked += 1
        if state.accounts[account].first_held != 0:
            margin.refresh(state, account)
            first = heap.outcomes
            _examine(state, account)
            acted += heap.outcomes > first
    if acted > 0:
        look_at_all(state)
    elif looked > 0 and heap.circle_left == 0:
        for market in range(state.status[0].market_count):
            state.markets[market].sound_mark = state.markets[market].mark


@inner
def _examine(state, account):
    row = state.accounts[account]
    if account == FEE_ACCOUNT:
        return
    held = row.first_held
    while held != 0 and account != INSURANCE:
        at, market = margin.position_of(state, account, held - 1), held - 1
        position = state.positions[at]
        held = position.next_held
        if position.is_isolated and position.size != 0:
            kept = margin.maintenance_of(state.markets[market], _value(state, account, market))
            if margin.bucket_of(state, at, market) < kept:
                _liquidate(state, account, market)
    if row.notional > 0 and margin.equity(state, account) < row.maintenance:
        _liquidate(state, account, CROSS)


@inner
def _value(state, account, market):
    """What a position is worth at the mark, without its sign."""
    return abs(state.positions[margin.position_of(state, account, market)].size) * state.markets[market].mark


@inner
def _is_meant(state, account, market, scope):
    """Whether a position is one of those that stand or fall together: all cross ones, or the one isolated."""
    position = state.positions[margin.position_of(state, account, market)]
    if position.size == 0:
        return False
    return position.is_isolated == 0 if scope == CROSS else market == scope


@apart
def _liquidate(state, account, scope):
    """Take the positions of the scope (a market's isolated one, or CROSS) from the account."""
    heap, row, first = state.heap[0], state.accounts[account], state.heap[0].outcomes
    worth, kept, notional = margin.equity(state, account), row.maintenance, row.notional
    if scope != CROSS:
        notional = _value(state, account, scope)
        worth = margin.bucket_of(state, margin.position_of(state, account, scope), scope)
        kept = margin.maintenance_of(state.markets[scope], notional)
    slot = row.first_order if account != INSURANCE else NO_SLOT
    while slot != NO_SLOT:
        following, has_children = state.orders[slot].account_next, state.orders[slot].role == Role.PARENT
        if scope == CROSS or state.orders[slot].market == scope:
            matching.end(state, slot, CANCELED)
            if has_children:
                following = row.first_order  # what followed may have ended with it
        slot = following
    method = Method.MARKET
    if account != INSURANCE and 3 * worth >= 2 * kept:
        _sell(state, account, scope)
    elif account != INSURANCE and _can_insure(state, account, scope, worth):
        method = Method.BACKSTOP
        _insure(state, account, scope)
    else:
        method = Method.DELEVERAGING
        _deleverage(state, account, scope, worth >= 0)
    if heap.outcomes > first:
        outcome = emit(state, Kind.LIQUIDATED, account, scope)
        outcome.price, outcome.amount, outcome.quantity, outcome.code = worth, kept, notional, method


# --- the book -----------------------------------------------------------------------------------------------


@inner
def _sell(state, account, scope):
    """Sell what is needed on the book: of large positions a part at first."""
    now_ms = state.heap[0].time_ns // 1_000_000
    row, in_parts = state.accounts[account], now_ms - state.accounts[account].partial_ms >= PARTIAL_MS
    held = row.first_held
    while held != 0:
        market, at = held - 1, margin.position_of(state, account, held - 1)
        held = state.positions[at].next_held
        if scope == CROSS and margin.equity(state, account) >= row.maintenance:
            return
        if _is_meant(state, account, market, scope) and is_open(state.markets[market]):
            quantity = abs(state.positions[at].size)
            if in_parts and _value(state, account, market) > PARTIAL_VALUE:
                quantity = ceil_div(quantity, PARTS)
                if matching.sell_out(state, account, market, quantity, Tif.LIQUIDATION):
                    row.partial_ms = now_ms
            else:
                matching.sell_out(state, account, market, quantity, Tif.LIQUIDATION)


# --- the insurance account ----------------------------------------------------------------------------------


@inner
def _can_insure(state, account, scope, worth):
    """Whether the insurance account keeps its maintenance margin with all of it added to its own."""
    margin.refresh(state, INSURANCE)
    kept, held = state.accounts[INSURANCE].maintenance, state.accounts[account].first_held
    while held != 0:
        market, at = held - 1, margin.position_of(state, account, held - 1)
        if _is_meant(state, account, market, scope):
            contract = state.markets[market]
            mine = state.positions[margin.position_of(state, INSURANCE, market)].size
            kept -= margin.maintenance_of(contract, abs(mine) * contract.mark)
            kept += margin.maintenance_of(contract, abs(mine + state.positions[at].size) * contract.mark)
        held = state.positions[at].next_held
    return margin.equity(state, INSURANCE) + worth >= kept


@inner
def _insure(state, account, scope):
    """Give the positions to the insurance account at the mark, and what is left with them."""
    held, left = state.accounts[account].first_held, 0
    while held != 0:
        market, at = held - 1, margin.position_of(state, account, held - 1)
        held = state.positions[at].next_held
        if _is_meant(state, account, market, scope):
            quantity = abs(state.positions[at].size)
            _, left = _close(
                state, account, INSURANCE, market, state.markets[market].mark, quantity, Method.BACKSTOP
            )
    _hand_over(state, account, state.accounts[account].cash if scope == CROSS else left)


@apart
def _hand_over(state, account, amount):
    """Move an amount from an account to the insurance account; less than nothing: the other way."""
    if amount != 0 and account != INSURANCE:
        money.move(state, account, -amount, 0, Ledger.LIQUIDATION, INSURANCE)
        money.move(state, INSURANCE, amount, 0, Ledger.LIQUIDATION, account)


# --- the others ---------------------------------------------------------------------------------------------


@inner
def _deleverage(state, account, scope, is_solvent):
    """Close the positions against those who gain most by their other side, with the most leverage."""
    held, closings = state.accounts[account].first_held, 0
    while held != 0:
        market, at = held - 1, margin.position_of(state, account, held - 1)
        held = state.positions[at].next_held
        if _is_meant(state, account, market, scope):
            contract = state.markets[market]
            price = contract.mark if is_solvent else contract.sound_mark
            count = _rank(state, account, market)
            while state.positions[at].size != 0 and count > 0:
                if closings == CLOSINGS_MAX:
                    return
                closings += 1
                other, count = _next_ranked(state, count)
                theirs = state.positions[margin.position_of(state, other, market)].size
                quantity = min(abs(state.positions[at].size), abs(theirs))
                theirs, left = _close(state, account, other, market, price, quantity, Method.DELEVERAGING)
                matching.end_reducing(state, other, market)
                if theirs < 0 and state.positions[margin.position_of(state, other, market)].is_isolated:
                    _hand_over(state, other, theirs)
                if scope != CROSS and state.positions[at].size == 0 and left < 0:
                    _hand_over(state, account, left)
    if scope == CROSS and state.accounts[account].cash < 0 and state.accounts[account].notional == 0:
        _hand_over(state, account, state.accounts[account].cash)


@inner
def ratio(a, b):
    """a / b in RATIO_UNIT, rounded down, at most RATIO_MAX, which is also what nothing divides to."""
    if b <= 0 or a // b >= RATIO_MAX // RATIO_UNIT:
        return RATIO_MAX
    whole, rest = a // b, a % b
    return whole * RATIO_UNIT + share(RATIO_UNIT, rest, b)


@inner
def _rank(state, account, market):
    """Gather who stands on the other side of the account's position, as a heap; return how many."""
    size, count = state.positions[margin.position_of(state, account, market)].size, 0
    holder = state.markets[market].first_holder
    while holder != 0:
        other, at = holder - 1, margin.position_of(state, holder - 1, market)
        position = state.positions[at]
        holder = position.next_holder
        if (position.size > 0) != (size > 0):
            state.rank_keys[count] = _rank_of(state, other, market)
            state.rank_rows[count] = other
            count += 1
    for at in range(count // 2 - 1, -1, -1):
        _sift(state, at, count)
    return count


@inner
def _rank_of(state, account, market):
    margin.refresh(state, account)
    at = margin.position_of(state, account, market)
    position, value = state.positions[at], _value(state, account, market)
    opened = abs(position.entry)
    gain = ratio(value, opened) if position.size > 0 else ratio(opened, value)
    worth = margin.bucket_of(state, at, market) if position.is_isolated else margin.equity(state, account)
    return gain * ratio(value, worth)


@inner
def _is_before(state, one, other):
    """Whether an entry of the heap ranks higher than another."""
    if state.rank_keys[one] != state.rank_keys[other]:
        return state.rank_keys[one] > state.rank_keys[other]
    return state.rank_rows[one] < state.rank_rows[other]


@inner
def _sift(state, at, count):
    """Let the entry at a place of the heap sink to where it belongs."""
    while True:
        child = 2 * at + 1
        if child >= count:
            return
        if child + 1 < count and _is_before(state, child + 1, child):
            child += 1
        if not _is_before(state, child, at):
            return
        key, row = state.rank_keys[at], state.rank_rows[at]
        state.rank_keys[at], state.rank_rows[at] = state.rank_keys[child], state.rank_rows[child]
        state.rank_keys[child], state.rank_rows[child] = key, row
        at = child


@inner
def _next_ranked(state, count):
    """Take the highest out of the heap; return it, and how many are left."""
    row = state.rank_rows[0]
    state.rank_keys[0], state.rank_rows[0] = state.rank_keys[count - 1], state.rank_rows[count - 1]
    _sift(state, 0, count - 1)
    return row, count - 1


# --- what passes between two without a trade ----------------------------------------------------------------


@apart
def _close(state, owner, other, market, price, quantity, method):
    """Close so much of the owner's position against another account; return what each cash got."""
    heap = state.heap[0]
    heap.orders += 1
    side = Side.SELL if state.positions[margin.position_of(state, owner, market)].size > 0 else Side.BUY
    theirs = _pass(state, other, owner, market, 1 - side, price, quantity, method, 0)
    return theirs, _pass(state, owner, other, market, side, price, quantity, method, Flag.CROSSED)


@apart
def _pass(state, account, other, market, side, price, quantity, method, crossed):
    """One side of it: tell and settle; return what cash got of what was closed in full."""
    at = margin.position_of(state, account, market)
    fill = margin.fill_of(state, account, market, side, price, quantity, 0)
    outcome = emit(state, Kind.FILLED, account, market)
    outcome.order, outcome.price, outcome.side, outcome.tif = (
        state.heap[0].orders,
        price,
        side,
        Tif.LIQUIDATION,
    )
    outcome.placed_ms, outcome.flags = state.heap[0].time_ns // 1_000_000, Flag.LIQUIDATION | crossed
    outcome.quantity, outcome.start, outcome.other = quantity, state.positions[at].size, other
    outcome.trade = matching.trade_id(state.heap[0].orders, state.heap[0].orders)
    outcome.done, outcome.status, outcome.code = 1, Status.FILLED, method
    outcome.amount = margin.settle(state, account, market, fill)
    return fill[5]
