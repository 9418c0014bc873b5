"""The exchange: sequenced commands in, outcomes and acks out. A function of the state and the commands alone.

No clock (a command carries its time), no I/O, no chance, no allocation. Whatever a command holds, it is
either taken whole or refused whole, and the state stays sound.
"""

import numpy as np

from engine.exchange import (
    funding,
    judging,
    liquidation,
    margin,
    markets,
    matching,
    money,
    prices,
    signers,
    telling,
    triggers,
    twap,
)
from engine.exchange.ahead import fetch
from engine.exchange.outcomes import answer, emit, seal, touch_account
from engine.exchange.records import Kind, Role
from engine.exchange.state import FEE_ADDRESS, INSURANCE_ADDRESS, TINY, allocate
from shm.codes import Ack, Ask, Command, Refusal
from shm.kernel import apart, entry, inner
from shm.layout import COMMAND, NO_ACCOUNT, NO_SLOT

SCHEDULE_AHEAD_MS = 5000
SCHEDULES_A_DAY = 10
OUTCOMES_AN_ORDER = 2
OUTCOMES_A_COMMAND = 16
OUTCOMES_A_MARKET = 4  # at the end of a block: its mark, its rate, its premium, itself

_FEE_ADDRESS = np.frombuffer(FEE_ADDRESS, np.uint8)
_INSURANCE_ADDRESS = np.frombuffer(INSURANCE_ADDRESS, np.uint8)


@entry
def apply_commands(state, commands, count):
    """Apply the first `count` of commands (COMMAND[], stamped); return how many of them were applied.

    Fewer only where there is no room for more outcomes or acks: take what there is, and call again. What is
    left of an action is decided as it began. state.heap says how many outcomes and acks this call gave.
    """
    heap = state.heap[0]
    heap.outcomes, heap.acks = 0, 0
    if state.status[0].account_count == 0:
        signers.make_account(state, _FEE_ADDRESS, NO_ACCOUNT)
        signers.make_account(state, _INSURANCE_ADDRESS, NO_ACCOUNT)
        seal(state, 0, heap.outcomes)
    applied, sealed = 0, heap.outcomes
    while applied < count:
        fetch(state, commands, applied, count)
        command, first = commands[applied], heap.outcomes
        if heap.acks == len(state.acks) or first + _outcomes_max(state, command) > len(state.outcomes):
            break
        heap.sequence, heap.time_ns = command.sequence, command.time_ns
        ends_block = command.kind == Command.END_BLOCK
        if ends_block:
            sealed = seal(state, sealed, first)
        _apply(state, command)
        # what was written just now is not read yet: a processor would wait for it
        sealed = seal(state, sealed, heap.outcomes if ends_block else first)
        if ends_block:
            heap.block_digest = heap.digest
        applied += 1
    seal(state, sealed, heap.outcomes)
    return applied


@inner
def _outcomes_max(state, command):
    """How many outcomes the command can have: every open order fills or ends at most once."""
    heap, status = state.heap[0], state.status[0]
    most = OUTCOMES_AN_ORDER * status.order_count + OUTCOMES_A_COMMAND
    if command.kind == Command.END_BLOCK:
        most += heap.touched_accounts + heap.touched_positions + 2 * status.order_count
        most += OUTCOMES_A_MARKET * status.market_count + liquidation.outcomes_needed(state)
    if heap.funding_left > 0:
        most += 3 * heap.positions
    return most


@inner
def _apply(state, command):
    kind = command.kind
    if kind >= Command.ADD_MARKET:
        _operate(state, command)
        return
    heap = state.heap[0]
    if command.place == 0:
        signers.open_action(state, command)
    elif not signers.goes_on(state, command):
        heap.action_code = Refusal.NOT_A_COMMAND
    if heap.action_code != Refusal.NONE:
        answer(state, command, Ack.REFUSED, heap.action_code, 0, 0, 0)
        return
    account = heap.action_account
    knows_market = 0 <= command.market < state.status[0].market_count
    if kind == Command.ORDER:
        _order(state, command, account, knows_market)
    elif kind == Command.MODIFY:
        _modify(state, command, account, knows_market)
    elif kind == Command.CANCEL or kind == Command.CANCEL_CLOID:
        _cancel(state, command, account, knows_market)
    elif kind == Command.TWAP or kind == Command.TWAP_CANCEL:
        _twap(state, command, account, knows_market)
    elif kind == Command.CANCEL_ALL:
        count = matching.end_all(state, account, telling.CANCELED)
        answer(state, command, Ack.DONE, Refusal.NONE, 0, count, 0)
    else:
        _finish(state, command, _change_account(state, command, account, knows_market))


@inner
def _finish(state, command, code):
    """Answer a command that is either done or refused."""
    answer(state, command, Ack.DONE if code == Refusal.NONE else Ack.REFUSED, code, 0, 0, 0)


