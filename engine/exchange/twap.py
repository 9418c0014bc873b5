"""Orders that are placed in slices over time, at the end of blocks: as much as is due, and near the mark.

A slice is an order of its own, that takes what it finds and does not rest. What it did not find is due with
the next ones, so far as they do not grow beyond three times their size.
"""

from engine.exchange import judging, liquidation, margin, matching, telling
from engine.exchange.arithmetic import ceil_div, share
from engine.exchange.outcomes import emit
from engine.exchange.prices import is_open
from engine.exchange.records import Kind
from shm.codes import Ack, Ask, Flag, Refusal, Side, Tif, Twap
from shm.constants import TWAPS_MAX
from shm.kernel import apart, inner

MINUTES_MIN, MINUTES_MAX = 5, 1440
MINUTE_MS, SLICE_MS = 60_000, 30_000
MINUTE_VALUE = 10 * 10**6  # that is placed in a minute, at least
AN_ACCOUNT = 20  # run of one account
CATCH_UP = 3  # slices in one
SLIPPAGE, PER_MILLE = 30, 1000  # of the mark
CHANCE = 400  # per mille of a slice, that a randomised one comes short by, at most
SLICES_A_BLOCK = 64


@inner
def judge(state, command, account):
    """Why a TWAP may not be placed."""
    market, quantity, minutes = state.markets[command.market], command.quantity, command.amount
    code = judging.judge_open(state, account, market)
    if code != Refusal.NONE:
        return code
    if quantity <= 0 or quantity > judging.QUANTITY_MAX:
        return Refusal.SIZE
    if minutes < MINUTES_MIN or minutes > MINUTES_MAX:
        return Refusal.TWAP_MINUTES
    if market.mark > market.value_max // quantity:
        return Refusal.VALUE_MAX
    size = state.positions[margin.position_of(state, account, command.market)].size
    if command.flags & Ask.REDUCE_ONLY and judging.closable_of(size, command.side) == 0:
        return Refusal.REDUCE_ONLY
    if quantity * market.mark < minutes * MINUTE_VALUE:
        return Refusal.TWAP_VALUE
    running = 0
    for at in range(state.heap[0].twap_count):
        running += state.twaps[at].account == account
    if running == AN_ACCOUNT:
        return Refusal.OPEN_ORDERS
    return Refusal.ORDERS_FULL if state.heap[0].twap_count == TWAPS_MAX else Refusal.NONE


@inner
def place(state, command, account):
    """Let a TWAP, which was judged, run; return its id."""
    heap, row = state.heap[0], state.twaps[state.heap[0].twap_count]
    heap.twaps += 1
    heap.twap_count += 1
    row.order, row.quantity, row.executed, row.notional = heap.twaps, command.quantity, 0, 0
    row.minutes, row.began_ms, row.slices = command.amount, command.time_ns // 1_000_000, 0
    row.account, row.market, row.side = account, command.market, command.side
    row.flags = Flag.REDUCE_ONLY if command.flags & Ask.REDUCE_ONLY else 0
    row.is_random = command.flags & Ask.RANDOMIZE != 0
    if heap.twap_ms == 0 or row.began_ms < heap.twap_ms:
        heap.twap_ms = row.began_ms
    _tell(state, heap.twap_count - 1, Twap.ACTIVATED)
    return row.order


@inner
def cancel(state, command, account):
    """End the account's TWAP that the command names; why not."""
    for at in range(state.heap[0].twap_count):
        row = state.twaps[at]
        if row.order == command.order and row.account == account and row.market == command.market:
            _end(state, at, Twap.TERMINATED)
            return Refusal.NONE
    return Refusal.TWAP_GONE


