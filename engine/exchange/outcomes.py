"""What a call gives: outcomes, one ack a command, and the digest over all outcomes so far."""

import numpy as np

from engine.exchange.records import OUTCOME_WORDS
from shm.kernel import apart, inner
from shm.layout import NO_ACCOUNT

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
_FACTORS = np.array([pow(int(_MIX), place + 1, 1 << 64) for place in range(OUTCOME_WORDS)], np.uint64)


@inner
def emit(state, kind, account, market):
    """Return the next outcome, blank but for these, its sequence and its time."""
    heap = state.heap[0]
    at = heap.outcomes
    heap.outcomes = at + 1
    for word in range(OUTCOME_WORDS):
        state.outcome_words[at, word] = 0
    outcome = state.outcomes[at]
    outcome.sequence, outcome.time_ns = heap.sequence, heap.time_ns
    outcome.kind, outcome.account, outcome.market, outcome.other = kind, account, market, NO_ACCOUNT
    return outcome


@apart
def seal(state, first, end):
    """Take the outcomes [first, end) into the digest; return `end`."""
    heap = state.heap[0]
    digest = np.uint64(heap.digest)
    for at in range(first, end):
        total = np.uint64(0)
        for place in range(OUTCOME_WORDS):
            word = np.uint64(state.outcome_words[at, place])
            total += (word ^ (word >> _SHIFT)) * _FACTORS[place]
        digest = (digest ^ total) * _MIX
        digest ^= digest >> _SHIFT
    heap.digest = np.int64(digest)
    return end


@inner
def answer(state, command, outcome, code, order, quantity, notional):
    """Write the one ack of this command."""
    heap = state.heap[0]
    ack = state.acks[heap.acks]
    heap.acks += 1
    ack.request, ack.sequence, ack.order = command.request, command.sequence, order
    ack.quantity, ack.notional, ack.gateway = quantity, notional, command.gateway
    ack.place, ack.count, ack.code, ack.outcome = command.place, command.count, code, outcome
    ack.market, ack.time_ms = command.market, command.time_ns // 1_000_000


# --- what a block has touched -------------------------------------------------------------------------------


@inner
def touch_account(state, account):
    """Tell of the account's money at the end of the block."""
    row = state.accounts[account]
    if row.is_touched == 0:
        row.is_touched = 1
        heap = state.heap[0]
        state.touched_accounts[heap.touched_accounts] = account
        heap.touched_accounts += 1


@inner
def look_at_all(state):
    """Every account's margin is to be looked at."""
    state.heap[0].circle_left = state.status[0].account_count


@inner
def move_marks(state):
    """What positions come to has changed without a trade."""
    state.heap[0].marks += 1
    look_at_all(state)


@inner
def touch_position(state, at):
    """Tell of a position (its row) and of its account's money at the end of the block."""
    row = state.positions[at]
    if row.is_touched == 0:
        row.is_touched = 1
        heap = state.heap[0]
        state.touched_positions[heap.touched_positions] = at
        heap.touched_positions += 1
        touch_account(state, at // len(state.markets))
