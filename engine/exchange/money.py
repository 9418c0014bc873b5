"""Cash, positions and the margin they need, in exact integers.

Money is in 10**-USD_PLACES USD; a price times a quantity is that already. What an account has free is its
cash less the margin in use; margin is the notional that its position and its open orders of one side could
come to, over the leverage it chose. Bounds on every order, balance and leverage keep all products in int64;
the one division that could not (`share`) goes bit by bit.
"""

from engine.exchange.arithmetic import ceil_div, share
from engine.exchange.outcomes import emit, touch_account, touch_position
from engine.exchange.records import Kind
from engine.exchange.signers import find_account, judge_new, make_account
from engine.exchange.state import FEE_ACCOUNT
from shm.codes import Ask, Ledger, Refusal, Side
from shm.constants import LEVERAGE_DEFAULT
from shm.kernel import copy_bytes, inner
from shm.layout import NO_ACCOUNT, NO_SLOT

AMOUNT_MAX = 10**15  # of one transfer
CASH_MAX = 10**17  # of one account: times the highest leverage it is still far from 2**63
RATE_UNIT = 10**6  # rates are in millionths of a notional


# --- margin -------------------------------------------------------------------------------------------------


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
def margin_of(entry, buys, sells, leverage):
    """The margin of a signed entry notional and the open orders beside it."""
    return ceil_div(max(entry + buys, sells - entry, 0), leverage)


@inner
def reserve(state, account, market, buys, sells):
    """Set what the open orders beside a position come to, and the margin accordingly."""
    at = position_of(state, account, market)
    position = state.positions[at]
    position.buys, position.sells = buys, sells
    used = margin_of(position.entry, buys, sells, leverage_of(state, position, market))
    state.accounts[account].used += used - position.used
    position.used = used
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
def covers(state, account, market, buys, sells, leverage, fee):
    """Whether the account can bear this margin in place of the present one, and a fee. Less it always can."""
    position, account = state.positions[position_of(state, account, market)], state.accounts[account]
    used = margin_of(position.entry, buys, sells, leverage)
    return used <= position.used or account.cash - (account.used - position.used + used) - fee >= 0


@inner
def freed(state, account, market, buys, sells):
    """The margin that comes free when open orders of this value leave the side of a position."""
    position = state.positions[position_of(state, account, market)]
    leverage = leverage_of(state, position, market)
    return position.used - margin_of(position.entry, position.buys - buys, position.sells - sells, leverage)


# --- trades -------------------------------------------------------------------------------------------------


@inner
def settle(state, account, market, side, price, quantity, fee):
    """Change a position and its account's cash by one side of a trade; return the closed pnl."""
    position, account = state.positions[position_of(state, account, market)], state.accounts[account]
    market = state.markets[market]
    long_before = max(position.size, 0)
    sign = 1 if side == Side.BUY else -1
    size, pnl, opens = position.size, 0, quantity
    if size * sign < 0:
        closes = min(abs(size), quantity)
        part = share(abs(position.entry), closes, abs(size))
        if size < 0:
            part = -part
        pnl = -sign * price * closes - part
        position.entry -= part
        position.size += sign * closes
        opens = quantity - closes
    position.size += sign * opens
    position.entry += sign * price * opens
    position.realised += pnl
    account.realised += pnl
    account.fees += fee
    account.cash += pnl - fee
    account.volume += price * quantity
    if position.size == 0:
        account.cash += position.isolated
        position.isolated = 0
    market.open_interest += max(position.size, 0) - long_before
    return pnl


@inner
def fees_of(market, notional):
    """Return (maker's, taker's) fee. A rebate is never more than the fee that pays for it."""
    taker = ceil_div(notional * market.taker_rate, RATE_UNIT)
    maker = ceil_div(notional * market.maker_rate, RATE_UNIT)
    return max(maker, -taker), taker


@inner
def take_fee(state, fee):
    state.accounts[FEE_ACCOUNT].cash += fee
    touch_account(state, FEE_ACCOUNT)


# --- transfers ----------------------------------------------------------------------------------------------


@inner
def free_of(state, account):
    row = state.accounts[account]
    return row.cash - row.used


@inner
def move(state, command, account, amount, kind, other):
    """Add a signed amount to the account's cash, and tell it; `other` is the account on the other side."""
    row = state.accounts[account]
    row.cash += amount
    row.deposited += amount
    outcome = emit(state, Kind.MONEY, account, -1)
    outcome.order, outcome.amount, outcome.code, outcome.other = command.nonce, amount, kind, other
    touch_account(state, account)


@inner
def _judge_amount(state, account, amount):
    """Whether the account (NO_SLOT: a new one) may be given so much."""
    if amount < 1 or amount > AMOUNT_MAX:
        return Refusal.AMOUNT
    if account != NO_SLOT and state.accounts[account].cash + amount > CASH_MAX:
        return Refusal.AMOUNT
    return Refusal.NONE