@apart
def go_on(state):
    """At the end of a block: place what is due, of each that runs."""
    heap, now_ms, placed, at = state.heap[0], state.heap[0].time_ns // 1_000_000, 0, 0
    if heap.twap_ms == 0 or now_ms < heap.twap_ms:
        return
    while at < heap.twap_count:
        row = state.twaps[at]
        due = (now_ms - row.began_ms) // SLICE_MS + 1
        if due <= row.slices:
            at += 1
            continue
        if placed == SLICES_A_BLOCK or liquidation.room(state) < 4 * state.status[0].order_count + 64:
            return
        placed += 1
        row.slices = due
        _slice(state, at)
        after = _outcome_of(state, at)
        if after != Twap.ACTIVATED:
            _end(state, at, after)
        else:
            at += 1
    heap.twap_ms = 0
    for i in range(heap.twap_count):
        next_ms = state.twaps[i].began_ms + SLICE_MS * state.twaps[i].slices
        if heap.twap_ms == 0 or next_ms < heap.twap_ms:
            heap.twap_ms = next_ms


@inner
def _outcome_of(state, at):
    """What has become of a TWAP by its slice."""
    row = state.twaps[at]
    if row.executed == row.quantity or row.slices > 2 * row.minutes:
        return Twap.FINISHED
    size = state.positions[margin.position_of(state, row.account, row.market)].size
    reduces = row.flags & Flag.REDUCE_ONLY != 0
    if state.heap[0].is_killed or state.accounts[row.account].is_killed:
        return Twap.TERMINATED
    return Twap.TERMINATED if reduces and judging.closable_of(size, row.side) == 0 else Twap.ACTIVATED


@inner
def _due(row):
    """How much is to be executed by now, and how much of that may come at once."""
    slices = 2 * row.minutes
    most = CATCH_UP * ceil_div(row.quantity, slices)
    if row.slices >= slices:
        return row.quantity, most
    thousandths = PER_MILLE * row.slices
    if row.is_random:
        thousandths -= matching.trade_id(row.order, row.slices) % CHANCE
    return share(row.quantity, thousandths, PER_MILLE * slices), most


@inner
def _slice(state, at):
    """Place the slice that is due, unless there is nothing to do, or nobody to trade with, or no margin."""
    heap, row, own = state.heap[0], state.twaps[at], state.own[0]
    account, market = row.account, state.markets[row.market]
    target, most = _due(row)
    quantity = min(target - row.executed, most)
    if row.flags & Flag.REDUCE_ONLY:
        size = state.positions[margin.position_of(state, account, row.market)].size
        quantity = min(quantity, judging.closable_of(size, row.side))
    if quantity <= 0 or not is_open(market) or heap.is_killed or state.accounts[account].is_killed:
        return
    slip = share(market.mark, SLIPPAGE, PER_MILLE)
    own.market, own.side, own.tif, own.quantity = row.market, row.side, Tif.IOC, quantity
    own.price = market.mark + slip if row.side == Side.BUY else market.mark - slip
    own.flags, own.time_ns = Ask.REDUCE_ONLY if row.flags else 0, heap.time_ns
    telling.forget_order(state)
    if matching.reaches(state, own.market, own.side, own.price) and judging.bears_slice(state, own, account):
        heap.orders += 1
        oid = heap.orders
        outcome = telling.tell(state, Kind.SLICE, own, account, oid)
        outcome.quantity, outcome.original, outcome.trade = quantity, quantity, row.order
        ack, code, _ = matching.execute(state, own, account, oid, quantity)
        if ack == Ack.REFUSED:
            telling.end_refused(state, own, account, oid, code)
        row.executed += heap.filled
        row.notional += heap.filled_notional
        if heap.filled > 0:
            _tell(state, at, Twap.ACTIVATED)


@inner
def _end(state, at, status):
    heap = state.heap[0]
    _tell(state, at, status)
    heap.twap_count -= 1
    for i in range(at, heap.twap_count):
        state.twaps[i] = state.twaps[i + 1]


@inner
def _tell(state, at, status):
    row = state.twaps[at]
    outcome = emit(state, Kind.TWAP, row.account, row.market)
    outcome.order, outcome.side, outcome.flags = row.order, row.side, row.flags
    outcome.quantity, outcome.original, outcome.amount = row.quantity, row.executed, row.notional
    outcome.placed_ms, outcome.trade, outcome.code = row.began_ms, row.minutes, row.is_random
    outcome.done = status