@inner
def _order(state, command, account, knows_market):
    triggers.begin(state, command)
    if not knows_market:
        answer(state, command, Ack.REFUSED, Refusal.ORDER_MARKET, 0, 0, 0)
        return
    heap = state.heap[0]
    heap.orders += 1
    oid = heap.orders
    code, quantity = triggers.group(state, command, oid), 0
    if code == Refusal.NONE:
        code, quantity = _judge(state, command, account, NO_SLOT)
    if code != Refusal.NONE:
        telling.refuse(state, command, account, oid, code)
        return
    ack, remaining = _place(state, command, account, oid, quantity)
    triggers.note_parent(state, command, oid, ack, remaining)


@inner
def _judge(state, command, account, replaced):
    if command.flags & Ask.IS_TRIGGER:
        return judging.judge_trigger(state, command, account, replaced)
    return judging.judge(state, command, account, replaced)


@inner
def _place(state, command, account, oid, quantity):
    if command.flags & Ask.IS_TRIGGER:
        return triggers.place(state, command, account, oid, quantity)
    return matching.place(state, command, account, oid, quantity)


@inner
def _modify(state, command, account, knows_market):
    """Cancel and replace: a new oid, a new place in the queue. If that is refused, the old one stays."""
    triggers.begin(state, command)
    if not knows_market:
        answer(state, command, Ack.REFUSED, Refusal.ORDER_MARKET, 0, 0, 0)
        return
    old = matching.find_open(state, account, command, command.flags & Ask.BY_CLOID != 0)
    if old == NO_SLOT and command.flags & Ask.ALWAYS_PLACE == 0:
        answer(state, command, Ack.REFUSED, Refusal.MODIFY_GONE, 0, 0, 0)
        return
    heap = state.heap[0]
    heap.orders += 1
    oid = heap.orders
    if old != NO_SLOT:
        triggers.inherit(state, command, account, old)
    code, quantity = _judge(state, command, account, old)
    if code != Refusal.NONE:
        telling.refuse(state, command, account, oid, code)
        return
    if old != NO_SLOT and matching.only_moves(state, command, old):
        matching.move(state, command, account, old, oid, quantity)
        return
    is_parent, group = heap.role == Role.PARENT, heap.group
    if old != NO_SLOT:
        if is_parent:
            state.orders[old].role = Role.ALONE  # so that its children outlive it
        matching.end(state, old, telling.CANCELED)
    ack, remaining = _place(state, command, account, oid, quantity)
    if is_parent:
        triggers.hand_on(state, account, group, ack, remaining)


@inner
def _cancel(state, command, account, knows_market):
    if not knows_market:
        answer(state, command, Ack.REFUSED, Refusal.ORDER_MARKET, 0, 0, 0)
        return
    slot = matching.find_open(state, account, command, command.kind == Command.CANCEL_CLOID)
    if slot == NO_SLOT or state.orders[slot].market != command.market:
        answer(state, command, Ack.REFUSED, Refusal.GONE, 0, 0, 0)
        return
    oid = state.orders[slot].order
    matching.end(state, slot, telling.CANCELED)
    answer(state, command, Ack.DONE, Refusal.NONE, oid, 0, 0)


@inner
def _twap(state, command, account, knows_market):
    """Begin an order in slices, or end it: the ack has its id."""
    code, number = Refusal.ORDER_MARKET, command.order
    if knows_market and command.kind == Command.TWAP_CANCEL:
        code = twap.cancel(state, command, account)
    elif knows_market:
        code = twap.judge(state, command, account)
        if code == Refusal.NONE:
            number = twap.place(state, command, account)
    if code == Refusal.NONE:
        answer(state, command, Ack.DONE, Refusal.NONE, number, 0, 0)
    else:
        answer(state, command, Ack.REFUSED, code, 0, 0, 0)


@inner
def _change_account(state, command, account, knows_market):
    kind = command.kind
    if kind == Command.NOOP:
        return Refusal.NONE
    if kind == Command.SCHEDULE_CANCEL:
        return _schedule(state, command, account)
    if kind == Command.USD_SEND:
        return money.send(state, command, account)
    if kind == Command.APPROVE_AGENT:
        return signers.approve_agent(state, command, account)
    if kind == Command.CREATE_SUB:
        return signers.create_sub(state, command, account)
    if kind == Command.SUB_TRANSFER:
        return money.transfer_sub(state, command, account)
    if kind != Command.UPDATE_LEVERAGE and kind != Command.ISOLATED_MARGIN:
        return Refusal.NOT_A_COMMAND
    if not knows_market:
        return Refusal.UNKNOWN_MARKET
    if kind == Command.UPDATE_LEVERAGE:
        return money.update_leverage(state, command, account)
    return money.isolated_margin(state, command, account)


# --- scheduled cancels --------------------------------------------------------------------------------------