@inner
def deposit(state, command):
    account = find_account(state, command.other)
    code = _judge_amount(state, account, command.amount)
    if code == Refusal.NONE and account == NO_SLOT:
        code = judge_new(state, command.other)
    if code != Refusal.NONE:
        return code
    if account == NO_SLOT:
        account = make_account(state, command.other, NO_ACCOUNT)
    move(state, command, account, command.amount, Ledger.DEPOSIT, NO_ACCOUNT)
    return Refusal.NONE


@inner
def withdraw(state, command):
    account, amount = find_account(state, command.other), command.amount
    if amount < 1 or amount > AMOUNT_MAX:
        return Refusal.AMOUNT
    if account == NO_SLOT or amount > free_of(state, account):
        return Refusal.BALANCE
    move(state, command, account, -amount, Ledger.WITHDRAW, NO_ACCOUNT)
    return Refusal.NONE


@inner
def send(state, command, account):
    """Give money to another account, which is made if there is none."""
    to = find_account(state, command.other)
    code = Refusal.AMOUNT if to == account else _judge_amount(state, to, command.amount)
    if code == Refusal.NONE and command.amount > free_of(state, account):
        code = Refusal.BALANCE
    if code == Refusal.NONE and to == NO_SLOT:
        code = judge_new(state, command.other)
    if code != Refusal.NONE:
        return code
    if to == NO_SLOT:
        to = make_account(state, command.other, NO_ACCOUNT)
    move(state, command, account, -command.amount, Ledger.SEND, to)
    move(state, command, to, command.amount, Ledger.SEND, account)
    return Refusal.NONE


@inner
def transfer_sub(state, command, account):
    """Move money between an account and a sub-account that it leads."""
    sub = find_account(state, command.other)
    if sub == NO_SLOT or state.accounts[sub].master != account:
        return Refusal.SUB_UNKNOWN
    is_deposit = command.flags & Ask.IS_DEPOSIT != 0
    giver, taker = (account, sub) if is_deposit else (sub, account)
    code = _judge_amount(state, taker, command.amount)
    if code == Refusal.NONE and command.amount > free_of(state, giver):
        code = Refusal.BALANCE
    if code != Refusal.NONE:
        return code
    move(state, command, giver, -command.amount, Ledger.SUB_TRANSFER, taker)
    move(state, command, taker, command.amount, Ledger.SUB_TRANSFER, giver)
    return Refusal.NONE


# --- leverage -----------------------------------------------------------------------------------------------


@inner
def update_leverage(state, command, account):
    at, leverage = position_of(state, account, command.market), command.amount
    position = state.positions[at]
    is_isolated = 0 if command.flags & Ask.IS_CROSS else 1
    if leverage < 1 or leverage > state.markets[command.market].max_leverage:
        return Refusal.LEVERAGE_VALUE
    if is_isolated != position.is_isolated and position.size != 0:
        return Refusal.LEVERAGE_SWITCH
    if not covers(state, account, command.market, position.buys, position.sells, leverage, 0):
        return Refusal.LEVERAGE_MARGIN
    position.leverage, position.is_isolated = leverage, is_isolated
    reserve(state, account, command.market, position.buys, position.sells)
    return Refusal.NONE


@inner
def isolated_margin(state, command, account):
    """Put money aside for an isolated position, or take it back."""
    at, amount = position_of(state, account, command.market), command.amount
    position = state.positions[at]
    if position.is_isolated == 0 or position.size == 0:
        return Refusal.NOT_ISOLATED
    if amount == 0 or amount > AMOUNT_MAX or amount < -AMOUNT_MAX:
        return Refusal.AMOUNT
    if amount > free_of(state, account) or position.isolated + amount < 0:
        return Refusal.BALANCE
    position.isolated += amount
    state.accounts[account].cash -= amount
    touch_position(state, at)
    return Refusal.NONE


@inner
def tell_account(state, account):
    """At the end of a block: the account's money as it stands."""
    row = state.accounts[account]
    row.is_touched = 0
    outcome = emit(state, Kind.FUNDS, account, -1)
    outcome.order, outcome.price, outcome.quantity = row.actions, row.cash, row.used
    outcome.original, outcome.placed_ms, outcome.trade = row.volume, row.schedule_ms, row.deposited
    outcome.amount, outcome.start, outcome.fee = row.realised, row.created_ms, row.fees
    outcome.other = row.master
    outcome.done = row.is_killed
    copy_bytes(outcome.text, row.name)


@inner
def tell_position(state, at):
    """At the end of a block: a position as it stands."""
    market = at % len(state.markets)
    row = state.positions[at]
    row.is_touched = 0
    outcome = emit(state, Kind.POSITION, at // len(state.markets), market)
    outcome.price, outcome.quantity, outcome.original = row.size, row.entry, row.used
    outcome.placed_ms, outcome.trade = row.isolated, row.realised
    outcome.amount, outcome.fee = leverage_of(state, row, market), 1 - row.is_isolated
