"""What moves money other than a trade: transfers, what is put aside for a position, leverage; and fees.

Money is in 10**-USD_PLACES USD; a price times a quantity is that already. Bounds on every order, balance and
leverage, and on open interest, keep all products in int64 (engine/exchange/README.md).
"""

from engine.exchange import margin
from engine.exchange.arithmetic import ceil_div
from engine.exchange.outcomes import emit, touch_account, touch_position
from engine.exchange.records import Kind
from engine.exchange.signers import find_account, judge_new, make_account
from engine.exchange.state import FEE_ACCOUNT
from shm.bulk import copy_bytes
from shm.codes import Ask, Ledger, Refusal
from shm.constants import TRANSFER_PART
from shm.kernel import inner
from shm.layout import NO_ACCOUNT, NO_SLOT

AMOUNT_MAX = 10**15  # of one transfer
CASH_MAX = (
    10**17
)  # of one account when it is given money, and of all deposits: far from 2**63 at any leverage
RATE_UNIT = 10**6  # rates are in millionths of a notional


# --- trades -------------------------------------------------------------------------------------------------


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
def move(state, account, amount, nonce, kind, other):
    """Add a signed amount to the account's cash, and tell it; `other` is the account on the other side."""
    row = state.accounts[account]
    row.cash += amount
    row.deposited += amount
    outcome = emit(state, Kind.MONEY, account, -1)
    outcome.order, outcome.amount, outcome.code, outcome.other = nonce, amount, kind, other
    touch_account(state, account)


@inner
def _withdrawable(state, account):
    margin.refresh(state, account)
    return margin.withdrawable_of(state, account)


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
    if code == Refusal.NONE and state.heap[0].deposited + command.amount > CASH_MAX:
        code = Refusal.AMOUNT
    if code == Refusal.NONE and account == NO_SLOT:
        code = judge_new(state, command.other)
    if code != Refusal.NONE:
        return code
    state.heap[0].deposited += command.amount
    if account == NO_SLOT:
        account = make_account(state, command.other, NO_ACCOUNT)
    move(state, account, command.amount, command.nonce, Ledger.DEPOSIT, NO_ACCOUNT)
    return Refusal.NONE


@inner
def withdraw(state, command):
    account, amount = find_account(state, command.other), command.amount
    if amount < 1 or amount > AMOUNT_MAX:
        return Refusal.AMOUNT
    if account == NO_SLOT or amount > _withdrawable(state, account):
        return Refusal.BALANCE
    state.heap[0].deposited -= amount
    move(state, account, -amount, command.nonce, Ledger.WITHDRAW, NO_ACCOUNT)
    return Refusal.NONE


@inner
def send(state, command, account):
    """Give money to another account, which is made if there is none."""
    to = find_account(state, command.other)
    code = Refusal.AMOUNT if to == account else _judge_amount(state, to, command.amount)
    if code == Refusal.NONE and command.amount > _withdrawable(state, account):
        code = Refusal.BALANCE
    if code == Refusal.NONE and to == NO_SLOT:
        code = judge_new(state, command.other)
    if code != Refusal.NONE:
        return code
    if to == NO_SLOT:
        to = make_account(state, command.other, NO_ACCOUNT)
    move(state, account, -command.amount, command.nonce, Ledger.SEND, to)
    move(state, to, command.amount, command.nonce, Ledger.SEND, account)
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
    if code == Refusal.NONE and command.amount > _withdrawable(state, giver):
        code = Refusal.BALANCE
    if code != Refusal.NONE:
        return code
    move(state, giver, -command.amount, command.nonce, Ledger.SUB_TRANSFER, taker)
    move(state, taker, command.amount, command.nonce, Ledger.SUB_TRANSFER, giver)
    return Refusal.NONE


# --- leverage -----------------------------------------------------------------------------------------------


@inner
def update_leverage(state, command, account):
    margin.refresh(state, account)
    at, leverage, market = margin.position_of(state, account, command.market), command.amount, command.market
    position, contract = state.positions[at], state.markets[market]
    is_isolated = 0 if command.flags & Ask.IS_CROSS else 1
    if leverage < 1 or leverage > contract.max_leverage:
        return Refusal.LEVERAGE_VALUE
    value, limit = position.size * contract.mark, margin.limit_of(contract, leverage)
    if 0 < limit < margin.exposure_of(value, position.buys, position.sells):
        return Refusal.LEVERAGE_VALUE
    if is_isolated != position.is_isolated and position.size != 0:
        return Refusal.LEVERAGE_SWITCH
    before, moved = margin.leverage_of(state, position, market), 0
    if position.is_isolated and position.size != 0 and leverage < before:
        moved = max(0, ceil_div(abs(value), leverage) - margin.bucket_of(state, at, market))
    if not _may_change(state, account, market, leverage, moved):
        return Refusal.LEVERAGE_MARGIN
    margin.count(state, account, market, -1)
    position.leverage, position.is_isolated = leverage, is_isolated
    margin.count(state, account, market, 1)
    position.isolated += moved
    state.accounts[account].cash -= moved
    touch_position(state, at)
    return Refusal.NONE


@inner
def _may_change(state, account, market, leverage, moved):
    """Whether the account bears another leverage, and to put `moved` aside for it."""
    position = state.positions[margin.position_of(state, account, market)]
    before = margin.leverage_of(state, position, market)
    had = margin.margin_with(state, account, market, position.buys, position.sells, before)
    has = margin.margin_with(state, account, market, position.buys, position.sells, leverage)
    rises = has > had or moved > 0
    if position.is_isolated:
        value = abs(position.size * state.markets[market].mark)
        had, has = had - ceil_div(value, before), has - ceil_div(value, leverage)
    return not rises or margin.free_of(state, account) - moved + had - has >= 0


@inner
def isolated_margin(state, command, account):
    """Put money aside for an isolated position, or take it back."""
    margin.refresh(state, account)
    at, amount = margin.position_of(state, account, command.market), command.amount
    position = state.positions[at]
    if position.is_isolated == 0 or position.size == 0:
        return Refusal.NOT_ISOLATED
    if amount == 0 or amount > AMOUNT_MAX or amount < -AMOUNT_MAX:
        return Refusal.AMOUNT
    if amount > 0 and amount > margin.free_of(state, account):
        return Refusal.BALANCE
    left = margin.bucket_of(state, at, command.market) + amount
    if amount < 0 and left < _kept_aside(state, at, command.market):
        return Refusal.BALANCE
    position.isolated += amount
    state.accounts[account].cash -= amount
    touch_position(state, at)
    return Refusal.NONE


@inner
def _kept_aside(state, at, market):
    """What must stay with an isolated position when money is taken back."""
    position = state.positions[at]
    value = abs(position.size * state.markets[market].mark)
    leverage = margin.leverage_of(state, position, market)
    return max(ceil_div(value, leverage), ceil_div(value, TRANSFER_PART))


# --- what a block tells -------------------------------------------------------------------------------------


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
    account, market = at // len(state.markets), at % len(state.markets)
    row = state.positions[at]
    row.is_touched = 0
    leverage = margin.leverage_of(state, row, market)
    outcome = emit(state, Kind.POSITION, account, market)
    outcome.order, outcome.price, outcome.quantity, outcome.start = row.buys, row.size, row.entry, row.sells
    outcome.original = margin.margin_with(state, account, market, row.buys, row.sells, leverage)
    outcome.placed_ms, outcome.trade = row.isolated, row.realised
    outcome.amount, outcome.fee = leverage, 1 - row.is_isolated