@inner
def _schedule(state, command, account):
    """Cancel all the account's orders at a time, unless it says otherwise before; 0: not any more."""
    row, now_ms, at_ms = state.accounts[account], command.time_ns // 1_000_000, command.amount
    if at_ms != 0:
        if at_ms < now_ms + SCHEDULE_AHEAD_MS:
            return Refusal.SCHEDULE_SOON
        if row.schedule_day == now_ms // signers.DAY_MS and row.schedule_count >= SCHEDULES_A_DAY:
            return Refusal.SCHEDULE_OFTEN
    row.schedule_ms = at_ms
    heap = state.heap[0]
    if at_ms != 0 and (heap.schedule_ms == 0 or at_ms < heap.schedule_ms):
        heap.schedule_ms = at_ms
    touch_account(state, account)
    return Refusal.NONE


@apart
def _fire_schedules(state, now_ms):
    heap, next_ms = state.heap[0], 0
    for account in range(state.status[0].account_count):
        row = state.accounts[account]
        if 0 < row.schedule_ms <= now_ms:
            day = now_ms // signers.DAY_MS
            if row.schedule_day != day:
                row.schedule_day, row.schedule_count = day, 0
            row.schedule_count += 1
            row.schedule_ms = 0
            touch_account(state, account)
            matching.end_all(state, account, telling.SCHEDULED)
        if row.schedule_ms > 0 and (next_ms == 0 or row.schedule_ms < next_ms):
            next_ms = row.schedule_ms
    heap.schedule_ms = next_ms


# --- the operator's -----------------------------------------------------------------------------------------


@inner
def _operate(state, command):
    kind = command.kind
    if kind == Command.ADD_MARKET:
        code = markets.add(state, command)
    elif kind == Command.DEPOSIT:
        code = money.deposit(state, command)
    elif kind == Command.WITHDRAW:
        code = money.withdraw(state, command)
    elif kind == Command.END_BLOCK:
        _end_block(state, command)
        code = Refusal.NONE
    elif kind == Command.KILL:
        code = markets.kill(state, command)
    elif kind > Command.KILL:
        code = Refusal.NOT_A_COMMAND
    elif command.market < 0 or command.market >= state.status[0].market_count:
        code = Refusal.UNKNOWN_MARKET
    elif kind == Command.ORACLE:
        code = prices.hear_oracle(state, command)
    elif kind == Command.LIMITS:
        code = markets.limit(state, command)
    elif kind == Command.TIER:
        code = markets.add_tier(state, command)
    else:
        code = markets.set_mode(state, command)
    _finish(state, command, code)


@apart
def _end_block(state, command):
    """Tell all that the block has touched as it stands now, and close it."""
    heap = state.heap[0]
    now_ms = command.time_ns // 1_000_000
    if command.amount != 0 and command.amount != heap.block_digest and heap.diverged == 0:
        heap.diverged, heap.diverged_digest = command.sequence, heap.block_digest
    if 0 < heap.schedule_ms <= now_ms:
        _fire_schedules(state, now_ms)
    prices.let_age(state, now_ms)
    prices.mark_themselves(state, now_ms)
    funding.begin(state, now_ms)
    liquidation.pay_funding(state)
    prices.sample_premiums(state, now_ms)
    triggers.fire(state)
    twap.go_on(state)
    liquidation.look(state)
    _refresh_touched(state)
    for i in range(heap.touched_accounts):
        money.tell_account(state, state.touched_accounts[i])
    for i in range(heap.touched_positions):
        money.tell_position(state, state.touched_positions[i])
    heap.touched_accounts, heap.touched_positions = 0, 0
    for market in range(state.status[0].market_count):
        if state.markets[market].is_touched:
            state.markets[market].is_touched = 0
            markets.tell(state, market)
    heap.due_ms = _next_due(state)
    heap.height += 1
    outcome = emit(state, Kind.BLOCK, NO_ACCOUNT, -1)
    outcome.order, outcome.price, outcome.amount = heap.height, command.sequence, heap.digest


@inner
def _refresh_touched(state):
    """Bring what is told of accounts up to date; who pays funding by this touches more."""
    at = 0
    while at < state.heap[0].touched_accounts:
        margin.refresh(state, state.touched_accounts[at])
        at += 1


@inner
def _next_due(state):
    """When a block must end although nobody asks for anything (ms): for a premium, or what is unfinished."""
    heap = state.heap[0]
    if heap.circle_left > 0 or heap.funding_left > 0 or heap.triggers_left > 0:
        return heap.time_ns // 1_000_000
    for market in range(state.status[0].market_count):
        if state.markets[market].oracle > 0:
            sample_ms = (heap.sample_slot + 1) * prices.SAMPLE_MS
            return sample_ms if heap.twap_ms == 0 else min(sample_ms, heap.twap_ms)
    return heap.twap_ms


def warm() -> None:
    """Compile the entry point."""
    apply_commands(allocate(TINY), np.zeros(0, COMMAND), 0)
